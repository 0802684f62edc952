"""The changelog's headings: what is released, and what is not yet."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.version import Version

from . import ReleaseError

NAME = "CHANGELOG.rst"
UNRELEASED = "Unreleased\n----------\n"


def demand(repository: Path, version: Version) -> None:
    text = (repository / NAME).read_text()
    heading = rf"^{re.escape(str(version))} \(\d{{4}}-\d\d-\d\d\)\n-+\n"
    if not re.search(heading, text, re.MULTILINE):
        raise ReleaseError(
            f"{NAME} has no heading for {version}: prepare a release with "
            f"nox -s release -- {version}"
        )


def release(text: str, version: Version, date: str) -> str:
    """The text with what was unreleased under a heading of its own."""
    before, found, after = text.partition(UNRELEASED)
    changes = re.split(r"^.+\n-+\n", after, maxsplit=1, flags=re.MULTILINE)[0]
    if not found or not changes.strip():
        raise ReleaseError(
            f"{NAME} has nothing under Unreleased: write there what users will notice"
        )
    heading = f"{version} ({date})"
    return f"{before}{UNRELEASED}\n{heading}\n{'-' * len(heading)}\n{after}"
