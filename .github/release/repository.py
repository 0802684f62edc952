"""What git knows of a working tree."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from packaging.version import InvalidVersion, Version

from . import Refusal

BRANCH = "main"
# As tag_regex of setuptools-scm in pyproject.toml.
TAG = re.compile(r"v[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?")


def git(repository: Path, *arguments: str) -> str:
    # Of a hook that started this, they name another repository.
    env = {name: os.environ[name] for name in os.environ if name[:4] != "GIT_"}
    result = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        env=env | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        reason = (result.stderr.strip() or "no reason given").splitlines()[-1]
        raise Refusal(f"git {arguments[0]} failed: {reason}")
    return result.stdout.strip()


def version_of(text: str) -> Version:
    """A version that a tag can have, written in its one canonical form."""
    try:
        version = Version(text)
    except InvalidVersion:
        version = None
    if version is None or str(version) != text or not TAG.fullmatch(f"v{text}"):
        raise Refusal(
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
            raise Refusal(
                "this commit has no version tag: check out the tag of the release, "
                "or make one with: nox -s release -- VERSION"
            )
        case several:
            raise Refusal(
                f"this commit has more than one version tag, {' and '.join(several)}: "
                "a release has one; delete the others"
            )


def demand_clean(repository: Path) -> None:
    changes = git(repository, "status", "--porcelain").splitlines()
    if changes:
        raise Refusal(
            f"the working tree is not clean ({changes[0].strip()}"
            f"{f' and {len(changes) - 1} more' if changes[1:] else ''}): commit, "
            "stash or ignore it first"
        )


def tracked(repository: Path) -> dict[str, bytes]:
    """Every file of the commit that is checked out, as git stores it."""
    names = git(repository, "ls-tree", "-r", "-z", "--name-only", "HEAD")
    with subprocess.Popen(
        ["git", "-C", str(repository), "cat-file", "--batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout
        files = {}
        for name in filter(None, names.split("\0")):
            process.stdin.write(f"HEAD:{name}\n".encode())
            process.stdin.flush()
            size = int(process.stdout.readline().split()[2])
            files[name] = process.stdout.read(size)
            process.stdout.read(1)
    return files
