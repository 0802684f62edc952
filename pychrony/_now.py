"""The command ``python -m pychrony now``."""

from __future__ import annotations

import argparse
import json
import sys

from pychrony import BoundedClock, ChronyError
from pychrony._chronyc import printable
from pychrony._cli import positive, printing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m pychrony now``: print the interval; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pychrony now",
        description="Print an interval that holds true time.",
        epilog="Exit status: 0; 1 if nothing bounds the clock; 2 for a usage error.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "-H",
        "--hostname",
        dest="address",
        metavar="ADDRESS",
        help="address of the chronyd of this machine",
    )
    option(
        "-t",
        "--timeout",
        type=positive,
        default=10.0,
        metavar="SECONDS",
        help="time to wait for an interval (10)",
    )
    option(
        "--max-drift-ppm",
        type=float,
        default=50.0,
        metavar="PPM",
        help="fastest drift of the oscillator [ppm] (50)",
    )
    option(
        "--reference-error",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="error of the stratum-1 source itself [s] (0)",
    )
    option("--json", action="store_true", help="print JSON, times in ns since 1970")
    arguments = parser.parse_args(argv)
    try:
        clock = BoundedClock(
            arguments.address,
            max_drift_ppm=arguments.max_drift_ppm,
            reference_error=arguments.reference_error,
        )
    except ValueError as error:
        parser.error(str(error))
    try:
        with clock:
            now = clock.wait_until_bounded(timeout=arguments.timeout)
    except ChronyError as error:
        print(printable(error.message), file=sys.stderr)
        return 1
    if arguments.json:
        document = {
            "format": 1,
            "earliest": now.earliest,
            "latest": now.latest,
            "error_bound": now.error_bound,
            "status": now.status.name,
        }
        text = json.dumps(document, indent=2)
    else:
        earliest, latest = (
            one.isoformat(timespec="microseconds") for one in now.datetime()
        )
        text = (
            f"Earliest time : {earliest}\n"
            f"Latest time   : {latest}\n"
            f"Error bound   : {now.error_bound:.9f} seconds\n"
            f"Status        : {now.status.name}"
        )
    try:
        with printing():
            print(text, flush=True)
    except OSError as error:
        print(f"cannot write: {error}", file=sys.stderr)
        return 1
    return 0
