"""Several processes that serve one port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from chronyc import wait
from exporter import EXPORTER, Exporter, alive, children, everything
from helpers import run_python

from pychrony.prometheus import _workers


def test_killed_worker_is_started_again() -> None:
    with everything() as daemon:
        flags = ("--address", daemon.address, "--workers", "2")
        with Exporter(*flags) as exporter:
            wait(lambda: len(children(exporter.pid)) == 2)
            before = children(exporter.pid)
            gone = min(before)
            os.kill(gone, signal.SIGKILL)
            wait(lambda: len(children(exporter.pid) - {gone}) == 2)
            restarts = "pychrony_exporter_worker_restarts_total"
            # Connections that the dead one had not accepted are not lost.
            pages = [exporter.samples("/metrics") for _ in range(8)]
            assert [page["chrony_up"] for page in pages] == [1] * 8
            found = pages[-1]
            assert found[restarts] == 1
            assert found["pychrony_exporter_workers"] == 2
            workers = children(exporter.pid)
            status, said = exporter.stop()
            assert status == 0
            assert "ended with status -9: restarting it" in said
            assert not any(map(alive, workers))


def test_workers_end_with_the_one_that_started_them() -> None:
    with Exporter("--workers", "2") as exporter:
        assert exporter.get("/-/ready")[0] == 200
        workers = children(exporter.pid)
        os.kill(exporter.pid, signal.SIGKILL)
        wait(lambda: not any(map(alive, workers)))


def test_children_of_others_are_ignored() -> None:
    """A container's first process gets the orphans of all others."""
    program = ("sh", "-c", 'sleep 60 & exec "$@"', "sh", *EXPORTER)
    with Exporter("--workers", "2", program=program) as exporter:
        wait(lambda: len(children(exporter.pid)) == 3)
        os.kill(min(children(exporter.pid)), signal.SIGKILL)
        wait(lambda: len(children(exporter.pid)) == 2)
        assert exporter.get("/-/ready")[0] == 200
        assert exporter.stop() == (0, "")


FAILING = """
import sys
from pychrony.prometheus import _cli
async def fail(*_): raise ZeroDivisionError
_cli._serve = fail
sys.exit(_cli.main(sys.argv[1:]))
"""


def test_worker_that_fails_at_once_is_started_again_slowly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAILING, "--listen", "127.0.0.1:0", "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
    ) as exporter:
        assert exporter.stderr is not None
        for line in exporter.stderr:
            if "restarting it" in line:
                break
        exporter.terminate()
        rest = exporter.stderr.read()
    assert exporter.returncode == 0
    # It waits a second each time.
    assert rest.count("restarting it") < 10


def test_place_that_is_no_host_name() -> None:
    result = run_python(*EXPORTER[1:], "--listen", f"{'a' * 64}:9123")
    assert result.returncode == 1
    assert result.stderr.startswith(f"cannot listen on {'a' * 64}:9123: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "", "::1"])
def test_families_of_a_listening_socket(host: str) -> None:
    with _workers.listen((host, 0)) as listening:
        port = listening.getsockname()[1]
        for family, address in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "::1"),
        ):
            with socket.socket(family) as client:
                reached = client.connect_ex((address, port)) == 0
            assert reached is (not host or address == host)
