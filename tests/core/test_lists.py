"""Lists that change while they are read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, product

import pytest
from helpers import QUICK, letters_of, seeing, sources_of

import pychrony
from pychrony import ChronyDataError, get_sources
from pychrony.testing import (
    Request,
    ScriptedDaemon,
    faults,
    make_source,
    make_source_stats,
)


@pytest.mark.parametrize("count", [0xFFFFFFFE, 2**31, 100_000_000, 65_537])
def test_count_that_cannot_be(count: int) -> None:
    with ScriptedDaemon(misbehave=faults.count(count)) as daemon:
        with pytest.raises(ChronyDataError, match=f"claims to have {count} sources"):
            get_sources(daemon.address, **QUICK)
        assert len(daemon.requests) == 1


def test_count_that_can_be() -> None:
    with ScriptedDaemon(misbehave=faults.count(65_536)) as daemon:
        with pytest.raises(ChronyDataError, match="changed during each"):
            get_sources(daemon.address)
        assert ("SOURCE_DATA", 65_535) in daemon.requests


def read_typed(address: str) -> str:
    return letters_of(get_sources(address))


def read_generic(address: str) -> str:
    return "".join(
        chr(int(str(one["address"].value)[-2:])) if "address" in one else "#"
        for one in pychrony.get_report("sources", address)
    )


@pytest.mark.parametrize("read", [read_typed, read_generic])
@pytest.mark.parametrize("before", ["ABCD", "#BCD", "A#CD", "AB#D", "ABC#"])
@pytest.mark.parametrize("moment", range(1, 6))
def test_list_is_that_of_one_moment(
    before: str, moment: int, read: Callable[[str], str]
) -> None:
    """A source goes, as chronyd removes it, and others come, between two requests."""

    def change(_: Request) -> None:
        if len(daemon.requests) == moment:
            daemon.sources = sources_of(after)

    with ScriptedDaemon(misbehave=seeing(change)) as daemon:
        for gone, new in product(range(4), ("", "E", "EF")):
            after = before[:gone] + before[gone + 1 :] + new
            daemon.sources = sources_of(before)
            daemon.requests.clear()
            assert read(daemon.address) in (before, after)


@pytest.mark.parametrize(
    "changes",
    [
        # "chronyc reload sources" replaces several at once.
        *({number: ["ADE"]} for number in range(1, 8)),
        # One that is new is where the last one was, as the last one has gone.
        {1: ["ABCD", "ABCDE", "BCDE"], 2: ["BCE"]},
        {2: ["AB", "ABD", "AD", "ADE"]},
        {3: ["AB", "A", "AD", "D"], 4: ["DE", "DEF"]},
        # The last one is added again.
        {4: ["AB", "B", "BD", "BDC"]},
    ],
)
def test_list_whose_last_source_goes(changes: dict[int, list[str]]) -> None:
    """After so many requests chronyd's list is the last of these, one by one."""
    with ScriptedDaemon(sources=sources_of("ABC")) as daemon:

        def change(_: Request) -> None:
            if lists := changes.get(len(daemon.requests)):
                daemon.sources = sources_of(lists[-1])

        daemon.misbehave = seeing(change)
        found = letters_of(get_sources(daemon.address))
    assert found in ("ABC", *chain(*changes.values()))


def once(name: str) -> list[tuple[str, int | None]]:
    """The requests for a list of four: the last is read before and after the others."""
    number = ("N_SOURCES", None)
    return [number, (name, 3), number, (name, 2), (name, 1), (name, 0), (name, 3)]


def test_list_that_holds_still_is_read_once() -> None:
    stats = [
        make_source_stats(address=address, reference_id=reference_id)
        for address, reference_id in (
            *(("", 0x47505300), ("", 0x50505330)),  # reference clocks
            *(("ID#0000000001", 0), ("ID#0000000002", 0)),  # unresolved names
        )
    ]
    with ScriptedDaemon(sources=sources_of("A#CD"), source_stats=stats) as daemon:
        assert letters_of(get_sources(daemon.address)) == "A#CD"
        assert daemon.requests == once("SOURCE_DATA")
        daemon.requests.clear()
        assert len(pychrony.get_source_stats(daemon.address)) == 4
        assert daemon.requests == once("SOURCESTATS")
        daemon.requests.clear()
        assert len(pychrony.get_report("sourcestats", daemon.address)) == 4
        assert daemon.requests == once("SOURCESTATS")


