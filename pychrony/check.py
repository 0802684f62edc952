"""Check a clock: for a person, from cron, or as a Nagios-family plugin.

``python -m pychrony.check [ADDRESS]`` prints one line (the state, what
matters, and performance data after ``|``) and exits with 0 OK, 1 WARNING,
2 CRITICAL or 3 UNKNOWN. With ``-v`` the reports follow, as chronyc prints them.

With several addresses, or ``--hosts FILE``, the line counts the clocks in each
state, and a table shows the worst of them; the exit status is that of the worst.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING, Any, NoReturn

import pychrony
from pychrony import _text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pychrony import ChronyError, Source, TrackingStatus

__all__ = ["main"]

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

# A clock that is known to be wrong is worse than one of which nothing is known.
_WORST_FIRST = (CRITICAL, UNKNOWN, WARNING, OK)

# So many clocks are shown where -v does not show them all.
_SHOWN = 20


class _UsageError(Exception):
    """The command line makes no sense."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse would exit with 2, which says CRITICAL to a monitoring system.
        raise _UsageError(f"{message}. See --help")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            library = f"libchrony {pychrony.library_path()}"
        except pychrony.ChronyLibraryError as error:
            library = error.message
        print(f"pychrony {pychrony.__version__}, {library}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check and return its exit status; never raises an error."""
    try:
        arguments = _arguments(argv)
        if arguments.hosts is None and len(arguments.addresses) < 2:
            state, text = _check_one(arguments)
        else:
            state, text = _check_many(arguments)
    except pychrony.ChronyError as error:
        state, text = _failure(error)
    except (ValueError, _UsageError) as error:
        state, text = UNKNOWN, str(error)
    except KeyboardInterrupt:
        state, text = UNKNOWN, "interrupted"
    except Exception as error:
        state, text = UNKNOWN, f"unexpected {type(error).__name__}: {error}"
    stdout: Any = sys.stdout
    if hasattr(stdout, "reconfigure"):  # for what the terminal cannot show
        stdout.reconfigure(errors="backslashreplace")
    try:
        print(f"CHRONY {_NAMES[state]} - {text}", flush=True)
    except BrokenPipeError:  # as in "| head -n 1": the reader has what it wants
        _silence()
    except OSError as error:
        _silence()
        print(f"CHRONY UNKNOWN - cannot write: {error}", file=sys.stderr)
        state = UNKNOWN
    return state


def _silence() -> None:
    """Keep the interpreter from failing on the same output again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m pychrony.check",
        description="Check the clock that a chronyd keeps. "
        "Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "addresses",
        metavar="ADDRESS",
        nargs="*",
        help="path of the Unix socket of chronyd, or IP address or host name of its "
        "command port, with or without :port; default: the chronyd of this machine",
    )
    parser.add_argument(
        "--hosts",
        type=_lines,
        metavar="FILE",
        help="check the addresses in this file, too, one in a line, # for comments; "
        "- is the standard input",
    )
    for letter, name, default in (("w", "warning", 0.05), ("c", "critical", 0.2)):
        parser.add_argument(
            f"-{letter}",
            f"--{name}",
            type=_positive,
            default=default,
            metavar="SECONDS",
            help=f"{name.upper()} if the clock is off by more (%(default)s)",
        )
    parser.add_argument(
        "-t",
        "--timeout",
        type=_positive,
        default=1.0,
        metavar="SECONDS",
        help="wait so long for an answer, doubled at each resend (%(default)s)",
    )
    parser.add_argument(
        "-r",
        "--retries",
        type=_natural,
        default=2,
        metavar="N",
        help="send a request again so often (%(default)s)",
    )
    parser.add_argument(
        "--concurrency",
        type=_natural,
        default=256,
        metavar="N",
        help="ask so many at once (%(default)s)",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help=f"print the reports, too; of many clocks, show more than {_SHOWN}",
    )
    parser.add_argument(
        "-V",
        "--version",
        action=_Version,
        nargs=0,
        help="print the version of pychrony and which libchrony it uses",
    )
    arguments = parser.parse_args(argv)
    if arguments.warning > arguments.critical:
        parser.error(
            f"the warning threshold, {arguments.warning:g} s, is above the critical "
            f"one, {arguments.critical:g} s"
        )
    return arguments


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not (isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a natural number")
    return int(text)


def _lines(name: str) -> list[str]:
    try:
        with open(0 if name == "-" else name, encoding="utf-8") as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {name!r}: {error}") from error
    return [line for line in lines if line]


def _failure(error: ChronyError) -> tuple[int, str]:
    """Return the state of a clock that cannot be read, and the reason."""
    if isinstance(error, pychrony.ChronyAddressError):
        return UNKNOWN, error.message
    if isinstance(error, pychrony.ChronyConnectionError):
        return CRITICAL, error.message
    return UNKNOWN, error.message


def _check_many(arguments: argparse.Namespace) -> tuple[int, str]:
    """Read many clocks; return the worst state and what to print after it."""
    addresses = [*arguments.addresses, *(arguments.hosts or ())]
    if not addresses:
        raise _UsageError("there is no address to check")
    results = pychrony.query_many(
        addresses,
        concurrency=arguments.concurrency,
        timeout=arguments.timeout,
        retries=arguments.retries,
        progress=_Bar(len(addresses)) if sys.stderr.isatty() else None,
    )
    rows: list[tuple[int, float, str, str]] = []
    for address, result in results:
        if isinstance(result, pychrony.ChronyError):
            state, reason = _failure(result)
            reason = reason.removeprefix(f"{address}: ")
        else:
            state, reason = _judge(result, arguments.warning, arguments.critical)
        offset = abs(getattr(result, "offset", 0.0))
        rows.append((_WORST_FIRST.index(state), -offset, str(address), reason))
    rows.sort()
    counts = Counter(_WORST_FIRST[rank] for rank, *_ in rows)
    shown = rows if arguments.verbose else rows[:_SHOWN]
    width = max(len(address) for _, _, address, _ in shown)
    table = [
        f"{_NAMES[_WORST_FIRST[rank]]:8}  {address:{width}}  {reason}"
        for rank, _, address, reason in shown
    ]
    if len(shown) < len(rows):
        table.append(f"and {len(rows) - len(shown)} that are no worse (-v shows them)")
    line = f"{counts[OK]} of {len(rows)} clocks OK" + "".join(
        f", {counts[state]} {_NAMES[state].lower()}"
        for state in _WORST_FIRST[:-1]
        if counts[state]
    )
    data = " ".join(
        f"{_NAMES[state].lower()}={counts[state]};;;0;{len(rows)}"
        for state in reversed(_WORST_FIRST)
    )
    return _WORST_FIRST[rows[0][0]], "\n".join(
        [f"{line} | {data}", *map(_unbarred, table)]
    )


class _Bar:
    """A progress bar on a terminal."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = -1

    def __call__(self, done: int) -> None:
        parts = 40 * done // self._total
        if parts > self._shown:
            self._shown = parts
            end = "\r" if done < self._total else "\r\x1b[K"
            bar = f"[{'#' * parts:40}] {done} of {self._total}"
            print(bar, end=end, file=sys.stderr, flush=True)


def _check_one(arguments: argparse.Namespace) -> tuple[int, str]:
    """Read a clock; return the state and what to print after it."""
    address = arguments.addresses[0] if arguments.addresses else None
    with pychrony.ChronyConnection(
        address, timeout=arguments.timeout, retries=arguments.retries
    ) as connection:
        tracking = connection.get_tracking()
        sources = connection.get_sources()
    state, reason = _judge(tracking, arguments.warning, arguments.critical)
    if not tracking.is_local() and not tracking.is_synchronized():
        reason += f": {_why_not(sources)}"
    reason += f", {_usable(sources)} of {len(sources)} sources usable"
    lines = [f"{_unbarred(reason)} | {_performance(tracking, sources, arguments)}"]
    if arguments.verbose:
        report = [_text.tracking(tracking), "", _text.sources(sources)]
        lines += map(_unbarred, report)
    return state, "\n".join(lines)


def _unbarred(text: str) -> str:
    # What follows a bar is performance data, to a monitoring system.
    return text.replace("|", "/")


def _judge(
    tracking: TrackingStatus, warning: float, critical: float
) -> tuple[int, str]:
    """Return the state of a clock and the reason for it."""
    if tracking.is_local():
        return WARNING, "local mode: chronyd serves its own clock"
    if not tracking.is_synchronized():
        return CRITICAL, "not synchronised"
    state, limit = OK, ""
    for level, threshold in ((WARNING, warning), (CRITICAL, critical)):
        if abs(tracking.offset) > threshold:
            state, limit = level, f" (more than {_text.seconds(threshold)})"
    return state, (
        f"offset {_text.seconds(tracking.offset, '+')}{limit}, "
        f"error bound {_text.seconds(tracking.error_bound or 0.0)}, "
        f"stratum {tracking.stratum}, source {tracking.reference_id_name}"
    )


def _why_not(sources: list[Source]) -> str:
    """Return why chronyd follows none of these sources."""
    if not sources:
        return "chronyd has no sources"
    if not any(source.is_reachable() for source in sources):
        return "no source is reachable"
    return "no source is selected"


def _usable(sources: list[Source]) -> int:
    return sum(source.is_usable() for source in sources)


def _performance(
    tracking: TrackingStatus, sources: list[Source], arguments: argparse.Namespace
) -> str:
    """Return the performance data, in plain decimals (no ``1e-07``)."""
    warning, critical = (
        f"-{plain}:{plain}"
        for plain in map(_plain, (arguments.warning, arguments.critical))
    )
    data = [f"offset={_plain(tracking.offset)}s;{warning};{critical}"]
    if tracking.error_bound is not None:
        data.append(f"error_bound={_plain(tracking.error_bound)}s;;;0")
    data += [
        f"root_delay={_plain(tracking.root_delay)}s;;;0",
        f"root_dispersion={_plain(tracking.root_dispersion)}s;;;0",
        f"frequency={tracking.frequency:.3f}",
        f"skew={tracking.skew:.3f};;;0",
        f"stratum={tracking.stratum};;;0;16",
        f"sources_usable={_usable(sources)};;;0;{len(sources)}",
    ]
    return " ".join(data)


def _plain(seconds: float) -> str:
    return f"{seconds:.9f}"


if __name__ == "__main__":
    sys.exit(main())
