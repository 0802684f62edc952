"""Run a step: `python -m release STEP [ARGUMENT...]`; the sessions of nox do."""

from __future__ import annotations

import importlib
import sys

from .tools import ReleaseError


def main(step: str, *arguments: str) -> str | None:
    try:
        importlib.import_module(f"{__package__}.{step}").main(*arguments)
    except ReleaseError as refusal:
        return f"refused: {refusal}"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
