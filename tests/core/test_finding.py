"""Which of several daemons is read, and how long each is waited for."""

from __future__ import annotations

import os
import socket
import struct
import time

import pytest

import pychrony
from pychrony import _address, _library
from pychrony._base import open_session, timeouts_of
from pychrony._queries import read_single
from pychrony._waiting import Waiter
from pychrony.testing import ScriptedDaemon, faults, make_tracking


def test_limit_of_looking_for_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,) * 3)
        with pytest.raises(pychrony.ChronyTimeoutError) as caught:
            pychrony.ChronyConnection(timeout=3600, limit=0.1).__enter__()
    place = " | ".join((daemon.address,) * 3)
    assert str(caught.value).startswith(f"{place}: not done within the limit of 0.1 s")


def test_waits_double_while_looking_for_the_daemon() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        target = _address.parse(daemon.address)
        begin = time.monotonic()
        looking = open_session([target, target], timeouts_of(1000, 1), blocking=False)
        seen = [next(looking), *(looking.send(False) for _ in range(3))]
        end = time.monotonic()
        with pytest.raises(pychrony.ChronyTimeoutError):
            looking.send(False)
    deadlines = [deadline for _, _, deadline in seen]
    for deadline, wait in zip(deadlines, (1000, 1000, 2000, 2000), strict=True):
        assert begin + wait <= deadline <= end + wait


def test_waits_begin_anew_with_the_daemon_that_was_found() -> None:
    with ScriptedDaemon(misbehave=faults.first(2, faults.silent)) as daemon:
        target = _address.parse(daemon.address)
        looking = open_session([target, target], timeouts_of(1000, 1), blocking=False)
        next(looking)
        looking.send(False)
        fd, events, _ = looking.send(False)
        assert Waiter().wait(fd, events, time.monotonic() + 20)
        with pytest.raises(StopIteration) as end:
            looking.send(True)
        session = end.value.value
        requests = read_single(session, pychrony.TrackingStatus)
        _, _, deadline = next(requests)
        assert deadline <= time.monotonic() + 1000
        requests.close()
        session.close()


def test_daemons_that_refuse_are_not_asked_again() -> None:
    with ScriptedDaemon() as refused, ScriptedDaemon(misbehave=faults.silent) as silent:
        refused.stop()
        targets = [_address.parse(one.address) for one in (refused, silent)]
        looking = open_session(targets, timeouts_of(1000, 1), blocking=False)
        fd, events, _ = next(looking)
        assert Waiter().wait(fd, events, time.monotonic() + 20)
        looking.send(True)
        looking.send(False)
        with pytest.raises(pychrony.ChronyTimeoutError):
            looking.send(False)


def test_first_daemon_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedDaemon() as refused,
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(tracking=make_tracking(stratum=4)) as daemon,
    ):
        refused.stop()
        local = ("/nowhere/chronyd.sock", refused.address, silent.address)
        monkeypatch.setattr(_address, "LOCAL", (*local, daemon.address))
        with pychrony.ChronyConnection(timeout=1.0) as connection:
            assert connection.address == daemon.address
            assert connection.get_tracking().stratum == 4
        assert len(silent.requests) == 1
        assert pychrony.get_tracking(timeout=0.1).stratum == 4


def test_daemon_that_refuses_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedDaemon(misbehave=faults.status(2)) as daemon,
        ScriptedDaemon() as other,
    ):
        monkeypatch.setattr(_address, "LOCAL", (daemon.address, other.address))
        with pytest.raises(pychrony.ChronyPermissionError):
            pychrony.get_tracking(timeout=0.1)
        assert not other.requests


def test_silent_daemons_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(misbehave=faults.first(1, faults.silent)) as daemon,
    ):
        monkeypatch.setattr(_address, "LOCAL", (silent.address, daemon.address))
        with pychrony.ChronyConnection(timeout=0.5) as connection:
            assert connection.address == daemon.address
        assert len(silent.requests) == 2


def test_requests_are_sent_again_to_the_daemon_that_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedDaemon() as refused, ScriptedDaemon() as daemon:
        refused.stop()
        monkeypatch.setattr(_address, "LOCAL", (refused.address, daemon.address))
        with pychrony.ChronyConnection(timeout=0.5, retries=1) as connection:
            daemon.misbehave = faults.first(1, faults.silent)
            assert connection.get_tracking().stratum == 2


@pytest.mark.parametrize("fault", [faults.status(2), faults.status(77)])
def test_other_reports_are_read_from_the_daemon_that_refused(
    fault: faults.Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = faults.only("TRACKING", fault)
    with ScriptedDaemon(misbehave=fault) as daemon, ScriptedDaemon() as other:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address, other.address))
        assert len(pychrony.get_sources()) == 4
        assert not other.requests


@pytest.mark.parametrize("alone", [True, False])
def test_error_where_no_daemon_answers(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedDaemon() as refused, ScriptedDaemon(misbehave=faults.silent) as silent:
        refused.stop()
        local = ["/nowhere/chronyd.sock", refused.address]
        kind: type[pychrony.ChronyError] = pychrony.ChronyConnectionError
        if not alone:
            local.append(silent.address)
            kind = pychrony.ChronyTimeoutError
        monkeypatch.setattr(_address, "LOCAL", local)
        with pytest.raises(
            pychrony.ChronyConnectionError, match="no chronyd answered"
        ) as caught:
            pychrony.get_tracking(timeout=0.02, retries=1)
        assert type(caught.value) is kind
        assert all(place in str(caught.value) for place in local)


def test_explicit_address_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon() as other, ScriptedDaemon() as refused:
        refused.stop()
        monkeypatch.setattr(_address, "LOCAL", (other.address,))
        with pytest.raises(
            pychrony.ChronyConnectionError, match="port open there"
        ) as caught:
            pychrony.get_tracking(refused.address)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert caught.value.error_code == _library.load().CHRONY_RECV_FAILED
        assert not other.requests


def test_libchrony_waits_as_usual_for_the_daemon_that_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the waits were when it was found."""
    with (
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(misbehave=faults.first(1, faults.silent)) as daemon,
    ):
        monkeypatch.setattr(_address, "LOCAL", (silent.address, daemon.address))
        with pychrony.ChronyConnection(timeout=0.1) as connection:
            assert connection.address == daemon.address
            assert connection._session is not None
            fd = connection._session._fd
            assert os.get_blocking(fd)
            with socket.socket(fileno=os.dup(fd)) as copy:
                limit = copy.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert struct.unpack("ll", limit) == (0, 100_000)
