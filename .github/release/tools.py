"""What the steps of a release have in common."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
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
UV = (sys.executable, "-m", "uv")


class ReleaseError(SystemExit):
    """The release cannot go on; the text is one line that says what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(f"refused: {text}")


def run(*command: str, advice: str, show: bool = False, **options: Any) -> str:
    """The output of a command; when it fails, refuse with the advice and its end."""
    given: dict[str, Any] = {"capture_output": True, "text": True, **options}
    result = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, **given)
    if result.returncode:
        told = result.stdout + result.stderr
        if show:
            print(told)
        *_, last = ["no reason given", *filter(str.strip, told.splitlines())]
        raise ReleaseError(f"{advice} ({last.strip()})")
    return str(result.stdout)


def environment(directory: Path, python: str, lock: Path, *options: str) -> str:
    """The interpreter of a new environment with exactly what a lock lists."""
    command = (*UV, "venv", "--quiet", f"--python={python}", str(directory))
    run(*command, advice=f"{python} makes no environment")
    interpreter = str(directory / "bin" / "python")
    install(interpreter, lock, *options)
    return interpreter


def install(python: str, lock: Path, *options: str) -> None:
    exactly = ("--require-hashes", "--only-binary=:all:", f"--requirements={lock}")
    command = (*UV, "pip", "install", "--quiet", f"--python={python}", *exactly)
    run(*command, *options, advice="nothing can be installed; is there a network?")


def git(*arguments: str) -> str:
    """What git says. Of a checkout of another user its last line is the cure."""
    env = {**os.environ, "LC_ALL": "C"}
    return run("git", *arguments, env=env, advice=f"git {arguments[0]} failed").strip()


def version_tags() -> list[str]:
    return [*filter(TAG.fullmatch, git("tag", "--points-at", "HEAD").split())]


def tagged_version() -> Version:
    tags = version_tags()
    if len(tags) != 1:
        raise ReleaseError(
            f"this commit has {' and '.join(tags) or 'no version tag'}: a release has "
            "one version tag; check out its commit, or see nox -s release -- VERSION"
        )
    return Version(tags[0][1:])


def digests_in(directory: Path) -> dict[str, str]:
    paths = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def read_manifest() -> dict[str, str]:
    """The digest of each file in dist/, if they are as they were built."""
    run(str(GITHUB / "scripts" / "receive"), advice="nox -s build makes it anew")
    return digests_in(DIST)


def distributions(version: object) -> tuple[str, str, str]:
    """The wheelhouse is called as an sdist, as pypi-attestations signs no other."""
    of = f"{PROJECT}-{version}"
    wheelhouse = f"{PROJECT}_wheelhouse-{version}.tar.gz"
    return f"{of}.tar.gz", f"{of}-py3-none-any.whl", wheelhouse
