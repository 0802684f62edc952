"""The metrics of each report.

Names, types (a name in ``_total`` is a counter, all others are gauges), labels
and label values are those of SuperQ/chrony_exporter (``collector/*.go``), if it
has the metric; the others are named in the same way. Not copied are its errors:
docs/howto/chrony_exporter.rst lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter, methodcaller
from typing import Any

from pychrony.enums import NTPFlag, SelectOption, SmoothingFlag
from pychrony.models import TrackingStatus

_NEVER = 0xFFFFFFFF

# The names of addresses, if they were looked up.
NO_NAMES: Mapping[str, str] = {}

_SOURCE_LABELS = ("source_address", "source_name")


@dataclass(frozen=True)
class Metric:
    """One metric, or one time series of it with a fixed label.

    Attributes:
        name: its name in Prometheus.
        help: a description with the unit.
        value: the attribute of the record, or a function of the record; ``None`` is
            left out.
        labels: texts, or functions of the record.
    """

    name: str
    help: str
    value: str | Callable[[Any], float | None]
    labels: Mapping[str, str | Callable[[Any], str]] = field(
        default_factory=dict[str, Any]
    )

    @property
    def kind(self) -> str:
        return "counter" if self.name.endswith("_total") else "gauge"

    @cached_property
    def number(self) -> Callable[[Any], float | None]:
        """The function that reads the number from a record."""
        return attrgetter(self.value) if isinstance(self.value, str) else self.value


@dataclass(frozen=True)
class Report:
    """One report of chronyd.

    Attributes:
        metrics: the metrics of each record.
        source: for a list, returns the source of a record; ``None`` if it has no
            address yet.
    """

    metrics: tuple[Metric, ...]
    source: Callable[[Any], str | None] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that all metrics of the report have."""
        return _SOURCE_LABELS if self.source else ()

    def records(
        self, found: Any, names: Mapping[str, str] = NO_NAMES
    ) -> list[tuple[tuple[str, ...], Any]]:
        """Return the values of ``labels`` and the record, for each record.

        Reference clocks may have the same reference ID. From the second on, a number
        is added in ``source_address``. All lists have the sources in the same order,
        so the number is the same in each.
        """
        if self.source is None:
            return [] if found is None else [((), found)]
        count: dict[str, int] = {}
        records: list[tuple[tuple[str, ...], Any]] = []
        for record in found:
            source = self.source(record)
            if source is None:
                continue
            number = count[source] = count.get(source, 0) + 1
            address = source if number == 1 else f"{source}#{number}"
            records.append(((address, names.get(source, source)), record))
        return records


@dataclass(frozen=True)
class Outcome:
    """The result of reading a report: the record for :data:`OUTCOME`."""

    report: str
    success: bool
    seconds: float | None


def _one(_: Any) -> float:
    return 1


def _age(attribute: str) -> Callable[[Any], float | None]:
    def age(record: Any) -> float | None:
        seconds: float = getattr(record, attribute)
        return None if seconds == _NEVER else seconds

    return age


def _power(attribute: str) -> Callable[[Any], float]:
    """Return a function that converts log2 seconds to seconds."""
    return lambda record: 2.0 ** int(getattr(record, attribute))


def _has(flag: int) -> Callable[[Any], float]:
    return lambda record: bool(record.flags & flag)


def _lower(attribute: str) -> Callable[[Any], str]:
    return lambda record: str(getattr(record, attribute).name).lower()


def _reference_id_text(reference_id: int) -> str:
    text = reference_id.to_bytes(4, "big").replace(b"\0", b"").decode("latin-1")
    return text if text.isprintable() else f"{reference_id:08X}"


def tracking_name(record: TrackingStatus) -> str:
    return record.reference_ip or _reference_id_text(record.reference_id)


def _source(record: Any) -> str | None:
    """Return the address of the source, or the reference ID of a reference clock."""
    if record.address.startswith("ID#"):
        return None
    if record.address:
        return str(record.address)
    # Only some lists of sources have it.
    reference_id = getattr(record, "reference_id", None)
    return _reference_id_text(reference_id) if reference_id else None


