"""The blocking driver: one connection to one chronyd."""

from __future__ import annotations

import os
from threading import RLock

from ._base import BaseConnection, nothing
from ._queries import every, generic, one, one_or_none
from ._waiting import Waiter
from .exceptions import ChronyUsageError
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
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    from ._session import Session
    from ._waiting import Conversation
    from .models import Value

    T = TypeVar("T")

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

    It opens at the first report, or on entering a ``with`` block, and opens
    again by itself after an error. Use it as a context manager or call
    :meth:`close`; a connection that is dropped open warns with
    ``ResourceWarning``.

    Threads may share a connection, their calls take turns; one connection for
    each thread is faster. A forked child must open its own.

    Args:
        address: path of chronyd's Unix socket (``/run/chrony/chronyd.sock``),
            or IP address or host name of its command port, with or without
            ``:port`` (323): ``192.0.2.7``, ``[::1]:323``, ``fe80::1%eth0``,
            ``ntp1.example``; ``unix://`` or ``unixgram://`` may stand before the
            path, ``udp://`` before the host. ``None`` looks for the chronyd of this
            machine: its Unix socket, then 127.0.0.1, then ::1, until one answers.
        timeout: seconds to wait for an answer before sending the request
            again, more than 0.
        retries: how often to send it again; the wait doubles each time, as in
            chronyc. The defaults give up after 1 + 2 + 4 seconds. That is for
            one request: a list makes one for each source, and where several
            addresses are tried, each silent one is waited for.
        limit: seconds that a call may take in all, once it is its turn; ``None``
            for no more limit.

    Raises:
        ChronyAddressError: ``address`` is nonsense.
        ValueError: ``timeout`` or ``limit`` is not positive, ``retries`` negative,
            or they come to more than a day.
    """

    _alone = True

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 1.0,
        retries: int = 2,
        limit: float | None = None,
    ) -> None:
        super().__init__(address, timeout=timeout, retries=retries, limit=limit)
        self._turns: dict[int, _Turn] = {}

    def __enter__(self) -> ChronyConnection:
        """Open the connection.

        With an explicit address this sends nothing, so that over UDP it is the
        first report that shows whether a chronyd is there.

        Raises:
            ChronyConnectionError: no chronyd was found, or its Unix socket
                does not exist.
            ChronyPermissionError: the Unix socket may not be opened.
            ChronyLibraryError: no usable libchrony.
        """
        self._check_process()
        self._closed = False
        self._turn(nothing)
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

        In a forked child this closes the descriptor only: the parent's
        connection goes on.
        """
        self._drop_if_inherited()
        turn = self._whose()
        with turn.lock:
            self._closed = True
            self._connected = None
            if not turn.busy:  # else called by a signal handler: _turn does it
                self._drop()

    def get_tracking(self) -> TrackingStatus:
        """Read the state of the clock (report ``tracking``).

        Raises:
            ChronyConnectionError: chronyd cannot be reached.
            ChronyTimeoutError: it did not answer in time.
            ChronyDataError: the answer makes no sense.
            ChronyPermissionError: the Unix socket may not be opened, or
                chronyd does not serve this report to us.
            ChronyLibraryError: no usable libchrony.
            ChronyUsageError: the connection is closed, the parent's, or busy.
        """
        return self._turn(lambda session: one(session, TrackingStatus))

    def get_sources(self) -> list[Source]:
        """Read the sources and their latest samples (report ``sources``).

        The list is that of one moment, in chronyd's order, also when sources
        are added and deleted meanwhile. Raises what :meth:`get_tracking` does.
        """
        return self._turn(lambda session: every(session, Source))

    def get_source_stats(self) -> list[SourceStats]:
        """Read what the past samples of each source say (report ``sourcestats``).

        The list is that of one moment, in chronyd's order, also when sources
        are added and deleted meanwhile. Raises what :meth:`get_tracking` does.
        """
        return self._turn(lambda session: every(session, SourceStats))

    def get_select_data(self) -> list[SelectData]:
        """Read what became of the sources in the selection (report ``selectdata``).

        chronyd gives it over its Unix socket only, unless its directive
        ``opencommands`` (from 4.7 on) opens it. The list is that of one moment.
        Raises what :meth:`get_tracking` does.
        """
        return self._turn(lambda session: every(session, SelectData))

    def get_activity(self) -> Activity:
        """Read how many sources are in which state (report ``activity``).

        Raises what :meth:`get_tracking` does.
        """
        return self._turn(lambda session: one(session, Activity))

    def get_auth_data(self) -> list[AuthData]:
        """Read the authentication of each NTP source (report ``authdata``).

        chronyd gives it over its Unix socket only, unless its directive
        ``opencommands`` (from 4.7 on) opens it. Reference clocks have none.
        Raises what :meth:`get_tracking` does.
        """
        return self._turn(lambda session: every(session, AuthData))

    def get_ntp_data(self) -> list[NTPData]:
        """Read the last valid packet of each NTP source (report ``ntpdata``).

        chronyd gives it over its Unix socket only, unless its directive
        ``opencommands`` (from 4.7 on) opens it. Reference clocks have none.
        Raises what :meth:`get_tracking` does.
        """
        return self._turn(lambda session: every(session, NTPData))

    def get_server_stats(self) -> ServerStats:
        """Read what chronyd did as a server (report ``serverstats``).

        chronyd gives it over its Unix socket only, unless its directive
        ``opencommands`` (from 4.7 on) opens it. Raises what
        :meth:`get_tracking` does.
        """
        return self._turn(lambda session: one(session, ServerStats))

    def get_smoothing(self) -> Smoothing | None:
        """Read the smoothing of the served time (report ``smoothing``).

        ``None`` where it is not enabled (directive ``smoothtime``). Raises what
        :meth:`get_tracking` does.
        """
        return self._turn(lambda session: one_or_none(session, Smoothing))

    def get_report(self, name: str) -> list[dict[str, Value]]:
        """Read any report that libchrony knows, as libchrony describes it.

        So a report or field of a newer libchrony can be read at once. Each
        record maps libchrony's field names, in its order and without the
        reserved ones, to a :class:`Value`. A report that is disabled has no
        record; the records of ``authdata`` and ``ntpdata`` begin with the
        ``address`` of their source. :func:`pychrony.reports` lists the names.

        Raises what :meth:`get_tracking` does, and ChronyDataError where
        libchrony has no such report.
        """
        return self._turn(lambda session: generic(session, name))

    def get_rtc_data(self) -> RTCData | None:
        """Read the state of the real-time clock (report ``rtcdata``).

        ``None`` where chronyd does not track it (directive ``rtcfile``).
        Raises what :meth:`get_tracking` does.
        """
        return self._turn(lambda session: one_or_none(session, RTCData))

    def _turn(self, question: Callable[[Session], Conversation[T]]) -> T:
        """Ask over an open session, alone."""
        turn = self._whose()
        with turn.lock:
            if turn.busy:
                raise ChronyUsageError(
                    f"{self!r} is in the middle of a call that a signal handler "
                    "interrupted. Use another connection in the handler"
                )
            turn.busy = True
            try:
                return turn.waiter.drive(self._ask(question))
            except BaseException:
                # libchrony may hold a pending request: no session survives an
                # error. The next call opens a new one.
                self._drop()
                raise
            finally:
                turn.busy = False
                if self._closed:
                    self._drop()

    def _whose(self) -> _Turn:
        pid = self._check_process()
        # In a child, a thread of the parent that is not there any more may hold
        # the parent's lock. setdefault gives all threads of a child the same.
        return self._turns.get(pid) or self._turns.setdefault(pid, _Turn())


