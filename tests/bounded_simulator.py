"""A simulated machine with a chronyd, on which the bounded clock runs unchanged.

Here true time is known: an oscillator that wanders drives CLOCK_MONOTONIC_RAW; a
chronyd polls, selects among its sources, slews, steps, restarts, is silent and
loses its sources; the machine suspends; the process is paused between any two
reads of a clock. Everything follows from the seed.

As a program it simulates more than the tests have time for::

    python tests/bounded_simulator.py --nows 20000000
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random
from time import CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW
from types import ModuleType

import pychrony
from pychrony import ClockUnboundError, TrackingStatus
from pychrony.bounded import _bounds
from pychrony.bounded._bounds import Bounds
from pychrony.testing import make_tracking

SECOND = 10**9
START = 1_800_000_000 * SECOND
BOOTED = START - 1000 * SECOND
MAX_SLEW = 83_333e-6
WANDER = 28.6e-6


SOURCE = Path(_bounds.__file__).read_text()

Kind = type[Bounds]


def without(cure: str, instead: str) -> Kind:
    """The class Bounds with a change of its source."""
    assert SOURCE.count(cure) == 1, cure
    module = ModuleType("pychrony.bounded._mutant")
    module.__package__ = "pychrony.bounded"
    sys.modules[module.__name__] = module
    try:
        code = compile(SOURCE.replace(cure, instead), "<mutant>", "exec")
        exec(code, vars(module))
    finally:
        del sys.modules[module.__name__]
    kind: Kind = module.Bounds
    return kind


def in_protocol(value: float) -> float:
    """What is left of a number in chronyd's protocol: 24 bits of coefficient."""
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(fraction * 2**24), exponent - 24)


