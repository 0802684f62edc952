"""The direct writer writes what prometheus_client writes."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import prometheus_client.openmetrics.exposition as openmetrics
import pytest
from exporter import everything, text_of
from hypothesis import given
from hypothesis.strategies import floats, integers, one_of, text
from prometheus_client import CollectorRegistry, generate_latest, utils
from prometheus_client.registry import Collector

from pychrony import SelectOption, SourceMode
from pychrony._waiting import Waiter
from pychrony.prometheus import Collector as ChronyCollector
from pychrony.prometheus import _metrics
from pychrony.prometheus._collector import families
from pychrony.prometheus._reading import Plan, Reading
from pychrony.prometheus._text import Text, formatted
from pychrony.testing import (
    make_auth_data,
    make_select_data,
    make_server_stats,
    make_source,
    make_source_stats,
    make_tracking,
)

# What a chronyd of some years ago does not send.
OLD: dict[str, Any] = dict.fromkeys(
    f"{who}_{way}" for who in ("hardware", "kernel", "daemon") for way in ("rx", "tx")
)


go_string: Any = utils.floatToGoString


class Given(Collector):
    """The metrics of a reading, for prometheus_client."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Any:
        return families(self._reading)


def theirs(reading: Reading, *, om: bool) -> str:
    registry = CollectorRegistry()
    registry.register(Given(reading))
    generate: Any = openmetrics.generate_latest if om else generate_latest
    return str(generate(registry), "utf-8")


def ours(reading: Reading, *, om: bool) -> str:
    page = Text(openmetrics=om)
    page.reading(reading)
    return str(page.done(), "utf-8")


def assert_equal(reading: Reading) -> None:
    for om in (False, True):
        assert ours(reading, om=om) == theirs(reading, om=om)


def read(address: str, **options: Any) -> Reading:
    given: dict[str, Any] = {
        "timeout": 1.0,
        "retries": 2,
        "reports": tuple(_metrics.REPORTS),
        "budget": None,
    } | options
    return Waiter().drive(Plan(address, **given).requests())


def test_all_reports() -> None:
    gps = {"address": "", "reference_id": 0x47505300}
    never = 0xFFFFFFFF
    with everything(
        tracking=make_tracking(offset=-1e-9, root_delay=12345678.5),
        sources=[
            make_source(address="GPS", mode=SourceMode.REFCLOCK, poll=-7),
            make_source(address="192.0.2.1", last_sample_ago=never),
            make_source(address="GPS", mode=SourceMode.REFCLOCK, poll=20),
            make_source(address="2001:db8::1", stratum=3),
        ],
        select_data=[
            make_select_data(**gps, effective_options=SelectOption.PREFER),
            make_select_data(address="192.0.2.1"),
            make_select_data(**gps),
            make_select_data(address="2001:db8::1", last_sample_ago=never),
        ],
        auth_data=[
            make_auth_data(address="192.0.2.1", last_ke_ago=None),
            make_auth_data(address="2001:db8::1"),
        ],
        server_stats=make_server_stats(ntp_received=123456789, **OLD),
    ) as daemon:
        reading = read(daemon.address)
        assert set(reading.found) == set(_metrics.REPORTS)
        assert_equal(reading)
        # What the collector itself makes is the same, but for the durations.
        lines = text_of(ChronyCollector(daemon.address)).splitlines()
    same = [one for one in lines if "duration_seconds{" not in one]
    written = ours(reading, om=False).splitlines()
    assert [one for one in written if "duration_seconds{" not in one] == same


def test_some_reports_and_none() -> None:
    with everything() as daemon:
        assert_equal(read(daemon.address, reports=("activity", "smoothing")))
        daemon.stop()
        assert_equal(read(daemon.address))


@given(one_of(floats(), integers(-(2**63), 2**63).map(float)))
def test_numbers_are_written_as_by_prometheus_client(value: float) -> None:
    assert formatted(value) == go_string(value)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, inf, -inf, nan, 1e6, 999999.5, 1e16, 1e22]
)
def test_remarkable_numbers(value: float) -> None:
    assert formatted(value) == go_string(value)
    source = make_source(latest_meas=value)
    assert_equal(Reading(up=True, found={"sources": [source]}))


@given(text(min_size=1))
def test_texts_of_labels(address: str) -> None:
    """No chronyd has such names; what is written is right all the same."""
    stats = make_source_stats(address=f"x{address}")
    assert_equal(Reading(up=True, found={"sourcestats": [stats, stats]}))


def test_names_of_addresses_are_labels() -> None:
    page = Text()
    names = {"192.0.2.1": "ntp1.example", "192.0.2.2": 'a"b'}
    reading = Reading(
        up=True,
        found={
            "tracking": make_tracking(reference_ip="192.0.2.1", reference_id=1),
            "sources": [make_source(address=one) for one in (*names, "192.0.2.3")],
        },
    )
    page.reading(reading, names)
    lines = page.done().decode().splitlines()
    labels = [line for line in lines if line.startswith("chrony_sources_stratum{")]
    assert [
        line.partition("source_name=")[2].rpartition("}")[0] for line in labels
    ] == ['"ntp1.example"', r'"a\"b"', '"192.0.2.3"']
    (info,) = [line for line in lines if line.startswith("chrony_tracking_info{")]
    assert 'tracking_address="192.0.2.1",tracking_name="ntp1.example"' in info
