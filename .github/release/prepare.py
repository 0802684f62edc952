"""Prepare a release: the changelog's heading, a commit and a tag; push nothing."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

from packaging.version import Version

from . import verify
from .tools import BRANCH, TAG, ReleaseError, git

CHANGELOG = Path("CHANGELOG.rst")
UNRELEASED = "Unreleased"


def main(text: str) -> None:
    if not TAG.fullmatch(f"v{text}") or str(Version(text)) != text:
        raise ReleaseError(
            f"{text!r} is no version of a release: write it like 1.2.0 or 1.2.0rc1"
        )
    version = Version(text)
    if changes := git("status", "--porcelain").splitlines():
        raise ReleaseError(
            f"the working tree is not clean ({changes[0].strip()}, {len(changes)} in "
            "all): commit, stash or ignore it first"
        )
    branch = git("branch", "--show-current")
    if branch != BRANCH:
        raise ReleaseError(
            f"{branch or 'a commit without a branch'} is checked out: releases are "
            f"prepared on {BRANCH}; git switch {BRANCH}"
        )
    demand_newer(version)
    news = changes_of(UNRELEASED)
    # A pre-release leaves what is unreleased for the final one.
    if not version.is_prerelease:
        heading = f"{version} ({dt.datetime.now(dt.timezone.utc).date()})"
        old = f"{UNRELEASED}\n{'-' * len(UNRELEASED)}\n"
        new = f"{old}\n{heading}\n{'-' * len(heading)}\n"
        written = CHANGELOG.read_text().replace(old + news, new + news, 1)
        CHANGELOG.write_text(written)
        git("commit", "--quiet", "-m", f"Release {version}", str(CHANGELOG))
    signed = bool(git("config", "--default=", "user.signingkey"))
    how = "-s" if signed else "-a"
    git("tag", how, "-m", f"Release {version}", f"v{version}")
    print(
        f"v{version} is made{'' if signed else ', unsigned'}; nothing was pushed.\n"
        f"Look at it with: git show v{version}\n"
        f"Then: git push origin {BRANCH}\n"
        f"And when CI is green: git push origin v{version}"
    )


def demand_newer(version: Version) -> None:
    known = {"git": [tag[1:] for tag in git("tag").split() if TAG.fullmatch(tag)]}
    for index in verify.INDEXES:
        known[index] = [one.version for one in verify.served(index) if one.version]
    for where, texts in known.items():
        # On the test index anything may have been tried.
        taken = [v for v in map(Version, texts) if v == version or where != "testpypi"]
        if taken and max(taken) >= version:
            raise ReleaseError(
                f"{where} has {max(taken)} already, so {version} cannot be released: "
                "choose a newer version"
            )


def changes_of(title: str) -> str:
    """The section of the changelog whose heading begins with the title."""
    section = rf"^{re.escape(title)}.*\n-+\n((?:(?!.+\n---).*\n)*)"
    found = re.search(section, CHANGELOG.read_text(), re.MULTILINE)
    if not found or not found[1].strip():
        raise ReleaseError(
            f"{CHANGELOG} has nothing under {title.strip(' (')}: write there what "
            "users will notice; nox -s release -- VERSION makes the headings"
        )
    return found[1]


def notes(version: Version) -> str:
    """What is new in a version, in the markup of GitHub."""
    changes = changes_of(UNRELEASED if version.is_prerelease else f"{version} (")
    changes = re.sub(r"^(.+)\n~+$", r"### \1", changes, flags=re.MULTILINE)
    changes = re.sub(r"`([^`<]+) <([^>]+)>`__?", r"[\1](\2)", changes)
    return changes.strip() + "\n"