class Machine:
    """Clocks and a chronyd that do only what they are told.

    Between two events RAW, REALTIME and what chronyd is slewing away are straight
    lines over true time; ``_line`` begins a new one.

    Attributes:
        true: true time [ns since 1970].
        at_raw: true time when RAW was read last.
        latencies: what each read of a clock takes [ns].
        at: what happens before which read of a clock, counted in ``reads``.
        on_request, on_reply: what happens before and after chronyd's report.
    """

    def __init__(self) -> None:
        self.true = self.at_raw = START
        self.latencies: Iterator[int] = cycle([40])
        self.at: dict[int, Callable[[], None]] = {}
        self.reads = 0
        self.on_request: list[Callable[[], None]] = []
        self.on_reply: list[Callable[[], None]] = []
        self.horizon: float = math.inf
        self._since = START  # the beginning of the lines
        self._raw = float(START - BOOTED)
        self._error = 0.0  # of REALTIME [ns]
        self._offset = 0.0  # what chronyd is slewing away [ns]
        self.drift = 0.0  # of RAW
        self.frequency = 0.0  # what chronyd believes that to be
        self.slew = 0.0
        self.suspended = 0
        self.maxclockerror = 1e-6
        self.leap_status = pychrony.LeapStatus.NORMAL
        self.stratum = 2
        self.update()

    def clock(self, number: int) -> int:
        self.true += next(self.latencies)
        if self.at:
            action = self.at.pop(self.reads, None)
            if action:
                action()
        self.reads += 1
        if self.true >= self.horizon:
            self.happen()
        true = self.true
        if number == CLOCK_MONOTONIC_RAW:
            self.at_raw = true
            return int(self._raw + (true - self._since) * (1 + self.drift))
        if number == CLOCK_BOOTTIME:
            return true - BOOTED
        if number == CLOCK_MONOTONIC:
            return true - BOOTED - self.suspended
        return true + math.floor(self.error())

    def get_tracking(self) -> TrackingStatus:
        while self.on_request:
            self.on_request.pop()()
        self.pass_(20_000)
        report = self.report()
        self.pass_(15_000)
        while self.on_reply:
            self.on_reply.pop()()
        return report

    def error(self) -> float:
        """What REALTIME is ahead of true time [ns]."""
        rate = (1 + self.drift) * (1 - self.frequency + self.slew) - 1
        return self._error + (self.true - self._since) * rate

    def offset(self) -> float:
        passed = (self.true - self._since) * (1 + self.drift)
        return self._offset - self.slew * passed

    def report(self) -> TrackingStatus:
        age = self.true - self._updated
        dispersion = self._dispersion + age / SECOND * (self.maxclockerror + self.skew)
        return make_tracking(
            ref_time_ns=self._ref_time,
            offset=in_protocol(self.offset() / SECOND),
            frequency=in_protocol(self.frequency * 1e6),
            residual_freq=0.0,
            skew=in_protocol(self.skew * 1e6),
            root_delay=in_protocol(self._delay),
            root_dispersion=in_protocol(dispersion),
            update_interval=self._interval,
            stratum=self.stratum,
            leap_status=self.leap_status,
        )

    def pass_(self, nanoseconds: float) -> None:
        """Let time pass."""
        end = self.true + int(nanoseconds)
        while end >= self.horizon:
            self.true = max(self.true, int(self.horizon))
            self.happen()
        self.true = max(end, self.true)

    def happen(self) -> None:
        """Let the events before now happen."""

    def _line(self) -> None:
        passed = self.true - self._since
        self._error, self._offset = self.error(), self.offset()
        self._raw += passed * (1 + self.drift)
        self._since = self.true

    def set_drift(self, drift: float) -> None:
        self._line()
        self.drift = drift

    def set_slew(self, slew: float) -> None:
        self._line()
        self.slew = slew

    def update(  # what chronyd does with a measurement, all in seconds
        self,
        wrong: float = 0.0,
        *,
        delay: float = 0.0,
        dispersion: float = 1e-6,
        skew: float = 0.0,
        frequency: float | None = None,
        earlier: float = 0.0,
        interval: float = 64.0,
    ) -> None:
        """Measure: NTP time becomes true time + ``wrong``; nothing is slewed yet."""
        self._line()
        self._offset = wrong * SECOND - self._error
        self.frequency = self.drift if frequency is None else frequency
        self.skew = skew
        self.slew = 0.0
        self._delay, self._dispersion = delay, dispersion
        self._updated = self.true
        self._interval = interval
        self._ref_time = int(self.true + (wrong - earlier) * SECOND)

    def step(self, seconds: float) -> None:
        """chronyd steps the clock, and knows what is left to correct."""
        self._line()
        self._error += seconds * SECOND
        self._offset -= seconds * SECOND

    def set_clock(self, seconds: float) -> None:
        """Somebody else steps the clock, or RTC was coarse: chronyd does not know."""
        self._line()
        self._error += seconds * SECOND

    def suspend(self, seconds: float) -> None:
        """Only BOOTTIME and REALTIME go on."""
        self._line()
        nanoseconds = int(seconds * SECOND)
        self.true += nanoseconds
        self.suspended += nanoseconds
        self._since = self.true


