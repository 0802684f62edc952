"""What each metric is made of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import metrics_table
import provision
import pytest
from exporter import ALL, everything, named, samples, scrape, succeeded, text_of
from prometheus_client.parser import text_string_to_metric_families

import pychrony
from pychrony import SelectOption, SmoothingFlag, SourceMode, SourceState
from pychrony.prometheus import Collector
from pychrony.testing import (
    ScriptedDaemon,
    make_activity,
    make_auth_data,
    make_ntp_data,
    make_select_data,
    make_server_stats,
    make_smoothing,
    make_source,
    make_source_stats,
    make_tracking,
)

SOURCE = 'source_address="192.168.1.100",source_name="192.168.1.100"'


def test_nothing_of_chrony_exporter_is_missing_or_renamed() -> None:
    with everything() as daemon:
        text = text_of(Collector(daemon.address))
    ours = {
        sample.name: (family.type, frozenset(sample.labels))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    theirs = metrics_table.chrony_exporter()
    assert len(theirs) == 55
    impossible = set(named(theirs, metrics_table.IMPOSSIBLE))
    assert "clients" not in pychrony.reports()
    assert {name: ours.get(name) for name in theirs.keys() - impossible} == {
        name: facts for name, facts in theirs.items() if name not in impossible
    }


@pytest.mark.needs_packages
def test_metrics_are_what_promtool_wants() -> None:
    with everything() as daemon:
        text = text_of(Collector(daemon.address))
    _, promtool = provision.prometheus()
    result = subprocess.run(
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_all_ten_reports() -> None:
    """Each metric has the value of its own attribute: no two of a report are equal."""
    assert set(pychrony.reports()) == ALL
    with everything(
        tracking=make_tracking(),
        source_stats=[make_source_stats()],
        select_data=[make_select_data()],
        auth_data=[make_auth_data()],
        sources=[make_source(orig_latest_meas=0.000123789)],
        ntp_data=[make_ntp_data(hardware_tx=7, hardware_rx=8, kernel_tx=1001)],
        server_stats=make_server_stats(hardware_tx=7, hardware_rx=8),
        activity=make_activity(
            online=5, offline=4, burst_online=3, burst_offline=2, unresolved=1
        ),
        smoothing=make_smoothing(flags=SmoothingFlag.LEAPONLY),
    ) as daemon:
        found = scrape(daemon.address)
    seconds = named(found, "chrony_report_duration_seconds")
    assert len(seconds) == len(ALL)
    expected = samples(Path(__file__).with_name("metrics.txt").read_text())
    assert {name: found[name] for name in found.keys() - seconds} == pytest.approx(
        expected, rel=1e-6
    )


STATES = ("sync", "unreach", "falseticker", "jittery", "candidate", "outlier")
MODES = ("client", "peer", "reference clock")


@pytest.mark.parametrize(
    ("label", "number", "word"),
    [
        *(("state", number, word) for number, word in enumerate(STATES)),
        *(("mode", number, word) for number, word in enumerate(MODES)),
        *(("state", 6, "unknown (6)"), ("mode", 3, "unknown (3)")),
    ],
)
def test_codes_are_worded_as_by_chrony_exporter(
    label: str, number: int, word: str
) -> None:
    code = SourceState(number) if label == "state" else SourceMode(number)
    source = make_source(address="GPS" if word == MODES[2] else "::1", **{label: code})
    with ScriptedDaemon(sources=[source]) as daemon:
        found = scrape(daemon.address)
    (name,) = named(found, "chrony_sources_state_info")
    assert f'source_{label}="{word}"' in name


@pytest.mark.parametrize(
    ("register", "ratio", "success"), [(0, 0, 0), (0o17, 0.5, 1), (0o376, 0.875, 0)]
)
def test_reachability(register: int, ratio: float, success: float) -> None:
    with ScriptedDaemon(sources=[make_source(reachability=register)]) as daemon:
        found = scrape(daemon.address)
    assert found[f"chrony_sources_reachability_ratio{{{SOURCE}}}"] == ratio
    assert found[f"chrony_sources_reachability_success{{{SOURCE}}}"] == success


def test_what_never_was_is_absent() -> None:
    never = 0xFFFFFFFF
    with everything(
        sources=[make_source(last_sample_ago=never)],
        auth_data=[make_auth_data(last_ke_ago=None)],
    ) as daemon:
        found = scrape(daemon.address)
    assert never not in found.values()
    assert not named(found, "chrony_sources_last_sample_age_seconds")
    assert not named(found, "chrony_authdata_last_key_establishment_age_seconds")
    assert succeeded(found) == ALL


def test_what_this_chronyd_does_not_have_is_absent() -> None:
    old = {"hardware_tx": None, "hardware_rx": None, "kernel_tx": None}
    old |= {"kernel_rx": None, "daemon_rx": None, "daemon_tx": None}
    with everything(
        server_stats=make_server_stats(**old), rtc_data=None, smoothing=None
    ) as daemon:
        found = scrape(daemon.address)
    assert "chrony_serverstats_ntp_interleaved_packets_total" not in found
    assert "chrony_serverstats_interleaved_ntp_packets_total" in found
    assert not named(found, "chrony_serverstats_ntp_hw")
    assert not named(found, "chrony_rtcdata")
    assert not named(found, "chrony_smoothing")
    assert succeeded(found) == ALL


@pytest.mark.parametrize(
    ("reference_id", "name"), [(0x7F7F0101, "7F7F0101"), (0, ""), (0x47505300, "GPS")]
)
def test_clock_without_an_address_to_follow(reference_id: int, name: str) -> None:
    tracking = make_tracking(reference_id=reference_id, reference_ip="")
    with ScriptedDaemon(tracking=tracking) as daemon:
        found = scrape(daemon.address)
    follows = name == "GPS"
    assert found[
        f'chrony_tracking_info{{tracking_address="",tracking_name="{name}",'
        f'tracking_refid="{reference_id:08X}"}}'
    ]
    assert found["chrony_tracking_remote_reference"] == follows
    assert found["chrony_tracking_synchronised"] == follows
    assert ("chrony_clock_error_bound_seconds" in found) == follows


def test_sources_without_an_address() -> None:
    gps, unresolved = {"address": "", "reference_id": 0x47505300}, "ID#0000000001"
    with everything(
        sources=[
            make_source(address="GPS", mode=SourceMode.REFCLOCK),
            make_source(address=unresolved),
        ],
        source_stats=[
            make_source_stats(**gps),
            make_source_stats(address=unresolved, reference_id=0),
        ],
        select_data=[
            make_select_data(
                **gps, effective_options=SelectOption.PREFER | SelectOption.TRUST
            ),
            make_select_data(address=unresolved, reference_id=0),
        ],
    ) as daemon:
        text = text_of(Collector(daemon.address))
    assert "ID#" not in text
    clock = 'source_address="GPS",source_name="GPS"'
    found = samples(text)
    assert f"chrony_sources_stratum{{{clock}}}" in found
    assert f"chrony_sourcestats_samples{{{clock}}}" in found
    assert (
        'chrony_selectdata_state_info{select_options="prefer,trust",'
        f'select_state="best",{clock}}}' in found
    )


def test_two_clocks_with_one_reference_id_are_two_series() -> None:
    """Each value belongs to the clock that its series names, in every report."""
    gps = {"address": "", "reference_id": 0x47505300}
    with everything(
        sources=[
            make_source(address="GPS", mode=SourceMode.REFCLOCK, poll=1),
            make_source(address="192.0.2.1", poll=2),
            make_source(address="GPS", mode=SourceMode.REFCLOCK, poll=3),
        ],
        source_stats=[
            make_source_stats(**gps, samples=11),
            make_source_stats(address="192.0.2.1", samples=12),
            make_source_stats(**gps, samples=13),
        ],
        select_data=[
            make_select_data(**gps, score=21),
            make_select_data(address="192.0.2.1", score=22),
            make_select_data(**gps, score=23),
        ],
    ) as daemon:
        found = scrape(daemon.address)
    labels = [
        'source_address="GPS",source_name="GPS"',
        'source_address="192.0.2.1",source_name="192.0.2.1"',
        'source_address="GPS#2",source_name="GPS"',
    ]
    for metric, values in (
        ("chrony_sources_polling_interval_seconds", [2, 4, 8]),
        ("chrony_sourcestats_samples", [11, 12, 13]),
        ("chrony_selectdata_score", [21, 22, 23]),
    ):
        assert {one: found[one] for one in named(found, metric)} == {
            f"{metric}{{{label}}}": value for label, value in zip(labels, values)
        }
