"""What the tests of the test kit share: records, and requests by hand."""

from __future__ import annotations

import dataclasses
import math
import socket
import struct
from contextlib import AbstractContextManager
from typing import Any

import helpers
from chronyd import Chronyd

import pychrony
from pychrony import ChronyConnection, LeapStatus, SelectOption
from pychrony.testing import (
    SERVERSTATS_DEFAULTS,
    RecordedDaemon,
    ScriptedDaemon,
    make_server_stats,
)

# Half of the last of 24 bits.
FLOAT_ERROR = 2.0**-24

TRACKING = pychrony.TrackingStatus(
    reference_id=0xC0000207,
    reference_id_name="192.0.2.7",
    reference_ip="192.0.2.7",
    stratum=3,
    leap_status=LeapStatus.DELETE,
    ref_time=1705320000.1234567,
    offset=-1.1e-6,
    last_offset=1.2e-5,
    rms_offset=1.3e-4,
    frequency=-14.15,
    residual_freq=-0.0016,
    skew=0.017,
    root_delay=0.018,
    root_dispersion=0.019,
    update_interval=1024.25,
    ref_time_ns=1705320000123456789,
)
SOURCE = pychrony.Source(
    address="192.0.2.7",
    poll=-2,
    stratum=15,
    state=pychrony.SourceState.JITTERY,
    mode=pychrony.SourceMode.PEER,
    flags=0xFFFF,
    reachability=0o252,
    last_sample_ago=0xFFFFFFFF,
    orig_latest_meas=-2.1e-3,
    latest_meas=2.2e-3,
    latest_meas_err=2.3e-9,
)
SOURCE_STATS = pychrony.SourceStats(
    reference_id=0xFFFFFFFF,
    address="192.0.2.7",
    samples=31,
    runs=32,
    span=0xFFFFFFFE,
    std_dev=3.3e-5,
    resid_freq=-3.4,
    skew=3.5e-3,
    offset=-3.6e-7,
    offset_err=3.7e-8,
)
RTC_DATA = pychrony.RTCData(
    ref_time=1705320001.9876544,
    samples=0xFFFF,
    runs=42,
    span=4300000000 - 10**7,
    offset=-4.4,
    freq_offset=4.5,
    ref_time_ns=1705320001987654321,
)
SELECT_DATA = pychrony.SelectData(
    reference_id=0xC0000207,
    address="192.0.2.7",
    state=pychrony.SelectState.OUTLIER,
    authentication=False,
    leap_status=LeapStatus.INSERT,
    configured_options=SelectOption.NOSELECT | SelectOption.TRUST,
    effective_options=SelectOption(0xFFFF),
    last_sample_ago=0xFFFFFFFE,
    score=5.1,
    low_limit=-5.2e-3,
    high_limit=5.3e-3,
)
ACTIVITY = pychrony.Activity(
    online=61, offline=62, burst_online=63, burst_offline=64, unresolved=0xFFFFFFFF
)
AUTH_DATA = pychrony.AuthData(
    address="192.0.2.7",
    mode=pychrony.AuthMode.SYMMETRIC_KEY,
    key_type=pychrony.KeyType.AES256,
    key_id=0xFFFFFFFE,
    key_length=71,
    ke_attempts=72,
    last_ke_ago=None,
    cookies=73,
    cookie_length=74,
    nak=True,
)
NTP_DATA = pychrony.NTPData(
    address="192.0.2.7",
    remote_address="192.0.2.8",
    local_address="2001:db8::9",
    remote_port=0xFFFE,
    leap_status=LeapStatus.DELETE,
    version=3,
    mode=pychrony.NTPMode.PASSIVE_SYMMETRIC,
    stratum=15,
    poll=-6,
    precision=-128,
    root_delay=8.1e-3,
    root_dispersion=8.2e-3,
    reference_id=0xC0000201,
    ref_time=1705320002.1357924,
    offset=-8.3e-6,
    peer_delay=8.4e-4,
    peer_dispersion=8.5e-5,
    response_time=8.6e-6,
    jitter_asymmetry=-0.5,
    flags=pychrony.NTPFlag.TESTB | pychrony.NTPFlag.INTERLEAVED,
    tx_timestamping=pychrony.Timestamping.HARDWARE,
    rx_timestamping=pychrony.Timestamping.DAEMON,
    total_tx=801,
    total_rx=802,
    total_valid_rx=803,
    total_good_rx=804,
    kernel_tx=805,
    kernel_rx=806,
    hardware_tx=807,
    hardware_rx=808,
    ref_time_ns=1705320002135792468,
)
SERVER_STATS = make_server_stats(
    **dict(zip(SERVERSTATS_DEFAULTS, range(901, 917), strict=False)),
    hardware_tx=0xFFFFFFFF_FFFFFFFE,
)
SMOOTHING = pychrony.Smoothing(
    flags=pychrony.SmoothingFlag.ACTIVE | pychrony.SmoothingFlag.LEAPONLY,
    offset=-1.1e-3,
    freq_offset=-1.2,
    wander=1.3e-2,
    last_update_ago=1.4,
    remaining_time=1500.5,
)


