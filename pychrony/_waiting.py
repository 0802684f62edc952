"""How requests wait: request generators, alone or many side by side.

All code that has to wait is a generator. It yields ``(fd, events, deadline)`` to
wait until the descriptor is ready for those ``poll`` events. The driver sends
back whether it was ready before the deadline (on the ``time.monotonic`` clock). So
each driver waits in its own way: blocking, or in asyncio's event loop.
"""

from __future__ import annotations

from collections import deque
from math import inf
from time import monotonic

from ._poll import EPOLLIN, EPOLLONESHOT, epoll, poll
from .exceptions import ChronyConnectionError, ChronyTimeoutError

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")
    Wait: TypeAlias = tuple[int, int, float]
    RequestGenerator: TypeAlias = Generator[Wait, bool, T]
    # A generator for side_by_side(). If it yields None, the other tasks and the
    # driver run first.
    Task: TypeAlias = Generator[Wait | None, Any, None]

# How many tasks run before the driver does.
_AT_ONCE = 64


def side_by_side(tasks: Iterable[Task]) -> RequestGenerator[None]:
    """Run tasks until all have returned, or one raises an error.

    It waits for a single ``epoll`` descriptor, so that every driver can run it.

    Raises:
        ChronyConnectionError: there is no descriptor for ``epoll``.
    """
    tasks = list(tasks)
    ready: deque[tuple[Task, Any]] = deque((each, None) for each in tasks)
    waiting: dict[int, tuple[Task, float]] = {}
    # A lower bound of all deadlines. It is computed again only when it has passed:
    # nearly all replies come long before their deadlines.
    earliest = inf
    polling = _epoll()
    try:
        while True:
            for _ in range(len(ready)):
                task, answer = ready.popleft()
                try:
                    wait = task.send(answer)
                except StopIteration:
                    continue
                if wait is None:
                    ready.append((task, None))
                    continue
                fd, events, deadline = wait
                _arm(polling, fd, events | EPOLLONESHOT)
                waiting[fd] = task, deadline
                earliest = min(earliest, deadline)
            if not (ready or waiting):
                return
            yield polling.fileno(), EPOLLIN, 0.0 if ready else earliest
            # Before it looks for replies: this process may be held up in between.
            now = monotonic()
            answered = polling.poll(0, _AT_ONCE)
            for fd, _ in answered:
                if fd in waiting:
                    ready.append((waiting.pop(fd)[0], True))
            # If _AT_ONCE replies came, there may be more, and no task is late yet.
            if now >= earliest and len(answered) < _AT_ONCE:
                late = [fd for fd, (_, deadline) in waiting.items() if deadline <= now]
                ready.extend((waiting.pop(fd)[0], False) for fd in late)
                earliest = min((when for _, when in waiting.values()), default=inf)
    finally:
        polling.close()
        for task in tasks:
            task.close()


def within(
    limit: float, place: str, requests: RequestGenerator[T]
) -> RequestGenerator[T]:
    """Limit the total time of a request generator [s].

    A reply that is there counts even if this process was held up past the limit, but
    nothing more is waited for.

    Raises:
        ChronyTimeoutError: it takes longer.
    """
    end = monotonic() + limit
    late = False
    ready: Any = None
    try:
        while True:
            fd, events, deadline = requests.send(ready)
            ready = not late and (yield fd, events, min(deadline, end))
            late = monotonic() >= end
            if late and not ready:
                raise ChronyTimeoutError(
                    f"{place}: not done within the limit of {limit:g} s. Does chronyd "
                    "answer this machine (its cmdallow, a firewall), is it far away or "
                    "its name slow to resolve, are its sources many? Or raise the limit"
                )
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        requests.close()


def _epoll() -> Any:
    try:
        return epoll()
    except OSError as reason:
        raise ChronyConnectionError(
            f"cannot wait for several answers: {reason.strerror}"
        ) from reason


def _arm(polling: Any, fd: int, events: int) -> None:
    try:
        polling.modify(fd, events)
    except FileNotFoundError:  # it is new, or its number is used again
        polling.register(fd, events)


class Waiter:
    """Waits with ``poll``.

    It keeps its ``poll`` object while the descriptor and the events stay the same:
    making one takes as long as a wait.
    """

    def __init__(self) -> None:
        self._wanted = -1, 0

    def wait(self, fd: int, events: int, deadline: float) -> bool:
        """Return whether ``fd`` was ready before the deadline."""
        if self._wanted != (fd, events):
            # A new object, as a signal handler may raise an exception between any
            # two bytecodes, and leave the old one half changed.
            self._wanted = -1, 0
            self._poll = poll()
            self._poll.register(fd, events)
            self._wanted = fd, events
        return bool(self._poll.poll(max(0.0, deadline - monotonic()) * 1000))

    def drive(self, requests: RequestGenerator[T]) -> T:
        """Run a request generator to its end, and return its result."""
        ready: Any = None
        try:
            while True:
                ready = self.wait(*requests.send(ready))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            requests.close()
