"""The other eight reports as chronyc prints them."""

from __future__ import annotations

from ._chronyc import LEAPS, age, date, seconds, sources, tracking
from .enums import (
    AuthMode,
    LeapStatus,
    NTPFlag,
    NTPMode,
    SelectOption,
    SmoothingFlag,
    Timestamping,
)
from .models import refid_name

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from .models import (
        Activity,
        AuthData,
        NTPData,
        RTCData,
        SelectData,
        ServerStats,
        Smoothing,
        SourceStats,
    )

_AUTH_MODES = {AuthMode.NONE: "-", AuthMode.SYMMETRIC_KEY: "SK", AuthMode.NTS: "NTS"}
_LEAP_LETTERS = {
    LeapStatus.NORMAL: "N",
    LeapStatus.INSERT: "+",
    LeapStatus.DELETE: "-",
    LeapStatus.UNSYNC: "?",
}
_NTP_MODES = {
    NTPMode.ACTIVE_SYMMETRIC: "Symmetric active",
    NTPMode.PASSIVE_SYMMETRIC: "Symmetric passive",
    NTPMode.SERVER: "Server",
}
_TIMESTAMPING = {
    Timestamping.DAEMON: "Daemon",
    Timestamping.KERNEL: "Kernel",
    Timestamping.HARDWARE: "Hardware",
}
_OPTIONS = (
    (SelectOption.NOSELECT, "N"),
    (SelectOption.PREFER, "P"),
    (SelectOption.TRUST, "T"),
    (SelectOption.REQUIRE, "R"),
)
_TESTS = (
    (NTPFlag.TEST1, NTPFlag.TEST2, NTPFlag.TEST3),
    (NTPFlag.TEST5, NTPFlag.TEST6, NTPFlag.TEST7),
    (NTPFlag.TESTA, NTPFlag.TESTB, NTPFlag.TESTC, NTPFlag.TESTD),
)


def _table(head: str, rows: Iterable[str]) -> str:
    return "\n".join([head, "=" * len(head), *rows])


def _ppm(value: float, sign: str = "") -> str:
    return f"{value:{sign}10.{0 if abs(value) > 99999.5 else 3}f}"


def source_stats(records: Sequence[SourceStats]) -> str:
    """Return what ``chronyc -n sourcestats -a`` prints."""
    return _table(
        f"{'Name/IP Address':25}  NP  NR  Span  Frequency  Freq Skew  Offset  Std Dev",
        (
            f"{one.name:25} {one.samples:3} {one.runs:3}  {age(one.span):>4} "
            f"{_ppm(one.resid_freq, '+')} {_ppm(one.skew)}  "
            f"{seconds(one.offset, '+', 7)}  {seconds(one.std_dev, width=6)}"
            for one in records
        ),
    )


def _letters(options: SelectOption) -> str:
    return "".join(text if one in options else "-" for one, text in _OPTIONS) + "-"


def select_data(records: Sequence[SelectData]) -> str:
    """Return what ``chronyc -n selectdata -a`` prints."""
    return _table(
        "S Name/IP Address        Auth COpts EOpts Last Score     Interval  Leap",
        (
            f"{chr(one.state.value)} {one.name:25} {'NY'[one.authentication]} "
            f"{_letters(one.configured_options)} {_letters(one.effective_options)} "
            f"{age(one.last_sample_ago):>4} {one.score:5.1f} "
            f"{seconds(one.low_limit, '+', 7)} {seconds(one.high_limit, '+', 7)}  "
            f"{_LEAP_LETTERS.get(one.leap_status, '?')}"
            for one in records
        ),
    )


def activity(record: Activity) -> str:
    """Return what ``chronyc activity`` prints."""
    return (
        f"200 OK\n{record.online} sources online\n{record.offline} sources offline\n"
        f"{record.burst_online} sources doing burst (return to online)\n"
        f"{record.burst_offline} sources doing burst (return to offline)\n"
        f"{record.unresolved} sources with unknown address"
    )


def auth_data(records: Sequence[AuthData]) -> str:
    """Return what ``chronyc -n authdata -a`` prints."""
    return _table(
        "Name/IP address             Mode KeyID Type KLen Last Atmp  NAK Cook CLen",
        (
            f"{one.address:27} {_AUTH_MODES.get(one.mode, '?'):>4} {one.key_id:5} "
            f"{one.key_type.value:4} {one.key_length:4} {age(one.last_ke_ago):>4} "
            f"{one.ke_attempts:4} {one.nak:4} {one.cookies:4} {one.cookie_length:4}"
            for one in records
        ),
    )


def _lines(width: int, values: dict[str, object]) -> str:
    return "\n".join(
        f"{label:{width}}: {value}"
        for label, value in values.items()
        if value is not None  # chronyd did not send it
    )


def _with_id(address: str) -> str:
    """Return an address with the reference ID that a server with it has."""
    if not address:
        return "[UNSPEC] (00000000)"
    try:
        from ipaddress import ip_address

        raw = ip_address(address).packed
    except ValueError:  # not resolved
        raw = bytes(4)
    if len(raw) > 4:
        from hashlib import md5

        raw = md5(raw, usedforsecurity=False).digest()
    return f"{address} ({raw[:4].hex().upper()})"


def _yes(flag: bool) -> str:
    return "Yes" if flag else "No"


