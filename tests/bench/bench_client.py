"""One contender of bench.py, which measures itself and prints JSON.

It runs with whichever pychrony is installed, 2.0.3 too, and without any as far
as it uses raw sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import math
import os
import re
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

TIMEOUT, RETRIES = 1.0, 2
"""For lists: pychrony's defaults, and chronyc's."""
SWEEP_TIMEOUT = 0.5
THREADS = 32
IN_FLIGHT = 256
BATCH = 20
"""So many local reports are timed as one."""
BATCHES = {"tracking": BATCH, "sources": 1}

Times = list[float]


def laps(times: Times, seconds: float, reports: int = 1) -> Iterator[None]:
    """Time what is done between two items, which is so many reports."""
    begin = perf_counter()
    end = begin + seconds
    while not times or begin < end:
        yield
        done = perf_counter()
        times.append((done - begin) / reports)
        begin = done


def check_sources(host: str, addresses: list[str]) -> None:
    if not host.startswith("127.1."):  # none of bench_daemons.py
        return
    high, low = map(int, host.split(".")[2:])
    if addresses != [f"10.0.{i >> 8}.{i & 255}" for i in range(high << 8 | low)]:
        raise SystemExit(f"{host}: wrong list of {len(addresses)} sources")


class Sweep:
    """The daemons of bench_daemons.py, and what they answered."""

    def __init__(self, hosts: int, port: int, retries: int, *, watch: bool) -> None:
        self.port = port
        self.retries = retries
        self.hosts = [f"127.1.{number >> 8}.{number & 255}" for number in range(hosts)]
        self.addresses = [f"{host}:{port}" for host in self.hosts]
        self.wrong = self.failed = self.descriptors = 0
        self._watch = watch
        self._answered = 0

    def count(self, address: object, result: Any) -> None:
        if isinstance(result, Exception):
            self.failed += 1
        else:
            self.answer(str(address), result.reference_id, result.reference_ip)

    def answer(self, address: str, reference_id: int, reference_ip: str) -> None:
        host = address.partition(":")[0]
        own_id = int.from_bytes(socket.inet_aton(host), "big")
        self.wrong += (reference_id, reference_ip) != (own_id, host)
        self._answered += 1
        # Costs time, so that only memory is measured together with it.
        if self._watch and self._answered % 64 == 0:
            self.descriptors = max(self.descriptors, len(os.listdir("/proc/self/fd")))


# Raw sockets


HEADER = struct.Struct("!BBxxHxxI8x")
N_SOURCES, SOURCE_DATA, TRACKING = 14, 15, 33
COUNT_REPLY = struct.Struct("!28xI")
SOURCE_REPLY = struct.Struct("!28x4s12xHxxhHHHHHI3I")
TRACKING_REPLY = struct.Struct("!28xI4s12xHxxHHqI9I")


def raw_request(
    code: int, reply: struct.Struct, sequence: int, index: int = 0
) -> bytes:
    start = HEADER.pack(6, 1, code, sequence) + index.to_bytes(4, "big")
    return start.ljust(reply.size, b"\0")


def raw_float(word: int) -> float:
    exponent, coefficient = word >> 25, word & 0x1FFFFFF
    if exponent >= 1 << 6:
        exponent -= 1 << 7
    if coefficient >= 1 << 24:
        coefficient -= 1 << 25
    return math.ldexp(coefficient, exponent - 25)


def raw_tracking_of(reply: bytes) -> tuple[Any, ...]:
    reference_id, address, *numbers = TRACKING_REPLY.unpack_from(reply)
    return (
        *(reference_id, socket.inet_ntoa(address), *numbers[:5]),
        *map(raw_float, numbers[5:]),
    )


def raw_source_of(reply: bytes) -> tuple[Any, ...]:
    address, *numbers = SOURCE_REPLY.unpack_from(reply)
    floats = map(raw_float, numbers[-3:])
    return (socket.inet_ntoa(address), *numbers[:-3], *floats)


def raw_replies(
    requests: list[tuple[bytes, tuple[str, int]]], timeout: float, retries: int
) -> Iterator[tuple[int, bytes]]:
    """Ask for all at once, and for the missing again; the index is the sequence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        # As a rule, twice what a socket has can be had.
        size = client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        missing = dict(enumerate(requests))
        for attempt in range(retries + 1):
            client.settimeout(timeout * 2**attempt)
            queue = deque(missing.values())
            for _ in range(min(IN_FLIGHT, len(queue))):
                client.sendto(*queue.popleft())
            while missing:
                try:
                    reply = client.recv(1024)
                except TimeoutError:
                    break
                number = int.from_bytes(reply[16:20], "big")
                if missing.pop(number, None):
                    yield number, reply
                if queue:
                    client.sendto(*queue.popleft())


