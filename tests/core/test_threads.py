"""Signals, threads and forks around a connection."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

import pytest
from helpers import (
    Interrupt,
    connected,
    descriptors,
    in_child,
    in_threads,
    letters_of,
    on_alarm,
    sources_of,
)

import pychrony
from pychrony import ChronyConnection, ChronyUsageError, _address, _library
from pychrony.testing import (
    ALL_COMMANDS,
    ScriptedDaemon,
    faults,
    make_source,
    make_tracking,
)


@pytest.mark.interrupts
def test_signals_during_a_wait_are_no_errors() -> None:
    late = faults.delayed(0.02)
    with connected(misbehave=late, timeout=10, retries=0) as (_, connection):
        hits: list[int] = []
        with on_alarm(lambda *_: hits.append(1), 0.002, 0.002):
            for _ in range(50):
                assert connection.get_tracking().stratum == 2
        assert len(hits) > 50


@pytest.mark.interrupts
@pytest.mark.timeout(20)
def test_interrupt_during_a_wait(address: str) -> None:
    interrupt = signal.default_int_handler
    options: Any = {"address": address, "misbehave": faults.silent}
    with connected(**options, timeout=1000) as (daemon, connection):
        with pytest.raises(KeyboardInterrupt), on_alarm(interrupt, 0.05):
            connection.get_tracking()
        assert connection._session is None
        daemon.misbehave = None
        assert connection.get_tracking().stratum == 2


@pytest.mark.interrupts
@pytest.mark.timeout(20)
def test_interrupt_while_looking_for_the_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupt = signal.default_int_handler
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address, daemon.address))
        before = descriptors()
        with pytest.raises(KeyboardInterrupt) as caught, on_alarm(interrupt, 0.05):
            pychrony.get_tracking(timeout=1000)
        # At once, not only when the traceback lets go of the request generator.
        assert caught.tb is not None
        assert descriptors() == before


@pytest.mark.interrupts
@pytest.mark.timeout(60, method="thread")  # the other method needs SIGALRM, too
def test_signal_handlers_may_read_another_clock_but_not_this_one() -> None:
    refused: list[ChronyUsageError] = []
    with (
        ScriptedDaemon(tracking=make_tracking(reference_ip="192.0.2.1")) as daemon,
        ScriptedDaemon(tracking=make_tracking(reference_ip="192.0.2.2")) as other,
        ChronyConnection(daemon.address) as connection,
        ChronyConnection(other.address) as spare,
    ):

        def handler(*_: Any) -> None:
            assert spare.get_tracking().reference_ip == "192.0.2.2"
            try:
                assert connection.get_tracking().reference_ip == "192.0.2.1"
            except ChronyUsageError as error:
                refused.append(error)
            signal.setitimer(signal.ITIMER_REAL, 0.001)

        with on_alarm(handler, 0.001):
            while len(refused) < 100:
                assert connection.get_tracking().reference_ip == "192.0.2.1"
    assert "signal handler" in str(refused[0])


@pytest.mark.interrupts
def test_close_in_a_signal_handler_waits_for_the_call() -> None:
    with ScriptedDaemon(misbehave=faults.delayed(0.1)) as daemon:
        connection = ChronyConnection(daemon.address)
        connection.get_tracking()
        with on_alarm(lambda *_: connection.close(), 0.05):
            assert connection.get_tracking().stratum == 2
        assert connection.closed
        assert connection._session is None


@pytest.mark.interrupts
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_while_opening_and_closing_leave_nothing(address: str) -> None:
    def interrupt(*_: Any) -> None:
        raise Interrupt

    hits = 0
    with ScriptedDaemon(address=address) as daemon:
        connection = ChronyConnection(daemon.address)
        for number in range(1500):
            try:
                with on_alarm(interrupt, 5e-6 + number % 100 * 4e-6):
                    connection.__enter__()
                    connection.close()
            except Interrupt:
                hits += 1
            connection.close()
        del connection
        gc.collect()
    assert hits > 100


def test_threads_read_their_own_daemons() -> None:
    """libchrony formats addresses in one static buffer for the whole process."""
    number, reads = 16, 20_000
    wrong: list[str] = []

    def read(index: int) -> None:
        expected = f"192.0.2.{index}"
        with connected(
            tracking=make_tracking(reference_ip=expected),
            address="127.0.0.1:0",
            timeout=20,
        ) as (_, connection):
            for _ in range(reads // number):
                found = connection.get_tracking().reference_ip
                if found != expected:
                    wrong.append(found)

    in_threads(number, read)
    assert wrong == []


@pytest.mark.parametrize("report", ["authdata", "sources"])
def test_other_reports_of_other_threads_do_not_write_over_an_address(
    report: str,
) -> None:
    """To ask for the one, and to tell the kind of the other, libchrony formats it."""
    done = threading.Event()
    other = make_source(address="2001:db8:1111:2222:3333:4444:5555:6666")
    tracking = make_tracking(reference_ip="192.0.2.1")
    with (
        ScriptedDaemon(sources=[other], open_commands=ALL_COMMANDS) as others,
        ScriptedDaemon(tracking=tracking) as daemon,
    ):

        def read(index: int) -> None:
            address = (others if index % 2 else daemon).address
            with ChronyConnection(address, timeout=20) as connection:
                try:
                    for _ in range(0 if index % 2 else 2_500):
                        assert connection.get_tracking().reference_ip == "192.0.2.1"
                finally:
                    if not index % 2:
                        done.set()
                while not done.is_set():
                    (one,) = connection.get_report(report)
                    assert one["address"].value == other.address

        in_threads(6, read)


def test_threads_share_a_connection() -> None:
    with connected(sources=sources_of("ABC"), timeout=20) as (_, connection):

        def read(index: int) -> None:
            for _ in range(50):
                if index % 2:
                    assert connection.get_tracking().stratum == 2
                else:
                    assert letters_of(connection.get_sources()) == "ABC"

        in_threads(8, read)


def test_close_waits_for_the_call_of_another_thread() -> None:
    with ScriptedDaemon(misbehave=faults.delayed(0.1)) as daemon:
        connection = ChronyConnection(daemon.address, timeout=20)
        connection.__enter__()
        results: list[int] = []
        thread = threading.Thread(
            target=lambda: results.append(connection.get_tracking().stratum)
        )
        thread.start()
        while not daemon.requests:
            time.sleep(0.001)
        connection.close()
        assert connection.closed
        assert connection._session is None
        thread.join()
        assert results == [2]


def test_forked_child(address: str) -> None:
    with connected(address=address) as (_, connection):
        connection.get_tracking()
        session = connection._session
        assert session is not None
        fd = session._fd

        def child() -> None:
            with pytest.raises(ChronyUsageError, match="child"):
                connection.get_tracking()
            with pytest.raises(ChronyUsageError):
                connection.__enter__()
            connection.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
            with connection:  # opens one of its own
                assert connection.get_tracking().stratum == 2

        in_child(child)
        assert connection.get_tracking().stratum == 2
        in_child(lambda: None)
        assert connection.get_tracking().stratum == 2


@pytest.mark.interrupts
def test_threads_of_a_child_take_turns() -> None:
    with ScriptedDaemon() as daemon:
        connections = [
            ChronyConnection(daemon.address, timeout=20, retries=0) for _ in range(50)
        ]

        def child() -> None:
            sys.setswitchinterval(1e-6)
            start = threading.Barrier(8)

            def read(_: int) -> None:
                for connection in connections:
                    start.wait()
                    assert connection.get_tracking().stratum == 2

            in_threads(8, read)
            for connection in connections:
                connection.close()

        for _ in range(5):
            in_child(child)


def test_child_that_collects_the_parents_connection(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        connection = ChronyConnection(daemon.address)
        connection.get_tracking()
        holder = [connection]
        del connection

        def child() -> None:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                holder.clear()
                gc.collect()
            assert not seen

        in_child(child)
        assert holder[0].get_tracking().stratum == 2
        holder[0].close()


@pytest.mark.timeout(60)
def test_fork_while_another_thread_has_the_lock() -> None:
    """The child has it, too, but not the thread."""
    held = threading.Event()

    def hold() -> None:
        with _library.lock:
            held.set()
            time.sleep(0.2)

    def child() -> None:
        with _library.lock:
            assert pychrony.get_tracking(daemon.address).stratum == 2

    with ScriptedDaemon() as daemon:
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        in_child(child)
        thread.join()


@pytest.mark.interrupts
@pytest.mark.timeout(60)
def test_fork_while_other_threads_read() -> None:
    """A child must not inherit a lock that a thread of the parent was holding."""
    with connected() as (daemon, unopened):
        unopened.close()
        fresh = ChronyConnection(daemon.address)
        stop = threading.Event()

        def read() -> None:
            with ChronyConnection(daemon.address) as connection:
                while not stop.is_set():
                    connection.get_tracking()

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()

        def child() -> None:
            with pytest.raises(ChronyUsageError, match="closed"):
                unopened.get_tracking()
            # The child may open a connection that the parent only made.
            with _library.lock, fresh:
                assert fresh.get_tracking().stratum == 2

        try:
            for _ in range(10):
                in_child(child)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@pytest.mark.timeout(60)
def test_fork_during_a_call_of_another_thread() -> None:
    """The child gets neither the lock nor the call of a thread that it lacks."""
    with ScriptedDaemon(misbehave=faults.first(1, faults.delayed(0.5))) as daemon:
        connection = ChronyConnection(daemon.address, timeout=20)
        thread = threading.Thread(target=connection.get_tracking)
        thread.start()
        while not daemon.requests:
            time.sleep(0.001)

        def child() -> None:
            with pytest.raises(ChronyUsageError, match="child"):
                connection.get_tracking()
            connection.close()
            with connection:
                assert connection.get_tracking().stratum == 2

        in_child(child)
        thread.join()
        connection.close()
