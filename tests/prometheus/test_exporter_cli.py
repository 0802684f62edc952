"""The command line: ours, and every flag of chrony_exporter 0.13.3."""

from __future__ import annotations

import json
import os
import socket
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from exporter import (
    ALL,
    CERTIFICATE,
    EXPORTER,
    Exporter,
    everything,
    fetch,
    free_place,
    named,
    succeeded,
)
from helpers import run_python, short_directory

import pychrony
from pychrony import prometheus
from pychrony.prometheus import _cli
from pychrony.prometheus._web import Web
from pychrony.testing import ScriptedDaemon, faults

TIMEOUTS = {
    "5s": 5,
    "500ms": 0.5,
    "1m30s": 90,
    "1.5s": 1.5,
    "2h": 7200,
    "100us": 1e-4,
    "100µs": 1e-4,
    "5": 5,
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "9123"], "'9123' is not [HOST]:PORT"),
        (["--listen", "::1:9123"], "'::1:9123' is not [HOST]:PORT"),
        (["--listen", ":99999"], "':99999' is not [HOST]:PORT"),
        (["--address", "a:b:c"], "'a:b:c' is not an address"),
        (["--allow", "a b"], "'a b' cannot be allowed"),
        (["--timeout", "0"], "'0' is not a positive number"),
        (["--retries", "-1"], "retries"),
        (["--workers", "0"], "argument --workers: 0 is less than 1"),
        (["--chrony.timeout", "5x"], "'5x' is not a positive number"),
        (["--chrony.timeout", "0s"], "'0s' is not a positive number"),
        (["--web.telemetry-path", "metrics"], "'metrics' is not a path as /metrics"),
        (["--web.telemetry-path", "/"], "'/' is not a path as /metrics"),
        (["--log.level", "loud"], "invalid choice: 'loud'"),
        (["--log.format", "xml"], "invalid choice: 'xml'"),
        (["--report", "tracking", "--no-collector.sources"], "either --report or"),
        (
            [f"--no-collector.{name}" for name in _cli._COLLECTORS.values()],
            "no report is left to read",
        ),
        (["--web.config.file", "/nowhere"], "cannot read /nowhere"),
        (["--web.config.file", "a", "--certfile", "b"], "either --web.config.file or"),
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
def test_usage_errors_of_the_exporter(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        prometheus.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


# --- chrony_exporter's -------------------------------------------------------

# Each of its flags, and what the migration page says of it, is tested below.
CHRONY = {
    "--chrony.address",
    "--chrony.timeout",
    "--collector.tracking",
    "--collector.sources",
    "--collector.sources.with-ntpdata",
    "--collector.sourcestats",
    "--collector.serverstats",
    "--collector.dns-lookups",
    "--collector.chmod-socket",
    "--web.listen-address",
    "--web.telemetry-path",
    "--web.systemd-socket",
    "--web.config.file",
    "--log.level",
    "--log.format",
    "--version",
}


def test_every_flag_is_known() -> None:
    known = set(_cli._parser()._option_string_actions)
    collectors = {one for one in CHRONY if "collector" in one}
    assert known >= CHRONY | {one.replace("--", "--no-", 1) for one in collectors}


def test_address_and_place_as_chrony_exporter_has_them() -> None:
    place = free_place()
    with short_directory() as directory:
        path = f"{directory}/chronyd.sock"
        with ScriptedDaemon(address=path):
            with Exporter(
                f"--chrony.address=unix://{path}",
                "--chrony.timeout=5s",
                f"--web.listen-address={place}",
                listen=None,
            ) as exporter:
                assert exporter.place == place
                found = exporter.samples("/metrics")
    assert succeeded(found) == ALL


def test_several_places() -> None:
    first, second = free_place(), free_place()
    with Exporter(
        f"--web.listen-address={first}", f"--web.listen-address={second}", listen=None
    ) as exporter:
        for place in (first, second):
            assert fetch(place, "/-/healthy") == (200, "Healthy\n")
        assert exporter.stop()[0] == 0


@pytest.mark.parametrize(("text", "seconds"), TIMEOUTS.items())
def test_durations(text: str, seconds: float) -> None:
    arguments = _cli._arguments(["--chrony.timeout", text])
    assert arguments.timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("flags", "reports"),
    [
        ([], ALL),
        (["--collector.tracking"], {"tracking"}),
        (["--collector.sources"], {"tracking", "sources"}),
        (["--collector.sourcestats"], {"tracking", "sourcestats"}),
        (["--collector.serverstats"], {"tracking", "serverstats"}),
        (["--collector.ntpdata"], {"tracking", "ntpdata"}),
        (
            ["--collector.sources", "--collector.sources.with-ntpdata"],
            {"tracking", "sources", "ntpdata"},
        ),
        (["--no-collector.tracking", "--collector.sources"], {"sources"}),
        (["--no-collector.sources.with-ntpdata"], ALL - {"ntpdata"}),
        (["--no-collector.tracking"], ALL - {"tracking"}),
        (["--report", "activity"], {"activity"}),
    ],
    ids=lambda names: " ".join(sorted(names)),
)
def test_which_reports(flags: list[str], reports: set[str]) -> None:
    assert {*_cli._arguments(flags).reports} == reports


