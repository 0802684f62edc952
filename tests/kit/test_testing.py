"""The test kit, against the real libchrony and against bare sockets."""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pychrony import (
    Activity,
    AuthData,
    AuthMode,
    ChronyConnection,
    ChronyConnectionError,
    ChronyDataError,
    ChronyPermissionError,
    ChronyTimeoutError,
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
from pychrony.testing import (
    ACTIVITY_DEFAULTS,
    ALL_COMMANDS,
    AUTHDATA_DEFAULTS,
    DEFAULT_OPEN_COMMANDS,
    NTPDATA_DEFAULTS,
    RTCDATA_DEFAULTS,
    SELECTDATA_DEFAULTS,
    SERVERSTATS_DEFAULTS,
    SMOOTHING_DEFAULTS,
    SOURCE_DEFAULTS,
    SOURCESTATS_DEFAULTS,
    TRACKING_DEFAULTS,
    Request,
    ScriptedDaemon,
    faults,
    make_activity,
    make_auth_data,
    make_ntp_data,
    make_rtc_data,
    make_select_data,
    make_server_stats,
    make_smoothing,
    make_source,
    make_source_stats,
    make_tracking,
)
from pychrony.testing._daemon import Server
from pychrony.testing.faults import Datagram, Fault

# Half of the last of 24 bits.
FLOAT_ERROR = 2.0**-24

TRACKING = TrackingStatus(
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
SOURCE = Source(
    address="192.0.2.7",
    poll=-2,
    stratum=15,
    state=SourceState.JITTERY,
    mode=SourceMode.PEER,
    flags=0xFFFF,
    reachability=0o252,
    last_sample_ago=0xFFFFFFFF,
    orig_latest_meas=-2.1e-3,
    latest_meas=2.2e-3,
    latest_meas_err=2.3e-9,
)
SOURCE_STATS = SourceStats(
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
RTC_DATA = RTCData(
    ref_time=1705320001.9876544,
    samples=0xFFFF,
    runs=42,
    span=4300000000 - 10**7,
    offset=-4.4,
    freq_offset=4.5,
    ref_time_ns=1705320001987654321,
)
SELECT_DATA = SelectData(
    reference_id=0xC0000207,
    address="192.0.2.7",
    state=SelectState.OUTLIER,
    authentication=False,
    leap_status=LeapStatus.INSERT,
    configured_options=SelectOption.NOSELECT | SelectOption.TRUST,
    effective_options=SelectOption(0xFFFF),
    last_sample_ago=0xFFFFFFFE,
    score=5.1,
    low_limit=-5.2e-3,
    high_limit=5.3e-3,
)
ACTIVITY = Activity(
    online=61, offline=62, burst_online=63, burst_offline=64, unresolved=0xFFFFFFFF
)
AUTH_DATA = AuthData(
    address="192.0.2.7",
    mode=AuthMode.SYMMETRIC_KEY,
    key_type=KeyType.AES256,
    key_id=0xFFFFFFFE,
    key_length=71,
    ke_attempts=72,
    last_ke_ago=None,
    cookies=73,
    cookie_length=74,
    nak=True,
)
NTP_DATA = NTPData(
    address="192.0.2.7",
    remote_address="192.0.2.8",
    local_address="2001:db8::9",
    remote_port=0xFFFE,
    leap_status=LeapStatus.DELETE,
    version=3,
    mode=NTPMode.PASSIVE_SYMMETRIC,
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
    flags=NTPFlag.TESTB | NTPFlag.INTERLEAVED,
    tx_timestamping=Timestamping.HARDWARE,
    rx_timestamping=Timestamping.DAEMON,
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
SMOOTHING = Smoothing(
    flags=SmoothingFlag.ACTIVE | SmoothingFlag.LEAPONLY,
    offset=-1.1e-3,
    freq_offset=-1.2,
    wander=1.3e-2,
    last_update_ago=1.4,
    remaining_time=1500.5,
)


@pytest.fixture
def directory() -> Iterator[str]:
    # Not tmp_path: libchrony needs short paths of Unix sockets.
    path = tempfile.mkdtemp(prefix="c", dir="/tmp")
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["127.0.0.1:0", "[::1]:0", "unix"])
def address(request: pytest.FixtureRequest, directory: str) -> str:
    if request.param == "[::1]:0":
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("this machine has no ::1")
    return str(request.param).replace("unix", f"{directory}/chronyd.sock")


def connect(
    daemon: ScriptedDaemon, timeout: float = 5.0, retries: int = 0
) -> ChronyConnection:
    return ChronyConnection(daemon.address, timeout=timeout, retries=retries)


def read_tracking(daemon: ScriptedDaemon, timeout: float = 5.0) -> TrackingStatus:
    with connect(daemon, timeout) as connection:
        return connection.get_tracking()


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


def udp_client(daemon: ScriptedDaemon) -> socket.socket:
    host, port = daemon.address.split(":")
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((host, int(port)))
    client.settimeout(5)
    return client


def ask(daemon: ScriptedDaemon, *requests: bytes) -> list[bytes]:
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


# Factories


@pytest.mark.parametrize(
    ("make", "defaults", "record"),
    [
        (make_tracking, TRACKING_DEFAULTS, TrackingStatus),
        (make_source, SOURCE_DEFAULTS, Source),
        (make_source_stats, SOURCESTATS_DEFAULTS, SourceStats),
        (make_rtc_data, RTCDATA_DEFAULTS, RTCData),
        (make_select_data, SELECTDATA_DEFAULTS, SelectData),
        (make_activity, ACTIVITY_DEFAULTS, Activity),
        (make_auth_data, AUTHDATA_DEFAULTS, AuthData),
        (make_ntp_data, NTPDATA_DEFAULTS, NTPData),
        (make_server_stats, SERVERSTATS_DEFAULTS, ServerStats),
        (make_smoothing, SMOOTHING_DEFAULTS, Smoothing),
    ],
)
def test_factory(make: Any, defaults: dict[str, Any], record: Any) -> None:
    made = make()
    assert type(made) is record
    assert {name: getattr(made, name) for name in defaults} == defaults
    fields = {field.name for field in dataclasses.fields(record)}
    assert fields - {"ref_time_ns"} == set(defaults), (
        "the defaults of each field stand in pychrony/testing/_factories.py"
    )
    for name in defaults:
        assert getattr(make(**{name: 1}), name) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, next(iter(defaults)), 0)
    with pytest.raises(TypeError):
        make(nonsense=1)


def test_factories_make_what_2_0_3_made() -> None:
    tracking = make_tracking()
    assert tracking.is_synchronized()
    assert tracking.ref_time == 1705320000.123456789
    assert (tracking.reference_id, tracking.stratum) == (0x7F000001, 2)
    assert make_source().is_selected() and make_source().is_reachable()
    assert make_source_stats().has_sufficient_samples()
    assert make_rtc_data().is_calibrated()


@pytest.mark.parametrize("make", [make_tracking, make_rtc_data, make_ntp_data])
def test_ref_time_follows_from_nanoseconds_and_back(make: Any) -> None:
    assert make(ref_time_ns=1705320000123456789).ref_time == 1705320000.1234567
    assert make(ref_time=2.5).ref_time_ns == 2_500_000_000
    both = make(ref_time=1.0, ref_time_ns=5)
    assert (both.ref_time, both.ref_time_ns) == (1.0, 5)


def test_importing_it_does_not_import_pytest() -> None:
    code = "import sys, pychrony.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What is sent


def read_all(connection: ChronyConnection) -> dict[str, Any]:
    return {
        "tracking": connection.get_tracking(),
        "sources": connection.get_sources(),
        "source_stats": connection.get_source_stats(),
        "select_data": connection.get_select_data(),
        "activity": connection.get_activity(),
        "auth_data": connection.get_auth_data(),
        "ntp_data": connection.get_ntp_data(),
        "server_stats": connection.get_server_stats(),
        "rtc_data": connection.get_rtc_data(),
        "smoothing": connection.get_smoothing(),
    }


def test_every_field_arrives(address: str) -> None:
    records: dict[str, Any] = {
        "tracking": TRACKING,
        "sources": [SOURCE, make_source()],
        "source_stats": [SOURCE_STATS, make_source_stats()],
        "select_data": [SELECT_DATA, make_select_data()],
        "activity": ACTIVITY,
        "auth_data": [AUTH_DATA, make_auth_data()],
        "ntp_data": [NTP_DATA, make_ntp_data()],
        "server_stats": SERVER_STATS,
        "rtc_data": RTC_DATA,
        "smoothing": SMOOTHING,
    }
    with (
        ScriptedDaemon(
            **records, address=address, open_commands=ALL_COMMANDS
        ) as daemon,
        connect(daemon) as connection,
    ):
        for name, got in read_all(connection).items():
            given = records[name]
            if isinstance(given, list):
                for one, wanted in zip(got, given, strict=True):
                    assert_same(one, wanted)
            else:
                assert_same(got, given)
        sources = [0, 1]
        addresses = ["192.0.2.7", "192.168.1.100"]
        assert sorted(set(daemon.requests), key=str) == [
            ("ACTIVITY", None),
            *(("AUTH_DATA", one) for one in addresses),
            *(("NTP_DATA", one) for one in addresses),
            ("N_SOURCES", None),
            ("RTCREPORT", None),
            *(("SELECT_DATA", one) for one in sources),
            ("SERVER_STATS", None),
            ("SMOOTHING", None),
            *(("SOURCESTATS", one) for one in sources),
            *(("SOURCE_DATA", one) for one in sources),
            ("TRACKING", None),
        ]


def test_defaults_are_one_source_and_neither_rtc_nor_smoothing() -> None:
    with (
        ScriptedDaemon(open_commands=ALL_COMMANDS) as daemon,
        connect(daemon) as connection,
    ):
        got = read_all(connection)
    assert (got.pop("rtc_data"), got.pop("smoothing")) == (None, None)
    for wanted in [
        make_tracking(),
        make_source(),
        make_source_stats(),
        make_select_data(),
        make_activity(),
        make_auth_data(),
        make_ntp_data(),
        make_server_stats(),
    ]:
        value = got.pop(next(iter(got)))
        assert_same(value[0] if isinstance(value, list) else value, wanted)
    assert not got


def test_defaults_follow_the_sources() -> None:
    sources = [
        make_source(state=SourceState.UNSELECTED),
        make_source(address="GPS", mode=SourceMode.REFCLOCK),
        make_source(address="2001:db8::7", state=SourceState(77)),
        make_source(
            address="ID#0000000003",
            state=SourceState.NONSELECTABLE,
            last_sample_ago=0xFFFFFFFF,
        ),
    ]
    addresses = ["192.168.1.100", "", "2001:db8::7", "ID#0000000003"]
    ids = [0xC0A80164, 0x47505300, 0x20010DB8, 0]
    with (
        ScriptedDaemon(sources=sources, open_commands=ALL_COMMANDS) as daemon,
        connect(daemon) as connection,
    ):
        stats = connection.get_source_stats()
        selected = connection.get_select_data()
        named = [
            [one.address for one in connection.get_auth_data()],
            [one.address for one in connection.get_ntp_data()],
            [one.remote_address for one in connection.get_ntp_data()],
        ]
        assert connection.get_activity() == make_activity(online=2, unresolved=1)
    assert named == [[one for one in addresses if one]] * 3
    for records in (stats, selected):
        assert [one.address for one in records] == addresses
        assert [one.reference_id for one in records] == ids
    assert [one.state for one in selected] == [
        SelectState.COMBINED,
        SelectState.BEST,
        SelectState.UNKNOWN,
        SelectState.NOT_SYNCHRONIZED,
    ]
    assert [one.authentication for one in selected] == [True, False, True, True]
    assert [one.last_sample_ago for one in selected] == [32, 32, 32, 0xFFFFFFFF]


def test_each_state_of_a_source_has_one_in_the_selection() -> None:
    daemon = ScriptedDaemon(sources=[make_source(state=one) for one in SourceState])
    states = [one.state for one in daemon.select_data]
    assert len(set(states)) == len(SourceState)
    assert SelectState.UNKNOWN not in states


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ({"auth_data": [make_auth_data(address="192.0.2.1")]}, ["192.0.2.1"]),
        ({"ntp_data": [make_ntp_data(address="::1")]}, ["::1"]),
        (
            {
                "auth_data": iter(()),
                "ntp_data": [make_ntp_data(address=one) for one in ("::2", "::1")],
            },
            ["::2", "::1"],
        ),
        (
            {
                "auth_data": [make_auth_data(address=one) for one in ("::1", "::2")],
                "ntp_data": [make_ntp_data(address=one) for one in ("::2", "::3")],
            },
            ["::1", "::2", "::3"],
        ),
        ({"auth_data": []}, []),
        ({"source_stats": [make_source_stats(address="::3")]}, ["192.168.1.100"]),
    ],
)
def test_sources_follow_what_is_known_by_address(
    given: dict[str, Any], addresses: list[str]
) -> None:
    daemon = ScriptedDaemon(**given)
    assert [one.address for one in daemon.sources] == addresses


