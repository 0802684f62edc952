"""Whether dist/ is what anybody builds of this commit, and what the indexes take."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import build, tools, verify
from .tools import DIST, PROJECT, ReleaseError, run


def main(python: str) -> None:
    version, digests = tools.tagged_version(), tools.read_manifest()
    names = tools.distributions(version)
    wanted = {tools.NOTES, *names, f"{PROJECT}_wheelhouse-{version}.tar.gz"}
    for name in sorted(wanted ^ digests.keys()):
        kind = "lacks" if name in wanted else "has"
        raise ReleaseError(
            f"{DIST} {kind} {name}, and the tag here is v{version}: build again with "
            "nox -s build wheelhouse"
        )
    sdist, wheel = (DIST / name for name in names)
    # The other checks take as long as another build, in a place with a longer name.
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor() as pool:
        again = Path(place, "another", "dist")
        built = pool.submit(build.build, again, python)
        demand_files_of_git(sdist, sdist.name.removesuffix(".tar.gz"), ".")
        demand_files_of_git(wheel, PROJECT, PROJECT)
        for tool, *arguments in (
            ("twine", "check", "--strict", str(sdist), str(wheel)),
            ("check_wheel_contents", f"--toplevel={PROJECT}", str(wheel)),
            ("pyroma", "--min=10", "--skip-tests=AuthorEmail", str(sdist)),
        ):
            command = (sys.executable, "-m", tool, *arguments)
            run(*command, advice=f"{tool} has objections, see above", show=True)
        for index in verify.INDEXES:
            verify.missing(index, version, digests)
        built.result()
        demand_same(again, digests)
    tools.say(f"{PROJECT} {version}: as in git, reproducible, and as the indexes want")


def demand_same(built: Path, digests: Mapping[str, str]) -> None:
    for name, digest in tools.digests_in(built).items():
        if digest != digests[name]:
            raise ReleaseError(
                f"another build of {name} differs: either it was changed, or find "
                "what depends on the place, time or interpreter"
            )


def unpack(archive: Path, place: Path) -> None:
    """Unpack a wheel, or a tar archive; Pythons disagree about how to do that."""
    if archive.suffix == ".whl":
        shutil.unpack_archive(archive, place, "zip")
        return
    place.mkdir()
    command = ("tar", "-xf", str(archive), "-C", str(place))
    run(*command, advice=f"{archive.name} cannot be unpacked")


def demand_files_of_git(archive: Path, top: str, part: str) -> None:
    """What is packed under the name `top` is that part of git, and not compiled."""
    with tempfile.TemporaryDirectory() as place:
        packed, committed = Path(place, "packed"), Path(place, "git")
        tools.git("archive", f"--output={committed}.tar", "HEAD", part)
        unpack(archive, packed)
        unpack(committed.with_suffix(".tar"), committed)
        # git writes into the first, setuptools makes or writes anew the others.
        made = (".git_archival.txt", "setup.cfg", "PKG-INFO", f"{PROJECT}.egg-info")
        options = ["--recursive", "--brief", *(f"--exclude={name}" for name in made)]
        pair = (f"packed/{top}", f"git/{part}")
        advice = f"{archive.name} is unlike git: see what setup.cfg says of packages"
        run("diff", *options, *pair, cwd=place, advice=advice)
        for path in filter(Path.is_file, packed.rglob("*")):
            compiled = path.suffix in (".so", ".pyd", ".pyc")
            if compiled or path.read_bytes().startswith(b"\x7fELF"):
                raise ReleaseError(
                    f"{archive.name} has compiled code, {path.name}, so it would run "
                    "on one system only: remove it from the tree and build again"
                )
