"""The collector and the exporter: what they say of chronyd, and of its absence."""

from __future__ import annotations

import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import metrics_table
import provision
import pytest
from chronyc import wait
from chronyd import Chronyd
from exporter import Exporter, fetch, samples
from helpers import short_directory
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from provision import Parts

import pychrony
from pychrony import (
    ChronyAddressError,
    SelectOption,
    SmoothingFlag,
    SourceMode,
    SourceState,
    _address,
    prometheus,
)
from pychrony._address import parse
from pychrony.prometheus import Collector, _collector, _exporter
from pychrony.prometheus._exporter import Application, Server, Targets
from pychrony.testing import (
    ALL_COMMANDS,
    ScriptedDaemon,
    faults,
    make_activity,
    make_auth_data,
    make_ntp_data,
    make_rtc_data,
    make_select_data,
    make_server_stats,
    make_smoothing,
    make_source,
    make_source_stats,
    make_tracking,
)

CERTIFICATE = Path(__file__).parents[1] / "nts.pem"
CLIENT = Path(__file__).parents[1] / "client.pem"
SOURCE = 'source_address="192.168.1.100",source_name="192.168.1.100"'


def everything(**records: Any) -> ScriptedDaemon:
    """A daemon that has all ten reports, and gives them to everybody."""
    given = {"rtc_data": make_rtc_data(), "smoothing": make_smoothing(), **records}
    return ScriptedDaemon(open_commands=ALL_COMMANDS, **given)


def text_of(collector: Collector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def scrape(address: str, **options: Any) -> dict[str, float]:
    return samples(text_of(Collector(address, **options)))


def named(found: Iterable[str], prefix: str) -> list[str]:
    return [name for name in found if name.startswith(prefix)]


def succeeded(found: dict[str, float]) -> set[str]:
    start = 'chrony_report_success{report="'
    return {
        name.removeprefix(start).removesuffix('"}')
        for name in named(found, start)
        if found[name]
    }


ALL = {
    *("tracking", "sources", "sourcestats", "selectdata", "activity"),
    *("authdata", "ntpdata", "serverstats", "rtcdata", "smoothing"),
}
OPEN = {"tracking", "sources", "sourcestats", "activity", "rtcdata", "smoothing"}


# --- the metrics ------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (0, "sync"),
        (1, "unreach"),
        (2, "falseticker"),
        (3, "jittery"),
        (4, "candidate"),
        (5, "outlier"),
        (6, "unknown (6)"),
    ],
)
def test_states_are_worded_as_by_chrony_exporter(state: int, word: str) -> None:
    with ScriptedDaemon(sources=[make_source(state=SourceState(state))]) as daemon:
        found = scrape(daemon.address)
    (name,) = named(found, "chrony_sources_state_info")
    assert f'source_state="{word}"' in name


@pytest.mark.parametrize(
    ("mode", "word"),
    [(0, "client"), (1, "peer"), (2, "reference clock"), (3, "unknown (3)")],
)
def test_modes_are_worded_as_by_chrony_exporter(mode: int, word: str) -> None:
    source = make_source(mode=SourceMode(mode), address="GPS" if mode == 2 else "::1")
    with ScriptedDaemon(sources=[source]) as daemon:
        found = scrape(daemon.address)
    (name,) = named(found, "chrony_sources_state_info")
    assert f'source_mode="{word}"' in name


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


