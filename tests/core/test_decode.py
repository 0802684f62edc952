"""Records from the wire, through the real libchrony, to the attributes."""

# The annotations of the dataclasses below must not become strings.
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from helpers import connected

import pychrony
from pychrony import ChronyConnection, ChronyDataError, _decode, _library, models
from pychrony._libchrony import ffi
from pychrony._queries import read_single
from pychrony.testing import (
    ALL_COMMANDS,
    ScriptedDaemon,
    faults,
    make_auth_data,
    make_ntp_data,
    make_rtc_data,
    make_source,
    make_source_stats,
    make_tracking,
)

# Where it stands in the record.
LEAP_STATUS = 26


@pytest.mark.parametrize("poll", [-2, -7, 0, 6, 24, -32768, 127])
def test_poll_keeps_its_sign(poll: int) -> None:
    with connected(sources=[make_source(poll=poll)]) as (_, connection):
        assert connection.get_sources()[0].poll == poll


def test_unknown_numbers_lose_no_report() -> None:
    source = make_source(state=pychrony.SourceState(9), mode=pychrony.SourceMode(300))
    with connected(
        tracking=make_tracking(leap_status=pychrony.LeapStatus(77)), sources=[source]
    ) as (_, connection):
        assert connection.get_tracking().leap_status is pychrony.LeapStatus(77)
        (read,) = connection.get_sources()
        assert (read.state, read.mode) == (
            pychrony.SourceState(9),
            pychrony.SourceMode(300),
        )


def test_number_never_seen_before() -> None:
    fault = faults.overwritten(LEAP_STATUS, (4711).to_bytes(2, "big"))
    with connected(misbehave=fault) as (_, connection):
        leap_status = connection.get_tracking().leap_status
        assert (leap_status.name, leap_status.value) == ("UNKNOWN_4711", 4711)


@pytest.mark.parametrize(
    "address",
    [
        *("192.0.2.1", "255.255.255.255", "2001:db8::7", "::1"),
        *("ID#0000000042", "?", ""),
    ],
)
def test_address_of_every_kind(address: str) -> None:
    with connected(
        tracking=make_tracking(reference_ip=address),
        sources=[make_source(address=address)],
        source_stats=[make_source_stats(address=address)],
    ) as (_, connection):
        tracking = connection.get_tracking()
        assert tracking.reference_ip == address
        assert tracking.reference_id_name == (address or "127.0.0.1")
        assert connection.get_sources()[0].address == address
        assert connection.get_source_stats()[0].address == address


def test_flags_of_the_network_do_not_fill_the_memory() -> None:
    member = _decode._member_of(pychrony.SmoothingFlag)
    for value in range(0, 80_000, 4):
        assert member(value).value == value
    # Before Python 3.11, the last value may create a member for each of its bits.
    assert len(pychrony.SmoothingFlag._value2member_map_) <= 4096 + 32


# The reference time stands at byte 28 of the record: high and low word of the
# seconds, nanoseconds.
REFERENCE_TIME = 28


def reference_time(high: int, low: int, nanoseconds: int) -> faults.Fault:
    words = b"".join(word.to_bytes(4, "big") for word in (high, low, nanoseconds))
    return faults.overwritten(REFERENCE_TIME, words)


@pytest.mark.parametrize(
    ("high", "low", "nanoseconds", "expected"),
    [
        (0, 1_700_000_000, 999_999_999, 1_700_000_000_999_999_999),
        (1, 5, 1, ((1 << 32) + 5) * 10**9 + 1),
        (0x7FFFFFFF, 1_700_000_001, 7, 1_700_000_001_000_000_007),
        (0, 0, 0, 0),
    ],
)
def test_reference_time(high: int, low: int, nanoseconds: int, expected: int) -> None:
    fault = reference_time(high, low, nanoseconds)
    with connected(misbehave=fault) as (_, connection):
        tracking = connection.get_tracking()
        assert tracking.ref_time_ns == expected
        assert tracking.ref_time == expected / 10**9


