"""Factories for the records, with the defaults of a synchronised clock.

Each takes the attributes that differ from the defaults, in the units of the record. An
unknown attribute is a ``TypeError``. ``ref_time`` [s] and ``ref_time_ns`` [ns] set each
other.
"""

from __future__ import annotations

from typing import Any

from pychrony import (
    Activity,
    AuthData,
    AuthMode,
    KeyType,
    LeapStatus,
    NTPData,
    NTPFlag,
    NTPMode,
    RTCData,
    SelectData,
    SelectOption,
    SelectState,
    ServerStats,
    Smoothing,
    SmoothingFlag,
    Source,
    SourceMode,
    SourceState,
    SourceStats,
    Timestamping,
    TrackingStatus,
)


def _consistent_time(overrides: dict[str, Any]) -> dict[str, Any]:
    if "ref_time_ns" in overrides and "ref_time" not in overrides:
        return {**overrides, "ref_time": overrides["ref_time_ns"] / 10**9}
    return overrides


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


def make_tracking(**overrides: Any) -> TrackingStatus:
    """Make a ``TrackingStatus``: a clock that follows 127.0.0.1 at stratum 2.

    Examples::

        make_tracking(offset=-0.0015, leap_status=LeapStatus.INSERT)
        make_tracking(  # not synchronised
            reference_id=0, reference_id_name="", reference_ip="",
            stratum=0, leap_status=LeapStatus.UNSYNC)
    """
    return TrackingStatus(**{**TRACKING_DEFAULTS, **_consistent_time(overrides)})


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


def make_source(**overrides: Any) -> Source:
    """Make a ``Source``: the selected server 192.168.1.100, reachable.

    Examples::

        make_source(state=SourceState.FALSETICKER, reachability=0o17)
        make_source(address="PPS0", mode=SourceMode.REFCLOCK, stratum=0)
    """
    return Source(**{**SOURCE_DEFAULTS, **overrides})


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


def make_source_stats(**overrides: Any) -> SourceStats:
    """Make a ``SourceStats``: 8 samples in 512 seconds of 192.168.1.100.

    Examples::

        make_source_stats(samples=2, std_dev=0.003)
        make_source_stats(address="", reference_id=0x47505300)  # "GPS"
    """
    return SourceStats(**{**SOURCESTATS_DEFAULTS, **overrides})


RTCDATA_DEFAULTS: dict[str, Any] = {
    "ref_time": 1705320000.123456789,
    "samples": 10,
    "runs": 4,
    "span": 86400,
    "offset": 0.123456,
    "freq_offset": -1.234,
}


def make_rtc_data(**overrides: Any) -> RTCData:
    """Make an ``RTCData``: a clock 0.12 s ahead, measured 10 times in a day.

    Examples::

        make_rtc_data(samples=0)  # not calibrated
    """
    return RTCData(**{**RTCDATA_DEFAULTS, **_consistent_time(overrides)})


SELECTDATA_DEFAULTS: dict[str, Any] = {
    "reference_id": 0xC0A80164,
    "address": "192.168.1.100",
    "state": SelectState.BEST,
    "authentication": True,
    "leap_status": LeapStatus.NORMAL,
    "configured_options": SelectOption(0),
    "effective_options": SelectOption(0),
    "last_sample_ago": 32,
    "score": 1.0,
    "low_limit": -0.000900000,
    "high_limit": 0.001100000,
}


def make_select_data(**overrides: Any) -> SelectData:
    """Make a ``SelectData``: the server 192.168.1.100 is the best source.

    Examples::

        make_select_data(state=SelectState.FALSETICKER, score=0.0)
        make_select_data(effective_options=SelectOption.NOSELECT)
    """
    return SelectData(**{**SELECTDATA_DEFAULTS, **overrides})


ACTIVITY_DEFAULTS: dict[str, Any] = {
    "online": 1,
    "offline": 0,
    "burst_online": 0,
    "burst_offline": 0,
    "unresolved": 0,
}


def make_activity(**overrides: Any) -> Activity:
    """Make an ``Activity``: one source, online.

    Examples::

        make_activity(online=0, offline=4)
    """
    return Activity(**{**ACTIVITY_DEFAULTS, **overrides})


