"""Many chronyds at once, with and without asyncio."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import ExitStack, aclosing, suppress
from typing import Any

import pytest
from chronyd import Chronyd
from helpers import (
    LOOPS,
    descriptors,
    in_child,
    many_sources,
    on_alarm,
    resident,
    short_directory,
)
from provision import Parts

import pychrony
from pychrony import (
    ChronyAddressError,
    ChronyConnection,
    ChronyConnectionError,
    ChronyDataError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
    ChronyUsageError,
    TrackingStatus,
    _address,
    _queries,
    async_query_many,
    query_many,
)
from pychrony._base import timeouts_of
from pychrony._queries import read_single
from pychrony._session import Session
from pychrony._waiting import Waiter
from pychrony.testing import (
    ALL_COMMANDS,
    Request,
    ScriptedDaemon,
    faults,
    make_rtc_data,
    make_smoothing,
    make_source,
    make_tracking,
)

Results = Iterator[tuple[Any, Any]]
Ask = Callable[..., Results]


def awaited(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> Callable[..., Results]:
    """Make ``async_query_many`` an ordinary iterator."""

    def begin(*arguments: Any, **options: Any) -> Results:
        return going(async_query_many(*arguments, **options))

    def going(results: AsyncGenerator[tuple[Any, Any], None]) -> Results:
        loop = factory()
        try:
            while True:
                yield loop.run_until_complete(results.__anext__())
        except StopAsyncIteration:
            pass
        finally:
            loop.run_until_complete(results.aclose())
            assert not asyncio.all_tasks(loop)
            loop.close()

    return begin


DRIVERS: dict[str, Ask] = {
    "blocking": query_many,
    **{name: awaited(factory) for name, factory in LOOPS.items()},
}


@pytest.fixture(params=DRIVERS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Ask many, by each of the drivers."""
    return DRIVERS[request.param]


@pytest.fixture
def many() -> Iterator[Callable[..., list[ScriptedDaemon]]]:
    """Start a number of daemons, each with its own stratum from 1 on."""
    with ExitStack() as stack:

        def start(number: int, **script: Any) -> list[ScriptedDaemon]:
            return [
                stack.enter_context(
                    ScriptedDaemon(tracking=make_tracking(stratum=index + 1), **script)
                )
                for index in range(number)
            ]

        yield start


def places(daemons: Iterable[ScriptedDaemon]) -> list[str]:
    return [daemon.address for daemon in daemons]


