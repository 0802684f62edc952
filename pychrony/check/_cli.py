"""The command line of the check."""

from __future__ import annotations

import argparse
import os
import re
import sys
from functools import partial
from time import monotonic, sleep

import pychrony
from pychrony._cli import (
    ADDRESS,
    LOOPBACK,
    add_port_and_version,
    add_retries,
    complete,
    counting,
    help_width,
    is_terminal,
    positive,
    printing,
    silence,
    versions,
)

from . import _read
from ._formats import FORMATS, SHOWN, failed
from ._items import ITEMS
from ._judge import SOURCE, Limits, failure, worst
from ._states import CRITICAL, NAMES, OK, UNKNOWN, WARNING

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from ._judge import Verdict

_DESCRIPTION = """\
Check the clock that a chronyd keeps.
Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""

# Seconds that the whole check may take.
_SECONDS = 10.0

_EPILOG = """\
Items, their units, and the default ranges of -w and -c:

  item            unit   -w     -c   what it is
{items}

Ranges that vary: age 4 polls of the selected source, at least 64 s;
usable_sources 2: if two or more sources are configured, else 1:; reach 4:,
none for a new source.

A RANGE is 10 (fine: 0 to 10; offset and frequency: -10 to 10), 10: (10 or
more), ~:10 (10 or less), 10:20, or @10:20 (fine: all but 10 to 20). Seconds may
have a unit: 50ms, 100us. -w ITEM=off switches one limit off, -w off all. For
source, give addresses or reference IDs: -c source=192.0.2.1,PPS. Several clocks
are checked by tracking only, and by sources if the last update is old.
"""


class _AnswerError(Exception):
    """Ends the parsing of the command line: only this text is wanted."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse would exit with 2, which means CRITICAL.
        raise ValueError(f"{message}. See --help")

    def format_help(self) -> str:
        self.epilog = _EPILOG.replace("{items}", _item_lines())
        return super().format_help()


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _AnswerError(parser.format_help().rstrip("\n"))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _AnswerError(versions())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check and return its exit status; never raises an error."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = _parser().parse_args(_joined(argv))
        state, text = _run(arguments)
        if arguments.output is not None:
            _save(arguments.output, text)
            return state
    except _AnswerError as answer:
        state, text = OK, str(answer)
    except ValueError as error:
        state, text = UNKNOWN, failed(str(error))
    except KeyboardInterrupt:
        state, text = UNKNOWN, failed("interrupted")
    except BaseException as error:
        state, text = UNKNOWN, failed(f"unexpected {type(error).__name__}: {error}")
    try:
        with printing():
            print(text, flush=True)
    except (OSError, KeyboardInterrupt) as error:
        try:
            print(failed(f"cannot write: {error}"), file=sys.stderr)
        except OSError:
            silence(sys.stderr)
        return UNKNOWN
    return state


