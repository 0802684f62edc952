"""Check a clock: for a person, from cron, or as a Nagios-family plugin.

``python -m pychrony.check [ADDRESS]``, or the command ``check_chrony``, says in
one line what state the clock is in and why, and what to do, and exits with 0 OK,
1 WARNING, 2 CRITICAL or 3 UNKNOWN. On a terminal each item follows that was
checked; a monitoring system gets performance data.

With several addresses, or ``--hosts FILE``, the line counts the clocks in each
state, and a table shows the worst of them; the exit status is that of the worst.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from tempfile import mkstemp
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NoReturn

import pychrony
from pychrony._cli import (
    ADDRESS,
    add_patience,
    counting,
    is_terminal,
    positive,
    printing,
    silence,
)

from . import _read
from ._formats import FORMATS, SHOWN, failed
from ._items import ITEMS
from ._judge import CRITICAL, NAMES, OK, UNKNOWN, WARNING, Limits, worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._judge import Verdict

__all__ = ["CRITICAL", "OK", "UNKNOWN", "WARNING", "main"]

_DESCRIPTION = (
    "Check the clock that a chronyd keeps. Exit status: 0 OK, 1 WARNING, 2 CRITICAL, "
    "3 UNKNOWN."
)

_ITEMS = "\n".join(
    f"  {item.name:15} {item.unit if item.unit != 'flag' else '0 or 1':7}"
    f"{item.warning if isinstance(item.warning, str) else '':6}"
    f"{item.critical or '':5} {item.meaning}"
    for item in ITEMS
)

_EPILOG = f"""Items, their units, and the ranges for -w and -c that hold by default:

  item            unit   -w    -c    what it is
{_ITEMS}

A RANGE is 10 (fine: 0 to 10, or -10 to 10 of what has a sign), 10: (10 or more),
~:10 (10 or less), 10:20, or @10:20 (all but 10 to 20). 'off' switches a limit off,
as in -w stratum=off; alone, as in -w off, all. Of many clocks only their tracking
is checked, not their sources.
"""

_NEGATIVE = re.compile(r"-[\d.]")


class _AnswerError(Exception):
    """The command line asks for nothing but a text."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse would exit with 2, which says CRITICAL to a monitoring system.
        raise ValueError(f"{message}. See --help")


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _AnswerError(parser.format_help().rstrip("\n"))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        try:
            library = f"libchrony {pychrony.library_path()}"
        except pychrony.ChronyLibraryError as error:
            library = error.message.replace("\n", " ")
        raise _AnswerError(f"pychrony {pychrony.__version__}, {library}")


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
    """Do what the command line says; return the exit status and the output."""
    addresses = [*arguments.addresses, *arguments.named, *(arguments.hosts or ())]
    patience = {"timeout": arguments.timeout, "retries": arguments.retries}
    if arguments.diagnose:
        from ._diagnosis import diagnose

        return OK, diagnose(addresses, **patience)
    if arguments.hosts is not None and not addresses:
        raise ValueError("there is no address to check")
    limits = Limits()
    for state, changes in (
        (WARNING, arguments.warning),
        (CRITICAL, arguments.critical),
    ):
        for change in changes:
            limits.change(state, change)
    how: dict[str, Any] = {
        "limits": limits,
        "timeout_state": NAMES.index(arguments.timeout_state.upper()),
        **patience,
    }

    def read() -> list[Verdict]:
        if arguments.hosts is None and len(addresses) < 2:
            return [_read.one(addresses[0] if addresses else None, **how)]
        return _read.many(addresses, concurrency=arguments.concurrency, **how)

    end = monotonic() + arguments.wait
    verdicts = read()
    while any(one.may_settle for one in verdicts) and (left := end - monotonic()) > 0:
        sleep(min(1.0, left))
        verdicts = read()
    by_default = "text" if is_terminal(sys.stdout) else "nagios"
    return worst(verdicts), FORMATS[arguments.format or by_default](verdicts, arguments)


def _save(name: str, text: str) -> None:
    """Write the file so that nobody ever sees half of it.

    Raises:
        ValueError: it cannot be written; what was there before is still there.
    """
    content = f"{text}\n".encode(errors="backslashreplace")
    path = os.path.realpath(name)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            # A pipe or a device: without a reader this fails and does not wait.
            with open(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb") as device:
                device.write(content)
        else:
            _replace(path, content)
    except OSError as error:
        raise ValueError(f"cannot write {name!r}: {error.strerror}") from error


def _replace(path: str, content: bytes) -> None:
    folder, name = os.path.split(path)
    descriptor, temporary = mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            # Who collects it, node_exporter for one, may be another user.
            os.fchmod(descriptor, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="check_chrony",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        action="append",
        default=[],
        dest="named",
        metavar="ADDRESS",
        help="the same, as other plugins are told a host",
    )
    parser.add_argument(
        "--hosts",
        action="extend",
        type=_lines,
        metavar="FILE",
        help="check the addresses in this file, too, one in a line, # for comments; "
        "- is the standard input; may be repeated",
    )
    for letter, name in (("w", "warning"), ("c", "critical")):
        parser.add_argument(
            f"-{letter}",
            f"--{name}",
            action="append",
            default=[],
            metavar="[ITEM=]RANGE",
            help=f"{name.upper()} if the offset in seconds, or ITEM, is outside of "
            "RANGE, see below; may be repeated; 'off': never",
        )
    parser.add_argument(
        "-f",
        "--format",
        choices=FORMATS,
        help="default: text on a terminal, else nagios",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=lambda name: None if name in ("-", "/dev/stdout") else name,
        metavar="FILE",
        help="write to this file, whole or not at all, and print nothing",
    )
    parser.add_argument(
        "--wait",
        type=positive,
        default=0.0,
        metavar="SECONDS",
        help="check each second until the clock is synchronised and nothing is "
        "CRITICAL, so long and one check more at most: for boot scripts, like chronyc "
        "waitsync",
    )
    add_patience(parser, retries=2)
    parser.add_argument(
        "--timeout-state",
        choices=("critical", "unknown"),
        default="critical",
        help="the state of a clock that does not answer (%(default)s)",
    )
    parser.add_argument(
        "--concurrency",
        type=counting,
        default=256,
        metavar="N",
        help="ask so many at once (%(default)s)",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print the reports of chronyc, too; of many clocks, show more than "
        f"{SHOWN}; indent JSON",
    )
    parser.add_argument(
        "--self",
        action="store_true",
        dest="diagnose",
        help="print what a report of a bug needs: versions, the library, rights, and "
        "what each chronyd answers to each request",
    )
    parser.add_argument(
        "-V",
        "--version",
        action=_Version,
        nargs=0,
        help="print the version of pychrony and which libchrony it uses",
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="print this")
    return parser


def _joined(argv: Sequence[str]) -> list[str]:
    """Return the arguments; argparse would take a range like -1:1 for an option."""
    words: list[str] = []
    for word in argv:
        option = words[-1] if words else ""
        if option in ("-w", "-c", "--warning", "--critical") and _NEGATIVE.match(word):
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
