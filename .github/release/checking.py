"""Whether what was built is what git has, and what an index will take."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from . import PROJECT, ReleaseError, files, run_quietly, say
from .files import Release
from .repository import tagged_version, tracked

COMPILED = {".so", ".pyd", ".dylib", ".dll", ".o", ".a", ".pyc"}
# setuptools writes this one anew; see also PKG-INFO and the egg-info.
REWRITTEN = "setup.cfg"


def check(repository: Path, directory: Path) -> None:
    release = files.open_release(directory)
    check_contents(repository, release)
    sdist, wheel = str(release.sdist), str(release.wheel)
    _tool("twine", "check", "--strict", sdist, wheel)
    _tool("check_wheel_contents", wheel)
    # The metadata names no address: the project has no home to be reached at.
    _tool("pyroma", "--min=10", "--skip-tests=AuthorEmail,Url", sdist)
    say(f"{PROJECT} {release.version}: the files are as git and the indexes want them")


def check_contents(repository: Path, release: Release) -> None:
    check_version(repository, release)
    committed = tracked(repository)
    check_wheel(release, committed)
    check_sdist(release, committed)


def check_version(repository: Path, release: Release) -> None:
    if release.version.local or release.version.is_devrelease:
        raise ReleaseError(
            f"{release.version} is a local or development version, which no index "
            "takes: check out the tag of a release and build again"
        )
    tagged = tagged_version(repository)
    if release.version != tagged:
        raise ReleaseError(
            f"{release.version} was built, but the tag of this commit is v{tagged}: "
            "build again with nox -s build"
        )


def check_wheel(release: Release, committed: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(release.wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    metadata = f"{PROJECT}-{release.version}.dist-info/"
    check_compiled(release.wheel, contents)
    if b"\nRoot-Is-Purelib: true\n" not in contents.get(f"{metadata}WHEEL", b""):
        raise ReleaseError(f"{release.wheel.name} does not say that it is pure Python")
    compare(
        release.wheel,
        {
            name: content
            for name, content in contents.items()
            if not name.startswith(metadata)
        },
        {
            name: content
            for name, content in committed.items()
            if name.startswith(f"{PROJECT}/")
        },
    )


def check_sdist(release: Release, committed: Mapping[str, bytes]) -> None:
    top = f"{PROJECT}-{release.version}/"
    contents = {}
    with tarfile.open(release.sdist) as archive:
        for member in archive:
            file = archive.extractfile(member)
            contents[member.name.removeprefix(top)] = file.read() if file else b""
    check_compiled(release.sdist, contents)
    made = {"PKG-INFO", REWRITTEN}
    compare(
        release.sdist,
        {
            name: content
            for name, content in contents.items()
            if name not in made and not name.startswith(f"{PROJECT}.egg-info/")
        },
        {name: content for name, content in committed.items() if name != REWRITTEN},
    )


def check_compiled(archive: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        if PurePosixPath(name).suffix in COMPILED or content[:4] == b"\x7fELF":
            raise ReleaseError(
                f"{archive.name} has compiled code, {name}: it would run on one system "
                "only; remove it from the tree and build again"
            )


def compare(
    archive: Path, contents: Mapping[str, bytes], wanted: Mapping[str, bytes]
) -> None:
    for name in sorted(contents.keys() | wanted.keys()):
        if name not in contents:
            raise ReleaseError(
                f"{archive.name} lacks {name}, which git has: "
                "see what setup.cfg says of packages, and build again"
            )
        if name not in wanted:
            raise ReleaseError(
                f"{archive.name} has {name}, which git has not: "
                "build again with nox -s build"
            )
        if contents[name] != wanted[name]:
            raise ReleaseError(
                f"{archive.name} has another {name} than git: "
                "build again with nox -s build"
            )


def _tool(module: str, *arguments: str) -> None:
    result = run_quietly(sys.executable, "-m", module, *arguments)
    if result.returncode:
        say(result.stdout)
        raise ReleaseError(f"{module} {arguments[0]} has objections: see them above")
