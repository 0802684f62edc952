"""Each panel and each rule in a real Prometheus, against clocks of every kind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import provision
import pytest
from chronyc import wait
from exporter import Exporter, Prometheus, alive, children, everything
from test_prometheus_server import DOCS, panels

from pychrony import LeapStatus, SourceState
from pychrony.testing import ScriptedDaemon, make_source, make_tracking

pytestmark = pytest.mark.needs_packages

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: chrony
    static_configs: [{{targets: ["{exporter}"]}}]
  - job_name: chrony-fleet
    metrics_path: /probe
    static_configs: [{{targets: {targets}}}]
    relabel_configs:
      - {{source_labels: [__address__], target_label: __param_target}}
      - {{source_labels: [__param_target], target_label: instance}}
      - {{target_label: __address__, replacement: "{exporter}"}}
"""

# For each panel, the number of series of each of its expressions. There are six
# targets: one is good, one is good but has no source, one is not synchronised and
# has a source that does not answer, one is in local mode, one is dead, and one the
# exporter may not ask.
SERIES = {
    "Answering": [1],
    "Synchronised": [1],
    "Worst error bound": [1],
    "Fewest usable sources": [1],
    "Down": [2],
    "Not synchronised": [2],
    "Worst clocks": [2],
    "Error bound": [2],
    "Offset": [4],
    "Root delay and dispersion": [4, 4],
    "Frequency": [4],
    "Offsets of the sources": [3],
    "Reachability of the sources": [3],
    "Sources": [3],
    "Requests to the NTP servers": [4, 4],
    "Time to read the reports": [5],
}


def prometheus(directory: Path, exporter: str, targets: list[str]) -> Prometheus:
    """Return a server with our rules, whose alerts fire at once."""
    rules = (DOCS / "prometheus" / "rules.yml").read_text()
    (directory / "rules.yml").write_text(re.sub(r"(?m)^ +for: .*\n", "", rules))
    program, _ = provision.prometheus()
    config = CONFIG.format(exporter=exporter, targets=targets)
    return Prometheus(program, directory, config)


def firing(server: Prometheus) -> set[tuple[str, str]]:
    """Return the names and instances of the alerts."""
    found = server.series('ALERTS{alertstate="firing"}')
    return {(one["alertname"], one["instance"]) for one, _ in found}


def test_panels_and_rules(tmp_path: Path) -> None:
    now = time.time()
    small = {"root_delay": 0.001, "root_dispersion": 0.0005, "offset": 0.0}
    with (
        everything(
            tracking=make_tracking(ref_time=now, **small),
            sources=[
                make_source(address="192.0.2.1", poll=10),
                make_source(address="192.0.2.2", state=SourceState.UNSELECTED),
            ],
        ) as good,
        everything(
            tracking=make_tracking(ref_time=now, **(small | {"root_delay": 0.003})),
            sources=[],
        ) as lonely,
        everything(
            tracking=make_tracking(
                leap_status=LeapStatus.UNSYNC, reference_id=0, reference_ip=""
            ),
            sources=[make_source(state=SourceState.NONSELECTABLE, reachability=0)],
        ) as lost,
        everything(
            tracking=make_tracking(
                ref_time=now, reference_id=0x7F7F0101, reference_ip="", stratum=10
            ),
            sources=[],
        ) as local,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
        Exporter(
            *("--address", good.address, "--allow", "127.0.0.1:*", "--workers", "2")
        ) as exporter,
    ):
        probe.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        forbidden = "127.0.0.2:323"
        fleet = [lonely.address, lost.address, local.address, dead, forbidden]
        with prometheus(tmp_path, exporter.place, fleet) as server:

            def value(title: str) -> float:
                ((_, found),) = server.series(panels()[title][0])
                return found

            expressions = panels()
            for title, numbers in SERIES.items():
                for expression, number in zip(expressions.pop(title), numbers):
                    wait(lambda: len(server.series(expression)) == number)  # noqa: B023
            assert not expressions
            wait(lambda: value("Answering") == pytest.approx(4 / 6))
            wait(lambda: value("Synchronised") == pytest.approx(2 / 6))
            assert value("Worst error bound") == pytest.approx(0.002, rel=1e-4)
            assert value("Fewest usable sources") == 0
            assert server.query(panels()["Down"][0]).keys() == {dead, forbidden}
            unsynchronised = {lost.address, local.address}
            found = server.query(panels()["Not synchronised"][0])
            assert found.keys() == unsynchronised

            expected = {
                ("ChronyDown", dead),
                ("ChronyExporterDown", forbidden),
                ("ChronyExporterRefuses", exporter.place),
                *(("ChronyNotSynchronised", one) for one in unsynchronised),
                ("ChronyTooFewSources", lost.address),
                ("ChronyTooFewSources", lonely.address),
            }
            wait(lambda: firing(server) == expected)


