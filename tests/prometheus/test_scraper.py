"""What the exporter remembers from scrape to scrape: silent targets, and names."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

import pytest
from exporter import everything

from pychrony import SourceMode, _waiting
from pychrony._waiting import Waiter
from pychrony.prometheus import _metrics, _poller, _reading, _scraper
from pychrony.prometheus._reading import Plan, Reading
from pychrony.prometheus._scraper import Names, Scraper
from pychrony.testing import faults, make_source, make_tracking

T = TypeVar("T")


def played(
    play: Callable[[Scraper], Awaitable[T]], address: str | None = None, **options: Any
) -> T:
    """Run what is given a scraper."""
    given: dict[str, Any] = {
        "timeout": 0.6,
        "retries": 1,
        "reports": tuple(_metrics.REPORTS),
    }

    async def run(poller: _poller.Poller) -> T:
        return await play(Scraper(address, poller=poller, **(given | options)))

    return _poller.run(run)


def test_silent_target_gets_one_request_until_it_answers() -> None:
    with everything(misbehave=faults.silent) as daemon:

        async def play(scrapes: Scraper) -> list[int]:
            requests: list[int] = []
            for number in range(7):
                if number == 4:
                    daemon.misbehave = None
                if number == 5:
                    daemon.misbehave = faults.silent
                daemon.requests.clear()
                reading = await scrapes.read(daemon.address, None)
                assert reading.up is (number == 4)
                tracking = [one for one in daemon.requests if one[0] == "TRACKING"]
                requests.append(len(tracking))
            return requests

        assert played(play) == [2, 2, 1, 1, 1, 2, 2]


def test_scrapes_of_a_silent_target_that_overlap_count() -> None:
    """As those of two Prometheus servers do."""
    with everything(misbehave=faults.silent) as daemon:

        async def play(scrapes: Scraper) -> int:
            await asyncio.gather(
                *(scrapes.read(daemon.address, None) for _ in range(2))
            )
            daemon.requests.clear()
            await scrapes.read(daemon.address, None)
            return len(daemon.requests)

        assert played(play, timeout=0.1) == 1


@pytest.mark.parametrize("answers", [True, False])
def test_lateness_of_the_exporter_is_no_silence(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that is there counts, and that none is there in time tells nothing."""
    held_up = 0.0
    for module, clock in ((_waiting, "monotonic"), (_reading, "perf_counter")):
        monkeypatch.setattr(module, clock, lambda: monotonic() + held_up)
    with everything(misbehave=None if answers else faults.silent) as daemon:
        requests = Plan(
            daemon.address, timeout=60, retries=0, reports=["tracking"], budget=200
        ).requests()
        fd, events, deadline = next(requests)
        assert not answers or Waiter().wait(fd, events, deadline)
        held_up = 1000
        with pytest.raises(StopIteration) as end:
            requests.send(answers)
    reading: Reading = end.value.value
    assert reading.up is answers
    assert not reading.silent


def test_target_that_refuses_is_not_silent() -> None:
    with everything() as daemon:
        daemon.stop()

        async def play(scrapes: Scraper) -> None:
            for _ in range(3):
                assert not (await scrapes.read(None, 1.0)).up
            assert not scrapes._silent

        played(play, daemon.address)


def test_others_do_not_wait_for_silent_targets() -> None:
    """Fifty wait at once, and one that answers is read meanwhile."""
    with everything() as living, everything(misbehave=faults.silent) as dead:

        async def play(scrapes: Scraper) -> bool:
            waiting = [
                asyncio.create_task(scrapes.read(dead.address, None)) for _ in range(50)
            ]
            reading = await scrapes.read(living.address, None)
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            return reading.up

        assert played(play, timeout=5.0, retries=0)


def test_only_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scraper, "_REMEMBERED", 2)
    memory: dict[str, int] = {}
    for number, name in enumerate("abc"):
        _scraper._remember(memory, name, number)
    assert memory == {"b": 1, "c": 2}


# --- names -------------------------------------------------------------------


def test_names_of_a_reading() -> None:
    asked: list[str] = []

    def lookup(address: str) -> str:
        asked.append(address)
        if address == "192.0.2.2":
            raise OSError("no name")
        return f"{address}.example."

    with everything(
        tracking=make_tracking(reference_ip="192.0.2.1"),
        sources=[
            make_source(address="192.0.2.1"),
            make_source(address="192.0.2.2"),
            make_source(address="GPS", mode=SourceMode.REFCLOCK),
        ],
    ) as daemon:

        async def play(scrapes: Scraper) -> None:
            for _ in range(2):
                reading = await scrapes.read(None, None)
                names = await scrapes.names(reading)
                assert names == {
                    "192.0.2.1": "192.0.2.1.example",
                    "192.0.2.2": "192.0.2.2",
                }

        played(play, daemon.address, timeout=5.0, names=Names(lookup))
    # Once each: both answers are kept, and a reference ID is not asked for.
    assert sorted(asked) == ["192.0.2.1", "192.0.2.2"]


def test_scrape_does_not_wait_for_a_slow_resolver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_scraper, "_NAMES_WAIT", 0.02)
    answer = threading.Event()

    def lookup(address: str) -> str:
        answer.wait(60)
        return "late.example"

    async def play() -> None:
        names = Names(lookup)
        assert await names.of(["192.0.2.1"]) == {}
        answer.set()
        while not (found := await names.of(["192.0.2.1"])):
            await asyncio.sleep(0.01)
        assert found == {"192.0.2.1": "late.example"}

    asyncio.run(play())


def test_name_of_this_machine() -> None:
    """It stands in the hosts file, so that no resolver is asked."""
    assert _scraper._lookup("127.0.0.1")
