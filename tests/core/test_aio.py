"""The same connection, awaited: what asyncio adds is cancelling and taking turns."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from select import POLLIN, POLLOUT
from typing import Any

import pytest
from helpers import (
    QUICK,
    Runner,
    descriptors,
    hung_daemon,
    many_sources,
    on_each_loop,
    seeing,
    short_directory,
    steps,
    ticking,
    until,
)

import pychrony
from pychrony import AsyncChronyConnection, _address
from pychrony._waiting import Waiter
from pychrony.aio import _drive, _wait
from pychrony.testing import (
    ALL_COMMANDS,
    Request,
    ScriptedDaemon,
    faults,
    make_rtc_data,
    make_smoothing,
    make_tracking,
)

METHODS = [name for name in pychrony.__all__ if name.startswith("get_")]


@pytest.mark.usefixtures("each_way")
def test_every_method_is_that_of_the_blocking_connection(
    address: str, run: Runner[Any]
) -> None:
    calls: list[tuple[str, ...]] = [(name,) for name in METHODS if name[4:] != "report"]
    calls += [("get_report", report) for report in pychrony.reports()]
    with ScriptedDaemon(
        address=address,
        sources=many_sources(20),
        rtc_data=make_rtc_data(),
        smoothing=make_smoothing(),
        open_commands=ALL_COMMANDS,
    ) as daemon:

        async def main() -> list[Any]:
            async with AsyncChronyConnection(daemon.address) as connection:
                return [
                    await getattr(connection, name)(*arguments)
                    for name, *arguments in calls
                ]

        with pychrony.ChronyConnection(daemon.address) as connection:
            expected = [
                getattr(connection, name)(*arguments) for name, *arguments in calls
            ]
            assert run(main()) == expected
            daemon.rtc_data = daemon.smoothing = None
            assert connection.get_rtc_data() is None

        async def disabled() -> None:
            async with AsyncChronyConnection(daemon.address) as connection:
                assert await connection.get_rtc_data() is None
                assert await connection.get_smoothing() is None
                assert await connection.get_report("smoothing") == []
                assert (await connection.get_tracking()).stratum == 2

        run(disabled())


def test_async_connection_has_the_names_of_the_blocking_one() -> None:
    def public(kind: type[Any]) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(AsyncChronyConnection) == public(pychrony.ChronyConnection)


@on_each_loop
@pytest.mark.parametrize(
    "fault",
    [
        faults.silent,
        faults.wrong_sequence,
        faults.truncated(28),
        faults.status(2),
        faults.status(6),
        faults.status(77),
    ],
)
async def test_errors_are_those_of_the_blocking_connection(
    fault: faults.Fault, address: str
) -> None:
    patience: Any = {"timeout": 0.2, "retries": 1}
    with ScriptedDaemon(address=address, misbehave=fault) as daemon:
        with (
            pychrony.ChronyConnection(daemon.address, **patience) as connection,
            pytest.raises(pychrony.ChronyError) as expected,
        ):
            connection.get_tracking()
        async with AsyncChronyConnection(daemon.address, **patience) as connection:
            with pytest.raises(pychrony.ChronyError) as caught:
                await connection.get_tracking()
            assert type(caught.value) is type(expected.value)
            assert str(caught.value) == str(expected.value)
            assert connection._session is None
            daemon.misbehave = None
        async with AsyncChronyConnection(daemon.address) as connection:
            assert (await connection.get_tracking()).stratum == 2


@on_each_loop
async def test_errors_of_places() -> None:
    with ScriptedDaemon() as daemon:
        refused = daemon.address

    for place in (refused, "/nowhere/chronyd.sock", "fe80::1%nothere9"):
        with pytest.raises(pychrony.ChronyConnectionError) as expected:
            pychrony.get_tracking(place)
        connection = AsyncChronyConnection(place)
        with pytest.raises(pychrony.ChronyConnectionError) as caught:
            await connection.get_tracking()
        assert str(caught.value) == str(expected.value)
    with pytest.raises(pychrony.ChronyDataError, match="no report 'nonsense'"):
        await AsyncChronyConnection(refused).get_report("nonsense")
    with pytest.raises(pychrony.ChronyAddressError):
        AsyncChronyConnection("127.0.0.1:99999")
    with pytest.raises(ValueError, match="a day at most"):
        AsyncChronyConnection(timeout=0)


@on_each_loop
async def test_local_daemon_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(tracking=make_tracking(stratum=4)) as daemon,
    ):
        monkeypatch.setattr(_address, "LOCAL", (silent.address, daemon.address))

        async with AsyncChronyConnection(timeout=0.1) as connection:
            assert connection.address == daemon.address
            assert (await connection.get_tracking()).stratum == 4


@on_each_loop
async def test_async_context_manager(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        connection = AsyncChronyConnection(daemon.address)
        assert connection.address is None
        assert "not open" in repr(connection)
        for _ in range(2):
            async with connection as entered:
                assert entered is connection
                assert "(open)" in repr(connection)
                assert connection.address == daemon.address
                assert (await connection.get_tracking()).stratum == 2
            assert connection.closed
            assert connection.address is None
            with pytest.raises(pychrony.ChronyUsageError, match="closed"):
                await connection.get_tracking()
            await connection.close()


@on_each_loop
async def test_tasks_share_a_connection(address: str) -> None:
    with ScriptedDaemon(address=address, sources=many_sources(5)) as daemon:
        async with AsyncChronyConnection(daemon.address, timeout=20) as connection:
            results = await asyncio.gather(
                *(
                    getattr(connection, name)()
                    for name in ("get_tracking", "get_sources") * 50
                )
            )
            expected = await connection.get_tracking(), many_sources(5)
            assert [*results[::2]] == [expected[0]] * 50
            assert all(len(found) == 5 for found in results[1::2])


if sys.version_info >= (3, 11):  # else there are no groups

    @on_each_loop
    async def test_error_of_one_task_of_a_group_leaves_the_connection_usable() -> None:
        fault = faults.only("SOURCE_DATA", faults.status(2))
        with ScriptedDaemon(misbehave=fault) as daemon:
            async with AsyncChronyConnection(daemon.address) as connection:
                with pytest.raises(Exception, match="TaskGroup") as caught:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(10):
                            group.create_task(connection.get_tracking())
                            group.create_task(connection.get_sources())
                assert isinstance(
                    caught.value.exceptions[0], pychrony.ChronyPermissionError
                )
                assert (await connection.get_tracking()).stratum == 2


@on_each_loop
async def test_event_loop_goes_on_during_a_call() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        async with ticking() as ticks:
            connection = AsyncChronyConnection(daemon.address, timeout=0.5, retries=0)
            with pytest.raises(pychrony.ChronyTimeoutError):
                await connection.get_tracking()
            assert ticks() > 10


@on_each_loop
async def test_libchrony_itself_never_waits_in_an_event_loop(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        async with AsyncChronyConnection(daemon.address) as connection:
            assert connection._session is not None
            assert not os.get_blocking(connection._session._fd)


@on_each_loop
async def test_close_waits_for_the_calls_of_other_tasks() -> None:
    with ScriptedDaemon(misbehave=faults.delayed(0.05)) as daemon:
        connection = AsyncChronyConnection(daemon.address, timeout=20)
        running = asyncio.create_task(connection.get_tracking())
        waiting = asyncio.create_task(connection.get_tracking())
        await until(lambda: daemon.requests)
        await connection.close()
        assert connection.closed
        assert connection._session is None
        assert (await running).stratum == 2
        with pytest.raises(pychrony.ChronyUsageError, match="closed"):
            await waiting


@on_each_loop
async def test_cancelled_close_leaves_nothing_open() -> None:
    released = threading.Event()

    def held(_: Request, reply: bytes) -> Iterable[bytes]:
        released.wait(60)
        return (reply,)

    with ScriptedDaemon(misbehave=held) as daemon:
        before = descriptors()

        connection = AsyncChronyConnection(daemon.address, timeout=20)
        running = asyncio.create_task(connection.get_tracking())
        await until(lambda: daemon.requests)
        closing = asyncio.create_task(connection.close())
        await steps(3)
        closing.cancel()
        await asyncio.wait([closing])
        released.set()
        assert (await running).stratum == 2
        assert closing.cancelled()
        assert connection.closed
        assert connection.address is None
        assert connection._session is None
        assert descriptors() == before


@on_each_loop
async def test_limit_of_a_call() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        connection = AsyncChronyConnection(daemon.address, timeout=3600, limit=0.1)
        async with connection:
            with pytest.raises(pychrony.ChronyTimeoutError, match=r"limit of 0\.1 s"):
                await connection.get_tracking()
            daemon.misbehave = None
            assert (await connection.get_tracking()).stratum == 2


def test_one_loop_after_another(run: Runner[Any]) -> None:
    """Tasks of each wait for each other, which binds asyncio's locks to a loop."""
    with ScriptedDaemon() as daemon:
        connection = AsyncChronyConnection(daemon.address)

        async def main() -> None:
            results = await asyncio.gather(
                *(connection.get_tracking() for _ in range(3))
            )
            assert [one.stratum for one in results] == [2, 2, 2]

        for _ in range(3):
            run(main())
        assert len(daemon.requests) == 9
        run(connection.close())


