"""Replies in volume, right and wrong, through libchrony and pychrony.

    python tests/tools/fuzz.py --replies 1000000 --seed 1

Reads all ten reports, as dataclasses and generically. Nothing waits: the loop
plays chronyd itself, between a request and its response.
The same seed makes the same replies. Anything but a record or a ChronyError,
a hang, a crash, a descriptor left open, or memory that grows ends it with an
error.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

if __name__ == "__main__":  # in pytest, conftest.py does it
    import provision

    provision.provide()

import pychrony
from pychrony import (
    Activity,
    AuthData,
    NTPData,
    RTCData,
    SelectData,
    ServerStats,
    Smoothing,
    Source,
    SourceStats,
    TrackingStatus,
    _address,
    _queries,
)
from pychrony._base import timeouts_of
from pychrony._queries import read_generic, read_list, read_optional, read_single
from pychrony._session import Session
from pychrony.testing import _reports

# The replies to each request: their codes, and the bytes after the header.
LAYOUTS = {
    report.code: [
        (code, sum(kind.size for kind, _ in layout))
        for code, layout in report.layouts.items()
    ]
    for report in _reports.REPORTS
}
REPLIES = {reply for layouts in LAYOUTS.values() for reply, _ in layouts}

# The place of an address's family; 1 is IPv4. A source without an address is a
# reference clock, for which libchrony asks nothing more.
FAMILY = {
    _reports.SOURCE_DATA.code: 17,
    _reports.SOURCESTATS.code: 21,
    _reports.SELECT_DATA.code: 21,
}

COUNTS = (0, *(1, 2, 3) * 5, 4, 5, 65536, 65537, 10**8, 1 << 31, (1 << 32) - 2)
PATCHES = (
    *(bytes(n) for n in (1, 2, 4, 12)),
    *(b"\xff" * n for n in (1, 2, 4, 12, 20)),
    *(b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\1", b"\0\2", b"\0\3", b"\0\4"),
    (10**9).to_bytes(4, "big"),
)
STATUSES = (1, 2, 3, 4, 6, 13, 18, 19, 99, 0xFFFF)

HEADER = struct.Struct("!BBxxHHH6x4s8x")


class Liar:
    """Makes replies: one in eight is wrong, most others are odd in content."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.layout = 0  # the code of the last reply
        self._wrong = (
            self._refusal,
            self._other_code,
            self._header_patched,
            self._cut,
            self._grown,
            self._noise,
            self._nothing,
        )

    def pick(self, choices: Any) -> Any:
        return choices[int(self.random.random() * len(choices))]

    def reply(self, request: bytes) -> bytes | None:
        code = int.from_bytes(request[4:6], "big")
        self.layout, size = self.pick(LAYOUTS[code])
        right = HEADER.pack(6, 2, code, self.layout, 0, request[8:12])
        right += self._body(code, size)
        if self.random.random() < 0.875:
            return right
        wrong: bytes | None = self.pick(self._wrong)(right)
        return wrong

    def _body(self, code: int, size: int) -> bytes:
        if code == _reports.N_SOURCES.code:
            return int(self.pick(COUNTS)).to_bytes(4, "big")
        random = self.random
        dice = random.random()
        if dice < 0.15:
            return random.randbytes(size)
        body = bytearray(size)
        if code in FAMILY:
            body[:8] = random.randbytes(8)
            body[FAMILY[code]] = 1
        for _ in range(int(dice * 5)):
            patch = self.pick(PATCHES) if dice < 0.6 else random.randbytes(2)
            start = int(random.random() * size)
            body[start : start + len(patch)] = patch
        return bytes(body[:size])

    def _refusal(self, right: bytes) -> bytes:
        return right[:8] + int(self.pick(STATUSES)).to_bytes(2, "big") + right[10:28]

    def _other_code(self, right: bytes) -> bytes:
        return right[:6] + bytes([0, self.pick(range(30))]) + right[8:]

    def _header_patched(self, right: bytes) -> bytes:
        place = self.pick(range(28))
        return right[:place] + self.random.randbytes(1) + right[place + 1 :]

    def _cut(self, right: bytes) -> bytes:
        return right[: self.pick(range(len(right)))]

    def _grown(self, right: bytes) -> bytes:
        return right + self.random.randbytes(self.pick(range(1500)))

    def _noise(self, right: bytes) -> bytes:
        return self.random.randbytes(self.pick(range(1200)))

    def _nothing(self, right: bytes) -> None:
        return None