def _worded(attribute: str, words: tuple[str, ...]) -> Callable[[Any], str]:
    """Return a function that returns chrony_exporter's word for a code."""

    def word(record: Any) -> str:
        code: int = getattr(record, attribute).value
        return words[code] if code < len(words) else f"unknown ({code})"

    return word


def _options(record: Any) -> str:
    return ",".join(
        str(option.name).lower()
        for option in SelectOption
        if record.effective_options & option
    )


def _counters(report: str, *rows: tuple[str, str, str]) -> Iterator[Metric]:
    """Yield a counter for each name, what it counts, and attribute."""
    for name, what, attribute in rows:
        yield Metric(f"chrony_{report}_{name}_total", f"Number of {what}.", attribute)


UP = Metric("chrony_up", "Whether a chronyd answers (1) or not (0).", float)

OUTCOME = (
    Metric(
        "chrony_report_success",
        "Whether the report could be read (1) or not (0).",
        "success",
        {"report": attrgetter("report")},
    ),
    Metric(
        "chrony_report_duration_seconds",
        "Time that reading the report took; absent if it was skipped.",
        "seconds",
        {"report": attrgetter("report")},
    ),
)

_TRACKING = (
    Metric(
        "chrony_tracking_info",
        "1; address, name and reference ID of the source that the clock follows.",
        _one,
        {
            "tracking_address": attrgetter("reference_ip"),
            "tracking_name": tracking_name,
            "tracking_refid": lambda record: f"{record.reference_id:08X}",
        },
    ),
    Metric(
        "chrony_tracking_last_offset_seconds",
        "Estimated offset at the last clock update; positive: it was ahead.",
        "last_offset",
    ),
    Metric(
        "chrony_tracking_reference_timestamp_seconds",
        "When the last measurement was processed, since 1970; 0: never.",
        "ref_time",
    ),
    Metric(
        "chrony_tracking_system_time_seconds",
        "How far the clock is behind NTP time; negative: it is ahead.",
        "offset",
    ),
    Metric(
        "chrony_tracking_remote_reference",
        "Whether the clock follows a source (1), or is in local mode or not "
        "synchronised (0).",
        methodcaller("is_synchronized"),
    ),
    Metric(
        "chrony_tracking_rms_offset_seconds",
        "Long-term average of the offset.",
        "rms_offset",
    ),
    Metric(
        "chrony_tracking_root_delay_seconds",
        "Network delay to the stratum-1 source.",
        "root_delay",
    ),
    Metric(
        "chrony_tracking_root_dispersion_seconds",
        "Dispersion accumulated back to the stratum-1 source.",
        "root_dispersion",
    ),
    Metric(
        "chrony_tracking_frequency_ppms",
        "How fast the clock would gain uncorrected, in ppm.",
        "frequency",
    ),
    Metric(
        "chrony_tracking_residual_frequency_ppms",
        "Difference between the frequency in use and the one measured, in ppm.",
        "residual_freq",
    ),
    Metric(
        "chrony_tracking_skew_ppms",
        "Estimated error bound of the frequency, in ppm.",
        "skew",
    ),
    Metric(
        "chrony_tracking_update_interval_seconds",
        "Time between the last two clock updates.",
        "update_interval",
    ),
    Metric(
        "chrony_tracking_stratum",
        "Hops to a reference clock; 0: not synchronised.",
        "stratum",
    ),
    Metric(
        "chrony_tracking_synchronised",
        "Whether the clock follows a source (1), as chronyc waitsync sees it.",
        methodcaller("is_synchronized"),
    ),
    Metric(
        "chrony_tracking_leap_status",
        "Leap second at the end of the day: 0 none, 1 inserted, 2 deleted, 3 unknown.",
        attrgetter("leap_status.value"),
    ),
    Metric(
        "chrony_clock_error_bound_seconds",
        "The most that the clock can be wrong; absent while nothing bounds it.",
        "error_bound",
    ),
)

