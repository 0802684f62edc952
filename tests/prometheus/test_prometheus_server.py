"""What docs/prometheus.rst shows, with a real Prometheus server."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import metrics_table
import provision
import pytest
import yaml
from chronyc import wait
from chronyd import Chronyd
from exporter import CERTIFICATE, Exporter, Prometheus, fetch, samples
from pages import blocks, blocks_in
from provision import Parts
from test_exporter_cli import CHRONY

import pychrony
from pychrony.prometheus._own import Own
from pychrony.prometheus._text import Text
from pychrony.prometheus._web import load
from pychrony.testing import ScriptedDaemon

pytestmark = pytest.mark.needs_packages

DOCS = Path(__file__).parents[2] / "docs"
TEXT = DOCS.joinpath("prometheus.rst").read_text()
DASHBOARD: dict[str, Any] = json.loads(
    DOCS.joinpath("prometheus", "dashboard.json").read_text()
)
MIGRATION = DOCS.joinpath("howto", "chrony_exporter.rst").read_text()
UNITS = sorted(DOCS.joinpath("prometheus").glob("*.service"))

FOLLOW = "server 127.0.0.1 port {port} iburst minpoll -6 maxpoll -6\n"


def promtool(*arguments: str | Path) -> str:
    _, program = provision.prometheus()
    result = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# --- a server ------------------------------------------------------------------

# Columns of "chronyc -c tracking".
TRACKING = {
    2: "chrony_tracking_stratum",
    3: "chrony_tracking_reference_timestamp_seconds",
    4: "chrony_tracking_system_time_seconds",
    5: "chrony_tracking_last_offset_seconds",
    6: "chrony_tracking_rms_offset_seconds",
    7: "chrony_tracking_frequency_ppms",
    8: "chrony_tracking_residual_frequency_ppms",
    9: "chrony_tracking_skew_ppms",
    10: "chrony_tracking_root_delay_seconds",
    11: "chrony_tracking_root_dispersion_seconds",
    12: "chrony_tracking_update_interval_seconds",
}
# Columns of "chronyc -c sources".
SOURCES = {
    3: "chrony_sources_stratum",
    7: "chrony_sources_last_sample_offset_seconds",
    8: "chrony_sources_last_sample_original_offset_seconds",
    9: "chrony_sources_last_sample_error_margin_seconds",
}
# Columns of "chronyc -c serverstats".
SERVERSTATS = {
    0: "chrony_serverstats_ntp_packets_received_total",
    1: "chrony_serverstats_ntp_packets_dropped_total",
    2: "chrony_serverstats_command_packets_received_total",
}


def agree(
    server: Prometheus,
    daemon: Chronyd,
    report: str,
    metrics: dict[int, str],
    instance: str,
) -> None:
    """What a later scrape has is between two looks of chronyc."""
    before = daemon.chronyc("-c", report).strip().split(",")
    looked = time.time()
    newest = f"timestamp({next(iter(metrics.values()))})"
    wait(lambda: server.query(newest).get(instance, 0) > looked)
    found = {column: server.query(name)[instance] for column, name in metrics.items()}
    after = daemon.chronyc("-c", report).strip().split(",")
    for column, value in found.items():
        low, high = sorted((float(before[column]), float(after[column])))
        digits = len(before[column].partition(".")[2])
        # A float of 2026 has six digits after the point.
        rounding = max(0.51 * 10.0**-digits, 1e-6 if column == 3 else 0)
        assert low - rounding <= value <= high + rounding, metrics[column]


def test_server_scrapes_what_chronyc_prints(parts: Parts, tmp_path: Path) -> None:
    program, _ = provision.prometheus()
    with (
        Chronyd(parts, "local stratum 1", serve=True) as reference,
        Chronyd(parts, FOLLOW.format(port=reference.ntp_port)) as client,
        Chronyd(parts, "local stratum 9") as local,
        Exporter(*("--address", client.socket, "--allow", "127.0.0.0/8:*")) as exporter,
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            dead = f"127.0.0.1:{probe.getsockname()[1]}"
        wait(lambda: pychrony.get_tracking(client.address).is_synchronized())
        # From now on, its figures hold still or grow with time.
        client.chronyc("offline")

        machine, fleet = blocks_in("yaml", TEXT)
        example = machine + fleet.removeprefix("scrape_configs:")
        for shown, real in (
            ("127.0.0.1:9123", exporter.place),
            ("192.0.2.7", client.address),
            ("192.0.2.8", local.address),
            ("192.0.2.9", dead),
        ):
            assert shown in example
            example = example.replace(shown, real)
        shutil.copy(DOCS / "prometheus" / "rules.yml", tmp_path)
        every = "500ms"
        intervals = f"scrape_interval: {every}\n  evaluation_interval: {every}\n"
        config = f"global:\n  {intervals}  scrape_timeout: {every}\n{example}\n"
        with Prometheus(program, tmp_path, config) as server:
            assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")
            instances = {exporter.place, client.address, local.address, dead}
            wait(lambda: server.query("up").keys() == instances)
            wait(lambda: set(server.query("up").values()) == {1})
            assert server.query("chrony_up") == dict.fromkeys(instances, 1) | {dead: 0}
            for instance in (exporter.place, client.address):
                agree(server, client, "tracking", TRACKING, instance)
                agree(server, client, "sources", SOURCES, instance)
            agree(server, client, "serverstats", SERVERSTATS, exporter.place)
            synchronised = dict.fromkeys(instances - {dead}, 1.0) | {local.address: 0}
            assert server.query("chrony_tracking_synchronised") == synchronised
            assert server.query("chrony_tracking_remote_reference") == synchronised
            assert server.query("chrony_tracking_stratum")[local.address] == 9
            assert server.query("sum by (instance) (chrony_report_success)") == {
                exporter.place: 10,
                client.address: 6,
                local.address: 9,  # without sources, only serverstats is refused
                dead: 0,
            }
            client.chronyc("online")
            usable = "instance:chrony_sources_usable:count"
            followed = dict.fromkeys(instances, 0.0)
            followed |= {exporter.place: 1, client.address: 1}
            wait(lambda: server.query(usable) == followed)
            state = 'chrony_sources_state_info{source_state="sync"}'
            wait(lambda: server.query(state).keys() == {exporter.place, client.address})
            assert server.query('ALERTS{alertname="ChronyDown"}') == {dead: 1}
            wait(lambda: all(map(server.query, expressions())))


def expressions() -> list[str]:
    """What the dashboard asks for, of everything."""
    return [one for found in panels().values() for one in found]


def panels() -> dict[str, list[str]]:
    """The same, by the title of the panel."""
    # Grafana puts the names of all jobs that have chrony_up here.
    variables = {"$job": "chrony|chrony-fleet", "$instance": ".*"}
    variables["$__rate_interval"] = "1m"
    found: dict[str, list[str]] = {}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = str(target["expr"])
            for name, value in variables.items():
                expression = expression.replace(name, value)
            assert "$" not in expression
            found.setdefault(panel["title"], []).append(expression)
    return found


# --- files -----------------------------------------------------------------------


def test_rules() -> None:
    rules = DOCS / "prometheus" / "rules.yml"
    promtool("check", "rules", "--lint=all", "--lint-fatal", rules)
    promtool("test", "rules", Path(__file__).with_name("rules_test.yml"))
    alerts = set(re.findall("alert: (.*)", rules.read_text()))
    tested = Path(__file__).with_name("rules_test.yml").read_text()
    assert {one for one in alerts if f'alertname="{one}"' not in tested} == set()


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    ours = {metric.name for _, metric, _ in metrics_table.ours()}
    rules = DOCS.joinpath("prometheus", "rules.yml").read_text()
    for text in (rules, *expressions()):
        assert set(re.findall(r"(?<![a-z:])chrony_[a-z_]+", text)) <= ours
        page = Text()
        Own().write(page)
        for name in re.findall(r"pychrony_exporter_[a-z_]+", text):
            assert f"# TYPE {name} " in page.done().decode()


def test_dashboard_is_laid_out() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))


if sys.version_info >= (3, 11):  # Grafana's package is for no older one
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    def test_dashboard_is_what_grafana_knows() -> None:
        """Nothing is lost on the way through the types of Grafana's schema."""
        plugins.register_default_plugins()
        dashboard = Dashboard.from_json(DASHBOARD)
        known = json.loads(JSONEncoder(sort_keys=True).encode(dashboard))
        assert contained(DASHBOARD, known)