# --- the same as one by one --------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2, 3, 256])
def test_each_gives_its_own(
    concurrency: int, ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    daemons = many(10)
    wanted = {daemon.address: daemon.tracking.stratum for daemon in daemons}
    found = list(ask([*wanted] * 20, concurrency=concurrency))
    assert len(found) == 200
    assert all(result.stratum == wanted[address] for address, result in found)
    assert Counter(address for address, _ in found) == dict.fromkeys(wanted, 20)


@pytest.mark.parametrize("far", [False, True])
def test_every_report_is_that_of_the_connection(
    far: bool, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_queries, "_HIGH_LATENCY", -1.0 if far else 9e9)
    method = {"sourcestats": "source_stats", "rtcdata": "rtc_data"}
    method |= {"selectdata": "select_data", "serverstats": "server_stats"}
    method |= {"authdata": "auth_data", "ntpdata": "ntp_data"}
    sources = [make_source(address=f"192.0.2.{index}") for index in range(1, 10)]
    for rtc_data, smoothing in ((make_rtc_data(), make_smoothing()), (None, None)):
        with (
            ScriptedDaemon(
                sources=sources,
                rtc_data=rtc_data,
                smoothing=smoothing,
                open_commands=ALL_COMMANDS,
            ) as daemon,
            ChronyConnection(daemon.address) as connection,
        ):
            for report in pychrony.reports():
                read = getattr(
                    connection, f"get_{method.get(report, report)}", None
                ) or (lambda name=report: connection.get_report(name))
                expected = [(daemon.address, read())] * 3
                for concurrency in (1, 2, 256):
                    found = ask([daemon.address] * 3, report, concurrency=concurrency)
                    assert list(found) == expected


def test_report_that_only_libchrony_knows(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(_queries._BY_NAME, "activity")
    with ScriptedDaemon() as daemon, ChronyConnection(daemon.address) as connection:
        expected = connection.get_report("activity")
        assert list(ask([daemon.address], "activity")) == [(daemon.address, expected)]


def test_real_daemons(parts: Parts, ask: Ask) -> None:
    with Chronyd(parts, "local stratum 5") as v4, Chronyd(parts, bind="::1") as v6:
        everywhere = [v4.address, v6.address, v4.socket, v6.socket]
        found = dict(ask(everywhere, concurrency=2))
        assert {address: one.stratum for address, one in found.items()} == dict(
            zip(everywhere, (5, 0, 5, 0), strict=True)
        )


# --- errors are values -------------------------------------------------------


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
            unix.address: TrackingStatus,
            "127.0.0.1:99999": ChronyAddressError,
            v4.address: TrackingStatus,
            refused.address: ChronyConnectionError,
            v6.address: TrackingStatus,
            silent.address: ChronyTimeoutError,
            "/nowhere/chronyd.sock": ChronyConnectionError,
            forbidden.address: ChronyPermissionError,
            "fe80::1%nothere9": ChronyConnectionError,
            broken.address: ChronyDataError,
            "": ChronyAddressError,
            confused.address: ChronyTimeoutError,
        }
        for order in (list(wanted), list(reversed(wanted))):
            before = descriptors()
            found = list(ask(order, concurrency=concurrency, timeout=0.05, retries=1))
            assert {address: type(result) for address, result in found} == wanted
            assert descriptors() == before
            for address, result in found:
                if isinstance(result, ChronyError):
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
        kept = list(query_many(places, timeout=0.05))
        assert all(isinstance(result, ChronyError) for _, result in kept)
        assert sessions() == before


def test_one_dead_in_a_hundred(
    ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    daemons = many(3)
    with ScriptedDaemon(misbehave=faults.silent) as dead:
        wanted = (places(daemons) * 33 + [dead.address]) * 10
        found = list(ask(wanted, timeout=0.05, retries=1))
        assert Counter(address for address, _ in found) == Counter(wanted)
        assert all(
            isinstance(result, ChronyTimeoutError) == (address == dead.address)
            for address, result in found
        )
        # Nobody is asked again because of an error.
        assert len(dead.requests) <= 10 * 2


def test_order_of_arrival(ask: Ask) -> None:
    """The silent come last, though they were asked first."""
    with ScriptedDaemon(misbehave=faults.silent) as silent, ScriptedDaemon() as daemon:
        order = [silent.address, daemon.address, daemon.address, "nonsense:0"]
        found = [address for address, _ in ask(order, timeout=0.2, retries=0)]
    assert found[-1] == silent.address
    assert found[0] == "nonsense:0"


# --- names -------------------------------------------------------------------


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
        bad = ["hanging.invalid", "unknown.invalid"]
        try:
            found = dict(
                ask([bad[0], *names, bad[1], daemon.address], timeout=0.5, retries=0)
            )
        finally:
            released.set()
        assert [found[name].stratum for name in (*names, daemon.address)] == [2] * 6
        assert isinstance(found[bad[0]], ChronyTimeoutError)
        assert "not resolved" in str(found[bad[0]])
        assert isinstance(found[bad[1]], ChronyConnectionError)
        assert "Name or service not known" in str(found[bad[1]])


# --- a million ---------------------------------------------------------------


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
    number, before = 30_000, 0
    addresses = ("nonsense:0" for _ in range(number))
    for count, (_, result) in enumerate(ask(addresses)):
        assert isinstance(result, ChronyAddressError)
        if count == number // 10:
            before = resident()
    assert resident() - before < 2048


def test_nothing_is_asked_before_the_first_is_wanted(ask: Ask) -> None:
    with ScriptedDaemon() as daemon:
        results = ask([daemon.address])
        assert daemon.requests == []
        assert next(results)[1].stratum == 2
        assert list(results) == []


def test_no_address(ask: Ask) -> None:
    assert list(ask([])) == []
    assert list(ask(iter(()), concurrency=1)) == []


@pytest.mark.parametrize("concurrency", [1, 2, 3, 256])
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_all_fail_without_a_wait(number: int, concurrency: int, ask: Ask) -> None:
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


# --- ends --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        ((["127.0.0.1"], "nonsense"), {}, ChronyDataError),
        ((["127.0.0.1"],), {"concurrency": 0}, ValueError),
        ((["127.0.0.1"],), {"concurrency": -1}, ValueError),
        ((["127.0.0.1"],), {"concurrency": 2.5}, TypeError),
        ((["127.0.0.1"],), {"timeout": 0}, ValueError),
        ((["127.0.0.1"],), {"retries": -1}, ValueError),
        ((None,), {}, TypeError),
        (("127.0.0.1",), {}, TypeError),
    ],
)
@pytest.mark.parametrize("function", [query_many, async_query_many])
def test_nonsense_is_told_at_the_call(
    function: Any, arguments: Any, options: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        function(*arguments, **options)


@pytest.mark.parametrize("moment", range(4))
def test_leaving_early_closes_everything(
    moment: int, ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    addresses = places(many(3))
    before = descriptors()
    results: Any = ask(addresses * 30, concurrency=20)
    for _ in range(moment):
        next(results)
    assert (descriptors() > before) == bool(moment)
    results.close()
    assert descriptors() == before


@pytest.mark.interrupts
@pytest.mark.timeout(15)
def test_interrupt_closes_everything() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        before = descriptors()
        with (
            on_alarm(signal.default_int_handler, 0.2),
            pytest.raises(KeyboardInterrupt) as caught,
        ):
            list(query_many([daemon.address] * 20, timeout=20))
        assert caught.tb is not None
        assert descriptors() == before


def test_leaving_while_all_are_silent(ask: Ask) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as silent, ScriptedDaemon() as daemon:
        before = descriptors()
        results: Any = ask([*[silent.address] * 50, daemon.address], timeout=1000)
        assert next(results)[0] == daemon.address
        assert descriptors() > before + 100
        results.close()
        assert descriptors() == before


def test_interrupt_closes_everything_at_once() -> None:
    """Not only when the traceback lets go of it."""
    with ScriptedDaemon(misbehave=faults.silent) as silent, ScriptedDaemon() as daemon:
        before = descriptors()
        results: Any = query_many([silent.address, daemon.address], timeout=1000)
        next(results)
        with pytest.raises(KeyboardInterrupt) as caught:
            results.throw(KeyboardInterrupt)
        assert caught.tb is not None
        assert descriptors() == before


@pytest.mark.parametrize("factory", LOOPS.values(), ids=LOOPS)
def test_cancelled_sweep_closes_everything(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def take(address: str) -> None:
        async with aclosing(async_query_many([address] * 50, timeout=1000)) as results:
            async for _ in results:
                raise AssertionError

    async def main(daemon: ScriptedDaemon) -> None:
        before = descriptors()
        for number in range(6):
            task = asyncio.create_task(take(daemon.address))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert descriptors() == before

    loop = factory()
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        loop.run_until_complete(main(daemon))
    loop.close()


@pytest.mark.parametrize("factory", LOOPS.values(), ids=LOOPS)
def test_sweep_that_is_dropped_is_closed_by_asyncio(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main(daemon: ScriptedDaemon) -> None:
        before = descriptors()
        async for _ in async_query_many([daemon.address] * 50):
            break
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
        assert descriptors() == before

    loop = factory()
    with ScriptedDaemon() as daemon:
        loop.run_until_complete(main(daemon))
    loop.close()


@pytest.mark.parametrize("factory", LOOPS.values(), ids=LOOPS)
def test_the_loop_goes_on_during_a_sweep(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async def main(address: str) -> None:
        ticker = asyncio.create_task(tick())
        counts = []
        async for _ in async_query_many([*["nonsense:0"] * 2000, address], timeout=0.1):
            counts.append(ticks)
        # In between, too, where nothing has to be waited for.
        assert len(set(counts)) > 5
        ticker.cancel()
        await asyncio.wait([ticker])

    loop = factory()
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        loop.run_until_complete(main(daemon.address))
    loop.close()
    assert ticks > 100


class SurpriseError(Exception):
    pass


@pytest.mark.parametrize("moment", [0, 1, 30])
@pytest.mark.parametrize("who", ["addresses", "progress", "wrong type"])
def test_errors_of_the_caller_reach_the_caller(
    who: str, moment: int, ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    (daemon,) = many(1)
    kind: type[Exception] = TypeError if who == "wrong type" else SurpriseError

    def addresses() -> Iterator[Any]:
        for _ in range(moment):
            yield daemon.address
        if who == "wrong type":
            yield None
        elif who == "addresses":
            raise SurpriseError
        while True:
            yield daemon.address

    def progress(count: int) -> None:
        if who == "progress" and count > moment:
            raise SurpriseError

    before = descriptors()
    with pytest.raises(kind) as caught:
        for _ in ask(addresses(), concurrency=10, progress=progress):
            pass
    assert caught.tb is not None
    assert descriptors() == before


def test_slow_caller_loses_nothing_that_has_arrived(
    ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    addresses = places(many(2)) * 100
    slow = 2
    for _, result in ask(addresses, timeout=1.0, retries=0, concurrency=150):
        if slow:
            slow -= 1
            time.sleep(1.2)
        assert isinstance(result, TrackingStatus)


def test_fork_in_the_middle(
    ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    addresses = places(many(3)) * 20
    results = ask(addresses, concurrency=10, timeout=20, retries=0)
    found = [next(results)]

    def child() -> None:
        asyncio._set_running_loop(None)
        with pytest.raises(ChronyUsageError, match="child"):
            for _ in results:
                pass

    def drop() -> None:
        nonlocal results
        results = iter(())
        gc.collect()

    for _ in range(3):
        in_child(child)
        found.append(next(results))
        in_child(drop)
    found += results
    assert Counter(address for address, _ in found) == Counter(addresses)
    assert all(isinstance(result, TrackingStatus) for _, result in found)


# --- a socket goes from one host to the next ---------------------------------


def test_what_one_host_left_is_not_told_of_the_next() -> None:
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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{host.getsockname()[1]}"
        session = Session(_address.parse(place), timeouts_of(1, 0))
        try:
            here = session._socket.raw.getsockname()
            for _ in range(5):
                host.sendto(b"before", here)
            # Nobody is there, which is told before all of that.
            host.close()
            session._socket.raw.send(b"is anybody there?")
            session.reconnect(_address.parse("127.0.0.1:9"))
            with pytest.raises(BlockingIOError):
                session._socket.raw.recv(1)
        finally:
            session.close()


def test_datagrams_behind_an_error_do_not_reach_the_next_host() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{host.getsockname()[1]}"
        session = Session(_address.parse(place), timeouts_of(1, 0))
        try:
            for _ in range(5):
                host.sendto(b"before", session._socket.raw.getsockname())
            host.close()
            session._socket.raw.send(b"is anybody there?")
            session.reconnect(_address.parse("127.0.0.1:9"))
            with pytest.raises(BlockingIOError):
                session._socket.raw.recv(1)
        finally:
            session.close()


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
    with ScriptedDaemon() as gone, ScriptedDaemon(address="127.0.0.1:0") as daemon:
        session = Session(_address.parse(gone.address), timeouts_of(20, 0))
        try:
            gone.stop()
            session._socket.raw.send(b"is anybody there?")
            session.reconnect(_address.parse(daemon.address))
            assert Waiter().drive(read_single(session, TrackingStatus)).stratum == 2
        finally:
            session.close()


def test_each_host_is_asked_from_an_address_of_its_own() -> None:
    """What suits a host on loopback suits no other."""
    session = Session(_address.parse("127.0.0.1:9"), timeouts_of(1, 0))
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
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
    finally:
        probe.close()
        session.close()


def test_sockets_are_used_again() -> None:
    """To make a session takes longer than all the rest."""
    seen: set[int] = set()

    def fds(request: Request, reply: bytes) -> Iterable[bytes]:
        seen.update(map(int, os.listdir("/proc/self/fd")))
        return (reply,)

    with ScriptedDaemon(misbehave=fds) as one, ScriptedDaemon(misbehave=fds) as other:
        made: list[Any] = []
        usual = Session.__init__

        def counting(self: Session, *arguments: Any, **named: Any) -> None:
            made.append(self)
            usual(self, *arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "__init__", counting)
            addresses = [one.address, other.address] * 50
            assert len(list(query_many(addresses, concurrency=4))) == 100
        assert len(made) == 4


@pytest.mark.parametrize(
    ("concurrency", "each"), [(1, 128), (4, 32), (40, 3), (256, 1)]
)
def test_hosts_share_the_requests_in_flight(
    concurrency: int, each: int, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_queries, "_HIGH_LATENCY", -1.0)
    most = 0

    def watched(request: Request, reply: bytes) -> Iterable[bytes]:
        nonlocal most
        most = max(most, descriptors())
        return (reply,)

    with ScriptedDaemon(sources=many_sources(140), misbehave=watched) as daemon:
        before = descriptors()
        for _, found in ask([daemon.address] * 3, "sources", concurrency=concurrency):
            assert len(found) == 140
        hosts = min(concurrency, 3)
        # Besides the sessions: what the loop has, what waits, and what counts.
        assert 0 <= most - before - 2 * each <= 2 * (hosts - 1) * each + hosts + 16


def test_length_of_a_list_is_not_that_of_the_next_host(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_queries, "_HIGH_LATENCY", -1.0)
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


# --- few descriptors ---------------------------------------------------------


@pytest.mark.parametrize("report", ["tracking", "sources"])
@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 5, 11, 60])
def test_with_few_descriptors_fewer_are_asked_at_once(
    left: int, report: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each host is asked, or has an honest error; none is skipped."""
    monkeypatch.setattr(_queries, "_HIGH_LATENCY", -1.0)
    sources = [make_source(address=f"192.0.2.{index}") for index in range(1, 10)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ScriptedDaemon(sources=sources) as daemon:
        list(ask([daemon.address], report, concurrency=1))  # the loop has its own
        found: list[Any] = []
        holes: list[int] = []
        results = ask(lazy(daemon.address, holes, left), report, concurrency=60)
        try:
            found += results
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in holes:
                os.close(fd)
    assert len(found) == 200
    errors = Counter(str(one) for _, one in found if isinstance(one, ChronyError))
    if left >= 2:
        assert not errors
    else:
        assert sum(errors.values()) == 200
        assert all("Too many open files" in text for text in errors)


def lazy(address: str, holes: list[int], left: int) -> Iterator[str]:
    """Leave a number of descriptors when the first address is taken."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    with suppress(OSError):
        while True:
            holes.append(os.open("/dev/null", os.O_RDONLY))
    for _ in range(left):
        os.close(holes.pop())
    for _ in range(200):
        yield address


def test_descriptors_run_out_later() -> None:
    """As when others of the process take them; the last one goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def addresses() -> Iterator[str]:
        for number in range(300):
            if number == 100:
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            yield "nonsense:0" if number % 2 else daemon.address

    with ScriptedDaemon() as daemon:
        try:
            found = list(query_many(addresses(), concurrency=20))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(found) == 300