def test_only_the_reports_that_are_switched_on() -> None:
    with everything() as daemon:
        flags = ("--collector.serverstats", "--no-collector.dns-lookups")
        with Exporter("--address", daemon.address, *flags) as exporter:
            found = exporter.samples("/metrics")
    assert succeeded(found) == {"tracking", "serverstats"}
    assert not named(found, "chrony_sources")


def test_what_has_no_meaning_is_one_line() -> None:
    with Exporter("--collector.chmod-socket") as exporter:
        (line,) = exporter.said.splitlines()
    assert line.startswith("--collector.chmod-socket has no meaning here")


def test_timeout_and_lookup_of_names_by_default() -> None:
    assert _cli._arguments([]).timeout == 1
    assert _cli._arguments(["--collector.dns-lookups"]).dns
    assert not _cli._arguments([]).dns


def test_path_of_the_metrics() -> None:
    with everything() as daemon:
        flags = ("--web.telemetry-path=/chrony", "--address", daemon.address)
        with Exporter(*flags) as exporter:
            assert exporter.samples("/chrony")["chrony_up"] == 1
            assert exporter.get("/metrics")[0] == 404
            assert 'href="/chrony"' in exporter.get("/")[1]


# What systemd does before it runs a command.
ACTIVATE = """
import os, socket, sys
listening = {listening}
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="{number}")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
TCP = 'socket.create_server(("127.0.0.1", 0))'


def activated(listening: str, number: int = 1) -> tuple[str, ...]:
    code = ACTIVATE.format(listening=listening, number=number)
    return sys.executable, "-c", code, *EXPORTER[1:], "--web.systemd-socket"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_socket_of_systemd(workers: str) -> None:
    flags = ("--workers", workers)
    with Exporter(*flags, listen=None, program=activated(TCP)) as exporter:
        assert exporter.get("/-/ready")[0] == 200
        assert exporter.stop() == (0, "")


@pytest.mark.parametrize("start", ["{}/", "\0{}."])
def test_unix_socket_of_systemd(start: str, tmp_path: Path) -> None:
    path = start.format(tmp_path) + "exporter.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        url = _cli._url(listening, Namespace(web=Web()))
    assert url == f"http+unix://{path}".replace("\0", "@")


@pytest.mark.parametrize(
    ("listening", "number", "message"),
    [
        (TCP, 0, "systemd passed no socket"),
        ("socket.socket(type=socket.SOCK_DGRAM)", 1, "descriptor 3 of systemd is no"),
        ("open(os.devnull)", 1, "descriptor 3 of systemd is no stream socket, see"),
    ],
)
def test_no_socket_of_systemd(listening: str, number: int, message: str) -> None:
    result = run_python(*activated(listening, number)[1:])
    assert result.returncode == 1
    assert result.stderr.startswith(f"--web.systemd-socket: {message}")
    assert result.stderr.count("\n") == 1


def test_version_of_the_exporter(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        prometheus.main(["--version"])
    assert not end.value.code
    said = f"pychrony {pychrony.__version__}, libchrony {pychrony.library_path()}\n"
    assert capsys.readouterr().out == said


# --- the log -----------------------------------------------------------------


def test_reasons_are_told_to_who_wants_them() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        for arguments, said in (((), ""), (("-v",), "Connection refused")):
            with Exporter("--address", daemon.address, *arguments) as exporter:
                assert exporter.samples("/metrics")["chrony_up"] == 0
                _, text = exporter.stop()
            assert said in text
            assert bool(said) == bool(text)


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_forms_of_the_log(form: str) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        flags = ("--log.level=info", f"--log.format={form}", "--timeout=0.01")
        with Exporter("--address", daemon.address, *flags) as exporter:
            exporter.get("/metrics")
            _, line = exporter.stop()
    if form == "json":
        said = json.loads(line)
        assert set(said) == {"time", "level", "msg"}
        assert said["level"] == "info"
        assert "no answer" in said["msg"]
    else:
        assert line.startswith("time=20")
        assert ' level=info msg="' in line
        assert "no answer" in line


def test_level_of_the_log() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        flags = ("--log.level=error", "--collector.chmod-socket")
        with Exporter("--address", daemon.address, *flags) as exporter:
            exporter.get("/metrics")
            assert exporter.said == ""
            assert exporter.stop() == (0, "")
