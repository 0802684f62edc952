"""The test kit, against the real libchrony and against bare sockets."""

from __future__ import annotations

import dataclasses
import math
import os
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
    ChronyConnection,
    ChronyConnectionError,
    ChronyDataError,
    ChronyPermissionError,
    ChronyTimeoutError,
    LeapStatus,
    RTCData,
    Source,
    SourceMode,
    SourceState,
    SourceStats,
    TrackingStatus,
)
from pychrony.testing import (
    RTCDATA_DEFAULTS,
    SOURCE_DEFAULTS,
    SOURCESTATS_DEFAULTS,
    TRACKING_DEFAULTS,
    Request,
    ScriptedDaemon,
    faults,
    make_rtc_data,
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
) -> bytes:
    head = (version, kind, 0, reserved, code, attempt, 0x01020304, index)
    return struct.pack("!4B2HI8xI", *head).ljust(size, b"\0")[:size]


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
    ],
)
def test_factory(make: Any, defaults: dict[str, Any], record: Any) -> None:
    made = make()
    assert type(made) is record
    assert {name: getattr(made, name) for name in defaults} == defaults
    fields = {field.name for field in dataclasses.fields(record)}
    assert fields - {"ref_time_ns"} == set(defaults)
    for name in defaults:
        assert getattr(make(**{name: 1}), name) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.offset = 0.0
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


@pytest.mark.parametrize("make", [make_tracking, make_rtc_data])
def test_ref_time_follows_from_nanoseconds_and_back(make: Any) -> None:
    assert make(ref_time_ns=1705320000123456789).ref_time == 1705320000.1234567
    assert make(ref_time=2.5).ref_time_ns == 2_500_000_000
    both = make(ref_time=1.0, ref_time_ns=5)
    assert (both.ref_time, both.ref_time_ns) == (1.0, 5)


def test_importing_it_does_not_import_pytest() -> None:
    code = "import sys, pychrony.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What is sent


def test_every_field_arrives(address: str) -> None:
    with (
        ScriptedDaemon(
            tracking=TRACKING,
            sources=[SOURCE, make_source()],
            source_stats=[SOURCE_STATS, make_source_stats()],
            rtc_data=RTC_DATA,
            address=address,
        ) as daemon,
        connect(daemon) as connection,
    ):
        assert_same(connection.get_tracking(), TRACKING)
        sources = connection.get_sources()
        assert_same(sources[0], SOURCE)
        assert_same(sources[1], make_source())
        stats = connection.get_source_stats()
        assert_same(stats[0], SOURCE_STATS)
        assert_same(stats[1], make_source_stats())
        rtc_data = connection.get_rtc_data()
        assert_same(rtc_data, RTC_DATA)
        assert sorted(set(daemon.requests), key=str) == [
            ("N_SOURCES", None),
            ("RTCREPORT", None),
            ("SOURCESTATS", 0),
            ("SOURCESTATS", 1),
            ("SOURCE_DATA", 0),
            ("SOURCE_DATA", 1),
            ("TRACKING", None),
        ]


def test_defaults_are_one_source_and_no_rtc() -> None:
    with ScriptedDaemon() as daemon, connect(daemon) as connection:
        assert_same(connection.get_tracking(), make_tracking())
        (source,) = connection.get_sources()
        assert_same(source, make_source())
        (stats,) = connection.get_source_stats()
        assert_same(stats, make_source_stats())
        assert connection.get_rtc_data() is None


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
    ],
)
def test_refuses_what_chronyd_refuses(data: bytes, reply: bytes) -> None:
    with ScriptedDaemon() as daemon:
        assert ask(daemon, data) == [reply]


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
    assert arrived[0][1] < 0.2 <= arrived[1][1] <= arrived[2][1]


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
    with ScriptedDaemon(address=address, misbehave=faults.delayed(60)) as daemon:
        with pytest.raises(ChronyTimeoutError):
            read_tracking(daemon, 0.1)
        start = time.monotonic()
    assert time.monotonic() - start < 1


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


def test_a_server_survives_being_woken_for_nothing() -> None:
    server = Server("twice")
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    address = listener.getsockname()
    # Both are ready when it starts; whoever is second finds nothing.
    for one in (listener, listener.dup()):
        server.listen(one, repeating(1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"first", address)
        server.start()
        assert client.recv(99) == b"first"
        client.sendto(b"second", address)
        assert client.recv(99) == b"second"
    server.stop()
    assert server.error is None
