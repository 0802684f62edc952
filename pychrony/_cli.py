"""What the command lines share."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from contextlib import contextmanager
from math import isfinite
from threading import Thread
from time import monotonic

import pychrony

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, TextIO

ADDRESS = (
    "path of chronyd's Unix socket, or IP address or host name of its command port, "
    "with or without :port; default: the chronyd of this machine"
)

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


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


def add_timeout_and_retries(parser: argparse.ArgumentParser, retries: int) -> None:
    """Add the options for the timeout and the retries of a request."""
    parser.add_argument(
        "-t",
        "--timeout",
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


def complete(text: str, port: int | None, version: int | None, end: float) -> str:
    """Return an address with ``port``, if it has none.

    With an IP ``version``, a host name becomes its first address of it, which is
    looked up until ``end``, by the monotonic clock.

    Raises:
        ValueError: the address is of the other version.
        ChronyConnectionError: the name has no address of the version.
        ChronyTimeoutError: that is not known in time.
    """
    paths = ("/", "unix://", "unixgram://")
    if not text or text.startswith(paths) or port is version is None:
        return text
    scheme, separator, rest = text.rpartition("://")
    host, own_port = _split(rest)
    if version is not None:
        host = _of_version(host, version, end)
    number = own_port or (port and str(port))
    bare = host if ":" not in host or not number else f"[{host}]"
    return f"{scheme}{separator}{bare}:{number}" if number else bare


def _split(text: str) -> tuple[str, str]:
    """Return the host without brackets, and its port, empty where it has none."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, ""


def _of_version(host: str, version: int, end: float) -> str:
    bare = host.partition("%")[0]
    for one, family in _FAMILIES.items():
        try:
            socket.inet_pton(family, bare)
        except (OSError, UnicodeError):
            continue
        if one != version:
            raise ValueError(f"{host} is no IPv{version} address, and -{version} given")
        return host
    found: list[list[str]] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(
                host, None, _FAMILIES[version], socket.SOCK_DGRAM
            )
        except (OSError, UnicodeError):
            answers = []
        found.append(
            [
                str(address[0])
                for family, *_, address in answers
                if family is _FAMILIES[version]
            ]
        )

    # The resolver has no timeout of its own, and may be left behind.
    thread = Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(max(0.0, end - monotonic()))
    if not found:
        raise pychrony.ChronyTimeoutError(
            f"{host}: the name was not resolved in time. Check the resolver of this "
            "machine, or give an IP address"
        )
    if not found[0]:
        raise pychrony.ChronyConnectionError(
            f"{host}: no IPv{version} address is known. Check the name, or give an IP "
            "address"
        )
    return found[0][0]


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


def timeout_within(seconds: float, retries: int, places: int) -> float:
    """Return the timeout with which requests at these places end within a time [s].

    It is 1 at most.
    """
    # The timeout doubles at each retry, and each address has all timeouts. A tenth of
    # the time is for everything else.
    waits = places * (2 ** (min(retries, 98) + 1) - 1)
    # Rounded to two digits, as messages show the sum.
    return float(f"{min(1.0, 0.9 * seconds / waits):.2g}")


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


def versions() -> str:
    """Return the version of pychrony, and which libchrony it uses, or why none."""
    try:
        library = f"libchrony {pychrony.library_path()}"
    except pychrony.ChronyLibraryError as error:
        library = error.message
    return f"pychrony {pychrony.__version__}, {library}"


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
