"""Several lists of sources that are read together, as they were at one time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from helpers import by_hand, many_sources

import pychrony
from pychrony import ChronyPermissionError
from pychrony._queries import read_lists
from pychrony._reader import METHODS
from pychrony._waiting import Waiter
from pychrony.testing import (
    ALL_COMMANDS,
    DEFAULT_OPEN_COMMANDS,
    Request,
    ScriptedDaemon,
    faults,
    make_source,
)

LISTS = ("sources", "sourcestats", "selectdata", "ntpdata", "authdata")
CLOCK = make_source(address="GPS", mode=pychrony.SourceMode.REFCLOCK)


def read(
    daemon: ScriptedDaemon, *reports: str, timeout: float = 20.0
) -> dict[str, Any]:
    with by_hand(daemon.address, timeout, 0) as session:
        return Waiter().drive(read_lists(session, reports or LISTS))


def names_of(records: Sequence[Any]) -> list[str]:
    return [getattr(record, "name", record.address) for record in records]


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("number", [0, 1, 4, 30])
def test_they_are_what_each_is_alone(number: int) -> None:
    sources = [*many_sources(number)[:-1], CLOCK, *many_sources(number)[-1:]]
    with ScriptedDaemon(sources=sources, open_commands=ALL_COMMANDS) as daemon:
        found = read(daemon)
        with pychrony.ChronyConnection(daemon.address) as connection:
            assert found == {
                name: getattr(connection, METHODS[name])() for name in LISTS
            }


def test_requests_are_not_repeated() -> None:
    """But for the last source, and where libchrony has forgotten the address."""
    with ScriptedDaemon(sources=many_sources(10), open_commands=ALL_COMMANDS) as daemon:
        read(daemon)
        asked = [name for name, _ in daemon.requests]
        assert {name: asked.count(name) for name in asked} == {
            "N_SOURCES": 2,
            "SOURCESTATS": 20,
            "SOURCE_DATA": 11,
            **dict.fromkeys(("SELECT_DATA", "NTP_DATA", "AUTH_DATA"), 10),
        }
        daemon.requests.clear()
        assert list(read(daemon, "sourcestats", "sources")) == [
            "sources",
            "sourcestats",
        ]
        assert len(daemon.requests) == 23


def test_refused_lists_leave_the_others_alone() -> None:
    with ScriptedDaemon(sources=many_sources(3)) as daemon:
        found = read(daemon)
        assert names_of(found["sources"]) == names_of(found["sourcestats"])
        for name in ("selectdata", "ntpdata", "authdata"):
            assert isinstance(found[name], ChronyPermissionError)
        # Each is refused once, not for each source.
        assert [name for name, _ in daemon.requests].count("SELECT_DATA") == 1


@pytest.mark.parametrize(
    ("request_name", "unknown"),
    [
        ("SELECT_DATA", {"selectdata"}),
        ("AUTH_DATA", {"authdata"}),
        # The others have their addresses from it.
        ("SOURCESTATS", {"sourcestats", "authdata", "ntpdata"}),
    ],
)
def test_list_that_this_chronyd_does_not_know(
    request_name: str, unknown: set[str]
) -> None:
    """It has the status of a source that has gone, but the source is there."""
    fault = faults.only(request_name, faults.status(1))
    with ScriptedDaemon(open_commands=ALL_COMMANDS, misbehave=fault) as daemon:
        found = read(daemon)
    assert {name for name, one in found.items() if not isinstance(one, list)} == unknown
    assert all(isinstance(found[name], pychrony.ChronyDataError) for name in unknown)


def test_refusal_in_the_middle() -> None:
    fault = faults.only("SELECT_DATA", faults.status(2), index=1)
    with ScriptedDaemon(open_commands=ALL_COMMANDS, misbehave=fault) as daemon:
        found = read(daemon)
    assert isinstance(found.pop("selectdata"), ChronyPermissionError)
    assert {len(one) for one in found.values()} == {4}


def test_nothing_is_permitted() -> None:
    with ScriptedDaemon(open_commands=["tracking"]) as daemon:
        with pytest.raises(ChronyPermissionError):
            read(daemon)
        daemon.open_commands = DEFAULT_OPEN_COMMANDS
        found = read(daemon, "selectdata", "authdata")
    assert {type(one) for one in found.values()} == {ChronyPermissionError}


def test_silence_ends_all() -> None:
    fault = faults.only("AUTH_DATA", faults.silent)
    with ScriptedDaemon(open_commands=ALL_COMMANDS, misbehave=fault) as daemon:
        with pytest.raises(pychrony.ChronyTimeoutError):
            read(daemon, timeout=0.05)


def test_two_reference_clocks_with_one_id() -> None:
    sources = [CLOCK, make_source(), CLOCK]
    with ScriptedDaemon(sources=sources, open_commands=ALL_COMMANDS) as daemon:
        found = read(daemon)
    assert names_of(found["selectdata"]) == names_of(sources)
    assert len(found["authdata"]) == 1


@pytest.mark.parametrize("comes", [True, False])
@pytest.mark.parametrize("gone", range(4))
def test_all_are_of_one_time(gone: int, comes: bool) -> None:
    """A source goes, and another comes or not, before any of the requests."""
    before: list[pychrony.Source] = [*many_sources(3), CLOCK]
    before[gone], before[3] = before[3], before[gone]
    new = replace(before[gone - 1], address="192.0.2.99")
    after = [*before[:gone], *before[gone + 1 :], *([new] if comes else [])]

    def change(moment: int, request: Request, reply: bytes) -> Iterable[bytes]:
        if len(daemon.requests) == moment + 1:
            daemon.sources = after
        return (reply,)

    with ScriptedDaemon(sources=before, open_commands=ALL_COMMANDS) as daemon:
        for moment in range(27):
            daemon.misbehave = partial(change, moment)
            daemon.sources = before
            daemon.requests.clear()
            found = read(daemon)
            names = names_of(found["sources"])
            assert names in (names_of(before), names_of(after))
            for name in ("sourcestats", "selectdata"):
                assert names_of(found[name]) == names
            for name in ("authdata", "ntpdata"):
                assert names_of(found[name]) == [one for one in names if one != "GPS"]