def test_what_is_known_by_address_follows_the_statistics() -> None:
    stats = [make_source_stats(address=one) for one in ("192.0.2.1", "")]
    with (
        ScriptedDaemon(source_stats=stats, open_commands=ALL_COMMANDS) as daemon,
        connect(daemon) as connection,
    ):
        assert [one.address for one in connection.get_auth_data()] == ["192.0.2.1"]
        assert [one.address for one in connection.get_ntp_data()] == ["192.0.2.1"]


def without(*names: str) -> dict[str, None]:
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


@pytest.mark.parametrize(
    ("missing", "reply", "size", "reserved"),
    [
        ({}, 25, 168, 32),
        (STATS_4, 24, 44, 0),
        (STATS_3, 22, 32, 0),
        (STATS_2, 14, 20, 0),
    ],
)
def test_server_stats_of_every_chronyd_arrive(
    missing: dict[str, None], reply: int, size: int, reserved: int
) -> None:
    given = make_server_stats(**missing)
    with (
        ScriptedDaemon(server_stats=given, open_commands=["serverstats"]) as daemon,
        connect(daemon) as connection,
    ):
        assert_same(connection.get_server_stats(), given)
        (data,) = ask(daemon, request(54, 28 + size))
        assert ask(daemon, request(54, 27 + size)) == [header(54, 1, 19)]
    assert data[:28] == header(54, reply, 0)
    assert len(data) == 28 + size
    assert data.endswith(b"\xff" * reserved)


