"""Probes of a fleet with dead targets, at a fixed rate, of one or more trees.

``bench_probes.py [--rate 333] [--seconds 60] [--workers N] [TREE ...]``:
500 daemons with four sources each, every tenth of which is silent. Probes begin at
fixed times, whether those before have ended or not; the time of each counts from when
it should have begun. Trees are measured one after the other, here first.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from time import clock_gettime, monotonic
from typing import Any

HERE = Path(__file__).parents[2]
sys.path[:0] = [str(HERE / "tests"), str(HERE / "tests" / "tools")]

import bench_daemons  # noqa: E402 - needs the path
import provision  # noqa: E402 - needs the path

from pychrony.testing import _reports, _wire, make_source_stats  # noqa: E402 - needs the path

TARGETS = 500
SOURCES = 4


class Fleet(bench_daemons.Daemons):
    """Daemons with four sources each; every tenth is silent."""

    def __init__(self) -> None:
        super().__init__(0.0, dead=False)
        self._count = _wire.success(_reports.N_SOURCES, _reports.Count(SOURCES))
        self._stats = [
            _wire.success(
                _reports.SOURCESTATS, make_source_stats(address=f"10.0.0.{one}")
            )
            for one in range(SOURCES)
        ]

    def _receive(self) -> bench_daemons.Reply | None:
        request, control, _, client = self._socket.recvmsg(1024, 64)
        host = control[0][2][8:12]
        if host[3] % 10 == 9:
            return None
        code = request[5]
        start, end = self._count
        if code == _reports.TRACKING.code:
            start, end = self._tracking
            end = end[:8] + host + host + end[16:]
        elif code == _reports.SOURCE_DATA.code:
            start, end = self._sources[request[23]]
        elif code == _reports.SOURCESTATS.code:
            start, end = self._stats[request[23]]
        return bench_daemons.Reply([start, request[8:12], end], control, 0, client)


def cpu(pids: list[int]) -> float:
    """Return the CPU time of processes, see clock_getcpuclockid(3)."""
    return sum(clock_gettime((~pid << 3) | 2) for pid in pids)


def resident(pids: list[int]) -> int:
    """Return the memory of processes in KiB; pages that they share count for each."""
    texts = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in texts)


class Client(asyncio.Protocol):
    """One probe; streams of asyncio would take more processor than the exporter."""

    def __init__(self, target: str) -> None:
        self._request = (
            f"GET /probe?target={target} HTTP/1.1\r\nHost: x\r\n"
            "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
        ).encode()
        self.page = b""
        self.end = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.page += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.end.done():
            self.end.set_result(monotonic())


async def load(port: int, fleet: int, rate: float, seconds: float) -> str:
    loop = asyncio.get_running_loop()
    times: dict[str, list[float]] = {"live": [], "dead": [], "begun late": []}
    counts: Counter[str] = Counter()
    begin = monotonic() + 0.1

    async def one(number: int) -> None:
        when = begin + number / rate
        times["begun late"].append(monotonic() - when)
        index = number * 7 % TARGETS
        host = f"127.1.{index >> 8}.{index & 255}"
        kind = "dead" if (index & 255) % 10 == 9 else "live"
        client = Client(f"{host}:{fleet}")
        try:
            await loop.create_connection(lambda: client, "127.0.0.1", port)
            times[kind].append(await asyncio.wait_for(client.end, 10) - when)
        except (OSError, asyncio.TimeoutError):
            counts[f"{kind} timeout"] += 1
            return
        page = client.page
        if b" 200 OK" not in page[:20]:
            counts[f"status {page[9:12].decode() or 'none'}"] += 1
        elif kind == "dead":
            counts["dead but up"] += b"chrony_up 0.0" not in page
        elif b"chrony_up 0.0" in page:
            counts["live but down"] += 1
        else:
            right = f'tracking_address="{host}"'.encode() in page
            counts["other's"] += not right
            counts["incomplete"] += page.count(b"sourcestats_samples{") != SOURCES

    tasks: set[asyncio.Task[None]] = set()
    # A collection would take tens of milliseconds here, which would count there.
    gc.disable()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(begin + number / rate - monotonic())
        task = asyncio.create_task(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    gc.enable()
    wrong = +counts or "0 wrong"
    return "; ".join(
        [*(f"{name} {shown(each)}" for name, each in times.items()), f"{wrong}"]
    )


def shown(values: list[float]) -> str:
    values.sort()
    parts = (values[int(part * (len(values) - 1))] * 1e3 for part in (0.5, 0.95, 0.99))
    return "p50 {:.1f} p95 {:.1f} p99 {:.1f} ms".format(*parts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=333.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("trees", nargs="*")
    arguments = parser.parse_args()
    provision.provide()
    reading, writing = os.pipe()
    daemons = os.fork()
    if daemons == 0:
        os.close(writing)
        fleet = Fleet()
        print(fleet.port, file=sys.stderr, flush=True)
        Path(f"/tmp/fleet-{os.getpid()}").write_text(str(fleet.port))
        threading.Thread(
            target=lambda: (os.read(reading, 1), os._exit(0)), daemon=True
        ).start()
        fleet.answer_at_once()
    path = Path(f"/tmp/fleet-{daemons}")
    while not (path.exists() and path.read_text()):
        pass
    port = int(path.read_text())
    path.unlink()
    for tree in [str(HERE), *arguments.trees]:
        here = tree == str(HERE)
        workers = ["--workers", str(arguments.workers)] if here else []
        reports = [
            word
            for one in ("tracking", "sources", "sourcestats")
            for word in ("--report", one)
        ]
        exporter = subprocess.Popen(
            [
                *(sys.executable, "-m", "pychrony.prometheus", "--allow"),
                *("127.1.0.0/16:*", "--listen", "127.0.0.1:0", *workers, *reports),
            ],
            env={**os.environ, "PYTHONPATH": tree},
            cwd=tree,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert exporter.stderr
            served = int(exporter.stderr.readline().rstrip("/\n").rpartition(":")[2])
            children = f"/proc/{exporter.pid}/task/{exporter.pid}/children"
            # Each target was silent twice, as after the first half a minute.
            asyncio.run(
                load(served, port, arguments.rate, 2 * TARGETS / arguments.rate)
            )
            pids = [exporter.pid, *map(int, Path(children).read_text().split())]
            before, begin = cpu(pids), monotonic()
            text = asyncio.run(load(served, port, arguments.rate, arguments.seconds))
            used, took = cpu(pids) - before, monotonic() - begin
            probes = int(arguments.rate * arguments.seconds)
            print(
                f"{Path(tree).name}: {text}; CPU {used / took:.0%}, "
                f"{used / probes * 1e3:.2f} ms a probe; RSS {resident(pids)} KiB",
                flush=True,
            )
        finally:
            exporter.terminate()
            exporter.wait()
    os.close(writing)
    os.waitpid(daemons, 0)


if __name__ == "__main__":
    main()