Reader: TypeAlias = Callable[[Session], Generator[Any, bool, Any]]


def readers() -> dict[str, Reader]:
    """Return all ways to read a report."""
    ways: list[tuple[Callable[[Session, Any], Any], list[Any]]] = [
        (read_single, [TrackingStatus, Activity, ServerStats]),
        (read_optional, [RTCData, Smoothing]),
        (read_list, [Source, SourceStats, SelectData, AuthData, NTPData]),
        (read_generic, pychrony.reports()),
    ]

    def reader(way: Callable[[Session, Any], Any], what: Any) -> Reader:
        return lambda session: way(session, what)

    return {
        getattr(what, "__name__", f"report {what}"): reader(way, what)
        for way, whats in ways
        for what in whats
    }


def one_at_a_time(session: Session, count: int, round_trip: float) -> int:
    """How many requests are in flight: the process answers itself."""
    return 1


class Loop:
    """One session after the other, and the chronyd that they talk to."""

    def __init__(self, seed: int) -> None:
        self.liar = Liar(Random(seed))
        self.replies = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.layouts_read: set[int] = set()
        self._layouts: set[int] = set()  # of this report
        self._last: tuple[bytes, Any] = b"", None
        self._sent: bytes | None = None
        self._session: Session | None = None
        self._readers = list(readers().items())
        self._daemon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._daemon.setblocking(False)
        self._daemon.bind(("127.0.0.1", 0))
        port = self._daemon.getsockname()[1]
        self._target = _address.parse(f"127.0.0.1:{port}")

    def close(self) -> None:
        self._drop()
        self._daemon.close()

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def read(self) -> None:
        """Read one report."""
        if self._session is None:
            self._session = Session(self._target, timeouts_of(600.0, 0))
        name, reader = self.liar.pick(self._readers)
        generator = reader(self._session)
        self._layouts.clear()
        ready: Any = None
        try:
            while True:
                generator.send(ready)
                ready = self._answer()
        except StopIteration as end:
            repr(end.value)
            self.layouts_read |= self._layouts
            self.outcomes[name, "nothing" if end.value is None else "read"] += 1
        except pychrony.ChronyError as error:
            self.outcomes[name, type(error).__name__] += 1
            self._drop()
        except BaseException:
            print(f"after {self.replies} replies, {name}: to {self._last[0].hex()}")
            print(f"the reply was {self._sent and self._sent.hex()}")
            raise

    def _answer(self) -> bool:
        """Answer as chronyd; return False where it has fallen silent."""
        # Nothing new where libchrony ignored the last reply: it still waits.
        with suppress(BlockingIOError):
            self._last = self._daemon.recvfrom(2048)
        request, peer = self._last
        self.replies += 1
        self._sent = self.liar.reply(request)
        self._layouts.add(self.liar.layout)
        if self._sent is None:
            return False
        self._daemon.sendto(self._sent, peer)
        return True


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def memory() -> int:
    """Return what this process has in memory [MiB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--growth", type=int, default=16, help="most MiB of it")
    parser.add_argument("--hang", type=int, default=60, help="seconds without news")
    options = parser.parse_args()

    _queries._requests_in_flight = one_at_a_time
    faulthandler.enable()
    before = descriptors()
    loop = Loop(options.seed)
    start = time.monotonic()
    warm = 0
    step = max(options.replies // 10, 1)
    for number in range(10):
        faulthandler.dump_traceback_later(options.hang, exit=True)
        while loop.replies < (number + 1) * step:
            loop.read()
        rate = loop.replies / (time.monotonic() - start)
        print(
            f"{loop.replies:>9} replies, {rate:7.0f}/s, {memory()} MiB, "
            f"{descriptors()} descriptors",
            flush=True,
        )
        warm = warm or memory()
    faulthandler.cancel_dump_traceback_later()
    loop.close()

    for (name, outcome), times in sorted(loop.outcomes.items()):
        print(f"{name:20} {outcome:24} {times:8}")
    left, growth = descriptors() - before, memory() - warm
    unread = REPLIES - loop.layouts_read
    print(f"{left} descriptors left, {growth} MiB grown, layouts unread: {unread or 0}")
    return int(left > 0 or growth > options.growth or bool(unread))


if __name__ == "__main__":
    sys.exit(main())