@pytest.mark.parametrize(
    ("high", "low", "nanoseconds"), [(0, 1, 10**9), (0, 1, 2**32 - 1), (2**31, 0, 0)]
)
def test_reference_time_that_is_none(high: int, low: int, nanoseconds: int) -> None:
    fault = reference_time(high, low, nanoseconds)
    with (
        connected(misbehave=fault) as (_, connection),
        pytest.raises(ChronyDataError, match=r"reference time: .* is not a time"),
    ):
        connection.get_tracking()


def test_nanoseconds_where_long_is_no_wider_than_theirs() -> None:
    time = ffi.new("struct timespec *", {"tv_sec": 1, "tv_nsec": -1})
    with pytest.raises(ValueError, match="is not a time"):
        _decode._nanoseconds("reference time")(time)


def test_timespec_where_time_is_wider_than_long() -> None:
    """On this system both structs have 16 bytes, so the real function can be read."""
    lib = _library.load()
    convert = _decode._nanoseconds("reference time")
    tracking = make_tracking(ref_time_ns=1_700_000_000_123_456_789)
    with connected(tracking=tracking) as (_, connection):
        expected = connection.get_tracking().ref_time_ns
        assert connection._session is not None
        read = _decode._timespec_reader(lib, 4, lambda: 8)
        time = read(connection._session._handle, 4)
        assert ffi.typeof(time).cname == "struct timespec_time64"
        assert convert(time) == expected == 1_700_000_000_123_456_789
    for size in (4, 8):
        read = _decode._timespec_reader(lib, size, partial(int, size))
        assert ffi.typeof(read) is ffi.typeof(lib.chrony_get_field_timespec)
    assert _decode._time_t_size() in (4, 8)


@pytest.mark.parametrize("age", [0, 7, None])
def test_age_of_never_is_none(age: int | None) -> None:
    data = make_auth_data(last_ke_ago=age)
    with connected(auth_data=[data], open_commands=ALL_COMMANDS) as (_, connection):
        assert connection.get_auth_data()[0].last_ke_ago == age
        (record,) = connection.get_report("authdata")
    assert record["address"].value == data.address


def test_flags_are_named_as_chronyd_has_them() -> None:
    """libchrony has testB and testC the wrong way round."""
    flags = (
        pychrony.NTPFlag.TESTB | pychrony.NTPFlag.TESTC | pychrony.NTPFlag.INTERLEAVED
    )
    data = make_ntp_data(flags=flags)
    with connected(ntp_data=[data], open_commands=ALL_COMMANDS) as (_, connection):
        (record,) = connection.get_report("ntpdata")
        assert connection.get_ntp_data()[0].flags == flags
    assert record["flags"].value == flags
    assert record["flags"].names == ("testC", "testB", "interleaved")
    assert record["mode"].names == ("server",)


def test_field_of_a_type_of_tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_decode._GENERIC, pychrony.FieldType.FLOAT)  # as if it were new
    with connected() as (_, connection):
        (record,) = connection.get_report("tracking")
    assert record["skew"].value is None
    assert record["skew"].type is pychrony.FieldType.FLOAT
    assert record["stratum"].value == 2


@pytest.mark.parametrize(
    ("record", "changes", "message"),
    [
        ("tracking", {"stratum": 17}, "stratum: 17 is more than 16"),
        ("tracking", {"skew": -1.0}, "skew: -1.0 is negative"),
        ("tracking", {"root_delay": -1.0}, "root delay: -1.0 is negative"),
        # 2.0 ** 1024 is too large for a float.
        ("sources", {"poll": 1024}, "poll: 1024 is more than 127"),
        ("sources", {"stratum": 17}, "stratum: 17 is more than 16"),
        ("sources", {"reachability": 256}, "reachability: 256 is more than 255"),
        ("sources", {"latest_meas_err": -0.5}, "last sample error: -0.5 is negative"),
        ("source_stats", {"std_dev": -0.5}, "standard deviation: -0.5 is negative"),
    ],
)
def test_value_outside_its_range(
    record: str, changes: dict[str, Any], message: str
) -> None:
    make: Any = {
        "tracking": make_tracking,
        "sources": lambda **values: [make_source(**values)],
        "source_stats": lambda **values: [make_source_stats(**values)],
    }[record]
    daemon = ScriptedDaemon(**{record: make(**changes)})
    with daemon, ChronyConnection(daemon.address) as connection:
        with pytest.raises(ChronyDataError, match="makes no sense") as caught:
            getattr(connection, f"get_{record}")()
        assert message in str(caught.value)
        assert daemon.address in str(caught.value)