class _Turn:
    """Whose turn it is among the threads of one process."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.busy = False
        self.waiter = Waiter()


def get_tracking(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> TrackingStatus:
    """Read the state of the clock, see :meth:`ChronyConnection.get_tracking`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_tracking()


def get_sources(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> list[Source]:
    """Read the sources, see :meth:`ChronyConnection.get_sources`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_sources()


def get_source_stats(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> list[SourceStats]:
    """Read their statistics, see :meth:`ChronyConnection.get_source_stats`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_source_stats()


def get_rtc_data(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> RTCData | None:
    """Read the real-time clock, see :meth:`ChronyConnection.get_rtc_data`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_rtc_data()


def get_select_data(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> list[SelectData]:
    """Read the selection, see :meth:`ChronyConnection.get_select_data`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_select_data()


def get_activity(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> Activity:
    """Read the states of the sources, see :meth:`ChronyConnection.get_activity`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_activity()


def get_auth_data(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> list[AuthData]:
    """Read the authentication, see :meth:`ChronyConnection.get_auth_data`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_auth_data()


def get_ntp_data(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> list[NTPData]:
    """Read the last packets, see :meth:`ChronyConnection.get_ntp_data`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_ntp_data()


def get_server_stats(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> ServerStats:
    """Read what chronyd served, see :meth:`ChronyConnection.get_server_stats`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_server_stats()


def get_smoothing(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> Smoothing | None:
    """Read the time smoothing, see :meth:`ChronyConnection.get_smoothing`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_smoothing()


def get_report(
    name: str,
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
    limit: float | None = None,
) -> list[dict[str, Value]]:
    """Read any report, see :meth:`ChronyConnection.get_report`."""
    with ChronyConnection(
        address, timeout=timeout, retries=retries, limit=limit
    ) as connection:
        return connection.get_report(name)
