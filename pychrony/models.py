"""What chronyd reports: the records, their enums, and where each field comes from.

A record is a frozen dataclass. The ``metadata`` of a field names the field of
libchrony that it is read from (``_from``) or how it follows from the others
(``_derived``); :data:`REPORTS` says which report each dataclass is. That is
the whole table: ``_decode.py`` builds its plans from it.

Definitions: chronyc(1), "Monitoring commands". Times are in seconds,
frequencies in parts per million (ppm), unless a name says otherwise.
"""

# The annotations are read at run time, so they must not become strings.
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = [
    "LeapStatus",
    "RTCData",
    "Source",
    "SourceMode",
    "SourceState",
    "SourceStats",
    "TrackingStatus",
    "Transport",
]


class Transport(Enum):
    """How a connection reaches chronyd.

    Attributes:
        UNIX_SOCKET: the Unix domain socket, open to root and the user that
            chronyd runs as. It would carry control commands too; pychrony
            sends none.
        COMMAND_PORT: the UDP command port (323 by default), which serves
            monitoring to anybody on the same machine, and to others that
            ``cmdallow`` names.
    """

    UNIX_SOCKET = "unix_socket"
    COMMAND_PORT = "command_port"


class _OpenEnum(Enum):
    """An enum that does not lose a report to a number it has no name for."""

    @classmethod
    def _missing_(cls, value: object) -> "_OpenEnum | None":
        if type(value) is not int or not 0 <= value <= 0xFFFFFFFF:
            return None
        member = object.__new__(cls)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        known: dict[int, _OpenEnum] = cls._value2member_map_  # type: ignore[assignment]
        return known.setdefault(value, member)

    def __reduce_ex__(self, _: object) -> "tuple[Any, ...]":
        # Some versions of Python (3.11.0 to 3.11.3) pickle by name.
        return type(self), (self.value,)


class LeapStatus(_OpenEnum):
    """What happens to the last minute of this UTC day.

    A number that chronyd may add later becomes a member ``UNKNOWN_<n>`` with
    that number as its value; the same holds for the other enums here.

    Attributes:
        NORMAL: nothing.
        INSERT: a leap second is inserted (23:59:60 exists).
        DELETE: a leap second is deleted (23:59:59 does not exist).
        UNSYNC: not known, the clock is not synchronised.
    """

    NORMAL = 0
    INSERT = 1
    DELETE = 2
    UNSYNC = 3


class SourceState(_OpenEnum):
    """What the selection algorithm made of a source (chronyc's column ``S``).

    Attributes:
        SELECTED: ``*``, the source that the clock follows.
        NONSELECTABLE: ``?``, unreachable, unsynchronised or not yet measured.
        FALSETICKER: ``x``, disagrees with the majority of the others.
        JITTERY: ``~``, too variable.
        UNSELECTED: ``+``, good, and combined with the selected source. (The
            name is libchrony's; chronyc calls the state "combined".)
        SELECTABLE: ``-``, good, but not combined with the selected source.
    """

    SELECTED = 0
    NONSELECTABLE = 1
    FALSETICKER = 2
    JITTERY = 3
    UNSELECTED = 4
    SELECTABLE = 5


class SourceMode(_OpenEnum):
    """What kind of source it is (chronyc's column ``M``).

    Attributes:
        CLIENT: ``^``, an NTP server that chronyd is a client of.
        PEER: ``=``, an NTP peer.
        REFCLOCK: ``#``, a reference clock of this machine.
    """

    CLIENT = 0
    PEER = 1
    REFCLOCK = 2


def _from(*names: str, most: "int | None" = None) -> "Mapping[str, Any]":
    """Read the field from the first of libchrony's fields ``names`` that is there.

    A value above ``most`` is an error.
    """
    return {"names": names, "most": most}


def _derived(function: "Callable[[dict[str, Any]], Any]") -> "Mapping[str, Any]":
    """Compute the field from the attributes of the record read so far."""
    return {"derived": function}


def refid_name(reference_id: int) -> str:
    """Return a reference ID as text: ``GPS`` if it is ASCII, else as ``192.0.2.1``."""
    raw = reference_id.to_bytes(4, "big")
    text = raw.rstrip(b"\0").decode("latin-1")
    if text.isascii() and text.isprintable():
        return text
    return ".".join(map(str, raw))


# chronyd's reference ID of its own clock, served by the "local" directive.
_LOCAL_REFERENCE_ID = 0x7F7F0101

# A sentinel for "derive it from ref_time", as the published 2.x API had no
# ref_time_ns and its callers do not pass one.
_FROM_REF_TIME = -1


