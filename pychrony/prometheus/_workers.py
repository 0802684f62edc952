"""Listening sockets, and the processes that serve them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Host, empty for all addresses of this machine, and port, 0 for a free one.
    Place = tuple[str, int]

_log = logging.getLogger("pychrony.prometheus")

_STOP = {signal.SIGTERM, signal.SIGINT}
SIGNALS = {*_STOP, signal.SIGCHLD}

# A worker that ends early is restarted after this time [s].
_PAUSE = 1.0

# The first descriptor that systemd passes (sd_listen_fds(3)).
_FIRST = 3


def listen(place: Place) -> socket.socket:
    """Return a listening socket, for all workers: one that is idle takes the next.

    Raises:
        OSError: it cannot listen there.
    """
    host, port = place
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except UnicodeError as error:
        raise OSError(f"{host!r} is not a host name") from error
    # The wildcard of IPv6 includes IPv4.
    family, _, _, _, address = found[0] if host else max(found, key=lambda one: one[0])
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            wildcard = address[0] == "::"
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not wildcard)
        bound.bind((*address[:1], port, *address[2:]))
        bound.listen(1024)
    except BaseException:
        bound.close()
        raise
    return bound


def from_systemd() -> list[socket.socket]:
    """Return the sockets that systemd passed.

    Raises:
        ValueError: it passed none, or one on which a server cannot listen.
    """
    passed = os.environ.pop("LISTEN_FDS", "")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or passed in ("", "0"):
        raise ValueError("--web.systemd-socket: systemd passed no socket")
    sockets: list[socket.socket] = []
    for descriptor in range(_FIRST, _FIRST + int(passed)):
        try:
            sockets.append(socket.socket(fileno=descriptor))
            kind = sockets[-1].type
        except OSError:
            kind = None
        if kind is not socket.SOCK_STREAM:
            raise ValueError(
                f"--web.systemd-socket: descriptor {descriptor} of systemd is no "
                "stream socket, see ListenStream= in systemd.socket(5)"
            )
    return sockets


def supervise(
    number: int, work: Callable[[int, int], None], restarted: Callable[[int], object]
) -> None:
    """Run workers until SIGTERM or SIGINT, and restart those that end.

    The signals in ``SIGNALS`` have to be blocked.

    Args:
        number: how many.
        work: runs a worker until SIGTERM. It gets the number of the worker, and a
            descriptor that becomes readable when this process ends. It must unblock
            the signals.
        restarted: called with the number of a worker that has ended.
    """
    workers = _Workers(work)
    try:
        for worker in range(number):
            workers.start(worker)
        while signal.sigwait(SIGNALS) == signal.SIGCHLD:
            for worker, early in workers.ended():
                restarted(worker)
                if early and signal.sigtimedwait(_STOP, _PAUSE):
                    return
                workers.start(worker)
    finally:
        workers.stop()


class _Workers:
    """The worker processes."""

    def __init__(self, work: Callable[[int, int], None]) -> None:
        self._work = work
        self._here, self._there = os.pipe()
        # Its number and its start, by process ID.
        self._running: dict[int, tuple[int, float]] = {}

    def start(self, worker: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._begin(worker)
        self._running[pid] = worker, time.monotonic()

    def _begin(self, worker: int) -> None:
        status = 1
        try:
            os.close(self._there)
            self._work(worker, self._here)
            status = 0
        except BaseException:
            _log.exception("worker %s", worker)
        finally:
            os._exit(status)

    def ended(self) -> Iterator[tuple[int, bool]]:
        """Yield the number of each worker that ended, and whether it ended early."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid not in self._running:
                # As the first process of a container, this gets the orphans, too.
                continue
            worker, began = self._running.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            _log.warning("worker %s ended with status %s: restarting it", worker, code)
            yield worker, time.monotonic() < began + _PAUSE

    def stop(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        for pid in self._running:
            os.waitpid(pid, 0)
        os.close(self._here)
        os.close(self._there)
