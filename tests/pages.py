"""The code blocks of the pages in docs/ and of the README."""

from __future__ import annotations

import re

_BLOCK = r"code-block:: (\w+)\n(?:   :caption: (.*)\n)?\n((?:   .*\n|\n)+)"


def blocks(page: str) -> list[tuple[str, str, str]]:
    """The language and the caption of each, and what is in it."""
    return [
        (language, caption, re.sub("^   ", "", body, flags=re.M))
        for language, caption, body in re.findall(_BLOCK, page)
    ]


def blocks_in(language: str, page: str) -> list[str]:
    """What is in those of one language that have no caption."""
    return [
        body.strip()
        for found, caption, body in blocks(page)
        if (found, caption) == (language, "")
    ]
