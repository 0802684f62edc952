"""What hypothesis makes up, through the scripted daemon and the real libchrony."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import Field, fields
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import fuzz
import pytest
from helpers import connected
from hypothesis import given, settings
from hypothesis import strategies as st

import pychrony
from pychrony import ChronyConnection, SourceMode, _queries
from pychrony._queries import _identity
from pychrony.models import refid_name
from pychrony.testing import ALL_COMMANDS, _fields, _reports, make_tracking

# The same examples every time: a red run is a change, not luck.
REPEATABLE = settings(deadline=None, derandomize=True, database=None, max_examples=60)

IPV4 = st.binary(min_size=4, max_size=4).map(partial(socket.inet_ntop, socket.AF_INET))
IPV6 = st.binary(min_size=16, max_size=16).map(
    partial(socket.inet_ntop, socket.AF_INET6)
)
UNRESOLVED = st.integers(0, 0xFFFFFFFF).map("ID#{:010}".format)
SOMEWHERE = st.one_of(IPV4, IPV6, UNRESOLVED)
REFERENCE_CLOCK = st.integers(0, 0xFFFFFFFF).map(refid_name)


class Report(NamedTuple):
    record: type[Any]
    wire: _reports.Report
    read: Callable[[ChronyConnection], Any]
    key: Callable[[Any], object] | None


# What tells one record of a list from another, as the core does.
KEYS: dict[str, Callable[[Any], object]] = {
    "sources": lambda one: _identity(
        "" if one.mode is SourceMode.REFCLOCK else one.address, one.address
    ),
    "source_stats": lambda one: _identity(one.address, one.reference_id),
    "select_data": lambda one: _identity(one.address, one.reference_id),
    "auth_data": lambda one: one.address,
    "ntp_data": lambda one: one.address,
}
# By the attribute of ScriptedDaemon.
REPORTS = {
    name: Report(record, wire, getattr(ChronyConnection, f"get_{name}"), KEYS.get(name))
    for name, record, wire in (
        ("tracking", pychrony.TrackingStatus, _reports.TRACKING),
        ("sources", pychrony.Source, _reports.SOURCE_DATA),
        ("source_stats", pychrony.SourceStats, _reports.SOURCESTATS),
        ("select_data", pychrony.SelectData, _reports.SELECT_DATA),
        ("activity", pychrony.Activity, _reports.ACTIVITY),
        ("auth_data", pychrony.AuthData, _reports.AUTH_DATA),
        ("ntp_data", pychrony.NTPData, _reports.NTP_DATA),
        ("server_stats", pychrony.ServerStats, _reports.SERVER_STATS),
        ("rtc_data", pychrony.RTCData, _reports.RTCREPORT),
        ("smoothing", pychrony.Smoothing, _reports.SMOOTHING),
    )
}


# What is encoded is what is read.

# The protocol's numbers: 25 bits of coefficient and 7 of exponent, both signed.
FLOATS = st.builds(
    lambda coefficient, exponent: coefficient * 2.0 ** (exponent - 25),
    st.integers(-(2**24) + 1, 2**24 - 1),
    st.integers(-64, 63),
)
VALUES: dict[_fields.Kind, st.SearchStrategy[Any]] = {
    _fields.u8: st.integers(0, 0xFF),
    _fields.u16: st.integers(0, 0xFFFF),
    _fields.u32: st.integers(0, 0xFFFFFFFF),
    _fields.u64: st.integers(0, 2**64 - 1),
    _fields.i8: st.integers(-0x80, 0x7F),
    _fields.age: st.integers(0, 0xFFFFFFFF),
    _fields.i16: st.integers(-0x8000, 0x7FFF),
    _fields.float32: FLOATS,
    # From this high word on, it would be a time of a 32-bit sender.
    _fields.timespec: st.integers(0, (0x7FFFFFFF << 32) * 10**9 - 1),
    _fields.address: st.one_of(SOMEWHERE, st.sampled_from(["", "?"])),
}
# libchrony calls them measures: they have no sign.
MEASURES = {
    *("rms_offset", "skew", "root_delay", "root_dispersion", "latest_meas_err"),
    *("std_dev", "offset_err", "peer_delay", "peer_dispersion", "response_time"),
}


def value(draw: st.DrawFn, field: Field[Any], kind: _fields.Kind | None) -> Any:
    """Make the value of an attribute that is sent in some way, or not at all."""
    if "extra" in field.metadata or kind is _fields.source_address:
        return draw(SOMEWHERE)
    if kind is None:  # not in the layout of an older chronyd
        return None
    wanted: Any = field.type
    if wanted is bool:
        return draw(st.booleans())
    drawn = draw(VALUES[kind])
    if field.metadata["age"] and drawn == 0xFFFFFFFF:
        return None
    most = field.metadata["most"]
    if most is not None and drawn > most:
        return drawn % (most + 1)
    if field.name in MEASURES:
        return abs(drawn)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return wanted(drawn)
    return drawn


@st.composite
def records(draw: st.DrawFn, report: Report) -> Any:
    """Make a record that some chronyd can send."""
    layout = draw(st.sampled_from(list(report.wire.layouts.values())))
    kinds = {name: kind for kind, name in layout}
    values: dict[str, Any] = {}
    derived = {}
    for field in fields(report.record):
        if "derived" in field.metadata:
            derived[field.name] = field.metadata["derived"]
        else:
            values[field.name] = value(draw, field, kinds.get(field.name))
    if values.get("mode") is SourceMode.REFCLOCK:
        values["address"] = draw(REFERENCE_CLOCK)
    for name, function in derived.items():
        values[name] = function(values)
    return report.record(**values)


@pytest.mark.parametrize("name", REPORTS)
def test_what_is_sent_is_what_is_read(name: str) -> None:
    report = REPORTS[name]
    answers = records(report)
    if report.key is not None:
        answers = st.lists(answers, max_size=4, unique_by=report.key)
    with connected(open_commands=ALL_COMMANDS, timeout=5.0) as (daemon, connection):
        if name in ("source_stats", "select_data"):
            daemon.sources = ()  # else there are as many as of these

        @REPEATABLE
        @given(answers)
        def check(sent: Any) -> None:
            setattr(daemon, name, sent)
            read = report.read(connection)
            assert (read, repr(read)) == (sent, repr(sent))
            if report.key is None:
                assert hash(read) == hash(sent)

        check()


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_number_loses_half_of_its_24th_bit_at_most(sign: int) -> None:
    with connected(timeout=5.0) as (daemon, connection):

        @REPEATABLE
        @given(st.floats(0, 2.0**37))
        def check(sent: float) -> None:
            daemon.tracking = make_tracking(offset=sign * sent)
            read = connection.get_tracking().offset
            assert abs(read - sign * sent) <= max(sent * 2.0**-24, 2.0**-90)

        check()


@pytest.mark.parametrize("seed", range(2))
def test_any_reply_gives_a_record_or_an_error(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all reports, as dataclasses and generically; the same seed lies the same."""
    monkeypatch.setattr(_queries, "_requests_in_flight", fuzz.one_at_a_time)
    loop = fuzz.Loop(seed)
    try:
        while loop.replies < 15_000:
            loop.read()
    finally:
        loop.close()
    assert loop.layouts_read == fuzz.REPLIES
    assert {name for name, outcome in loop.outcomes if outcome == "read"} == {
        *fuzz.readers()
    }
