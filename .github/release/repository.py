"""What git knows of a working tree."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from packaging.version import InvalidVersion, Version

from . import ReleaseError

BRANCH = "main"
# As tag_regex of setuptools-scm in pyproject.toml.
TAG = re.compile(r"v[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?")


def git(repository: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        reason = (result.stderr.strip() or "no reason given").splitlines()[-1]
        raise ReleaseError(f"git {arguments[0]} failed: {reason}")
    return result.stdout.strip()


def version_of(text: str) -> Version:
    """A version that a tag can have, written in its one canonical form."""
    try:
        version = Version(text)
    except InvalidVersion:
        version = None
    if version is None or str(version) != text or not TAG.fullmatch(f"v{text}"):
        raise ReleaseError(
            f"{text!r} is no version of a release: write it like 1.2.0 or 1.2.0rc1"
        )
    return version


def tags(repository: Path) -> list[str]:
    """The version tags of the commit that is checked out."""
    found = git(repository, "tag", "--points-at", "HEAD").split()
    return [tag for tag in found if TAG.fullmatch(tag)]


def tagged_version(repository: Path) -> Version:
    match tags(repository):
        case [tag]:
            return version_of(tag[1:])
        case []:
            raise ReleaseError(
                "this commit has no version tag: check out the tag of the release, "
                "or make one with: nox -s release -- VERSION"
            )
        case several:
            raise ReleaseError(
                f"this commit has more than one version tag, {' and '.join(several)}: "
                "a release has one; delete the others"
            )


def demand_clean(repository: Path) -> None:
    changes = git(repository, "status", "--porcelain").splitlines()
    if changes:
        more = f" and {len(changes) - 1} more" if changes[1:] else ""
        raise ReleaseError(
            f"the working tree is not clean ({changes[0].strip()}{more}): "
            "commit, stash or ignore it first"
        )


def tracked(repository: Path) -> dict[str, bytes]:
    """Every file of the commit that is checked out, as git stores it."""
    names = git(repository, "ls-tree", "-r", "-z", "--name-only", "HEAD")
    wanted = [name for name in names.split("\0") if name]
    output = subprocess.run(
        ["git", "-C", str(repository), "cat-file", "--batch=%(objectsize)"],
        input="".join(f"HEAD:{name}\n" for name in wanted).encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    files = {}
    for name in wanted:
        size, _, output = output.partition(b"\n")
        files[name], output = output[: int(size)], output[int(size) + 1 :]
    return files