# Of each report but that of the RTC, which chronyc prints in another way.
RECORDS: Any = {
    "tracking": TRACKING,
    "sources": [SOURCE],
    "source_stats": [SOURCE_STATS],
    "select_data": [SELECT_DATA],
    "activity": ACTIVITY,
    "auth_data": [AUTH_DATA],
    "ntp_data": [NTP_DATA],
    "server_stats": SERVER_STATS,
    "smoothing": SMOOTHING,
}


def connected(
    **options: Any,
) -> AbstractContextManager[tuple[ScriptedDaemon, pychrony.ChronyConnection]]:
    """A scripted daemon and an open connection, which asks once for each record."""
    return helpers.connected(**{"timeout": 5.0, "retries": 0, **options})


def read_tracking(
    daemon: ScriptedDaemon, timeout: float = 5.0
) -> pychrony.TrackingStatus:
    return pychrony.get_tracking(daemon.address, timeout=timeout, retries=0)


def request(
    code: int = 33,
    size: int = 104,
    *,
    version: int = 6,
    kind: int = 1,
    reserved: int = 0,
    attempt: int = 0,
    index: int = 0,
    argument: bytes = b"",
) -> bytes:
    head = (version, kind, 0, reserved, code, attempt, 0x01020304)
    argument = argument or struct.pack("!I", index)
    return (struct.pack("!4B2HI8x", *head) + argument).ljust(size, b"\0")[:size]


def udp_client(daemon: ScriptedDaemon | RecordedDaemon | Chronyd) -> socket.socket:
    host, port = daemon.address.split(":")
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((host, int(port)))
    client.settimeout(5)
    return client


def ask(daemon: ScriptedDaemon | Chronyd, *requests: bytes) -> list[bytes]:
    """Send the requests; return what arrives before the answer to a last one."""
    with udp_client(daemon) as client:
        end = request(code=9999, size=28)
        for data in (*requests, end):
            client.send(data)
        return list(iter(lambda: client.recv(2000), header(9999, 1, 3)))


def header(code: int, reply: int, status: int) -> bytes:
    return struct.pack("!BBxxHHH6xI8x", 6, 2, code, reply, status, 0x01020304)


def assert_same(got: Any, given: Any) -> None:
    """Compare two records; floats as exactly as the protocol can."""
    assert type(got) is type(given)
    for field in dataclasses.fields(given):
        name = field.name
        value, wanted = getattr(got, name), getattr(given, name)
        assert type(value) is type(wanted), name
        if name == "ref_time":
            assert value == given.ref_time_ns / 10**9
        elif isinstance(wanted, float):
            assert math.isclose(value, wanted, rel_tol=FLOAT_ERROR, abs_tol=0), name
        else:
            assert value == wanted, name


NAMES = (
    *("tracking", "sources", "source_stats", "select_data", "activity"),
    *("auth_data", "ntp_data", "server_stats", "rtc_data", "smoothing"),
)


def read_all(connection: ChronyConnection) -> dict[str, Any]:
    return {name: getattr(connection, f"get_{name}")() for name in NAMES}


def without(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names)


STATS_4 = without(
    *("daemon_rx", "daemon_tx", "kernel_rx", "kernel_tx", "hardware_rx", "hardware_tx")
)
STATS_3 = {
    **STATS_4,
    **without("ntp_interleaved", "timestamps_held", "timestamp_span"),
}
STATS_2 = {
    **STATS_3,
    **without("nts_ke_accepted", "nts_ke_dropped", "ntp_authenticated"),
}
NTP_DATA_2 = without("kernel_tx", "kernel_rx", "hardware_tx", "hardware_rx")

ADDRESSES = [
    "192.0.2.7",
    "255.255.255.255",
    "2001:db8::7",
    "::1",
    "",
    "?",
    "ID#0000000007",
]
