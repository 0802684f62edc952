"""The blocking driver: one connection to one chronyd."""

from __future__ import annotations

import os
from functools import partial
from threading import RLock

from . import _queries
from ._base import BaseConnection, just_open
from ._decode import decoder
from ._queries import read_generic, read_single
from ._waiting import Waiter
from .exceptions import ChronyUsageError
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
    from collections.abc import Callable
    from types import TracebackType
    from typing import Protocol, TypeVar

    from ._waiting import RequestGenerator
    from .models import Value

    T = TypeVar("T")
    T_co = TypeVar("T_co", covariant=True)

    class _Function(Protocol[T_co]):
        def __call__(
            self,
            address: str | os.PathLike[str] | None = None,
            *,
            timeout: float = 1.0,
            retries: int = 2,
            limit: float | None = None,
        ) -> T_co: ...


__all__ = [
    "ChronyConnection",
    "get_activity",
    "get_auth_data",
    "get_ntp_data",
    "get_report",
    "get_rtc_data",
    "get_select_data",
    "get_server_stats",
    "get_smoothing",
    "get_source_stats",
    "get_sources",
    "get_tracking",
]


class ChronyConnection(BaseConnection):
    """A connection to a running chronyd, for reading its reports.

    It opens when the first report is read or a ``with`` block is entered, and
    again in the next call after an error. Use it as a context manager or call
    :meth:`close`; a connection that is garbage-collected while it is open gives
    a ``ResourceWarning``.

    Threads may share a connection: its lock lets one call run at a time. It is
    faster to use one connection for each thread. A forked child must open its own.

    Args:
        address: path of chronyd's Unix socket (``/run/chrony/chronyd.sock``),
            or IP address or host name of its command port, with or without
            ``:port`` (323): ``192.0.2.7``, ``[::1]:323``, ``fe80::1%eth0``,
            ``ntp1.example``. The path may begin with ``unix://`` or
            ``unixgram://``, the host with ``udp://``. With ``None``, the chronyd of
            this machine is looked for: its Unix socket, then 127.0.0.1, then ::1,
            until one replies.
        timeout: seconds to wait for the reply to a request, more than 0.
        retries: number of retries of a request; the timeout doubles at each, as
            in chronyc. With the defaults, a request fails after 1 + 2 + 4
            seconds. A list takes one request for each source. If several
            addresses are tried, the timeouts apply to each of them.
        limit: maximum number of seconds for a whole call, counted from when it
            has the lock of the connection; ``None`` for no limit.

    Raises:
        ChronyAddressError: ``address`` is not valid.
        ValueError: ``timeout`` or ``limit`` is not positive, ``retries`` is
            negative, or the sum of the timeouts or ``limit`` is more than a day.
    """

    _blocking = True
    _call_states: dict[int, _CallState]

    def __enter__(self) -> ChronyConnection:
        """Open the connection.

        With an explicit address this sends nothing. Over UDP, only the first report
        shows whether a chronyd is there.

        Raises:
            ChronyConnectionError: no chronyd was found, or its Unix socket
                does not exist.
            ChronyPermissionError: the Unix socket may not be opened.
            ChronyLibraryError: no usable libchrony.
        """
        self._check_process()
        self._closed = False
        self._read(partial(just_open))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; wait for the calls of other threads to end.

        In a forked child this closes the descriptor only; the parent's
        connection stays open.
        """
        self._drop_if_inherited()
        state = self._call_state()
        with state.lock:
            self._closed = True
            self._connected = None
            # If it is busy, this is a signal handler: _read() drops the session.
            if not state.busy:
                self._drop()

    def get_tracking(self) -> TrackingStatus:
        """Read the state of the clock (report ``tracking``).

        Raises:
            ChronyConnectionError: chronyd cannot be reached.
            ChronyTimeoutError: chronyd did not reply in time.
            ChronyDataError: the reply is not valid.
            ChronyPermissionError: the Unix socket may not be opened, or
                chronyd does not serve this report to this client.
            ChronyLibraryError: no usable libchrony.
            ChronyUsageError: the connection is closed, belongs to the parent
                process, or is busy.
        """
        return self._read(_queries.TRACKING)

    def get_sources(self) -> list[Source]:
        """Read the sources and their latest samples (report ``sources``).

        The list is a consistent snapshot in chronyd's order, even if sources
        are added and removed meanwhile. Errors are those of :meth:`get_tracking`.
        """
        return self._read(_queries.SOURCES)

    def get_source_stats(self) -> list[SourceStats]:
        """Read the statistics of each source's samples (report ``sourcestats``).

        The list is a consistent snapshot in chronyd's order, even if sources
        are added and removed meanwhile. Errors are those of :meth:`get_tracking`.
        """
        return self._read(_queries.SOURCE_STATS)

    def get_select_data(self) -> list[SelectData]:
        """Read the result of the selection for each source (report ``selectdata``).

        chronyd serves it over its Unix socket only, unless its directive
        ``opencommands`` (from 4.7 on) allows UDP. The list is a consistent snapshot.
        Errors are those of :meth:`get_tracking`.
        """
        return self._read(_queries.SELECT_DATA)

    def get_activity(self) -> Activity:
        """Read the number of sources in each state (report ``activity``).

        Errors are those of :meth:`get_tracking`.
        """
        return self._read(_queries.ACTIVITY)

    def get_auth_data(self) -> list[AuthData]:
        """Read the authentication of each NTP source (report ``authdata``).

        chronyd serves it over its Unix socket only, unless its directive
        ``opencommands`` (from 4.7 on) allows UDP. Reference clocks are not in it.
        Errors are those of :meth:`get_tracking`.
        """
        return self._read(_queries.AUTH_DATA)

    def get_ntp_data(self) -> list[NTPData]:
        """Read the last valid packet of each NTP source (report ``ntpdata``).

        chronyd serves it over its Unix socket only, unless its directive
        ``opencommands`` (from 4.7 on) allows UDP. Reference clocks are not in it.
        Errors are those of :meth:`get_tracking`.
        """
        return self._read(_queries.NTP_DATA)

    def get_server_stats(self) -> ServerStats:
        """Read the counters of chronyd as a server (report ``serverstats``).

        chronyd serves it over its Unix socket only, unless its directive
        ``opencommands`` (from 4.7 on) allows UDP. Errors are those of
        :meth:`get_tracking`.
        """
        return self._read(_queries.SERVER_STATS)

    def get_smoothing(self) -> Smoothing | None:
        """Read the smoothing of the served time (report ``smoothing``).

        Returns ``None`` if it is not enabled (directive ``smoothtime``). Errors are
        those of :meth:`get_tracking`.
        """
        return self._read(_queries.SMOOTHING)

    def get_report(self, name: str) -> list[dict[str, Value]]:
        """Read any report that libchrony knows, as libchrony describes it.

        Reports and fields of a newer libchrony can be read this way. Each record
        maps libchrony's field names, in its order and without reserved fields, to a
        :class:`Value`. A report that is disabled has no records. The records of
        ``authdata`` and ``ntpdata`` begin with the ``address`` of their source.
        :func:`pychrony.reports` lists the names.

        Errors are those of :meth:`get_tracking`, and ChronyDataError if libchrony
        has no such report.
        """
        return self._read(partial(read_generic, report=name))

    def get_rtc_data(self) -> RTCData | None:
        """Read the state of the real-time clock (report ``rtcdata``).

        Returns ``None`` if chronyd does not track it (directive ``rtcfile``).
        Errors are those of :meth:`get_tracking`.
        """
        return self._read(_queries.RTC_DATA)

    def _read(self, query: partial[RequestGenerator[T]]) -> T:
        """Run a query over the session, while other threads wait."""
        state = self._call_state()
        with state.lock:
            if state.busy:
                raise ChronyUsageError(
                    f"{self!r} is in the middle of a call that a signal handler "
                    "interrupted. Use another connection in the handler"
                )
            state.busy = True
            try:
                session = self._session
                if query.func is read_single and session and session.blocking:
                    record: type[T] = query.keywords["record"]
                    report, decode = REPORTS[record], decoder(record)
                    begun = session.request(report)
                    if begun and session.received(report):
                        return session.decoded(report, decode)
                    return state.waiter.drive(
                        session.record(report, 0, decode, begun=begun)
                    )
                return state.waiter.drive(self._requests(query))
            except BaseException:
                # libchrony may hold a pending request: no session survives an
                # error. The next call opens a new one.
                self._drop()
                raise
            finally:
                state.busy = False
                if self._closed:
                    self._drop()

    def _call_state(self) -> _CallState:
        pid = os.getpid()
        state = self._call_states.get(pid)
        if state is None:
            self._check_process()
            # Threads that come here at the same time get the same state.
            state = self._call_states.setdefault(pid, _CallState())
        return state


class _CallState:
    """The lock of a connection in one process, and what its calls share."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.busy = False
        self.waiter = Waiter()


