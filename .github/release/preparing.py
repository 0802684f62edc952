"""Prepare a release: the changelog's heading, a commit and a tag; push nothing."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from . import ReleaseError, changelog, say
from .repository import BRANCH, TAG, demand_clean, git, version_of


def prepare(repository: Path, text: str) -> None:
    version = version_of(text)
    demand_clean(repository)
    branch = git(repository, "branch", "--show-current")
    if branch != BRANCH:
        raise ReleaseError(
            f"{branch or 'a commit without a branch'} is checked out: releases are "
            f"prepared on {BRANCH}; git switch {BRANCH}"
        )
    known = [tag for tag in git(repository, "tag").split() if TAG.fullmatch(tag)]
    tag = f"v{version}"
    if tag in known:
        raise ReleaseError(f"the tag {tag} is there already: choose the next version")
    newer = [tag for tag in known if version_of(tag[1:]) > version]
    if newer:
        raise ReleaseError(
            f"{version} is older than {newer[0]}, which is there: choose a newer one"
        )
    path = repository / changelog.NAME
    today = dt.datetime.now(dt.timezone.utc).date().isoformat()
    path.write_text(changelog.release(path.read_text(), version, today))
    git(repository, "commit", "--quiet", "-m", f"Release {version}", changelog.NAME)
    signed = bool(git(repository, "config", "--default=", "user.signingkey"))
    git(repository, "tag", "-s" if signed else "-a", "-m", f"Release {version}", tag)
    say(f"{tag} is made{'' if signed else ', unsigned'}; nothing was pushed.")
    say(f"Look at it with: git show {tag}")
    say(f"Then: git push origin {BRANCH}")
    say(f"And when CI is green: git push origin {tag}")
