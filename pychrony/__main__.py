"""``python -m pychrony [REPORT ...]``: any report as text, JSON or CSV.

``python -m pychrony now`` prints an interval that holds true time.
"""

from __future__ import annotations

import argparse
import sys
import time

import pychrony
from pychrony._chronyc import printable
from pychrony._cli import (
    ADDRESS,
    LOOPBACK,
    add_port_and_version,
    add_retries,
    complete,
    positive,
    printing,
)
from pychrony._reader import METHODS, Reader

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_BY_DEFAULT = ("tracking", "sources")

_EPILOG = """\
Reports: tracking, sources, sourcestats, selectdata, activity, authdata,
ntpdata, serverstats, rtcdata, smoothing, or all. selectdata, authdata, ntpdata
and serverstats need the Unix socket, as root or as chronyd's user.

'python -m pychrony now' prints an interval that holds true time, and has its
own --help.

Exit status: 0; 1 if a report cannot be read (the others are printed); 2 for a
usage error.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print reports, or the interval of ``now``, and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["now"]:
        from pychrony import _now

        return _now.main(argv[1:])
    parser = _parser()
    arguments = parser.parse_args(argv)
    reports_given: list[str] = arguments.reports or list(_BY_DEFAULT)
    names = list(dict.fromkeys(reports_given))
    unknown = [name for name in names if name not in (*METHODS, "all")]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(METHODS)}, all")
    if "all" in names:
        names = list(METHODS)
    try:
        reader = Reader(_address(arguments), arguments.timeout, arguments.retries)
    except ValueError as error:
        parser.error(str(error))
    except pychrony.ChronyError as error:
        print(printable(error.message), file=sys.stderr)
        return 1
    with reader:
        reports, errors = _read(reader, names)
        where = reader.address
    output = _FORMATS[arguments.format](where, reports, errors)
    try:
        with printing():
            if output:
                print(output, flush=True)
    except OSError as error:
        errors["output"] = str(error)
    for name, message in errors.items():
        print(printable(f"{name}: {message}"), file=sys.stderr)
    return 1 if errors else 0


def _read(
    reader: Reader, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the reports that can be read, and why others cannot."""
    reports: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name in names:
        try:
            reports[name] = reader.read(name)
        except pychrony.ChronyError as error:
            errors[name] = error.message
            if isinstance(
                error, (pychrony.ChronyConnectionError, pychrony.ChronyLibraryError)
            ):
                break  # the other reports would have the same error
    return reports, errors


def _address(arguments: argparse.Namespace) -> str | None:
    port, version = arguments.port, arguments.ip_version
    given = arguments.address
    if not given and (port or version):
        given = LOOPBACK[version or 4]
    end = time.monotonic() + arguments.timeout
    return complete(given, port, version, end) if given else None


def _as_text(_: str | None, reports: dict[str, Any], errors: dict[str, str]) -> str:
    from pychrony._chronyc_reports import TEXTS

    texts = (TEXTS[name](value) for name, value in reports.items())
    return "\n".join(
        printable(line) for text in texts for line in [*text.split("\n"), ""]
    ).removesuffix("\n")


def _as_json(
    address: str | None, reports: dict[str, Any], errors: dict[str, str]
) -> str:
    import json

    document = {
        "format": 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "address": address,
        "reports": {name: _objects(value) for name, value in reports.items()},
        "errors": errors,
    }
    return json.dumps(document, indent=2, allow_nan=False)


def _objects(value: Any) -> Any:
    return (
        [_object(one) for one in _records(value)] if _is_list(value) else _object(value)
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _records(value: Any) -> Any:
    """Return the records of a report as a list, empty if it is disabled."""
    if _is_list(value):
        return value
    return [] if value is None else [value]


def _object(record: Any) -> Any:
    return None if record is None else record.to_dict()


def _as_csv(_: str | None, reports: dict[str, Any], errors: dict[str, str]) -> str:
    import csv
    import io

    tables: list[str] = []
    for value in reports.values():
        rows: list[dict[str, Any]] = [_object(one) for one in _records(value)]
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            for row in rows:
                writer.writerow({name: _cell(one) for name, one in row.items()})
        tables.append(text.getvalue())
    return "\n".join(tables).removesuffix("\n")


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return " ".join(value) if _is_list(value) else value


_FORMATS = {"text": _as_text, "json": _as_json, "csv": _as_csv}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pychrony",
        description="Print reports of a chronyd.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "reports",
        metavar="REPORT",
        nargs="*",
        help="report to print (default: tracking sources)",
    )
    parser.add_argument(
        "-H", "--hostname", dest="address", metavar="ADDRESS", help=ADDRESS
    )
    add_port_and_version(parser)
    parser.add_argument(
        "-t",
        "--timeout",
        type=positive,
        default=10.0,
        metavar="SECONDS",
        help="time for all reports (%(default)g)",
    )
    add_retries(parser, 2)
    parser.set_defaults(format="text")
    formats = parser.add_mutually_exclusive_group()
    for name, text in (
        ("text", "print as chronyc does (the default)"),
        ("json", "print one JSON document; docs/reports.schema.json describes it"),
        ("csv", "print each report as a table with a header, separated by empty lines"),
    ):
        formats.add_argument(
            f"--{name}", action="store_const", const=name, dest="format", help=text
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
