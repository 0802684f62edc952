"""What chronyd reports: the records, and where each field comes from.

A record is a frozen dataclass. The ``metadata`` of a field names the libchrony
field that it is read from (``_from``), or says how it is computed from the other
fields (``_derived``). :data:`REPORTS` says which report each dataclass is.
``_decode.py`` makes the function that reads a record from these.

Definitions: chronyc(1), "Monitoring commands". Times are in seconds,
frequencies in parts per million (ppm), unless a name says otherwise.
"""

# Without "from __future__ import annotations": _decode.py reads the annotations.
from dataclasses import dataclass, field, fields
from functools import lru_cache
from math import isfinite

from .enums import (
    AuthMode,
    FieldContent,
    FieldType,
    KeyType,
    LeapStatus,
    NTPFlag,
    NTPMode,
    SelectOption,
    SelectState,
    SmoothingFlag,
    SourceMode,
    SourceState,
    Timestamping,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = [
    "Activity",
    "AuthData",
    "NTPData",
    "RTCData",
    "SelectData",
    "ServerStats",
    "Smoothing",
    "Source",
    "SourceStats",
    "TrackingStatus",
    "Value",
]


def _from(
    *names: str, most: "int | None" = None, age: bool = False
) -> "Mapping[str, Any]":
    """Read the field from the first libchrony field in ``names`` that exists.

    A value above ``most`` is an error. If it is an ``age``, 0xFFFFFFFF means never
    and becomes ``None``.
    """
    return {"names": names, "most": most, "age": age}


def _derived(function: "Callable[[dict[str, Any]], Any]") -> "Mapping[str, Any]":
    """Compute the field from the attributes of the record read so far.

    This is for fields of 2.x. A record that a test makes does not compute them, so
    anything new that follows from other fields is a property.
    """
    return {"derived": function}


# libchrony's record lacks the field; the caller of decode() passes the value.
_EXTRA: "Mapping[str, Any]" = {"extra": True}


@lru_cache(4096)  # few are in use, and it takes as long as reading three fields
def refid_name(reference_id: int) -> str:
    """Return a reference ID as text: ``GPS`` if it is ASCII, else as ``192.0.2.1``."""
    raw = reference_id.to_bytes(4, "big")
    text = raw.rstrip(b"\0").decode("latin-1")
    if text.isascii() and text.isprintable():
        return text
    return ".".join(map(str, raw))


# chronyd's reference ID of its own clock, served by the "local" directive.
_LOCAL_REFERENCE_ID = 0x7F7F0101

# Means "derive it from ref_time": the published 2.x API had no ref_time_ns, so
# its callers do not pass one.
_FROM_REF_TIME = -1


class _Record:
    """The methods that dataclasses would generate, once for all records.

    Compiling them ten times takes longer than the rest of the import.
    """

    def __repr__(self) -> str:
        items = ", ".join(f"{name}={value!r}" for name, value in _items(self))
        return f"{type(self).__qualname__}({items})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _items(self) == _items(other)

    def __hash__(self) -> int:
        return hash(_items(self))

    def to_dict(self) -> "dict[str, Any]":
        """Return the record as a dictionary of plain values, as for JSON.

        The keys end with the units. Enums and flags are words, and reference IDs
        are hexadecimal, as in chronyc. The age of something that never happened is
        ``None``. The record of a source has a ``name``, also that of a reference
        clock. docs/reports.schema.json describes all keys.
        """
        from ._serialize import to_dict  # few programs need it

        return to_dict(self, refid_name)


def _items(record: "Any") -> "tuple[tuple[str, Any], ...]":
    return tuple((one.name, getattr(record, one.name)) for one in fields(record))


class _TimedRecord(_Record):
    """A record with a reference time."""

    ref_time: float
    ref_time_ns: int

    def __post_init__(self) -> None:
        if self.ref_time_ns == _FROM_REF_TIME and isfinite(self.ref_time):
            seconds, fraction = divmod(self.ref_time, 1)
            exact = int(seconds) * 10**9 + round(fraction * 10**9)
            object.__setattr__(self, "ref_time_ns", exact)


@dataclass(frozen=True, repr=False, eq=False)
class TrackingStatus(_TimedRecord):
    """The clock as chronyd sees it (report ``tracking``).

    Attributes:
        reference_id: reference ID of the source that the clock follows, 32
            bits; 0 when not synchronised, 0x7F7F0101 in local mode.
        reference_id_name: IP address of the source, or its reference ID as text if
            it has no address (``GPS``, ``PPS0``).
        reference_ip: IP address of the source; empty for a reference clock, in
            local mode, and when not synchronised.
        stratum: hops to a reference clock, 1 to 15; 0 when not synchronised.
        leap_status: what happens at the end of the day.
        ref_time: when the last measurement was processed [s since 1970, UTC];
            0 when there was none.
        offset: how far the system clock is behind NTP time at this moment [s];
            chronyd is correcting this. Negative: the clock is ahead.
        last_offset: estimated offset at the last clock update [s]; positive:
            the clock was ahead of its sources.
        rms_offset: long-term average of the offset [s], not negative.
        frequency: error of the clock's frequency without chronyd's correction
            [ppm]; positive: the clock would gain.
        residual_freq: difference between ``frequency`` and what the last
            measurements suggest [ppm].
        skew: estimated error bound of ``frequency`` [ppm], not negative.
        root_delay: network delay to the stratum-1 source [s], not negative.
        root_dispersion: dispersion accumulated back to the stratum-1 source
            [s], not negative; it grows while no measurement arrives.
        update_interval: time between the last two clock updates [s].
        ref_time_ns: the same as ``ref_time``, exactly [ns].
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
        return self.error_bound_at(0.0, 0.0)

    def error_bound_at(self, age: float, max_drift_ppm: float) -> "float | None":
        """The error bound without relying on chronyd's ``maxclockerror`` [s].

        chronyd's root dispersion grows by ``maxclockerror``, by default 1 ppm. That
        is an estimate of how the frequency of the oscillator changes, not a bound.
        This is ``error_bound`` + ``max_drift_ppm`` * ``age``, or ``None`` if
        ``error_bound`` is ``None``.

        Args:
            age: time from ``ref_time`` to the report [s]; a negative age counts as
                0.
            max_drift_ppm: the most by which the frequency of the oscillator can
                have changed in that time [ppm].
        """
        if not self.is_synchronized():
            return None
        bound = abs(self.offset) + self.root_dispersion + self.root_delay / 2
        return bound + max_drift_ppm * max(age, 0.0) / 1e6


@dataclass(frozen=True, repr=False, eq=False)
class Source(_Record):
    """One time source and its latest sample (report ``sources``).

    Attributes:
        address: IP address; the reference ID as text (``GPS``) if ``mode`` is
            REFCLOCK; ``ID#`` and a number while its name is not resolved.
        poll: polling interval, as a power of two [log2 s]; may be negative
            (-2: four measurements a second).
        stratum: stratum that the source reported last; 0 if it has not reported
            any, and for a reference clock.
        state: result of the selection for it.
        mode: kind of source.
        flags: reserved by chronyd, 0.
        reachability: the last eight polls, one bit each, the lowest for the
            latest; 255 (377 octal) when all had a valid reply.
        last_sample_ago: age of the last good sample [s]; 4294967295 when there
            was none.
        orig_latest_meas: offset of the last sample as measured [s]; positive:
            the clock was ahead of the source.
        latest_meas: the same, adjusted for the slews since [s].
        latest_meas_err: estimated error bound of the sample [s], not negative.
    """

    address: str = field(metadata=_from("address", "reference ID"))
    poll: int = field(metadata=_from("poll", most=127))
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
        """Whether the source replied to any of the last eight polls."""
        return self.reachability > 0

    def is_selected(self) -> bool:
        """Whether this is the source that the clock follows."""
        return self.state is SourceState.SELECTED

    def is_usable(self) -> bool:
        """Whether the clock follows or could follow it (``*``, ``+`` and ``-``)."""
        return self.state in (
            SourceState.SELECTED,
            SourceState.UNSELECTED,
            SourceState.SELECTABLE,
        )


@dataclass(frozen=True, repr=False, eq=False)
class SourceStats(_Record):
    """What the past samples of one source say (report ``sourcestats``).

    Attributes:
        reference_id: reference ID of the source, 32 bits; 0 while its name is
            not resolved.
        address: IP address; empty for a reference clock; ``ID#`` and a number
            while its name is not resolved.
        samples: number of samples kept.
        runs: number of runs of residuals with the same sign; far fewer than
            ``samples`` means that a straight line fits them badly.
        span: time from the oldest to the newest sample [s].
        std_dev: estimated standard deviation of a sample [s], not negative; 4
            without samples.
        resid_freq: residual frequency [ppm]; negative: our clock is slow
            relative to the source.
        skew: estimated error bound of the frequency [ppm], not negative; 2000
            without samples.
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

    @property
    def name(self) -> str:
        """The address; for a reference clock, its reference ID as text (``GPS``)."""
        return self.address or refid_name(self.reference_id)

    def has_sufficient_samples(self, minimum: int = 4) -> bool:
        """Whether there are at least ``minimum`` samples."""
        return self.samples >= minimum


@dataclass(frozen=True, repr=False, eq=False)
class RTCData(_TimedRecord):
    """The real-time clock of the machine (report ``rtcdata``).

    Attributes:
        ref_time: RTC reading at the last measurement [s since 1970].
        samples: number of measurements kept.
        runs: number of runs of residuals with the same sign.
        span: time from the oldest to the newest measurement [s].
        offset: how far the RTC was ahead of the system clock at ``ref_time`` [s].
        freq_offset: how much the RTC gains against the system clock [ppm].
        ref_time_ns: the same as ``ref_time``, exactly [ns].
    """

    ref_time: float = field(metadata=_derived(lambda r: r["ref_time_ns"] / 10**9))
    samples: int = field(metadata=_from("samples"))
    runs: int = field(metadata=_from("runs"))
    span: int = field(metadata=_from("span"))
    offset: float = field(metadata=_from("offset"))
    freq_offset: float = field(metadata=_from("frequency offset"))
    ref_time_ns: int = field(default=_FROM_REF_TIME, metadata=_from("reference time"))

    def is_calibrated(self) -> bool:
        """Whether there is any measurement at all."""
        return self.samples > 0


@dataclass(frozen=True, repr=False, eq=False)
class SelectData(_Record):
    """One source in the last selection (report ``selectdata``).

    Attributes:
        reference_id: reference ID of the source, 32 bits.
        address: IP address; empty for a reference clock; ``ID#`` and a number
            while its name is not resolved.
        state: result of the selection for it.
        authentication: whether its packets are authenticated.
        leap_status: leap status of the source; UNSYNC while there is no sample.
        configured_options: options of its configuration.
        effective_options: options in effect (``authselectmode`` changes them).
        last_sample_ago: age of its last sample at the selection [s]; 0 when
            there was none.
        score: score against the selected source; reselection when it reaches 10.
        low_limit: lower end of the interval in which the offset should be [s].
        high_limit: upper end of that interval [s].
    """

    reference_id: int = field(metadata=_from("reference ID"))
    address: str = field(metadata=_from("address"))
    state: SelectState = field(metadata=_from("state"))
    authentication: bool = field(metadata=_from("authentication"))
    leap_status: LeapStatus = field(metadata=_from("leap status"))
    configured_options: SelectOption = field(metadata=_from("configured options"))
    effective_options: SelectOption = field(metadata=_from("effective options"))
    last_sample_ago: int = field(metadata=_from("last sample ago"))
    score: float = field(metadata=_from("score"))
    low_limit: float = field(metadata=_from("low limit"))
    high_limit: float = field(metadata=_from("high limit"))

    @property
    def name(self) -> str:
        """The address; for a reference clock, its reference ID as text (``GPS``)."""
        return self.address or refid_name(self.reference_id)


@dataclass(frozen=True, repr=False, eq=False)
class Activity(_Record):
    """The number of NTP sources in each state (report ``activity``).

    Attributes:
        online: sources that are polled as usual.
        offline: sources that are not polled, as they are assumed to be
            unreachable.
        burst_online: sources in a burst that will be online after it.
        burst_offline: sources in a burst that will be offline after it.
        unresolved: sources whose name is not resolved yet.
    """

    online: int = field(metadata=_from("online sources"))
    offline: int = field(metadata=_from("offline sources"))
    burst_online: int = field(metadata=_from("burst online-return sources"))
    burst_offline: int = field(metadata=_from("burst offline-return sources"))
    unresolved: int = field(metadata=_from("unresolved sources"))


@dataclass(frozen=True, repr=False, eq=False)
class AuthData(_Record):
    """Authentication of one NTP source (report ``authdata``).

    Attributes:
        address: IP address of the source, as in ``sourcestats``; ``ID#`` and a
            number while its name is not resolved.
        mode: how its packets are authenticated.
        key_type: algorithm of the key.
        key_id: number of the key; with NTS, the number of successful key
            establishments.
        key_length: length of the key [bit].
        ke_attempts: attempts since the last successful key establishment; more
            than 1 means trouble.
        last_ke_ago: age of the last successful key establishment [s]; ``None``
            when there was none, as with symmetric keys.
        cookies: number of NTS cookies held, normally 8.
        cookie_length: length of the cookie for the next request [byte]; 0 without
            a cookie.
        nak: whether an NTS NAK was received since the last request.
    """

    address: str = field(metadata=_EXTRA)
    mode: AuthMode = field(metadata=_from("mode"))
    key_type: KeyType = field(metadata=_from("key type"))
    key_id: int = field(metadata=_from("key ID"))
    key_length: int = field(metadata=_from("key length"))
    ke_attempts: int = field(metadata=_from("key establishment attempts"))
    last_ke_ago: int | None = field(
        metadata=_from("last key establishment ago", age=True)
    )
    cookies: int = field(metadata=_from("cookies"))
    cookie_length: int = field(metadata=_from("cookie length"))
    nak: bool = field(metadata=_from("NAK"))


@dataclass(frozen=True, repr=False, eq=False)
class NTPData(_TimedRecord):
    """The last valid packet of one NTP source (report ``ntpdata``).

    Before the first packet, its figures are 0. Versions of chronyd before 4.6 do
    not send the four counters of kernel and hardware timestamps; they are ``None``.

    Attributes:
        address: IP address of the source, as in ``sourcestats``; ``ID#`` and a
            number while its name is not resolved.
        remote_address: address that the request was sent to.
        local_address: local address that the reply came to; empty when unknown.
        remote_port: UDP port that the request was sent to.
        leap_status: leap status of the source.
        version: NTP version of the packet.
        mode: NTP mode of the packet.
        stratum: stratum of the source; 0 when there was no packet.
        poll: polling interval in the packet [log2 s].
        precision: precision of the source's clock [log2 s].
        root_delay: root delay of the source [s], not negative.
        root_dispersion: root dispersion of the source [s], not negative.
        reference_id: reference ID of the source, 32 bits.
        ref_time: reference time of the source [s since 1970, UTC].
        offset: measured offset [s]; positive: our clock is behind.
        peer_delay: measured delay [s], not negative.
        peer_dispersion: dispersion of the measurement [s], not negative.
        response_time: time that the source took to reply [s], not negative.
        jitter_asymmetry: estimated asymmetry of the network jitter, -0.5 to
            0.5; negative: the delay to the source varies more.
        flags: tests that the packet passed, and its properties.
        tx_timestamping: what took our transmit timestamp.
        rx_timestamping: what took our receive timestamp.
        total_tx: packets sent.
        total_rx: packets received.
        total_valid_rx: received packets that passed the first two groups of
            tests.
        total_good_rx: valid packets whose measurements were accepted.
        kernel_tx: transmit timestamps from the kernel, or ``None``.
        kernel_rx: receive timestamps from the kernel, or ``None``.
        hardware_tx: transmit timestamps from the network card, or ``None``.
        hardware_rx: receive timestamps from the network card, or ``None``.
        ref_time_ns: the same as ``ref_time``, exactly [ns].
    """

    address: str = field(metadata=_EXTRA)
    remote_address: str = field(metadata=_from("remote address"))
    local_address: str = field(metadata=_from("local address"))
    remote_port: int = field(metadata=_from("remote port"))
    leap_status: LeapStatus = field(metadata=_from("leap status"))
    version: int = field(metadata=_from("version"))
    mode: NTPMode = field(metadata=_from("mode"))
    stratum: int = field(metadata=_from("stratum"))
    poll: int = field(metadata=_from("poll"))
    precision: int = field(metadata=_from("precision"))
    root_delay: float = field(metadata=_from("root delay"))
    root_dispersion: float = field(metadata=_from("root dispersion"))
    reference_id: int = field(metadata=_from("reference ID"))
    ref_time: float = field(metadata=_derived(lambda r: r["ref_time_ns"] / 10**9))
    offset: float = field(metadata=_from("offset"))
    peer_delay: float = field(metadata=_from("peer delay"))
    peer_dispersion: float = field(metadata=_from("peer dispersion"))
    response_time: float = field(metadata=_from("response time"))
    jitter_asymmetry: float = field(metadata=_from("jitter asymmetry"))
    flags: NTPFlag = field(metadata=_from("flags"))
    tx_timestamping: Timestamping = field(metadata=_from("transmit timestamping"))
    rx_timestamping: Timestamping = field(metadata=_from("receive timestamping"))
    total_tx: int = field(metadata=_from("transmitted messages"))
    total_rx: int = field(metadata=_from("received messages"))
    total_valid_rx: int = field(metadata=_from("received valid messages"))
    total_good_rx: int = field(metadata=_from("received good messages"))
    kernel_tx: int | None = field(metadata=_from("kernel transmit timestamps"))
    kernel_rx: int | None = field(metadata=_from("kernel receive timestamps"))
    hardware_tx: int | None = field(metadata=_from("hardware transmit timestamps"))
    hardware_rx: int | None = field(metadata=_from("hardware receive timestamps"))
    ref_time_ns: int = field(default=_FROM_REF_TIME, metadata=_from("reference time"))


@dataclass(frozen=True, repr=False, eq=False)
class ServerStats(_Record):
    """The counters of chronyd as a server (report ``serverstats``).

    They start at 0 when chronyd starts; before chronyd 4.4 they wrap at 2**32.
    Those that an older chronyd does not send are ``None``.

    Attributes:
        ntp_received: valid NTP requests received.
        ntp_dropped: NTP requests dropped (``ratelimit``).
        command_received: command requests received.
        command_dropped: command requests dropped (``cmdratelimit``).
        log_dropped: client log records dropped (``clientloglimit``).
        nts_ke_accepted: NTS-KE connections accepted.
        nts_ke_dropped: NTS-KE connections dropped (``ntsratelimit``).
        ntp_authenticated: authenticated NTP requests received.
        ntp_interleaved: NTP requests received in interleaved mode.
        timestamps_held: pairs of timestamps held for interleaved mode.
        timestamp_span: time that the held timestamps cover [s].
        daemon_rx: responses with a receive timestamp of chronyd.
        daemon_tx: responses with a transmit timestamp of chronyd.
        kernel_rx: responses with a receive timestamp of the kernel.
        kernel_tx: responses with a transmit timestamp of the kernel.
        hardware_rx: responses with a receive timestamp of the network card.
        hardware_tx: responses with a transmit timestamp of the network card.
    """

    ntp_received: int = field(metadata=_from("received NTP requests"))
    ntp_dropped: int = field(metadata=_from("dropped NTP requests"))
    command_received: int = field(metadata=_from("received command requests"))
    command_dropped: int = field(metadata=_from("dropped command requests"))
    log_dropped: int = field(metadata=_from("dropped client log records"))
    nts_ke_accepted: int | None = field(metadata=_from("accepted NTS-KE connections"))
    nts_ke_dropped: int | None = field(metadata=_from("dropped NTS-KE connections"))
    ntp_authenticated: int | None = field(
        metadata=_from("received authenticated NTP requests")
    )
    ntp_interleaved: int | None = field(
        metadata=_from("received interleaved NTP requests")
    )
    timestamps_held: int | None = field(metadata=_from("held NTP timestamps"))
    timestamp_span: int | None = field(metadata=_from("NTP timestamp span"))
    daemon_rx: int | None = field(metadata=_from("served daemon RX timestamps"))
    daemon_tx: int | None = field(metadata=_from("served daemon TX timestamps"))
    kernel_rx: int | None = field(metadata=_from("served kernel RX timestamps"))
    kernel_tx: int | None = field(metadata=_from("served kernel TX timestamps"))
    hardware_rx: int | None = field(metadata=_from("served hardware RX timestamps"))
    hardware_tx: int | None = field(metadata=_from("served hardware TX timestamps"))


@dataclass(frozen=True, repr=False, eq=False)
class Smoothing(_Record):
    """Time smoothing of the NTP server (report ``smoothing``).

    Attributes:
        flags: whether smoothing is active, and whether only for leap seconds.
        offset: offset of the served time [s]; positive: the served time is ahead
            of the true time.
        freq_offset: frequency offset of the served time [ppm]; negative: the
            served time is slower.
        wander: rate at which the frequency offset changes [ppm/s].
        last_update_ago: time since the smoothing was updated [s].
        remaining_time: time until the served time equals the clock's again [s].
    """

    flags: SmoothingFlag = field(metadata=_from("flags"))
    offset: float = field(metadata=_from("offset"))
    freq_offset: float = field(metadata=_from("frequency offset"))
    wander: float = field(metadata=_from("wander"))
    last_update_ago: float = field(metadata=_from("last update ago"))
    remaining_time: float = field(metadata=_from("remaining time"))


@dataclass(frozen=True, repr=False, eq=False)
class Value(_Record):
    """One field of a record as libchrony describes it (``get_report``).

    Attributes:
        value: an int, float or str, depending on ``type``; a TIMESPEC is an int in
            nanoseconds since 1970 (UTC); an unspecified address is an empty
            str; ``None`` if pychrony does not know the type.
        type: libchrony's type.
        content: meaning and unit of the value.
        names: for an ENUM, libchrony's name of the value; for FLAGS, the name of
            each flag that is set, lowest first; empty if there is none.
    """

    value: int | float | str | None
    type: FieldType
    content: FieldContent
    names: tuple[str, ...]


# Reports with a record for each NTP source, which is requested by address.
BY_ADDRESS = frozenset({"authdata", "ntpdata"})

# libchrony's name of each report.
REPORTS: "dict[type[Any], str]" = {
    TrackingStatus: "tracking",
    Source: "sources",
    SourceStats: "sourcestats",
    SelectData: "selectdata",
    Activity: "activity",
    AuthData: "authdata",
    NTPData: "ntpdata",
    ServerStats: "serverstats",
    RTCData: "rtcdata",
    Smoothing: "smoothing",
}
