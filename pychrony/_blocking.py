"""How blocking callers wait: with ``poll``, each thread for itself."""

from __future__ import annotations

from select import poll
from time import monotonic

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from ._conversation import Conversation

    T = TypeVar("T")


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
