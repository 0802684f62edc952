"""The command ``python -m pychrony.testing record``: see ``_recording``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from pychrony import ChronyError

from ._recording import record
from ._reports import AUTH_DATA, NTP_DATA, REPORTS, SOURCESTATS
from ._wire import UNAUTHORIZED, status_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if not sys.stdout:
            raise OSError("there is no standard output")
        recording = record(arguments.address)
        # Not sys.stdout itself, which would fail a second time at exit.
        with open(sys.stdout.fileno(), "w", closefd=False) as output:
            print(json.dumps(recording, indent=1), file=output)
    except (ChronyError, OSError, ValueError) as error:
        print(f"python -m pychrony.testing: {error}", file=sys.stderr)
        return 1
    codes = {
        entry["request"]
        for entry in recording["replies"]
        if status_of(bytes.fromhex(entry["reply"])) == UNAUTHORIZED
    }
    if SOURCESTATS.code in codes:  # they cannot be requested without it
        codes |= {NTP_DATA.code, AUTH_DATA.code}
    # The number of sources is refused if no list of sources may be read.
    refused = dict.fromkeys(
        command for one in REPORTS if one.code in codes for command in one.commands
    )
    if refused:
        print(
            f"python -m pychrony.testing: not authorised to read {', '.join(refused)}. "
            "Record over chronyd's Unix socket, as root or the user that chronyd runs "
            "as, to have them, too",
            file=sys.stderr,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pychrony.testing",
        description="Record what a chronyd replies, for tests and bug reports.",
    )
    commands = parser.add_subparsers(required=True, metavar="record")
    recorder = commands.add_parser(
        "record",
        help="write a recording to standard output",
        description="Read everything that a chronyd reports, and write the replies "
        "to standard output as JSON, for pychrony.testing.RecordedDaemon. They "
        "contain the addresses and reference IDs of its sources and its own "
        "address, but no keys and no addresses of clients.",
    )
    recorder.add_argument(
        "address",
        nargs="?",
        help="Unix socket, IP address or host name of the chronyd; by default the "
        "one of this machine",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