FLEET = 50


def test_alerts_under_load(tmp_path: Path) -> None:
    """Two workers read fifty clocks each second; each part ends and comes again."""
    with ExitStack() as stack:
        daemons = [stack.enter_context(ScriptedDaemon()) for _ in range(FLEET)]
        places = [daemon.address for daemon in daemons]
        arguments = (
            *("--address", places[0], "--allow", "127.0.0.1:*", "--workers", "2"),
            *("--report", "tracking", "--report", "sources"),
        )
        exporter = stack.enter_context(Exporter(*arguments))
        own = exporter.place
        server = stack.enter_context(prometheus(tmp_path, own, places[1:]))
        everyone = {own, *places[1:]}
        up = dict.fromkeys(everyone, 1)
        restarts = "pychrony_exporter_worker_restarts_total"
        wait(lambda: server.query("chrony_up") == up)
        wait(lambda: not firing(server))

        for number in range(1, 4):
            os.kill(min(children(exporter.pid)), signal.SIGKILL)
            wait(lambda: server.query(restarts) == {own: number})  # noqa: B023
        again_and_again = {("ChronyExporterWorkersEnd", own)}
        wait(lambda: firing(server) == again_and_again)

        daemons[-1].stop()
        wait(lambda: firing(server) == again_and_again | {("ChronyDown", places[-1])})
        daemons[-1].start()
        wait(lambda: firing(server) == again_and_again)

        workers = children(exporter.pid)
        exporter.stop(signal.SIGKILL)
        gone = {("ChronyExporterDown", one) for one in everyone}
        wait(lambda: firing(server) >= gone)
        wait(lambda: server.series(panels()["Answering"][0])[0][1] == 0)
        wait(lambda: not any(map(alive, workers)))  # its port is free
        stack.enter_context(Exporter(*arguments, listen=own))
        wait(lambda: server.query("chrony_up") == up)
        wait(lambda: server.query(restarts) == {own: 0})
        wait(lambda: firing(server) <= again_and_again)


def test_expressions_of_the_panels_are_parsed(tmp_path: Path) -> None:
    """By the parser of Prometheus, as expressions of rules."""
    _, promtool = provision.prometheus()
    expressions = [one for found in panels().values() for one in found]
    rules = "".join(
        f"      - record: panel:number{number}\n        expr: >-\n          {one}\n"
        for number, one in enumerate(expressions)
    )
    path = tmp_path / "panels.yml"
    path.write_text(f"groups:\n  - name: panels\n    rules:\n{rules}")
    said = subprocess.check_output([promtool, "check", "rules", path], text=True)
    assert f"SUCCESS: {len(expressions)} rules found" in said


def test_panels_are_bounded() -> None:
    """5,000 instances make no panel draw 5,000 lines."""
    for found in panels().values():
        for one in found:
            assert re.search(r"(top|bottom)k\(\d+, |min\(|max\(|count\(", one), one
