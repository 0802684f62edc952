"""The sockets of a sweep: each goes from one host to the next, and few may be left."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from helpers import (
    Ask,
    by_hand,
    descriptors,
    descriptors_left,
    limit_descriptors,
    limit_of_descriptors_restored,
    many_sources,
    seeing,
)

from pychrony import ChronyError, TrackingStatus, _address, query_many
from pychrony._queries import read_single
from pychrony._session import Session
from pychrony._waiting import Waiter
from pychrony.testing import Request, ScriptedDaemon, faults, make_tracking


def test_datagrams_that_one_host_left_are_not_told_of_the_next() -> None:
    def noisy(request: Request, reply: bytes) -> Iterable[bytes]:
        return (reply, *(b"noise",) * 20)

    with (
        ScriptedDaemon(misbehave=noisy) as noise,
        ScriptedDaemon(misbehave=faults.silent) as silent,
    ):
        results = query_many(
            [noise.address, silent.address], concurrency=1, timeout=0.05, retries=0
        )
        assert next(results)[1].stratum == 2
        time.sleep(0.05)  # until all the noise is there
        ((_, error),) = results
        assert "ignored" not in str(error)
        assert "Is chronyd running there" in str(error)


def test_datagrams_of_one_host_do_not_reach_the_next() -> None:
    """Not even those behind an error, which is told before all of them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("127.0.0.1", 0))
        with by_hand(f"127.0.0.1:{host.getsockname()[1]}", 1, 0) as session:
            for _ in range(5):
                host.sendto(b"before", session._socket.raw.getsockname())
            host.close()
            session._socket.raw.send(b"is anybody there?")
            session.reconnect(_address.parse("127.0.0.1:9"))
            with pytest.raises(BlockingIOError):
                session._socket.raw.recv(1)


def test_late_replies_of_one_host_are_no_answers_of_the_next() -> None:
    def twice(request: Request, reply: bytes) -> Iterable[Any]:
        return (reply, (0.01, reply), (0.02, reply))

    with (
        ScriptedDaemon(tracking=make_tracking(stratum=1), misbehave=twice) as one,
        ScriptedDaemon(tracking=make_tracking(stratum=9), misbehave=twice) as other,
    ):
        wanted: dict[Any, int] = {one.address: 1, other.address: 9}
        for address, result in query_many([*wanted] * 50, concurrency=3):
            assert result.stratum == wanted[address]


def test_error_of_one_host_is_not_one_of_the_next() -> None:
    with (
        ScriptedDaemon() as gone,
        ScriptedDaemon(address="127.0.0.1:0") as daemon,
        by_hand(gone.address, 20, 0) as session,
    ):
        gone.stop()
        session._socket.raw.send(b"is anybody there?")
        session.reconnect(_address.parse(daemon.address))
        assert Waiter().drive(read_single(session, TrackingStatus)).stratum == 2


def test_each_host_is_asked_from_an_address_of_its_own() -> None:
    """What suits a host on loopback suits no other."""
    with (
        by_hand("127.0.0.1:9", 1, 0) as session,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        ports = set()
        for number in range(2, 6):
            session.reconnect(_address.parse(f"127.0.0.{number}:9"))
            ports.add(session._socket.raw.getsockname()[1])
        assert len(ports) > 1
        # Nothing is sent there.
        with suppress(OSError):
            probe.connect(("192.0.2.99", 9))
            session.reconnect(_address.parse("192.0.2.99:9"))
            expected = probe.getsockname()[0]
            assert session._socket.raw.getsockname()[0] == expected


def test_sessions_are_used_again(opened: list[Session]) -> None:
    """To make a session takes longer than all the rest."""
    with ScriptedDaemon() as one, ScriptedDaemon() as other:
        addresses = [one.address, other.address] * 50
        assert len(list(query_many(addresses, concurrency=4))) == 100
    assert len(opened) == 4


def lazy(addresses: list[str]) -> Iterator[str]:
    yield from addresses


@pytest.mark.parametrize(
    ("concurrency", "each", "kind"),
    [
        *((1, 128, lazy), (4, 32, lazy), (40, 3, lazy), (256, 1, lazy)),
        *((256, 42, list), (10**30, 42, list)),
    ],
)
@pytest.mark.usefixtures("in_flight")
def test_hosts_share_the_requests_in_flight(
    concurrency: int,
    each: int,
    kind: Callable[[list[str]], Iterable[str]],
    ask: Ask,
) -> None:
    most = 0

    def watched(_: Request) -> None:
        nonlocal most
        most = max(most, descriptors())

    with ScriptedDaemon(sources=many_sources(140), misbehave=seeing(watched)) as daemon:
        before = descriptors()
        addresses = kind([daemon.address] * 3)
        for _, found in ask(addresses, "sources", concurrency=concurrency):
            assert len(found) == 140
        hosts = min(concurrency, 3)
        # Besides the sessions: what the loop has, what waits, and what counts.
        assert 0 <= most - before - 2 * each <= 2 * (hosts - 1) * each + hosts + 16


@pytest.mark.usefixtures("in_flight")
def test_length_of_a_list_is_not_that_of_the_next_host(ask: Ask) -> None:
    with (
        ScriptedDaemon(sources=many_sources(9)) as one,
        ScriptedDaemon(sources=many_sources(6)) as other,
    ):
        addresses = [one.address, other.address]
        for number in (1, 2):
            found = list(ask(addresses, "sources", concurrency=1, timeout=20))
            assert [len(result) for _, result in found] == [9, 6]
            # Counted before and while they are read, then read.
            assert other.requests.count(("N_SOURCES", None)) == 2 * number
            assert max(index or 0 for _, index in other.requests) == 5


@pytest.mark.parametrize("report", ["tracking", "sources"])
@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 5, 11, 60])
@pytest.mark.usefixtures("in_flight")
def test_with_few_descriptors_fewer_are_asked_at_once(
    left: int, report: str, ask: Ask
) -> None:
    """Each host is asked, or has an honest error; none is skipped."""

    def addresses() -> Iterator[str]:
        few.enter_context(descriptors_left(left))
        yield from [daemon.address] * 200

    with ScriptedDaemon(sources=many_sources(9)) as daemon:
        list(ask([daemon.address], report, concurrency=1))  # the loop has its own
        with ExitStack() as few:
            found = list(ask(addresses(), report, concurrency=60))
    assert len(found) == 200
    errors = Counter(str(one) for _, one in found if isinstance(one, ChronyError))
    if left >= 2:
        assert not errors
    else:
        assert sum(errors.values()) == 200
        assert all("Too many open files" in text for text in errors)


def test_descriptors_run_out_later() -> None:
    """As when others of the process take them; the last one goes on."""

    def addresses() -> Iterator[str]:
        for number in range(300):
            if number == 100:
                limit_descriptors(3)
            yield "nonsense:0" if number % 2 else daemon.address

    with ScriptedDaemon() as daemon, limit_of_descriptors_restored():
        assert len(list(query_many(addresses(), concurrency=20))) == 300
