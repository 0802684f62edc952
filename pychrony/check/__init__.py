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
import sys
from contextlib import suppress
from math import isfinite
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NoReturn

import pychrony

from . import _read
from ._formats import FORMATS, SHOWN
from ._items import ITEMS
from ._judge import CRITICAL, NAMES, OK, UNKNOWN, WARNING, WORST_FIRST, Limits

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

{_ITEMS}

A RANGE is 10 (fine: 0 to 10, or -10 to 10 of what has a sign), 10: (10 or more),
~:10 (10 or less), 10:20, or @10:20 (all but 10 to 20). 'off' switches a limit off:
-w stratum=off. Of many clocks only their tracking is checked, not their sources.
"""


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
    output = None
    try:
        arguments = _arguments(argv)
        output = arguments.output
        state, text = _run(arguments)
    except pychrony.ChronyError as error:
        state, text = _failed(error.message)
    except (ValueError, _UsageError) as error:
        state, text = _failed(str(error))
    except KeyboardInterrupt:
        state, text = _failed("interrupted")
    except Exception as error:
        state, text = _failed(f"unexpected {type(error).__name__}: {error}")
    try:
        if output is None:
            _print(text)
        else:
            _save(output, f"{text}\n")
    except OSError as error:
        print(f"CHRONY UNKNOWN - cannot write: {error}", file=sys.stderr)
        return UNKNOWN
    return state


def _failed(message: str) -> tuple[int, str]:
    return UNKNOWN, f"CHRONY {NAMES[UNKNOWN]} - {message}"


def _run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Do what the command line says; return the exit status and the output."""
    addresses = [*arguments.addresses, *(arguments.hosts or ())]
    patience = {"timeout": arguments.timeout, "retries": arguments.retries}
    if arguments.diagnose:
        from ._diagnosis import diagnose

        return OK, diagnose(addresses, **patience)
    if arguments.hosts is not None and not addresses:
        raise _UsageError("there is no address to check")
    limits = Limits()
    for state, changes in (
        (WARNING, arguments.warning),
        (CRITICAL, arguments.critical),
    ):
        for change in changes:
            limits.change(state, change)
    rules: Any = (limits, NAMES.index(arguments.timeout_state.upper()))

    def read() -> list[Verdict]:
        if arguments.hosts is None and len(addresses) < 2:
            address = addresses[0] if addresses else None
            return [_read.one(address, *rules, **patience)]
        concurrency = arguments.concurrency
        return _read.many(addresses, *rules, concurrency=concurrency, **patience)

    end = monotonic() + arguments.wait
    verdicts = read()
    while any(verdict.may_settle for verdict in verdicts) and monotonic() < end:
        sleep(min(1.0, max(0.0, end - monotonic())))
        verdicts = read()
    chosen = arguments.format or ("text" if sys.stdout.isatty() else "nagios")
    text = FORMATS[chosen](verdicts, verbose=arguments.verbose)
    return min((one.state for one in verdicts), key=WORST_FIRST.index), text


def _print(text: str) -> None:
    stdout: Any = sys.stdout
    if hasattr(stdout, "reconfigure"):  # for what the terminal cannot show
        stdout.reconfigure(errors="backslashreplace")
    try:
        print(text, flush=True)
    except OSError as error:
        # Keep the interpreter from failing on the same output again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # As in "| head -n 1": the reader has what it wants.
        if not isinstance(error, BrokenPipeError):
            raise


def _save(name: str, text: str) -> None:
    """Write the file so that nobody ever sees half of it.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    path = Path(name)
    if path.exists() and not path.is_file():  # a pipe or a device
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    path = path.resolve()
    with NamedTemporaryFile(
        "w",
        dir=path.parent,
        prefix=f".{path.name}.",
        delete=False,
        encoding="utf-8",
        errors="backslashreplace",
    ) as file:
        try:
            file.write(text)
            file.flush()
            # Who collects it, node_exporter for one, may be another user.
            os.fchmod(file.fileno(), 0o644)
            os.replace(file.name, path)
        except BaseException:
            with suppress(OSError):
                file.close()
            os.unlink(file.name)
            raise


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="check_chrony",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    for letter, name in (("w", "warning"), ("c", "critical")):
        parser.add_argument(
            f"-{letter}",
            f"--{name}",
            action="append",
            default=[],
            metavar="[ITEM=]RANGE",
            help=f"{name.upper()} if the offset in seconds, or ITEM, is outside of "
            "RANGE, see below; may be repeated",
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
        metavar="FILE",
        help="write to this file, whole or not at all, and print nothing",
    )
    parser.add_argument(
        "--wait",
        type=_positive,
        default=0.0,
        metavar="SECONDS",
        help="check each second until the clock is synchronised and nothing is "
        "CRITICAL, so long at most: for boot scripts, like chronyc waitsync",
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
        "--timeout-state",
        choices=("critical", "unknown"),
        default="critical",
        help="the state of a clock that does not answer (%(default)s)",
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
    return parser.parse_args(argv)


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
