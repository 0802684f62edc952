"""What the steps of a release have in common."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

PROJECT = "pychrony"
BRANCH = "main"
# As tag_regex of setuptools-scm in pyproject.toml.
TAG = re.compile(r"v[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?")
DIST = Path("dist")
# In the format of sha256sum, so that users can check their downloads with it.
MANIFEST = "SHA256SUMS"
NOTES = "NOTES.md"
LOCKS = Path(__file__).parents[1] / "locks"


class ReleaseError(Exception):
    """The release cannot go on; the text is one line that says what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def run(
    *command: str,
    advice: str,
    env: Mapping[str, str] | None = None,
    umask: int = -1,
    show: bool = False,
) -> None:
    """Run a command; when it fails, refuse with the advice and its last line."""
    result = subprocess.run(
        command,
        env=env,
        umask=umask,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        if show:
            say(result.stdout)
        *_, last = ["no reason given", *filter(str.strip, result.stdout.splitlines())]
        raise ReleaseError(f"{advice} ({last.strip()})")


def environment(directory: Path, python: str, lock: str) -> Path:
    """An interpreter of a new environment with exactly what a lock lists."""
    uv = (sys.executable, "-m", "uv", "venv", "--quiet", "--python", python)
    run(*uv, str(directory), advice=f"{python} makes no environment")
    interpreter = directory / "bin" / "python"
    install(interpreter, "-r", str(LOCKS / f"{lock}.txt"))
    return interpreter


def install(
    python: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> None:
    uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--require-hashes")
    run(
        *(*uv, "--only-binary", ":all:", "--python", str(python), *arguments),
        env=env,
        advice="uv cannot install what is needed; is there a network?",
    )


def git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments],
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if "dubious ownership" in result.stderr:
        raise ReleaseError(
            f"{Path.cwd()} belongs to another user, so git does not read it: "
            "work in a clone of your own, or add it to safe.directory of git's settings"
        )
    if result.returncode:
        *_, last = ["no reason given", *result.stderr.strip().splitlines()]
        raise ReleaseError(f"git {arguments[0]} failed: {last}")
    return result.stdout.strip()


def demand_clean() -> None:
    changes = git("status", "--porcelain").splitlines()
    if changes:
        more = f" and {len(changes) - 1} more" if changes[1:] else ""
        raise ReleaseError(
            f"the working tree is not clean ({changes[0].strip()}{more}): "
            "commit, stash or ignore it first"
        )


def tagged_version() -> Version:
    found = git("tag", "--points-at", "HEAD").split()
    tags = [tag for tag in found if TAG.fullmatch(tag)]
    if not tags:
        raise ReleaseError(
            "this commit has no version tag: check out the tag of the release, "
            "or make one with: nox -s release -- VERSION"
        )
    if len(tags) > 1:
        raise ReleaseError(
            f"this commit has more than one version tag, {' and '.join(tags)}: "
            "a release has one; delete the others"
        )
    return Version(tags[0][1:])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(directory: Path) -> None:
    paths = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    lines = [f"{sha256(path)}  {path.name}\n" for path in paths]
    (directory / MANIFEST).write_text("".join(lines))


def read_manifest(directory: Path = DIST) -> dict[str, str]:
    """The digest of each file in the directory, if they are as they were built."""
    again = "build again with nox -s build"
    try:
        lines = (directory / MANIFEST).read_text("ascii").splitlines()
        listed = {line[66:]: line[:64] for line in lines}
        found = {path.name: sha256(path) for path in directory.iterdir()}
    except FileNotFoundError:
        raise ReleaseError(f"{directory} has no {MANIFEST}: {again}") from None
    except (OSError, UnicodeError) as error:
        raise ReleaseError(f"{directory} cannot be read ({error}): {again}") from None
    del found[MANIFEST]
    for name, _ in sorted(listed.items() ^ found.items()):
        raise ReleaseError(f"{directory} and its {MANIFEST} differ in {name}: {again}")
    return listed


def distributions(version: object) -> tuple[str, str]:
    return f"{PROJECT}-{version}.tar.gz", f"{PROJECT}-{version}-py3-none-any.whl"
