"""All ten reports of real daemons that have something in every one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from enum import Enum, IntFlag
from functools import partial
from typing import Any

import pytest
from chronyc import LOOKS, agree, reference_id, wait
from network import READ, Network
from provision import Parts

import pychrony
from pychrony import ChronyConnection, LeapStatus, RTCData, SelectOption, SourceStats
from pychrony._chronyc import NEVER
from pychrony._libchrony import ffi
from pychrony._library import load
from pychrony.models import BY_ADDRESS, REPORTS


@pytest.fixture(scope="module")
def network(
    parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    with ExitStack() as stack:
        network = Network(parts, tmp_path_factory.mktemp("keys"), stack)
        try:
            wait(network.ready)
        except AssertionError:
            pytest.fail(f"did not come: {network.missing}\n{network.daemon.log}")
        yield network


@pytest.fixture
def unix(network: Network) -> Iterator[ChronyConnection]:
    with ChronyConnection(network.daemon.socket) as connection:
        yield connection


def _records(connection: ChronyConnection, record: type[Any]) -> list[Any]:
    found = READ[record](connection)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("record", LOOKS)
def test_every_column_is_that_of_chronyc(
    record: type[Any], network: Network, unix: ChronyConnection
) -> None:
    def shown() -> Sequence[Any]:
        # chronyc leaves out those of the report ntpdata, even with -a.
        hide = "ID#" if record is pychrony.NTPData else "none"
        found = _records(unix, record)
        return [
            one for one in found if not getattr(one, "address", "").startswith(hide)
        ]

    agree(network.daemon.chronyc, record, shown)


def test_smoothing_of_leap_seconds_only(network: Network) -> None:
    daemon = network.leap_only
    with ChronyConnection(daemon.socket) as connection:
        agree(daemon.chronyc, pychrony.Smoothing, lambda: [connection.get_smoothing()])
        found = connection.get_smoothing()
    assert found is not None
    assert found.flags is pychrony.SmoothingFlag.LEAPONLY


# What chronyc does not show; how each is checked instead.
UNSEEN = {
    pychrony.TrackingStatus: {"reference_ip", "ref_time"},
    pychrony.Source: {"flags"},
    SourceStats: {"reference_id", "offset_err"},
    pychrony.SelectData: {"reference_id"},
    pychrony.NTPData: {"address", "ref_time"},
}


def test_every_field_is_in_a_column_of_chronyc() -> None:
    for record, look in LOOKS.items():
        seen = {column.partition(":")[0] for column in look.columns}
        assert {one.name for one in fields(record)} - seen == UNSEEN.get(
            record, set()
        ), "what chronyc prints stands in LOOKS of tests/chronyc.py, the rest in UNSEEN"
    assert {*LOOKS, RTCData} == set(REPORTS)


def test_fields_that_chronyc_does_not_show(unix: ChronyConnection) -> None:
    tracking = unix.get_tracking()
    assert tracking.reference_ip == tracking.reference_id_name
    assert tracking.reference_id == reference_id(tracking.reference_ip)
    assert tracking.ref_time == tracking.ref_time_ns / 10**9
    known: list[SourceStats | pychrony.SelectData] = [
        *unix.get_source_stats(),
        *unix.get_select_data(),
    ]
    for one in known:
        if not one.address:
            assert one.reference_id == int.from_bytes(b"GPS\0", "big")
        elif one.address.startswith("ID#"):
            assert one.reference_id == 0
        else:
            assert one.reference_id == reference_id(one.address)
    for ntp in unix.get_ntp_data():
        assert ntp.address == ntp.remote_address
        assert ntp.ref_time == ntp.ref_time_ns / 10**9
    assert {source.flags for source in unix.get_sources()} == {0}


def test_offset_error(unix: ChronyConnection) -> None:
    """Between samples it grows with the skew, as the offset does with the frequency.

    So it does in chronyd (sourcestats.c), from which no report prints it.
    """

    def read() -> SourceStats:
        stats = {one.address: one for one in unix.get_source_stats()}
        assert stats["127.0.7.1"].offset_err == 0
        return stats["127.0.0.4"]

    def in_step() -> bool:
        first, last = read(), read()
        growth = (last.offset_err - first.offset_err) * last.resid_freq
        expected = (last.offset - first.offset) * last.skew
        return abs(growth - expected) < 0.01 * abs(expected)

    wait(in_step)


def test_every_report_has_something(unix: ChronyConnection) -> None:
    sources = {one.address: one for one in unix.get_sources()}
    assert {one.mode for one in sources.values()} == set(pychrony.SourceMode)
    (unresolved,) = (address for address in sources if address.startswith("ID#"))
    assert sources["::1"].poll == -2

    auth = {one.address: one for one in unix.get_auth_data()}
    assert set(auth) == set(sources) - {"GPS"}
    assert {one.mode for one in auth.values()} == set(pychrony.AuthMode)
    assert auth["127.0.0.2"].key_type is pychrony.KeyType.AES128
    assert (auth["127.0.0.2"].key_id, auth["127.0.0.2"].key_length) == (10, 128)
    assert auth["127.0.0.2"].last_ke_ago is None
    assert auth["127.0.0.3"].key_type.name.startswith("AEAD_")
    assert (auth["127.0.0.3"].last_ke_ago or 0) < 1000
    assert auth[unresolved].mode is pychrony.AuthMode.NONE

    select = {one.address: one for one in unix.get_select_data()}
    assert select[""].leap_status is LeapStatus.INSERT
    assert select["127.0.7.1"].leap_status is LeapStatus.UNSYNC
    assert select["::1"].state is pychrony.SelectState.IGNORED
    assert select["::1"].configured_options is SelectOption.NOSELECT
    trusted = select["127.0.0.3"]
    assert trusted.configured_options == SelectOption.TRUST | SelectOption.REQUIRE
    preferred = select["127.0.0.2"]
    assert preferred.configured_options is SelectOption.PREFER
    # It is authenticated, and others are not (authselectmode).
    assert (
        preferred.effective_options
        == SelectOption.PREFER | SelectOption.TRUST | SelectOption.REQUIRE
    )
    assert preferred.authentication
    assert not select["::1"].authentication

    ntp = {one.address: one for one in unix.get_ntp_data()}
    assert set(ntp) == set(auth)
    assert {one.mode for one in ntp.values()} == set(pychrony.NTPMode)
    assert pychrony.NTPFlag.AUTHENTICATED in ntp["127.0.0.3"].flags
    assert ntp["127.0.0.2"].tx_timestamping is not pychrony.Timestamping.NONE
    assert ntp["127.0.7.1"].tx_timestamping is pychrony.Timestamping.NONE

    activity = pychrony.Activity(
        online=6, offline=3, burst_online=2, burst_offline=4, unresolved=1
    )
    wait(lambda: unix.get_activity() == activity)  # those with iburst end it
    smoothing = unix.get_smoothing()
    assert smoothing is not None
    assert smoothing.flags is pychrony.SmoothingFlag.ACTIVE
    assert unix.get_rtc_data() is None
    assert unix.get_report("rtcdata") == []


def test_no_real_time_clock_for_chronyc_either(network: Network) -> None:
    with pytest.raises(RuntimeError, match="513 RTC driver not running"):
        network.daemon.chronyc("rtcdata")


# Where the name of libchrony's constant is not that of our member.
OTHER_NAMES = {
    LeapStatus.INSERT: "insert second",
    LeapStatus.DELETE: "delete second",
    LeapStatus.UNSYNC: "not synchronized",
    pychrony.SourceMode.REFCLOCK: "reference clock",
}


# ...and where libchrony has none.
NO_NAMES = {
    *(pychrony.KeyType.NONE, pychrony.NTPMode.NONE, pychrony.Timestamping.NONE),
    *(member for member in pychrony.SelectState if chr(member.value) in "Lr?"),
}


def _same_name(member: Enum, constant: str) -> bool:
    if member in OTHER_NAMES:
        return constant == OTHER_NAMES[member]
    return constant.upper().translate(str.maketrans(" -", "__")) == member.name


def _members(value: Any) -> Sequence[Enum]:
    """An enum as one member, flags as those that are set, lowest first."""
    if isinstance(value, IntFlag):
        return sorted(one for one in type(value) if one in value)
    return [value] if isinstance(value, Enum) else []


def _same(typed: Any, value: pychrony.Value) -> bool:
    named = [one for one in _members(typed) if one not in NO_NAMES]
    if isinstance(typed, Enum):
        typed = typed.value
    elif isinstance(typed, str) and value.content is pychrony.FieldContent.REFERENCE_ID:
        typed = int.from_bytes(typed.encode().ljust(4, b"\0"), "big")
    return (
        typed == value.value
        and len(named) == len(value.names)
        and all(map(_same_name, named, value.names))
    )


@pytest.mark.parametrize("record", REPORTS, ids=REPORTS.get)
def test_typed_and_generic_readings_agree(
    record: type[Any], unix: ChronyConnection
) -> None:
    """The generic reading, between two typed ones, is like one of them.

    Or between them, where it is a number that changes all the time.
    """
    if record is RTCData:
        assert READ[record](unix) is None
        assert unix.get_report("rtcdata") == []
        return

    def like(before: Any, value: pychrony.Value, after: Any) -> bool:
        if value.value == NEVER and None in (before, after):
            return True
        if _same(before, value) or _same(after, value):
            return True
        numbers = before, value.value, after
        return all(type(number) in (int, float) for number in numbers) and min(
            before, after
        ) <= numbers[1] <= max(before, after)

    def agreed() -> bool:
        before = _records(unix, record)
        generic = unix.get_report(REPORTS[record])
        after = _records(unix, record)
        return len(before) == len(generic) == len(after) > 0 and all(
            like(getattr(first, name), one[theirs], getattr(last, name))
            for first, one, last in zip(before, generic, after, strict=True)
            for name, theirs in _names(record, one).items()
        )

    wait(agreed)


def _names(record: type[Any], generic: dict[str, pychrony.Value]) -> dict[str, str]:
    """Our name of each field of a generic record, and libchrony's."""
    names: dict[str, str] = {}
    for one in fields(record):
        theirs = one.metadata.get("names", (one.name,))
        found = [name for name in theirs if name in generic]
        if found:
            (names[one.name],) = found
        else:
            assert one.name in MISSING, "an older chronyd does not send it: MISSING"
    assert sorted(names.values()) == sorted(generic)
    return names