@pytest.mark.parametrize(
    ("missing", "reply", "size", "reserved"),
    [({}, 26, 144, 16), (NTP_DATA_2, 16, 124, 12)],
)
def test_ntp_data_of_every_chronyd_arrive(
    missing: dict[str, None], reply: int, size: int, reserved: int
) -> None:
    given = make_ntp_data(**missing)
    argument = bytes((192, 168, 1, 100)) + bytes(12) + b"\0\1\0\0"
    with (
        ScriptedDaemon(
            ntp_data=[given], open_commands=["ntpdata", "sourcestats"]
        ) as daemon,
        connect(daemon) as connection,
    ):
        (got,) = connection.get_ntp_data()
        assert_same(got, given)
        (data,) = ask(daemon, request(57, 28 + size, argument=argument))
        assert ask(daemon, request(57, 27 + size, argument=argument)) == [
            header(57, 1, 19)
        ]
    assert data[:28] == header(57, reply, 0)
    assert len(data) == 28 + size
    assert data.endswith(b"\xff" * reserved)


ADDRESSES = [
    "192.0.2.7",
    "255.255.255.255",
    "2001:db8::7",
    "::1",
    "",
    "?",
    "ID#0000000007",
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_every_kind_of_address_arrives(text: str) -> None:
    with (
        ScriptedDaemon(
            tracking=make_tracking(reference_ip=text),
            sources=[make_source(address=text)],
            source_stats=[make_source_stats(address=text)],
        ) as daemon,
        connect(daemon) as connection,
    ):
        assert connection.get_tracking().reference_ip == text
        assert connection.get_sources()[0].address == text
        assert connection.get_source_stats()[0].address == text


@pytest.mark.parametrize("name", ["GPS", "PPS0", "::1", "?", "", "254.1.2.3"])
def test_refclock_has_an_id_in_place_of_an_address(name: str) -> None:
    given = make_source(address=name, mode=SourceMode.REFCLOCK, stratum=0)
    with (
        ScriptedDaemon(sources=[given]) as daemon,
        connect(daemon) as connection,
    ):
        assert_same(connection.get_sources()[0], given)
        assert connection.get_source_stats()[0].address == ""


def test_refclock_and_unsynchronised_tracking_arrive() -> None:
    refclock = make_tracking(
        reference_id=0x50505300, reference_id_name="PPS", reference_ip="", stratum=1
    )
    nothing = make_tracking(
        reference_id=0,
        reference_id_name="",
        reference_ip="",
        stratum=0,
        leap_status=LeapStatus.UNSYNC,
        ref_time_ns=0,
    )
    with ScriptedDaemon(tracking=refclock) as daemon:
        assert_same(read_tracking(daemon), refclock)
        daemon.tracking = nothing
        assert_same(read_tracking(daemon), nothing)


@pytest.mark.parametrize(
    ("source", "reference_id", "address"),
    [
        (make_source(address="192.0.2.7"), 0xC0000207, "192.0.2.7"),
        (make_source(address="PPS0", mode=SourceMode.REFCLOCK), 0x50505330, ""),
        (make_source(address="2001:db8::7"), 0x20010DB8, "2001:db8::7"),
    ],
)
def test_stats_are_made_for_each_source(
    source: Source, reference_id: int, address: str
) -> None:
    daemon = ScriptedDaemon(sources=[source])
    (stats,) = daemon.source_stats
    assert (stats.reference_id, stats.address) == (reference_id, address)


LARGEST = (2**24 - 1) * 2.0**38


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (0.0, 0.0),
        (-0.0, 0.0),
        (1.0, 1.0),
        (-1.0, -1.0),
        (math.pi, math.pi),
        (1 - 2.0**-30, 1.0),
        (-(1 - 2.0**-30), -1.0),
        (1 / 3 * 2.0**-60, 1 / 3 * 2.0**-60),
        # Below 2**-65 the coefficient has fewer bits.
        (2.0**-89, 2.0**-89),
        (-(2.0**-89) * 3, -(2.0**-89) * 3),
        (2.0**-91, 0.0),
        (5e-324, 0.0),
        (LARGEST, LARGEST),
        (-LARGEST, -LARGEST),
        (1e300, LARGEST),
        (math.inf, LARGEST),
        (-math.inf, -LARGEST),
        (math.nan, 0.0),
    ],
)
def test_float_arrives(given: float, wanted: float) -> None:
    with ScriptedDaemon(tracking=make_tracking(offset=given)) as daemon:
        got = read_tracking(daemon).offset
    assert math.isclose(got, wanted, rel_tol=FLOAT_ERROR, abs_tol=0)


