"""The poller: what comes for a generator that is not waited for any more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from contextlib import closing
from math import inf
from select import POLLIN
from time import monotonic

import pytest

from pychrony.prometheus._poller import Poller


def waiting(fd: int, deadline: float) -> Generator[tuple[int, int, float], bool, bool]:
    return (yield fd, POLLIN, deadline)


async def with_pipe(late: float = inf) -> bool:
    """Run a generator that waits for a pipe; write to it if there is time."""
    here, there = os.pipe()
    try:
        with closing(Poller()) as poller:
            task = asyncio.create_task(poller.run(waiting(here, monotonic() + late)))
            await asyncio.sleep(0)
            if late == inf:
                os.write(there, b"x")
            return bool(await task)
    finally:
        os.close(here)
        os.close(there)


def test_ready_and_late() -> None:
    assert asyncio.run(with_pipe())
    assert not asyncio.run(with_pipe(0.01))


def test_answer_for_a_cancelled_task() -> None:
    """It comes before the task has ended, or after that."""

    async def play() -> None:
        here, there = os.pipe()
        with closing(Poller()) as poller:
            task = asyncio.create_task(poller.run(waiting(here, inf)))
            await asyncio.sleep(0)
            os.write(there, b"x")
            task.cancel()
            poller._ready()
            with pytest.raises(asyncio.CancelledError):
                await task
            os.read(here, 1)

            task = asyncio.create_task(poller.run(waiting(here, inf)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            os.write(there, b"x")
            poller._ready()
            assert not poller._waiting
        os.close(here)
        os.close(there)

    asyncio.run(play())


def test_error_of_a_generator() -> None:
    def failing() -> Generator[tuple[int, int, float], bool, None]:
        raise ZeroDivisionError
        yield 0, 0, 0.0

    async def play() -> None:
        with closing(Poller()) as poller:
            await poller.run(failing())

    with pytest.raises(ZeroDivisionError):
        asyncio.run(play())