class Lively(Machine):
    """One where everything happens by chance, within what the clock promises.

    True time is in chronyd's error bound after each measurement, often at its very
    edge; the oscillator stays within ``WANDER`` of what it was then, and what
    chronyd believes of it within the skew.
    """

    def __init__(
        self, random: Random, maxclockerror: float, steady_poll: float = 0.0
    ) -> None:
        self.random = random
        super().__init__()
        self.maxclockerror = maxclockerror * 1e-6
        self.latencies = cycle([self._latency() for _ in range(4096)])
        uniform = random.uniform
        self._base = self.drift = uniform(-50e-6, 50e-6)
        self._amplitude = random.choice([0.1, 0.5, 1.0]) * WANDER
        self._poll = 2.0 ** random.randint(1, 6)
        self._steps = random.choice([0.0005, 0.1, 10.0])
        # Delay and dispersion of each source [s], and how skewed it may be.
        self._sources = [
            (10 ** uniform(-4, -2), 10 ** uniform(-6, -3)),
            (10 ** uniform(-3, -0.7), 10 ** uniform(-5, -2)),
        ]
        self._skew = 10 ** uniform(-8, -5)
        self._young = 0
        self.silent_until = 0
        never = 1 << 80
        if steady_poll:
            self._poll = steady_poll
            self._steps = 10.0
            self._sources = [(0.0004, 0.00002)]
            self._skew = 0.02e-6
        self._times = {
            self._measure: self.true,
            self._end_slew: never,
            self._wander: self.true + SECOND,
            self._fault: never
            if steady_poll
            else self.true + int(uniform(20, 200) * SECOND),
        }
        self._next()
        self.happen()

    def _latency(self) -> int:
        chance = self.random.random()
        if chance < 0.995:
            return int(self.random.uniform(20, 150))
        if chance < 0.9995:
            return int(10 ** self.random.uniform(4, 6.5))
        return int(10 ** self.random.uniform(6, 9))

    def _next(self) -> None:
        self.horizon = min(self._times.values())

    def happen(self) -> None:
        now = self.true
        while self.horizon <= now:
            event = min(self._times, key=self._times.__getitem__)
            self.true = max(self._times[event], self._since)
            event()
            self._next()
        self.true = max(now, self._since)

    def _measure(self) -> None:
        random = self.random
        delay, dispersion = random.choice(self._sources)
        edge = delay / 2 + dispersion
        wrong = edge * random.choice([-1, 1, random.uniform(-1, 1)])
        skew = 10 ** random.uniform(-4, -2.5) if self._young > 0 else self._skew
        self._young -= 1
        self._base = self.drift
        poll = self._poll * random.uniform(0.9, 1.1)
        self.stratum = 2
        self.update(
            wrong,
            delay=delay,
            dispersion=dispersion,
            skew=skew,
            frequency=self.drift + skew * random.uniform(-1, 1),
            earlier=random.random(),
            interval=poll,
        )
        self._times[self._measure] = self.true + int(poll * SECOND)
        left = self._offset / SECOND
        if abs(left) > self._steps:
            self.step(left)
            return
        seconds = max(random.uniform(1, 8), abs(left) / MAX_SLEW)
        self.set_slew(left / seconds)
        self._times[self._end_slew] = self.true + int(seconds * SECOND)

    def _end_slew(self) -> None:
        self.set_slew(0.0)
        self._times[self._end_slew] = 1 << 80

    def _wander(self) -> None:
        self.set_drift(self._base + self.random.uniform(-1, 1) * self._amplitude)
        self._times[self._wander] = self.true + int(
            self.random.uniform(0.5, 20) * SECOND
        )

    def _fault(self) -> None:
        random = self.random
        uniform = random.uniform
        later = self.true + int(10 ** uniform(0, 3) * SECOND)
        kind = random.randrange(4)
        if kind == 0:
            self.silent_until = later
        elif kind == 1:  # all sources are lost
            self._times[self._measure] = later
        elif kind == 2:  # a restart
            self.stratum = 16
            self._young = 4
            self.set_slew(0.0)
            self._times[self._measure] = self.true + int(uniform(4, 20) * SECOND)
        else:
            seconds = 10 ** uniform(-3.5, 2)
            self.suspend(seconds)
            if seconds > 1 and random.random() < 0.3:
                self.set_clock(uniform(-0.5, 0.5))
        self._times[self._fault] = self.true + int(uniform(20, 400) * SECOND)

    def get_tracking(self) -> TrackingStatus:
        self.pass_(10 ** self.random.uniform(4, 5.5))
        if self.true < self.silent_until:
            self.pass_(SECOND)
            raise pychrony.ChronyTimeoutError("no answer")
        report = self.report()
        if self.stratum == 16:
            raise ClockUnboundError("chronyd is not synchronised")
        self.pass_(10 ** self.random.uniform(4, 5.5))
        return report


