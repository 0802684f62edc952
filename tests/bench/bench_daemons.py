"""Tens of thousands of fast daemons in one process, for bench.py.

Daemon NUMBER has the address 127.1.0.0 + NUMBER. Its tracking report says this
address, so that a client can tell whose answer it got, and it has NUMBER
sources, 10.0.0.0 and following. The process prints its port first; it ends
when its standard input does.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import socket
import sys
import threading
from collections import deque
from time import perf_counter
from typing import NamedTuple

from pychrony.testing import _reports, _wire, make_source, make_tracking

IP_PKTINFO = 8
"""Linux's; the socket module has it from Python 3.14 on."""
MOST_SOURCES = 500
RECEIVE_BUFFER = 1 << 22
BATCH = 64
"""So many requests may be read before replies that are due are sent."""


class Reply(NamedTuple):
    """What sendmsg() takes: the control data name the address that was asked."""

    buffers: list[bytes]
    control: list[tuple[int, int, bytes]]
    flags: int
    client: tuple[str, int]


class Daemons:
    """All of them. LOSS is the part of the requests that is ignored."""

    def __init__(self, loss: float, *, dead: bool) -> None:
        self._loss = loss
        self._dead = dead
        self._random = random.Random(1)
        self._tracking = _wire.success(_reports.TRACKING, make_tracking())
        self._count = _wire.success(_reports.N_SOURCES, _reports.Count(0))
        self._sources = [
            _wire.success(_reports.SOURCE_DATA, make_source(address=address))
            for address in (f"10.0.{i >> 8}.{i & 255}" for i in range(MOST_SOURCES))
        ]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._socket.bind(("0.0.0.0", 0))
        self.port: int = self._socket.getsockname()[1]

    def answer_at_once(self) -> None:
        while True:
            reply = self._receive()
            if reply:
                self._socket.sendmsg(*reply)

    def answer_after(self, delay: float) -> None:
        self._socket.setblocking(False)
        pending: deque[tuple[float, Reply]] = deque()
        while True:
            wait = max(0.0, pending[0][0] - perf_counter()) if pending else None
            # More exact than poll(), which knows whole milliseconds only.
            select.select([self._socket], [], [], wait)
            try:
                for _ in range(BATCH):
                    reply = self._receive()
                    if reply:
                        pending.append((perf_counter() + delay, reply))
            except BlockingIOError:
                pass
            while pending and pending[0][0] <= perf_counter():
                self._socket.sendmsg(*pending.popleft()[1])

    def _receive(self) -> Reply | None:
        request, control, _, client = self._socket.recvmsg(1024, 64)
        if self._loss and self._random.random() < self._loss:
            return None
        host = control[0][2][8:12]
        if self._dead and int.from_bytes(host[2:], "big") % 100 == 99:
            return None
        code = request[5]
        if code == _reports.TRACKING.code:
            start, end = self._tracking
            end = end[:8] + host + host + end[16:]
        elif code == _reports.SOURCE_DATA.code:
            start, end = self._sources[int.from_bytes(request[20:24], "big")]
        else:
            start, end = self._count
            end = end[:10] + host[2:]
        return Reply([start, request[8:12], end], control, 0, client)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0, help="round trip [s]")
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--dead", action="store_true", help="every 100th is silent")
    arguments = parser.parse_args()
    daemons = Daemons(arguments.loss, dead=arguments.dead)
    threading.Thread(target=_end_with_input).start()
    print(daemons.port, flush=True)
    if arguments.delay:
        daemons.answer_after(arguments.delay)
    else:
        daemons.answer_at_once()


if __name__ == "__main__":
    main()
