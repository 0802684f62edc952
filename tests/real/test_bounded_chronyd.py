"""The bounded clock on real chronyd: the reference's time is in every interval."""

from __future__ import annotations

import heapq
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from chronyc import wait
from chronyd import Chronyd
from provision import Parts

import pychrony
from pychrony import BoundedClock, BoundStatus

SECOND = 10**9
SHIFT = 0.05  # of the client with the option offset


class Delay:
    """Passes packets on to an NTP server: at once, and back with a delay [s].

    The two ways differ as much as they can, which no client can measure.
    """

    def __init__(self, port: int, back: float) -> None:
        self._server = ("127.0.0.1", port)
        self._back = back
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self.port: int = self._front.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Delay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        behind: dict[socket.socket, tuple[str, int]] = {}
        late: list[tuple[float, bytes, tuple[str, int]]] = []
        with self._front, ExitStack() as stack:
            while not self._stop.is_set():
                left = late[0][0] - time.monotonic() if late else 0.05
                ready, _, _ = select.select(
                    [self._front, *behind], [], [], max(0.0, min(left, 0.05))
                )
                for one in ready:
                    data, client = one.recvfrom(2048)
                    if one is self._front:
                        other = stack.enter_context(
                            socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                        )
                        other.sendto(data, self._server)
                        behind[other] = client
                    else:
                        when = time.monotonic() + self._back
                        heapq.heappush(late, (when, data, behind.pop(one)))
                        one.close()
                while late and late[0][0] <= time.monotonic():
                    _, data, client = heapq.heappop(late)
                    self._front.sendto(data, client)


def is_synchronized(daemon: Chronyd) -> bool:
    return pychrony.get_tracking(daemon.address).is_synchronized()


@pytest.fixture(scope="module")
def network(parts: Parts) -> Iterator[dict[str, Chronyd]]:
    """A reference, and clients of it: one direct, one behind a delay."""
    with ExitStack() as stack:

        def start(config: str) -> Chronyd:
            return stack.enter_context(Chronyd(parts, config, serve=True))

        reference = start("local stratum 1")
        delay = stack.enter_context(Delay(reference.ntp_port, 0.02))
        server = "server 127.0.0.1 port {} iburst minpoll {} maxpoll {} {}".format
        clients = {
            "offset": start(server(reference.ntp_port, -2, -2, "offset 0.05")),
            "delay": start(server(delay.port, -1, -1, "")),
        }
        for client in clients.values():
            wait(partial(is_synchronized, client))
        yield {"reference": reference, **clients}


@pytest.mark.parametrize(
    ("client", "shift"), [("offset", SHIFT), ("delay", 0.0)], ids=["offset", "delay"]
)
def test_reference_is_in_every_interval(
    network: dict[str, Chronyd], client: str, shift: float
) -> None:
    """The reference serves CLOCK_REALTIME of this machine, which nobody steers."""
    known = int(shift * SECOND)
    with BoundedClock(network[client].address, interval=0.1) as clock:
        for _ in range(100):
            for _ in range(1000):
                before = time.time_ns()
                earliest, latest, _status = clock.now()
                after = time.time_ns()
                assert earliest <= after + known
                assert latest >= before + known
            time.sleep(0.03)


def follow(network: dict[str, Chronyd]) -> str:
    port = network["reference"].ntp_port
    return f"server 127.0.0.1 port {port} iburst minpoll -2 maxpoll -2"


def test_stopped_and_continued(parts: Parts, network: dict[str, Chronyd]) -> None:
    with Chronyd(parts, follow(network)) as daemon:
        wait(partial(is_synchronized, daemon))
        with BoundedClock(daemon.address, interval=0.05, holdover=3.0) as clock:
            wait(lambda: clock.now().status is BoundStatus.SYNCHRONIZED)
            os.kill(daemon.pid, signal.SIGSTOP)
            wait(lambda: clock.now().status is BoundStatus.FREE_RUNNING)
            wait(lambda: _unbound(clock, "holdover is 3 s"))
            os.kill(daemon.pid, signal.SIGCONT)
            clock.wait_until_bounded(timeout=30)


def test_restart(parts: Parts, network: dict[str, Chronyd]) -> None:
    with Chronyd(parts, follow(network)) as daemon:
        wait(partial(is_synchronized, daemon))
        with BoundedClock(daemon.address, interval=0.05, holdover=0.0) as clock:
            clock.wait_until_bounded(timeout=30)
            daemon.restart()
            wait(lambda: _unbound(clock, ""))
            clock.wait_until_bounded(timeout=30)


def test_unsynchronised_and_local(parts: Parts, network: dict[str, Chronyd]) -> None:
    with BoundedClock(network["reference"].address) as clock:
        assert _unbound(clock, "directive local")
    with Chronyd(parts) as daemon, BoundedClock(daemon.address) as clock:
        assert _unbound(clock, "not synchronised")
        with pytest.raises(pychrony.ChronyTimeoutError, match="not synchronised"):
            clock.wait_until_bounded(timeout=0.1)


def _unbound(clock: BoundedClock, cause: str) -> bool:
    try:
        clock.now()
    except pychrony.ClockUnboundError as error:
        return cause in error.message
    return False
