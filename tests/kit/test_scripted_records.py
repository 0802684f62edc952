"""The records that a scripted daemon sends, as the real libchrony reads them."""

from __future__ import annotations

import math
import struct
import time
from typing import Any

import pytest
from kit_helpers import (
    AUTH_DATA,
    FLOAT_ERROR,
    NTP_DATA,
    NTP_DATA_2,
    RECORDS,
    RTC_DATA,
    SELECT_DATA,
    SOURCE,
    SOURCE_STATS,
    STATS_2,
    STATS_3,
    STATS_4,
    ask,
    assert_same,
    connected,
    header,
    read_all,
    read_tracking,
    request,
)

from pychrony import SelectState, Source, SourceMode, SourceState, check
from pychrony.testing import (
    ALL_COMMANDS,
    ScriptedDaemon,
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

LOCAL_SOURCE = bytes((192, 168, 1, 100)) + bytes(12) + b"\0\1\0\0"


def test_every_field_arrives(any_address: str) -> None:
    records = {
        **RECORDS,
        "sources": [SOURCE, make_source()],
        "source_stats": [SOURCE_STATS, make_source_stats()],
        "select_data": [SELECT_DATA, make_select_data()],
        "auth_data": [AUTH_DATA, make_auth_data()],
        "ntp_data": [NTP_DATA, make_ntp_data()],
        "rtc_data": RTC_DATA,
    }
    with connected(**records, address=any_address, open_commands=ALL_COMMANDS) as (
        daemon,
        connection,
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


def test_default_records_are_those_of_a_healthy_clock() -> None:
    before = time.time()
    with connected(open_commands=ALL_COMMANDS) as (daemon, connection):
        got = read_all(connection)
        again = read_all(connection)
        assert check.main([daemon.address]) == check.OK
    assert got == again
    tracking, sources = got["tracking"], got["sources"]
    assert (got["rtc_data"], got["smoothing"]) == (None, None)
    assert_same(tracking, daemon.tracking)
    assert before - 32.1 < tracking.ref_time < time.time() - 31.9
    assert [one.state.name for one in sources].count("SELECTED") == 1
    assert tracking.reference_ip == tracking.reference_id_name == sources[0].address
    assert tracking.stratum == sources[0].stratum + 1 == 2
    assert len(sources) == 4 and all(map(Source.is_usable, sources))
    for name in ("source_stats", "select_data", "auth_data", "ntp_data"):
        assert [one.address for one in got[name]] == [one.address for one in sources]
    assert_same(got["server_stats"], make_server_stats())
    assert got["activity"] == make_activity(online=4)


@pytest.mark.parametrize(
    ("ago", "age"), [(32, 32), (0, 0), (5000, 5000), (0xFFFFFFFF, 0)]
)
def test_default_tracking_was_updated_at_the_last_sample(ago: int, age: int) -> None:
    daemon = ScriptedDaemon(sources=[make_source(last_sample_ago=ago)])
    before, now = daemon.tracking.ref_time, time.time()
    assert before == pytest.approx(now - age, abs=10)
    assert (daemon.tracking.ref_time == before) == (ago != 5000)


def test_default_tracking_is_updated_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = ScriptedDaemon()
    first, now = daemon.tracking.ref_time_ns, time.time_ns()
    for later, updated in ((30, 0), (70, 70), (60, 70), (-1000, -1000)):
        monkeypatch.setattr(time, "time_ns", lambda at=later: now + at * 10**9)
        found = (daemon.tracking.ref_time_ns - first) / 10**9
        assert found == pytest.approx(updated, abs=10)


def test_default_tracking_without_a_selected_source() -> None:
    (source,) = sources = [make_source(state=SourceState.FALSETICKER)]
    tracking = ScriptedDaemon(sources=sources).tracking
    assert tracking.reference_ip == "127.0.0.1" != source.address
    assert tracking.ref_time == pytest.approx(time.time(), abs=10)


def test_default_tracking_follows_a_reference_clock() -> None:
    source = make_source(address="GPS", mode=SourceMode.REFCLOCK, stratum=0)
    with ScriptedDaemon(sources=[source]) as daemon:
        tracking = read_tracking(daemon)
    assert (tracking.reference_id_name, tracking.reference_ip) == ("GPS", "")


def test_age_that_is_none_is_sent_as_never() -> None:
    records: Any = {
        "sources": [make_source(last_sample_ago=None)],
        "select_data": [make_select_data(last_sample_ago=None)],
        "auth_data": [make_auth_data(last_ke_ago=None)],
    }
    asked = [request(15, 76), request(69, 76), request(67, 52, argument=LOCAL_SOURCE)]
    with ScriptedDaemon(**records, open_commands=ALL_COMMANDS) as daemon:
        replies = ask(daemon, *asked)
    assert [reply.count(b"\xff" * 4) for reply in replies] == [1, 1, 1]


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
    with connected(sources=sources, open_commands=ALL_COMMANDS) as (_, connection):
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
        (
            {"source_stats": [make_source_stats(address="::3")]},
            ["192.168.1.100"],
        ),
    ],
)
def test_sources_follow_what_is_known_by_address(
    given: dict[str, Any], addresses: list[str]
) -> None:
    daemon = ScriptedDaemon(**given)
    assert [one.address for one in daemon.sources] == addresses


