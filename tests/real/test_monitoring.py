"""Monitoring systems run what docs/howto shows, and keep what the check prints.

Icinga 2, Nagios, NRPE, the Zabbix agent, Munin and node_exporter are those of Debian,
unpacked. Of Checkmk and collectd the script of the recipe is run, of Telegraf, which
Debian has not, the command.
"""

from __future__ import annotations

import getpass
import grp
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import provision
import pytest
from checking import PERFORMANCE, ageless, check_here, clock, fine_daemon, items
from chronyc import wait
from chronyd import free_port, run_chronyc
from pages import blocks
from provision import Parts

import pychrony
from pychrony.check import WARNING
from pychrony.testing import ScriptedDaemon

pytestmark = pytest.mark.skipif(
    shutil.which("apt-get") is None, reason="needs packages of Debian"
)

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
USER, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
STORED = re.compile(r"(\w+)=(-?[\d.]+)s?(?:;([^; ]*))?(?:;([^; ]*))?(?:;0)?(?: |$)")


@pytest.fixture(scope="module")
def root() -> Path:
    return provision.monitoring()


@pytest.fixture
def daemon() -> Iterator[ScriptedDaemon]:
    """Its offset is small, so that six decimals of a second would lose it."""
    with fine_daemon(offset=-123e-9, frequency=2.5) as daemon:
        yield daemon


def recipe(page: str, caption: str, programs: Path) -> str:
    """A block of a page by its caption, with our programs in it."""
    bodies = blocks(HOWTO.joinpath(page).read_text())
    (found,) = [body for _, title, body in bodies if title == caption]
    return found.replace("/opt/pychrony/bin", str(programs))


@pytest.fixture
def programs(tmp_path: Path) -> Callable[[str], Path]:
    """Make the directory of programs, which ask a chronyd at an address."""

    def make(arguments: str) -> Path:
        directory = tmp_path / "bin"
        directory.mkdir()
        library = shlex.quote(pychrony.library_path())
        for name, words in (("python", ""), ("check_chrony", " -m pychrony.check")):
            file = directory / name
            file.write_text(
                f"#!/bin/sh\nexport PYCHRONY_LIBCHRONY={library}\n"
                f'exec {sys.executable}{words} "$@" {arguments}\n'
            )
            file.chmod(0o755)
        return directory

    return make


