"""Factories for the records, with the defaults of a synchronised clock."""

from __future__ import annotations

from typing import Any

from pychrony import (
    LeapStatus,
    RTCData,
    Source,
    SourceMode,
    SourceState,
    SourceStats,
    TrackingStatus,
)

TRACKING_DEFAULTS: dict[str, Any] = {
    "reference_id": 0x7F000001,
    "reference_id_name": "127.0.0.1",
    "reference_ip": "127.0.0.1",
    "stratum": 2,
    "leap_status": LeapStatus.NORMAL,
    "ref_time": 1705320000.123456789,
    "offset": 0.000123456,
    "last_offset": 0.000111222,
    "rms_offset": 0.000100000,
    "frequency": 1.234,
    "residual_freq": 0.001,
    "skew": 0.005,
    "root_delay": 0.001234,
    "root_dispersion": 0.002345,
    "update_interval": 64.0,
}
"""What ``make_tracking`` gives the attributes of ``TrackingStatus``."""

SOURCE_DEFAULTS: dict[str, Any] = {
    "address": "192.168.1.100",
    "poll": 6,
    "stratum": 2,
    "state": SourceState.SELECTED,
    "mode": SourceMode.CLIENT,
    "flags": 0,
    "reachability": 255,
    "last_sample_ago": 32,
    "orig_latest_meas": 0.000123456,
    "latest_meas": 0.000123456,
    "latest_meas_err": 0.000010000,
}
"""What ``make_source`` gives the attributes of ``Source``."""

SOURCESTATS_DEFAULTS: dict[str, Any] = {
    "reference_id": 0xC0A80164,
    "address": "192.168.1.100",
    "samples": 8,
    "runs": 3,
    "span": 512,
    "std_dev": 0.000100000,
    "resid_freq": 0.001,
    "skew": 0.005,
    "offset": 0.000123456,
    "offset_err": 0.000010000,
}
"""What ``make_source_stats`` gives the attributes of ``SourceStats``."""

RTCDATA_DEFAULTS: dict[str, Any] = {
    "ref_time": 1705320000.123456789,
    "samples": 10,
    "runs": 4,
    "span": 86400,
    "offset": 0.123456,
    "freq_offset": -1.234,
}
"""What ``make_rtc_data`` gives the attributes of ``RTCData``."""


def _consistent_time(overrides: dict[str, Any]) -> dict[str, Any]:
    if "ref_time_ns" in overrides and "ref_time" not in overrides:
        return {**overrides, "ref_time": overrides["ref_time_ns"] / 10**9}
    return overrides


def make_tracking(**overrides: Any) -> TrackingStatus:
    """Make a ``TrackingStatus``: a clock that follows 127.0.0.1 at stratum 2.

    Args:
        **overrides: Attributes that shall differ from ``TRACKING_DEFAULTS``, in
            the units of ``TrackingStatus`` (seconds and ppm). Of ``ref_time``
            and ``ref_time_ns`` (nanoseconds), one follows from the other.

    Raises:
        TypeError: ``TrackingStatus`` has no such attribute.

    Examples:
        >>> make_tracking(offset=-0.0015, leap_status=LeapStatus.INSERT)
        >>> make_tracking(  # not synchronised
        ...     reference_id=0, reference_id_name="", reference_ip="",
        ...     stratum=0, leap_status=LeapStatus.UNSYNC)
    """
    return TrackingStatus(**{**TRACKING_DEFAULTS, **_consistent_time(overrides)})


def make_source(**overrides: Any) -> Source:
    """Make a ``Source``: the selected server 192.168.1.100, reachable.

    Args:
        **overrides: Attributes that shall differ from ``SOURCE_DEFAULTS``, in
            the units of ``Source`` (seconds; ``poll`` is log2 of seconds).

    Raises:
        TypeError: ``Source`` has no such attribute.

    Examples:
        >>> make_source(state=SourceState.FALSETICKER, reachability=0o17)
        >>> make_source(address="PPS0", mode=SourceMode.REFCLOCK, stratum=0)
    """
    return Source(**{**SOURCE_DEFAULTS, **overrides})


def make_source_stats(**overrides: Any) -> SourceStats:
    """Make a ``SourceStats``: 8 samples in 512 seconds of 192.168.1.100.

    Args:
        **overrides: Attributes that shall differ from ``SOURCESTATS_DEFAULTS``,
            in the units of ``SourceStats`` (seconds and ppm).

    Raises:
        TypeError: ``SourceStats`` has no such attribute.

    Examples:
        >>> make_source_stats(samples=2, std_dev=0.003)
        >>> make_source_stats(address="", reference_id=0x47505300)  # "GPS"
    """
    return SourceStats(**{**SOURCESTATS_DEFAULTS, **overrides})


def make_rtc_data(**overrides: Any) -> RTCData:
    """Make an ``RTCData``: a clock 0.12 s ahead, measured 10 times in a day.

    Args:
        **overrides: Attributes that shall differ from ``RTCDATA_DEFAULTS``, in
            the units of ``RTCData`` (seconds and ppm). Of ``ref_time`` and
            ``ref_time_ns`` (nanoseconds), one follows from the other.

    Raises:
        TypeError: ``RTCData`` has no such attribute.

    Examples:
        >>> make_rtc_data(samples=0)  # not calibrated
    """
    return RTCData(**{**RTCDATA_DEFAULTS, **_consistent_time(overrides)})
