"""What several test files use."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import pychrony
from pychrony.testing import make_source

QUICK: Any = {"timeout": 0.1, "retries": 1}

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop
}
try:
    import uvloop
except ImportError:  # not for every Python
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop
    # The first one opens a pipe for the whole process.
    uvloop.new_event_loop().close()


# As root of a user, mount and network namespace of its own; a shell script follows.
UNSHARE = ("unshare", "--map-root-user", "--mount", "--net", "sh", "-ec")


def _namespaces() -> bool:
    return subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


in_namespaces = pytest.mark.skipif(not _namespaces(), reason="no user namespaces here")


@contextmanager
def short_directory() -> Iterator[str]:
    """A directory whose path is short enough for a socket in it."""
    directory = Path(f"/tmp/c{os.getpid()}-{threading.get_ident() % 9999}")
    directory.mkdir(mode=0o700)
    try:
        yield str(directory)
    finally:
        assert not list(directory.iterdir()), "sockets were left"
        directory.rmdir()


@contextmanager
def on_alarm(
    handler: Callable[[int, FrameType | None], Any], first: float, every: float = 0.0
) -> Iterator[None]:
    """Run ``handler`` as signal handler, soon and perhaps again and again."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, first, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def hung_daemon() -> Iterator[str]:
    """The path of a Unix socket that nobody reads, and whose queue is full."""
    with short_directory() as directory:
        path = f"{directory}/chronyd.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hung:
            hung.bind(path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    while True:
                        client.sendto(b"", path)
            yield path
        os.unlink(path)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def many_sources(number: int) -> list[pychrony.Source]:
    """So many, each with an address of its own."""
    return [
        make_source(address=f"192.0.{2 + index // 250}.{index % 250 + 1}")
        for index in range(number)
    ]


def resident() -> int:
    """Memory of this process in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child; its failure is ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork
        pid = os.fork()
    if pid == 0:
        status = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)  # a child that hangs is a failure, too
        try:
            work()
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert status == 0


traces_every_instruction = pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="its opcode events are incomplete"
)


class Interrupt(BaseException):
    pass


def interrupted_at(number: int, work: Callable[[], object]) -> bool:
    """Run ``work`` up to an instruction; return whether it has so many."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        # From Python 3.11 on no signal handler runs in the middle of that one.
        if event == "opcode" and frame.f_code.co_name != "_deinit":
            count += 1
            if count == number:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False
