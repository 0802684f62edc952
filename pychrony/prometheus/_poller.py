"""The selector of the exporter's event loop, which also runs request generators.

For each request, asyncio would make a future, a timer, two changes of its selector
and a round of the loop, which took more time than the request itself. Here the replies
of all chronyds come through one ``epoll``, which also contains asyncio's selector. So
one wait is for both, and asyncio has one future for each scrape.
"""

from __future__ import annotations

import asyncio
from math import inf
from select import EPOLLIN, EPOLLONESHOT, epoll
from selectors import EpollSelector
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from selectors import SelectorKey
    from typing import TypeVar

    from pychrony._waiting import RequestGenerator

    T = TypeVar("T")

# How many replies are taken at once.
_AT_ONCE = 1024


def run(main: Callable[[Poller], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine, which gets the poller, on an event loop with a poller."""
    poller = Poller()
    loop = asyncio.SelectorEventLoop(poller)
    try:
        return loop.run_until_complete(main(poller))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()


class Poller(EpollSelector):
    """A selector for asyncio that also runs request generators."""

    def __init__(self) -> None:
        super().__init__()
        self._replies = epoll()
        self._replies.register(self.fileno(), EPOLLIN)
        self._waiting: dict[int, _Running] = {}
        # No deadline is earlier than this.
        self._earliest = inf
        # Whether asyncio must resume a coroutine that awaits a generator.
        self._ended = False

    def close(self) -> None:
        self._replies.close()
        super().close()

    async def run(self, generator: RequestGenerator[T]) -> T:
        """Run a request generator to its end, and return its result."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        running = _Running(generator, result)
        try:
            self._resume(running, None)
            return await result
        finally:
            if self._waiting.get(running.fd) is running:
                del self._waiting[running.fd]
            generator.close()

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Run generators until asyncio has something to do, or the timeout is over."""
        end = inf if timeout is None else monotonic() + timeout
        self._ended = False
        while True:
            now = monotonic()
            until = min(end, self._earliest)
            replies = self._replies.poll(
                None if until == inf else max(0.0, until - now), _AT_ONCE
            )
            # In turns: with the oldest first, the newest exceeded their limits when the
            # processor was too slow for all.
            for fd, _ in replies:
                running = self._waiting.pop(fd, None)
                if running:
                    self._resume(running, True)
            # Only what was not there when it was looked for after its deadline is late.
            if now >= self._earliest and len(replies) < _AT_ONCE:
                self._end_waits(now)
            if any(fd == self.fileno() for fd, _ in replies):
                return super().select(0)
            if self._ended or monotonic() >= end:
                return []

    def _resume(self, running: _Running, ready: bool | None) -> None:
        if running.result.done():  # cancelled, but not yet removed
            return
        try:
            fd, events, deadline = running.generator.send(ready)
            try:
                self._replies.modify(fd, events | EPOLLONESHOT)
            except FileNotFoundError:  # it is new, or another one with the same number
                self._replies.register(fd, events | EPOLLONESHOT)
        except StopIteration as end:
            self._ended = True
            running.result.set_result(end.value)
            return
        except Exception as error:
            self._ended = True
            running.result.set_exception(error)
            return
        running.fd, running.deadline = fd, deadline
        self._waiting[fd] = running
        self._earliest = min(self._earliest, deadline)

    def _end_waits(self, now: float) -> None:
        """Resume the generators whose deadline was before ``now``."""
        self._earliest = inf
        for running in list(self._waiting.values()):
            if running.deadline <= now:
                del self._waiting[running.fd]
                self._resume(running, False)
        deadlines = (running.deadline for running in self._waiting.values())
        self._earliest = min(deadlines, default=inf)


class _Running:
    """A generator, what it waits for, and the future of its result."""

    __slots__ = ("deadline", "fd", "generator", "result")

    def __init__(self, generator: Any, result: asyncio.Future[Any]) -> None:
        self.generator = generator
        self.result = result
        self.fd = -1
        self.deadline = inf