def test_what_arrived_can_be_sent_again_without_loss() -> None:
    with ScriptedDaemon(tracking=TRACKING) as daemon:
        once = read_tracking(daemon)
        daemon.tracking = once
        assert read_tracking(daemon) == once


def test_bytes_are_those_of_chronyd() -> None:
    """What a chronyd 4.3 in local mode sent, and of its silent refclock."""
    daemon = ScriptedDaemon(
        tracking=TrackingStatus(
            reference_id=0x7F7F0101,
            reference_id_name="",
            reference_ip="",
            stratum=8,
            leap_status=LeapStatus.NORMAL,
            ref_time=0.0,
            ref_time_ns=1795258770_806166372,
            **dict.fromkeys(
                (
                    "offset",
                    "last_offset",
                    "rms_offset",
                    "frequency",
                    "residual_freq",
                    "skew",
                    "root_delay",
                    "root_dispersion",
                    "update_interval",
                ),
                0.0,
            ),
        ),
        sources=[
            Source(
                address="GPS",
                poll=4,
                stratum=0,
                state=SourceState.NONSELECTABLE,
                mode=SourceMode.REFCLOCK,
                flags=0,
                reachability=0,
                last_sample_ago=0xFFFFFFFF,
                orig_latest_meas=0.0,
                latest_meas=0.0,
                latest_meas_err=0.0,
            )
        ],
        source_stats=[
            SourceStats(
                reference_id=0x47505300,
                address="",
                samples=0,
                runs=0,
                span=0,
                std_dev=4.0,
                resid_freq=0.0,
                skew=2000.0,
                offset=0.0,
                offset_err=0.0,
            )
        ],
    )
    with daemon:
        replies = ask(
            daemon,
            request(),
            request(15, 76),
            request(34, 84),
            request(35, 56),
        )
    assert [reply.hex() for reply in replies] == [
        (
            "06020000002100050000000000000000010203040000000000000000"
            "7f7f0101000000000000000000000000000000000000000000080000"
            "000000006b017992300d1f6400000000000000000000000000000000"
            "0000000000000000000000000000000000000000"
        ),
        (
            "06020000000f00030000000000000000010203040000000000000000"
            "47505300000000000000000000000000000100000004000000010002"
            "00000000ffffffff000000000000000000000000"
        ),
        (
            "06020000002200060000000000000000010203040000000000000000"
            "47505300000000000000000000000000000000000000000000000000"
            "0000000000000000088000000000000018fa00000000000000000000"
        ),
        "0602000000230001000d000000000000010203040000000000000000",
    ]


def test_unknown_numbers_of_enums_arrive() -> None:
    source = make_source(state=SourceState(65535), mode=SourceMode(9))
    tracking = make_tracking(leap_status=LeapStatus(77))
    with (
        ScriptedDaemon(tracking=tracking, sources=[source]) as daemon,
        connect(daemon) as connection,
    ):
        assert connection.get_tracking().leap_status.value == 77
        (got,) = connection.get_sources()
        assert (got.state.value, got.mode.value) == (65535, 9)