def test_two_sources_with_the_same_labels_are_one_sample() -> None:
    clocks = [
        make_source(address="GPS", mode=SourceMode.REFCLOCK, poll=poll)
        for poll in (1, 2)
    ]
    with ScriptedDaemon(sources=clocks) as daemon:
        text = text_of(Collector(daemon.address))
    (line,) = [line for line in text.splitlines() if "interval_seconds{source" in line]
    assert line.endswith(" 2.0")


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


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "/nowhere/chronyd.sock"])
def test_nobody_is_there(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = scrape(address.format(port=port))
    assert found["chrony_up"] == 0
    assert succeeded(found) == set()


def test_daemon_that_goes_away_in_the_middle() -> None:
    with everything() as daemon:
        daemon.misbehave = faults.only("N_SOURCES", faults.silent)
        found = scrape(daemon.address, timeout=0.05, retries=0)
    assert found["chrony_up"] == 1
    assert succeeded(found) == {"tracking"}
    assert "chrony_tracking_stratum" in found
    assert named(found, "chrony_report_duration_seconds") == [
        'chrony_report_duration_seconds{report="tracking"}',
        'chrony_report_duration_seconds{report="sources"}',
    ]


def test_budget_shortens_the_waits(caplog: pytest.LogCaptureFixture) -> None:
    with (
        everything(misbehave=faults.silent) as daemon,
        caplog.at_level("INFO", "pychrony.prometheus"),
    ):
        found = scrape(daemon.address, timeout=3600, retries=2, budget=0.5)
    assert found["chrony_up"] == 0
    assert len(daemon.requests) == 3
    # Not that of the limit, which knows less.
    assert "no answer to 3 requests in 0.225 s. Is chronyd running" in caplog.text


def test_no_report_is_begun_after_half_of_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At each look at the clock, three seconds have passed.
    monkeypatch.setattr(_collector, "perf_counter", count(0, 3).__next__)
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


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


MISSING = "pychrony.prometheus needs prometheus_client. Install it with: pip install"


def test_without_prometheus_client() -> None:
    hide = "import runpy, sys; sys.modules['prometheus_client'] = None; "
    run = "runpy.run_module('pychrony.prometheus', run_name='__main__', alter_sys=True)"
    result = python("-c", hide + run)
    assert result.returncode == 1
    assert result.stderr.startswith(MISSING)
    assert len(result.stderr.splitlines()) == 1
    result = python("-c", hide + "from pychrony.prometheus import Collector")
    assert f"ImportError: {MISSING}" in result.stderr


def test_pychrony_alone_does_not_need_it() -> None:
    result = python(
        "-c",
        "import sys, pychrony; pychrony.ChronyConnection; "
        "sys.exit('prometheus_client' in sys.modules)",
    )
    assert result.returncode == 0


# --- the exporter ------------------------------------------------------------


@pytest.fixture
def fleet() -> Iterator[tuple[ScriptedDaemon, Exporter]]:
    """A daemon, and an exporter that has another one and may probe any port here."""
    with everything(tracking=make_tracking(stratum=7)) as own, everything() as other:
        arguments = ("--address", own.address, "--allow", "127.0.0.1:*")
        with Exporter(*arguments) as exporter:
            yield other, exporter


def test_pages(fleet: tuple[ScriptedDaemon, Exporter]) -> None:
    daemon, exporter = fleet
    found = exporter.samples("/metrics")
    assert found["chrony_tracking_stratum"] == 7
    assert found["process_open_fds"] > 0
    found = exporter.probe(daemon.address)
    assert found["chrony_tracking_stratum"] == 2
    assert not named(found, "process_")
    status, page = exporter.get("/")
    assert status == 200
    assert "May be probed: 127.0.0.1:*" in page
    accept = "application/openmetrics-text; version=1.0.0"
    status, text = exporter.get("/metrics", headers={"Accept": accept})
    assert status == 200
    assert text.endswith("# EOF\n")
    assert "chrony_serverstats_ntp_packets_received_total 100000.0\n" in text


REFUSED = [
    ("/probe", 400, "give one target"),
    ("/probe?target=", 400, "give one target"),
    ("/probe?target=::1&target=127.0.0.1", 400, "give one target"),
    ("/probe?target=a:b:c", 400, "'a:b:c' is not an address of a chronyd"),
    ("/probe?target=127.0.0.1:0", 400, "'0' is not a port"),
    ("/probe?target=%ff%0a", 400, "is not an address"),
    ("/probe?target=127.0.0.2", 403, "'127.0.0.2' is not allowed"),
    ("/probe?target=/run/chrony/chronyd.sock", 403, "not allowed"),
    ("/prob", 404, "nothing but /, /metrics and /probe"),
    ("/metrics/", 404, "nothing but"),
]


def test_what_is_refused(fleet: tuple[ScriptedDaemon, Exporter]) -> None:
    daemon, exporter = fleet
    for path, status, message in REFUSED:
        found, text = exporter.get(path)
        assert found == status, path
        assert message in text
    for path in ("/", "/metrics", f"/probe?target={daemon.address}"):
        assert exporter.get(path, method="POST") == (405, "use GET\n")
    assert not daemon.requests


def test_prometheus_says_how_long_it_waits(
    fleet: tuple[ScriptedDaemon, Exporter],
) -> None:
    daemon, exporter = fleet
    name = "X-Prometheus-Scrape-Timeout-Seconds"
    for path in ("/metrics", f"/probe?target={daemon.address}"):
        for nonsense in ("soon", "-1", "0", "nan", "inf", "5e-324"):
            status, text = exporter.get(path, headers={name: nonsense})
            assert status == 400
            assert f"Scrape-Timeout-Seconds: '{nonsense}' is not" in text
    for patience in ("10", "1e9"):
        assert exporter.probe(daemon.address, {name: patience})["chrony_up"] == 1
    daemon.misbehave = faults.silent
    daemon.requests.clear()
    # Shorter than the offset, and than any answer would be waited for.
    assert exporter.probe(daemon.address, {name: "0.2"})["chrony_up"] == 0
    assert len(daemon.requests) == 3


def test_target_by_name(fleet: tuple[ScriptedDaemon, Exporter]) -> None:
    daemon, _ = fleet
    port = daemon.address.rpartition(":")[2]
    with Exporter("--allow", f"localhost:{port}") as exporter:
        assert exporter.probe(f"localhost:{port}")["chrony_up"] == 1
        assert exporter.get(f"/probe?target={daemon.address}")[0] == 403


@pytest.mark.parametrize(
    ("entries", "targets", "others"),
    [
        ([], [], ["127.0.0.1", "localhost", "/run/chrony/chronyd.sock"]),
        (["192.0.2.7"], ["192.0.2.7", "192.0.2.7:323"], ["192.0.2.8", "192.0.2.7:22"]),
        (["192.0.2.7:11323"], ["192.0.2.7:11323"], ["192.0.2.7"]),
        (
            ["192.0.2.0/24"],
            ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.1"],
            ["192.0.3.0", "ntp1.example", "192.0.2.1:53", "2001:db8::1"],
        ),
        (["192.0.2.0/24:11323"], ["192.0.2.1:11323"], ["192.0.2.1"]),
        (["192.0.2.0/24:*"], ["192.0.2.1:11323", "192.0.2.1"], ["192.0.3.1:11323"]),
        (
            ["2001:db8::/32"],
            ["2001:db8::1", "[2001:db8::1]:323"],
            ["2001:db9::1", "[2001:db8::1]:324", "192.0.2.1"],
        ),
        (["[2001:db8::/32]:324"], ["[2001:db8::1]:324"], ["2001:db8::1"]),
        (["2001:db8::1:*"], ["[2001:db8::1]:324"], ["[2001:db8::2]:324"]),
        (["::/0"], ["::1", "fe80::1%eth0"], ["::ffff:127.0.0.1", "127.0.0.1"]),
        (["fe80::/10"], ["fe80::1%eth0"], ["fec0::1"]),
        (
            ["ntp1.example"],
            ["ntp1.example", "NTP1.Example.", "ntp1.example:323"],
            ["ntp2.example", "ntp1.example:53", "ntp1.example.net", "192.0.2.1"],
        ),
        (["ntp1.example:*"], ["ntp1.example:53"], ["ntp2.example:53"]),
        (["192.0.2.1", "192.0.2.2"], ["192.0.2.1", "192.0.2.2"], ["192.0.2.3"]),
    ],
)
def test_allow_list(entries: list[str], targets: list[str], others: list[str]) -> None:
    allowed = Targets(entries)
    assert [text for text in targets + others if parse(text) in allowed] == targets


@pytest.mark.parametrize(
    "entry",
    [
        *("", "*", ":*", "a b", "ntp1.example/24", "/run/chrony/chronyd.sock"),
        *("192.0.2.0/33", "192.0.2.0/24/24", "192.0.2.0/", "2001:db8::/32:323"),
        *("192.0.2.9/24", "192.0.2.0:323/24", "[2001:db8::]:323/32"),
        *("::ffff:192.0.2.0/104", "::ffff:192.0.2.1", "fe80::1%eth0", "fe80::%a/10"),
    ],
)
def test_what_cannot_be_allowed(entry: str) -> None:
    with pytest.raises(ValueError, match="cannot be allowed"):
        Targets([entry])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end(number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        place = f"127.0.0.1:{probe.getsockname()[1]}"
    with Exporter(listen=place) as exporter:
        assert exporter.url == f"http://{place}/"
        assert exporter.get("/")[0] == 200
        assert exporter.stop(number) == (0, "")


def test_asked_to_end_while_all_are_busy() -> None:
    with Exporter("--concurrency", "1") as exporter:
        host, port = exporter.place.split(":")
        descriptors = Path(f"/proc/{exporter.pid}/fd")
        idle = len(os.listdir(descriptors))
        with (
            socket.create_connection((host, int(port))),
            socket.create_connection((host, int(port))),
        ):
            # It reads from one, and the other waits for its turn.
            wait(lambda: len(os.listdir(descriptors)) == idle + 2)
            assert exporter.stop() == (0, "")


def test_client_for_whom_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    monkeypatch.setattr(_exporter, "sleep", nap)
    application = Application(lambda *_: Collector(), Targets([]), 0.5)
    server = Server(("127.0.0.1", 0), application, concurrency=1)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        place = f"127.0.0.1:{server.server_port}"
        assert fetch(place, "/")[0] == 200
        with socket.socket() as client:
            client.settimeout(30)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            client.connect(("127.0.0.1", server.server_port))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.0 200"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        server.shutdown()
        thread.join()
        server.server_close()
    assert naps == [0.5]


def test_every_address_of_this_machine() -> None:
    with Exporter(listen=":0") as exporter:
        assert exporter.get("/")[0] == 200


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        result = python("-m", "pychrony.prometheus", "--listen", place)
    assert result.returncode == 1
    assert result.stderr.startswith(f"cannot listen on {place}: ")
    assert len(result.stderr.splitlines()) == 1


def test_no_library() -> None:
    result = python("-m", "pychrony.prometheus", PYCHRONY_LIBCHRONY="/nowhere.so")
    assert result.returncode == 1
    assert "/nowhere.so" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "9123"], "'9123' is not [HOST]:PORT"),
        (["--listen", "::1:9123"], "'::1:9123' is not [HOST]:PORT"),
        (["--listen", ":99999"], "':99999' is not [HOST]:PORT"),
        (["--address", "a:b:c"], "'a:b:c' is not an address"),
        (["--allow", "a b"], "'a b' cannot be allowed"),
        (["--timeout", "soon"], "'soon' is not a positive number"),
        (["--timeout", "0"], "'0' is not a positive number"),
        (["--retries", "-1"], "retries"),
        (["--concurrency", "0"], "argument --concurrency: 0 is less than 1"),
        (["--report", "sauces"], "invalid choice: 'sauces'"),
        (["--keyfile", "key.pem"], "--keyfile and --client-cafile need --certfile"),
        (["--certfile", "/nowhere"], "the certificate /nowhere or its key"),
        (["--certfile", os.devnull], f"the certificate {os.devnull} or its key"),
        (
            ["--certfile", str(CERTIFICATE), "--client-cafile", "/nowhere"],
            "the authorities in /nowhere",
        ),
    ],
)
def test_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        prometheus.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_options_of_chrony_exporter() -> None:
    with short_directory() as directory:
        path = f"{directory}/chronyd.sock"
        with ScriptedDaemon(address=path):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                place = f"127.0.0.1:{probe.getsockname()[1]}"
            with Exporter(
                f"--chrony.address=unix://{path}",
                "--chrony.timeout=5s",
                f"--web.listen-address={place}",
                *("--report", "tracking", "--report", "serverstats"),
            ) as exporter:
                assert exporter.place == place
                found = exporter.samples("/metrics")
    assert succeeded(found) == {"tracking", "serverstats"}
    assert not named(found, "chrony_sources")


