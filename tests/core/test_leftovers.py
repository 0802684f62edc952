"""Descriptors, memory and sockets that a connection must not leave behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from typing import Any

import pytest
from helpers import (
    by_hand,
    descriptors,
    descriptors_left,
    in_threads,
    limit_descriptors,
    limit_of_descriptors_restored,
    python,
    resident,
)

from pychrony import ChronyConnection, ChronyConnectionError, _address, get_tracking
from pychrony.testing import Request, ScriptedDaemon, faults


def test_thousands_of_connections_leave_nothing(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        memory = opened = 0
        for number in range(4_000):
            if number == 1000:
                gc.collect()
                memory, opened = resident(), descriptors()
            assert get_tracking(daemon.address).stratum == 2
            daemon.requests.clear()
        gc.collect()
        assert descriptors() == opened
        assert resident() - memory < 512


def test_dropped_connection_warns_and_closes(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        connection = ChronyConnection(daemon.address)
        connection.get_tracking()
        with pytest.warns(ResourceWarning, match=f"at {daemon.address}"):
            del connection
            gc.collect()


def test_failed_opening_leaves_nothing() -> None:
    """No descriptor is left for /dev/urandom, which libchrony opens."""
    with ScriptedDaemon() as daemon, descriptors_left(0) as taken:
        with pytest.raises(ChronyConnectionError, match="Too many open files"):
            get_tracking(daemon.address)
        os.close(taken.pop())
        with pytest.raises(
            ChronyConnectionError, match="/dev/urandom: Too many open files"
        ) as caught:
            get_tracking(daemon.address)
        assert isinstance(caught.value.__cause__, OSError)
        os.close(taken.pop())
        assert get_tracking(daemon.address).stratum == 2


READS_AFTER_A_REFUSAL: Any = {
    "disabled": (ChronyConnection.get_rtc_data, None, None),
    "disabled, generic": (lambda one: one.get_report("rtcdata"), None, []),
    "no such source": (
        lambda one: len(one.get_sources()),
        faults.only("SOURCE_DATA", faults.status(4)),
        4,
    ),
}


@pytest.mark.parametrize("which", READS_AFTER_A_REFUSAL)
def test_failed_reset_leaves_nothing(which: str) -> None:
    """A session that could not be replaced by a fresh one is not freed again."""
    read, fault, usual = READS_AFTER_A_REFUSAL[which]
    with ScriptedDaemon(misbehave=starving(fault)) as daemon:
        with ChronyConnection(daemon.address) as connection:
            with limit_of_descriptors_restored():
                # It is refused, and the session begins afresh after that.
                with pytest.raises(ChronyConnectionError, match="Too many open files"):
                    read(connection)
            daemon.misbehave = None
            assert read(connection) == usual


def test_failed_reset_after_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = faults.only("TRACKING", faults.status(2))
    with ScriptedDaemon(misbehave=starving(fault)) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,) * 2)
        connection = ChronyConnection()
        with limit_of_descriptors_restored():
            with pytest.raises(ChronyConnectionError, match="Too many open files"):
                connection.get_sources()
        daemon.misbehave = fault
        assert len(connection.get_sources()) == 4
        connection.close()


def starving(fault: faults.Fault | None) -> faults.Fault:
    """From the first request on, this process can open nothing more."""

    def starve(request: Request, reply: bytes) -> Iterable[Any]:
        limit_descriptors(3)
        return fault(request, reply) if fault else (reply,)

    return starve


def test_second_close_closes_nothing_else(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        with by_hand(daemon.address, 1, 0) as session:
            fd = session._fd
            session.close()
            other = os.open("/dev/null", os.O_RDONLY)
            if other != fd:
                os.dup2(other, fd)
                os.close(other)
            session.close()
        os.close(fd)


EXIT = """
import pychrony, sys
connection = pychrony.ChronyConnection(sys.argv[1])
print(connection.get_tracking().stratum)
"""


def test_exit_with_an_open_connection(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        result = python(EXIT, daemon.address, options=["-W", "always"])
        assert result.stdout == "2\n"
        assert f"unclosed connection to chronyd at {daemon.address}" in result.stderr


FORK = """
import os, sys, pychrony
connection = pychrony.ChronyConnection(sys.argv[1])
connection.get_tracking()
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    print(connection.get_tracking().stratum)
    connection.close()
"""


def test_child_that_exits_leaves_the_connection_to_its_parent(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        result = python(FORK, daemon.address, options=["-W", "always"])
    assert result.stdout == "2\n"
    assert "unclosed" not in result.stderr


# Each child ends as an interpreter does that has imported pychrony.
EXIT_WITH_THREADS = """
import os, sys, threading
import pychrony
pychrony.get_tracking

for _ in range(5):
    pid = os.fork()
    if not pid:
        break
    assert os.waitpid(pid, 0)[1] == 0
else:
    os._exit(0)

begun = threading.Barrier(7)

def read():
    connection = pychrony.ChronyConnection(sys.argv[1])
    connection.get_tracking()
    begun.wait()
    while True:
        {}

for _ in range(6):
    threading.Thread(target=read, daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize(
    ("work", "times"),
    [("connection.get_tracking()", 6), ("pychrony.get_tracking(sys.argv[1])", 2)],
    ids=["read", "open and close"],
)
def test_exit_while_daemon_threads(work: str, times: int) -> None:
    """Their sessions are destroyed under their hands."""
    with ScriptedDaemon() as daemon:

        def run(_: int) -> None:
            assert not python(EXIT_WITH_THREADS.format(work), daemon.address).stderr

        in_threads(times, run)
