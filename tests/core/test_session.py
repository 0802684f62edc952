"""Request generators, driven by hand: what a driver cannot bring about at will."""

from __future__ import annotations

import time
from contextlib import suppress
from select import POLLIN, POLLOUT

import pytest
from helpers import (
    answer_all,
    by_hand,
    connected,
    descriptors,
    fill_queue,
    hung_daemon,
    unix_daemon,
)

import pychrony
from pychrony import ChronyTimeoutError, TrackingStatus, _address, _library, _session
from pychrony._base import open_session, timeouts_of
from pychrony._queries import read_list, read_single
from pychrony._session import Session
from pychrony._waiting import Waiter
from pychrony.testing import ALL_COMMANDS, ScriptedDaemon, faults, make_source


def test_full_queue_between_an_address_and_its_record() -> None:
    """A send that fails makes libchrony forget the address, and ask anew."""
    script = ScriptedDaemon(open_commands=ALL_COMMANDS)
    other = make_source(address="192.0.2.99")
    with unix_daemon() as (path, daemon), by_hand(path, 5.0, 1) as session:
        requests = read_list(session, pychrony.AuthData)
        with pytest.raises(StopIteration) as end:
            next(requests)
            while True:
                answer_all(script, daemon)
                asked_for_address = script.requests[-1][0] == "SOURCESTATS"
                if asked_for_address and script.sources != (other,):
                    script.sources = [other]
                    fill_queue(path)
                requests.send(True)
    assert [one.address for one in end.value.value] == ["192.0.2.99"]


def test_driver_that_leaves_while_the_daemon_is_looked_for() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        target = _address.parse(daemon.address)
        requests = open_session([target, target], timeouts_of(9.0, 0), blocking=False)
        before = descriptors()
        next(requests)
        requests.close()
        assert descriptors() == before


def test_close_that_was_interrupted_when_all_was_done() -> None:
    with ScriptedDaemon() as daemon:
        session = Session(_address.parse(daemon.address), timeouts_of(1.0, 0))
        _session._deinit(session.lib, session._holder)
        session._socket.close()
        del session  # no warning of an unclosed connection


def test_timeout_of_a_pair_of_requests_counts_them_all() -> None:
    fault = faults.only("AUTH_DATA", faults.silent)
    with (
        connected(
            misbehave=fault, open_commands=ALL_COMMANDS, timeout=0.05, retries=2
        ) as (_, connection),
        pytest.raises(ChronyTimeoutError, match=r"no answer to 3 requests in 0\.35 s"),
    ):
        connection.get_auth_data()


def test_resends_of_a_pair_of_requests_wait_longer_each_time() -> None:
    fault = faults.only("AUTH_DATA", faults.silent)
    deadlines: list[float] = []
    begin = time.monotonic()
    with (
        ScriptedDaemon(misbehave=fault, open_commands=ALL_COMMANDS) as daemon,
        by_hand(daemon.address, 1000, 2) as session,
    ):
        requests = read_list(session, pychrony.AuthData)
        fd, events, _ = next(requests)  # the number of sources
        with pytest.raises(ChronyTimeoutError):
            while True:
                assert Waiter().wait(fd, events, begin + 20)
                if not deadlines:
                    requests.send(True)  # the address is on its way
                    assert Waiter().wait(fd, events, begin + 20)
                _, _, deadline = requests.send(True)
                deadlines.append(deadline)
                requests.send(False)  # the record is not
    end = time.monotonic()
    for deadline, wait in zip(deadlines, (1000, 2000, 4000), strict=True):
        assert begin + wait <= deadline <= end + wait


def test_wait_for_the_queue_counts_to_the_wait_for_the_answer() -> None:
    with unix_daemon() as (path, daemon), by_hand(path, 1000, 0) as session:
        fill_queue(path)
        requests = read_single(session, TrackingStatus)
        fd, events, deadline = next(requests)
        assert events == POLLOUT
        with suppress(BlockingIOError):
            while True:
                daemon.recv(1000)
        assert requests.send(True) == (fd, POLLIN, deadline)


def test_each_wait_is_twice_the_one_before() -> None:
    with (
        ScriptedDaemon(misbehave=faults.silent) as daemon,
        by_hand(daemon.address, 1000, 2) as session,
    ):
        begin = time.monotonic()
        requests = read_single(session, TrackingStatus)
        waits = [next(requests), requests.send(False), requests.send(False)]
        end = time.monotonic()
        with pytest.raises(ChronyTimeoutError, match="3 requests in 7000 s"):
            requests.send(False)
    for (_, events, deadline), wait in zip(waits, (1000, 2000, 4000), strict=True):
        assert events == POLLIN
        assert begin + wait <= deadline <= end + wait


def test_late_process_still_takes_the_answer_that_is_there() -> None:
    with ScriptedDaemon() as daemon, by_hand(daemon.address, 1e-9, 0) as session:
        requests = read_single(session, TrackingStatus)
        fd, events, deadline = next(requests)
        assert deadline <= time.monotonic()
        assert Waiter().wait(fd, events, time.monotonic() + 20)
        with pytest.raises(StopIteration) as end:
            requests.send(True)
        assert end.value.value.stratum == 2


@pytest.mark.usefixtures("one_chronyd")
def test_session_woken_for_nothing_waits_again(address: str) -> None:
    with (
        ScriptedDaemon(address=address, misbehave=faults.silent) as daemon,
        by_hand(daemon.address, 1000, 0) as session,
    ):
        requests = read_single(session, TrackingStatus)
        wait = next(requests)
        for _ in range(3):
            assert requests.send(True) == wait
        with pytest.raises(ChronyTimeoutError, match=r"hung|running there"):
            requests.send(False)


@pytest.mark.timeout(30)
def test_flood_ends_at_the_deadline(address: str) -> None:
    with (
        ScriptedDaemon(address=address, misbehave=faults.silent) as daemon,
        by_hand(daemon.address, 0.05, 0) as session,
    ):
        requests = read_single(session, TrackingStatus)
        next(requests)
        with pytest.raises(ChronyTimeoutError):
            while True:
                requests.send(True)


def test_error_that_nobody_expected() -> None:
    lib = _library.load()
    with ScriptedDaemon() as daemon, by_hand(daemon.address, 1, 0) as session:
        request = session.record("nonsense", 0, lambda _: None)
        with pytest.raises(pychrony.ChronyError, match="nonsense: ") as caught:
            next(request)
        assert type(caught.value) is pychrony.ChronyError
        assert caught.value.error_code == lib.CHRONY_UNKNOWN_REPORT


@pytest.mark.timeout(30)
def test_queue_that_fills_again_ends_at_the_deadline() -> None:
    with hung_daemon() as path, by_hand(path, 0.05, 0) as session:
        requests = read_single(session, TrackingStatus)
        _, events, _ = next(requests)
        assert events == POLLOUT
        with pytest.raises(ChronyTimeoutError):
            while True:
                requests.send(True)


def test_driver_has_the_last_word_on_a_full_queue() -> None:
    with hung_daemon() as path, by_hand(path, 1000, 0) as session:
        requests = read_single(session, TrackingStatus)
        next(requests)
        with pytest.raises(ChronyTimeoutError):
            requests.send(False)