_SOURCES = (
    Metric(
        "chrony_sources_last_sample_age_seconds",
        "Age of the last good sample; absent while there is none.",
        _age("last_sample_ago"),
    ),
    Metric(
        "chrony_sources_reachability_ratio",
        "Share of the last eight polls that had a valid response.",
        lambda record: record.reachability.bit_count() / 8,
    ),
    Metric(
        "chrony_sources_reachability_success",
        "Whether the last poll had a valid response.",
        lambda record: record.reachability & 1,
    ),
    Metric(
        "chrony_sources_last_sample_offset_seconds",
        "Offset of the last sample, adjusted for the slews since; positive: the "
        "clock was ahead of the source.",
        "latest_meas",
    ),
    Metric(
        "chrony_sources_last_sample_error_margin_seconds",
        "Estimated error bound of the last sample.",
        "latest_meas_err",
    ),
    Metric(
        "chrony_sources_polling_interval_seconds", "Polling interval.", _power("poll")
    ),
    Metric(
        "chrony_sources_state_info",
        "1; state of the source in the selection, and kind of source.",
        _one,
        {
            "source_state": _worded(
                "state",
                ("sync", "unreach", "falseticker", "jittery", "candidate", "outlier"),
            ),
            "source_mode": _worded("mode", ("client", "peer", "reference clock")),
        },
    ),
    Metric(
        "chrony_sources_stratum",
        "Stratum that the source reported last; 0: none yet, or a reference clock.",
        "stratum",
    ),
    Metric(
        "chrony_sources_last_sample_original_offset_seconds",
        "Offset of the last sample as measured; positive: the clock was ahead.",
        "orig_latest_meas",
    ),
)

_SOURCESTATS = (
    Metric("chrony_sourcestats_samples", "Number of samples kept.", "samples"),
    Metric(
        "chrony_sourcestats_runs",
        "Number of runs of residuals with the same sign.",
        "runs",
    ),
    Metric(
        "chrony_sourcestats_span_seconds",
        "Time from the oldest to the newest sample.",
        "span",
    ),
    Metric(
        "chrony_sourcestats_stddev",
        "Estimated standard deviation of a sample, in seconds.",
        "std_dev",
    ),
    Metric(
        "chrony_sourcestats_frequency_ppms",
        "Residual frequency, in ppm; negative: our clock is slow.",
        "resid_freq",
    ),
    Metric(
        "chrony_sourcestats_frequency_skew_ppms",
        "Estimated error bound of the frequency, in ppm.",
        "skew",
    ),
    Metric(
        "chrony_sourcestats_offset",
        "Estimated offset of the source, in seconds.",
        "offset",
    ),
    Metric(
        "chrony_sourcestats_offset_error_seconds",
        "Estimated error bound of the offset.",
        "offset_err",
    ),
)

_NTPDATA = (
    Metric(
        "chrony_sources_peer_offset_seconds",
        "Offset measured with the last packet; positive: our clock is behind.",
        "offset",
    ),
    Metric(
        "chrony_sources_peer_delay_seconds",
        "Delay measured with the last packet.",
        "peer_delay",
    ),
    Metric(
        "chrony_sources_peer_dispersion_seconds",
        "Dispersion of that measurement.",
        "peer_dispersion",
    ),
    Metric(
        "chrony_sources_peer_response_time_seconds",
        "Time that the source took to answer.",
        "response_time",
    ),
    Metric(
        "chrony_sources_peer_jitter_asymmetry_seconds",
        "Asymmetry of the network jitter, -0.5 to 0.5 (a ratio, despite its name).",
        "jitter_asymmetry",
    ),
    Metric(
        "chrony_ntpdata_info",
        "1; mode and version of the last packet, and what took our timestamps.",
        _one,
        {
            "ntp_mode": _lower("mode"),
            "ntp_version": lambda record: str(record.version),
            "tx_timestamping": _lower("tx_timestamping"),
            "rx_timestamping": _lower("rx_timestamping"),
        },
    ),
    Metric(
        "chrony_ntpdata_leap_status",
        "Leap status of the source, see chrony_tracking_leap_status.",
        attrgetter("leap_status.value"),
    ),
    Metric(
        "chrony_ntpdata_stratum", "Stratum of the source; 0: no packet yet.", "stratum"
    ),
    Metric(
        "chrony_ntpdata_polling_interval_seconds",
        "Polling interval in the last packet.",
        _power("poll"),
    ),
    Metric(
        "chrony_ntpdata_precision_seconds",
        "Precision of the clock of the source.",
        _power("precision"),
    ),
    Metric(
        "chrony_ntpdata_root_delay_seconds", "Root delay of the source.", "root_delay"
    ),
    Metric(
        "chrony_ntpdata_root_dispersion_seconds",
        "Root dispersion of the source.",
        "root_dispersion",
    ),
    Metric(
        "chrony_ntpdata_reference_timestamp_seconds",
        "Reference time of the source, since 1970.",
        "ref_time",
    ),
    *(
        Metric(
            "chrony_ntpdata_flag",
            "Whether the last packet passed a test (test1 to testd), was "
            "interleaved, was authenticated.",
            _has(flag),
            {"flag": str(flag.name).lower()},
        )
        for flag in NTPFlag
    ),
    *_counters(
        "ntpdata",
        ("transmitted_packets", "packets sent", "total_tx"),
        ("received_packets", "packets received", "total_rx"),
        ("valid_packets", "packets that passed the first tests", "total_valid_rx"),
        ("good_packets", "measurements that were accepted", "total_good_rx"),
        ("kernel_tx_timestamps", "transmit timestamps of the kernel", "kernel_tx"),
        ("kernel_rx_timestamps", "receive timestamps of the kernel", "kernel_rx"),
        ("hw_tx_timestamps", "transmit timestamps of the NIC", "hardware_tx"),
        ("hw_rx_timestamps", "receive timestamps of the NIC", "hardware_rx"),
    ),
)