# Typed fields that are computed, or that chronyd is too old for.
MISSING = {
    *("reference_id_name", "ref_time"),
    *("kernel_tx", "kernel_rx", "hardware_tx", "hardware_rx"),
    *("daemon_rx", "daemon_tx"),
}


@pytest.mark.parametrize("record", REPORTS, ids=REPORTS.get)
def test_members_are_named_as_the_constants_of_libchrony(
    record: type[Any], network: Network
) -> None:
    if record is RTCData:
        return  # it has none, nor have we
    types = {
        name: one.type
        for one in fields(record)
        for name in one.metadata.get("names", ())
        if isinstance(one.type, type) and issubclass(one.type, Enum)
    }
    constants = _constants(network.daemon.socket, REPORTS[record])
    assert set(types) == set(constants)
    if (
        record is pychrony.NTPData
    ):  # libchrony 0.1 and 0.2 have these the wrong way round
        constants["flags"] |= {
            pychrony.NTPFlag.TESTB.value: "testB",
            pychrony.NTPFlag.TESTC.value: "testC",
        }
    for name, kind in types.items():
        members = {member.value: member for member in kind}
        for number, constant in constants[name].items():
            assert _same_name(members.pop(number), constant)
        assert {one for one in members.values() if one not in NO_NAMES} == set()


