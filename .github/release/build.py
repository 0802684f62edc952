"""Build the commit that is checked out, reproducibly, into dist/."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

from . import prepare, tools, wheelhouse
from .tools import DIST, ReleaseError, git, run


def main(python: str, *pythons: str) -> None:
    """At a version tag, also make its notes, and a wheelhouse for these versions."""
    shutil.rmtree(DIST, ignore_errors=True)
    version = tools.tagged_version() if tools.version_tags() else None
    notes = prepare.notes(version) if version else ""
    build(DIST, python)
    if version:
        (DIST / tools.NOTES).write_text(notes)
        _, wheel, name = tools.distributions(version)
        with tempfile.TemporaryDirectory() as temporary:
            tree = Path(temporary, name.removesuffix(".tar.gz"))
            wheelhouse.fill(tree, DIST / wheel, version, pythons)
            pack(tree, DIST / name)
    lines = [f"{digest}  {name}\n" for name, digest in tools.digests_in(DIST).items()]
    (DIST / tools.MANIFEST).write_text("".join(lines))
    print("".join(lines))


def build(target: Path, python: str) -> None:
    """Build the sdist from a clean clone, and the wheel from the sdist alone."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise ReleaseError(
            "this clone is shallow, so its version would be wrong: "
            "get the rest with git fetch --unshallow --tags"
        )
    # Nothing else of this process's environment can have a say.
    env = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    env |= {"LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": commit_time()}
    do = partial(run, env=env, umask=0o022, show=True, advice="it cannot be built")
    # Neither the user's settings nor hooks decide about the bytes.
    plain = ("git", "-c", "core.autocrlf=false", "-c", "core.hooksPath=/dev/null")
    with tempfile.TemporaryDirectory() as temporary:
        clone, made = f"{temporary}/clone", Path(temporary, "made")
        do(*plain, "clone", "-q", "--no-checkout", ".", clone)
        do(*plain, "-C", clone, "checkout", "-q", "--detach", git("rev-parse", "HEAD"))
        place = Path(temporary, "environment")
        builder = tools.environment(place, python, tools.LOCKS / "build.txt")
        options = ("--no-isolation", "--outdir", str(made), clone)
        do(builder, "-I", "-m", "build", *options)
        wheel, sdist = sorted(made.iterdir())
        target.mkdir(parents=True)
        shutil.copyfile(wheel, target / wheel.name)
        do("tar", "-C", temporary, "-xf", str(sdist))
        tree = Path(temporary, sdist.name.removesuffix(".tar.gz"))
        pack(tree, target / sdist.name)


def commit_time() -> str:
    return git("log", "-1", "--format=%ct")


def pack(tree: Path, target: Path) -> None:
    """The directory with nothing in it but names, contents and x bits."""
    run(
        *("tar", "--create", f"--file={target}", "--use-compress-program=gzip -9n"),
        *("--format=pax", "--pax-option=delete=atime,delete=ctime", "--sort=name"),
        *("--numeric-owner", "--owner=0", "--group=0", "--mode=a+rX,u+w,go-w"),
        *(f"--mtime=@{commit_time()}", f"--directory={tree.parent}", tree.name),
        advice=f"{target.name} cannot be packed",
    )
