"""The same connection, awaited: what asyncio adds is cancelling and taking turns."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator
from select import POLLIN, POLLOUT
from typing import Any, TypeVar

import pytest
from helpers import (
    LOOPS,
    QUICK,
    descriptors,
    hung_daemon,
    in_child,
    many_sources,
    short_directory,
)

import pychrony
from pychrony import (
    AsyncChronyConnection,
    ChronyConnection,
    ChronyConnectionError,
    ChronyDataError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
    ChronyUsageError,
    _address,
    _queries,
)
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

T = TypeVar("T")
Runner = Callable[[Coroutine[Any, Any, T]], T]

METHODS = [name for name in pychrony.__all__ if name.startswith("get_")]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop."""
    return LOOPS[request.param]


@pytest.fixture
def run(loop: Callable[[], asyncio.AbstractEventLoop]) -> Runner[Any]:
    """``asyncio.run`` with that loop, in debug mode; no task or timer is left."""
    errors: list[Any] = []

    def run(main: Coroutine[Any, Any, T]) -> T:
        async def alone() -> T:
            result = await main
            assert asyncio.all_tasks() == {asyncio.current_task()}
            timers = getattr(running, "_scheduled", ())  # of asyncio's own loops
            assert all(timer.cancelled() for timer in timers)
            return result

        running = loop()
        running.set_debug(True)
        running.slow_callback_duration = 1000
        running.set_exception_handler(lambda _, context: errors.append(context))
        try:
            return running.run_until_complete(alone())
        finally:
            running.run_until_complete(running.shutdown_asyncgens())
            running.close()
            assert errors == []

    return run


