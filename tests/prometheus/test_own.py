"""The exporter's metrics of itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from exporter import Exporter, everything, fetch, named, samples
from prometheus_client import parser
from prometheus_client.openmetrics import parser as strict_parser

import pychrony
from pychrony.prometheus._own import Own
from pychrony.prometheus._text import Text
from pychrony.testing import ScriptedDaemon, faults

parse: Any = parser.text_string_to_metric_families
parse_openmetrics: Any = strict_parser.text_string_to_metric_families

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


def page(own: Own) -> dict[str, float]:
    text = Text()
    own.write(text)
    return samples(text.done().decode())


def test_what_was_done_is_counted() -> None:
    with everything() as daemon, ScriptedDaemon() as closed:
        closed.stop()
        flags = ("--address", daemon.address, "--allow", "127.0.0.1:*")
        with Exporter(*flags, "--timeout=2", "--retries=0") as exporter:
            for path in ("/", "/nothing", "/probe", "/probe?target=127.0.0.2"):
                exporter.get(path)
            exporter.get("/", method="POST")
            with exporter.connect() as client:
                client.sendall(b"nonsense\r\n\r\n")
                client.recv(1)
            exporter.probe(closed.address)
            daemon.misbehave = faults.silent
            exporter.samples("/metrics")
            daemon.misbehave = None
            daemon.open_commands = None
            found = exporter.samples("/metrics")
    requests = {
        name.split('"')[1]: found[name]
        for name in named(found, "pychrony_exporter_http_requests_total")
        if found[name]
    }
    assert requests == {"200": 3, "400": 2, "403": 1, "404": 1, "405": 1}
    errors = {
        name.split('"')[1]: found[name]
        for name in named(found, "pychrony_exporter_errors_total")
    }
    refused = {"permission": 4, "connection": 1, "timeout": 1, "data": 0, "other": 0}
    assert errors == refused
    assert found['pychrony_exporter_scrapes_total{path="metrics"}'] == 2
    assert found['pychrony_exporter_scrapes_total{path="probe"}'] == 1
    assert found["pychrony_exporter_scrapes_in_flight"] == 0
    assert found["pychrony_exporter_scrape_duration_seconds_count"] == 3
    last = 'pychrony_exporter_scrape_duration_seconds_bucket{le="+Inf"}'
    assert found[last] == 3
    assert 0 < found["pychrony_exporter_scrape_duration_seconds_sum"] < 600
    (info,) = named(found, "pychrony_exporter_build_info")
    assert f'version="{pychrony.__version__}"' in info
    for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds", "max_fds"):
        assert found[f"process_{name}"] > 0


def test_both_formats_are_right() -> None:
    """The parsers of prometheus_client, of which that of OpenMetrics is strict."""
    with everything() as daemon, Exporter("--address", daemon.address) as exporter:
        _, plain = exporter.get("/metrics")
        _, strict = exporter.get("/metrics", headers={"Accept": OPENMETRICS})

    def named_and_typed(families: Any) -> set[tuple[str, str]]:
        return {(family.name, family.type) for family in families}

    assert strict.endswith("# EOF\n")
    first = named_and_typed(parse(plain))
    assert first == named_and_typed(parse_openmetrics(strict))
    assert ("pychrony_exporter_scrape_duration_seconds", "histogram") in first


def test_workers_count_together() -> None:
    own = Own(3)
    for worker in range(3):
        own.begin(worker)
        own.scrape_begins("probe")
        own.scrape_ends(0.02, [])
        own.request(200)
    own.scrape_begins("metrics")
    found = page(own)
    assert found['pychrony_exporter_scrapes_total{path="probe"}'] == 3
    assert found['pychrony_exporter_http_requests_total{code="200"}'] == 3
    assert found["pychrony_exporter_scrapes_in_flight"] == 1
    assert found["pychrony_exporter_workers"] == 3
    buckets = named(found, "pychrony_exporter_scrape_duration_seconds_bucket")
    assert [found[name] for name in buckets] == [0, 0] + [3] * 10
    # One that is started again goes on counting, but has nothing in flight.
    own.restarted(2)
    own.begin(2)
    found = page(own)
    assert found["pychrony_exporter_scrapes_in_flight"] == 0
    assert found["pychrony_exporter_worker_restarts_total"] == 1
    assert found['pychrony_exporter_scrapes_total{path="probe"}'] == 3


def test_process_that_has_ended_is_left_out() -> None:
    ended = subprocess.Popen("true")
    ended.wait()
    own = Own(2)
    alone = page(own)["process_open_fds"]
    own._put("pid", "", ended.pid)
    own._start = 0
    assert page(own)["process_open_fds"] == 0
    own.begin(0)
    assert page(own)["process_open_fds"] == alone


def test_no_descriptor_is_left() -> None:
    """That is no sign of a dead chronyd: Prometheus must not believe it."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10)); "
    run = "import sys; from pychrony.prometheus import main; sys.exit(main())"
    with everything() as daemon:
        program = (sys.executable, "-c", limit + run)
        with Exporter("--address", daemon.address, program=program) as exporter:
            status, text = fetch(exporter.place, "/metrics")
    assert (status, text) == (503, "no descriptor is left, see LimitNOFILE\n")
