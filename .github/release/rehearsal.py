"""The whole chain on this machine: what CI does, and what can go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import ReleaseError, say
from .publishing import REAL, TEST
from .repository import git, tags
from .standin import Packages, StandIns

# What an untagged commit is called in its clone, which nobody ever sees.
VERSION = "9999.0"


def rehearse(repository: Path, pythons: Sequence[str]) -> None:
    begun = time.monotonic()

    def step(text: str) -> None:
        say(f"\n[{time.monotonic() - begun:5.1f} s] {text}")

    with tempfile.TemporaryDirectory() as temporary:
        clone, stands = Path(temporary, "clone"), Path(temporary, "indexes")
        stands.mkdir()

        def run(module: str, *arguments: str, **variables: str) -> None:
            command = [sys.executable, "-m", module, *arguments]
            env = {**os.environ, **variables, "PYTHONPATH": str(clone / ".github")}
            if subprocess.run(command, cwd=clone, env=env, check=False).returncode:
                raise ReleaseError(
                    f"the rehearsal stopped at {arguments[0]}: see above"
                )

        step("a private clone of HEAD")
        head = git(repository, "rev-parse", "HEAD")
        git(repository, "clone", "--quiet", "--no-hardlinks", ".", str(clone))
        git(clone, "checkout", "--quiet", "--detach", head)
        if git(repository, "status", "--porcelain"):
            say("What is not committed takes no part.")
        if not tags(clone):
            say(f"This commit has no version tag; its clone gets v{VERSION}.")
            git(clone, "tag", f"v{VERSION}")
        step("build, twice")
        run("release", "build", *pythons)
        step("check")
        run("release", "check")
        with Packages(stands) as packages, StandIns(stands, packages) as indexes:
            for command, name in (("publish", TEST), ("promote", REAL)):
                step(f"{command} to a stand-in for {name}")
                run("release", command, name, **indexes.job(name))
                step("once more: nothing to do")
                run("release", command, name, **indexes.job(name))
                step(f"verify {name}")
                run("release", "verify", name, **indexes.variables(name))
            uploads = sum(index.uploads for index in indexes.indexes.values())
            outside = indexes.refused
        step("refusals and faults, each a test")
        options = ("--verbose", "-p", "no:cacheprovider")
        run("pytest", "tests/release/test_release.py", *options)
    if outside:
        raise ReleaseError(f"something asked for {outside[0]}: the proxy refused it")
    say(
        f"\nThe rehearsal took {time.monotonic() - begun:.0f} s. Nothing of the "
        f"release left this machine: all {uploads} uploads went to 127.0.0.1, "
        "nothing was pushed, and your repository is as it was."
    )
