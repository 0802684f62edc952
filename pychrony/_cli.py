"""What the command lines share."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from math import isfinite

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, TextIO

ADDRESS = (
    "path of chronyd's Unix socket, or IP address or host name of its command port, "
    "with or without :port; default: the chronyd of this machine"
)


def help_width() -> int:
    """Return the columns that a help text may take.

    argparse works it out for each argument, and imports shutil for that, which takes
    a twentieth of the CPU time of a check.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns) - 2
    try:
        return os.get_terminal_size().columns - 2
    except OSError:  # it is no terminal
        return 78


def add_patience(parser: argparse.ArgumentParser, *names: str, retries: int) -> None:
    """Add options for the timeout and the retries; ``names`` also set the timeout."""
    parser.add_argument(
        "-t",
        "--timeout",
        *names,
        type=positive,
        default=1.0,
        metavar="SECONDS",
        help="seconds to wait for a reply; doubles at each retry (%(default)s)",
    )
    add_retries(parser, retries)


def add_port_and_version(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command port and of the version of IP."""
    parser.add_argument(
        "-p",
        "--port",
        type=port_number,
        metavar="PORT",
        help="command port, if ADDRESS has none (323)",
    )
    only = parser.add_mutually_exclusive_group()
    for version in (4, 6):
        only.add_argument(
            f"-{version}",
            f"--use-ipv{version}",
            action="store_const",
            const=version,
            dest="ip_version",
            help=f"use IPv{version} only",
        )


def add_retries(parser: argparse.ArgumentParser, retries: int) -> None:
    """Add the option for the number of retries."""
    parser.add_argument(
        "-r",
        "--retries",
        type=natural,
        default=retries,
        metavar="N",
        help="number of retries of a request (%(default)s)",
    )


class Waits:
    """Timeout and retries with which all requests end within a time.

    Attributes:
        timeout: seconds to wait for the first reply, 1 at most.
        retries: number of retries.
    """

    def __init__(self, seconds: float, retries: int, places: int) -> None:
        # The timeout doubles at each retry, and each address has all timeouts. A
        # tenth of the time is for everything else.
        waits = places * (2 ** (min(retries, 98) + 1) - 1)
        # Rounded to two digits, as messages show the sum.
        self.timeout = float(f"{min(1.0, 0.9 * seconds / waits):.2g}")
        self.retries = retries


def positive(text: str) -> float:
    """Return a number of seconds; ``s`` may follow it."""
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0
    if not (isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def natural(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a natural number")
    return int(text)


def counting(text: str) -> int:
    if not natural(text):
        raise argparse.ArgumentTypeError("0 is less than 1")
    return int(text)


def port_number(text: str) -> int:
    number = counting(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
    return number


def is_terminal(stream: TextIO | None) -> bool:
    # It is None where it was closed before Python began.
    return stream is not None and stream.isatty()


@contextmanager
def printing() -> Generator[None, None, None]:
    """Escape what the terminal cannot show, and ignore a closed pipe.

    Raises:
        OSError: nothing can be written.
    """
    stdout: Any = sys.stdout
    if hasattr(stdout, "reconfigure"):
        stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except OSError as error:
        silence(stdout)
        # As in "| head -n 1": the reader needs no more.
        if not isinstance(error, BrokenPipeError):
            raise


def silence(stream: TextIO) -> None:
    """Keep the interpreter from failing on this stream again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
