"""A bounded clock: an interval that holds true time.

chronyd's report ``tracking`` gives an interval at the time of the report. It is
extrapolated with CLOCK_MONOTONIC_RAW, not CLOCK_REALTIME: chronyd may select a
worse source after the report and slew CLOCK_REALTIME by 83 ms a second, but
nothing slews, steps or sets CLOCK_MONOTONIC_RAW. docs/explanation/bounded.rst
explains this.

:class:`Bounds` has the mathematics and no thread. It reads the clocks and
chronyd through one object, which the tests replace by a simulator.
"""

from __future__ import annotations

import atexit
import os
import re
import warnings
from contextlib import suppress
from enum import Enum
from math import ceil, floor, inf, isfinite
from threading import Condition, Lock, Thread, current_thread
from time import (
    CLOCK_BOOTTIME,
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_RAW,
    CLOCK_REALTIME,
    clock_gettime_ns,
    monotonic,
)
from typing import NamedTuple
from weakref import WeakSet, finalize

from .connection import ChronyConnection
from .enums import LeapStatus
from .exceptions import (
    ChronyAddressError,
    ChronyDataError,
    ChronyError,
    ChronyLibraryError,
    ChronyPermissionError,
    ChronyTimeoutError,
    ChronyUsageError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import NoReturn, Protocol, TypeAlias

    from .models import TrackingStatus

    class Machine(Protocol):
        """Everything that a bounded clock reads.

        Attributes:
            clock: returns the time of the clock with a number [ns].
            get_tracking: returns chronyd's report ``tracking``.
        """

        @property
        def clock(self) -> Callable[[int], int]: ...
        @property
        def get_tracking(self) -> Callable[[], TrackingStatus]: ...


__all__ = ["BoundStatus", "BoundedClock", "BoundedTime", "ClockUnboundError"]

_SECOND = 10**9
_DAY = 86_400 * _SECOND

# A clock is read before and after another one. This is repeated until the two reads
# are this close [ns], but at most _TRIES times: a process may be paused at any point.
_CLOSE = 5_000
_TRIES = 8
# A reading of chronyd that takes longer [ns] is repeated up to twice: the error that
# a slew can add is proportional to the time.
_LONG_READING = 2_000_000
# BOOTTIME gains more than this on MONOTONIC only during a suspend [ns].
_SUSPENDED = 1_000_000
# chronyd slews by at most 83,333 ppm (maxslewrate), in addition to the greatest
# frequency error that it corrects (maxdrift). Both are measured by a clock that runs
# wrong itself. Every slew takes at least a second.
_FASTEST_SLEW = 0.1006
# The protocol has 24 bits of coefficient for a number.
_PROTOCOL_PRECISION = 2.0**-24
# No interval this long before and after a leap second: servers do not all insert it
# at the same time.
_AROUND_LEAP = 2 * _SECOND
_ADVICE = " (wait_until_bounded() waits for a good reading)"
# An end of the interval that is never reached.
_NEVER = 10**400

# The chronyd of another machine knows nothing about this clock. ChronyConnection
# checks the syntax.
_OF_THIS_MACHINE = re.compile(
    r"(unix(gram)?://)?/.*"
    r"|(udp://)?(127(\.\d+){3}(:\d+)?|localhost\.?(:\d+)?|::1|\[::1\](:\d+)?)",
    re.DOTALL,
)


class ClockUnboundError(ChronyError):
    """Nothing bounds the error of the clock now.

    There is no good reading of chronyd yet, the last one is older than
    ``holdover``, the machine was suspended since, another program set the clock,
    or a leap second is being inserted or deleted. The message says which; the
    ``__cause__`` is the error of the last reading, if there was one.
    """


class BoundStatus(Enum):
    """Whether chronyd controls the clock; the interval is right in both cases."""

    SYNCHRONIZED = 1
    """chronyd follows its sources, and its measurements arrive."""
    FREE_RUNNING = 2
    """Measurements or reports of chronyd are overdue, and the interval grows."""


class BoundedTime(NamedTuple):
    """An interval that holds true time.

    It is a tuple of three items. Intervals that overlap have no order, so ``<`` and
    ``>`` raise TypeError: use :meth:`is_before` and :meth:`is_after`.

    Attributes:
        earliest: true time is not before this [ns since 1970, UTC].
        latest: true time is not after this [ns since 1970, UTC].
        status: whether chronyd follows its sources.
    """

    earliest: int
    latest: int
    status: BoundStatus

    def is_before(self, other: BoundedTime | int) -> bool:
        """Whether this was certainly before ``other``, an interval or ns since 1970."""
        return self.latest < (other if isinstance(other, int) else other.earliest)

    def is_after(self, other: BoundedTime | int) -> bool:
        """Whether this was certainly after ``other``, an interval or ns since 1970."""
        return self.earliest > (other if isinstance(other, int) else other.latest)

    @property
    def error_bound(self) -> float:
        """The most that the middle of the interval can be wrong [s]."""
        return -((self.earliest - self.latest) // 2) / _SECOND

    def datetime(self) -> tuple[datetime, datetime]:
        """Return both ends in UTC, rounded outwards to whole microseconds."""
        return _datetime(self.earliest // 1000), _datetime(-(-self.latest // 1000))

    def __lt__(self, other: object) -> NoReturn:
        raise _no_order()

    def __le__(self, other: object) -> NoReturn:
        raise _no_order()

    def __gt__(self, other: object) -> NoReturn:
        raise _no_order()

    def __ge__(self, other: object) -> NoReturn:
        raise _no_order()


def _no_order() -> TypeError:
    return TypeError(
        "intervals that overlap have no order: use is_before() or is_after(), or sort "
        "by earliest or latest"
    )


def _datetime(microseconds: int) -> datetime:
    from datetime import datetime, timedelta, timezone

    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    try:
        return epoch + timedelta(microseconds=microseconds)
    except OverflowError:  # a clock with a skew of 10**6 ppm, after years
        end = datetime.max if microseconds > 0 else datetime.min
        return end.replace(tzinfo=timezone.utc)


# The result of a reading, as one tuple: replacing it is atomic, and unpacking it is
# the fastest way to get ten values. In this order:
#   low, raw_after, low_rate: the earliest time is low at RAW = raw_after, and grows
#       by low_rate [ns per second of RAW]; likewise high, raw_before and high_rate
#   off: a lower bound of BOOTTIME - MONOTONIC
#   free_from: RAW from which on the status is FREE_RUNNING
#   hold_until: RAW after which the reading is too old
#   end: the interval is not used beyond this [ns since 1970]
_Reading: TypeAlias = "tuple[int, int, int, int, int, int, int, int, int, int]"
_NO_READING: _Reading = (0, 0, 0, 0, 0, 0, _NEVER, 0, -1, 0)


class _Sample(NamedTuple):
    """chronyd's report, and the clocks before and after it.

    Attributes:
        off: a lower bound of BOOTTIME - MONOTONIC [ns].
        first: RAW, REALTIME and RAW again before the report [ns].
        last: the same after it.
        tracking: the report.
    """

    off: int
    first: tuple[int, int, int]
    last: tuple[int, int, int]
    tracking: TrackingStatus

    @property
    def window(self) -> int:
        """The longest time that the reading can have taken [ns]."""
        return self.last[2] - self.first[0]

    @property
    def rate(self) -> float:
        """The frequency of NTP time against RAW, less 1."""
        return -self.tracking.frequency / 1e6

    @property
    def net(self) -> float:
        """The most that REALTIME was slewed or stepped meanwhile [ns]."""
        passed = self.last[1] - self.first[1]
        return max(
            abs(passed - self.window * (1 + self.rate)),
            abs(passed - (self.last[0] - self.first[2]) * (1 + self.rate)),
        )

    @property
    def is_stepped(self) -> bool:
        """Whether REALTIME moved faster than any slew."""
        return self.net > self.window / 8 + 1e6


class Bounds:
    """The interval, from one reading of chronyd to the next.

    :meth:`read` is for one thread, :meth:`now` for any number.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        interval: float = 1.0,
        max_drift_ppm: float = 50.0,
        holdover: float = 60.0,
        reference_error: float = 0.0,
    ) -> None:
        self._clock = machine.clock
        self._get_tracking = machine.get_tracking
        self._overdue = ceil((3 * interval + 1) * _SECOND)
        self._max_drift_ppm = max_drift_ppm
        self._holdover = holdover
        # With less, the interval would end before the next reading.
        self._least_holdover = 2 * interval
        self._reference_error = ceil(reference_error * _SECOND)
        self._reading: _Reading = _NO_READING
        # BOOTTIME - MONOTONIC at the last reading.
        self._off: int | None = None
        # BOOTTIME after which chronyd must have updated the clock, or None.
        self._distrusted_since: int | None = None
        # The reason for that.
        self._distrust = ""
        # The end of the day with a pending leap second, or None.
        self._leap: int | None = None
        # Notified after each reading, and at the end.
        self.changed = Condition()
        # Why the last reading failed, and why there will be no more.
        self.failure: ChronyError | None = None
        self.ended = ""

    def end(self, reason: str) -> None:
        """Let :meth:`now` raise ChronyUsageError from now on."""
        self.ended = self.ended or reason
        self._reading = _NO_READING

    def now(self, attempts: int = _TRIES) -> BoundedTime:
        """Return the interval, see :meth:`BoundedClock.now`."""
        clock = self._clock
        (
            low,
            raw_after,
            low_rate,
            high,
            raw_before,
            high_rate,
            off,
            free_from,
            hold_until,
            end,
        ) = self._reading
        raw = clock(CLOCK_MONOTONIC_RAW)
        # RAW stops while the machine is suspended. MONOTONIC is read before BOOTTIME,
        # so that a pause between the two makes the interval wider, not narrower. Both
        # are read after RAW, so that a suspend after RAW is noticed.
        suspended = -clock(CLOCK_MONOTONIC) + clock(CLOCK_BOOTTIME) - off
        earliest = low + (raw - raw_after) * low_rate // _SECOND
        latest = high - (raw_before - raw) * high_rate // _SECOND + suspended
        if raw > hold_until or suspended > _SUSPENDED or latest > end:
            # If it was only a pause of the process, the next attempt shows less.
            if suspended > _SUSPENDED and attempts:
                return self.now(attempts - 1)
            self._raise(raw - raw_after, suspended, latest > end)
        status = _SYNCHRONIZED if raw < free_from else _FREE_RUNNING
        return _new(BoundedTime, (earliest, latest, status))

    def _raise(self, elapsed: int, suspended: int, is_leap: bool) -> NoReturn:
        if self.ended:
            raise ChronyUsageError(self.ended)
        failure = self.failure
        cause = f": {failure.message}" if failure else ""
        if self._reading is _NO_READING:
            what = f"nothing bounds the clock yet{cause or ': it was not read yet'}"
        elif suspended > _SUSPENDED:
            seconds = suspended / _SECOND
            what = f"the machine was suspended for {seconds:g} s{cause}"
        elif is_leap and elapsed <= self._holdover * _SECOND:
            what = "a leap second is being inserted or deleted"
        else:
            what = (
                f"the last good reading of chronyd is {elapsed / _SECOND:.1f} s old, "
                f"and holdover is {self._holdover:g} s{cause}"
            )
        raise ClockUnboundError(what + _ADVICE) from failure

    def read(self) -> None:
        """Read chronyd, and extrapolate from this reading from now on.

        Raises:
            ClockUnboundError: chronyd's report does not bound the clock, or cannot
                be trusted now. The previous reading stays in use.
            ChronyError: chronyd could not be read.
        """
        sample = self._sample()
        for _ in range(2):
            if sample.window <= _LONG_READING and not sample.is_stepped:
                break
            sample = self._sample()
        if sample.is_stepped:
            raise ClockUnboundError(
                f"the clock was stepped by {sample.net / _SECOND:g} s while chronyd "
                "was read, three times. Does another program set it?"
            )
        last, tracking, rate = sample.last, sample.tracking, sample.rate
        middle = last[1] + round(tracking.offset * _SECOND)
        age = middle - tracking.ref_time_ns
        half = self._half(sample, age)
        low, high = middle - half, middle + half
        self._check_suspend(sample.off)
        self._check_agreement(low, high, last[2])
        self._check_update(age)
        end = self._end(tracking, middle, half)
        grow = (self._max_drift_ppm + tracking.skew + abs(tracking.residual_freq)) / 1e6
        self._reading = (
            low,
            last[2],
            floor((1 + rate - grow) * _SECOND) - 1,
            high,
            last[0],
            ceil((1 + rate + grow) * _SECOND) + 1,
            sample.off,
            last[2] + min(_overdue_age(tracking) - age, self._overdue),
            last[2] + ceil(max(self._holdover, self._least_holdover) * _SECOND),
            end,
        )
        if self.ended:
            self._reading = _NO_READING

    def _sample(self) -> _Sample:
        around = self._around(CLOCK_MONOTONIC, CLOCK_BOOTTIME)
        # A lower bound, as BOOTTIME was read before the later MONOTONIC.
        off = around[1] - around[2]
        first = self._around(CLOCK_MONOTONIC_RAW, CLOCK_REALTIME)
        tracking = self._get_tracking()
        last = self._around(CLOCK_MONOTONIC_RAW, CLOCK_REALTIME)
        _check(tracking)
        return _Sample(off, first, last, tracking)

    def _around(self, outer: int, inner: int) -> tuple[int, int, int]:
        """Read a clock between two reads of another that are close together."""
        clock = self._clock
        best = clock(outer), clock(inner), clock(outer)
        for _ in range(_TRIES - 1):
            if best[2] - best[0] <= _CLOSE:
                break
            again = clock(outer), clock(inner), clock(outer)
            if again[2] - again[0] < best[2] - best[0]:
                best = again
        return best

    def _half(self, sample: _Sample, age: int) -> int:
        """Return half the width of the interval at the reading [ns]."""
        tracking = sample.tracking
        if age < -_SECOND:
            raise ChronyDataError(
                f"chronyd's reference time is {-age / _SECOND:g} s in the future. "
                " Was the clock set while chronyd ran?"
            )
        # chronyd reports a reference time that is up to a second too early, so that
        # others cannot tell when it polls.
        bound = tracking.error_bound_at(abs(age) / _SECOND, self._max_drift_ppm)
        assert bound is not None  # noqa: S101 - for the type checkers; see _check()
        offset = abs(tracking.offset)
        return (
            ceil((bound - offset + bound * _PROTOCOL_PRECISION) * _SECOND)
            + ceil(sample.net + sample.window * min(_FASTEST_SLEW, offset))
            + self._reference_error
            + 2
        )

    def _check_suspend(self, off: int) -> None:
        """Distrust the clock after a suspend: it was set from a coarse RTC."""
        before, self._off = self._off, off
        if before is not None and off - before > _SUSPENDED:
            self._distrusts(f"the machine was suspended for {(off - before) / 1e9:g} s")

    def _check_agreement(self, low: int, high: int, raw: int) -> None:
        """Distrust a reading that contradicts the one before it."""
        if self._reading is _NO_READING or self._distrusted_since is not None:
            return
        old_low, raw_after, low_rate, old_high, raw_before, high_rate = self._reading[
            :6
        ]
        earliest = old_low + (raw - raw_after) * low_rate // _SECOND
        latest = old_high - (raw_before - raw) * high_rate // _SECOND + _SUSPENDED
        if low > latest or high < earliest:
            moved = (low + high - earliest - latest) / 2 / _SECOND
            self._distrusts(
                f"the clock was moved by {moved:+g} s against chronyd's error bound: "
                "somebody set it, or chronyd's sources disagree"
            )

    def _distrusts(self, why: str) -> None:
        self._distrusted_since = self._clock(CLOCK_BOOTTIME)
        self._distrust = why

    def _check_update(self, age: int) -> None:
        """After the clock was moved, reject readings until chronyd has updated it."""
        since = self._distrusted_since
        if since is not None:
            if age >= self._clock(CLOCK_BOOTTIME) - since:
                raise ClockUnboundError(
                    f"{self._distrust}, and chronyd has not updated it since"
                )
            self._distrusted_since = None

    def _end(self, tracking: TrackingStatus, middle: int, half: int) -> int:
        """Return when the interval ends because of a leap second [ns since 1970]."""
        leap = self._leap
        if leap is not None and middle + half >= leap - _AROUND_LEAP:
            # Only a measurement after the leap second shows whether it was applied.
            if min(middle - half, tracking.ref_time_ns) < leap + _AROUND_LEAP:
                raise ClockUnboundError(
                    "a leap second is being inserted or deleted, and chronyd has not "
                    "updated the clock since"
                )
            self._leap = None
        if not tracking.is_leap_pending():
            self._leap = None
            return _NEVER
        self._leap = leap = (middle // _DAY + 1) * _DAY
        return leap - _AROUND_LEAP


_SYNCHRONIZED, _FREE_RUNNING = BoundStatus.SYNCHRONIZED, BoundStatus.FREE_RUNNING
# Calling the class takes twice as long.
_new: Callable[[type[BoundedTime], tuple[int, int, BoundStatus]], BoundedTime]
_new = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _check(tracking: TrackingStatus) -> None:
    """Raise ClockUnboundError if nothing bounds this clock."""
    if tracking.is_local():
        raise ClockUnboundError(
            "chronyd serves its own clock (directive local) and follows no source"
        )
    if (
        not tracking.is_synchronized()
        # chronyd sets UNSYNC itself when its only source is not synchronised.
        or tracking.leap_status
        not in (LeapStatus.NORMAL, LeapStatus.INSERT, LeapStatus.DELETE)
    ):
        raise ClockUnboundError(
            "chronyd is not synchronised: it follows no source. See chronyc sources"
        )
    for name in (
        *("offset", "frequency", "residual_freq", "skew"),
        *("root_delay", "root_dispersion", "update_interval"),
    ):
        value = getattr(tracking, name)
        signed = name in ("offset", "frequency", "residual_freq")
        if not isfinite(value) or (value < 0 and not signed):
            raise ChronyDataError(f"chronyd reports a {name} of {value:g}")


def _overdue_age(tracking: TrackingStatus) -> int:
    """Return the age of an update at which the next one is overdue [ns].

    The update interval is 0 after the first update.
    """
    return ceil(8 * max(tracking.update_interval, 64.0) * _SECOND)


class _System:
    """The clocks of this machine, and its chronyd."""

    def __init__(self, connection: ChronyConnection) -> None:
        self.clock = clock_gettime_ns
        self.get_tracking = connection.get_tracking


# For the end of the interpreter, and for forked children.
_running: WeakSet[_Reader] = WeakSet()


class _Reader:
    """Reads chronyd every ``interval`` seconds in a daemon thread.

    The thread refers to the reader and not to the BoundedClock, so the clock can be
    garbage-collected while the thread runs.
    """

    def __init__(
        self, bounds: Bounds, connection: ChronyConnection, interval: float
    ) -> None:
        self.bounds = bounds
        self.connection = connection
        self._interval = interval
        # Released to stop the thread. A finalizer may do that at any bytecode; with
        # an Event it could deadlock.
        self._running = Lock()
        self._running.acquire()
        self._thread = Thread(target=self._run, name="pychrony.bounded", daemon=True)

    def start(self) -> None:
        """Read once here, then start the thread."""
        self.read()
        if isinstance(self.bounds.failure, (ChronyLibraryError, ChronyPermissionError)):
            raise self.bounds.failure  # waiting does not help
        _running.add(self)
        try:
            self._thread.start()
        except RuntimeError as reason:
            raise ChronyError(
                f"cannot start the thread that reads chronyd: {reason}. How many may "
                "this process have (ulimit -u)?"
            ) from reason

    def read(self) -> None:
        """Read once, and keep the error if there is one."""
        try:
            self.bounds.read()
            failure = None
        except ChronyError as error:
            failure = error.with_traceback(None)
        except Exception as error:  # so that the thread goes on
            failure = ChronyError(f"chronyd could not be read: {error!r}")
            failure.__cause__ = error.with_traceback(None)
        self.bounds.failure = failure
        with self.bounds.changed:
            self.bounds.changed.notify_all()

    def _run(self) -> None:
        try:
            while not self._running.acquire(timeout=self._interval):
                self.read()
        finally:
            self.bounds.end("the thread that reads chronyd has ended: make a new clock")
            self.connection.close()
            with self.bounds.changed:
                self.bounds.changed.notify_all()

    def stop(self) -> None:
        """Let the thread end; it closes the connection."""
        with suppress(RuntimeError):  # it was released before
            self._running.release()

    def join(self) -> None:
        if self._thread is not current_thread() and self._thread.is_alive():
            self._thread.join(5 * _LIMIT)

    def abandon(self, name: str) -> None:
        """Stop, as the clock was garbage-collected while it was open."""
        warnings.warn(f"unclosed {name}", ResourceWarning, stacklevel=2)
        self.stop()


def _at_exit() -> None:
    # Before 3.13, a daemon thread that imports while the interpreter exits can
    # crash it.
    for reader in list(_running):
        reader.stop()
        reader.join()


def _in_child() -> None:
    for reader in list(_running):
        reader.bounds.end(
            "the bounded clock was opened by the parent of this process, and is not "
            "read here. Close it, which the parent does not notice, and open another"
        )


# weakref registers one atexit function for all finalizers when the first is made. It
# must run after ours, so it must be registered before ours.
finalize(_running, list)
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)

# For one reading [s]: chronyd is on this machine.
_TIMEOUT, _RETRIES, _LIMIT = 0.3, 1, 1.0

# A waiting thread notices within this time [s] that the clock was closed.
_NOTICE = 1.0


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
        for name, value in (
            ("max_drift_ppm", max_drift_ppm),
            ("holdover", holdover),
            ("reference_error", reference_error),
        ):
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
        self._options = {
            "interval": interval,
            "max_drift_ppm": max_drift_ppm,
            "holdover": holdover,
            "reference_error": reference_error,
        }
        self._reader: _Reader | None = None
        self._bounds = Bounds(_System(connection))
        self._bounds.end("the bounded clock is not open: use it in a 'with' block")

    def __repr__(self) -> str:
        state = "open" if self._reader else "not open"
        place = "of this machine" if self._address is None else f"{self._address}"
        return f"<{type(self).__name__} {place} ({state})>"

    def __enter__(self) -> BoundedClock:
        """Read chronyd once, which takes at most a second, and start the thread.

        It is not an error here if chronyd does not reply or is not synchronised: it
        may be starting. :meth:`wait_until_bounded` waits for it.

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
        reader = _Reader(bounds, connection, self._interval)
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
            _running.discard(reader)

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
            ClockUnboundError: nothing bounds the clock now.
            ChronyUsageError: the clock is not open, or was closed meanwhile.
        """
        deadline = _deadline(timeout)
        while not (now := self.now()).earliest > ns:
            self._wait(_until(ns, now, deadline, timeout))
        return now

    def wait_until_bounded(self, timeout: float | None = None) -> BoundedTime:
        """Wait until something bounds the clock.

        Args:
            timeout: seconds to wait at most; ``None`` for no limit.

        Returns:
            The first interval.

        Raises:
            ChronyTimeoutError: nothing bounds it within ``timeout``; the message
                says why.
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
            self._address, timeout=_TIMEOUT, retries=_RETRIES, limit=_LIMIT
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
    if left <= 0:
        raise ChronyTimeoutError(
            f"{ns} ns since 1970 is not certainly past within {timeout:g} s: true time "
            f"may still be {now.earliest}. Wait longer, or see why the error bound is "
            f"{now.error_bound:g} s"
        )
    return min(left, _NOTICE, max((ns - now.earliest) / _SECOND, 0.00002))


def _until_read(
    error: ClockUnboundError, deadline: float, timeout: float | None
) -> float:
    """Return how long to wait for a good reading [s]."""
    left = deadline - monotonic()
    if left <= 0:
        raise ChronyTimeoutError(
            f"the clock is not bounded within {timeout:g} s: "
            f"{error.message.removesuffix(_ADVICE)}"
        ) from error
    return min(left, _NOTICE)


def main_now(argv: Sequence[str] | None = None) -> int:
    """``python -m pychrony now``: print the interval; return the exit status."""
    import argparse
    import json
    import sys

    parser = argparse.ArgumentParser(
        prog="python -m pychrony now",
        description="Print an interval that holds true time.",
        epilog="Exit status: 0; 1 if nothing bounds the clock; 2 for a usage error.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("-H", "--hostname", dest="address", help="chronyd of this machine")
    option("-t", "--timeout", type=float, default=10.0, help="seconds to wait (10)")
    option("--max-drift-ppm", type=float, default=50.0, help="of the oscillator (50)")
    option("--reference-error", type=float, default=0.0, help="of servers, seconds (0)")
    option("--json", action="store_true", help="print JSON, times in ns since 1970")
    arguments = parser.parse_args(argv)
    try:
        clock = BoundedClock(
            arguments.address,
            max_drift_ppm=arguments.max_drift_ppm,
            reference_error=arguments.reference_error,
        )
    except ValueError as error:
        parser.error(str(error))
    try:
        with clock:
            now = clock.wait_until_bounded(timeout=arguments.timeout)
    except ChronyError as error:
        print(error.message, file=sys.stderr)
        return 1
    if arguments.json:
        document = {
            "format": 1,
            "earliest": now.earliest,
            "latest": now.latest,
            "error_bound": now.error_bound,
            "status": now.status.name,
        }
        print(json.dumps(document, indent=2))
        return 0
    earliest, latest = (
        one.isoformat(timespec="microseconds") for one in now.datetime()
    )
    print(f"Earliest time : {earliest}")
    print(f"Latest time   : {latest}")
    print(f"Error bound   : {now.error_bound:.9f} seconds")
    print(f"Status        : {now.status.name}")
    return 0
