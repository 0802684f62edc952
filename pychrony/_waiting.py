"""What a conversation is, and how many of them run side by side.

Whatever has to wait is a generator. It yields ``(fd, events, deadline)`` where
it has to wait until the descriptor is ready for those ``poll`` events, and is
sent whether that came before the deadline (on the ``time.monotonic`` clock).
How to wait is the business of the drivers.
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
    Conversation: TypeAlias = Generator[Wait, bool, T]
    # One that yields None lets the others, and the driver, go first.
    Polite: TypeAlias = Generator[Wait | None, Any, None]

# How many are served before the driver has its turn.
_AT_ONCE = 64


def side_by_side(conversations: Iterable[Polite]) -> Conversation[None]:
    """Run conversations until all have returned, or one raises an error.

    It waits for one ``epoll`` descriptor, so that every driver can drive it.

    Raises:
        ChronyConnectionError: there is no descriptor for that.
    """
    conversations = list(conversations)
    ready: deque[tuple[Polite, Any]] = deque((each, None) for each in conversations)
    waiting: dict[int, tuple[Polite, float]] = {}
    # No deadline is earlier. It is exact only after it has passed: nearly all
    # answers come long before their deadlines.
    earliest = inf
    polling = _epoll()
    try:
        while True:
            for _ in range(len(ready)):
                conversation, answer = ready.popleft()
                try:
                    wait = conversation.send(answer)
                except StopIteration:
                    continue
                if wait is None:
                    ready.append((conversation, None))
                    continue
                fd, events, deadline = wait
                _arm(polling, fd, events | EPOLLONESHOT)
                waiting[fd] = conversation, deadline
                earliest = min(earliest, deadline)
            if not (ready or waiting):
                return
            yield polling.fileno(), EPOLLIN, 0.0 if ready else earliest
            answered = polling.poll(0, _AT_ONCE)
            for fd, _ in answered:
                if fd in waiting:
                    ready.append((waiting.pop(fd)[0], True))
            now = monotonic()
            # Else there may be others whose answers are there.
            if now >= earliest and len(answered) < _AT_ONCE:
                late = [fd for fd, (_, deadline) in waiting.items() if deadline <= now]
                ready.extend((waiting.pop(fd)[0], False) for fd in late)
                earliest = min((when for _, when in waiting.values()), default=inf)
    finally:
        polling.close()
        for conversation in conversations:
            conversation.close()


def within(limit: float, place: str, conversation: Conversation[T]) -> Conversation[T]:
    """Let a conversation take so many seconds in all.

    Raises:
        ChronyTimeoutError: it has not ended by then.
    """
    end = monotonic() + limit
    ready: Any = None
    try:
        while True:
            fd, events, deadline = conversation.send(ready)
            ready = yield fd, events, min(deadline, end)
            if monotonic() >= end:
                raise ChronyTimeoutError(
                    f"{place}: not done within the limit of {limit:g} s. Does chronyd "
                    "answer this machine (its cmdallow, a firewall), is it far away or "
                    "its name slow to resolve, are its sources many? Or raise the limit"
                )
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        conversation.close()


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
    except FileNotFoundError:  # it is new, or another one with the same number
        polling.register(fd, events)


class Waiter:
    """Keeps its ``poll`` object for equal waits: to make one costs as much as one."""

    def __init__(self) -> None:
        self._wanted = -1, 0

    def wait(self, fd: int, events: int, deadline: float) -> bool:
        """Return whether ``fd`` was ready before the deadline."""
        if self._wanted != (fd, events):
            # A new one: a signal handler may raise an exception at any bytecode,
            # and leave what is changed half changed.
            self._wanted = -1, 0
            self._poll = poll()
            self._poll.register(fd, events)
            self._wanted = fd, events
        return bool(self._poll.poll(max(0.0, deadline - monotonic()) * 1000))

    def drive(self, conversation: Conversation[T]) -> T:
        """Wait for what the conversation waits for until it returns."""
        ready: Any = None
        try:
            while True:
                ready = self.wait(*conversation.send(ready))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            conversation.close()