AUTHDATA_DEFAULTS: dict[str, Any] = {
    "address": "192.168.1.100",
    "mode": AuthMode.NTS,
    "key_type": KeyType.AEAD_AES_SIV_CMAC_256,
    "key_id": 1,
    "key_length": 256,
    "ke_attempts": 0,
    "last_ke_ago": 3600,
    "cookies": 8,
    "cookie_length": 100,
    "nak": False,
}


def make_auth_data(**overrides: Any) -> AuthData:
    """Make an ``AuthData``: 192.168.1.100 uses NTS without problems.

    Examples::

        make_auth_data(ke_attempts=5, cookies=0, nak=True)
        make_auth_data(mode=AuthMode.SYMMETRIC_KEY, key_type=KeyType.AES128)
    """
    return AuthData(**{**AUTHDATA_DEFAULTS, **overrides})


NTPDATA_DEFAULTS: dict[str, Any] = {
    "address": "192.168.1.100",
    "remote_address": "192.168.1.100",
    "local_address": "192.168.1.1",
    "remote_port": 123,
    "leap_status": LeapStatus.NORMAL,
    "version": 4,
    "mode": NTPMode.SERVER,
    "stratum": 2,
    "poll": 6,
    "precision": -24,
    "root_delay": 0.001234,
    "root_dispersion": 0.002345,
    "reference_id": 0xC0000201,
    "ref_time": 1705319990.123456789,
    "offset": 0.000123456,
    "peer_delay": 0.000987654,
    "peer_dispersion": 0.000000100,
    "response_time": 0.000050000,
    "jitter_asymmetry": 0.1,
    "flags": NTPFlag(0x3FF) | NTPFlag.AUTHENTICATED,
    "tx_timestamping": Timestamping.KERNEL,
    "rx_timestamping": Timestamping.KERNEL,
    "total_tx": 1000,
    "total_rx": 990,
    "total_valid_rx": 980,
    "total_good_rx": 970,
    "kernel_tx": 1000,
    "kernel_rx": 990,
    "hardware_tx": 0,
    "hardware_rx": 0,
}


def make_ntp_data(**overrides: Any) -> NTPData:
    """Make an ``NTPData``: a good reply of the server 192.168.1.100.

    Older versions of chronyd do not send the last four counters: set them to None.

    Examples::

        make_ntp_data(flags=NTPFlag.TEST1, total_good_rx=0)
    """
    return NTPData(**{**NTPDATA_DEFAULTS, **_consistent_time(overrides)})


SERVERSTATS_DEFAULTS: dict[str, Any] = {
    "ntp_received": 100000,
    "ntp_dropped": 100,
    "command_received": 2000,
    "command_dropped": 2,
    "log_dropped": 1,
    "nts_ke_accepted": 300,
    "nts_ke_dropped": 3,
    "ntp_authenticated": 4000,
    "ntp_interleaved": 5000,
    "timestamps_held": 512,
    "timestamp_span": 120,
    "daemon_rx": 10,
    "daemon_tx": 99000,
    "kernel_rx": 99890,
    "kernel_tx": 900,
    "hardware_rx": 0,
    "hardware_tx": 0,
}


def make_server_stats(**overrides: Any) -> ServerStats:
    """Make a ``ServerStats``: a busy server.

    Set the counters that an older chronyd does not send to None.

    Examples::

        make_server_stats(ntp_dropped=50000)
    """
    return ServerStats(**{**SERVERSTATS_DEFAULTS, **overrides})


SMOOTHING_DEFAULTS: dict[str, Any] = {
    "flags": SmoothingFlag.ACTIVE,
    "offset": 0.000123456,
    "freq_offset": 0.012,
    "wander": -0.001,
    "last_update_ago": 12.5,
    "remaining_time": 34.5,
}


def make_smoothing(**overrides: Any) -> Smoothing:
    """Make a ``Smoothing``: the served time is being smoothed.

    Examples::

        make_smoothing(flags=SmoothingFlag.ACTIVE | SmoothingFlag.LEAPONLY)
    """
    return Smoothing(**{**SMOOTHING_DEFAULTS, **overrides})
