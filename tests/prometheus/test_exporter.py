"""The exporter: its pages, whom it asks, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from resource import RLIMIT_NOFILE, prlimit

import pytest
from chronyc import wait
from chronyd import Chronyd
from exporter import (
    EXPORTER,
    Exporter,
    alive,
    children,
    everything,
    fetch,
    free_place,
    named,
)
from helpers import run_python
from provision import Parts

from pychrony._address import parse
from pychrony.prometheus._targets import Targets
from pychrony.testing import ScriptedDaemon, faults, make_tracking


@pytest.fixture
def fleet() -> Iterator[tuple[ScriptedDaemon, Exporter]]:
    """A daemon, and an exporter that has another one and may probe any port here."""
    with everything(tracking=make_tracking(stratum=7)) as own, everything() as other:
        arguments = ("--address", own.address, "--allow", "127.0.0.1:*")
        with Exporter(*arguments) as exporter:
            yield other, exporter


def test_pages_of_the_exporter(fleet: tuple[ScriptedDaemon, Exporter]) -> None:
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
    for path in ("/-/healthy", "/-/ready"):
        assert exporter.get(path) == (200, "Healthy\n")
        assert exporter.get(path, method="HEAD") == (200, "")


REFUSED = [
    ("/probe", 400, "give one target"),
    ("/probe?target=", 400, "give one target"),
    ("/probe?target=::1&target=127.0.0.1", 400, "give one target"),
    ("/probe?target=a:b:c", 400, "'a:b:c' is not an address of a chronyd"),
    ("/probe?target=127.0.0.1:0", 400, "'0' is not a port"),
    ("/probe?target=%ff%0a", 400, "is not an address"),
    ("/probe?target=127.0.0.2", 403, "'127.0.0.2' is not allowed"),
    ("/probe?target=/run/chrony/chronyd.sock", 403, "not allowed"),
    ("/prob", 404, "nothing but /, /metrics, /probe, /-/healthy and /-/ready"),
    ("/metrics/", 404, "nothing but"),
]


def test_what_is_refused(fleet: tuple[ScriptedDaemon, Exporter]) -> None:
    daemon, exporter = fleet
    for path, status, message in REFUSED:
        found, text = exporter.get(path)
        assert found == status, path
        assert message in text
    for path in ("/", "/metrics", f"/probe?target={daemon.address}"):
        assert exporter.get(path, method="POST") == (405, "use GET or HEAD\n")
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
    assert len(daemon.requests) > 1  # not all three, if the machine is busy


def test_target_that_is_allowed_by_its_name(
    fleet: tuple[ScriptedDaemon, Exporter],
) -> None:
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
@pytest.mark.parametrize("workers", [1, 3])
def test_exporter_that_is_asked_to_end(workers: int, number: int) -> None:
    place = free_place()
    with Exporter("--workers", str(workers), listen=place) as exporter:
        assert exporter.url == f"http://{place}/"
        assert exporter.get("/")[0] == 200
        processes = children(exporter.pid)
        assert len(processes) == (0 if workers == 1 else workers)
        assert exporter.stop(number) == (0, "")
    assert not any(map(alive, processes))


def test_exporter_that_is_asked_to_end_while_it_waits() -> None:
    with everything(misbehave=faults.silent) as daemon:
        with Exporter("--address", daemon.address) as exporter:
            with exporter.connect(), exporter.connect() as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                wait(lambda: bool(daemon.requests))
                assert exporter.stop() == (0, "")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_port_in_use(workers: str) -> None:
    with Exporter("--workers", workers) as other:
        command = (*EXPORTER[1:], "--listen", other.place, "--workers", workers)
        result = run_python(*command)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"cannot listen on {other.place}: ")


def test_no_library() -> None:
    for arguments, status in ((), 1), (("--version",), 0):
        result = run_python(*EXPORTER[1:], *arguments, PYCHRONY_LIBCHRONY="/nowhere.so")
        assert result.returncode == status
        assert "/nowhere.so" in result.stdout + result.stderr
        assert "Traceback" not in result.stderr


# --- load --------------------------------------------------------------------


def test_nobody_has_to_read_where_it_listens() -> None:
    place = free_place()

    def answers() -> bool:
        with suppress(OSError):
            return "chrony_up 1.0" in fetch(place, "/metrics")[1]
        return False

    with open("/dev/full", "wb") as full, everything() as daemon:
        command = [*EXPORTER, "--listen", place, "--address", daemon.address]
        with subprocess.Popen(command, stderr=full) as exporter:
            try:
                wait(answers)
            finally:
                exporter.terminate()
        assert exporter.returncode == 0


def test_as_many_descriptors_as_may_be() -> None:
    run = f"exec {sys.executable} -m pychrony.prometheus --listen 127.0.0.1:0"
    with subprocess.Popen(
        ["sh", "-c", f"ulimit -S -n 64; {run}"], stderr=subprocess.PIPE, text=True
    ) as exporter:
        assert exporter.stderr is not None
        exporter.stderr.readline()
        soft, hard = prlimit(exporter.pid, RLIMIT_NOFILE)
        exporter.terminate()
    assert soft == hard > 64


def test_clients_that_go_away() -> None:
    """Before they ask, and before they take the answer."""
    with everything(misbehave=faults.delayed(0.01)) as daemon:
        with Exporter("--address", daemon.address) as exporter:
            for request in (b"", b"GET /metrics HTTP/1.0\r\n\r\n", b"\x00" * 99):
                for _ in range(5):
                    with exporter.connect() as client:
                        linger = b"\1\0\0\0\0\0\0\0"
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        client.sendall(request)
            assert exporter.samples("/metrics")["chrony_up"] == 1
            status, said = exporter.stop()
    assert (status, said) == (0, "")


def resident(pid: int) -> int:
    """Memory of a process in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


# More in PYCHRONY_SCRAPES: 10,000 take a minute or two.
SCRAPES = int(os.environ.get("PYCHRONY_SCRAPES", "1000"))
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

            def vanish(number: int) -> None:
                """Ask, and go away before the answer or the end of the request."""
                with exporter.connect() as client:
                    request = f"GET {paths[number % 2]} HTTP/1.1\r\n\r\n".encode()
                    client.sendall(request[: None if number % 3 else -2])

            def load(_: int) -> int:
                shown = up = 0.0
                for number in range(SCRAPES // THREADS):
                    if number % 10 == 0:
                        vanish(number)
                    found = exporter.samples(paths[number % 2])
                    stratum = found.get("chrony_tracking_stratum", shown)
                    assert stratum >= shown
                    shown = stratum
                    up += found["chrony_up"]
                return int(up)

            for path in paths:
                exporter.samples(path)
            wait(lambda: usage()[1].split() == ["Threads:", "1"])
            before, memory = usage(), resident(exporter.pid)
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
            # The connection of the last scrape before may not have been closed.
            wait(lambda: usage() <= before)
            # What the allocator keeps; a hundred bytes a scrape would be more.
            assert resident(exporter.pid) - memory < 2048 + SCRAPES // 10
        assert not list(Path(daemon.directory).glob("libchrony.*"))