@contextmanager
def running(command: list[str], **variables: str) -> Iterator[None]:
    """Let a server run, which ends with all that it started."""
    with subprocess.Popen(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            yield
        finally:
            os.killpg(server.pid, 9)


def output_of(command: list[str] | str, **variables: str) -> str:
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def by_chronyc(parts: Parts, address: str) -> dict[str, float]:
    """What chronyc prints of the same clock, by the names of performance data."""
    columns = run_chronyc(parts, address, "-c", "tracking").stdout.split(",")
    offset, delay, dispersion = (float(columns[one]) for one in (4, 10, 11))
    return {
        "stratum": float(columns[2]),
        "offset_us": offset * 1e6,
        "frequency": float(columns[7]),
        "skew": float(columns[9]),
        "root_delay_us": delay * 1e6,
        "root_dispersion_us": dispersion * 1e6,
        "error_bound_us": (abs(offset) + delay / 2 + dispersion) * 1e6,
    }


def performance(address: str, *options: str) -> str:
    """What the check itself prints as performance data, without the age."""
    return ageless(check_here("-f", "nagios", address, *options)[1].split(" | ")[1])


# Hosts, their variables, and the state of their service.
HOSTS = {
    "here": ('vars.chrony_address = ""', 0),
    "there": ('address = "127.0.0.1"', 0),
    "limits": (
        """address = "127.0.0.1"
        vars.chrony_warning = [ "100ns", "stratum=5" ]
        vars.chrony_critical = [ "age=off" ]
        vars.chrony_timeout = 5
        vars.chrony_retries = 1
        vars.chrony_ipv4 = true
        vars.chrony_verbose = true""",
        1,
    ),
    "silent": (
        """address = "127.0.0.1"
        vars.chrony_port = 9
        vars.chrony_timeout_state = "unknown" """,
        2,
    ),
}

ICINGA = """
const PluginDir = "/nowhere"
include <itl>
include <plugins>
%(recipe)s
object CheckerComponent "checker" { }
object GraphiteWriter "graphite" {
  host = "127.0.0.1"
  port = %(graphite)d
  enable_send_thresholds = true
  enable_send_metadata = true
}
%(hosts)s
apply Service "clock" {
  check_command = "chrony"
  check_interval = 1s
  retry_interval = 1s
  assign where true
}
"""


def test_icinga(
    parts: Parts,
    root: Path,
    daemon: ScriptedDaemon,
    programs: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Its Graphite writer stores what the check prints, and its thresholds."""
    port = daemon.address.rpartition(":")[2]
    hosts = "\n".join(
        f'object Host "{name}" {{ check_command = "passive"\n'
        f"enable_active_checks = false\nvars.chrony_port = {port}\n{variables} }}"
        for name, (variables, _) in HOSTS.items()
    )
    config = tmp_path / "icinga2.conf"
    names = ("Data", "Log", "InitRun", "Cache", "Spool", "Config")
    defines = [f"{name}Dir={tmp_path}/{name}" for name in names]
    defines += [f"RunAsUser={USER}", f"RunAsGroup={GROUP}"]
    for name in names:
        (tmp_path / name).mkdir()
    variables = {
        "LD_LIBRARY_PATH": provision.library_path(root),
        "ICINGA2_USER": USER,
        "ICINGA2_GROUP": GROUP,
    }
    command = [provision.icinga(root), "daemon", "-c", str(config)]
    command += ["--include", f"{root}/usr/share/icinga2/include"]
    for define in defines:
        command += ["--define", define]
    stored: dict[str, float] = {}
    wanted = {
        f"icinga2.{host}.services.clock.chrony.metadata.state" for host in HOSTS
    } | {"icinga2.limits.services.clock.chrony.perfdata.dead_sources.value"}
    with socket.create_server(("127.0.0.1", 0)) as graphite:
        given = {
            "recipe": recipe(
                "nagios.rst", "/etc/icinga2/conf.d/chrony.conf", programs("")
            ),
            "graphite": graphite.getsockname()[1],
            "hosts": hosts,
        }
        config.write_text(ICINGA % given)
        output_of([*command, "-C"], **variables)
        graphite.settimeout(60)
        with running(command, **variables):
            connection, _ = graphite.accept()
            connection.settimeout(60)
            with connection, connection.makefile() as lines:
                for line in lines:
                    name, value, _ = line.split()
                    stored[name] = float(value)
                    if wanted <= stored.keys():
                        break
    for host, (_, state) in HOSTS.items():
        assert stored[f"icinga2.{host}.services.clock.chrony.metadata.state"] == state
    options = ("-w", "100ns", "-w", "stratum=5", "-c", "age=off")
    printed = performance(daemon.address, *options)
    base = "icinga2.limits.services.clock.chrony.perfdata"
    for label, figure in by_chronyc(parts, daemon.address).items():
        assert stored[f"{base}.{label}.value"] == pytest.approx(figure, abs=1e-3)
    for label, *texts in STORED.findall(printed):
        for name, text in zip(("value", "warn", "crit"), texts):
            if text and ":" not in text:  # it knows no ranges
                assert stored[f"{base}.{label}.{name}"] == pytest.approx(float(text))


NAGIOS = """
log_file={0}/log
cfg_file={0}/objects.cfg
cfg_file={0}/chrony.cfg
object_cache_file={0}/objects.cache
precached_object_file={0}/objects.precache
status_file={0}/status
temp_file={0}/temporary
temp_path={0}
check_result_path={0}
lock_file={0}/lock
command_file={0}/command
check_external_commands=0
query_socket={0}/query
state_retention_file={0}/retention
check_for_updates=0
use_syslog=0
interval_length=1
process_performance_data=1
service_perfdata_file={0}/stored
service_perfdata_file_template=$SERVICESTATE$|$SERVICEPERFDATA$
nagios_user={1}
nagios_group={2}
illegal_macro_output_chars=`~$&|'"<>
"""

OBJECTS = """
define timeperiod {
  timeperiod_name always
  alias always
}
define command {
  command_name none
  command_line /bin/true
}
define contact {
  contact_name me
  service_notification_commands none
  host_notification_commands none
  host_notification_period always
  service_notification_period always
}
define host {
  host_name clock
  address %s
  max_check_attempts 1
  contacts me
}
define service {
  host_name clock
  service_description chrony
  check_command check_chrony!-w 100ns -w stratum=5
  check_interval 1
  max_check_attempts 1
  contacts me
}
"""


def test_nagios(
    root: Path, daemon: ScriptedDaemon, programs: Callable[[str], Path], tmp_path: Path
) -> None:
    command = recipe("nagios.rst", "/etc/nagios4/conf.d/chrony.cfg", programs(""))
    tmp_path.joinpath("chrony.cfg").write_text(command)
    tmp_path.joinpath("objects.cfg").write_text(OBJECTS % daemon.address)
    config = tmp_path / "nagios.cfg"
    config.write_text(NAGIOS.format(tmp_path, USER, GROUP))
    nagios = f"{root}/usr/sbin/nagios4"
    assert "Total Errors:   0" in output_of([nagios, "-v", str(config)])
    stored = tmp_path / "stored"
    with running([nagios, str(config)]):
        wait(lambda: stored.exists() and "\n" in stored.read_text())
    state, data = stored.read_text().splitlines()[0].split("|")
    assert state == "WARNING"
    options = ("-w", "100ns", "-w", "stratum=5")
    assert ageless(data) == performance(daemon.address, *options).rstrip()


def test_nrpe(
    root: Path, daemon: ScriptedDaemon, programs: Callable[[str], Path], tmp_path: Path
) -> None:
    made = programs(daemon.address)
    line = recipe("nagios.rst", "/etc/nagios/nrpe.d/chrony.cfg", made)
    port = free_port(["127.0.0.1"])
    config = tmp_path / "nrpe.cfg"
    config.write_text(
        f"pid_file={tmp_path}/pid\nlog_file={tmp_path}/log\nserver_port={port}\n"
        f"server_address=127.0.0.1\nallowed_hosts=127.0.0.1\n{line}"
    )
    libraries = {"LD_LIBRARY_PATH": provision.library_path(root)}
    # It refuses to be root.
    another = ["unshare", "--map-user=1", "--map-group=1"] if os.getuid() == 0 else []
    server = [*another, f"{root}/usr/sbin/nrpe", "-n", "-f", "-c", str(config)]
    client = [f"{root}/usr/lib/nagios/plugins/check_nrpe", "-n", "-H", "127.0.0.1"]
    client += ["-p", str(port), "-c", "check_chrony"]
    found: list[str] = []

    def answered() -> bool:
        result = subprocess.run(
            client,
            env={**os.environ, **libraries},
            capture_output=True,
            text=True,
            check=False,
        )
        found[:] = [result.stdout]
        return result.returncode == 0

    with running(server, **libraries):
        wait(answered)
    assert ageless(found[0]) == ageless(check_here("-f", "nagios", daemon.address)[1])


def test_node_exporter(
    parts: Parts, root: Path, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "chrony.prom"
    options = ("-f", "prometheus", "-w", "100ns", "-o", str(file))
    assert check_here(daemon.address, *options)[0] == WARNING
    address = f"127.0.0.1:{free_port(['127.0.0.1'])}"
    command = [f"{root}/usr/bin/prometheus-node-exporter"]
    command += ["--collector.disable-defaults", "--collector.textfile"]
    command += [f"--collector.textfile.directory={tmp_path}"]
    command += [f"--web.listen-address={address}"]
    found: list[str] = []

    def answered() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/metrics") as answer:
                found[:] = answer.read().decode().splitlines()
        except OSError:
            return False
        return True

    with running(command):
        wait(answered)
    bound = by_chronyc(parts, daemon.address)["error_bound_us"] / 1e6
    metrics = dict(line.rsplit(" ", 1) for line in found if line[:1] != "#")
    found_bound = float(metrics["chrony_clock_error_bound_seconds"])
    assert found_bound == pytest.approx(bound, abs=1e-9)
    labels = f'{{address="{daemon.address}"}}'
    assert metrics[f"chrony_check_state{labels}"] == str(WARNING)
    assert metrics["node_textfile_scrape_error"] == "0"


def test_zabbix_agent(
    root: Path, daemon: ScriptedDaemon, programs: Callable[[str], Path], tmp_path: Path
) -> None:
    made = programs(f"-H {daemon.address}")
    line = recipe("monitoring.rst", "/etc/zabbix/zabbix_agentd.d/chrony.conf", made)
    config = tmp_path / "agent.conf"
    config.write_text(f"LogType=console\nServer=127.0.0.1\nTimeout=30\n{line}")
    output = output_of(
        [f"{root}/usr/sbin/zabbix_agentd", "-c", str(config), "-t", "chrony.reports"],
        LD_LIBRARY_PATH=provision.library_path(root),
    )
    kind, text = output.partition("[")[2].rstrip("]\n").split("|", 1)
    reports = json.loads(text)["reports"]
    assert kind == "t"
    # $.reports.tracking.offset_seconds, and $.reports.sources with $.name
    assert reports["tracking"]["offset_seconds"] == pytest.approx(-123e-9)
    assert [one["name"] for one in reports["sources"]] == ["192.0.2.1", "192.0.2.2"]


def test_munin(
    root: Path, daemon: ScriptedDaemon, programs: Callable[[str], Path], tmp_path: Path
) -> None:
    made = programs(f"-H {daemon.address}")
    for name in ("plugins", "settings"):
        (tmp_path / name).mkdir()
    plugin = tmp_path / "plugins" / "chrony"
    plugin.write_text(recipe("monitoring.rst", "/etc/munin/plugins/chrony", made))
    plugin.chmod(0o755)
    (tmp_path / "settings" / "chrony").write_text(f"[chrony]\nuser {USER}\n")
    config = tmp_path / "munin-node.conf"
    config.write_text(f"log_file {tmp_path}/log\nuser {USER}\ngroup {GROUP}\n")
    command = ["perl", "-T", f"-I{root}/usr/share/perl5", f"{root}/usr/sbin/munin-run"]
    command += ["--config", str(config), "--servicedir", f"{tmp_path}/plugins"]
    command += ["--sconfdir", f"{tmp_path}/settings", "chrony"]
    lines = dict(line.split(" ", 1) for line in output_of(command).splitlines())
    assert float(lines["offset.value"]) == pytest.approx(-123e-9)
    bound = items(check_here("-f", "json", daemon.address)[1])["error_bound"]
    assert float(lines["error_bound.value"]) == bound["value"]
    shown = dict(
        line.split(" ", 1) for line in output_of([*command, "config"]).splitlines()
    )
    assert shown.keys() >= {"offset.label", "error_bound.label", "graph_title"}
    assert shown["error_bound.warning"] == bound["warning"]
    assert shown["error_bound.critical"] == bound["critical"]


def test_commands_of_others(
    daemon: ScriptedDaemon, programs: Callable[[str], Path]
) -> None:
    """Checkmk's MRPE and Telegraf start a plugin, and split its line at the bar."""
    made = programs(daemon.address)
    expected = ageless(check_here("-f", "nagios", daemon.address)[1])
    mrpe = recipe("monitoring.rst", "/etc/check_mk/mrpe.cfg", made)
    name, command = mrpe.strip().split(" ", 1)
    assert name == "Chrony"
    telegraf = recipe("monitoring.rst", "/etc/telegraf/telegraf.d/chrony.conf", made)
    assert 'data_format = "nagios"' in telegraf
    for words in (command, *re.findall(r'commands = \["(.*)"\]', telegraf)):
        output = output_of(words)
        assert ageless(output) == expected
        _, data = output.rstrip("\n").split(" | ")
        assert PERFORMANCE.fullmatch(data)


@pytest.mark.parametrize(
    ("changes", "start"),
    [({}, "0 Chrony synchronised=1|local=0|"), ({"offset": 0.06}, "1 Chrony sync")],
)
def test_local_check_of_checkmk(
    changes: dict[str, float],
    start: str,
    programs: Callable[[str], Path],
) -> None:
    with fine_daemon(**changes) as daemon:
        script = recipe(
            "monitoring.rst",
            "/usr/lib/check_mk_agent/local/chrony",
            programs(daemon.address),
        )
        output = output_of(script)
        text, data = check_here("-f", "nagios", daemon.address)[1].split(" | ")
    assert output.startswith(start)
    _, _, metrics, said = output.rstrip("\n").split(" ", 3)
    assert said == text
    values = {name: value for name, value, *_ in STORED.findall(data)}
    shown = dict(one.split("=") for one in metrics.split("|"))
    assert shown.keys() == values.keys()
    assert {**shown, "age": ""} == {**values, "age": ""}


def test_local_check_of_checkmk_without_a_chronyd(
    programs: Callable[[str], Path],
) -> None:
    with fine_daemon() as daemon:
        daemon.stop()
        made = programs(daemon.address)
        caption = "/usr/lib/check_mk_agent/local/chrony"
        output = output_of(recipe("monitoring.rst", caption, made))
    assert output.startswith(f"2 Chrony - CHRONY CRITICAL - {daemon.address}: Conn")


def test_script_of_collectd(
    daemon: ScriptedDaemon, programs: Callable[[str], Path]
) -> None:
    made = programs(f"-H {daemon.address}")
    script = recipe("monitoring.rst", "/usr/local/lib/collectd/chrony", made)
    with subprocess.Popen(
        ["sh", "-c", script],
        env={**os.environ, "COLLECTD_HOSTNAME": "host", "COLLECTD_INTERVAL": "60.000"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        os.killpg(process.pid, 9)
    bound = clock(offset=-123e-9).error_bound
    value = re.fullmatch(r"PUTVAL host/exec-chrony/gauge-error_bound N:(.*)\n", line)
    assert value and float(value[1]) == pytest.approx(bound)