def raw_tracking(host: str, port: int, seconds: float) -> Times:
    times: Times = []
    sequence = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((host, port))
        for _ in laps(times, seconds, BATCH):
            for _ in range(BATCH):
                sequence += 1
                request = raw_request(TRACKING, TRACKING_REPLY, sequence)
                client.send(request)
                reply = client.recv(1024)
                while reply[16:20] != request[8:12]:
                    reply = client.recv(1024)
                raw_tracking_of(reply)
    return times


def raw_sources(host: str, port: int, seconds: float) -> Times:
    times: Times = []
    sources: dict[int, tuple[Any, ...]] = {}
    for _ in laps(times, seconds):
        request = raw_request(N_SOURCES, COUNT_REPLY, 0), (host, port)
        ((_, reply),) = raw_replies([request], TIMEOUT, RETRIES)
        (count,) = COUNT_REPLY.unpack_from(reply)
        requests = [
            (raw_request(SOURCE_DATA, SOURCE_REPLY, number, number), (host, port))
            for number in range(count)
        ]
        sources = {
            number: raw_source_of(reply)
            for number, reply in raw_replies(requests, TIMEOUT, RETRIES)
        }
    check_sources(host, [sources[number][0] for number in sorted(sources)])
    return times


def raw_sweep(sweep: Sweep) -> None:
    requests = [
        (raw_request(TRACKING, TRACKING_REPLY, number), (host, sweep.port))
        for number, host in enumerate(sweep.hosts)
    ]
    sweep.failed = len(requests)
    for number, reply in raw_replies(requests, SWEEP_TIMEOUT, sweep.retries):
        reference_id, address, *_ = raw_tracking_of(reply)
        sweep.failed -= 1
        sweep.answer(sweep.addresses[number], reference_id, address)


def floor_tracking(host: str, port: int, seconds: float) -> Times:
    """Make the calls that no user of libchrony in ABI mode can spare."""
    from pychrony import ChronyConnection, TrackingStatus
    from pychrony._libchrony import ffi

    times: Times = []
    with ChronyConnection(f"{host}:{port}") as connection:
        connection.get_tracking()
        session: Any = connection._session
        lib, handle, name = session.lib, session._handle, b"tracking"
        functions = {
            lib.CHRONY_TYPE_UINTEGER: lib.chrony_get_field_uinteger,
            lib.CHRONY_TYPE_INTEGER: lib.chrony_get_field_integer,
            lib.CHRONY_TYPE_FLOAT: lib.chrony_get_field_float,
            lib.CHRONY_TYPE_TIMESPEC: lib.chrony_get_field_timespec,
            lib.CHRONY_TYPE_STRING: lib.chrony_get_field_string,
        }
        getters = [
            (
                ffi.string(lib.chrony_get_field_name(handle, index)).decode(),
                functions[lib.chrony_get_field_type(handle, index)],
                index,
            )
            for index in range(lib.chrony_get_record_number_fields(handle))
        ]
        for _ in laps(times, seconds, BATCH):
            for _ in range(BATCH):
                lib.chrony_request_record(handle, name, 0)
                lib.chrony_process_response(handle)
                lib.chrony_needs_response(handle)
                lib.chrony_get_record_number_fields(handle)
                record = object.__new__(TrackingStatus)
                values = {field: get(handle, index) for field, get, index in getters}
                object.__setattr__(record, "__dict__", values)
    return times


