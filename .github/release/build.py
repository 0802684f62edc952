"""Build the commit that is checked out, reproducibly, into dist/."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.version import Version

from . import prepare
from .tools import (
    DIST,
    NOTES,
    ReleaseError,
    environment,
    git,
    read_manifest,
    run,
    say,
    write_manifest,
)


def main(python: str) -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        build(DIST, environment(Path(temporary, "environment"), python, "build"))
    version = Version(min(os.listdir(DIST)).split("-")[1])
    # Between the commit of a release and its tag there may be nothing new.
    (DIST / NOTES).write_text("" if version.local else prepare.notes(version))
    write_manifest(DIST)
    for name, digest in read_manifest().items():
        say(f"{digest}  {name}")


def build(target: Path, python: Path) -> None:
    """Build the sdist from a clean clone, and the wheel from the sdist alone."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise ReleaseError(
            "this clone is shallow, so its version would be wrong: "
            "get the rest with git fetch --unshallow --tags"
        )
    epoch = commit_time()
    # Nothing else of this process's environment can have a say.
    env = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    env |= {"LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": str(epoch)}
    with tempfile.TemporaryDirectory() as temporary:
        clone, made = Path(temporary, "clone"), Path(temporary, "made")

        def do(*command: str) -> None:
            name = Path(command[0]).name
            run(*command, env=env, umask=0o022, show=True, advice=f"{name} failed")

        def make(kind: str, source: Path) -> Path:
            options = ("--no-isolation", f"--{kind}", "--outdir", str(made))
            do(str(python), "-I", "-m", "build", *options, str(source))
            (path,) = made.glob("*.whl" if kind == "wheel" else "*.tar.gz")
            return path

        # Neither the user's settings nor hooks decide about the bytes.
        plain = ("git", "-c", "core.autocrlf=false", "-c", "core.hooksPath=/dev/null")
        do(*plain, "clone", "-q", "--no-checkout", ".", str(clone))
        commit = git("rev-parse", "HEAD")
        do(*plain, "-C", str(clone), "checkout", "-q", "--detach", commit)
        target.mkdir(parents=True)
        sdist = make("sdist", clone)
        normalise(sdist, target / sdist.name, epoch)
        do("tar", "-xzf", str(target / sdist.name), "-C", temporary)
        wheel = make("wheel", Path(temporary, sdist.name.removesuffix(".tar.gz")))
        shutil.copyfile(wheel, target / wheel.name)


def commit_time() -> int:
    return int(git("log", "-1", "--format=%ct"))


def normalise(source: Path, target: Path, epoch: int) -> None:
    """Write the sdist anew, with nothing in it but names, contents and x bits."""
    with tarfile.open(source) as archive:
        files = [
            (member.name, file.read(), bool(member.mode & 0o100))
            for member in archive
            if (file := archive.extractfile(member))
        ]
    pack(target, files, epoch)


def pack(target: Path, files: Iterable[tuple[str, bytes, bool]], epoch: int) -> None:
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content, executable in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), epoch
            member.mode = 0o755 if executable else 0o644
            archive.addfile(member, io.BytesIO(content))