@pytest.fixture(params=["UDP", "Unix"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address for a scripted daemon, of either transport."""
    if request.param == "UDP":
        yield "127.0.0.1:0"
    else:
        with short_directory() as directory:
            yield f"{directory}/chronyd.sock"


async def steps(number: int) -> None:
    """Let the loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


# --- the same as blocking -----------------------------------------------------


@pytest.mark.parametrize("far", [False, True])
def test_every_method_is_that_of_the_blocking_connection(
    far: bool, address: str, run: Runner[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_queries, "_HIGH_LATENCY", -1.0 if far else 9e9)
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

        with ChronyConnection(daemon.address) as connection:
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


def test_it_has_what_the_blocking_connection_has() -> None:
    def public(kind: type[Any]) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(AsyncChronyConnection) == public(ChronyConnection)


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
def test_errors_are_those_of_the_blocking_connection(
    fault: faults.Fault, address: str, run: Runner[Any]
) -> None:
    patience: Any = {"timeout": 0.02, "retries": 1}
    with ScriptedDaemon(address=address, misbehave=fault) as daemon:

        async def main() -> None:
            async with AsyncChronyConnection(daemon.address, **patience) as connection:
                with pytest.raises(ChronyError) as caught:
                    await connection.get_tracking()
                assert type(caught.value) is type(expected.value)
                assert str(caught.value) == str(expected.value)
                assert connection._session is None
                daemon.misbehave = None
            async with AsyncChronyConnection(daemon.address) as connection:
                assert (await connection.get_tracking()).stratum == 2

        with (
            ChronyConnection(daemon.address, **patience) as connection,
            pytest.raises(ChronyError) as expected,
        ):
            connection.get_tracking()
        run(main())


def test_errors_of_places(run: Runner[Any]) -> None:
    with ScriptedDaemon() as daemon:
        refused = daemon.address

    async def main() -> None:
        for place in (refused, "/nowhere/chronyd.sock", "fe80::1%nothere9"):
            with pytest.raises(ChronyConnectionError) as expected:
                pychrony.get_tracking(place)
            connection = AsyncChronyConnection(place)
            with pytest.raises(ChronyConnectionError) as caught:
                await connection.get_tracking()
            assert str(caught.value) == str(expected.value)
        with pytest.raises(ChronyDataError, match="no report 'nonsense'"):
            await AsyncChronyConnection(refused).get_report("nonsense")

    run(main())
    with pytest.raises(pychrony.ChronyAddressError):
        AsyncChronyConnection("127.0.0.1:99999")
    with pytest.raises(ValueError, match="a day at most"):
        AsyncChronyConnection(timeout=0)


def test_local_daemon_is_found(
    run: Runner[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(tracking=make_tracking(stratum=4)) as daemon,
    ):
        monkeypatch.setattr(_address, "LOCAL", (silent.address, daemon.address))

        async def main() -> None:
            async with AsyncChronyConnection(timeout=0.1) as connection:
                assert connection.address == daemon.address
                assert (await connection.get_tracking()).stratum == 4

        run(main())


def test_context_manager(address: str, run: Runner[Any]) -> None:
    with ScriptedDaemon(address=address) as daemon:

        async def main() -> None:
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
                with pytest.raises(ChronyUsageError, match="closed"):
                    await connection.get_tracking()
                await connection.close()

        run(main())


# --- tasks --------------------------------------------------------------------


def test_tasks_share_a_connection(address: str, run: Runner[Any]) -> None:
    with ScriptedDaemon(address=address, sources=many_sources(5)) as daemon:

        async def main() -> None:
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

        run(main())


if sys.version_info >= (3, 11):  # else there are no groups

    def test_error_of_one_task_of_a_group_leaves_the_connection_usable(
        run: Runner[Any],
    ) -> None:
        fault = faults.only("SOURCE_DATA", faults.status(2))
        with ScriptedDaemon(misbehave=fault) as daemon:

            async def main() -> None:
                async with AsyncChronyConnection(daemon.address) as connection:
                    with pytest.raises(Exception, match="TaskGroup") as caught:
                        async with asyncio.TaskGroup() as group:
                            for _ in range(10):
                                group.create_task(connection.get_tracking())
                                group.create_task(connection.get_sources())
                    assert isinstance(caught.value.exceptions[0], ChronyPermissionError)
                    assert (await connection.get_tracking()).stratum == 2

            run(main())


def test_the_loop_goes_on(run: Runner[Any]) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        async def main() -> None:
            ticker = asyncio.create_task(tick())
            connection = AsyncChronyConnection(daemon.address, timeout=0.1, retries=0)
            with pytest.raises(ChronyTimeoutError):
                await connection.get_tracking()
            ticker.cancel()
            await asyncio.wait([ticker])

        run(main())
    assert ticks > 10


def test_libchrony_itself_never_waits(address: str, run: Runner[Any]) -> None:
    async def main() -> None:
        async with AsyncChronyConnection(daemon.address) as connection:
            assert connection._session is not None
            assert not os.get_blocking(connection._session._fd)

    with ScriptedDaemon(address=address) as daemon:
        run(main())


def test_close_waits_for_the_calls_of_other_tasks(run: Runner[Any]) -> None:
    with ScriptedDaemon(misbehave=faults.delayed(0.05)) as daemon:

        async def main() -> None:
            connection = AsyncChronyConnection(daemon.address, timeout=20)
            running = asyncio.create_task(connection.get_tracking())
            waiting = asyncio.create_task(connection.get_tracking())
            await until(lambda: daemon.requests)
            await connection.close()
            assert connection.closed
            assert connection._session is None
            assert (await running).stratum == 2
            with pytest.raises(ChronyUsageError, match="closed"):
                await waiting

        run(main())


def test_cancelled_close_leaves_nothing_open(run: Runner[Any]) -> None:
    with ScriptedDaemon(misbehave=faults.delayed(0.05)) as daemon:
        before = descriptors()

        async def main() -> None:
            connection = AsyncChronyConnection(daemon.address, timeout=20)
            running = asyncio.create_task(connection.get_tracking())
            await until(lambda: daemon.requests)
            closing = asyncio.create_task(connection.close())
            await steps(3)
            closing.cancel()
            assert (await running).stratum == 2
            assert closing.cancelled()
            assert connection.closed
            assert connection.address is None
            assert connection._session is None

        run(main())
        assert descriptors() == before


def test_limit_of_a_call(run: Runner[Any]) -> None:
    async def main() -> None:
        connection = AsyncChronyConnection(daemon.address, timeout=3600, limit=0.1)
        async with connection:
            with pytest.raises(ChronyTimeoutError, match=r"limit of 0\.1 s"):
                await connection.get_tracking()
            daemon.misbehave = None
            assert (await connection.get_tracking()).stratum == 2

    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        run(main())


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
                with pytest.raises(ChronyUsageError, match="another event loop"):
                    run(call())
            task.cancel()
            stopped.run_until_complete(asyncio.wait([task]))
        finally:
            stopped.close()
        assert connection._session is None
        run(connection.close())


# --- cancelling -----------------------------------------------------------------


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("name", ["get_tracking", "get_sources"])
def test_cancelling_at_any_await(
    name: str,
    far: bool,
    address: str,
    run: Runner[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_queries, "_HIGH_LATENCY", -1.0 if far else 9e9)
    with ScriptedDaemon(address=address, sources=many_sources(12)) as daemon:
        expected = getattr(pychrony, name)(daemon.address)
        before = descriptors()
        # Else there may be nothing to wait for with a reader and a timer.
        daemon.misbehave = faults.first(6, faults.silent)

        async def main() -> None:
            in_loop = descriptors()
            connection = AsyncChronyConnection(daemon.address, timeout=20)
            cancelled = number = 0
            while number < 100:
                task = asyncio.ensure_future(getattr(connection, name)())
                for _ in range(number):
                    if not task.done():
                        # So long that an answer may arrive.
                        await asyncio.sleep(0.0001 if number % 2 else 0)
                task.cancel()
                await asyncio.wait([task])
                if task.cancelled():
                    cancelled += 1
                    assert connection._session is None
                    assert descriptors() == in_loop
                elif number > 5:
                    break
                number += 1
            assert cancelled > 1
            found = await getattr(connection, name)()
            assert found == expected
            await connection.close()
            assert descriptors() == in_loop

        run(main())
        assert descriptors() == before


@pytest.mark.parametrize("number", range(6))
def test_cancelling_while_others_wait_for_their_turn(
    number: int, run: Runner[Any]
) -> None:
    cancelled = threading.Event()

    def answer_later(_: Request, reply: bytes) -> Iterator[bytes]:
        cancelled.wait()
        yield reply

    with ScriptedDaemon(misbehave=answer_later) as daemon:

        async def main() -> None:
            async with AsyncChronyConnection(daemon.address, timeout=20) as connection:
                tasks = [
                    asyncio.create_task(connection.get_tracking()) for _ in range(6)
                ]
                await until(lambda: daemon.requests)
                tasks[number].cancel()
                cancelled.set()
                await asyncio.wait(tasks)
                assert [task.cancelled() for task in tasks] == [
                    index == number for index in range(6)
                ]
                assert {t.result().stratum for t in tasks if not t.cancelled()} == {2}

        run(main())


def test_cancelling_while_the_daemon_is_looked_for(
    run: Runner[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address, daemon.address))

        async def main() -> None:
            connection = AsyncChronyConnection(timeout=1000)
            before = descriptors()
            for begin in (connection.__aenter__, connection.get_tracking):
                daemon.requests.clear()
                task = asyncio.ensure_future(begin())
                await until(lambda: daemon.requests)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                assert descriptors() == before
            daemon.misbehave = None
            assert (await connection.get_tracking()).stratum == 2
            await connection.close()

        run(main())


def test_cancelling_while_a_name_is_resolved(
    run: Runner[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    released, asked = threading.Event(), threading.Event()

    def getaddrinfo(_: str, port: int, **__: Any) -> Any:
        asked.set()
        released.wait()
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    threads = threading.active_count()
    with ScriptedDaemon() as daemon:
        port = daemon.address.rpartition(":")[2]

        async def main() -> None:
            connection = AsyncChronyConnection(f"clock.invalid:{port}", timeout=1000)
            task = asyncio.create_task(connection.get_tracking())
            await until(asked.is_set)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            released.set()
            assert (await connection.get_tracking()).stratum == 2
            await connection.close()

        try:
            run(main())
        finally:
            released.set()
    while threading.active_count() > threads:  # the resolver's own
        time.sleep(0.001)


def test_wait_for(run: Runner[Any]) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:

        async def main() -> None:
            before = descriptors()
            connection = AsyncChronyConnection(daemon.address, timeout=1000)
            with pytest.raises(asyncio.TimeoutError) as caught:
                await asyncio.wait_for(connection.get_tracking(), 0.02)
            assert not isinstance(caught.value, ChronyError)
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await connection.get_tracking()
            assert descriptors() == before
            daemon.misbehave = None
            assert (await connection.get_tracking()).stratum == 2
            await connection.close()

        run(main())


# --- waiting ----------------------------------------------------------------------


@pytest.mark.timeout(30)
def test_full_queue_of_the_unix_socket(run: Runner[Any]) -> None:
    async def main(path: str) -> None:
        connection = AsyncChronyConnection(path, **QUICK)
        with pytest.raises(ChronyTimeoutError, match="hung or stopped"):
            await connection.get_tracking()

    with hung_daemon() as path:
        run(main(path))


@pytest.mark.timeout(30)
def test_full_queue_is_waited_for(run: Runner[Any]) -> None:
    def busy(request: Request, reply: bytes) -> Iterable[bytes]:
        time.sleep(0.002)
        return (reply,)

    async def ask(path: str) -> int:
        connection = AsyncChronyConnection(path, timeout=20, retries=0)
        async with connection:
            return (await connection.get_tracking()).stratum

    async def main(path: str) -> None:
        assert await asyncio.gather(*(ask(path) for _ in range(40))) == [2] * 40

    with (
        short_directory() as directory,
        ScriptedDaemon(address=f"{directory}/chronyd.sock", misbehave=busy) as daemon,
    ):
        run(main(daemon.address))


def test_answer_that_is_there_counts_after_its_deadline(run: Runner[Any]) -> None:
    """A loop that was held up for too long still finds it."""
    answered = threading.Event()

    def answering(request: Request, reply: bytes) -> Iterable[bytes]:
        yield reply
        answered.set()

    with ScriptedDaemon(misbehave=answering) as daemon:

        async def main() -> None:
            connection = AsyncChronyConnection(daemon.address, timeout=1e-3, retries=0)
            async with connection:
                task = asyncio.create_task(connection.get_tracking())
                await steps(1)
                answered.wait()
                time.sleep(0.01)
                assert (await task).stratum == 2

        run(main())


def test_waits(run: Runner[Any]) -> None:
    unexpected: list[Any] = []

    async def main() -> None:
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

    run(main())
    assert unexpected == []


def test_conversation_without_a_wait(run: Runner[Any]) -> None:
    def short() -> Any:
        return 7
        yield

    async def main() -> None:
        assert await _drive(Waiter(), short()) == 7

    run(main())


# --- what is left behind ------------------------------------------------------------


def test_what_was_answered_is_not_kept_until_its_timeout(run: Runner[Any]) -> None:
    async def main() -> None:
        async with AsyncChronyConnection(daemon.address, timeout=1000) as connection:
            for _ in range(100):
                await connection.get_tracking()
            gc.collect()
            waits = [one for one in gc.get_objects() if isinstance(one, asyncio.Future)]
            assert len(waits) < 50

    with ScriptedDaemon() as daemon:
        run(main())


def test_dropped_connection_warns_and_closes(address: str, run: Runner[Any]) -> None:
    with ScriptedDaemon(address=address) as daemon:
        before = descriptors()

        async def main() -> None:
            connection = AsyncChronyConnection(daemon.address)
            await connection.get_tracking()

        with pytest.warns(ResourceWarning, match=f"at {daemon.address}"):
            run(main())
            gc.collect()
        assert descriptors() == before


def test_forked_child(address: str, run: Runner[Any]) -> None:
    with ScriptedDaemon(address=address) as daemon:
        connection = AsyncChronyConnection(daemon.address)

        async def tracking() -> int:
            return (await connection.get_tracking()).stratum

        async def usage() -> None:
            with pytest.raises(ChronyUsageError, match="child"):
                await connection.get_tracking()
            with pytest.raises(ChronyUsageError, match="child"):
                await connection.__aenter__()
            await connection.close()
            async with connection:
                assert await tracking() == 2

        assert run(tracking()) == 2
        in_child(lambda: asyncio.run(usage()))
        assert run(tracking()) == 2
        in_child(lambda: None)
        assert run(tracking()) == 2
        run(connection.close())


def test_fork_during_a_call() -> None:
    """The child has neither the task that is in the middle of it, nor its lock."""
    with ScriptedDaemon(misbehave=faults.first(1, faults.delayed(0.1))) as daemon:
        connection = AsyncChronyConnection(daemon.address, timeout=20)

        async def fresh() -> None:
            with pytest.raises(ChronyUsageError, match="child"):
                await connection.get_tracking()
            await connection.close()
            async with connection:
                assert (await connection.get_tracking()).stratum == 2

        def child() -> None:
            asyncio._set_running_loop(None)
            asyncio.new_event_loop().run_until_complete(fresh())

        async def main() -> None:
            task = asyncio.create_task(connection.get_tracking())
            await until(lambda: daemon.requests)
            in_child(child)
            assert (await task).stratum == 2
            await connection.close()

        asyncio.run(main())


EXIT = """
import asyncio, sys, pychrony
connection = pychrony.AsyncChronyConnection(sys.argv[1])
async def main():
    print((await connection.get_tracking()).stratum)
{end}
"""


@pytest.mark.parametrize(
    "end",
    [
        "asyncio.run(main())",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(main())",
        """async def cut():
    await main()
    asyncio.create_task(connection.get_sources())
    await asyncio.sleep(0)
asyncio.run(cut())""",
    ],
)
def test_exit_with_an_open_connection(end: str, address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        daemon.misbehave = faults.only("N_SOURCES", faults.silent)
        result = subprocess.run(
            [
                *(sys.executable, "-W", "always", "-c"),
                *(EXIT.format(end=end), daemon.address),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    assert result.stdout == "2\n"
    assert "Traceback" not in result.stderr
    # A task that is cancelled closes it, nothing else does.
    unclosed = f"unclosed connection to chronyd at {daemon.address}" in result.stderr
    assert unclosed == ("cut" not in end)


def test_no_warning_of_any_kind(address: str, run: Runner[Any]) -> None:
    with (
        ScriptedDaemon(address=address) as daemon,
        warnings.catch_warnings(record=True) as seen,
    ):
        warnings.simplefilter("always")

        async def main() -> None:
            async with AsyncChronyConnection(daemon.address) as connection:
                task = asyncio.create_task(connection.get_tracking())
                await steps(2)
                task.cancel()
                await asyncio.wait([task])

        run(main())
        gc.collect()
    assert not seen
