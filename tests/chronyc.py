"""What chronyc prints of every report, against the records of pychrony."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import pychrony
from pychrony import NTPFlag, SelectOption, _chronyc
from pychrony import _chronyc_reports as theirs


@dataclass(frozen=True)
class Look:
    """A report in chronyc: its command, columns, and how our record looks there.

    A column is named after the field that it shows, with a colon where the
    field is shown in several. What `texts` does not give is shown as a number.
    """

    command: str
    columns: tuple[str, ...]
    texts: Callable[[Any], dict[str, str]] = lambda _: {}


def reference_id(address: str) -> int:
    """The reference ID of an NTP source (RFC 5905), 0 where it has no address."""
    if not address:
        return 0
    packed = ipaddress.ip_address(address).packed
    if len(packed) > 4:
        packed = hashlib.md5(packed, usedforsecurity=False).digest()
    return int.from_bytes(packed[:4], "big")


def _clock_name(number: int) -> str:
    """A reference ID as text, without what cannot be printed."""
    return "".join(chr(one) for one in number.to_bytes(4, "big") if 32 <= one < 127)


def _time(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09}"


def _tracking(record: pychrony.TrackingStatus) -> dict[str, str]:
    return {
        "reference_id": f"{record.reference_id:08X}",
        "reference_id_name": record.reference_id_name
        if record.is_synchronized()
        else "",
        "ref_time_ns": _time(record.ref_time_ns),
        "leap_status": _chronyc.LEAPS[record.leap_status],
    }


def _source(record: pychrony.Source) -> dict[str, str]:
    return {
        "mode": _chronyc.MODES[record.mode],
        "state": _chronyc.STATES[record.state],
        "address": record.address,
        "reachability": f"{record.reachability:o}",
    }


def _stats(record: pychrony.SourceStats) -> dict[str, str]:
    return {"address": record.address or _clock_name(record.reference_id)}


def _select(record: pychrony.SelectData) -> dict[str, str]:
    def letters(field: str, options: SelectOption) -> dict[str, str]:
        return {
            f"{field}:{letter}": letter if option in options else "-"
            for option, letter in theirs._OPTIONS
        } | {f"{field}:": "-"}

    return {
        "state": chr(record.state.value),
        "address": record.address or _clock_name(record.reference_id),
        "authentication": "Y" if record.authentication else "N",
        **letters("configured_options", record.configured_options),
        **letters("effective_options", record.effective_options),
        "leap_status": _chronyc.LEAPS[record.leap_status],
    }


def _auth(record: pychrony.AuthData) -> dict[str, str]:
    never = {"last_ke_ago": str(_chronyc.NEVER)} if record.last_ke_ago is None else {}
    return {
        **never,
        "address": record.address,
        "mode": theirs._AUTH_MODES[record.mode],
        "key_type": str(record.key_type.value),
        "nak": str(int(record.nak)),
    }


def _ntp(record: pychrony.NTPData) -> dict[str, str]:
    timestamping = theirs._TIMESTAMPING.get
    text = {
        "remote_address": record.remote_address,
        "remote_address:id": f"{reference_id(record.remote_address):08X}",
        "local_address": record.local_address or "[UNSPEC]",
        "local_address:id": f"{reference_id(record.local_address):08X}",
        "leap_status": _chronyc.LEAPS[record.leap_status],
        "mode": theirs._NTP_MODES.get(record.mode, "Invalid"),
        "poll:seconds": f"{2.0**record.poll:.0f}",
        "precision:seconds": f"{2.0**record.precision:.9f}",
        "reference_id": f"{record.reference_id:08X}",
        "reference_id:name": _clock_name(record.reference_id)
        if record.stratum <= 1
        else "",
        "ref_time_ns": _time(record.ref_time_ns),
        "flags:interleaved": theirs._yes(NTPFlag.INTERLEAVED in record.flags),
        "flags:authenticated": theirs._yes(NTPFlag.AUTHENTICATED in record.flags),
        "tx_timestamping": timestamping(record.tx_timestamping, "Invalid"),
        "rx_timestamping": timestamping(record.rx_timestamping, "Invalid"),
    }
    for number, group in enumerate(theirs._TESTS):
        bits = "".join("01"[test in record.flags] for test in group)
        text[f"flags:{number}"] = bits
    return text


def _smoothing(record: pychrony.Smoothing) -> dict[str, str]:
    leap_only = pychrony.SmoothingFlag.LEAPONLY in record.flags
    return {
        "flags:active": theirs._yes(pychrony.SmoothingFlag.ACTIVE in record.flags),
        "flags:leaponly": "(leap second only)" if leap_only else "",
    }


def _options(field: str) -> tuple[str, ...]:
    return (*(f"{field}:{letter}" for _, letter in theirs._OPTIONS), f"{field}:")


LOOKS: dict[type[Any], Look] = {
    pychrony.TrackingStatus: Look(
        "tracking",
        (
            *("reference_id", "reference_id_name", "stratum", "ref_time_ns"),
            *("offset", "last_offset", "rms_offset", "frequency", "residual_freq"),
            *("skew", "root_delay", "root_dispersion", "update_interval"),
            "leap_status",
        ),
        _tracking,
    ),
    pychrony.Source: Look(
        "sources -a",
        (
            *("mode", "state", "address", "stratum", "poll", "reachability"),
            *("last_sample_ago", "latest_meas", "orig_latest_meas", "latest_meas_err"),
        ),
        _source,
    ),
    pychrony.SourceStats: Look(
        "sourcestats -a",
        (
            *("address", "samples", "runs", "span", "resid_freq", "skew", "offset"),
            "std_dev",
        ),
        _stats,
    ),
    pychrony.SelectData: Look(
        "selectdata -a",
        (
            *("state", "address", "authentication"),
            *(*_options("configured_options"), *_options("effective_options")),
            *("last_sample_ago", "score", "low_limit", "high_limit", "leap_status"),
        ),
        _select,
    ),
    pychrony.Activity: Look(
        "activity",
        ("online", "offline", "burst_online", "burst_offline", "unresolved"),
    ),
    pychrony.AuthData: Look(
        "authdata -a",
        (
            *("address", "mode", "key_id", "key_type", "key_length", "last_ke_ago"),
            *("ke_attempts", "nak", "cookies", "cookie_length"),
        ),
        _auth,
    ),
    pychrony.NTPData: Look(
        "ntpdata",
        (
            *("remote_address", "remote_address:id", "remote_port"),
            *("local_address", "local_address:id", "leap_status", "version", "mode"),
            *("stratum", "poll", "poll:seconds", "precision", "precision:seconds"),
            *("root_delay", "root_dispersion", "reference_id", "reference_id:name"),
            *("ref_time_ns", "offset", "peer_delay", "peer_dispersion"),
            *("response_time", "jitter_asymmetry", "flags:0", "flags:1", "flags:2"),
            *("flags:interleaved", "flags:authenticated"),
            *("tx_timestamping", "rx_timestamping", "total_tx", "total_rx"),
            *("total_valid_rx", "total_good_rx"),
            *("kernel_tx", "kernel_rx", "hardware_tx", "hardware_rx"),
        ),
        _ntp,
    ),
    pychrony.ServerStats: Look(
        "serverstats",
        (
            *("ntp_received", "ntp_dropped", "command_received", "command_dropped"),
            *("log_dropped", "nts_ke_accepted", "nts_ke_dropped"),
            *("ntp_authenticated", "ntp_interleaved", "timestamps_held"),
            *("timestamp_span", "daemon_rx", "daemon_tx", "kernel_rx", "kernel_tx"),
            *("hardware_rx", "hardware_tx"),
        ),
    ),
    pychrony.Smoothing: Look(
        "smoothing",
        (
            *("flags:active", "flags:leaponly", "offset", "freq_offset", "wander"),
            *("last_update_ago", "remaining_time"),
        ),
        _smoothing,
    ),
}


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come in time"
        time.sleep(0.05)


Chronyc = Callable[..., str]
"""What chronyc prints for some arguments."""


def agree(
    chronyc: Chronyc, record: type[Any], read: Callable[[], Sequence[Any]]
) -> int:
    """Read records between two runs of chronyc; what did not change is equal.

    What changed is a number that grows or falls with time: ours is between.
    An older chronyc ends its rows earlier; there, ours must be None. Returns
    how many columns there are.
    """
    look = LOOKS[record]
    before = after = ours = []
    for _ in range(50):
        before = _rows(chronyc, look)
        ours = [_row(look, one) for one in read()]
        after = _rows(chronyc, look)
        if len(before) == len(ours) == len(after) and all(
            _matches(*values)
            for three in zip(before, ours, after, strict=True)
            for values in zip(*three, strict=True)
        ):
            assert ours
            return sum(value is not None for value in before[0])
        time.sleep(0.03)
    pytest.fail(f"chronyc: {before}\nand then: {after}\npychrony: {ours}")


def _rows(chronyc: Chronyc, look: Look) -> list[list[str | None]]:
    lines = chronyc("-c", *look.command.split()).splitlines()
    rows: list[list[str | None]] = []
    for line in lines:
        values = line.split(",")
        rows.append([*values, *[None] * (len(look.columns) - len(values))])
    return rows


def _row(look: Look, record: Any) -> list[float | str | None]:
    texts = look.texts(record)
    assert set(texts) <= set(look.columns)
    return [
        texts[name] if name in texts else getattr(record, name) for name in look.columns
    ]


def _matches(before: str | None, value: float | str | None, after: str | None) -> bool:
    exact = None if value is None else str(value)
    if exact in (before, after):  # counters have more digits than a float
        return True
    if before is None or after is None or value is None or isinstance(value, str):
        return False
    low, high = sorted((float(before), float(after)))
    digits = len(before.partition(".")[2])
    rounding = 0.50001 * 10.0**-digits if digits else 0
    # What chronyd recomputes between the two looks may leave the interval, but
    # an update of the clock is then over by the next one.
    return low - rounding <= value <= high + rounding