class RealtimeAsRaw(Lively):
    """The form that fails: anchored in a clock that chronyd slews."""

    def clock(self, number: int) -> int:
        if number != CLOCK_MONOTONIC_RAW:
            return super().clock(number)
        super().clock(number)
        return self.true - BOOTED + math.floor(self.error())


@dataclass
class Result:
    """What came of a simulation."""

    intervals: int = 0
    misses: int = 0
    unbound: int = 0
    readings: int = 0
    width: float = 0.0  # the sum of all [ns]
    theirs: int = 0  # ClockBound's
    their_misses: int = 0
    their_width: float = 0.0


def simulate(
    seed: int,
    nows: int,
    *,
    maxclockerror: float = 1.0,
    max_drift_ppm: float = 50.0,
    bounds_class: type[Bounds] = Bounds,
    machine_class: type[Lively] = Lively,
    each: int = 20_000,
    asks: int = 20,
    steady_poll: float = 0.0,
    until_miss: bool = False,
) -> Result:
    """Ask for the time so many times, on a new machine after each 20,000.

    With ``steady_poll`` nothing happens but the polls of one good source.
    """
    result = Result()
    machines = Random(seed)
    while result.intervals + result.unbound < nows and not (
        until_miss and result.misses
    ):
        random = Random(machines.getrandbits(64))
        machine = machine_class(random, maxclockerror, steady_poll)
        bounds = bounds_class(machine, max_drift_ppm=max_drift_ppm)
        _run(machine, bounds, random, min(each, nows), asks, result)
    return result


def _run(
    machine: Lively,
    bounds: Bounds,
    random: Random,
    nows: int,
    asks: int,
    result: Result,
) -> None:
    their_bound, their_start = 0.0, -1
    drift = machine.maxclockerror
    for _ in range(nows // asks):
        result.readings += 1
        try:
            bounds.read()
        except pychrony.ChronyError as error:
            bounds.failure = error
        else:
            report = machine.report()
            assert report.error_bound is not None
            their_bound, their_start = report.error_bound * SECOND, machine.true
        # Now and then the thread that reads gets no time.
        pause = SECOND if random.random() < 0.99 else 10 ** random.uniform(9, 10.5)
        for _ in range(asks):
            machine.pass_(random.random() * pause * 2 / asks)
            try:
                interval = bounds.now()
            except ClockUnboundError:
                result.unbound += 1
                continue
            result.intervals += 1
            earliest, latest, _ = interval
            result.width += latest - earliest
            if not earliest <= machine.at_raw <= latest:
                result.misses += 1
            if their_start >= 0:
                elapsed = machine.true - their_start
                bound = their_bound + elapsed * drift
                result.theirs += 1
                result.their_width += 2 * bound
                if abs(machine.error()) > bound:
                    result.their_misses += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate the bounded clock.")
    parser.add_argument("--nows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--maxclockerror", type=float, default=1.0, help="ppm")
    parser.add_argument("--max-drift-ppm", type=float, default=50.0)
    parser.add_argument("--steady-poll", type=float, default=0.0, help="seconds")
    parser.add_argument("--realtime", action="store_true", help="in place of RAW")
    options = parser.parse_args()
    begin = time.process_time()
    result = simulate(
        options.seed,
        options.nows,
        maxclockerror=options.maxclockerror,
        max_drift_ppm=options.max_drift_ppm,
        steady_poll=options.steady_poll,
        machine_class=RealtimeAsRaw if options.realtime else Lively,
    )
    print(f"{result}\n{time.process_time() - begin:.1f} s of CPU")
    if result.intervals and result.theirs:
        print(f"mean width {result.width / result.intervals / 1e6:.3f} ms")
        print(f"ClockBound {result.their_width / result.theirs / 1e6:.3f} ms")


if __name__ == "__main__":
    main()