def contained(given: Any, known: Any) -> bool:
    """Whether all of this is there; defaults may be added."""
    if isinstance(given, dict) and isinstance(known, dict):
        items: dict[str, Any] = given
        return all(
            name in known and contained(value, known[name])
            for name, value in items.items()
        )
    if isinstance(given, list) and isinstance(known, list):
        values: list[Any] = given
        return len(values) == len(known) and all(map(contained, values, known))
    return bool(given == known)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units(path: Path, tmp_path: Path) -> None:
    unit = ConfigParser(strict=False, comment_prefixes="#", interpolation=None)
    unit.read(path)
    service = unit["Service"]
    assert service.get("DynamicUser") == "yes" or service["User"] != "root"
    program, *arguments = service["ExecStart"].split()
    assert arguments[:2] == ["-m", "pychrony.prometheus"]
    with Exporter(*arguments[2:]) as exporter:
        assert exporter.get("/")[0] == 200
    checker = shutil.which("systemd-analyze")
    # It makes that directory, which only root may do where systemd does not run.
    if checker and (os.getuid() == 0 or Path("/run/systemd").exists()):
        copy = tmp_path / path.name
        copy.write_text(path.read_text().replace(program, sys.executable))
        result = subprocess.run(
            [checker, "verify", "--man=no", copy],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")


EXAMPLES = DOCS / "prometheus"


def served(command: list[str]) -> None:
    """What a file runs serves, on any free port."""
    assert command[:3] == ["python", "-m", "pychrony.prometheus"]
    assert command[3:] == ["--listen=:9123"]
    with Exporter(*command[4:], listen=":0") as exporter:
        for path in ("/-/healthy", "/-/ready"):
            assert exporter.get(path)[0] == 200


def test_compose_file() -> None:
    content = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    (service,) = content["services"].values()
    served(service["command"])
    assert service["volumes"] == ["/run/chrony:/run/chrony"]
    assert service["user"] not in ("0", "root")
    assert service["ports"] == ["127.0.0.1:9123:9123"]


def test_daemonset() -> None:
    content = yaml.safe_load((EXAMPLES / "daemonset.yaml").read_text())
    assert (content["apiVersion"], content["kind"]) == ("apps/v1", "DaemonSet")
    labels = content["spec"]["selector"]["matchLabels"]
    assert content["spec"]["template"]["metadata"]["labels"] == labels
    pod = content["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    served(container["command"] + container["args"])
    (port,) = container["ports"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
    # Chronyd answers by path: it must be the same, and writable.
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    assert mount == {"name": volume["name"], "mountPath": volume["hostPath"]["path"]}
    assert pod["securityContext"]["runAsNonRoot"]


# --- the document ------------------------------------------------------------------


def test_collector_in_a_program() -> None:
    (code,) = blocks_in("python", TEXT)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    code = code.replace("9124", port)
    with ScriptedDaemon() as daemon:
        here = code.replace('"127.0.0.1", timeout', f"{daemon.address!r}, timeout")
        stay = "import sys; print('ready', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", f"{here}\n{stay}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            _, page = fetch(f"127.0.0.1:{port}", "/")
            program.communicate()
    assert program.returncode == 0
    assert samples(page)["chrony_tracking_stratum"] == 2
    assert "python_info" in page


def test_commands() -> None:
    first, _, second = blocks_in("console", TEXT)
    command, shown = first.splitlines()
    project = Path(__file__).parents[2].joinpath("pyproject.toml").read_text()
    assert "/bin/pip install 'pychrony[prometheus]'``" in TEXT
    assert "\nprometheus = [" in project
    assert command == "$ /opt/pychrony/bin/python -m pychrony.prometheus"
    assert urlsplit(shown.removeprefix("listening on ")).netloc == "127.0.0.1:9123"
    arguments = second.removeprefix("$ python -m pychrony.prometheus ").split()
    with Exporter(*arguments) as exporter:
        assert exporter.get("/probe?target=192.0.3.1")[0] == 403
        assert exporter.get("/probe?target=192.0.2.1:11323")[0] == 403
        status, page = exporter.get("/")
    assert status == 200
    assert "192.0.2.0/24, ntp1.example" in page


def test_migration_page() -> None:
    """Each flag of chrony_exporter, and each metric that differs, is in its tables."""
    rows = re.findall(r"(?m)^``(--[a-z.-]+)``  +\S", MIGRATION)
    assert set(rows) == CHRONY
    assert len(rows) == len(CHRONY)
    theirs = metrics_table.chrony_exporter()
    for name in re.findall(r"(?m)^``(chrony_[a-z_]+)\*?``  +\S", MIGRATION):
        assert any(one.startswith(name) for one in theirs)


def test_alerts_are_on_the_page() -> None:
    rules = (DOCS / "prometheus" / "rules.yml").read_text()
    alerts = re.findall("alert: (.*)", rules)
    assert re.findall(r"(?m)^``(Chrony\w+)``  ", TEXT) == alerts


def test_file_of_the_web_configuration(tmp_path: Path) -> None:
    (text,) = [body for _, caption, body in blocks(TEXT) if caption == "web.yml"]
    known = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
    (tmp_path / "web.yml").write_text(text.replace("$2y$10$...", known))
    for name in ("server.crt", "server.key", "clients.crt"):
        shutil.copy(CERTIFICATE, tmp_path / name)
    web = load(str(tmp_path / "web.yml"))
    assert web.context
    assert web.headers == {"X-Frame-Options": "deny"}
    web.close()


def test_options_that_are_named_exist() -> None:
    usage = subprocess.check_output(
        [sys.executable, "-m", "pychrony.prometheus", "--help"],
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    pages = TEXT + MIGRATION
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]+[a-z](?!\.\.\.)", pages))
    options.discard("--format")  # of the check
    assert options
    assert {one for one in options if one not in usage} == set()
