"""The collector: what it says of chronyd and of its absence, in any program."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from exporter import (
    ALL,
    OPEN,
    Exporter,
    everything,
    named,
    samples,
    scrape,
    succeeded,
    text_of,
)
from helpers import python
from prometheus_client import REGISTRY, CollectorRegistry

from pychrony import ChronyAddressError, SourceMode, _address
from pychrony.prometheus import Collector, _metrics, _reading
from pychrony.testing import ScriptedDaemon, faults, make_source

# --- when something fails ----------------------------------------------------


def test_refused_reports_fail_alone() -> None:
    with ScriptedDaemon() as daemon:
        found = scrape(daemon.address)
    assert found["chrony_up"] == 1
    assert succeeded(found) == OPEN
    assert not named(found, "chrony_ntpdata")
    assert len(named(found, "chrony_report_duration_seconds")) == len(ALL)


def test_wrong_answer_is_an_answer() -> None:
    with everything() as daemon:
        daemon.misbehave = faults.only("TRACKING", faults.status(1))
        found = scrape(daemon.address)
    assert found["chrony_up"] == 1
    assert succeeded(found) == ALL - {"tracking"}
    assert not named(found, "chrony_tracking")


def test_silent_daemon_is_asked_once() -> None:
    with everything(misbehave=faults.silent) as daemon:
        found = scrape(daemon.address, timeout=0.05, retries=0)
    assert found["chrony_up"] == 0
    assert succeeded(found) == set()
    assert named(found, "chrony_report_duration_seconds") == [
        'chrony_report_duration_seconds{report="tracking"}'
    ]
    assert [name for name, _ in daemon.requests] == ["TRACKING"]
    assert not named(found, "chrony_tracking")


def test_nobody_is_there() -> None:
    with everything() as daemon:
        daemon.stop()
        for address in (daemon.address, "/nowhere/chronyd.sock"):
            found = scrape(address)
            assert found["chrony_up"] == 0
            assert succeeded(found) == set()


def test_daemon_that_goes_away_in_the_middle() -> None:
    with everything() as daemon:
        daemon.misbehave = faults.only("N_SOURCES", faults.silent)
        found = scrape(daemon.address, timeout=1.0, retries=0)
    assert found["chrony_up"] == 1
    assert succeeded(found) == {"tracking"}
    assert "chrony_tracking_stratum" in found
    # The lists are asked for together, and nothing after them.
    assert named(found, "chrony_report_duration_seconds") == [
        f'chrony_report_duration_seconds{{report="{name}"}}'
        for name in _metrics.REPORTS
        if name == "tracking" or _metrics.REPORTS[name].source
    ]


def test_budget_shortens_the_waits(caplog: pytest.LogCaptureFixture) -> None:
    with (
        everything(misbehave=faults.silent) as daemon,
        caplog.at_level("INFO", "pychrony.prometheus"),
    ):
        found = scrape(daemon.address, timeout=3600, retries=2, budget=4)
    assert found["chrony_up"] == 0
    assert len(daemon.requests) == 3
    # Not that of the limit, which knows less.
    assert "no answer to 3 requests in 1.8 s. Is chronyd running" in caplog.text


def test_no_report_is_begun_after_half_of_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At each look at the clock, three seconds have passed.
    monkeypatch.setattr(_reading, "perf_counter", count(0, 3).__next__)
    with everything() as daemon:
        found = scrape(daemon.address, budget=10)
    assert [name for name, _ in daemon.requests] == ["TRACKING"]
    assert found["chrony_up"] == 1
    assert succeeded(found) == {"tracking"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reports": ["tracking", "sauces"]}, "'sauces' is none of the reports"),
        ({"timeout": 0}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"retries": -1, "budget": 1}, "retries"),
        ({"budget": 0}, r"budget 0 is less than 0\.001 s"),
    ],
)
def test_nonsense_is_refused_at_once(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Collector("127.0.0.1", **options)
    with pytest.raises(ChronyAddressError):
        Collector("a:b:c")


# --- in a program of one's own -----------------------------------------------


def test_registering_asks_nobody() -> None:
    assert not named((family.name for family in REGISTRY.collect()), "chrony")
    registry = CollectorRegistry(auto_describe=True)
    with everything() as daemon:
        collector = Collector(daemon.address)
        registry.register(collector)
        assert not daemon.requests
        with pytest.raises(ValueError, match="Duplicated"):
            registry.register(Collector())
        described = {family.name for family in collector.describe()}
        assert {family.name for family in collector.collect()} == described


def test_source_that_is_nobody() -> None:
    """A lying daemon: neither an address nor a reference ID."""
    nobody = make_source(address="", mode=SourceMode.REFCLOCK)
    with everything(sources=[nobody, make_source(address="192.0.2.1")]) as daemon:
        found = scrape(daemon.address)
    assert 'chrony_report_success{report="sources"}' in found
    stratum = named(found, "chrony_sources_stratum")
    assert stratum == [
        'chrony_sources_stratum{source_address="192.0.2.1",source_name="192.0.2.1"}'
    ]


def test_every_place_of_a_local_chronyd_is_asked_within_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        silent = [
            stack.enter_context(ScriptedDaemon(misbehave=faults.silent))
            for _ in range(3)
        ]
        places = tuple(daemon.address for daemon in silent)
        monkeypatch.setattr(_address, "LOCAL", places)
        found = samples(text_of(Collector(budget=1.4)))
    assert found["chrony_up"] == 0
    # Half of it is not enough for two resends to each.
    requests = [len(daemon.requests) for daemon in silent]
    assert min(requests) >= 1
    assert sum(requests) < 9


def test_only_some_reports() -> None:
    with everything() as daemon:
        collector = Collector(daemon.address, reports=["activity"])
        found = samples(text_of(collector))
    # Whether anybody is there is not told by a report that may fail.
    assert daemon.requests == [("TRACKING", None), ("ACTIVITY", None)]
    assert succeeded(found) == {"activity"}
    assert named(found, "chrony_tracking") == []
    assert {family.name for family in collector.describe()} == {
        *("chrony_up", "chrony_report_success", "chrony_report_duration_seconds"),
        "chrony_activity_sources",
    }


MISSING = "pychrony.prometheus.Collector needs prometheus_client. Install it with: "


def test_without_prometheus_client() -> None:
    """The exporter does without; the collector says what it needs."""
    hide = "import runpy, sys; sys.modules['prometheus_client'] = None; "
    run = "runpy.run_module('pychrony.prometheus', run_name='__main__', alter_sys=True)"
    with everything() as daemon:
        program = (sys.executable, "-c", hide + run)
        with Exporter("--address", daemon.address, program=program) as exporter:
            assert exporter.samples("/metrics")["chrony_up"] == 1
    code = hide + "from pychrony.prometheus import Collector"
    assert f"ImportError: {MISSING}" in python(code, status=1).stderr


def test_threads_share_a_collector() -> None:
    with everything() as daemon:
        collector = Collector(daemon.address)
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda _: text_of(collector), range(40)))
        pages = [samples(text) for text in texts]
    assert all(succeeded(page) == ALL for page in pages)
    assert len({frozenset(page) for page in pages}) == 1
