"""Where an interval from chronyd can miss true time, or be lost for nothing.

Each trap runs against the formulas as they are, and once more against a copy in
which its cure is taken out: then it must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest
from bounded_simulator import MAX_SLEW, SECOND, Kind, Machine, without

import pychrony
from pychrony import BoundStatus, ClockUnboundError, LeapStatus, TrackingStatus
from pychrony.bounded._bounds import Bounds

DAY = 86_400 * SECOND
Trap = Callable[[Kind], None]
TRAPS: list[Trap] = []
CURES: list[tuple[Trap, str, str]] = []  # and what stands instead of the cure


def name(what: object) -> str:
    return getattr(what, "__name__", "")


def trap(cure: str = "", instead: str = "") -> Callable[[Trap], Trap]:
    """Make a test of a function, and one that fails where the cure is taken out."""

    def register(hold: Trap) -> Trap:
        if hold not in TRAPS:
            TRAPS.append(hold)
        if cure:
            CURES.append((hold, cure, instead))
        return hold

    return register


def holds(bounds: Bounds, machine: Machine, widest: float = 1.0) -> BoundStatus:
    """Whether the interval holds true time and is not wider than that [s]."""
    earliest, latest, status = bounds.now()
    assert earliest <= machine.at_raw <= latest
    assert latest - earliest <= widest * SECOND
    return status


def holds_anew(bounds: Bounds, machine: Machine, widest: float = 1.0) -> BoundStatus:
    """The same after another reading."""
    bounds.read()
    return holds(bounds, machine, widest)


def fresh(kind: Kind, **options: float) -> tuple[Machine, Bounds]:
    """A machine, and a clock that allows nothing that the caller does not ask for."""
    machine = Machine()
    return machine, kind(machine, **{"max_drift_ppm": 0.0, **options})


def begun(kind: Kind, **options: float) -> tuple[Machine, Bounds]:
    """The same after the first reading."""
    machine, bounds = fresh(kind, **options)
    bounds.read()
    return machine, bounds


# Reads of a clock: three for the suspends, three before and three after the report,
# then RAW, MONOTONIC and BOOTTIME in now().
REPORT, DONE = 6, 9


def pause(seconds: float, machine: Machine) -> Callable[[], None]:
    return lambda: machine.pass_(seconds * SECOND)


@trap(
    "-clock(CLOCK_MONOTONIC) + clock(CLOCK_BOOTTIME) - off",
    "clock(CLOCK_BOOTTIME) - clock(CLOCK_MONOTONIC) - off",
)
def order_in_now(kind: Kind) -> None:
    machine, bounds = begun(kind)
    machine.at[DONE + 2] = pause(0.1, machine)
    holds(bounds, machine, 0.0001)


@trap(
    "CLOCK_BOOTTIME) - off\n",
    "CLOCK_BOOTTIME) - off\n        raw = clock(CLOCK_MONOTONIC_RAW)\n",
)
def order_of_raw_in_now(kind: Kind) -> None:
    """A suspend before RAW is read is seen, as what is compared is read after it."""
    machine, bounds = begun(kind)
    for first in range(DONE, DONE + 4):
        machine.reads = DONE
        machine.at = {first: lambda: machine.suspend(0.0001)}
        holds(bounds, machine)


@trap("off = around[1] - around[2]", "off = around[1] - around[0]")
def order_in_the_reading(kind: Kind) -> None:
    machine, bounds = fresh(kind)
    for pair in range(8):
        machine.at[pair * 3 + 1] = pause(0.0004, machine)
    holds_anew(bounds, machine, 0.01)


@trap("_TRIES = 8", "_TRIES = 1")
def pause_while_off_is_taken(kind: Kind) -> None:
    machine, bounds = fresh(kind)
    machine.at[2] = pause(0.005, machine)
    holds_anew(bounds, machine, 0.0001)


@trap("if suspended > _SUSPENDED and attempts:", "if False:")
def pause_is_no_suspend(kind: Kind) -> None:
    machine, bounds = begun(kind)
    machine.at[DONE + 2] = pause(30.0, machine)
    holds(bounds, machine, 0.0001)


@trap("// SECOND + suspended", "// SECOND")
def short_suspend(kind: Kind) -> None:
    machine, bounds = begun(kind)
    machine.suspend(0.0009)
    holds(bounds, machine, 0.002)


@trap("raw > hold_until or suspended > _SUSPENDED or", "raw > hold_until or")
def long_suspend(kind: Kind) -> None:
    machine, bounds = begun(kind)
    machine.suspend(5.0)
    with pytest.raises(ClockUnboundError, match=r"was suspended for 5(\.\d+)? s"):
        bounds.now()


@trap("self._check_suspend(sample.off)", "None")
def coarse_rtc(kind: Kind) -> None:
    """After a suspend the kernel sets the clock from the RTC; chronyd knows nothing."""
    machine, bounds = begun(kind)
    machine.suspend(5.0)
    machine.set_clock(0.4)
    with pytest.raises(ClockUnboundError, match="suspended for 5 s, and chronyd has"):
        bounds.read()
    with pytest.raises(ClockUnboundError):
        bounds.now()
    machine.pass_(2 * SECOND)
    machine.update()
    machine.pass_(SECOND)
    holds_anew(bounds, machine)


@trap("self._check_agreement(low, high, last[2])", "None")
@trap("self._check_update(age)", "None")
def set_by_another(kind: Kind) -> None:
    machine, bounds = begun(kind)
    machine.pass_(SECOND)
    machine.set_clock(0.4)
    with pytest.raises(ClockUnboundError, match=r"moved by \+0\.[34]\d* s"):
        bounds.read()
    holds(bounds, machine, 0.001)
    machine.pass_(SECOND)
    machine.update()
    machine.pass_(SECOND)
    holds_anew(bounds, machine)


@trap("ceil(sample.net + sample", "ceil(sample")
def slew_in_a_reading(kind: Kind) -> None:
    machine, bounds = fresh(kind)
    machine.set_clock(-0.08)
    machine.update()
    machine.set_slew(MAX_SLEW)
    machine.pass_(0.9599 * SECOND)  # the offset is small by then

    def late() -> None:
        machine.set_slew(-MAX_SLEW)
        machine.pass_(0.0018 * SECOND)

    machine.on_reply.append(late)
    holds_anew(bounds, machine, 0.001)


@trap("+ sample.window * min(_FASTEST_SLEW, offset)", "")
def reversal_in_a_reading(kind: Kind) -> None:
    """What REALTIME was slewed by before the report is undone after it."""
    machine, bounds = fresh(kind)
    machine.update(0.5)
    machine.set_slew(MAX_SLEW)
    wrong = 0.5

    def before() -> None:
        machine.pass_(0.0008 * SECOND)

    def after() -> None:
        machine.update(wrong)
        machine.set_slew(-MAX_SLEW)
        machine.pass_(0.00084 * SECOND)
        # The interval holds NTP time as it was reported.
        machine.set_slew(0.0)

    machine.on_request.append(before)
    machine.on_reply.append(after)
    bounds.read()
    earliest, latest, _ = bounds.now()
    assert earliest <= machine.at_raw + wrong * SECOND <= latest
    assert latest - earliest < 0.001 * SECOND


@trap("last[1] + round(tracking.offset", "last[1] - round(tracking.offset")
def sign_of_the_offset(kind: Kind) -> None:
    for wrong in (0.01, -0.01):
        machine, bounds = fresh(kind)
        machine.step(wrong)
        holds_anew(bounds, machine, 0.001)


@trap("return -self.tracking.freq", "return self.tracking.freq")
def sign_of_the_frequency(kind: Kind) -> None:
    for drift in (40e-6, -40e-6):
        machine, bounds = fresh(kind)
        machine.set_drift(drift)
        machine.update()
        bounds.read()
        machine.pass_(10 * SECOND)
        holds(bounds, machine, 0.001)


@trap("self._max_drift_ppm + tracking.skew + abs", "self._max_drift_ppm + abs")
def skew_of_a_fresh_daemon(kind: Kind) -> None:
    for error in (1900e-6, -1900e-6):
        machine, bounds = fresh(kind)
        machine.update(frequency=error, skew=2000e-6)
        bounds.read()
        machine.pass_(SECOND)
        holds(bounds, machine, 0.01)


@trap("tracking.skew + abs(tracking.residual_freq)", "0")
def residual_frequency(kind: Kind) -> None:
    machine, bounds = fresh(kind)
    machine.update(frequency=100e-6)
    bounds._get_tracking = lambda: replace(machine.report(), residual_freq=-100.0)
    bounds.read()
    machine.pass_(SECOND)
    holds(bounds, machine, 0.01)


@trap("error_bound_at(abs(age) / SECOND,", "error_bound_at(0.0,")
def drift_since_the_update(kind: Kind) -> None:
    machine = Machine()
    machine.set_drift(45e-6)
    machine.frequency = 0.0  # it was right at the update
    machine.pass_(1000 * SECOND)
    bounds = kind(machine)
    holds_anew(bounds, machine, 0.2)


@trap("self._max_drift_ppm + tracking", "tracking")
def drift_since_the_reading(kind: Kind) -> None:
    machine, bounds = begun(kind, max_drift_ppm=50.0)
    for drift in (45e-6, -45e-6):
        bounds.read()
        machine.set_drift(drift)
        machine.pass_(30 * SECOND)
        holds(bounds, machine, 0.02)
        machine.set_drift(0.0)
        machine.update()


@trap("ceil(sample.net + sample", "ceil(sample")
def small_step_in_a_reading(kind: Kind) -> None:
    for seconds in (0.0009, -0.0009):
        machine, bounds = fresh(kind)
        machine.on_reply.append(partial(machine.step, seconds))
        holds_anew(bounds, machine, 0.003)


@trap("return self.net > self.window / 8 + 1e6", "return False")
def large_step_in_a_reading(kind: Kind) -> None:
    for seconds in (0.3, -0.3):
        machine, bounds = begun(kind)
        machine.on_reply.append(partial(machine.step, seconds))
        holds_anew(bounds, machine, 0.001)


@trap("if sample.is_stepped:", "if False:")
def steps_in_each_reading(kind: Kind) -> None:
    machine, bounds = begun(kind)

    def stepping() -> TrackingStatus:
        report = machine.report()
        machine.step(0.3)
        return report

    bounds._get_tracking = stepping
    with pytest.raises(ClockUnboundError, match="stepped by"):
        bounds.read()
    holds(bounds, machine, 0.001)


@trap("self.window / 8 + 1e6", "self.window / 99 + 1e6")
def pause_is_no_step(kind: Kind) -> None:
    """However long it is, while the clock is slewed."""
    machine, bounds = fresh(kind)
    machine.set_clock(-0.8)
    machine.update()
    machine.set_slew(MAX_SLEW)
    bounds._get_tracking = lambda: _slow(machine)
    holds_anew(bounds, machine)


def _slow(machine: Machine) -> TrackingStatus:
    machine.pass_(0.5 * SECOND)
    report = machine.report()
    machine.pass_(0.5 * SECOND)
    return report


def before_a_leap(kind: Kind) -> tuple[Machine, Bounds]:
    """Ten seconds before a leap second that chronyd has announced."""
    machine = Machine()
    midnight = (machine.true // DAY + 1) * DAY
    machine.leap_status = LeapStatus.INSERT
    machine.pass_(midnight - machine.true - 10 * SECOND)
    machine.update()
    bounds = kind(machine)
    bounds.read()
    return machine, bounds


@trap("return leap - _AROUND_LEAP", "return _NEVER")
def pending_leap(kind: Kind) -> None:
    machine, bounds = before_a_leap(kind)
    machine.pass_(7.9 * SECOND)
    holds(bounds, machine)
    machine.pass_(0.2 * SECOND)
    with pytest.raises(ClockUnboundError, match="leap second"):
        bounds.now()


@trap("if min(middle - half, tracking.ref_time_ns) < leap + _AROUND_LEAP:", "if False:")
def after_a_leap(kind: Kind) -> None:
    """chronyd says nothing of it any more, and has not measured since."""
    machine, bounds = before_a_leap(kind)
    machine.pass_(20 * SECOND)
    machine.leap_status = LeapStatus.NORMAL
    with pytest.raises(ClockUnboundError, match="leap second"):
        bounds.read()
    with pytest.raises(ClockUnboundError, match="leap second"):
        bounds.now()
    machine.update()
    holds_anew(bounds, machine)


@trap(
    "self._leap = None\n            return _NEVER",
    "return _NEVER if self._leap is None else self._leap",
)
def leap_that_is_taken_back(kind: Kind) -> None:
    machine = Machine()
    machine.leap_status = LeapStatus.DELETE
    bounds = kind(machine, holdover=2e5)
    bounds.read()
    machine.leap_status = LeapStatus.NORMAL
    machine.update()
    bounds.read()
    machine.pass_(DAY)
    holds(bounds, machine, 20.0)


@trap("if age < -SECOND:", "if False:")
def future_reference_time(kind: Kind) -> None:
    machine, bounds = fresh(kind)
    machine._ref_time = machine.true + SECOND * 8 // 10
    holds_anew(bounds, machine, 0.001)
    machine._ref_time = machine.true + SECOND * 15 // 10
    with pytest.raises(pychrony.ChronyDataError, match="in the future"):
        bounds.read()
    holds(bounds, machine, 0.001)


@trap("not in (LeapStatus.NORMAL, LeapStatus.INSERT, LeapStatus.DELETE)", "is None")
def unsynchronised_leap(kind: Kind) -> None:
    machine, bounds = fresh(kind)
    machine.leap_status = LeapStatus.UNSYNC
    with pytest.raises(ClockUnboundError, match="not synchronised"):
        bounds.read()
    with pytest.raises(ClockUnboundError):
        bounds.now()


@trap("if raw > hold_until or", "if raw_after == 0 or")
def holdover(kind: Kind) -> None:
    machine, bounds = begun(kind, holdover=10.0)
    machine.stratum = 16
    machine.pass_(9.9 * SECOND)
    with pytest.raises(ClockUnboundError) as caught:
        bounds.read()
    bounds.failure = caught.value
    assert holds(bounds, machine) is BoundStatus.FREE_RUNNING
    machine.pass_(0.2 * SECOND)
    with pytest.raises(ClockUnboundError, match=r"10\.1 s old.*not synchronised"):
        bounds.now()


@trap("- age, self._overdue)", "- age, 10 ** 12)")
def overdue_reports(kind: Kind) -> None:
    machine, bounds = begun(kind, interval=1.0)
    machine.pass_(3.99 * SECOND)
    assert holds(bounds, machine) is BoundStatus.SYNCHRONIZED
    machine.pass_(0.02 * SECOND)
    assert holds(bounds, machine) is BoundStatus.FREE_RUNNING


@trap("max(tracking.update_interval, 64.0)", "tracking.update_interval")
def overdue_updates(kind: Kind) -> None:
    machine = Machine()
    machine.update(interval=0.0)  # the first
    bounds = kind(machine)
    for seconds, status in (
        (510, BoundStatus.SYNCHRONIZED),
        (3, BoundStatus.FREE_RUNNING),
    ):
        machine.pass_(seconds * SECOND)
        bounds.read()
        assert holds(bounds, machine) is status


@trap("_PROTOCOL_PRECISION = 2.0**-24", "_PROTOCOL_PRECISION = 0.0")
def protocol_precision(kind: Kind) -> None:
    for number in range(100):
        machine, bounds = fresh(kind)
        machine.set_clock(-1000.0 - number / 7.777)
        machine.update(dispersion=0.0)
        holds_anew(bounds, machine, 0.001)


@trap("+ self._reference_error", "+ 0")
def reference_error(kind: Kind) -> None:
    machine, bounds = fresh(kind, reference_error=0.0005)
    machine.update(0.0005)
    holds_anew(bounds, machine, 0.002)


@trap(
    "latest = high - (raw_before - raw) * high_rate // SECOND + suspended",
    "latest = high + (raw - raw_before) * high_rate // SECOND + suspended",
)
@trap(
    "+ suspended\n",
    "+ suspended\n        earliest = low - (raw_after - raw) * low_rate // 10**9\n",
)
def rounding(kind: Kind) -> None:
    """Outwards, against the same lines in fractions."""
    machine = Machine()
    machine.set_drift(12.3456e-6)
    machine.update(skew=1e-6)
    bounds = kind(machine)
    bounds.read()
    low, after, low_rate, high, before, high_rate = bounds._reading[:6]
    inexact = 0
    for _ in range(100):
        machine.pass_(1_234_567)
        earliest, latest, _ = bounds.now()
        raw = machine.at_raw - machine._since
        raw = int(machine._raw + raw * (1 + machine.drift))
        exact_low = low + Fraction((raw - after) * low_rate, SECOND)
        exact_high = high + Fraction((raw - before) * high_rate, SECOND)
        assert exact_low - 1 < earliest <= exact_low
        assert exact_high <= latest - 80 < exact_high + 1  # 40 ns between two reads
        inexact += exact_low != earliest
    assert inexact


@trap()
def suspend_during_the_report(kind: Kind) -> None:
    machine, bounds = begun(kind)
    machine.on_reply.append(lambda: machine.suspend(3.0))
    with pytest.raises(ClockUnboundError):
        bounds.read()
        bounds.now()


@pytest.mark.parametrize("hold", TRAPS, ids=name)
def test_interval_holds_in_trap(hold: Trap) -> None:
    hold(Bounds)


@pytest.mark.parametrize(("hold", "cure", "instead"), CURES, ids=name)
def test_trap_without_its_cure(hold: Trap, cure: str, instead: str) -> None:
    kind = without(cure, instead)
    with pytest.raises((AssertionError, pychrony.ChronyError, pytest.fail.Exception)):
        hold(kind)
