"""What `nox -s release` and the workflow of the same name do, step by step."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

PROJECT = "pychrony"


class ReleaseError(Exception):
    """The release cannot go on; the text is one line that says what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def run_quietly(
    *command: str, env: Mapping[str, str] | None = None, umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Run a command; all that it says is in the result's stdout."""
    return subprocess.run(
        command,
        env=env,
        umask=umask,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