def test_reasons_are_told_to_who_wants_them() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        for arguments, said in (((), ""), (("-v",), "Connection refused")):
            with Exporter("--address", daemon.address, *arguments) as exporter:
                assert exporter.samples("/metrics")["chrony_up"] == 0
                _, text = exporter.stop()
            assert said in text
            assert bool(said) == bool(text)


# --- TLS ---------------------------------------------------------------------


def tls(certificate: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTIFICATE)
    if certificate:
        context.load_cert_chain(certificate)
    return context


def test_tls() -> None:
    with Exporter("--certfile", str(CERTIFICATE), "-v") as exporter:
        host, port = exporter.place.split(":")
        assert exporter.url == f"https://{exporter.place}/"
        with socket.create_connection((host, int(port))):
            # It does not shake hands, and holds up nobody.
            assert exporter.get("/", tls=tls())[0] == 200
            with pytest.raises(OSError):
                exporter.get("/")
        assert exporter.get("/", tls=tls())[0] == 200
        status, said = exporter.stop()
    assert status == 0
    assert "127.0.0.1: [SSL" in said
    assert "Traceback" not in said


def test_only_clients_with_a_certificate() -> None:
    with Exporter(
        *("--certfile", str(CERTIFICATE), "--keyfile", str(CERTIFICATE)),
        *("--client-cafile", str(CLIENT)),
    ) as exporter:
        assert exporter.get("/", tls=tls(CLIENT))[0] == 200
        for other in (tls(), tls(CERTIFICATE)):
            with pytest.raises(OSError):
                exporter.get("/", tls=other)