def _run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Run the command line; return the exit status and the output."""
    given = _given(arguments)
    if arguments.diagnose:
        from ._diagnosis import diagnose

        seconds, until = arguments.timeout, monotonic() + arguments.timeout
        addresses = [
            complete(one, arguments.port, arguments.ip_version, until) for one in given
        ]
        return OK, diagnose(addresses, seconds=seconds, retries=arguments.retries)
    limits = Limits()
    for state, changes in (
        (WARNING, arguments.warning),
        (CRITICAL, arguments.critical),
    ):
        for change in filter(None, changes):
            limits.change(state, change)
    if arguments.wait:
        limits.require_synchronised()
    end = monotonic() + arguments.wait
    verdicts = _check(given, arguments, limits)
    while any(one.may_settle for one in verdicts) and (left := end - monotonic()) > 0:
        sleep(min(1.0, left))
        verdicts = _check(given, arguments, limits)
    by_default = "text" if is_terminal(sys.stdout) else "nagios"
    return worst(verdicts), FORMATS[arguments.format or by_default](verdicts, arguments)


def _given(arguments: argparse.Namespace) -> list[str]:
    """Return the addresses given; none for the chronyd of this machine."""
    # Icinga passes an empty word for a host without an address.
    named = [address for address in arguments.named if address]
    given = [*arguments.addresses, *named, *(arguments.hosts or ())]
    if arguments.hosts is not None and not given:
        raise ValueError("there is no address to check")
    if not given and (arguments.port or arguments.ip_version):
        return [LOOPBACK[arguments.ip_version or 4]]
    return given


def _check(
    given: Sequence[str], arguments: argparse.Namespace, limits: Limits
) -> list[Verdict]:
    """Check the clocks once, and return the worst first."""
    until = arguments.until = monotonic() + arguments.timeout
    timeout_state = NAMES.index(arguments.timeout_state.upper())
    addresses: list[str] = []
    verdicts: list[Verdict] = []
    for one in given:
        try:
            addresses.append(complete(one, arguments.port, arguments.ip_version, until))
        except pychrony.ChronyConnectionError as error:
            verdicts.append(failure(one, error, timeout_state))
    how: dict[str, Any] = {
        "limits": limits,
        "timeout_state": timeout_state,
        "seconds": max(until - monotonic(), 0.01),
        "retries": arguments.retries,
    }
    if not given:
        return [_read.one(None, **how)]
    if addresses and (len(given) > 1 or arguments.hosts is not None):
        verdicts += _read.many(addresses, concurrency=arguments.concurrency, **how)
    elif addresses:
        return [_read.one(addresses[0], **how)]
    return _read.worst_first(verdicts)


def _save(name: str, text: str) -> None:
    """Replace the file atomically.

    Raises:
        ValueError: it cannot be written; the old file is unchanged.
    """
    content = f"{text}\n".encode(errors="backslashreplace")
    path = os.path.realpath(name)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            # A pipe or a device: fail without a reader instead of waiting for one.
            with open(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb") as device:
                device.write(content)
        else:
            _replace(path, content)
    except OSError as error:
        raise ValueError(f"cannot write {name!r}: {error.strerror}") from error


def _replace(path: str, content: bytes) -> None:
    from tempfile import mkstemp  # takes milliseconds, and is needed rarely

    folder, name = os.path.split(path)
    descriptor, temporary = mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            # node_exporter, which reads it, may run as another user.
            os.fchmod(descriptor, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _item_lines() -> str:
    lines: list[str] = []
    for item in (*ITEMS, SOURCE):
        unit = {"flag": "0 or 1"}.get(item.unit, item.unit)
        warning, critical = (
            "varies" if callable(limit) else limit or ""
            for limit in (item.warning, item.critical)
        )
        if item is SOURCE:
            unit = ""
        line = f"  {item.name:15} {unit:6} {warning:6} {critical:4} "
        words, column = item.meaning.split(), len(line)
        for word in words:
            if len(line) + len(word) > 78:
                lines.append(line.rstrip())
                line = " " * column
            line += f"{word} "
        lines.append(line.rstrip())
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    """Return what parses the arguments of the check."""
    parser = _Parser(
        prog="check_chrony",
        description=_DESCRIPTION,
        formatter_class=partial(
            argparse.RawDescriptionHelpFormatter, width=help_width()
        ),
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument(
        "addresses",
        metavar="ADDRESS",
        nargs="*",
        help=ADDRESS,
    )
    parser.add_argument(
        "-H",
        "--hostname",
        action="append",
        default=[],
        dest="named",
        metavar="ADDRESS",
        help="same as ADDRESS, for compatibility with other plugins; an empty one is "
        "ignored",
    )
    add_port_and_version(parser)
    parser.add_argument(
        "--hosts",
        action="extend",
        type=_lines,
        metavar="FILE",
        help="check the addresses in this file as well, one in each line, # for "
        "comments; - is the standard input; may be repeated",
    )
    for letter, name in (("w", "warning"), ("c", "critical")):
        parser.add_argument(
            f"-{letter}",
            f"--{name}",
            action="append",
            default=[],
            metavar="[ITEM=]RANGE",
            help=f"{name.upper()} if ITEM, or else the offset, is outside of RANGE; "
            "may be repeated; 'off': never",
        )
    parser.add_argument(
        "-t",
        "--timeout",
        type=positive,
        default=_SECONDS,
        metavar="SECONDS",
        help="time for the whole check (%(default)g)",
    )
    add_retries(parser, 2)
    parser.add_argument(
        "-f",
        "--format",
        choices=FORMATS,
        help="format of the output: text on a terminal, else nagios",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=lambda name: None if name in ("-", "/dev/stdout") else name,
        metavar="FILE",
        help="replace this file atomically, and print nothing",
    )
    parser.add_argument(
        "--wait",
        type=positive,
        default=0.0,
        metavar="SECONDS",
        help="repeat the check each second until the clock is synchronised, as chronyc "
        "waitsync sees it, and nothing is CRITICAL; give up after SECONDS and one more "
        "check. A clock that is not synchronised is then always CRITICAL",
    )
    parser.add_argument(
        "--timeout-state",
        choices=("critical", "unknown"),
        default="critical",
        help="state of a clock that does not reply (%(default)s)",
    )
    parser.add_argument(
        "--concurrency",
        type=counting,
        default=256,
        metavar="N",
        help="maximum number of clocks that are read at the same time (%(default)s)",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print the reports of chronyd as well; of many clocks, show more than "
        f"{SHOWN}; in JSON, indent, and include tracking and sources",
    )
    parser.add_argument(
        "--self",
        action="store_true",
        dest="diagnose",
        help="print what a bug report needs: versions, the library, permissions, and "
        "what each chronyd replies to each request",
    )
    parser.add_argument(
        "-V",
        "--version",
        action=_Version,
        nargs=0,
        help="print the version of pychrony and which libchrony it uses",
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="print this text")
    return parser


def _joined(argv: Sequence[str]) -> list[str]:
    """Return the arguments; argparse would take a range like -1:1 for an option."""
    words: list[str] = []
    for word in argv:
        option = words[-1] if words else ""
        takes_range = option in ("-w", "-c", "--warning", "--critical")
        if takes_range and re.match(r"-[\d.]", word):
            words[-1] = f"{option}{'=' * option.startswith('--')}{word}"
        else:
            words.append(word)
    return words


def _lines(name: str) -> list[str]:
    try:
        ours = name != "-"
        with open(name if ours else 0, encoding="utf-8-sig", closefd=ours) as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"cannot read {name!r}: {reason}") from error
    return [line for line in lines if line]
