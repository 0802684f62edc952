"""Whether the commit that is checked out may be released."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from . import prepare
from .tools import BRANCH, ReleaseError, demand_clean, git, say, tagged_version

CI = "ci.yml"


def main() -> None:
    demand_clean()
    version = tagged_version()
    # In CI there is only the remote's branch; on a laptop it may be behind.
    wanted = {f"refs/remotes/origin/{BRANCH}", f"refs/heads/{BRANCH}"}
    found = git("for-each-ref", "--contains=HEAD", "--format=%(refname)")
    if wanted.isdisjoint(found.splitlines()):
        raise ReleaseError(
            f"this commit is not on {BRANCH}: releases are made from there; merge it"
        )
    prepare.notes(version)
    demand_green(git("rev-parse", "HEAD"))
    say(f"{version}: clean, tagged once, on {BRANCH}, in the changelog")


def demand_green(commit: str) -> None:
    """What CI said of the commit, where GitHub can be asked."""
    repository, gh = os.environ.get("GITHUB_REPOSITORY"), shutil.which("gh")
    if not (repository and gh and os.environ.get("GH_TOKEN")):
        say("CI's result is not known here: look at it yourself")
        return
    asked = ("run", "list", "--repo", repository, "--workflow", CI, "--commit", commit)
    result = subprocess.run(
        [gh, *asked, "--json", "status,conclusion,url"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ReleaseError(f"CI's result cannot be read: {result.stderr.strip()}")
    runs = json.loads(result.stdout)
    if any(run["conclusion"] == "success" for run in runs):
        return
    if any(run["status"] != "completed" for run in runs):
        raise ReleaseError(f"CI still runs for {commit}: re-run this when it is green")
    seen = runs[0]["url"] if runs else "it never ran"
    raise ReleaseError(f"CI is not green for {commit}: mend it first ({seen})")