_SELECTDATA = (
    Metric(
        "chrony_selectdata_state_info",
        "1; state of the source in the last selection, and its options.",
        _one,
        {"select_state": _lower("state"), "select_options": _options},
    ),
    Metric(
        "chrony_selectdata_authenticated",
        "Whether the packets of the source are authenticated.",
        "authentication",
    ),
    Metric(
        "chrony_selectdata_leap_status",
        "Leap status of the source, see chrony_tracking_leap_status.",
        attrgetter("leap_status.value"),
    ),
    Metric(
        "chrony_selectdata_last_sample_age_seconds",
        "Age of the last sample at the selection; 0: there was none.",
        _age("last_sample_ago"),
    ),
    Metric(
        "chrony_selectdata_score",
        "Score against the best source; reselection at 10.",
        "score",
    ),
    Metric(
        "chrony_selectdata_low_limit_seconds",
        "Lower end of the interval that should hold the offset.",
        "low_limit",
    ),
    Metric(
        "chrony_selectdata_high_limit_seconds",
        "Upper end of the interval that should hold the offset.",
        "high_limit",
    ),
)

_AUTHDATA = (
    Metric(
        "chrony_authdata_info",
        "1; how the packets of the source are authenticated.",
        _one,
        {"auth_mode": _lower("mode"), "key_type": _lower("key_type")},
    ),
    Metric(
        "chrony_authdata_key_id",
        "Number of the key; with NTS, of successful key establishments.",
        "key_id",
    ),
    Metric(
        "chrony_authdata_key_length_bytes",
        "Length of the key.",
        lambda record: record.key_length / 8,
    ),
    Metric(
        "chrony_authdata_key_establishment_attempts",
        "Attempts since the last successful key establishment.",
        "ke_attempts",
    ),
    Metric(
        "chrony_authdata_last_key_establishment_age_seconds",
        "Age of the last successful key establishment; absent while there is none.",
        _age("last_ke_ago"),
    ),
    Metric("chrony_authdata_cookies", "NTS cookies held.", "cookies"),
    Metric(
        "chrony_authdata_cookie_length_bytes",
        "Length of the cookie for the next request; 0: there is none.",
        "cookie_length",
    ),
    Metric(
        "chrony_authdata_nak",
        "Whether an NTS NAK was received since the last request.",
        "nak",
    ),
)

_ACTIVITY = tuple(
    Metric(
        "chrony_activity_sources",
        "Number of NTP sources in each state.",
        state,
        {"activity_state": state},
    )
    for state in ("online", "offline", "burst_online", "burst_offline", "unresolved")
)

