"""The asyncio drivers: the connection and query_many, awaited."""

from __future__ import annotations

import asyncio
from functools import partial
from select import POLLIN
from time import monotonic

from . import _queries
from ._base import BaseConnection, just_open, timeouts_of
from ._decode import decoder
from ._queries import read_generic, read_single
from ._waiting import Waiter
from .exceptions import ChronyUsageError
from .fleet import Sweep
from .models import (
    REPORTS,
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
    from ._waiting import RequestGenerator
    from .fleet import Address
    from .models import Value

    T = TypeVar("T")

__all__ = ["AsyncChronyConnection", "async_query_many"]


class AsyncChronyConnection(BaseConnection):
    """:class:`ChronyConnection` for asyncio, with coroutines as methods.

    Use it with ``async with``, or await :meth:`close`. Tasks may share a
    connection; one call runs at a time. After a call is cancelled, the connection
    can still be used: the next call opens it again.

    Arguments and errors are those of :class:`ChronyConnection`.
    """

    _call_states: dict[int, _CallState]

    async def __aenter__(self) -> AsyncChronyConnection:
        """Open the connection, see :meth:`ChronyConnection.__enter__`."""
        self._check_process()
        self._closed = False
        await self._read(partial(just_open))
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

        In a forked child this closes the descriptor only; the parent's
        connection stays open.
        """
        self._drop_if_inherited()
        self._closed = True
        async with self._call_state().lock:
            self._connected = None
            self._drop()

    async def get_tracking(self) -> TrackingStatus:
        """Read the state of the clock, see :meth:`ChronyConnection.get_tracking`."""
        return await self._read(_queries.TRACKING)

    async def get_sources(self) -> list[Source]:
        """Read the sources, see :meth:`ChronyConnection.get_sources`."""
        return await self._read(_queries.SOURCES)

    async def get_source_stats(self) -> list[SourceStats]:
        """Read their statistics, see :meth:`ChronyConnection.get_source_stats`."""
        return await self._read(_queries.SOURCE_STATS)

    async def get_select_data(self) -> list[SelectData]:
        """Read the selection, see :meth:`ChronyConnection.get_select_data`."""
        return await self._read(_queries.SELECT_DATA)

    async def get_activity(self) -> Activity:
        """Read the states of the sources, see :meth:`ChronyConnection.get_activity`."""
        return await self._read(_queries.ACTIVITY)

    async def get_auth_data(self) -> list[AuthData]:
        """Read the authentication, see :meth:`ChronyConnection.get_auth_data`."""
        return await self._read(_queries.AUTH_DATA)

    async def get_ntp_data(self) -> list[NTPData]:
        """Read the last packets, see :meth:`ChronyConnection.get_ntp_data`."""
        return await self._read(_queries.NTP_DATA)

    async def get_server_stats(self) -> ServerStats:
        """Read what chronyd served, see :meth:`ChronyConnection.get_server_stats`."""
        return await self._read(_queries.SERVER_STATS)

    async def get_smoothing(self) -> Smoothing | None:
        """Read the time smoothing, see :meth:`ChronyConnection.get_smoothing`."""
        return await self._read(_queries.SMOOTHING)

    async def get_rtc_data(self) -> RTCData | None:
        """Read the real-time clock, see :meth:`ChronyConnection.get_rtc_data`."""
        return await self._read(_queries.RTC_DATA)

    async def get_report(self, name: str) -> list[dict[str, Value]]:
        """Read any report, see :meth:`ChronyConnection.get_report`."""
        return await self._read(partial(read_generic, report=name))

    async def _read(self, query: partial[RequestGenerator[T]]) -> T:
        state = self._call_state()
        async with state.lock:
            try:
                session = self._session
                if query.func is read_single and session and self._limit is None:
                    record: type[T] = query.keywords["record"]
                    return await _read_single(state.waiter, session, record)
                return await _drive(state.waiter, self._requests(query))
            except BaseException:
                self._drop()
                raise
            finally:
                # By a close() in another event loop, or a cancelled one.
                if self._closed:
                    self._connected = None
                    self._drop()

    def _call_state(self) -> _CallState:
        """Return what is shared in this process and event loop."""
        pid, loop = self._check_process(), _running_loop()
        state = self._call_states.get(pid)
        if state is None or state.loop is not loop:
            if state and state.lock.locked():
                raise ChronyUsageError(
                    f"{self!r} is in the middle of a call in another event loop. Use "
                    "another connection in this one"
                )
            state = self._call_states[pid] = _CallState(loop)
        return state


class _CallState:
    """The lock of a connection in one event loop, and what its calls share."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lock = asyncio.Lock()
        self.waiter = Waiter()


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

    If you do not iterate to the end, use ``contextlib.aclosing`` to close it at
    once; otherwise asyncio closes it later.
    """
    sweep = Sweep(
        addresses, report, concurrency, timeouts_of(timeout, retries), progress
    )
    return _results(sweep)


async def _results(sweep: Sweep) -> AsyncGenerator[tuple[Address, Any], None]:
    _running_loop()
    waiter = Waiter()
    requests = sweep.requests()
    ready: Any = None
    try:
        while True:
            wait = requests.send(ready)
            for result in sweep.arrived():
                yield result
            ready = await _wait(waiter, *wait)
    except StopIteration:  # all results were yielded: each task yields after its own
        pass
    finally:
        requests.close()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError as reason:
        raise ChronyUsageError(
            "no event loop of asyncio runs here, and this needs one (also anyio on "
            "asyncio). With trio, call the blocking functions in a thread: "
            "trio.to_thread.run_sync(pychrony.get_tracking)"
        ) from reason


async def _read_single(waiter: Waiter, session: Session, record: type[T]) -> T:
    """Read a report that is one record; mostly without a reader and a timer.

    To add and remove these takes longer than all the rest of a call. A generator would
    cost a fifth of the call.
    """
    report, decode = REPORTS[record], decoder(record)
    begun = session.request(report)
    await asyncio.sleep(0)
    if begun and session.received(report):
        return session.decoded(report, decode)
    return await _drive(waiter, session.record(report, 0, decode, begun=begun))


async def _drive(waiter: Waiter, requests: RequestGenerator[T]) -> T:
    """Run a request generator to its end, and return its result."""
    ready: Any = None
    try:
        while True:
            ready = await _wait(waiter, *requests.send(ready))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        requests.close()


async def _wait(waiter: Waiter, fd: int, events: int, deadline: float) -> bool:
    # After one round of the loop a chronyd of this machine has mostly answered.
    # That saves the reader and the timer, half of a call.
    await asyncio.sleep(0)
    if waiter.wait(fd, events, 0.0):
        return True
    if monotonic() >= deadline:
        return False
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def settle(answer: bool) -> None:
        if not ready.done():
            ready.set_result(answer)

    add, remove = loop.add_writer, loop.remove_writer
    if events & POLLIN:
        add, remove = loop.add_reader, loop.remove_reader
    add(fd, settle, True)
    timer = loop.call_later(deadline - monotonic(), settle, False)
    try:
        return await ready
    finally:
        timer.cancel()
        remove(fd)