def test_times_far_away_are_sent() -> None:
    none = (0x7FFFFFFF << 32) * 10**9
    for ns, words in [
        (-2, (0xFFFFFFFF, 0xFFFFFFFF, 999_999_998)),
        (none + 1, (0x7FFFFFFF, 0, 1)),
    ]:
        with ScriptedDaemon(
            tracking=make_tracking(ref_time=0.0, ref_time_ns=ns)
        ) as daemon:
            (reply,) = ask(daemon, request())
        assert struct.unpack_from("!III", reply, 28 + 28) == words


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"tracking": make_tracking(stratum=65536)}, r"TrackingStatus\.stratum: 65536"),
        ({"tracking": make_tracking(reference_id=-1)}, r"TrackingStatus\.reference_id"),
        ({"tracking": make_tracking(ref_time_ns=2**63 * 10**9)}, r"\.ref_time_ns"),
        ({"tracking": make_tracking(reference_ip="x")}, r"\.reference_ip: 'x'"),
        ({"tracking": make_tracking(reference_ip="fe80::1%lo")}, r"scope"),
        ({"sources": [make_source(poll=32768)]}, r"Source\.poll: .* -32768 to 32767"),
        ({"sources": [make_source(poll=-32769)]}, r"Source\.poll"),
        ({"sources": [make_source(address="ID#4294967296")]}, r"Source\.address"),
        (
            {"sources": [make_source(address="LONGER", mode=SourceMode.REFCLOCK)]},
            r"Source\.address: 'LONGER'",
        ),
        ({"source_stats": [make_source_stats(span=2**32)]}, r"SourceStats\.span"),
        ({"rtc_data": make_rtc_data(samples=-1)}, r"RTCData\.samples: -1"),
        ({"activity": make_activity(online=2**32)}, r"Activity\.online"),
        ({"smoothing": make_smoothing(flags=-1)}, r"Smoothing\.flags"),
        ({"server_stats": make_server_stats(kernel_tx=2**64)}, r"\.kernel_tx"),
        (
            {"server_stats": make_server_stats(**STATS_4, log_dropped=2**32)},
            r"ServerStats\.log_dropped: .* 0 to 4294967295",
        ),
        (
            {"server_stats": make_server_stats(ntp_received=None)},
            "ServerStats: no chronyd leaves out just ntp_received",
        ),
        (
            {"ntp_data": [make_ntp_data(**{**NTP_DATA_2, "kernel_rx": 5})]},
            "NTPData: no chronyd leaves out just hardware_rx, hardware_tx, kernel_tx",
        ),
        ({"ntp_data": [make_ntp_data(poll=128)]}, r"NTPData\.poll: .* -128 to 127"),
        ({"auth_data": [make_auth_data(nak=65536)]}, r"AuthData\.nak"),
        ({"select_data": [make_select_data(state=256)]}, r"SelectData\.state"),
    ],
)
def test_what_cannot_be_said_is_refused(record: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ScriptedDaemon(**record)
    daemon = ScriptedDaemon()
    ((name, value),) = record.items()
    before = getattr(daemon, name)
    with pytest.raises(ValueError, match=complaint):
        setattr(daemon, name, value)
    assert getattr(daemon, name) == before


# Records are replaced while it runs


def test_records_are_replaced_while_it_runs() -> None:
    with ScriptedDaemon() as daemon, connect(daemon) as connection:
        daemon.tracking = make_tracking(stratum=9)
        assert connection.get_tracking().stratum == daemon.tracking.stratum == 9

        daemon.sources = [make_source(address=f"192.0.2.{n}") for n in range(5)]
        assert [one.address for one in connection.get_sources()] == [
            one.address for one in daemon.sources
        ]
        assert [one.address for one in connection.get_source_stats()] == [
            one.address for one in daemon.sources
        ]

        daemon.source_stats = (make_source_stats(samples=n) for n in range(7))
        assert [one.samples for one in daemon.source_stats] == list(range(7))
        (count,) = ask(daemon, request(14, 32))
        assert count[28:] == struct.pack("!I", 7)

        daemon.rtc_data = make_rtc_data(runs=8)
        assert daemon.rtc_data.runs == 8
        rtc_data = connection.get_rtc_data()
        assert rtc_data is not None and rtc_data.runs == 8
        daemon.rtc_data = None
        assert connection.get_rtc_data() is None

        daemon.smoothing = make_smoothing(wander=0.5)
        smoothing = connection.get_smoothing()
        assert smoothing is not None and smoothing.wander == 0.5
        daemon.smoothing = None
        assert connection.get_smoothing() is None

        daemon.activity = make_activity(offline=8)
        assert connection.get_activity().offline == daemon.activity.offline == 8


@pytest.mark.parametrize("lengths", [(3, 1, 2), (1, 3, 2), (1, 2, 3), (0, 0, 0)])
def test_the_longest_list_is_counted(lengths: tuple[int, int, int]) -> None:
    sources, stats, selected = lengths
    with ScriptedDaemon(
        sources=[make_source()] * sources,
        source_stats=[make_source_stats()] * stats,
        select_data=[make_select_data()] * selected,
    ) as daemon:
        (count,) = ask(daemon, request(14, 32))
    assert count[28:] == struct.pack("!I", max(lengths))


def test_none_puts_the_default_back() -> None:
    daemon = ScriptedDaemon(
        sources=[make_source(address="::1")],
        source_stats=[],
        auth_data=[],
        server_stats=SERVER_STATS,
        tracking=TRACKING,
    )
    daemon.source_stats = None
    daemon.auth_data = None
    assert [one.address for one in daemon.source_stats] == ["::1"]
    assert [one.address for one in daemon.auth_data] == ["::1"]
    daemon.sources = None
    assert daemon.sources == (make_source(),)
    assert daemon.source_stats == (make_source_stats(),)
    daemon.server_stats = None
    daemon.tracking = None
    assert daemon.server_stats == make_server_stats()
    assert daemon.tracking == make_tracking()


def test_its_class_can_be_inspected() -> None:
    assert ScriptedDaemon.tracking is vars(ScriptedDaemon)["tracking"]
    assert "Attributes:" in str(ScriptedDaemon.__doc__)


def test_a_hook_may_replace_records() -> None:
    def hook(request: Request, reply: bytes) -> list[bytes]:
        daemon.tracking = make_tracking(stratum=daemon.tracking.stratum + 1)
        return [reply]

    with ScriptedDaemon(misbehave=hook) as daemon:
        assert [read_tracking(daemon).stratum for _ in range(3)] == [2, 3, 4]


def test_threads_may_replace_different_records() -> None:
    daemon = ScriptedDaemon()

    def change() -> None:
        for n in range(200):
            daemon.rtc_data = make_rtc_data(runs=n)

    thread = threading.Thread(target=change)
    thread.start()
    for n in range(200):
        daemon.tracking = make_tracking(stratum=n)
    thread.join()
    assert daemon.rtc_data is not None
    assert (daemon.tracking.stratum, daemon.rtc_data.runs) == (199, 199)


# It answers like chronyd


@pytest.mark.parametrize(
    "ignored",
    [
        b"",
        request(size=27),
        request(size=861),
        request(kind=2),
        request(reserved=1),
        request()[:2] + b"\1" + request()[3:],
        request(version=4),
    ],
)
def test_ignores_what_chronyd_ignores(ignored: bytes) -> None:
    with ScriptedDaemon() as daemon:
        assert ask(daemon, ignored) == []
        assert daemon.requests == [("9999", None)]


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (request(version=5), header(33, 1, 18)),
        (request(version=7), header(33, 1, 18)),
        (request(code=200), header(200, 1, 3)),
        (request(size=103), header(33, 1, 19)),
        (request(code=15, size=75), header(15, 1, 19)),
        (request(code=15, size=76, index=1), header(15, 1, 4)),
        (request(code=34, size=84, index=0xFFFFFFFF), header(34, 1, 4)),
        (request(code=35, size=64), header(35, 1, 13)),
        (request(code=14, size=32), header(14, 2, 0) + b"\0\0\0\1"),
        (request(code=44, size=47), header(44, 1, 19)),
        (request(code=51, size=51), header(51, 1, 19)),
        (request(code=51, size=52), header(51, 1, 6)),
        (request(code=54, size=195), header(54, 1, 19)),
        (request(code=54, size=196), header(54, 1, 2)),
        (request(code=57, size=171), header(57, 1, 19)),
        (request(code=57, size=172), header(57, 1, 2)),
        (request(code=67, size=51), header(67, 1, 19)),
        (request(code=67, size=52), header(67, 1, 2)),
        (request(code=69, size=75), header(69, 1, 19)),
        (request(code=69, size=76), header(69, 1, 2)),
    ],
)
def test_refuses_what_chronyd_refuses(data: bytes, reply: bytes) -> None:
    with ScriptedDaemon() as daemon:
        assert ask(daemon, data) == [reply]


REQUESTS = {
    "N_SOURCES": 14,
    "SOURCE_DATA": 15,
    "TRACKING": 33,
    "SOURCESTATS": 34,
    "RTCREPORT": 35,
    "ACTIVITY": 44,
    "SMOOTHING": 51,
    "SERVER_STATS": 54,
    "NTP_DATA": 57,
    "AUTH_DATA": 67,
    "SELECT_DATA": 69,
}
OPENED = {
    "activity": {"ACTIVITY"},
    "authdata": {"N_SOURCES", "AUTH_DATA"},
    "clients": set[str](),
    "manual": set[str](),
    "ntpdata": {"N_SOURCES", "NTP_DATA"},
    "rtcdata": {"RTCREPORT"},
    "selectdata": {"N_SOURCES", "SELECT_DATA"},
    "serverstats": {"SERVER_STATS"},
    "smoothing": {"SMOOTHING"},
    "sourcename": set[str](),
    "sources": {"N_SOURCES", "SOURCE_DATA"},
    "sourcestats": {"N_SOURCES", "SOURCESTATS"},
    "tracking": {"TRACKING"},
}


