"""What the commands have in common."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from math import isfinite
from typing import Any, TextIO

ADDRESS = (
    "path of the Unix socket of chronyd, or IP address or host name of its command "
    "port, with or without :port; default: the chronyd of this machine"
)


def add_patience(parser: argparse.ArgumentParser, *names: str, retries: int) -> None:
    """Add the options for how long to wait; ``names`` are others of the timeout."""
    parser.add_argument(
        "-t",
        "--timeout",
        *names,
        type=positive,
        default=1.0,
        metavar="SECONDS",
        help="wait so long for an answer, doubled at each resend (%(default)s)",
    )
    parser.add_argument(
        "-r",
        "--retries",
        type=natural,
        default=retries,
        metavar="N",
        help="send a request again so often (%(default)s)",
    )


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


def is_terminal(stream: TextIO | None) -> bool:
    # It is None where it was closed before Python began.
    return stream is not None and stream.isatty()


@contextmanager
def printing() -> Generator[None, None, None]:
    """Print what the terminal cannot show escaped, and end with a reader who leaves.

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
        # As in "| head -n 1": the reader has what it wants.
        if not isinstance(error, BrokenPipeError):
            raise


def silence(stream: TextIO) -> None:
    """Keep the interpreter from failing on the same output again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