_ARGUMENTS = """

    Opens a connection for this one call. Errors are those of
    :meth:`ChronyConnection.get_tracking`.

    Args:
        {name}address: path of chronyd's Unix socket, or IP address or host name of its
            command port, with or without ``:port`` (323); ``None`` for the chronyd
            of this machine.
        timeout: seconds to wait for a reply; doubles at each retry.
        retries: number of retries of each request.
        limit: maximum number of seconds for the whole call; ``None`` for no limit.
    """


def _as_function(method: Callable[[ChronyConnection], T]) -> _Function[T]:
    """Return a function that opens a connection, calls the method, and closes it."""

    def function(
        address: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 1.0,
        retries: int = 2,
        limit: float | None = None,
    ) -> T:
        with ChronyConnection(
            address, timeout=timeout, retries=retries, limit=limit
        ) as connection:
            return method(connection)

    summary, _, _ = (method.__doc__ or "").partition("\n")
    function.__doc__ = summary + _ARGUMENTS.format(name="")
    function.__name__ = function.__qualname__ = method.__name__
    function.__annotations__["return"] = method.__annotations__["return"]
    return function


get_tracking = _as_function(ChronyConnection.get_tracking)
get_sources = _as_function(ChronyConnection.get_sources)
get_source_stats = _as_function(ChronyConnection.get_source_stats)
get_select_data = _as_function(ChronyConnection.get_select_data)
get_activity = _as_function(ChronyConnection.get_activity)
get_auth_data = _as_function(ChronyConnection.get_auth_data)
get_ntp_data = _as_function(ChronyConnection.get_ntp_data)
get_server_stats = _as_function(ChronyConnection.get_server_stats)
get_smoothing = _as_function(ChronyConnection.get_smoothing)
get_rtc_data = _as_function(ChronyConnection.get_rtc_data)


def get_report(
    name: str,
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> list[dict[str, Value]]:
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_report(name)


get_report.__doc__ = (
    "Read any report that libchrony knows, see :meth:`ChronyConnection.get_report`."
    + _ARGUMENTS.format(name="name: libchrony's name of the report.\n        ")
)