# --- load --------------------------------------------------------------------


def test_no_more_at_once_than_is_allowed() -> None:
    with everything(misbehave=faults.delayed(0.05)) as daemon:
        with Exporter(
            *("--address", daemon.address, "--concurrency", "1"),
            *("--report", "tracking", "--report", "activity"),
        ) as exporter:
            with ThreadPoolExecutor(5) as pool:
                pages = list(pool.map(exporter.samples, ["/metrics"] * 5))
    assert all(page["chrony_up"] for page in pages)
    assert [name for name, _ in daemon.requests] == ["TRACKING", "ACTIVITY"] * 5


@pytest.mark.parametrize("secure", [False, True])
def test_idle_clients_are_left(monkeypatch: pytest.MonkeyPatch, secure: bool) -> None:
    monkeypatch.setattr(_exporter, "_PATIENCE", 0.1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    application = _exporter.Application(lambda *_: Collector(), Targets(), 0.5)
    threads = threading.active_count()
    with _exporter.Server(
        ("127.0.0.1", 0),
        application,
        concurrency=1,
        context=context if secure else None,
    ) as server:
        loop = threading.Thread(target=server.serve_forever, args=(0.01,))
        loop.start()
        try:
            place = ("127.0.0.1", server.server_port)
            with socket.create_connection(place, timeout=30) as client:
                assert client.recv(1) == b""
            # Nor does it help to send a little now and then.
            with socket.create_connection(place, timeout=0.03) as client:
                for _ in range(1000):
                    with suppress(TimeoutError):
                        client.send(b"G")
                        assert client.recv(1) == b""
                        break
                else:
                    pytest.fail("it waits on")
        finally:
            server.shutdown()
            loop.join()
    wait(lambda: threading.active_count() == threads)


def test_place_for_others_while_all_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that send nothing hold up a scrape for no longer than the patience."""
    monkeypatch.setattr(_exporter, "_PATIENCE", 0.3)
    monkeypatch.setattr(_exporter, "_LOOK", 0.01)
    with everything() as daemon:
        application = _exporter.Application(
            lambda *_: Collector(daemon.address), Targets(), 0.5
        )
        with (
            _exporter.Server(("127.0.0.1", 0), application, concurrency=2) as server,
            ExitStack() as clients,
        ):
            loop = threading.Thread(target=server.serve_forever, args=(0.01,))
            loop.start()
            place = ("127.0.0.1", server.server_port)
            try:
                for _ in range(6):
                    clients.enter_context(socket.create_connection(place))
                with urlopen(f"{server.url}metrics", timeout=30) as page:
                    assert b"chrony_up 1.0" in page.read()
            finally:
                server.shutdown()
                loop.join()


def test_nobody_has_to_read_where_it_listens() -> None:
    port = socket.create_server(("127.0.0.1", 0))
    place = f"127.0.0.1:{port.getsockname()[1]}"
    port.close()
    with open("/dev/full", "wb") as full, everything() as daemon:
        with subprocess.Popen(
            [
                *(sys.executable, "-m", "pychrony.prometheus", "--listen", place),
                *("--address", daemon.address),
            ],
            stderr=full,
        ) as exporter:
            try:
                wait(lambda: "chrony_up 1.0" in page(place))
            finally:
                exporter.terminate()
        assert exporter.returncode == 0


def page(place: str) -> str:
    try:
        with urlopen(f"http://{place}/metrics", timeout=30) as response:
            return str(response.read(), "utf-8")
    except URLError:
        return ""


def test_as_many_descriptors_as_may_be() -> None:
    run = f"exec {sys.executable} -m pychrony.prometheus --listen 127.0.0.1:0"
    with subprocess.Popen(
        ["sh", "-c", f"ulimit -S -n 64; {run}"], stderr=subprocess.PIPE, text=True
    ) as exporter:
        assert exporter.stderr is not None
        exporter.stderr.readline()
        soft, hard = resource.prlimit(exporter.pid, resource.RLIMIT_NOFILE)
        exporter.terminate()
    assert soft == hard > 64


def test_clients_that_go_away() -> None:
    """Before they ask, and before they take the answer."""
    with everything(misbehave=faults.delayed(0.01)) as daemon:
        with Exporter("--address", daemon.address, "--concurrency", "1") as exporter:
            host, port = exporter.place.split(":")
            for request in (b"", b"GET /metrics HTTP/1.0\r\n\r\n", b"\x00" * 99):
                for _ in range(5):
                    with socket.create_connection((host, int(port))) as client:
                        linger = b"\1\0\0\0\0\0\0\0"
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        client.sendall(request)
            assert exporter.samples("/metrics")["chrony_up"] == 1
            status, said = exporter.stop()
    assert (status, said) == (0, "")


SCRAPES = 1000
THREADS = 8


def test_a_thousand_scrapes_while_the_daemon_restarts(parts: Parts) -> None:
    """No descriptor, thread or directory is left, and no value outlives it."""
    with Chronyd(parts, "local stratum 1") as daemon:
        config = Path(daemon.directory, "conf")
        with Exporter(
            *("--address", daemon.socket, "--allow", "127.0.0.1:*"),
        ) as exporter:
            paths = ("/metrics", f"/probe?target={daemon.address}")

            def usage() -> tuple[int, str]:
                status = Path(f"/proc/{exporter.pid}/status").read_text()
                threads = next(one for one in status.splitlines() if "Threads" in one)
                return len(os.listdir(f"/proc/{exporter.pid}/fd")), threads

            def load(_: int) -> int:
                shown = up = 0.0
                for number in range(SCRAPES // THREADS):
                    found = exporter.samples(paths[number % 2])
                    stratum = found.get("chrony_tracking_stratum", shown)
                    assert stratum >= shown
                    shown = stratum
                    up += found["chrony_up"]
                return int(up)

            for path in paths:
                exporter.samples(path)
            wait(lambda: usage()[1].split() == ["Threads:", "1"])
            before = usage()
            with ThreadPoolExecutor(THREADS) as pool:
                loads = [pool.submit(load, number) for number in range(THREADS)]
                for stratum in range(2, 7):
                    text = config.read_text()
                    old, new = f"stratum {stratum - 1}", f"stratum {stratum}"
                    config.write_text(text.replace(old, new))
                    daemon.restart()
                    for path in paths:
                        found = exporter.samples(path)
                        assert found["chrony_tracking_stratum"] == stratum
            ups = sum(one.result() for one in loads)
            assert 0 < ups <= SCRAPES
            daemon.kill()
            for path in paths:
                found = exporter.samples(path)
                assert found["chrony_up"] == 0
                assert not named(found, "chrony_tracking")
            wait(lambda: usage() == before)
        assert not list(Path(daemon.directory).glob("pychrony.*"))


def test_threads_share_a_collector() -> None:
    with everything() as daemon:
        collector = Collector(daemon.address)
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda _: text_of(collector), range(40)))
        pages = [samples(text) for text in texts]
    assert all(succeeded(page) == ALL for page in pages)
    assert len({frozenset(page) for page in pages}) == 1
