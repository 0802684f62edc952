"""The real parts, and a watch for anything that a test leaves behind."""

from __future__ import annotations

import gc
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator

import provision
import pytest
from hypothesis import find
from hypothesis.strategies import none

# Before pychrony is imported, which opens libchrony.
PARTS = provision.provide()
pytest_plugins = ["shared"]
# What is buffered fails, and is forked, in other places than what is not.
os.environ.pop("PYTHONUNBUFFERED", None)

# What a shell runs in the background ignores it, and so would the commands here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Let the collection after each test look only at what is of the tests."""
    # Before its first run, Hypothesis asks the collector who holds its generators.
    find(none(), lambda _: True)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def parts() -> provision.Parts:
    """The real libchrony, chronyd and chronyc."""
    return PARTS


def _descriptors() -> dict[str, str]:
    found: dict[str, str] = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the one that listdir itself had open
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a descriptor or a thread behind."""
    before, threads = _descriptors(), set(threading.enumerate())
    yield
    # One that was let go may need a moment to end.
    for thread in set(threading.enumerate()) - threads:
        thread.join(1)
    gc.collect()
    deadline = time.monotonic() + 1
    while left := _descriptors().items() - before.items():
        assert time.monotonic() < deadline, left
        time.sleep(0.001)
    assert set(threading.enumerate()) <= threads


@pytest.fixture
def directory() -> Iterator[str]:
    # Not tmp_path: libchrony needs short paths of Unix sockets.
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as path:
        yield path


@pytest.fixture(params=["127.0.0.1:0", "[::1]:0", "unix"])
def any_address(request: pytest.FixtureRequest, directory: str) -> str:
    if request.param == "[::1]:0":
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("this machine has no ::1")
    return str(request.param).replace("unix", f"{directory}/chronyd.sock")
