"""The mathematics of the bounded clock, without a thread.

It reads the clocks and chronyd through one object, which the tests replace by a
simulator.
"""

from __future__ import annotations

from math import ceil, floor, isfinite
from threading import Condition
from time import CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME
from typing import NamedTuple

from pychrony.enums import LeapStatus
from pychrony.exceptions import (
    ChronyDataError,
    ChronyError,
    ChronyUsageError,
    ClockUnboundError,
)

from ._time import SECOND, BoundedTime, BoundStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol, TypeAlias

    from pychrony.models import TrackingStatus

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


_DAY = 86_400 * SECOND

# Two reads of a clock around another are repeated until they are this close, but
# not more often than that: a process may be paused between any two reads.
_CLOSE = 5_000
_TRIES = 8
# A reading that takes longer is repeated twice: the error that a slew can add is
# in proportion to the time.
_LONG_READING = 2_000_000
# By more than this BOOTTIME runs away from MONOTONIC only while suspended.
_SUSPENDED = 1_000_000
# chronyd slews by 83,333 ppm at most (maxslewrate) on top of the greatest
# frequency error that it corrects (maxdrift), each seen by a clock that runs
# wrong itself; and it takes a second at least for any slew.
_FASTEST_SLEW = 0.1006
# The protocol has 24 bits of coefficient for a number.
_PROTOCOL_PRECISION = 2.0**-24
# Before and after a leap second: servers do not all insert it at the same time.
_AROUND_LEAP = 2 * SECOND
ADVICE = " (wait_until_bounded() waits for a good reading)"
# An end of the interval that is never reached.
_NEVER = 10**400

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
        self._overdue = ceil((3 * interval + 1) * SECOND)
        self._max_drift_ppm = max_drift_ppm
        self._holdover = holdover
        # Else the clock would be lost before each next reading.
        self._least_holdover = 2 * interval
        self._reference_error = ceil(reference_error * SECOND)
        self._reading: _Reading = _NO_READING
        # What BOOTTIME was ahead of MONOTONIC at the last reading.
        self._off: int | None = None
        # BOOTTIME after which chronyd must have updated the clock, or None.
        self._distrusted_since: int | None = None
        # Why it must.
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
        earliest = low + (raw - raw_after) * low_rate // SECOND
        latest = high - (raw_before - raw) * high_rate // SECOND + suspended
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
            seconds = suspended / SECOND
            what = f"the machine was suspended for {seconds:g} s{cause}"
        elif is_leap and elapsed <= self._holdover * SECOND:
            what = "a leap second is being inserted or deleted"
        else:
            what = (
                f"the last good reading of chronyd is {elapsed / SECOND:.1f} s old, "
                f"and holdover is {self._holdover:g} s{cause}"
            )
        raise ClockUnboundError(what + ADVICE) from failure

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
                f"the clock was stepped by {sample.net / SECOND:g} s while chronyd "
                "was read, three times. Does another program set it?"
            )
        last, tracking, rate = sample.last, sample.tracking, sample.rate
        middle = last[1] + round(tracking.offset * SECOND)
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
            floor((1 + rate - grow) * SECOND) - 1,
            high,
            last[0],
            ceil((1 + rate + grow) * SECOND) + 1,
            sample.off,
            last[2] + min(_overdue_age(tracking) - age, self._overdue),
            last[2] + ceil(max(self._holdover, self._least_holdover) * SECOND),
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
        if age < -SECOND:
            raise ChronyDataError(
                f"chronyd's reference time is {-age / SECOND:g} s in the future. "
                "Was the clock set while chronyd ran?"
            )
        # chronyd reports a reference time that is up to a second too early, so that
        # others cannot tell when it polls.
        bound = tracking.error_bound_at(abs(age) / SECOND, self._max_drift_ppm)
        assert bound is not None  # noqa: S101 - for the type checkers; see _check()
        offset = abs(tracking.offset)
        return (
            ceil((bound - offset + bound * _PROTOCOL_PRECISION) * SECOND)
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
        earliest = old_low + (raw - raw_after) * low_rate // SECOND
        latest = old_high - (raw_before - raw) * high_rate // SECOND + _SUSPENDED
        if low > latest or high < earliest:
            moved = (low + high - earliest - latest) / 2 / SECOND
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
    return ceil(8 * max(tracking.update_interval, 64.0) * SECOND)
