"""Awaited calls that are cancelled, and what a dropped connection leaves."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import (
    Runner,
    cancelled,
    descriptors,
    in_child,
    many_sources,
    on_each_loop,
    python,
    steps,
    until,
)

import pychrony
from pychrony import AsyncChronyConnection, ChronyUsageError, _address
from pychrony.testing import Request, ScriptedDaemon, faults


@on_each_loop
@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("name", ["get_tracking", "get_sources"])
async def test_cancelling_at_any_await(name: str, address: str) -> None:
    with ScriptedDaemon(address=address, sources=many_sources(12)) as daemon:
        expected = getattr(pychrony, name)(daemon.address)
        before = descriptors()
        # Else there may be nothing to wait for with a reader and a timer.
        daemon.misbehave = faults.first(6, faults.silent)
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
                assert descriptors() == before
            elif number > 5:
                break
            number += 1
        assert cancelled > 1
        found = await getattr(connection, name)()
        assert found == expected
        await connection.close()
        assert descriptors() == before


@on_each_loop
@pytest.mark.parametrize("number", range(6))
async def test_cancelling_while_others_wait_for_their_turn(number: int) -> None:
    cancelled = threading.Event()

    def answer_later(_: Request, reply: bytes) -> Iterator[bytes]:
        cancelled.wait()
        yield reply

    with ScriptedDaemon(misbehave=answer_later) as daemon:
        async with AsyncChronyConnection(daemon.address, timeout=20) as connection:
            tasks = [asyncio.create_task(connection.get_tracking()) for _ in range(6)]
            await until(lambda: daemon.requests)
            tasks[number].cancel()
            cancelled.set()
            await asyncio.wait(tasks)
            assert [task.cancelled() for task in tasks] == [
                index == number for index in range(6)
            ]
            assert {t.result().stratum for t in tasks if not t.cancelled()} == {2}


@on_each_loop
async def test_cancelling_while_the_daemon_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address, daemon.address))

        connection = AsyncChronyConnection(timeout=1000)
        before = descriptors()
        for begin in (connection.__aenter__, connection.get_tracking):
            daemon.requests.clear()
            task = asyncio.ensure_future(begin())
            await until(lambda: daemon.requests)
            await cancelled(task)
            assert descriptors() == before
        daemon.misbehave = None
        assert (await connection.get_tracking()).stratum == 2
        await connection.close()


@on_each_loop
async def test_cancelling_while_a_name_is_resolved(
    monkeypatch: pytest.MonkeyPatch,
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

        try:
            connection = AsyncChronyConnection(f"clock.invalid:{port}", timeout=1000)
            task = asyncio.create_task(connection.get_tracking())
            await until(asked.is_set)
            await cancelled(task)
            released.set()
            assert (await connection.get_tracking()).stratum == 2
            await connection.close()
        finally:
            released.set()
    while threading.active_count() > threads:  # the resolver's own
        time.sleep(0.001)


@on_each_loop
async def test_wait_for_ends_a_call() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        before = descriptors()
        connection = AsyncChronyConnection(daemon.address, timeout=1000)
        with pytest.raises(asyncio.TimeoutError) as caught:
            await asyncio.wait_for(connection.get_tracking(), 0.02)
        assert not isinstance(caught.value, pychrony.ChronyError)
        if sys.version_info >= (3, 11):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await connection.get_tracking()
        assert descriptors() == before
        daemon.misbehave = None
        assert (await connection.get_tracking()).stratum == 2
        await connection.close()


@on_each_loop
async def test_answered_call_is_not_kept_until_its_timeout() -> None:
    with ScriptedDaemon() as daemon:
        async with AsyncChronyConnection(daemon.address, timeout=1000) as connection:
            for _ in range(100):
                await connection.get_tracking()
            gc.collect()
            waits = [one for one in gc.get_objects() if isinstance(one, asyncio.Future)]
            assert len(waits) < 50


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


async def used_in_a_child(connection: AsyncChronyConnection) -> None:
    """What the parent opened is refused, until it is closed and opened again."""
    with pytest.raises(ChronyUsageError, match="child"):
        await connection.get_tracking()
    with pytest.raises(ChronyUsageError, match="child"):
        await connection.__aenter__()
    await connection.close()
    async with connection:
        assert (await connection.get_tracking()).stratum == 2


def test_forked_child(address: str, run: Runner[Any]) -> None:
    with ScriptedDaemon(address=address) as daemon:
        connection = AsyncChronyConnection(daemon.address)

        async def tracking() -> int:
            return (await connection.get_tracking()).stratum

        assert run(tracking()) == 2
        in_child(lambda: asyncio.run(used_in_a_child(connection)))
        assert run(tracking()) == 2
        in_child(lambda: None)
        assert run(tracking()) == 2
        run(connection.close())


def test_fork_during_a_call() -> None:
    """The child has neither the task that is in the middle of it, nor its lock."""
    with ScriptedDaemon(misbehave=faults.first(1, faults.delayed(0.1))) as daemon:
        connection = AsyncChronyConnection(daemon.address, timeout=20)

        def child() -> None:
            asyncio._set_running_loop(None)
            used = used_in_a_child(connection)
            asyncio.new_event_loop().run_until_complete(used)

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
        code = EXIT.format(end=end)
        result = python(code, daemon.address, options=["-W", "always"])
    assert result.stdout == "2\n"
    assert "Traceback" not in result.stderr
    # A task that is cancelled closes it, nothing else does.
    unclosed = f"unclosed connection to chronyd at {daemon.address}" in result.stderr
    assert unclosed == ("cut" not in end)


@on_each_loop
async def test_cancelled_call_warns_of_nothing(address: str) -> None:
    with (
        ScriptedDaemon(address=address) as daemon,
        warnings.catch_warnings(record=True) as seen,
    ):
        warnings.simplefilter("always")

        async with AsyncChronyConnection(daemon.address) as connection:
            task = asyncio.create_task(connection.get_tracking())
            await steps(2)
            task.cancel()
            await asyncio.wait([task])
        gc.collect()
    assert not seen
