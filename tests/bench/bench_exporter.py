"""Scrapes of the exporter: of this tree, and of others beside it in the same run.

``PYTHONPATH=tests:tests/tools python tests/bench/bench_exporter.py [TREE ...]``: each
TREE is a checkout, like that of an older commit. The chronyd is the real one, with ten
sources. Prints for each number of clients the scrapes a second, the median time of one,
and the CPU time of the exporter for each.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import provision
from chronyd import Chronyd

HERE = Path(__file__).parents[2]
SECONDS = float(os.environ.get("SECONDS", "2"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
REPORTS = os.environ.get("REPORTS", "tracking,sources,sourcestats").split(",")


def cpu(pid: int) -> float:
    """Return the CPU time of a process, see clock_getcpuclockid(3)."""
    # /proc has ticks of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


class Exporter:
    """A running exporter of a tree.

    Attributes:
        start: how long it took until it listened [s].
    """

    def __init__(self, tree: str, *arguments: str) -> None:
        reports = [word for one in REPORTS for word in ("--report", one)]
        begin = time.monotonic()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pychrony.prometheus"),
                *("--listen", "127.0.0.1:0", *arguments, *reports),
            ],
            env={**os.environ, "PYTHONPATH": tree},
            cwd=tree,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr
        line = self._process.stderr.readline()
        self.start = time.monotonic() - begin
        self.port = int(line.rstrip("/\n").rpartition(":")[2])

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def _pids(self) -> list[int]:
        """Return those that serve: its workers, or itself."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return list(map(int, children)) or [pid]

    def cpu(self) -> list[float]:
        return list(map(cpu, self._pids()))

    def resident(self) -> int:
        """Return its memory in KiB; pages that workers share count for each."""
        texts = (Path(f"/proc/{pid}/status").read_text() for pid in self._pids())
        return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in texts)

    def scrape(self) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(
                b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n"
                b"X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
            )
            received = []
            while data := client.recv(65536):
                received.append(data)
        page = b"".join(received)
        assert b" 200 OK" in page[:20], page[:200]
        return page


def load(exporter: Exporter, clients: int) -> tuple[float, float, float]:
    """Return scrapes a second, the median time of one, and CPU time of one [s]."""
    times: list[float] = []
    end = time.monotonic() + SECONDS

    def run() -> None:
        while (begin := time.monotonic()) < end:
            exporter.scrape()
            times.append(time.monotonic() - begin)

    before, begin = sum(exporter.cpu()), time.monotonic()
    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begin
    used = sum(exporter.cpu()) - before
    return len(times) / took, median(times), used / len(times)


def main() -> None:
    trees = {"here": str(HERE), **{Path(one).name: one for one in sys.argv[1:]}}
    sources = "".join(
        f"server 127.0.0.{20 + number} port 1 minpoll 10\n" for number in range(10)
    )
    with ExitStack() as stack:
        daemon = stack.enter_context(
            Chronyd(provision.provide(), f"local stratum 1\n{sources}")
        )
        exporters = {
            name: stack.enter_context(Exporter(tree, "--address", daemon.address))
            for name, tree in trees.items()
        }
        for name, exporter in exporters.items():
            exporter.scrape()
            print(f"{name}: start {exporter.start * 1e3:.0f} ms")
        for clients in (1, 8, 64):
            found: dict[str, list[tuple[float, float, float]]] = {}
            for _ in range(ROUNDS):
                for name, exporter in exporters.items():
                    found.setdefault(name, []).append(load(exporter, clients))
            for name, rows in found.items():
                rate, wait, used = (median(column) for column in zip(*rows))
                print(
                    f"{clients:3} clients  {name:12} {rate:6.0f}/s  "
                    f"{wait * 1e3:7.2f} ms  CPU {used * 1e3:6.2f} ms  "
                    f"RSS {exporters[name].resident()} KiB"
                )


if __name__ == "__main__":
    main()