def readable(daemon: ScriptedDaemon) -> set[str]:
    replies = ask(daemon, *(request(code, 196) for code in REQUESTS.values()))
    refused = {reply[5] for reply in replies if reply[8:10] == b"\0\2"}
    return {name for name, code in REQUESTS.items() if code not in refused}


def test_each_open_command_opens_its_requests_over_udp() -> None:
    with ScriptedDaemon() as daemon:
        closed = {"AUTH_DATA", "NTP_DATA", "SELECT_DATA", "SERVER_STATS"}
        assert readable(daemon) == set(REQUESTS) - closed
        for command, opened in OPENED.items():
            daemon.open_commands = [command]
            assert readable(daemon) == opened
        daemon.open_commands = iter(OPENED)
        assert daemon.open_commands == ALL_COMMANDS
        assert readable(daemon) == set(REQUESTS)
        daemon.open_commands = ()
        assert readable(daemon) == set()
        daemon.open_commands = None
        assert daemon.open_commands == DEFAULT_OPEN_COMMANDS


def test_unknown_open_commands_are_refused() -> None:
    with pytest.raises(ValueError, match=r"knows no 'nonsense', 'trackin', only activ"):
        ScriptedDaemon(open_commands=["trackin", "tracking", "nonsense"])
    daemon = ScriptedDaemon(open_commands=["tracking"])
    with pytest.raises(ValueError, match="knows no ' ',"):
        daemon.open_commands = "sources tracking"
    assert daemon.open_commands == {"tracking"}


def test_a_unix_socket_answers_everything(directory: str) -> None:
    with (
        ScriptedDaemon(address=f"{directory}/chronyd.sock", open_commands=()) as daemon,
        connect(daemon) as connection,
    ):
        assert None not in {**read_all(connection), "rtc_data": 0, "smoothing": 0}


def test_a_closed_request_is_a_permission_error_and_seen() -> None:
    with ScriptedDaemon() as daemon, connect(daemon) as connection:
        with pytest.raises(ChronyPermissionError):
            connection.get_select_data()
        with pytest.raises(ChronyPermissionError):
            connection.get_auth_data()
        assert ("SELECT_DATA", 0) in daemon.requests
        assert daemon.requests[-1] == ("AUTH_DATA", "192.168.1.100")


def test_the_longest_reply_decides_what_is_demanded() -> None:
    records = [make_ntp_data(), make_ntp_data(address="::1", **NTP_DATA_2)]
    argument = bytes(15) + b"\1\0\2\0\0"
    for ntp_data in (records, records[::-1]):
        with ScriptedDaemon(ntp_data=ntp_data, open_commands=["ntpdata"]) as daemon:
            assert ask(daemon, request(57, 171, argument=argument)) == [
                header(57, 1, 19)
            ]


def test_an_unknown_address_is_no_source() -> None:
    argument = bytes((192, 0, 2, 1)) + bytes(12) + b"\0\1\0\0"
    with ScriptedDaemon(open_commands=ALL_COMMANDS) as daemon:
        for code in (57, 67):
            data = request(code, 196, argument=argument)
            assert ask(daemon, data) == [header(code, 1, 4)]


@pytest.mark.parametrize("text", ADDRESSES)
def test_every_kind_of_address_is_told_of_a_request(text: str) -> None:
    seen: list[Request] = []

    def hook(request: Request, reply: bytes) -> list[bytes]:
        seen.append(request)
        return [reply]

    daemon = ScriptedDaemon(
        auth_data=[make_auth_data(address=text)], open_commands=ALL_COMMANDS
    )
    record = daemon.source_stats[0]
    with daemon:
        (stats,) = ask(daemon, request(34, 84))
        daemon.misbehave = hook
        ask(daemon, request(67, 52, argument=stats[32:52]))
    assert record.address == text
    assert [(one.name, one.index, one.address) for one in seen] == [
        ("AUTH_DATA", None, text),
        ("9999", None, None),
    ]


def test_answers_requests_of_any_allowed_length_alike() -> None:
    with ScriptedDaemon() as daemon:
        least, most = ask(daemon, request(), request(size=860))
    assert least == most
    assert len(least) == 104


def test_clients_without_a_path_get_no_answer(directory: str) -> None:
    with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(daemon.address)
            client.send(request())
        assert read_tracking(daemon) is not None
        assert daemon.requests == [("TRACKING", None)]


# Misbehaviour


def test_silent() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        with pytest.raises(ChronyTimeoutError):
            read_tracking(daemon, 0.1)
        daemon.misbehave = None
        assert_same(read_tracking(daemon), make_tracking())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.garbage, ChronyTimeoutError),
        (faults.wrong_sequence, ChronyTimeoutError),
        (faults.version(7), ChronyTimeoutError),
        (faults.truncated(0), ChronyTimeoutError),
        (faults.truncated(27), ChronyTimeoutError),
        (faults.truncated(28), ChronyDataError),
        (faults.truncated(103), ChronyDataError),
        (faults.status(1), ChronyDataError),
        (faults.status(2), ChronyPermissionError),
        (faults.status(3), ChronyDataError),
        (faults.status(6), ChronyDataError),
        (faults.status(18), ChronyDataError),
        (faults.overwritten(36, (10**9).to_bytes(4, "big")), ChronyDataError),
    ],
)
def test_fault_becomes_an_error(
    fault: Fault, error: type[Exception], address: str
) -> None:
    with ScriptedDaemon(address=address, misbehave=fault) as daemon:
        with pytest.raises(error):
            read_tracking(daemon, 0.1)
        daemon.misbehave = None
        assert_same(read_tracking(daemon), make_tracking())