def _complete_ref_time_ns(record: "TrackingStatus | RTCData") -> None:
    if record.ref_time_ns == _FROM_REF_TIME and isfinite(record.ref_time):
        seconds, fraction = divmod(record.ref_time, 1)
        exact = int(seconds) * 10**9 + round(fraction * 10**9)
        object.__setattr__(record, "ref_time_ns", exact)


@dataclass(frozen=True)
class TrackingStatus:
    """The clock as chronyd sees it (report ``tracking``).

    Attributes:
        reference_id: reference ID of the source that the clock follows, 32
            bits; 0 when not synchronised, 0x7F7F0101 in local mode.
        reference_id_name: its address, or its reference ID as text where it
            has no address (``GPS``, ``PPS0``).
        reference_ip: its IP address; empty for a reference clock, in local
            mode, and when not synchronised.
        stratum: hops to a reference clock, 1 to 15; 0 when not synchronised.
        leap_status: what happens at the end of the day.
        ref_time: when the last measurement was processed [s since 1970, UTC];
            0 when there was none.
        offset: how far the system clock is behind NTP time at this moment [s];
            chronyd is slewing this away. Negative: it is ahead.
        last_offset: estimated offset at the last clock update [s]; positive:
            the clock was ahead of its sources.
        rms_offset: long-term average of the offset [s], not negative.
        frequency: how much the clock would run wrong uncorrected [ppm];
            positive: it would gain.
        residual_freq: difference between ``frequency`` and what the last
            measurements suggest [ppm].
        skew: estimated error bound of ``frequency`` [ppm], not negative.
        root_delay: network delay to the stratum-1 source [s], not negative.
        root_dispersion: dispersion accumulated back to the stratum-1 source
            [s], not negative; it grows while no measurement arrives.
        update_interval: time between the last two clock updates [s].
        ref_time_ns: ``ref_time`` in exact nanoseconds.
    """

    reference_id: int = field(metadata=_from("reference ID"))
    reference_id_name: str = field(
        metadata=_derived(lambda r: r["reference_ip"] or refid_name(r["reference_id"]))
    )
    reference_ip: str = field(metadata=_from("address"))
    stratum: int = field(metadata=_from("stratum", most=16))
    leap_status: LeapStatus = field(metadata=_from("leap status"))
    ref_time: float = field(metadata=_derived(lambda r: r["ref_time_ns"] / 10**9))
    offset: float = field(metadata=_from("current correction"))
    last_offset: float = field(metadata=_from("last offset"))
    rms_offset: float = field(metadata=_from("RMS offset"))
    frequency: float = field(metadata=_from("frequency offset"))
    residual_freq: float = field(metadata=_from("residual frequency"))
    skew: float = field(metadata=_from("skew"))
    root_delay: float = field(metadata=_from("root delay"))
    root_dispersion: float = field(metadata=_from("root dispersion"))
    update_interval: float = field(metadata=_from("last update interval"))
    ref_time_ns: int = field(default=_FROM_REF_TIME, metadata=_from("reference time"))

    def __post_init__(self) -> None:
        _complete_ref_time_ns(self)

    def is_synchronized(self) -> bool:
        """Whether the clock follows a source, as ``chronyc waitsync`` sees it.

        Local mode (reference ID 7F7F0101 without an address) does not count.
        """
        return self.stratum < 16 and (
            self.reference_ip != "" or self.reference_id not in (0, _LOCAL_REFERENCE_ID)
        )

    def is_local(self) -> bool:
        """Whether chronyd serves its own unsynchronised clock (directive ``local``)."""
        return self.reference_id == _LOCAL_REFERENCE_ID and not self.reference_ip

    def is_leap_pending(self) -> bool:
        """Whether a leap second is inserted or deleted at the end of the day."""
        return self.leap_status in (LeapStatus.INSERT, LeapStatus.DELETE)

    @property
    def error_bound(self) -> "float | None":
        """The most that the clock can be wrong [s], or ``None``.

        \\|offset\\| + root_dispersion + root_delay / 2 (chronyc(1), "tracking"),
        assuming that the stratum-1 source is right. ``None`` when the clock is
        not synchronised or in local mode: nothing bounds its error then.
        """
        if not self.is_synchronized():
            return None
        return abs(self.offset) + self.root_dispersion + self.root_delay / 2


