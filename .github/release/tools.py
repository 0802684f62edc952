"""What the steps of a release have in common."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

PROJECT = "pychrony"
BRANCH = "main"
# As tag_regex of setuptools-scm in pyproject.toml.
TAG = re.compile(r"v[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?")
DIST = Path("dist")
# In the format of sha256sum, so that users can check their downloads with it.
MANIFEST = "SHA256SUMS"
NOTES = "NOTES.md"
GITHUB = Path(__file__).parents[1]
LOCKS = GITHUB / "locks"


class ReleaseError(Exception):
    """The release cannot go on; the text is one line that says what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def run(*command: str, advice: str, show: bool = False, **options: Any) -> str:
    """The output of a command; when it fails, refuse with the advice and its end."""
    given: dict[str, Any] = {"capture_output": True, "text": True, **options}
    result = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, **given)
    if result.returncode:
        told = result.stdout + result.stderr
        if show:
            say(told)
        *_, last = ["no reason given", *filter(str.strip, told.splitlines())]
        raise ReleaseError(f"{advice} ({last.strip()})")
    return str(result.stdout)


def environment(directory: Path, python: str, lock: str = "") -> Path:
    """An interpreter of a new environment with exactly what a lock lists."""
    uv = (sys.executable, "-m", "uv", "venv", "--quiet", "--python", python)
    run(*uv, str(directory), advice=f"{python} makes no environment")
    interpreter = directory / "bin" / "python"
    if lock:
        install(interpreter, "-r", str(LOCKS / f"{lock}.txt"))
    return interpreter


def install(
    python: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> None:
    uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--require-hashes")
    own = ("--only-binary", ":all:", "--python", str(python), *arguments)
    run(*uv, *own, env=env, advice="nothing can be installed; is there a network?")


def git(*arguments: str) -> str:
    """What git says. Of a checkout of another user its last line is the cure."""
    env = {**os.environ, "LC_ALL": "C"}
    return run("git", *arguments, env=env, advice=f"git {arguments[0]} failed").strip()


def demand_clean() -> None:
    changes = git("status", "--porcelain").splitlines()
    if changes:
        raise ReleaseError(
            f"the working tree is not clean ({changes[0].strip()}, {len(changes)} in "
            "all): commit, stash or ignore it first"
        )


def tagged_version() -> Version:
    tags = [*filter(TAG.fullmatch, git("tag", "--points-at", "HEAD").split())]
    if len(tags) != 1:
        raise ReleaseError(
            f"this commit has {' and '.join(tags) or 'no version tag'}: a release has "
            "one version tag; check out its commit, or see nox -s release -- VERSION"
        )
    return Version(tags[0][1:])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests_in(directory: Path) -> dict[str, str]:
    paths = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    return {path.name: sha256(path) for path in paths}


def write_manifest(directory: Path) -> None:
    lines = [f"{digest}  {name}\n" for name, digest in digests_in(directory).items()]
    (directory / MANIFEST).write_text("".join(lines))


def read_manifest() -> dict[str, str]:
    """The digest of each file in dist/, if they are as they were built."""
    run(str(GITHUB / "scripts" / "receive"), advice="nox -s build makes it anew")
    lines = (DIST / MANIFEST).read_text().splitlines()
    return {line[66:]: line[:64] for line in lines}


def distributions(version: object) -> tuple[str, str]:
    return f"{PROJECT}-{version}.tar.gz", f"{PROJECT}-{version}-py3-none-any.whl"
