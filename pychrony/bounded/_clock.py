"""The bounded clock: an interval now, and the waits for one."""

from __future__ import annotations

import os
import re
from math import inf
from time import clock_gettime_ns, monotonic
from weakref import finalize

from pychrony.connection import ChronyConnection
from pychrony.exceptions import (
    ChronyAddressError,
    ChronyTimeoutError,
    ChronyUsageError,
    ClockUnboundError,
)

from ._bounds import ADVICE, Bounds
from ._reader import LIMIT, RETRIES, TIMEOUT, Reader, running
from ._time import SECOND, BoundedTime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# The chronyd of another machine knows nothing about this clock. ChronyConnection
# checks the syntax.
_OF_THIS_MACHINE = re.compile(
    r"(unix(gram)?://)?/.*"
    r"|(udp://)?(127(\.\d+){3}(:\d+)?|localhost\.?(:\d+)?|::1|\[::1\](:\d+)?)",
    re.DOTALL,
)

# While one waits, a closed clock is noticed after this [s].
_NOTICE = 1.0


class _System:
    """The clocks of this machine, and its chronyd."""

    def __init__(self, connection: ChronyConnection) -> None:
        self.clock = clock_gettime_ns
        self.get_tracking = connection.get_tracking


class BoundedClock:
    """A clock that knows how wrong it can be.

    A daemon thread reads chronyd's report ``tracking``; :meth:`now` returns an
    interval that holds true time. Use it as a context manager::

        with BoundedClock() as clock:
            clock.wait_until_bounded(timeout=30)
            earliest, latest, status = clock.now()

    The interval is right as long as chronyd's sources are right within the errors
    that they report, chronyd controls the clock of this machine, and the frequency of
    the oscillator does not change by more than ``max_drift_ppm``.

    Any number of threads may use it. A forked child must open its own. A clock that
    is garbage-collected while it is open gives a ``ResourceWarning``.

    Args:
        address: as for :class:`ChronyConnection`, but of this machine: a Unix
            socket, 127.0.0.0/8, ::1 or ``localhost``.
        interval: seconds between two readings, more than 0 and at most 3600.
        max_drift_ppm: the most by which the frequency of the oscillator can
            change between two updates of chronyd [ppm], not negative. 50 suits
            server crystals without temperature compensation.
        holdover: seconds for which the last good reading may be used while
            chronyd does not reply or follows no source, not negative; at least
            two intervals are used.
        reference_error: the most that the stratum-1 servers, or the reference
            clock, can be wrong [s], not negative.

    Raises:
        ChronyAddressError: ``address`` is not valid, or is of another machine.
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        *,
        interval: float = 1.0,
        max_drift_ppm: float = 50.0,
        holdover: float = 60.0,
        reference_error: float = 0.0,
    ) -> None:
        if not 0 < interval <= 3600:
            raise ValueError(
                f"interval {interval!r} s: it must be positive, and an hour at most"
            )
        options = {
            "max_drift_ppm": max_drift_ppm,
            "holdover": holdover,
            "reference_error": reference_error,
        }
        for name, value in options.items():
            if not 0 <= value < inf:
                raise ValueError(f"{name} {value!r}: it must not be negative")
        self._address = address
        connection = self._connect()  # for its errors
        if address is not None and not _OF_THIS_MACHINE.fullmatch(os.fspath(address)):
            raise ChronyAddressError(
                f"{os.fspath(address)!r} is not an address of this machine: another "
                "machine's chronyd knows nothing of this clock. Give the path of the "
                "Unix socket, 127.0.0.1, ::1 or localhost"
            )
        self._interval = interval
        self._options = {"interval": interval, **options}
        self._reader: Reader | None = None
        self._bounds = Bounds(_System(connection))
        self._bounds.end("the bounded clock is not open: use it in a 'with' block")

    def __repr__(self) -> str:
        state = "open" if self._reader else "not open"
        place = "of this machine" if self._address is None else f"{self._address}"
        return f"<{type(self).__name__} {place} ({state})>"

    def __enter__(self) -> BoundedClock:
        """Read chronyd once, which takes a second at most, and start the thread.

        No error if chronyd is not synchronised or does not answer: it may be
        starting. :meth:`wait_until_bounded` waits for it.

        Raises:
            ChronyLibraryError: no usable libchrony.
            ChronyPermissionError: the Unix socket may not be opened.
            ChronyUsageError: the clock is open already.
            ChronyError: no thread can be started.
        """
        if self._reader is not None:
            raise ChronyUsageError(f"{self!r} is open already")
        connection = self._connect()
        bounds = Bounds(_System(connection), **self._options)
        reader = Reader(bounds, connection, self._interval)
        try:
            reader.start()
        except BaseException:
            connection.close()
            raise
        self._bounds, self._reader = bounds, reader
        self._finalizer = finalize(self, reader.abandon, repr(self))
        self._finalizer.atexit = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and close the connection.

        If chronyd does not reply, this takes up to a second. Calls in other threads
        raise ChronyUsageError.
        """
        reader, self._reader = self._reader, None
        if reader is not None:
            self._finalizer.detach()
            reader.bounds.end("the bounded clock is closed: use it in a 'with' block")
            reader.stop()
            reader.join()
            reader.connection.close()
            running.discard(reader)

    def now(self) -> BoundedTime:
        """Return an interval that holds true time.

        It holds the true time at which this call read the clocks. The call reads
        three clocks, takes no lock and does not wait.

        Raises:
            ClockUnboundError: nothing bounds the clock now.
            ChronyUsageError: the clock is not open, or belongs to the parent
                process.
        """
        return self._bounds.now()

    def wait_until_past(self, ns: int, timeout: float | None = None) -> BoundedTime:
        """Wait until ``ns`` is certainly in the past ("commit wait").

        Args:
            ns: a time [ns since 1970, UTC], such as ``now().latest``.
            timeout: seconds to wait at most; ``None`` for no limit.

        Returns:
            The first interval that is after ``ns``.

        Raises:
            ChronyTimeoutError: ``ns`` is not certainly past within ``timeout``.
            ChronyError: as for :meth:`now`, also if the clock is closed meanwhile.
        """
        deadline = _deadline(timeout)
        while not (now := self.now()).earliest > ns:
            self._wait(_until(ns, now, deadline, timeout))
        return now

    def wait_until_bounded(self, timeout: float | None = None) -> BoundedTime:
        """Wait until :meth:`now` works; ``timeout`` as for :meth:`wait_until_past`.

        Raises:
            ChronyTimeoutError: nothing bounds the clock in time; the message says why.
            ChronyUsageError: the clock is not open, or was closed meanwhile.
        """
        deadline = _deadline(timeout)
        while True:
            try:
                return self.now()
            except ClockUnboundError as error:
                self._wait(_until_read(error, deadline, timeout))

    async def async_wait_until_past(
        self, ns: int, timeout: float | None = None
    ) -> BoundedTime:
        """:meth:`wait_until_past` for asyncio."""
        from asyncio import sleep

        deadline = _deadline(timeout)
        while not (now := self.now()).earliest > ns:
            await sleep(_until(ns, now, deadline, timeout))
        return now

    async def async_wait_until_bounded(
        self, timeout: float | None = None
    ) -> BoundedTime:
        """:meth:`wait_until_bounded` for asyncio."""
        from asyncio import sleep

        deadline = _deadline(timeout)
        while True:
            try:
                return self.now()
            except ClockUnboundError as error:
                wait = _until_read(error, deadline, timeout)
            await sleep(min(wait, self._interval / 2))

    def _connect(self) -> ChronyConnection:
        return ChronyConnection(
            self._address, timeout=TIMEOUT, retries=RETRIES, limit=LIMIT
        )

    def _wait(self, seconds: float) -> None:
        """Wait for a time, or the next reading, or the end."""
        changed = self._bounds.changed
        with changed:
            changed.wait(seconds)


def _deadline(timeout: float | None) -> float:
    return inf if timeout is None else monotonic() + timeout


def _until(ns: int, now: BoundedTime, deadline: float, timeout: float | None) -> float:
    """Return how long to wait until ``ns`` may be in the past [s]."""
    left = deadline - monotonic()
    if not left > 0:  # also if the timeout is NaN
        raise ChronyTimeoutError(
            f"{ns} ns since 1970 is not certainly past within {timeout:g} s: true time "
            f"may still be {now.earliest}. Wait longer, or see why the error bound is "
            f"{now.error_bound:g} s"
        )
    return min(left, _NOTICE, max((ns - now.earliest) / SECOND, 0.00002))


def _until_read(
    error: ClockUnboundError, deadline: float, timeout: float | None
) -> float:
    """Return how long to wait for a good reading [s]."""
    left = deadline - monotonic()
    if not left > 0:  # also if the timeout is NaN
        raise ChronyTimeoutError(
            f"the clock is not bounded within {timeout:g} s: "
            f"{error.message.removesuffix(ADVICE)}"
        ) from error
    return min(left, _NOTICE)
