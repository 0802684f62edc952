"""The asyncio drivers: the same connection and the same sweep, awaited."""

from __future__ import annotations

import asyncio
import os
from select import POLLIN
from time import monotonic

from ._base import BaseConnection, nothing, waits
from ._queries import every, generic, one, one_or_none
from .exceptions import ChronyUsageError
from .fleet import Sweep
from .models import (
    Activity,
    AuthData,
    NTPData,
    RTCData,
    SelectData,
    ServerStats,
    Smoothing,
    Source,
    SourceStats,
    TrackingStatus,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from types import TracebackType
    from typing import Any, TypeVar

    from ._session import Session
    from ._waiting import Conversation
    from .fleet import Address
    from .models import Value

    T = TypeVar("T")

__all__ = ["AsyncChronyConnection", "async_query_many"]


class AsyncChronyConnection(BaseConnection):
    """:class:`ChronyConnection` for asyncio: the same, awaited.

    Use it with ``async with``, or await :meth:`close`. Tasks may share a
    connection, their calls take turns. A call that is cancelled leaves nothing
    behind, and the connection usable: the next call opens it again.

    Arguments and errors are those of :class:`ChronyConnection`.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 1.0,
        retries: int = 2,
        limit: float | None = None,
    ) -> None:
        super().__init__(address, timeout=timeout, retries=retries, limit=limit)
        self._here: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> AsyncChronyConnection:
        """Open the connection, see :meth:`ChronyConnection.__enter__`."""
        self._check_process()
        self._closed = False
        await self._turn(nothing)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; wait for the calls of other tasks to end.

        In a forked child this closes the descriptor only: the parent's
        connection goes on.
        """
        self._drop_if_inherited()
        self._closed = True
        async with self._whose():
            self._connected = None
            self._drop()

    async def get_tracking(self) -> TrackingStatus:
        """Read the state of the clock, see :meth:`ChronyConnection.get_tracking`."""
        return await self._turn(lambda session: one(session, TrackingStatus))

    async def get_sources(self) -> list[Source]:
        """Read the sources, see :meth:`ChronyConnection.get_sources`."""
        return await self._turn(lambda session: every(session, Source))

    async def get_source_stats(self) -> list[SourceStats]:
        """Read their statistics, see :meth:`ChronyConnection.get_source_stats`."""
        return await self._turn(lambda session: every(session, SourceStats))

    async def get_select_data(self) -> list[SelectData]:
        """Read the selection, see :meth:`ChronyConnection.get_select_data`."""
        return await self._turn(lambda session: every(session, SelectData))

    async def get_activity(self) -> Activity:
        """Read the states of the sources, see :meth:`ChronyConnection.get_activity`."""
        return await self._turn(lambda session: one(session, Activity))

    async def get_auth_data(self) -> list[AuthData]:
        """Read the authentication, see :meth:`ChronyConnection.get_auth_data`."""
        return await self._turn(lambda session: every(session, AuthData))

    async def get_ntp_data(self) -> list[NTPData]:
        """Read the last packets, see :meth:`ChronyConnection.get_ntp_data`."""
        return await self._turn(lambda session: every(session, NTPData))

    async def get_server_stats(self) -> ServerStats:
        """Read what chronyd served, see :meth:`ChronyConnection.get_server_stats`."""
        return await self._turn(lambda session: one(session, ServerStats))

    async def get_smoothing(self) -> Smoothing | None:
        """Read the time smoothing, see :meth:`ChronyConnection.get_smoothing`."""
        return await self._turn(lambda session: one_or_none(session, Smoothing))

    async def get_rtc_data(self) -> RTCData | None:
        """Read the real-time clock, see :meth:`ChronyConnection.get_rtc_data`."""
        return await self._turn(lambda session: one_or_none(session, RTCData))

    async def get_report(self, name: str) -> list[dict[str, Value]]:
        """Read any report, see :meth:`ChronyConnection.get_report`."""
        return await self._turn(lambda session: generic(session, name))

    async def _turn(self, question: Callable[[Session], Conversation[T]]) -> T:
        async with self._whose():
            try:
                return await _drive(self._ask(question))
            except BaseException:
                self._drop()
                raise
            finally:
                if self._closed:  # by a close() that may not have waited for us
                    self._connected = None
                    self._drop()

    def _whose(self) -> asyncio.Lock:
        """Return the lock for this loop: asyncio's never change loops."""
        here = self._check_process(), _running_loop()
        if self._here != here:
            if self._here and self._here[0] == here[0] and self._lock.locked():
                raise ChronyUsageError(
                    f"{self!r} is in the middle of a call in another event loop. Use "
                    "another connection in this one"
                )
            self._here, self._lock = here, asyncio.Lock()
        return self._lock


def async_query_many(
    addresses: Iterable[Address],
    report: str = "tracking",
    *,
    concurrency: int = 256,
    timeout: float = 1.0,
    retries: int = 2,
    progress: Callable[[int], object] | None = None,
) -> AsyncGenerator[tuple[Address, Any], None]:
    """Read a report of many chronyds: :func:`query_many` for asyncio.

    Where the results are not taken to the end, ``contextlib.aclosing`` closes
    it at once, else asyncio does so later.
    """
    sweep = Sweep(addresses, report, concurrency, waits(timeout, retries), progress)
    return _results(sweep)


async def _results(sweep: Sweep) -> AsyncGenerator[tuple[Address, Any], None]:
    _running_loop()
    conversation = sweep.conversation()
    ready: Any = None
    try:
        while True:
            wait = conversation.send(ready)
            for result in sweep.arrived():
                yield result
            ready = await _wait(*wait)
    except StopIteration:  # all have arrived: each gave us a turn
        pass
    finally:
        conversation.close()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError as reason:
        raise ChronyUsageError(
            "no event loop of asyncio runs here, and this needs one (also anyio on "
            "asyncio). With trio, call the blocking functions in a thread: "
            "trio.to_thread.run_sync(pychrony.get_tracking)"
        ) from reason


async def _drive(conversation: Conversation[T]) -> T:
    """Wait for what the conversation waits for until it returns."""
    ready: Any = None
    try:
        while True:
            ready = await _wait(*conversation.send(ready))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        conversation.close()


async def _wait(fd: int, events: int, deadline: float) -> bool:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def settle(answer: bool) -> None:
        if not ready.done():
            ready.set_result(answer)

    reading = events & POLLIN
    add, remove = (
        (loop.add_reader, loop.remove_reader)
        if reading
        else (loop.add_writer, loop.remove_writer)
    )
    add(fd, settle, True)
    timer = loop.call_later(max(0.0, deadline - monotonic()), settle, False)
    try:
        return await ready
    finally:
        timer.cancel()
        remove(fd)
