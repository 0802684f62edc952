"""Whether the commit that is checked out may be released."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from packaging.version import Version

from . import ReleaseError, changelog, say
from .repository import BRANCH, demand_clean, git, tagged_version

CI = "ci.yml"


def preflight(repository: Path) -> Version:
    demand_clean(repository)
    version = tagged_version(repository)
    demand_branch(repository)
    changelog.demand(repository, version)
    demand_green(git(repository, "rev-parse", "HEAD"))
    say(f"{version}: clean, tagged once, on {BRANCH}, in the changelog")
    return version


def demand_branch(repository: Path) -> None:
    # In CI there is only the remote's branch, on a laptop it may be behind.
    wanted = {f"refs/remotes/origin/{BRANCH}", f"refs/heads/{BRANCH}"}
    found = git(repository, "for-each-ref", "--contains=HEAD", "--format=%(refname)")
    if wanted.isdisjoint(found.splitlines()):
        raise ReleaseError(
            f"this commit is not on {BRANCH}: releases are made from there; "
            "merge it first"
        )


def demand_green(commit: str) -> None:
    """What CI said of the commit, where GitHub can be asked."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    gh = shutil.which("gh")
    if not (repository and gh and os.environ.get("GH_TOKEN")):
        say("CI's result is not known here: look at it yourself")
        return
    result = subprocess.run(
        [
            *(gh, "run", "list", "--repo", repository, "--workflow", CI),
            *("--commit", commit, "--json", "status,conclusion,url"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ReleaseError(f"CI's result cannot be read: {result.stderr.strip()}")
    runs = json.loads(result.stdout)
    if any(run["conclusion"] == "success" for run in runs):
        say("CI is green")
    elif any(run["status"] != "completed" for run in runs):
        raise ReleaseError(
            f"CI still runs for {commit}: run this again when it is green"
        )
    else:
        seen = runs[0]["url"] if runs else "it never ran"
        raise ReleaseError(f"CI is not green for {commit}: mend it first ({seen})")
