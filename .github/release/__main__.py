"""The steps of a release as commands; the sessions of noxfile.py call them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from . import ReleaseError

HERE = Path()
DIST = Path("dist")
# As .publishing; each session installs only what its command needs.
INDEXES = ("testpypi", "pypi")
Command = Callable[[argparse.Namespace], None]


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


def attest(_: argparse.Namespace) -> None:
    from . import files
    from .attesting import attest

    attest(files.open_release(DIST))


def publish(arguments: argparse.Namespace) -> None:
    from . import files, publishing

    publishing.publish(files.open_release(DIST), arguments.index)


def promote(arguments: argparse.Namespace) -> None:
    from . import files, publishing

    publishing.promote(files.open_release(DIST), arguments.index)


def verify(arguments: argparse.Namespace) -> None:
    from . import files, verifying

    verifying.verify(files.open_release(DIST), arguments.index)


def wheelhouse(arguments: argparse.Namespace) -> None:
    from . import files
    from .wheelhouse import wheelhouse

    release = files.open_release(DIST)
    wheelhouse(release, Path("dist-offline"), arguments.versions)


def rehearse(arguments: argparse.Namespace) -> None:
    from .rehearsal import rehearse

    rehearse(HERE, arguments.pythons)


def main() -> str | None:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def add(name: str, function: Command) -> argparse.ArgumentParser:
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        return command

    add("build", build).add_argument("pythons", nargs=2)
    add("check", check)
    add("preflight", preflight)
    add("prepare", prepare).add_argument("version")
    add("attest", attest)
    add("publish", publish).add_argument("index", choices=INDEXES)
    add("promote", promote).add_argument("index", choices=INDEXES)
    add("verify", verify).add_argument("index", choices=INDEXES)
    add("wheelhouse", wheelhouse).add_argument("versions", nargs="+")
    add("rehearse", rehearse).add_argument("pythons", nargs=2)
    arguments = parser.parse_args()
    try:
        arguments.function(arguments)
    except ReleaseError as refusal:
        return f"refused: {refusal}"
    return None


if __name__ == "__main__":
    sys.exit(main())
