"""The command line of ``python -m pychrony.watch``, and its plain output."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from contextlib import aclosing
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

import pychrony
from pychrony import _chronyc
from pychrony._cli import (
    ADDRESS,
    add_timeout_and_retries,
    counting,
    is_terminal,
    positive,
    printing,
)

from ._follow import Reading, follow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._follow import Readings

    # The addresses as given, and the connections to them.
    Clocks = Sequence[tuple[str, pychrony.AsyncChronyConnection]]

FINE, FAILED, USAGE = range(3)

# Terminals that cannot draw the graph: unknown, none, and the Linux console.
_NO_BRAILLE = ("", "dumb", "linux")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}. See --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until a key, a signal or the last reading; return the exit status.

    That is 0, 1 if the last reading of a clock failed or nothing can be read, 2 for a
    usage error, or 128 plus the number of the signal.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    addresses: list[str | None] = [*dict.fromkeys(arguments.addresses)] or [None]
    try:
        pychrony.library_path()
        connections = [
            pychrony.AsyncChronyConnection(
                address, timeout=arguments.timeout, retries=arguments.retries
            )
            for address in addresses
        ]
    except ValueError as error:
        parser.error(str(error))
    except pychrony.ChronyLibraryError as error:
        print(error, file=sys.stderr)
        return FAILED
    clocks = [
        (address or "this machine", connection)
        for address, connection in zip(addresses, connections)
    ]
    try:
        if arguments.plain or not _can_draw():
            return _print(clocks, arguments.interval, arguments.count)
        return _show(clocks, arguments.interval, arguments.count)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _show(clocks: Clocks, interval: float, count: int | None) -> int:
    """Run the live view, and return the exit status."""
    if find_spec("textual") is None:
        print(
            "The live view needs textual: pip install 'pychrony[watch]'. Without it, "
            "--plain prints lines.",
            file=sys.stderr,
        )
        return FAILED
    from ._screen import Host, LiveView

    hosts = [Host(name, connection) for name, connection in clocks]
    view = LiveView(hosts, interval, count)
    view.run()
    return view.return_code or FINE


def _can_draw() -> bool:
    """Return whether this terminal can show the live view and read its keys."""
    return (
        all(map(is_terminal, (sys.stdin, sys.stdout, sys.stderr)))
        and sys.stderr.encoding.lower() in ("utf-8", "utf8")
        and os.environ.get("TERM", "") not in _NO_BRAILLE
    )


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pychrony.watch",
        description="Watch the clocks that chronyds keep.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "addresses",
        metavar="ADDRESS",
        nargs="*",
        help=f"{ADDRESS}; several are shown as a list, the worst first",
    )
    parser.add_argument(
        "-i",
        "--interval",
        type=positive,
        default=1.0,
        metavar="SECONDS",
        help="seconds between two readings (%(default)s)",
    )
    parser.add_argument(
        "-n",
        "--count",
        type=counting,
        metavar="N",
        help="end after N readings",
    )
    add_timeout_and_retries(parser, retries=1)
    parser.add_argument(
        "--plain",
        action="store_true",
        help="print a line for each reading, as without a terminal (or without "
        "with UTF-8)",
    )
    return parser


def _print(clocks: Clocks, interval: float, count: int | None) -> int:
    """Print a line for each reading, and return the exit status."""
    try:
        with printing():
            return asyncio.run(_print_all(clocks, interval, count))
        return FINE
    except OSError as error:
        print(f"cannot write: {error}", file=sys.stderr)
        return FAILED


async def _print_all(clocks: Clocks, interval: float, count: int | None) -> int:
    tasks = [
        asyncio.ensure_future(
            _print_each(
                f"{name}: " if len(clocks) > 1 else "",
                follow(connection, interval, count),
            )
        )
        for name, connection in clocks
    ]
    try:
        return max(await asyncio.gather(*tasks))
    finally:  # if one cannot print, the others end, too
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _print_each(name: str, readings: Readings) -> int:
    status = FINE
    async with aclosing(readings):
        async for reading in readings:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            status = FINE if isinstance(reading, Reading) else FAILED
            print(now, _chronyc.printable(name + _line(reading)), flush=True)
    return status


def _line(reading: Reading | pychrony.ChronyError) -> str:
    if not isinstance(reading, Reading):
        return f"lost: {reading.message}"
    fields = [
        *_chronyc.clock(reading.tracking).values(),
        _chronyc.usable(reading.sources),
    ]
    return ", ".join(fields)
