"""Whether dist/ is what anybody builds of this commit, and what the indexes take."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from . import build, verify
from .tools import (
    DIST,
    NOTES,
    PROJECT,
    ReleaseError,
    distributions,
    environment,
    read_manifest,
    run,
    say,
    sha256,
    tagged_version,
)


def main(python: str) -> None:
    version, digests = tagged_version(), read_manifest()
    wanted = {NOTES, *distributions(version), f"{PROJECT}_wheelhouse-{version}.tar.gz"}
    for name in sorted(wanted ^ digests.keys()):
        kind = "lacks" if name in wanted else "has"
        raise ReleaseError(
            f"{DIST} {kind} {name}, and the tag here is v{version}: build again with "
            "nox -s build wheelhouse"
        )
    sdist, wheel = (DIST / name for name in distributions(version))
    check_files(sdist, wheel)
    with tempfile.TemporaryDirectory() as temporary:
        rebuild(Path(temporary), python, digests)
    for tool, *arguments in (
        ("twine", "check", "--strict", str(sdist), str(wheel)),
        ("check_wheel_contents", str(wheel)),
        ("pyroma", "--min=10", "--skip-tests=AuthorEmail", str(sdist)),
    ):
        command = (sys.executable, "-m", tool, *arguments)
        run(*command, advice=f"{tool} has objections, see above", show=True)
    for index in verify.INDEXES:
        verify.missing(index, version, digests)
    say(f"{PROJECT} {version}: reproducible, as in git, and as the indexes want it")


def rebuild(place: Path, python: str, digests: Mapping[str, str]) -> None:
    """Another interpreter makes the same bytes in a place with a longer name."""
    build.build(place / "another" / "dist", environment(place / "one", python, "build"))
    for path in sorted((place / "another" / "dist").iterdir()):
        if sha256(path) != digests[path.name]:
            raise ReleaseError(
                f"another build of {path.name} differs, with {python}: either it was "
                "changed, or find what depends on the place, time or interpreter"
            )


def check_files(sdist: Path, wheel: Path) -> None:
    """The distributions have the files of git, and nothing that is compiled."""
    archive = subprocess.check_output(["git", "archive", "--format=tar", "HEAD"])
    committed = contents(archive)
    top = f"{wheel.name.partition('-py3')[0]}/"
    sources = contents(gzip.decompress(sdist.read_bytes()), top)
    with zipfile.ZipFile(wheel) as packed:
        installed = {name: packed.read(name) for name in packed.namelist()}
    # git writes into the first, setuptools makes or writes anew the others.
    for name in (".git_archival.txt", "setup.cfg", "PKG-INFO"):
        sources.pop(name, None)
        committed.pop(name, None)
    compare(sdist, sources, committed, f"{PROJECT}.egg-info/")
    package = {n: data for n, data in committed.items() if n.startswith(f"{PROJECT}/")}
    compare(wheel, installed, package, ".dist-info/")


def contents(data: bytes, top: str = "") -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {m.name.removeprefix(top): archive.extractfile(m) for m in archive}
        return {name: file.read() for name, file in files.items() if file}


def compare(
    archive: Path, found: Mapping[str, bytes], wanted: Mapping[str, bytes], info: str
) -> None:
    for name, _ in sorted(found.items() ^ wanted.items()):
        if info in name:
            continue
        kind = "lacks" if name not in found else "has its own"
        raise ReleaseError(
            f"{archive.name} {kind} {name}, unlike git: see what setup.cfg says of "
            "packages, and build again with nox -s build"
        )
    for name, data in found.items():
        if data[:4] == b"\x7fELF" or name.endswith((".so", ".pyd", ".pyc")):
            raise ReleaseError(
                f"{archive.name} has compiled code, {name}, so it would run on one "
                "system only: remove it from the tree and build again"
            )
