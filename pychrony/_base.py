"""The base of both connections: target, timeouts, current session."""

from __future__ import annotations

import os

from . import _address, _advice
from ._queries import probe
from ._session import Session
from ._waiting import within
from .enums import Transport
from .exceptions import (
    ChronyConnectionError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
    ChronyUsageError,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from ._address import Target
    from ._waiting import RequestGenerator

    T = TypeVar("T")

_A_DAY = 86_400


def timeouts_of(timeout: float, retries: int) -> list[float]:
    """Return the timeouts of a request and of its retries [s].

    Raises:
        ValueError: a value is out of range, or the sum is more than a day.
    """
    if 0 <= retries < 99 and 0 < timeout <= _A_DAY:
        seconds = [timeout * 2.0**number for number in range(retries + 1)]
        if sum(seconds) <= _A_DAY:
            return seconds
    raise ValueError(
        f"timeout {timeout!r} s and {retries!r} retries: the timeout must be "
        "positive, retries must not be negative, and all waits may take a day at most"
    )


def open_session(
    targets: list[Target], timeouts: Sequence[float], *, blocking: bool
) -> RequestGenerator[Session]:
    """Open a session to the first target where a chronyd replies.

    Connecting a UDP socket sends nothing, so with several targets only a reply
    counts. All are tried one after the other with the first timeout, then those
    that did not reply with the doubled timeout, and so on.
    """
    if targets[0].is_name:
        targets = yield from _address.resolve(targets[0], sum(timeouts))
    if len(targets) == 1:
        return Session(targets[0], timeouts, blocking=blocking)
    failures: dict[Target, ChronyError] = {}
    for timeout in timeouts:
        for target in targets:
            failed = failures.get(target)
            if failed and not isinstance(failed, ChronyTimeoutError):
                continue
            session = None
            try:
                session = Session(target, [timeout], blocking=blocking)
                yield from probe(session)
                session.set_timeouts(timeouts, blocking=blocking)
                return session
            except BaseException as error:
                if session:
                    session.close()
                if not isinstance(
                    error, (ChronyConnectionError, ChronyPermissionError)
                ):
                    raise
                failures[target] = error
    silent = any(isinstance(error, TimeoutError) for error in failures.values())
    kind = ChronyTimeoutError if silent else ChronyConnectionError
    text = _advice.summary(
        (error.message for error in failures.values()),
        local=targets[0].transport is Transport.UNIX_SOCKET,
    )
    raise kind(f"no chronyd answered. {text}")


def just_open(_: Session) -> RequestGenerator[None]:
    """Send no request: used to open a session."""
    yield from ()


class BaseConnection:
    """The targets of a connection, and its session while it is open."""

    _blocking = False  # whether its sessions may block, see Session.blocking

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 1.0,
        retries: int = 2,
        limit: float | None = None,
    ) -> None:
        self._timeouts = timeouts_of(timeout, retries)
        self._limit = limit
        if limit is not None:
            if not 0 < limit <= _A_DAY:
                raise ValueError(
                    f"limit {limit!r} s: it must be positive, and a day at most"
                )
            self._blocking = False  # the limit may end a wait before its timeout
        wanted = _address.LOCAL if address is None else (address,)
        self._targets = [_address.parse(one) for one in wanted]
        self._session: Session | None = None
        # What the calls share, by the process: a lock of the parent may be held by a
        # thread that does not exist in a forked child.
        self._call_states: dict[int, Any] = {}
        self._connected: Target | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._session else "not open"
        return f"<{type(self).__name__} {self._place()} ({state})>"

    def _place(self) -> str:
        return str(self._connected or " | ".join(map(str, self._targets)))

    @property
    def address(self) -> str | None:
        """The address in use, as given or found; ``None`` if not connected."""
        return self._connected.text if self._connected else None

    @property
    def transport(self) -> Transport | None:
        """The transport in use; ``None`` if not connected."""
        return self._connected.transport if self._connected else None

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called; a ``with`` block opens the connection again."""
        return self._closed

    def _requests(
        self, query: Callable[[Session], RequestGenerator[T]]
    ) -> RequestGenerator[T]:
        """Return the requests of a query, which open a session if there is none."""
        session = self._session
        requests = query(session) if session else self._open_and_read(query)
        if self._limit is None:
            return requests
        return within(self._limit, self._place(), requests)

    def _open_and_read(
        self, query: Callable[[Session], RequestGenerator[T]]
    ) -> RequestGenerator[T]:
        if self._closed:
            raise ChronyUsageError(
                f"{self!r}: open it again in a 'with' block, or use a new connection"
            )
        self._session = yield from open_session(
            self._targets, self._timeouts, blocking=self._blocking
        )
        self._connected = self._session.target
        return (yield from query(self._session))

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _drop_if_inherited(self) -> None:
        if self._session is not None and self._session.pid != os.getpid():
            self._drop()

    def _check_process(self) -> int:
        """Return the ID of this process, if it may use the connection."""
        pid = os.getpid()
        session = self._session
        if session is not None and session.pid != pid:
            raise ChronyUsageError(
                f"{self!r} was opened by process {session.pid} and cannot be used in "
                f"its child {pid}. Open another in the child (closing this one there "
                "does not affect the parent)"
            )
        return pid
