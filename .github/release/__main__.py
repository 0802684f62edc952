"""The steps of a release as commands; the sessions of noxfile.py call them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from . import Refusal

HERE = Path()
DIST = Path("dist")


def build(arguments: argparse.Namespace) -> None:
    from .building import build_twice

    build_twice(HERE, DIST, arguments.pythons)


def check(_: argparse.Namespace) -> None:
    from .checking import check

    check(HERE, DIST)


def preflight(_: argparse.Namespace) -> None:
    from .preflight import preflight

    preflight(HERE)


def prepare(arguments: argparse.Namespace) -> None:
    from .preparing import prepare

    prepare(HERE, arguments.version)


def publish(arguments: argparse.Namespace) -> None:
    from . import files, publishing

    publishing.publish(files.open_release(DIST), arguments.index)


def promote(arguments: argparse.Namespace) -> None:
    from . import files, publishing

    publishing.promote(files.open_release(DIST), arguments.index)


def verify(arguments: argparse.Namespace) -> None:
    from . import files, verifying

    verifying.verify(files.open_release(DIST), arguments.index)


def rehearse(arguments: argparse.Namespace) -> None:
    from .rehearsal import rehearse

    rehearse(HERE, arguments.pythons)


def main() -> str | None:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(function.__name__)
        added.set_defaults(function=function)
        return added

    for function in (check, preflight):
        command(function)
    for function in (build, rehearse):
        command(function).add_argument("pythons", nargs=2)
    for function in (publish, promote, verify):
        command(function).add_argument("index", choices=("testpypi", "pypi"))
    command(prepare).add_argument("version")
    arguments = parser.parse_args()
    try:
        arguments.function(arguments)
    except Refusal as refusal:
        return f"refused: {refusal}"
    return None


if __name__ == "__main__":
    sys.exit(main())
