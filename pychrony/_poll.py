"""``poll`` and ``epoll``, or what replaces them if the module ``select`` lacks them.

When gevent and eventlet patch that module, both remove ``epoll`` from it, and
eventlet also removes ``poll``. Only Linux has ``epoll``. A single wait is possible
everywhere; many side by side need ``epoll``.
"""

from __future__ import annotations

import select
import sys
from errno import ENOSYS
from select import POLLIN

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from typing import Any

EPOLLIN: int = getattr(select, "EPOLLIN", 0x1)
EPOLLONESHOT: int = getattr(select, "EPOLLONESHOT", 1 << 30)


class _PollBySelect:
    """The part of ``poll`` that is used here, for one descriptor."""

    def register(self, fd: int, events: int) -> None:
        self._reading = [fd] if events & POLLIN else []
        self._writing = [] if events & POLLIN else [fd]

    def poll(self, milliseconds: float) -> list[Any]:
        timeout = milliseconds / 1000
        readable, writable, _ = select.select(self._reading, self._writing, [], timeout)
        return readable + writable


def _no_epoll() -> Any:
    """Raise an error that says what is possible without ``epoll``.

    Raises:
        OSError: always, like ``epoll`` when it fails.
    """
    for patch in ("gevent", "eventlet"):
        if patch in sys.modules:
            advice = f"{patch} removed epoll. Read each in a greenlet of its own"
            break
    else:
        advice = "this system has no epoll. Read one after the other, or in threads"
    raise OSError(ENOSYS, advice)


epoll: Any = getattr(select, "epoll", _no_epoll)
poll: Any = getattr(select, "poll", _PollBySelect)