def test_what_is_known_by_address_follows_the_statistics() -> None:
    stats = [make_source_stats(address=one) for one in ("192.0.2.1", "")]
    with connected(source_stats=stats, open_commands=ALL_COMMANDS) as (
        _,
        connection,
    ):
        assert [one.address for one in connection.get_auth_data()] == ["192.0.2.1"]
        assert [one.address for one in connection.get_ntp_data()] == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("name", "missing", "reply", "size", "reserved"),
    [
        ("server_stats", {}, 25, 168, 32),
        ("server_stats", STATS_4, 24, 44, 0),
        ("server_stats", STATS_3, 22, 32, 0),
        ("server_stats", STATS_2, 14, 20, 0),
        ("ntp_data", {}, 26, 144, 16),
        ("ntp_data", NTP_DATA_2, 16, 124, 12),
    ],
)
def test_records_of_every_chronyd_arrive(
    name: str, missing: dict[str, None], reply: int, size: int, reserved: int
) -> None:
    listed = name == "ntp_data"
    given = (make_ntp_data if listed else make_server_stats)(**missing)
    code, argument = (57, LOCAL_SOURCE) if listed else (54, b"")
    script: Any = {name: [given] if listed else given, "open_commands": ALL_COMMANDS}
    with connected(**script) as (daemon, connection):
        got = getattr(connection, f"get_{name}")()
        assert_same(got[0] if listed else got, given)
        (data,) = ask(daemon, request(code, 28 + size, argument=argument))
        short = request(code, 27 + size, argument=argument)
        assert ask(daemon, short) == [header(code, 1, 19)]
    assert data[:28] == header(code, reply, 0)
    assert len(data) == 28 + size
    assert data.endswith(b"\xff" * reserved)


@pytest.mark.parametrize("name", ["GPS", "PPS0", "::1", "?", "", "254.1.2.3"])
def test_refclock_has_an_id_in_place_of_an_address(name: str) -> None:
    given = make_source(address=name, mode=SourceMode.REFCLOCK, stratum=0)
    with connected(sources=[given]) as (_, connection):
        assert_same(connection.get_sources()[0], given)
        assert connection.get_source_stats()[0].address == ""


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


def test_times_far_away_are_sent() -> None:
    none = (0x7FFFFFFF << 32) * 10**9
    with ScriptedDaemon() as daemon:
        for ns, words in [
            (-2, (0xFFFFFFFF, 0xFFFFFFFF, 999_999_998)),
            (none + 1, (0x7FFFFFFF, 0, 1)),
        ]:
            daemon.tracking = make_tracking(ref_time=0.0, ref_time_ns=ns)
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
    daemon = ScriptedDaemon(tracking=make_tracking())
    ((name, value),) = record.items()
    before = getattr(daemon, name)
    with pytest.raises(ValueError, match=complaint):
        setattr(daemon, name, value)
    assert getattr(daemon, name) == before
