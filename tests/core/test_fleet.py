"""Many chronyds at once, with and without asyncio."""

from __future__ import annotations

import gc
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from chronyd import Chronyd
from helpers import (
    Ask,
    connected,
    descriptors,
    many_sources,
    places,
    resident,
    short_directory,
)
from provision import Parts

import pychrony
from pychrony import ChronyConnectionError, ChronyTimeoutError, _queries
from pychrony._reader import METHODS
from pychrony._session import Session
from pychrony.testing import (
    ALL_COMMANDS,
    ScriptedDaemon,
    faults,
    make_rtc_data,
    make_smoothing,
)


@pytest.mark.parametrize("concurrency", [1, 2, 3, 256])
def test_each_address_gives_its_own_result(
    concurrency: int, ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    daemons = many(10)
    wanted = {daemon.address: daemon.tracking.stratum for daemon in daemons}
    found = list(ask([*wanted] * 20, concurrency=concurrency))
    assert len(found) == 200
    assert all(result.stratum == wanted[address] for address, result in found)
    assert Counter(address for address, _ in found) == dict.fromkeys(wanted, 20)


@pytest.mark.usefixtures("each_way")
def test_every_report_is_that_of_the_connection(ask: Ask) -> None:
    assert METHODS.keys() == {*pychrony.reports()}
    for rtc_data, smoothing in ((make_rtc_data(), make_smoothing()), (None, None)):
        with connected(
            sources=many_sources(9),
            rtc_data=rtc_data,
            smoothing=smoothing,
            open_commands=ALL_COMMANDS,
        ) as (daemon, connection):
            for report, method in METHODS.items():
                expected = [(daemon.address, getattr(connection, method)())] * 3
                for concurrency in (1, 2, 256):
                    found = ask([daemon.address] * 3, report, concurrency=concurrency)
                    assert list(found) == expected


def test_report_that_only_libchrony_knows(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(_queries._BY_NAME, "activity")
    with connected() as (daemon, connection):
        expected = connection.get_report("activity")
        assert list(ask([daemon.address], "activity")) == [(daemon.address, expected)]


def test_sweep_over_real_daemons(parts: Parts, ask: Ask) -> None:
    with Chronyd(parts, "local stratum 5") as v4, Chronyd(parts, bind="::1") as v6:
        everywhere = [v4.address, v6.address, v4.socket, v6.socket]
        found = dict(ask(everywhere, concurrency=2))
        assert {address: one.stratum for address, one in found.items()} == dict(
            zip(everywhere, (5, 0, 5, 0), strict=True)
        )


def frames(error: BaseException) -> list[object]:
    """All tracebacks that it, its cause and its context have."""
    links: list[BaseException | None] = [error]
    for link in links:
        if link is not None:
            links += link.__cause__, link.__context__
    return [link.__traceback__ for link in links if link and link.__traceback__]


@pytest.mark.parametrize("concurrency", [1, 3, 256])
def test_errors_are_values_and_leave_the_others_alone(
    concurrency: int, ask: Ask
) -> None:
    with (
        short_directory() as directory,
        ScriptedDaemon(address=f"{directory}/chronyd.sock") as unix,
        ScriptedDaemon() as v4,
        ScriptedDaemon(address="[::1]:0") as v6,
        ScriptedDaemon() as refused,
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(misbehave=faults.status(2)) as forbidden,
        ScriptedDaemon(misbehave=faults.truncated(40)) as broken,
        ScriptedDaemon(misbehave=faults.wrong_sequence) as confused,
    ):
        refused.stop()
        wanted = {
            unix.address: pychrony.TrackingStatus,
            "127.0.0.1:99999": pychrony.ChronyAddressError,
            v4.address: pychrony.TrackingStatus,
            refused.address: ChronyConnectionError,
            v6.address: pychrony.TrackingStatus,
            silent.address: ChronyTimeoutError,
            "/nowhere/chronyd.sock": ChronyConnectionError,
            forbidden.address: pychrony.ChronyPermissionError,
            "fe80::1%nothere9": ChronyConnectionError,
            broken.address: pychrony.ChronyDataError,
            "": pychrony.ChronyAddressError,
            confused.address: ChronyTimeoutError,
        }
        # Of one at a time the order does not matter.
        orders = [list(wanted), list(reversed(wanted))]
        for order in orders[: 1 + (concurrency > 1)]:
            before = descriptors()
            found = list(ask(order, concurrency=concurrency, timeout=0.3, retries=1))
            assert {address: type(result) for address, result in found} == wanted
            assert descriptors() == before
            for address, result in found:
                if isinstance(result, pychrony.ChronyError):
                    assert address in str(result)
                    assert frames(result) == []
            errors = dict(found)
            assert "no answer to 2 requests" in str(errors[silent.address])
            assert isinstance(errors[refused.address].__cause__, ConnectionRefusedError)


def test_errors_keep_no_session() -> None:
    def sessions() -> int:
        gc.collect()
        return sum(isinstance(each, Session) for each in gc.get_objects())

    with ScriptedDaemon() as daemon:
        daemon.stop()
        before = sessions()
        places = [daemon.address, "/nowhere/chronyd.sock", "255.255.255.255"] * 5
        kept = list(pychrony.query_many(places, timeout=0.05))
        assert all(isinstance(result, pychrony.ChronyError) for _, result in kept)
        assert sessions() == before


def test_one_dead_in_a_hundred(
    ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    daemons = many(3)
    with ScriptedDaemon(misbehave=faults.silent) as dead:
        wanted = (places(daemons) * 33 + [dead.address]) * 10
        found = list(ask(wanted, timeout=0.3, retries=1))
        assert Counter(address for address, _ in found) == Counter(wanted)
        assert all(
            isinstance(result, ChronyTimeoutError) == (address == dead.address)
            for address, result in found
        )
        # Nobody is asked again because of an error.
        assert len(dead.requests) <= 10 * 2


def test_results_come_in_the_order_of_arrival(ask: Ask) -> None:
    """The silent come last, though they were asked first."""
    with ScriptedDaemon(misbehave=faults.silent) as silent, ScriptedDaemon() as daemon:
        order = [silent.address, daemon.address, daemon.address, "nonsense:0"]
        found = [address for address, _ in ask(order, timeout=1.0, retries=0)]
    assert found[-1] == silent.address
    assert found[0] == "nonsense:0"


def test_names_are_resolved_side_by_side(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that is never resolved holds up no other."""
    together = threading.Barrier(5)
    released = threading.Event()

    def getaddrinfo(name: bytes, port: int, **wanted: Any) -> Any:
        if name == b"unknown.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name == b"hanging.invalid":
            released.wait()
            return []
        together.wait(20)
        return [
            (socket.AF_INET, wanted["type"], 17, "", (host, port))
            for host in ("127.0.0.1",) * (1 + (name == b"c0.invalid"))
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with ScriptedDaemon() as daemon:
        port = daemon.address.rpartition(":")[2]
        names = [f"c{number}.invalid:{port}" for number in range(5)]
        addresses = ["hanging.invalid", *names, "unknown.invalid", daemon.address]
        results: Any = ask(addresses, timeout=20, retries=0)
        try:
            found = dict(next(results) for _ in addresses[1:])
        finally:
            released.set()
            results.close()
        error = found.pop("unknown.invalid")
        assert isinstance(error, ChronyConnectionError)
        assert "Name or service not known" in str(error)
        assert found.keys() == {*names, daemon.address}
        assert {one.stratum for one in found.values()} == {2}


@pytest.mark.parametrize("concurrency", [1, 7, 256])
def test_no_more_addresses_are_taken_than_are_asked_at_once(
    concurrency: int, ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    (daemon,) = many(1)
    taken = arrived = 0

    def lazy() -> Iterator[str]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield daemon.address if number % 3 else "nonsense:0"

    for _ in ask(lazy(), concurrency=concurrency):
        arrived += 1
        # Those that have arrived, too, until they are asked for.
        assert taken <= arrived + 2 * concurrency
    assert taken == arrived == 1000


def test_results_of_a_million_do_not_fill_the_memory(ask: Ask) -> None:
    number, before = 10_000, 0
    addresses = ("nonsense:0" for _ in range(number))
    for count, (_, result) in enumerate(ask(addresses)):
        assert isinstance(result, pychrony.ChronyAddressError)
        if count == number // 10:
            before = resident()
    assert resident() - before < 2048


def test_nothing_is_asked_before_the_first_is_wanted(ask: Ask) -> None:
    with ScriptedDaemon() as daemon:
        results = ask([daemon.address])
        assert daemon.requests == []
        assert next(results)[1].stratum == 2
        assert list(results) == []


def test_sweep_over_no_address(ask: Ask) -> None:
    assert list(ask([])) == []
    assert list(ask(iter(()), concurrency=1)) == []
    assert list(ask([], concurrency=10**30)) == []


def test_sweep_whose_addresses_all_fail_at_once(ask: Ask) -> None:
    for number, concurrency in product((1, 2, 3, 5), (1, 2, 3, 256)):
        addresses = [f"/nowhere/{index}" for index in range(number)]
        found = list(ask(addresses, concurrency=concurrency))
        assert sorted(address for address, _ in found) == addresses
        assert {type(result) for _, result in found} == {ChronyConnectionError}


def test_progress_counts_the_results(
    ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    seen: list[int] = []
    addresses = [*places(many(3)) * 20, "nonsense:0"]
    assert len(list(ask(addresses, progress=seen.append))) == 61
    assert seen == list(range(1, 62))