def _constants(path: str, report: str) -> dict[str, dict[int, str]]:
    """All names that libchrony has for the enums and flags of a report."""
    lib = load()
    found: dict[str, dict[int, str]] = {}
    socket = lib.chrony_open_socket(path.encode())
    assert socket >= 0
    holder = ffi.new("chrony_session **")
    try:
        assert lib.chrony_init_session(holder, socket) == lib.CHRONY_OK
        session = holder[0]
        # Of lists, the record 1: 0 is the reference clock.
        index = int(report in ("sources", "sourcestats", "selectdata", *BY_ADDRESS))
        code = lib.chrony_request_record(session, report.encode(), index)
        while code == lib.CHRONY_OK and lib.chrony_needs_response(session):
            code = lib.chrony_process_response(session)
        assert code == lib.CHRONY_OK
        for index in range(lib.chrony_get_record_number_fields(session)):
            content = lib.chrony_get_field_content(session, index)
            if content == lib.CHRONY_CONTENT_ENUM:
                numbers: Sequence[int] = range(256)
            elif content == lib.CHRONY_CONTENT_FLAGS:
                numbers = [1 << bit for bit in range(32)]
            else:
                continue
            field = ffi.string(lib.chrony_get_field_name(session, index)).decode()
            found[field] = {
                number: ffi.string(name).decode()
                for number in numbers
                if (name := lib.chrony_get_field_constant_name(session, index, number))
            }
    finally:
        if holder[0]:
            lib.chrony_deinit_session(holder[0])
        lib.chrony_close_socket(socket)
    return found


OPEN = {
    pychrony.TrackingStatus,
    pychrony.Source,
    SourceStats,
    pychrony.Activity,
    RTCData,
    pychrony.Smoothing,
}


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("record", REPORTS, ids=REPORTS.get)
def test_rights_over_udp(record: type[Any], host: str, network: Network) -> None:
    name = REPORTS[record]
    with ChronyConnection(f"{host}:{network.daemon.cmdport}") as connection:
        if record in OPEN:
            READ[record](connection)
            connection.get_report(name)
            return
        for read in (
            partial(READ[record], connection),
            partial(connection.get_report, name),
        ):
            with pytest.raises(pychrony.ChronyPermissionError) as error:
                read()
            assert "Not authorized" in error.value.message
            assert "Unix socket" in error.value.message
            assert "opencommands" in error.value.message
        connection.get_tracking()