def test_faults_send_what_they_say() -> None:
    with ScriptedDaemon() as daemon:
        (correct,) = ask(daemon, request())
        for fault, wanted in [
            (faults.silent, []),
            (faults.duplicated, [correct, correct]),
            (faults.truncated(50), [correct[:50]]),
            (faults.wrong_sequence, [correct[:16] + b"\1\2\3\5" + correct[20:]]),
            (faults.overwritten(0, b"abc"), [correct[:28] + b"abc" + correct[31:]]),
            (faults.overwritten(75, b"abc"), [correct[:103] + b"abc"]),
            (faults.status(2), [header(33, 1, 2)]),
            (faults.version(9), [b"\x09" + header(33, 1, 18)[1:]]),
            (faults.count(7), [correct]),
        ]:
            daemon.misbehave = faults.only("TRACKING", fault)
            assert ask(daemon, request()) == wanted
        daemon.misbehave = faults.only("TRACKING", faults.garbage)
        (reply,) = ask(daemon, request())
        assert bytes(byte ^ 0xFF for byte in reply) == correct


def test_sequence_numbers_wrap() -> None:
    asked = Request("TRACKING", 33, None, 0, 0xFFFFFFFF, b"")
    (reply,) = faults.wrong_sequence(asked, bytes(28))
    assert reply == bytes(28)


def test_count() -> None:
    for count in (0, 3, 100_000_000, 0xFFFFFFFE, 0xFFFFFFFF):
        with ScriptedDaemon(misbehave=faults.count(count)) as daemon:
            (reply,) = ask(daemon, request(14, 32))
            assert reply == header(14, 2, 0) + struct.pack("!I", count)
            assert_same(read_tracking(daemon), make_tracking())


def test_duplicated_replies_are_survived() -> None:
    sources = [make_source(address=f"192.0.2.{n}") for n in range(20)]
    with (
        ScriptedDaemon(sources=sources, misbehave=faults.duplicated) as daemon,
        connect(daemon) as connection,
    ):
        for _ in range(3):
            got = connection.get_sources()
            assert [one.address for one in got] == [one.address for one in sources]


def test_delayed_replies_do_not_hold_up_others() -> None:
    fault = faults.only("TRACKING", faults.delayed(0.2))
    with ScriptedDaemon(misbehave=fault) as daemon, udp_client(daemon) as client:
        start = time.monotonic()
        client.send(request())
        client.send(request())
        client.send(request(14, 32))
        arrived = [(client.recv(2000)[5], time.monotonic() - start) for _ in range(3)]
    assert [code for code, _ in arrived] == [14, 33, 33]
    assert 0.2 <= arrived[1][1] <= arrived[2][1]


def test_replies_leave_in_the_order_of_their_delays() -> None:
    def hook(request: Request, reply: bytes) -> list[Datagram]:
        return [(0.06, b"3"), (0, b"1"), (0.03, b"2")]

    with ScriptedDaemon(misbehave=hook) as daemon, udp_client(daemon) as client:
        client.send(request())
        assert [client.recv(9) for _ in range(3)] == [b"1", b"2", b"3"]


def test_dropping() -> None:
    with ScriptedDaemon(misbehave=faults.dropping(3)) as daemon:
        with udp_client(daemon) as client:
            for n in range(9):
                client.send(request(attempt=n))
            for _ in range(6):
                client.recv(2000)
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(2000)
        daemon.misbehave = faults.dropping(1)
        with pytest.raises(ChronyTimeoutError):
            read_tracking(daemon, 0.1)


def test_first() -> None:
    with ScriptedDaemon(misbehave=faults.first(2, faults.silent)) as daemon:
        with connect(daemon, 0.1, retries=2) as connection:
            assert_same(connection.get_tracking(), make_tracking())
        assert daemon.requests == [("TRACKING", None)] * 3


def test_only() -> None:
    sources = [make_source(address=f"192.0.2.{n}") for n in range(3)]
    fault = faults.only("SOURCE_DATA", faults.status(2), index=1)
    with (
        ScriptedDaemon(sources=sources, misbehave=fault) as daemon,
        connect(daemon) as connection,
    ):
        assert len(connection.get_source_stats()) == 3
        with pytest.raises(ChronyPermissionError):
            connection.get_sources()
        replies = ask(daemon, *(request(15, 76, index=n) for n in range(3)))
        assert [reply[9] for reply in replies] == [0, 2, 0]


def test_only_one_address() -> None:
    records = [make_auth_data(address=one) for one in ("::1", "::2")]
    fault = faults.only("AUTH_DATA", faults.status(1), address="::2")
    arguments = [bytes(15) + bytes((n, 0, 2, 0, 0)) for n in (1, 2)]
    with ScriptedDaemon(
        auth_data=records, misbehave=fault, open_commands=ALL_COMMANDS
    ) as daemon:
        replies = ask(
            daemon,
            *(
                request(code, 172, argument=argument)
                for code in (57, 67)
                for argument in arguments
            ),
        )
    assert [reply[9] for reply in replies] == [0, 0, 0, 1]
    assert daemon.requests[:4] == [
        *(("NTP_DATA", one) for one in ("::1", "::2")),
        *(("AUTH_DATA", one) for one in ("::1", "::2")),
    ]


def test_chain_adds_delays_up() -> None:
    fault = faults.chain(faults.delayed(0.1), faults.duplicated, faults.delayed(0.15))
    assert list(fault(Request("TRACKING", 33, None, 0, 0, b""), b"x")) == [
        (0.25, b"x"),
        (0.25, b"x"),
    ]
    silent = faults.chain(faults.duplicated, faults.silent, faults.delayed(1))
    assert not list(silent(Request("TRACKING", 33, None, 0, 0, b""), b"x"))


def test_hook_is_given_the_request() -> None:
    seen: list[Request] = []

    def hook(request: Request, reply: bytes) -> Iterable[bytes]:
        seen.append(request)
        yield reply

    with ScriptedDaemon(misbehave=hook) as daemon:
        tracking, source = request(attempt=5), request(15, 76, index=4)
        ask(daemon, tracking, source)
    assert seen[:2] == [
        Request("TRACKING", 33, None, 5, 0x01020304, tracking),
        Request("SOURCE_DATA", 15, 4, 0, 0x01020304, source),
    ]


class HookError(Exception):
    pass


def broken(request: Request, reply: bytes) -> list[bytes]:
    raise HookError


def lazily_broken(request: Request, reply: bytes) -> Iterable[bytes]:
    yield reply
    raise HookError


