"""The words, units and formats of chronyc."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .enums import LeapStatus, SourceMode, SourceState
from .models import Source, TrackingStatus

NEVER = 0xFFFFFFFF  # the age that chronyd reports for "never"

MODES = {SourceMode.CLIENT: "^", SourceMode.PEER: "=", SourceMode.REFCLOCK: "#"}

STATES = {
    SourceState.SELECTED: "*",
    SourceState.NONSELECTABLE: "?",
    SourceState.FALSETICKER: "x",
    SourceState.JITTERY: "~",
    SourceState.UNSELECTED: "+",
    SourceState.SELECTABLE: "-",
}

LEAPS = {
    LeapStatus.NORMAL: "Normal",
    LeapStatus.INSERT: "Insert second",
    LeapStatus.DELETE: "Delete second",
    LeapStatus.UNSYNC: "Not synchronised",
}

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400

# Below this many seconds: the factor, the digits and the unit.
_UNITS = (
    (9999.5e-9, 1e9, 0, "ns"),
    (9999.5e-6, 1e6, 0, "us"),
    (9999.5e-3, 1e3, 0, "ms"),
    (999.5, 1, 1, "s"),
    (99999.5, 1, 0, "s"),
    (99999.5 * _MINUTE, 1 / _MINUTE, 0, "m"),
    (99999.5 * _HOUR, 1 / _HOUR, 0, "h"),
    (99999.5 * _DAY, 1 / _DAY, 0, "d"),
    (float("inf"), 1 / _YEAR, 0, "y"),
)


def seconds(value: float, sign: str = "", width: int = 0) -> str:
    """Return a time in a suitable unit; ``sign`` "+" always shows the sign."""
    _, factor, digits, unit = next(
        (row for row in _UNITS if abs(value) < row[0]), _UNITS[-1]
    )
    return f"{value * factor:{sign}.{digits}f}{unit}".rjust(width)


def printable(line: str) -> str:
    """Return one line for a terminal or a log: control characters are escaped.

    A message of two lines becomes one.
    """
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape").decode("ascii")
        for letter in line.replace("\n", " ")
    )


def age(value: int | None) -> str:
    """Return an age in whole seconds as in chronyc's column LastRx."""
    if value is None or value == NEVER:
        return "-"
    if value < 1200:
        return str(value)
    if value < 36_000:
        return f"{value // _MINUTE}m"
    if value < 345_600:
        return f"{value // _HOUR}h"
    days = value // _DAY
    return f"{days}d" if days <= 999 else f"{days // 365}y"


def clock(record: TrackingStatus) -> dict[str, str]:
    """Return the main figures of a clock: two of its time, and two of its source."""
    bound, source = "no error bound", "not synchronised"
    if record.error_bound is not None:
        bound = f"error bound {seconds(record.error_bound)}"
        source = f"source {record.reference_id_name}"
    elif record.is_local():
        source = "local mode"
    return {
        "offset": f"offset {seconds(record.offset, '+')}",
        "error_bound": bound,
        "stratum": f"stratum {record.stratum}",
        "source": source,
    }


def usable(records: Sequence[Source]) -> str:
    """Say how many of the sources a clock follows or could follow."""
    number = sum(map(Source.is_usable, records))
    return f"{number} of {len(records)} sources usable"


def tracking(record: TrackingStatus) -> str:
    """Return what ``chronyc -n tracking`` prints."""
    name = record.reference_id_name if record.is_synchronized() else ""
    return "\n".join(
        f"{label:<16}: {value}"
        for label, value in {
            "Reference ID": f"{record.reference_id:08X} ({name})",
            "Stratum": record.stratum,
            "Ref time (UTC)": date(record.ref_time_ns // 10**9),
            "System time": f"{abs(record.offset):.9f} seconds "
            f"{'slow' if record.offset > 0 else 'fast'} of NTP time",
            "Last offset": f"{record.last_offset:+.9f} seconds",
            "RMS offset": f"{record.rms_offset:.9f} seconds",
            "Frequency": f"{abs(record.frequency):.3f} ppm "
            f"{'fast' if record.frequency > 0 else 'slow'}",
            "Residual freq": f"{record.residual_freq:+.3f} ppm",
            "Skew": f"{record.skew:.3f} ppm",
            "Root delay": f"{record.root_delay:.9f} seconds",
            "Root dispersion": f"{record.root_dispersion:.9f} seconds",
            "Update interval": f"{record.update_interval:.1f} seconds",
            "Leap status": LEAPS.get(record.leap_status, "Invalid"),
        }.items()
    )


def date(moment: int) -> str:
    """Return a moment [s since 1970] as chronyc prints it."""
    try:
        return time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(moment))
    except (OverflowError, OSError):  # out of range for the C library
        return f"{moment} s since 1970"


def sources(records: Sequence[Source]) -> str:
    """Return what ``chronyc -n sources -a`` prints."""
    head = "MS Name/IP address         Stratum Poll Reach LastRx Last sample"
    return "\n".join([head, "=" * 79, *map(_source, records)])


def _source(record: Source) -> str:
    glyphs, address, stratum, poll, reach, last_rx, sample = source_cells(record)
    return (
        f"{glyphs} {address:<27}  {stratum:>2}  {poll:>2}   {reach:>3}  {last_rx:>4}  "
        f"{sample}"
    )


def source_cells(record: Source) -> tuple[str, ...]:
    """Return the values of chronyc's seven columns for a source."""
    adjusted = seconds(record.latest_meas, "+", 7)
    measured = seconds(record.orig_latest_meas, "+", 7)
    return (
        f"{MODES.get(record.mode, ' ')}{STATES.get(record.state, ' ')}",
        record.address,
        str(record.stratum),
        str(record.poll),
        f"{record.reachability:o}",
        age(record.last_sample_ago),
        f"{adjusted}[{measured}] +/- {seconds(record.latest_meas_err, width=6)}",
    )
