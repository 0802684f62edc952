"""Probes of a fleet with dead targets, at a fixed rate, of one or more trees.

``bench_probes.py [--rate 333] [--seconds 60] [--workers N] [--rounds 1] [TREE ...]``,
with the same PYTHONPATH as ``bench_exporter.py``. There are 500 daemons with four
sources each, and every tenth is silent. Probes begin at
fixed times, whether those before have ended or not; the time of each counts from when
it should have begun. Trees are measured one after the other, here first, and again in
each round. The CPU time of the client and of the daemons is printed, too, as they run
on the same machine.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import socket
import sys
import threading
from collections import Counter
from math import inf
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import bench_daemons
import provision
from bench_exporter import Exporter, cpu

from pychrony.testing import _reports, _wire, make_source_stats

HERE = Path(__file__).parents[2]
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


def busy() -> float:
    """Return the CPU time that all processes together have used."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


class Probe(NamedTuple):
    """A probe that is not finished; asyncio would take more CPU than the exporter."""

    when: float
    kind: str
    host: str
    socket: socket.socket
    page: bytearray


def load(port: int, fleet: int, rate: float, seconds: float) -> str:
    times: dict[str, list[float]] = {"live": [], "dead": [], "begun late": []}
    counts: Counter[str] = Counter()
    probes: dict[int, Probe] = {}
    replies = select.epoll()
    begin = monotonic() + 0.1
    number, last = 0, int(rate * seconds)
    # A collection would take tens of milliseconds here, which would count there.
    gc.disable()
    while number < last or probes:
        due = begin + number / rate if number < last else inf
        for fd, _ in replies.poll(max(0.0, min(due - monotonic(), 1.0))):
            if data := probes[fd].socket.recv(65536):
                probes[fd].page.extend(data)
                continue
            probe = probes.pop(fd)
            times[probe.kind].append(monotonic() - probe.when)
            probe.socket.close()
            check(probe, counts)
        if monotonic() >= due:
            times["begun late"].append(monotonic() - due)
            probe = begin_probe(number, port, fleet, due)
            probes[probe.socket.fileno()] = probe
            replies.register(probe.socket, select.EPOLLIN)
            number += 1
        for fd, probe in list(probes.items())[:1]:  # the oldest
            if monotonic() > probe.when + 10:
                counts[f"{probe.kind} timeout"] += 1
                probes.pop(fd).socket.close()
    gc.enable()
    wrong = +counts or "0 wrong"
    return "; ".join(
        [*(f"{name} {shown(each)}" for name, each in times.items()), f"{wrong}"]
    )


def begin_probe(number: int, port: int, fleet: int, when: float) -> Probe:
    index = number * 7 % TARGETS
    host = f"127.1.{index >> 8}.{index & 255}"
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(
        f"GET /probe?target={host}:{fleet} HTTP/1.1\r\nHost: x\r\n"
        "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n".encode()
    )
    kind = "dead" if (index & 255) % 10 == 9 else "live"
    return Probe(when, kind, host, client, bytearray())


def check(probe: Probe, counts: Counter[str]) -> None:
    page = probe.page
    if b" 200 OK" not in page[:20]:
        counts[f"status {page[9:12].decode() or 'none'}"] += 1
    elif probe.kind == "dead":
        counts["dead but up"] += b"chrony_up 0.0" not in page
    elif b"chrony_up 0.0" in page:
        counts["live but down"] += 1
    else:
        right = f'tracking_address="{probe.host}"'.encode() in page
        counts["other's"] += not right
        counts["incomplete"] += page.count(b"sourcestats_samples{") != SOURCES


def shown(values: list[float]) -> str:
    values.sort()
    if not values:
        return "none"
    parts = (values[int(part * (len(values) - 1))] * 1e3 for part in (0.5, 0.95, 0.99))
    return "p50 {:.1f} p95 {:.1f} p99 {:.1f} ms".format(*parts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=333.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("trees", nargs="*")
    arguments = parser.parse_args()
    provision.provide()
    reading, writing = os.pipe()
    ports, port = os.pipe()
    daemons = os.fork()
    if daemons == 0:
        os.close(writing)
        fleet = Fleet()
        os.write(port, str(fleet.port).encode())
        threading.Thread(
            target=lambda: (os.read(reading, 1), os._exit(0)), daemon=True
        ).start()
        fleet.answer_at_once()
    fleet_port = int(os.read(ports, 16))
    for tree in [str(HERE), *arguments.trees] * arguments.rounds:
        print(f"{Path(tree).name}: {measured(tree, arguments, daemons, fleet_port)}")
        sys.stdout.flush()
    os.close(writing)
    os.waitpid(daemons, 0)


def measured(tree: str, arguments: argparse.Namespace, daemons: int, fleet: int) -> str:
    """Return the times of an exporter of this tree, and who used how much CPU."""
    workers, rate = arguments.workers, arguments.rate
    options = ["--workers", str(workers)] if workers > 1 else []
    with Exporter(tree, "--allow", "127.1.0.0/16:*", *options) as exporter:

        def used() -> list[float]:
            return [*exporter.cpu(), cpu(os.getpid()), cpu(daemons), busy()]

        # Each worker has seen each target be silent twice, as after a minute.
        load(exporter.port, fleet, rate, 3 * workers * TARGETS / rate)
        before, begin = used(), monotonic()
        text = load(exporter.port, fleet, rate, arguments.seconds)
        took = monotonic() - begin
        shares = [(now - was) / took for now, was in zip(used(), before)]
        *serving, client, fleets, everybody = shares
        others = everybody - sum(shares[:-1])
        probe = sum(serving) * took / int(rate * arguments.seconds)
        return (
            f"{text}; CPU {' + '.join(f'{one:.0%}' for one in serving)}, "
            f"{probe * 1e3:.2f} ms a probe, client {client:.0%}, daemons {fleets:.0%}, "
            f"all others {others:.0%}; RSS {exporter.resident()} KiB"
        )


if __name__ == "__main__":
    main()
