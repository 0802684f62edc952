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

from . import prepare, tools
from .tools import DIST, ReleaseError, git


def main(python: str) -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    build(DIST, python)
    version = Version(min(os.listdir(DIST)).split("-")[1])
    # Between the commit of a release and its tag there may be nothing new.
    (DIST / tools.NOTES).write_text("" if version.local else prepare.notes(version))
    tools.write_manifest(DIST)
    tools.say((DIST / tools.MANIFEST).read_text())


def build(target: Path, python: str) -> None:
    """Build the sdist from a clean clone, and the wheel from the sdist alone."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise ReleaseError(
            "this clone is shallow, so its version would be wrong: "
            "get the rest with git fetch --unshallow --tags"
        )
    # Nothing else of this process's environment can have a say.
    env = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    env |= {"LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": str(commit_time())}
    # Neither the user's settings nor hooks decide about the bytes.
    plain = ("git", "-c", "core.autocrlf=false", "-c", "core.hooksPath=/dev/null")

    def do(*command: str) -> None:
        advice = f"{Path(command[0]).name} failed"
        tools.run(*command, env=env, umask=0o022, show=True, advice=advice)

    with tempfile.TemporaryDirectory() as temporary:
        clone, made = f"{temporary}/clone", f"{temporary}/made"
        builder = tools.environment(Path(temporary, "environment"), python, "build")
        do(*plain, "clone", "-q", "--no-checkout", ".", clone)
        do(*plain, "-C", clone, "checkout", "-q", "--detach", git("rev-parse", "HEAD"))
        options = ("--no-isolation", "--outdir", made, clone)
        do(str(builder), "-I", "-m", "build", *options)
        target.mkdir(parents=True)
        for path in Path(made).iterdir():
            copy = normalise if path.suffix == ".gz" else shutil.copyfile
            copy(path, target / path.name)


def commit_time() -> int:
    return int(git("log", "-1", "--format=%ct"))


def normalise(source: Path, target: Path) -> None:
    """Write the sdist anew, with nothing in it but names, contents and x bits."""
    with tarfile.open(source) as archive:
        files = [
            (member.name, file.read(), bool(member.mode & 0o100))
            for member in archive
            if (file := archive.extractfile(member))
        ]
    pack(target, files)


def pack(target: Path, files: Iterable[tuple[str, bytes, bool]]) -> None:
    epoch = commit_time()
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