def test_value_outside_its_range_in_a_generic_report() -> None:
    with connected(tracking=make_tracking(skew=-1.0)) as (_, connection):
        with pytest.raises(ChronyDataError, match=r"skew: -1\.0 is negative"):
            connection.get_report("tracking")


def test_values_at_the_edge_of_their_range() -> None:
    tracking = make_tracking(stratum=16, skew=0.0, root_delay=0.0, root_dispersion=0.0)
    sources = [make_source(reachability=255, latest_meas_err=0.0)]
    with connected(tracking=tracking, sources=sources) as (_, connection):
        assert connection.get_tracking().skew == 0.0
        assert connection.get_sources()[0].reachability == 255


@dataclass(frozen=True)
class Mistyped:
    """A float attribute for an integer field: libchrony would read it as 0.0."""

    stratum: float = field(metadata=models._from("stratum"))


@dataclass(frozen=True)
class Misenumed:
    skew: pychrony.LeapStatus = field(metadata=models._from("skew"))


@dataclass(frozen=True)
class Misnamed:
    stratum: int = field(metadata=models._from("layer"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Mistyped, "'stratum' has type 1, which does not make a float"),
        (Misenumed, "'skew' has type 3, which does not make a LeapStatus"),
        (Misnamed, "no field 'layer' in it, only reference ID, address, stratum"),
    ],
)
def test_field_of_another_type_or_none(
    record: type, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.REPORTS, record, "tracking")
    with connected() as (_, connection):
        with pytest.raises(ChronyDataError) as caught:
            connection._read(partial(read_single, record=record))
        assert message in str(caught.value)


def test_rtc_data() -> None:
    rtc = make_rtc_data(ref_time=1.5, samples=7, offset=0.25, freq_offset=-1.5)
    with connected(rtc_data=rtc) as (daemon, connection):
        assert connection.get_rtc_data() == rtc
        daemon.rtc_data = None
        assert connection.get_rtc_data() is None
        daemon.misbehave = faults.status(6)
        assert connection.get_rtc_data() is None
        daemon.misbehave = faults.status(99)
        with pytest.raises(ChronyDataError, match="rtcdata"):
            connection.get_rtc_data()


def test_generic_report_that_is_disabled_has_no_record() -> None:
    with connected() as (daemon, connection):
        for status in (6, 13):
            daemon.misbehave = faults.status(status)
            assert connection.get_report("rtcdata") == []
        for status in (3, 99):  # any other refusal is an error
            daemon.misbehave = faults.status(status)
            with pytest.raises(ChronyDataError, match="rtcdata"):
                connection.get_report("rtcdata")


@pytest.mark.parametrize(
    "read",
    [
        ChronyConnection.get_rtc_data,
        ChronyConnection.get_smoothing,
        lambda connection: connection.get_report("rtcdata"),
        lambda connection: connection.get_report("smoothing"),
    ],
    ids=["rtcdata", "smoothing", "rtcdata, generic", "smoothing, generic"],
)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.status(2), pychrony.ChronyPermissionError),
        (faults.silent, pychrony.ChronyTimeoutError),
        (None, pychrony.ChronyConnectionError),
    ],
    ids=["refused", "silent", "dead"],
)
def test_only_what_is_disabled_is_no_error(
    fault: faults.Fault | None, kind: type[pychrony.ChronyError], read: Any
) -> None:
    with ScriptedDaemon(misbehave=fault) as daemon:
        if fault is None:
            daemon.stop()
        connection = ChronyConnection(daemon.address, timeout=0.05, retries=0)
        with pytest.raises(kind):
            read(connection)


@pytest.mark.parametrize("name", ["nonsense", "", "Tracking", "tracking\0", "\udcff"])
def test_report_that_libchrony_has_not(name: str) -> None:
    with connected() as (daemon, connection):
        with pytest.raises(ChronyDataError, match="only tracking, sources") as caught:
            connection.get_report(name)
        assert repr(name) in str(caught.value)
        assert daemon.requests == []
