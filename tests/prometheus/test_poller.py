"""The poller: what is late, and what comes for a generator that nobody awaits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator
from math import inf
from select import POLLIN
from time import monotonic
from typing import Any

import pytest

from pychrony.prometheus import _poller
from pychrony.prometheus._poller import Poller


def waiting(fd: int, deadline: float) -> Generator[tuple[int, int, float], bool, bool]:
    return (yield fd, POLLIN, deadline)


def start(poller: Poller, fd: int, deadline: float = inf) -> asyncio.Task[bool]:
    return asyncio.create_task(poller.run(waiting(fd, deadline)))


@pytest.fixture
def pipe() -> Any:
    here, there = os.pipe()
    yield here, there
    os.close(here)
    os.close(there)


def test_ready_and_late(pipe: tuple[int, int]) -> None:
    here, there = pipe

    async def play(poller: Poller) -> list[bool]:
        late = await start(poller, here, monotonic() + 0.01)
        task = start(poller, here)
        await asyncio.sleep(0)
        os.write(there, b"x")
        return [late, await task]

    assert _poller.run(play) == [False, True]


def test_reply_that_is_there_is_not_late(pipe: tuple[int, int]) -> None:
    """Though the process got no processor until long after the deadline."""
    here, there = pipe

    async def play(poller: Poller) -> list[bool]:
        deadline = monotonic() + 0.01
        tasks = [start(poller, here, deadline)]
        await asyncio.sleep(0)
        os.write(there, b"x")
        time.sleep(0.05)
        return await asyncio.gather(*tasks)

    assert _poller.run(play) == [True]


def test_more_replies_than_are_taken_at_once(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are not taken yet are not late."""
    monkeypatch.setattr(_poller, "_AT_ONCE", 1)
    here, there = pipe
    copies = [os.dup(here) for _ in range(3)]
    os.write(there, b"x")

    async def play(poller: Poller) -> list[bool]:
        return await asyncio.gather(*(start(poller, copy, 0.0) for copy in copies))

    try:
        assert _poller.run(play) == [True] * 3
    finally:
        for copy in copies:
            os.close(copy)


def test_timers_of_asyncio_go_on() -> None:
    async def play(_: Poller) -> bool:
        begin = monotonic()
        await asyncio.sleep(0.05)
        return monotonic() - begin >= 0.05

    assert _poller.run(play)


def test_answer_for_a_cancelled_task(pipe: tuple[int, int]) -> None:
    """It comes before the task has ended, or after that."""
    here, there = pipe

    async def play(poller: Poller) -> None:
        task = start(poller, here)
        await asyncio.sleep(0)
        os.write(there, b"x")
        task.cancel()
        poller.select(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        os.read(here, 1)

        task = start(poller, here)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        os.write(there, b"x")
        poller.select(0)
        assert not poller._waiting

    _poller.run(play)


def test_error_of_a_generator(pipe: tuple[int, int]) -> None:
    """At once, or after a wait."""

    def failing(waits: int) -> Generator[tuple[int, int, float], bool, None]:
        for _ in range(waits):
            yield pipe[0], POLLIN, 0.0
        raise ZeroDivisionError

    async def play(poller: Poller) -> None:
        for waits in range(2):
            with pytest.raises(ZeroDivisionError):
                await poller.run(failing(waits))

    _poller.run(play)


def test_tasks_that_are_left_are_cancelled(pipe: tuple[int, int]) -> None:
    tasks: list[asyncio.Task[bool]] = []

    async def play(poller: Poller) -> None:
        tasks.append(start(poller, pipe[0]))
        await asyncio.sleep(0)

    _poller.run(play)
    assert tasks[0].cancelled()
