"""Whether dist/ is what anybody builds of this commit, and what the indexes take."""

from __future__ import annotations

import re
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from . import build, tools, verify
from .tools import DIST, PROJECT, ReleaseError, git

# git writes into the first, setuptools makes or writes anew the others.
MADE = re.compile(rf"\.git_archival\.txt|setup\.cfg|PKG-INFO|{PROJECT}\.egg-info/.*")


def main(python: str) -> None:
    version, digests = tools.tagged_version(), tools.read_manifest()
    names = tools.distributions(version)
    if {*digests} != {tools.NOTES, *names}:
        raise ReleaseError(
            f"{DIST} has {', '.join(digests)}, and the tag here is v{version}: "
            "build again with nox -s build"
        )
    sdist, wheel, _ = (DIST / name for name in names)
    demand_files_of_git(sdist, wheel)
    for index in verify.INDEXES:
        verify.missing(index, version, digests)
    # In a place with a longer name.
    with tempfile.TemporaryDirectory() as place:
        again = Path(place, "another", "dist")
        build.build(again, python)
        for name, digest in tools.digests_in(again).items():
            if digest != digests[name]:
                raise ReleaseError(
                    f"another build of {name} differs: either it was changed, or find "
                    "what depends on the place, time or interpreter"
                )
    for tool, *arguments in (
        ("twine", "check", "--strict", str(sdist), str(wheel)),
        ("check_wheel_contents", f"--toplevel={PROJECT}", str(wheel)),
        ("pyroma", "--min=10", "--skip-tests=AuthorEmail", str(sdist)),
    ):
        advice = f"{tool} has objections, see above"
        tools.run(sys.executable, "-m", tool, *arguments, advice=advice, show=True)
    print(f"{PROJECT} {version}: as in git, reproducible, and as the indexes want")


def demand_files_of_git(sdist: Path, wheel: Path) -> None:
    """What is packed is what git has, and nothing of the package is compiled."""
    paths = filter(Path.is_file, map(Path, git("ls-files").splitlines()))
    committed = {str(path): path.read_bytes() for path in paths}
    package = {k: v for k, v in committed.items() if k.startswith(f"{PROJECT}/")}
    if compiled := [name for name, content in package.items() if b"\0" in content]:
        raise ReleaseError(f"{compiled[0]} is compiled: it runs on one system only")
    with tarfile.open(sdist) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar]
        whole = {name.partition("/")[2]: file.read() for name, file in files if file}
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        part = {name: archive.read(name) for name in names}
    for path, packed, wanted in ((sdist, whole, committed), (wheel, part, package)):
        for name in sorted(packed.keys() | wanted.keys()):
            if not MADE.fullmatch(name) and packed.get(name) != wanted.get(name):
                raise ReleaseError(f"{path.name} is unlike git in {name}")