# pychrony


def blocking(what: str, host: str, port: int, seconds: float) -> Times:
    from pychrony import ChronyConnection

    times: Times = []
    found: Any = None
    with ChronyConnection(f"{host}:{port}") as connection:
        read = getattr(connection, f"get_{what}")
        for _ in laps(times, seconds, BATCHES[what]):
            for _ in range(BATCHES[what]):
                found = read()
    if what == "sources":
        check_sources(host, [source.address for source in found])
    return times


def blocking_sweep(sweep: Sweep) -> None:
    from pychrony import query_many

    for address, result in query_many(
        sweep.addresses, timeout=SWEEP_TIMEOUT, retries=sweep.retries
    ):
        sweep.count(address, result)


def awaited(what: str, host: str, port: int, seconds: float) -> Times:
    from pychrony import AsyncChronyConnection

    times: Times = []

    async def measure() -> Any:
        found: Any = None
        async with AsyncChronyConnection(f"{host}:{port}") as connection:
            read = getattr(connection, f"get_{what}")
            for _ in laps(times, seconds, BATCHES[what]):
                for _ in range(BATCHES[what]):
                    found = await read()
        return found

    found = asyncio.run(measure())
    if what == "sources":
        check_sources(host, [source.address for source in found])
    return times


def asyncio_sweep(sweep: Sweep) -> None:
    from pychrony import async_query_many

    async def measure() -> None:
        async for address, result in async_query_many(
            sweep.addresses, timeout=SWEEP_TIMEOUT, retries=sweep.retries
        ):
            sweep.count(address, result)

    asyncio.run(measure())


def threads_sweep(sweep: Sweep) -> None:
    from pychrony import ChronyConnection, ChronyError

    def ask(address: str) -> object:
        try:
            with ChronyConnection(address) as connection:
                return connection.get_tracking()
        except ChronyError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        for address, result in zip(
            sweep.addresses, pool.map(ask, sweep.addresses), strict=True
        ):
            sweep.count(address, result)


REPORTS: dict[str, Callable[[str, int, float], Times]] = {
    "floor-tracking": floor_tracking,
    "raw-tracking": raw_tracking,
    "raw-sources": raw_sources,
    "blocking-tracking": partial(blocking, "tracking"),
    "blocking-sources": partial(blocking, "sources"),
    "asyncio-tracking": partial(awaited, "tracking"),
    "asyncio-sources": partial(awaited, "sources"),
}
SWEEPS: dict[str, Callable[[Sweep], None]] = {
    "raw": raw_sweep,
    "blocking": blocking_sweep,
    "asyncio": asyncio_sweep,
    "threads": threads_sweep,
}


def most_memory() -> int:
    """Return the most that this program has had [kB].

    Unlike ru_maxrss, it has nothing of the process that started this one.
    """
    with open("/proc/self/status") as status:
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read())
    assert found
    return int(found[1])


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    way, what, port = arguments.way, arguments.what, arguments.port
    if what in ("tracking", "sources"):
        report = REPORTS[f"{way}-{what}"]
        return {"times": report(arguments.target, port, arguments.seconds)}
    watch = what == "memory"
    if watch and way != "raw":
        importlib.import_module("pychrony")  # what it needs counts as the start
    sweep = Sweep(int(arguments.target), port, arguments.retries, watch=watch)
    before = most_memory()
    begin = perf_counter()
    SWEEPS[way](sweep)
    return {
        "times": [perf_counter() - begin],
        "wrong": sweep.wrong,
        "failed": sweep.failed,
        "memory": most_memory(),
        "growth": most_memory() - before,
        "descriptors": sweep.descriptors,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=(*SWEEPS, "floor"))
    parser.add_argument("what", choices=("tracking", "sources", "sweep", "memory"))
    parser.add_argument("target", help="a host, or for sweeps their number")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--retries", type=int, default=1)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
