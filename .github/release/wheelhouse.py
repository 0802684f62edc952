"""All that an installation without a network needs, in one archive."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

from . import PROJECT, ReleaseError, say
from .files import Release
from .verifying import RUNTIME

PROCESSORS = ("x86_64", "aarch64")
# pip wants every older name of a C library, too.
LIBRARIES = (
    ("manylinux_2_28", "manylinux_2_17", "manylinux2014"),
    ("musllinux_1_2", "musllinux_1_1"),
)


def wheelhouse(release: Release, directory: Path, versions: Sequence[str]) -> None:
    """Make the archive for these Pythons; prove that this one installs from it."""
    name = f"{PROJECT}-{release.version}-wheelhouse"
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary, name)
        tree.mkdir()
        environment = Path(temporary, "environment")
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pip = (str(environment / "bin" / "python"), "-m", "pip")
        for python in versions:
            for libraries in LIBRARIES:
                for processor in PROCESSORS:
                    platforms = [f"{library}_{processor}" for library in libraries]
                    _download(pip, tree, _wanted(python), python, platforms)
        shutil.copy(release.wheel, tree)
        digest = release.digests[release.wheel.name]
        own = f"{PROJECT}=={release.version} --hash=sha256:{digest}\n"
        (tree / "requirements.txt").write_text(RUNTIME.read_text() + own)
        _install(pip, tree)
        directory.mkdir(exist_ok=True)
        target = directory / f"{name}.tar.gz"
        with tarfile.open(target, "w:gz") as archive:
            archive.add(tree, name)
        say(f"{target}: {len(list(tree.glob('*.whl')))} wheels")


def _wanted(python: str) -> str:
    """What of the lock is for this Python; pip asks the one that runs it."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    wanted = ""
    for line in RUNTIME.read_text().replace("\\\n", "").splitlines():
        text, *hashes = line.split("--hash=")
        if not hashes:
            continue
        requirement = Requirement(text)
        if not requirement.marker or requirement.marker.evaluate(environment):
            requirement.marker = None
            digests = "".join(f" --hash={digest.strip()}" for digest in hashes)
            wanted += f"{requirement}{digests}\n"
    return wanted


def _download(
    pip: Sequence[str],
    tree: Path,
    wanted: str,
    python: str,
    platforms: Sequence[str],
) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as lock:
        lock.write(wanted)
        lock.flush()
        _run(
            *(*pip, "download", "--quiet", "--dest", str(tree), "--no-deps"),
            *("--require-hashes", "-r", lock.name),
            *("--only-binary", ":all:", "--python-version", python),
            *(word for platform in platforms for word in ("--platform", platform)),
        )


def _install(pip: Sequence[str], tree: Path) -> None:
    _run(
        *(*pip, "install", "--quiet", "--no-index", "--find-links", str(tree)),
        *("--require-hashes", "-r", str(tree / "requirements.txt")),
    )


def _run(*command: str) -> None:
    if subprocess.run(
        [*command, "--disable-pip-version-check"], check=False
    ).returncode:
        raise ReleaseError("the wheelhouse cannot be made: pip's reason is above")
