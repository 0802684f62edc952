"""All that an installation without a network needs, in one archive."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from . import PROJECT, ReleaseError, say
from .files import Release
from .verifying import RUNTIME

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PROCESSORS = ("x86_64", "aarch64")
# pip wants every older name of a C library, too.
LIBRARIES = (
    ("manylinux_2_28", "manylinux_2_17", "manylinux2014"),
    ("musllinux_1_2", "musllinux_1_1"),
)


def wheelhouse(release: Release, directory: Path) -> Path:
    """Make the archive, and prove that this Python installs from it."""
    name = f"{PROJECT}-{release.version}-wheelhouse"
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary, name)
        tree.mkdir()
        for python in PYTHONS:
            for libraries in LIBRARIES:
                for processor in PROCESSORS:
                    _download(tree, python, [f"{lib}_{processor}" for lib in libraries])
        shutil.copy(release.wheel, tree)
        digest = release.digests[release.wheel.name]
        own = f"{PROJECT}=={release.version} --hash=sha256:{digest}\n"
        (tree / "requirements.txt").write_text(RUNTIME.read_text() + own)
        _try(tree, Path(temporary, "environment"))
        directory.mkdir(exist_ok=True)
        target = directory / f"{name}.tar.gz"
        with tarfile.open(target, "w:gz") as archive:
            archive.add(tree, name)
        say(f"{target}: {len(list(tree.glob('*.whl')))} wheels")
    return target


def _download(tree: Path, python: str, platforms: list[str]) -> None:
    _pip(
        *(sys.executable, "-m", "pip", "download", "--quiet"),
        *("--require-hashes", "-r", str(RUNTIME), "--dest", str(tree)),
        *("--only-binary", ":all:", "--python-version", python),
        *(word for platform in platforms for word in ("--platform", platform)),
    )


def _try(tree: Path, environment: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    _pip(
        *(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"),
        *("--no-index", "--find-links", str(tree), "--require-hashes"),
        *("-r", str(tree / "requirements.txt")),
    )


def _pip(*command: str) -> None:
    if subprocess.run(
        [*command, "--disable-pip-version-check"], check=False
    ).returncode:
        raise ReleaseError("the wheelhouse cannot be made: pip's reason is above")
