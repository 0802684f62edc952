"""What `nox -s release` and the workflow of the same name do, step by step."""

from __future__ import annotations

PROJECT = "pychrony"


class ReleaseError(Exception):
    """The release cannot go on; the text is one line that says what to do."""


def say(text: str) -> None:
    print(text, flush=True)
