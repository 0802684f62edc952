"""``python -m pychrony.prometheus`` and a Prometheus server, both on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from prometheus_client import CollectorRegistry, generate_latest

from pychrony.prometheus import Collector
from pychrony.testing import ALL_COMMANDS, ScriptedDaemon, make_rtc_data, make_smoothing

PATIENCE = 30.0

EXPORTER = (sys.executable, "-m", "pychrony.prometheus")

CERTIFICATE = Path(__file__).parents[1] / "nts.pem"
CLIENT = Path(__file__).parents[1] / "client.pem"

ALL = {
    *("tracking", "sources", "sourcestats", "selectdata", "activity"),
    *("authdata", "ntpdata", "serverstats", "rtcdata", "smoothing"),
}
OPEN = {"tracking", "sources", "sourcestats", "activity", "rtcdata", "smoothing"}


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


def free_place() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def children(pid: int) -> set[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return {int(one) for one in path.read_text().split()}


def alive(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


class Exporter:
    """A running exporter on a free port; it answers when the constructor returns.

    Attributes:
        place: "127.0.0.1:PORT".
        said: what it wrote before it listened.
    """

    def __init__(
        self,
        *arguments: str,
        listen: str | None = "127.0.0.1:0",
        program: Sequence[str] = EXPORTER,
    ) -> None:
        self._process = subprocess.Popen(
            [*program, *(("--listen", listen) if listen else ()), *arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        self.said = ""
        for line in self._process.stderr:
            if line.startswith("listening on "):
                break
            self.said += line
        else:
            line = self.said
        self.url = line.removeprefix("listening on ").strip()
        if not urlsplit(self.url).port:
            self._process.wait()
            raise RuntimeError(line + self._process.stderr.read())
        self.place = f"127.0.0.1:{urlsplit(self.url).port}"
        self.pid = self._process.pid

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Return its exit status and what it said."""
        self._process.send_signal(number)
        try:
            _, said = self._process.communicate(timeout=PATIENCE)
        except ValueError:  # it had been stopped
            said = ""
        return self._process.returncode, said

    def connect(self) -> socket.socket:
        host, port = self.place.split(":")
        return socket.create_connection((host, int(port)))

    def get(self, path: str, **options: Any) -> tuple[int, str]:
        """Return the status and the text of a page, see `fetch`."""
        return fetch(self.place, path, **options)

    def samples(
        self, path: str, headers: dict[str, str] | None = None, **options: Any
    ) -> dict[str, float]:
        status, text = self.get(path, headers=headers, **options)
        assert status == 200, text
        return samples(text)

    def probe(
        self, target: str, headers: dict[str, str] | None = None
    ) -> dict[str, float]:
        return self.samples(f"/probe?target={quote(target)}", headers)


def fetch(
    place: str,
    path: str,
    *,
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, str]:
    connection = (
        HTTPConnection(place, timeout=PATIENCE)
        if tls is None
        else HTTPSConnection(place, timeout=PATIENCE, context=tls)
    )
    with closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()


def samples(text: str) -> dict[str, float]:
    """Each sample of the text format: its name with the labels, and its value."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    return {name: float(value) for name, value in lines}


class Prometheus:
    """A running Prometheus server with this configuration."""

    def __init__(self, program: str, directory: Path, config: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = int(probe.getsockname()[1])
        (directory / "prometheus.yml").write_text(config)
        self._log = directory / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={directory}/prometheus.yml",
                    f"--storage.tsdb.path={directory}/data",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                cwd=directory,
                env={**os.environ, "NO_PROXY": "*"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Prometheus:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self._get("/-/ready")[0] == 200:
                    return self
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"it did not start:\n{self._log.read_text()}")
            time.sleep(0.02)

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)

    def query(self, expression: str) -> dict[str, float]:
        """Return the instances and their values."""
        return {
            labels.get("instance", ""): value
            for labels, value in self.series(expression)
        }

    def series(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels of each series, and its value."""
        status, text = self._get(f"/api/v1/query?query={quote(expression)}")
        assert status == 200, text
        result: list[dict[str, Any]] = json.loads(text)["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def _get(self, path: str) -> tuple[int, str]:
        return fetch(f"127.0.0.1:{self._port}", path)
