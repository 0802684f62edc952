"""Whether the commit that is checked out may be released."""

from __future__ import annotations

from . import prepare, tools
from .tools import BRANCH, ReleaseError, git


def main() -> None:
    tools.demand_clean()
    version = tools.tagged_version()
    # In CI there is only the remote's branch; on a laptop it may be behind.
    wanted = {f"refs/remotes/origin/{BRANCH}", f"refs/heads/{BRANCH}"}
    found = git("for-each-ref", "--contains=HEAD", "--format=%(refname)")
    if wanted.isdisjoint(found.splitlines()):
        raise ReleaseError(
            f"this commit is not on {BRANCH}: releases are made from there; merge it"
        )
    prepare.notes(version)
    tools.say(f"{version}: clean, tagged once, on {BRANCH}, in the changelog")