def test_number_of_the_last_time_saves_a_request_over_the_unix_socket(
    directory: str,
) -> None:
    sources = sources_of("ABCD")
    with (
        ScriptedDaemon(sources=sources, address=f"{directory}/s") as daemon,
        pychrony.ChronyConnection(daemon.address) as connection,
    ):
        assert letters_of(connection.get_sources()) == "ABCD"
        daemon.requests.clear()
        assert letters_of(connection.get_sources()) == "ABCD"
        assert daemon.requests == once("SOURCE_DATA")[1:]
        for other in ("ABC", "ABCDE", ""):
            daemon.sources = sources_of(other)
            assert letters_of(connection.get_sources()) == other


def test_what_is_alone_is_read_once() -> None:
    with ScriptedDaemon(sources=sources_of("A")) as daemon:
        assert letters_of(get_sources(daemon.address)) == "A"
        number = ("N_SOURCES", None)
        assert daemon.requests == [number, ("SOURCE_DATA", 0), number]
        daemon.requests.clear()
        assert len(pychrony.get_report("tracking", daemon.address)) == 1
        assert daemon.requests == [("TRACKING", None)]


def test_source_appended_after_the_last_was_read() -> None:
    with ScriptedDaemon(sources=sources_of("ABCD")) as daemon:

        def change(request: Request) -> None:
            if request.index == 1:
                daemon.sources = sources_of("ABCDE")

        daemon.misbehave = seeing(change)
        assert letters_of(get_sources(daemon.address)) == "ABCD"
        assert daemon.requests == once("SOURCE_DATA")


def test_list_that_never_holds_still() -> None:
    with ScriptedDaemon(sources=sources_of("AB")) as daemon:

        def change(request: Request) -> None:
            if request.name == "N_SOURCES":
                daemon.sources = sources_of("ABC" if len(daemon.sources) == 2 else "AB")

        daemon.misbehave = seeing(change)
        with pytest.raises(ChronyDataError, match="changed during each of 10 reads"):
            get_sources(daemon.address)
        assert daemon.requests.count(("N_SOURCES", None)) == 2 * 10


@pytest.mark.parametrize("request_name", ["N_SOURCES", "SOURCE_DATA"])
def test_refusal_is_not_taken_for_a_change_of_the_list(request_name: str) -> None:
    fault = faults.only(request_name, faults.status(1))
    with (
        ScriptedDaemon(misbehave=fault) as daemon,
        pytest.raises(ChronyDataError) as caught,
    ):
        get_sources(daemon.address)
    known = "refuses it with a status that libchrony does not know"
    if request_name == "N_SOURCES":
        assert known in str(caught.value)
    else:
        assert known in str(caught.value.__cause__)


def test_two_reference_clocks_with_one_id() -> None:
    with ScriptedDaemon(sources=sources_of("A##B")) as daemon:
        assert letters_of(get_sources(daemon.address)) == "A##B"


def test_two_addresses_of_an_unknown_kind() -> None:
    with ScriptedDaemon(sources=[make_source(address="?")] * 2) as daemon:
        assert [one.address for one in get_sources(daemon.address)] == ["?", "?"]


def test_same_wrong_list_twice_is_still_wrong() -> None:
    """As happens with changes in step with the reads."""
    with ScriptedDaemon(sources=sources_of("ABC")) as daemon:

        def change(request: Request) -> None:
            if request.name == "N_SOURCES" and len(daemon.requests) % 6 == 1:
                daemon.sources = sources_of("ABC")
            elif request.index == 2:  # A goes and D comes
                daemon.sources = sources_of("BCD")

        daemon.misbehave = seeing(change)
        with pytest.raises(ChronyDataError, match="changed during each of 10 reads"):
            get_sources(daemon.address)


def test_empty_list() -> None:
    with ScriptedDaemon(sources=[]) as daemon:
        assert get_sources(daemon.address) == []
