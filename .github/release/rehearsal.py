"""The whole chain on this machine: what CI does, and what can go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import ReleaseError, say
from .publishing import REAL, TEST
from .repository import git, tags
from .standin import Packages, StandIns

# What an untagged commit is called in its clone, which nobody ever sees.
VERSION = "9999.0"


def rehearse(repository: Path, pythons: Sequence[str]) -> None:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        clone, stands = Path(temporary, "clone"), Path(temporary, "indexes")
        stands.mkdir()
        _step(begun, "a private clone of HEAD")
        git(repository, "clone", "--quiet", "--no-hardlinks", ".", str(clone))
        git(
            clone,
            "checkout",
            "--quiet",
            "--detach",
            git(repository, "rev-parse", "HEAD"),
        )
        if git(repository, "status", "--porcelain"):
            say("What is not committed takes no part.")
        if not tags(clone):
            say(f"This commit has no version tag; its clone gets v{VERSION}.")
            git(clone, "tag", f"v{VERSION}")

        def run(*command: str, env: Mapping[str, str] | None = None) -> None:
            _run(clone, *command, env={**os.environ, **(env or {})})

        _step(begun, "build, twice")
        run("build", *pythons)
        _step(begun, "check")
        run("check")
        with Packages(stands) as packages, StandIns(stands, packages) as indexes:
            for command, name in (("publish", TEST), ("promote", REAL)):
                _step(begun, f"{command} to a stand-in for {name}")
                run(command, name, env=indexes.job(name))
                _step(begun, "once more: nothing to do")
                run(command, name, env=indexes.job(name))
                _step(begun, f"verify {name}")
                run("verify", name, env=indexes.variables(name))
            uploads = sum(index.uploads for index in indexes.indexes.values())
            outside = indexes.refused
        _step(begun, "refusals and faults, each a test")
        tests = ("-m", "pytest", "--verbose", "-p", "no:cacheprovider")
        _python(clone, *tests, "tests/test_release.py", env=os.environ)
    if outside:
        raise ReleaseError(f"something asked for {outside[0]}: the proxy refused it")
    say(
        f"\nThe rehearsal took {time.monotonic() - begun:.0f} s. Nothing of the "
        f"release left this machine: all {uploads} uploads went to 127.0.0.1, "
        "nothing was pushed, and your repository is as it was."
    )


def _step(begun: float, text: str) -> None:
    say(f"\n[{time.monotonic() - begun:5.1f} s] {text}")


def _run(clone: Path, *command: str, env: Mapping[str, str]) -> None:
    _python(clone, "-m", "release", *command, env=env)


def _python(clone: Path, *command: str, env: Mapping[str, str]) -> None:
    env = {**env, "PYTHONPATH": str(clone / ".github")}
    arguments = [sys.executable, *command]
    if subprocess.run(arguments, cwd=clone, env=env, check=False).returncode:
        raise ReleaseError(f"the rehearsal stopped at {command[2]}: see above")