@dataclass(frozen=True)
class Source:
    """One time source and its latest sample (report ``sources``).

    Attributes:
        address: IP address; the reference ID as text (``GPS``) if ``mode`` is
            REFCLOCK; ``ID#`` and a number while its name is not resolved.
        poll: polling interval, as a power of two [log2 s]; may be negative
            (-2: four measurements a second).
        stratum: stratum that the source reported last; 0 when it did not yet,
            and for a reference clock.
        state: what the selection algorithm made of it.
        mode: what kind of source it is.
        flags: reserved by chronyd, 0.
        reachability: the last eight polls, one bit each, the latest lowest;
            255 (377 octal) when all were answered.
        last_sample_ago: age of the last good sample [s]; 4294967295 when there
            was none.
        orig_latest_meas: offset of the last sample as measured [s]; positive:
            the clock was ahead of the source.
        latest_meas: the same, adjusted for the slews since [s].
        latest_meas_err: estimated error bound of the sample [s], not negative.
    """

    address: str = field(metadata=_from("address", "reference ID"))
    poll: int = field(metadata=_from("poll"))
    stratum: int = field(metadata=_from("stratum", most=16))
    state: SourceState = field(metadata=_from("state"))
    mode: SourceMode = field(metadata=_from("mode"))
    flags: int = field(metadata=_from("flags"))
    reachability: int = field(metadata=_from("reachability", most=255))
    last_sample_ago: int = field(metadata=_from("last sample ago"))
    orig_latest_meas: float = field(metadata=_from("original last sample offset"))
    latest_meas: float = field(metadata=_from("adjusted last sample offset"))
    latest_meas_err: float = field(metadata=_from("last sample error"))

    def is_reachable(self) -> bool:
        """Whether any of the last eight polls was answered."""
        return self.reachability > 0

    def is_selected(self) -> bool:
        """Whether this is the source that the clock follows."""
        return self.state is SourceState.SELECTED

    def is_usable(self) -> bool:
        """Whether the clock follows it or could (``*``, ``+`` and ``-``)."""
        return self.state in (
            SourceState.SELECTED,
            SourceState.UNSELECTED,
            SourceState.SELECTABLE,
        )


@dataclass(frozen=True)
class SourceStats:
    """What the past samples of one source say (report ``sourcestats``).

    Attributes:
        reference_id: reference ID of the source, 32 bits.
        address: IP address; empty for a reference clock; ``ID#`` and a number
            while its name is not resolved.
        samples: number of samples kept.
        runs: number of runs of residuals with the same sign; far fewer than
            ``samples`` means that a straight line fits them badly.
        span: time from the oldest to the newest sample [s].
        std_dev: estimated standard deviation of a sample [s], not negative.
        resid_freq: residual frequency of the source [ppm].
        skew: estimated error bound of the frequency [ppm], not negative.
        offset: estimated offset of the source [s].
        offset_err: estimated error bound of ``offset`` [s], not negative.
    """

    reference_id: int = field(metadata=_from("reference ID"))
    address: str = field(metadata=_from("address"))
    samples: int = field(metadata=_from("samples"))
    runs: int = field(metadata=_from("runs"))
    span: int = field(metadata=_from("span"))
    std_dev: float = field(metadata=_from("standard deviation"))
    resid_freq: float = field(metadata=_from("residual frequency"))
    skew: float = field(metadata=_from("skew"))
    offset: float = field(metadata=_from("offset"))
    offset_err: float = field(metadata=_from("offset error"))

    def has_sufficient_samples(self, minimum: int = 4) -> bool:
        """Whether there are at least ``minimum`` samples."""
        return self.samples >= minimum


@dataclass(frozen=True)
class RTCData:
    """The real-time clock of the machine (report ``rtcdata``).

    Attributes:
        ref_time: RTC reading at the last measurement [s since 1970].
        samples: number of measurements kept.
        runs: number of runs of residuals with the same sign.
        span: time that the measurements cover [s].
        offset: how far the RTC is ahead of the system clock [s].
        freq_offset: how much the RTC gains against the system clock [ppm].
        ref_time_ns: ``ref_time`` in exact nanoseconds.
    """

    ref_time: float = field(metadata=_derived(lambda r: r["ref_time_ns"] / 10**9))
    samples: int = field(metadata=_from("samples"))
    runs: int = field(metadata=_from("runs"))
    span: int = field(metadata=_from("span"))
    offset: float = field(metadata=_from("offset"))
    freq_offset: float = field(metadata=_from("frequency offset"))
    ref_time_ns: int = field(default=_FROM_REF_TIME, metadata=_from("reference time"))

    def __post_init__(self) -> None:
        _complete_ref_time_ns(self)

    def is_calibrated(self) -> bool:
        """Whether there is any measurement at all."""
        return self.samples > 0


# libchrony's name of each report, and the attributes that tell one record of a
# list from another.
REPORTS: "dict[type[Any], tuple[str, tuple[str, ...]]]" = {
    TrackingStatus: ("tracking", ()),
    Source: ("sources", ("mode", "address")),
    SourceStats: ("sourcestats", ("reference_id", "address")),
    RTCData: ("rtcdata", ()),
}