def test_an_error_of_a_hook_is_raised_at_the_end(address: str) -> None:
    daemon = ScriptedDaemon(address=address, misbehave=broken)
    with pytest.raises(HookError) as caught:
        with daemon:
            read_tracking(daemon, 0.1)
    assert isinstance(caught.value.__context__, ChronyConnectionError)

    daemon.misbehave = None
    with daemon:
        assert_same(read_tracking(daemon), make_tracking())

    daemon.misbehave = lazily_broken
    daemon.start()
    assert_same(read_tracking(daemon), make_tracking())
    with pytest.raises(HookError):
        daemon.stop()


@pytest.mark.parametrize("nonsense", [b"reply", ["reply"], [("soon", b"")], [None]])
def test_a_hook_that_returns_nonsense_is_told(nonsense: Any) -> None:
    def hook(request: Request, reply: bytes) -> Any:
        return nonsense

    with pytest.raises(TypeError, match="a fault returns a list of bytes"):
        with ScriptedDaemon(misbehave=hook) as daemon:
            with pytest.raises(ChronyConnectionError):
                read_tracking(daemon, 0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: faults.status(65536),
        lambda: faults.version(256),
        lambda: faults.count(-1),
    ],
)
def test_impossible_faults_are_refused_at_once(make: Any) -> None:
    with pytest.raises((ValueError, OverflowError, struct.error)):
        make()


# It starts and stops


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_stop_leaves_nothing(address: str, directory: str) -> None:
    before = descriptors(), threading.enumerate()
    for _ in range(50):
        with ScriptedDaemon(address=address) as daemon:
            assert_same(read_tracking(daemon), make_tracking())
    assert (descriptors(), threading.enumerate()) == before
    assert os.listdir(directory) == []


def test_stop_is_prompt_and_discards_what_is_delayed(address: str) -> None:
    with (
        ScriptedDaemon(address=address, misbehave=faults.delayed(3600)) as daemon,
        pytest.raises(ChronyTimeoutError),
    ):
        read_tracking(daemon, 0.1)


def test_it_starts_again_where_it_was(address: str) -> None:
    daemon = ScriptedDaemon(address=address)
    with daemon:
        first = daemon.address
        assert first.rpartition(":")[2] != "0"
        assert_same(read_tracking(daemon), make_tracking())
    with pytest.raises(ChronyConnectionError):
        read_tracking(daemon, 0.1)
    with daemon:
        assert daemon.address == first
        assert_same(read_tracking(daemon), make_tracking())


def test_start_and_stop_are_checked() -> None:
    daemon = ScriptedDaemon()
    daemon.stop()
    daemon.start()
    with pytest.raises(RuntimeError):
        daemon.start()
    assert_same(read_tracking(daemon), make_tracking())
    daemon.stop()
    daemon.stop()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("chronyd.sock", ValueError),
        ("localhost:0", ValueError),
        ("127.0.0.1", ValueError),
        ("127.0.0.1:x", ValueError),
        (":0", ValueError),
        ("127.0.0.1:65536", OverflowError),
        ("192.0.2.7:0", OSError),
        ("/nowhere/at/all", OSError),
    ],
)
def test_an_address_that_cannot_be_had(address: str, error: type[Exception]) -> None:
    before = descriptors(), threading.enumerate()
    daemon = ScriptedDaemon(address=address)
    with pytest.raises(error):
        daemon.start()
    daemon.stop()
    assert (descriptors(), threading.enumerate()) == before


def test_a_start_that_fails_in_the_middle(address: str) -> None:
    before = descriptors()
    daemon = ScriptedDaemon(address=address)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as free:
        most = free.fileno() + 1  # enough for the listening socket, and no other
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert descriptors() == before
    with daemon:
        assert_same(read_tracking(daemon), make_tracking())


def test_a_start_without_a_thread(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = descriptors()
    daemon = ScriptedDaemon(address=address)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError) as caught:
            daemon.start()
        # At once, not only when the exception is forgotten.
        assert caught.tb is not None
        assert descriptors() == before
    with daemon:
        assert_same(read_tracking(daemon), make_tracking())


def test_a_path_may_be_a_path(directory: str) -> None:
    with ScriptedDaemon(address=Path(directory, "chronyd.sock")) as daemon:
        assert daemon.address == f"{directory}/chronyd.sock"
        assert_same(read_tracking(daemon), make_tracking())


def test_it_does_not_take_the_path_of_another(directory: str) -> None:
    path = f"{directory}/chronyd.sock"
    with ScriptedDaemon(address=path) as daemon:
        other = ScriptedDaemon(address=path)
        with pytest.raises(OSError):
            other.start()
        other.stop()
        assert_same(read_tracking(daemon), make_tracking())


def test_any_user_may_write_to_its_unix_socket(directory: str) -> None:
    with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
        assert stat.S_IMODE(os.stat(daemon.address).st_mode) == 0o666


def test_its_unix_socket_may_be_removed_by_others(directory: str) -> None:
    with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
        Path(daemon.address).unlink()


def test_clients_may_vanish(directory: str) -> None:
    delayed = faults.first(1, faults.delayed(0.05))
    with ScriptedDaemon(
        address=f"{directory}/chronyd.sock", misbehave=delayed
    ) as daemon:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(f"{directory}/client")
            client.connect(daemon.address)
            client.send(request())
        time.sleep(0.1)
        assert_same(read_tracking(daemon), make_tracking())


# The loop


def repeating(times: int) -> Callable[[bytes], list[bytes]]:
    return lambda data: [data * times]


def test_a_server_has_many_sockets() -> None:
    server = Server("many")
    listeners = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
    for n, listener in enumerate(listeners):
        listener.bind(("127.0.0.1", 0))
        server.listen(listener, repeating(n))
    addresses = [listener.getsockname() for listener in listeners]
    server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        for n, address in enumerate(addresses):
            client.sendto(b"x", address)
            assert client.recvfrom(99) == (b"x" * n, address)
    server.stop()
    assert all(listener.fileno() == -1 for listener in listeners)


class Fickle(socket.socket):
    """Ready to be read, and then not: the kernel found a checksum wrong."""

    tried = False

    def recvfrom(self, *args: Any) -> Any:
        if not self.tried:
            self.tried = True
            raise BlockingIOError
        return super().recvfrom(*args)


def test_a_server_survives_being_woken_for_nothing() -> None:
    server = Server("fickle")
    listener = Fickle(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    server.listen(listener, repeating(2))
    server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"x", listener.getsockname())
        assert client.recv(99) == b"xx"
    server.stop()
    assert listener.tried
    assert server.error is None
