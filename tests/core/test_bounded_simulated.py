"""The bounded clock on simulated machines: see bounded_simulator.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from bounded_simulator import MAX_SLEW, SECOND, Machine, RealtimeAsRaw, simulate

from pychrony import ChronyError, ClockUnboundError
from pychrony.bounded._bounds import Bounds


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("maxclockerror", [1.0, 50.0])
def test_true_time_is_in_every_interval(maxclockerror: float, seed: int) -> None:
    result = simulate(seed, 125_000, maxclockerror=maxclockerror)
    assert result.misses == 0
    assert result.intervals > 100_000
    # The form that others use misses it here, so the simulation is not too kind.
    assert result.their_misses > 0


def test_drift_that_is_too_low_is_noticed() -> None:
    assert simulate(18, 200_000, max_drift_ppm=2.0, until_miss=True).misses


def test_realtime_in_place_of_raw_is_noticed() -> None:
    assert simulate(18, 200_000, machine_class=RealtimeAsRaw, until_miss=True).misses


EVENTS: dict[str, Callable[[Machine], None]] = {
    "short pause": lambda machine: machine.pass_(0.005 * SECOND),
    "long pause": lambda machine: machine.pass_(3 * SECOND),
    "short suspend": lambda machine: machine.suspend(0.0008),
    "long suspend": lambda machine: machine.suspend(3.0),
    "small step": lambda machine: machine.step(0.0009),
    "large step": lambda machine: machine.step(-0.3),
    "slew": lambda machine: machine.set_slew(MAX_SLEW),
    "other slew": lambda machine: machine.set_slew(-MAX_SLEW),
}


@pytest.mark.parametrize("second", EVENTS)
@pytest.mark.parametrize("first", EVENTS)
def test_each_event_at_each_point(first: str, second: str) -> None:
    """Two of them, before any two reads of a clock."""
    held = 0
    for one in range(26):
        for two in range(one + 1, 27):
            machine = Machine()
            machine.update(0.1)
            machine.set_clock(-0.1)
            machine._offset = 0.1 * SECOND
            bounds = Bounds(machine)
            bounds.read()
            machine.pass_(SECOND)
            machine.reads = 0
            machine.at = {
                one: partial(EVENTS[first], machine),
                two: partial(EVENTS[second], machine),
            }
            machine.set_slew(MAX_SLEW)
            for _ in range(2):
                try:
                    bounds.read()
                except ChronyError as error:
                    bounds.failure = error
                for _ in range(3):
                    try:
                        earliest, latest, _status = bounds.now()
                    except ClockUnboundError:
                        assert "long suspend" in (first, second) or (
                            first == second == "short suspend"
                        )
                    else:
                        assert earliest <= machine.at_raw <= latest
                        held += 1
    assert held