def _ntp(one: NTPData) -> str:
    clock = refid_name(one.reference_id) if one.stratum <= 1 else ""
    clock = clock if one.reference_id else ""
    groups = ("".join("01"[test in one.flags] for test in group) for group in _TESTS)
    return "\n" + _lines(
        16,
        {
            "Remote address": _with_id(one.remote_address),
            "Remote port": one.remote_port,
            "Local address": _with_id(one.local_address),
            "Leap status": LEAPS.get(one.leap_status, "Invalid"),
            "Version": one.version,
            "Mode": _NTP_MODES.get(one.mode, "Invalid"),
            "Stratum": one.stratum,
            "Poll interval": f"{one.poll} ({2.0**one.poll:.0f} seconds)",
            "Precision": f"{one.precision} ({2.0**one.precision:.9f} seconds)",
            "Root delay": f"{one.root_delay:.6f} seconds",
            "Root dispersion": f"{one.root_dispersion:.6f} seconds",
            "Reference ID": f"{one.reference_id:08X} ({clock})",
            "Reference time": date(one.ref_time_ns // 10**9),
            "Offset": f"{one.offset:+.9f} seconds",
            "Peer delay": f"{one.peer_delay:.9f} seconds",
            "Peer dispersion": f"{one.peer_dispersion:.9f} seconds",
            "Response time": f"{one.response_time:.9f} seconds",
            "Jitter asymmetry": f"{one.jitter_asymmetry:+.2f}",
            "NTP tests": " ".join(groups),
            "Interleaved": _yes(NTPFlag.INTERLEAVED in one.flags),
            "Authenticated": _yes(NTPFlag.AUTHENTICATED in one.flags),
            "TX timestamping": _TIMESTAMPING.get(one.tx_timestamping, "Invalid"),
            "RX timestamping": _TIMESTAMPING.get(one.rx_timestamping, "Invalid"),
            "Total TX": one.total_tx,
            "Total RX": one.total_rx,
            "Total valid RX": one.total_valid_rx,
            "Total good RX": one.total_good_rx,
            "Total kernel TX": one.kernel_tx,
            "Total kernel RX": one.kernel_rx,
            "Total HW TX": one.hardware_tx,
            "Total HW RX": one.hardware_rx,
        },
    )


def ntp_data(records: Sequence[NTPData]) -> str:
    """Return what ``chronyc -n ntpdata`` prints: only sources with an address."""
    return "\n".join(_ntp(one) for one in records if one.address[:3] != "ID#")


def server_stats(one: ServerStats) -> str:
    """Return what ``chronyc serverstats`` prints."""
    return _lines(
        27,
        {
            "NTP packets received": one.ntp_received,
            "NTP packets dropped": one.ntp_dropped,
            "Command packets received": one.command_received,
            "Command packets dropped": one.command_dropped,
            "Client log records dropped": one.log_dropped,
            "NTS-KE connections accepted": one.nts_ke_accepted,
            "NTS-KE connections dropped": one.nts_ke_dropped,
            "Authenticated NTP packets": one.ntp_authenticated,
            "Interleaved NTP packets": one.ntp_interleaved,
            "NTP timestamps held": one.timestamps_held,
            "NTP timestamp span": one.timestamp_span,
            "NTP daemon RX timestamps": one.daemon_rx,
            "NTP daemon TX timestamps": one.daemon_tx,
            "NTP kernel RX timestamps": one.kernel_rx,
            "NTP kernel TX timestamps": one.kernel_tx,
            "NTP hardware RX timestamps": one.hardware_rx,
            "NTP hardware TX timestamps": one.hardware_tx,
        },
    )


def rtc_data(one: RTCData | None) -> str:
    """Return what ``chronyc rtcdata`` prints."""
    if one is None:
        return "513 RTC driver not running"
    return _lines(
        19,
        {
            "RTC ref time (UTC)": date(one.ref_time_ns // 10**9),
            "Number of samples": one.samples,
            "Number of runs": one.runs,
            "Sample span period": f"{age(one.span):>4}",
            "RTC is fast by": f"{one.offset:12.6f} seconds",
            "RTC gains time at": f"{one.freq_offset:9.3f} ppm",
        },
    )


def smoothing(one: Smoothing | None) -> str:
    """Return what ``chronyc smoothing`` prints, also if it is not enabled."""
    if one is None:
        return "505 Facility not enabled in daemon"
    leap_only = "(leap second only)" if SmoothingFlag.LEAPONLY in one.flags else ""
    return _lines(
        15,
        {
            "Active": f"{_yes(SmoothingFlag.ACTIVE in one.flags)} {leap_only}",
            "Offset": f"{one.offset:+.9f} seconds",
            "Frequency": f"{one.freq_offset:+.6f} ppm",
            "Wander": f"{one.wander:+.6f} ppm per second",
            "Last update": f"{one.last_update_ago:.1f} seconds ago",
            "Remaining time": f"{one.remaining_time:.1f} seconds",
        },
    )


# The function that formats each report, by libchrony's name of the report.
TEXTS: dict[str, Callable[[Any], str]] = {
    "tracking": tracking,
    "sources": sources,
    "sourcestats": source_stats,
    "selectdata": select_data,
    "activity": activity,
    "authdata": auth_data,
    "ntpdata": ntp_data,
    "serverstats": server_stats,
    "rtcdata": rtc_data,
    "smoothing": smoothing,
}