def test_one_loop_in_the_middle_of_another(
    run: Runner[Any], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        connection = AsyncChronyConnection(daemon.address)
        stopped = loop()
        try:
            task = stopped.create_task(connection.get_tracking())
            stopped.run_until_complete(until(lambda: daemon.requests))
            for call in (connection.get_tracking, connection.close):
                with pytest.raises(
                    pychrony.ChronyUsageError, match="another event loop"
                ):
                    run(call())
            task.cancel()
            stopped.run_until_complete(asyncio.wait([task]))
        finally:
            stopped.close()
        assert connection._session is None
        run(connection.close())


@pytest.mark.usefixtures("one_chronyd")
@pytest.mark.timeout(30)
def test_full_queue_of_the_unix_socket(run: Runner[Any]) -> None:
    async def main(path: str) -> None:
        async with AsyncChronyConnection(path, **QUICK) as connection:
            with pytest.raises(pychrony.ChronyTimeoutError, match="hung or stopped"):
                await connection.get_tracking()

    with hung_daemon() as path:
        run(main(path))


@pytest.mark.timeout(30)
def test_full_queue_is_waited_for(run: Runner[Any]) -> None:
    def busy(_: Request) -> None:
        time.sleep(0.002)

    async def ask(path: str) -> int:
        connection = AsyncChronyConnection(path, timeout=20, retries=0)
        async with connection:
            return (await connection.get_tracking()).stratum

    async def main(path: str) -> None:
        assert await asyncio.gather(*(ask(path) for _ in range(40))) == [2] * 40

    with (
        short_directory() as directory,
        ScriptedDaemon(
            address=f"{directory}/chronyd.sock", misbehave=seeing(busy)
        ) as daemon,
    ):
        run(main(daemon.address))


@on_each_loop
async def test_answer_that_is_there_counts_after_its_deadline() -> None:
    """A loop that was held up for too long still finds it."""
    answered = threading.Event()

    def answering(request: Request, reply: bytes) -> Iterable[bytes]:
        yield reply
        answered.set()

    with ScriptedDaemon(misbehave=answering) as daemon:
        connection = AsyncChronyConnection(daemon.address, timeout=1e-3, retries=0)
        async with connection:
            task = asyncio.create_task(connection.get_tracking())
            await steps(1)
            answered.wait()
            time.sleep(0.01)
            assert (await task).stratum == 2


@on_each_loop
async def test_wait_for_a_descriptor() -> None:
    unexpected: list[Any] = []

    running = asyncio.get_running_loop()
    running.set_exception_handler(lambda _, context: unexpected.append(context))
    waiter = Waiter()
    one, other = socket.socketpair()
    with one, other:
        assert not await _wait(waiter, one.fileno(), POLLIN, 0.0)
        assert await _wait(waiter, one.fileno(), POLLOUT, time.monotonic() + 20)
        other.send(b"!")
        assert await _wait(waiter, one.fileno(), POLLIN, time.monotonic() + 20)
        assert await _wait(waiter, one.fileno(), POLLIN, 0.0)
        one.recv(1)
        # Both may come in the same round of the loop.
        deadline = time.monotonic() + 0.01
        both = asyncio.create_task(_wait(waiter, one.fileno(), POLLIN, deadline))
        await steps(2)
        other.send(b"!")
        time.sleep(0.02)
        await both
        assert not running.remove_reader(one.fileno())
        assert not running.remove_writer(one.fileno())
    assert unexpected == []


@on_each_loop
async def test_request_without_a_wait() -> None:
    def short() -> Any:
        return 7
        yield

    assert await _drive(Waiter(), short()) == 7