_SERVED = (
    ("ntp_packets_received", "valid NTP requests", "ntp_received"),
    ("ntp_packets_dropped", "NTP requests dropped", "ntp_dropped"),
    ("command_packets_received", "command requests", "command_received"),
    ("command_packets_dropped", "command requests dropped", "command_dropped"),
    ("client_log_records_dropped", "client records dropped", "log_dropped"),
    ("nts_ke_connections_accepted", "NTS-KE connections accepted", "nts_ke_accepted"),
    ("nts_ke_connections_dropped", "NTS-KE connections dropped", "nts_ke_dropped"),
    ("authenticated_ntp_packets", "authenticated NTP requests", "ntp_authenticated"),
    ("interleaved_ntp_packets", "interleaved NTP requests", "ntp_interleaved"),
)

_SERVERSTATS = (
    *_counters("serverstats", *_SERVED),
    *(
        Metric(
            f"chrony_serverstats_ntp_{name}_{way}_timestamps_total",
            f"Number of responses with a {kind} timestamp of {whom}.",
            f"{attribute}_{way}",
        )
        for name, whom, attribute in (
            ("daemon", "chronyd", "daemon"),
            ("kernel", "the kernel", "kernel"),
            ("hw", "the NIC", "hardware"),
        )
        for way, kind in (("rx", "receive"), ("tx", "transmit"))
    ),
    Metric(
        "chrony_serverstats_ntp_timestamps_held",
        "Pairs of timestamps held for clients in interleaved mode.",
        "timestamps_held",
    ),
    Metric(
        "chrony_serverstats_ntp_timestamp_span_seconds",
        "Time that the held timestamps cover.",
        "timestamp_span",
    ),
)

_RTCDATA = (
    Metric(
        "chrony_rtcdata_reference_timestamp_seconds",
        "Reading of the RTC at the last measurement, since 1970.",
        "ref_time",
    ),
    Metric("chrony_rtcdata_samples", "Number of measurements kept.", "samples"),
    Metric(
        "chrony_rtcdata_runs", "Number of runs of residuals with the same sign.", "runs"
    ),
    Metric("chrony_rtcdata_span_seconds", "Time that the measurements cover.", "span"),
    Metric(
        "chrony_rtcdata_offset_seconds",
        "How far the RTC was ahead of the system clock.",
        "offset",
    ),
    Metric(
        "chrony_rtcdata_frequency_ppms",
        "How much the RTC gains against the system clock, in ppm.",
        "freq_offset",
    ),
)

_SMOOTHING = (
    Metric(
        "chrony_smoothing_active",
        "Whether the served time is being smoothed.",
        _has(SmoothingFlag.ACTIVE),
    ),
    Metric(
        "chrony_smoothing_leap_only",
        "Whether only leap seconds are smoothed.",
        _has(SmoothingFlag.LEAPONLY),
    ),
    Metric(
        "chrony_smoothing_offset_seconds",
        "Offset of the served time; positive: it is ahead of the true time.",
        "offset",
    ),
    Metric(
        "chrony_smoothing_frequency_ppms",
        "Frequency offset of the served time, in ppm; negative: it is slower.",
        "freq_offset",
    ),
    Metric(
        "chrony_smoothing_wander_ppms",
        "Change of that frequency offset, in ppm per second.",
        "wander",
    ),
    Metric(
        "chrony_smoothing_last_update_age_seconds",
        "Time since the smoothing was updated.",
        "last_update_ago",
    ),
    Metric(
        "chrony_smoothing_remaining_seconds",
        "Time until the served time is that of the clock again.",
        "remaining_time",
    ),
)

# Those that need no permission come first.
REPORTS = {
    "tracking": Report(_TRACKING),
    "sources": Report(_SOURCES, _source),
    "sourcestats": Report(_SOURCESTATS, _source),
    "activity": Report(_ACTIVITY),
    "rtcdata": Report(_RTCDATA),
    "smoothing": Report(_SMOOTHING),
    "ntpdata": Report(_NTPDATA, _source),
    "selectdata": Report(_SELECTDATA, _source),
    "authdata": Report(_AUTHDATA, _source),
    "serverstats": Report(_SERVERSTATS),
}
