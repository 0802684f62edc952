"""Daemons that answer badly, late, or not at all."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from helpers import MANY, QUICK, connected, letters_of, sources_of

import pychrony
from pychrony import ChronyDataError, ChronyTimeoutError
from pychrony._base import timeouts_of
from pychrony.testing import Request, ScriptedDaemon, faults, make_tracking


def noise(request: Request, reply: bytes) -> Iterable[tuple[float, bytes]]:
    """Answer with nonsense for half a minute."""
    return ((0.005 * number, b"noise" * 20) for number in range(6000))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (faults.silent, ChronyTimeoutError, "no answer to 2 requests in 0.75 s"),
        (faults.garbage, ChronyTimeoutError, "libchrony ignored "),
        (faults.wrong_sequence, ChronyTimeoutError, "libchrony ignored "),
        (faults.truncated(0), ChronyTimeoutError, "libchrony ignored "),
        (faults.truncated(27), ChronyTimeoutError, "libchrony ignored "),
        (faults.version(7), ChronyTimeoutError, "another version of the protocol"),
        (noise, ChronyTimeoutError, "datagrams"),
        (faults.truncated(28), ChronyDataError, "truncated"),
        (faults.truncated(103), ChronyDataError, "truncated"),
        (faults.overwritten(36, b"\xff" * 4), ChronyDataError, "is not a time"),
        (faults.status(1), ChronyDataError, "(error code: "),
        (faults.status(2), pychrony.ChronyPermissionError, "Not authorized"),
        (faults.status(3), ChronyDataError, "too old"),
        (faults.status(6), ChronyDataError, "disabled"),
        (faults.status(18), ChronyDataError, "too new"),
        (faults.status(19), ChronyDataError, "too new"),
        (faults.status(77), ChronyDataError, "status that libchrony does not know"),
    ],
)
def test_bad_answers(
    fault: faults.Fault, kind: type[pychrony.ChronyError], message: str, address: str
) -> None:
    timeout = 0.25 if kind is ChronyTimeoutError else 20
    options: Any = {"address": address, "misbehave": fault}
    with connected(**options, timeout=timeout, retries=1) as (daemon, connection):
        with pytest.raises(kind) as caught:
            connection.get_tracking()
        assert connection._session is None
        assert type(caught.value) in (kind, *kind.__subclasses__())
        assert message in str(caught.value)
        assert daemon.address in str(caught.value)
        number = 2 if kind is ChronyTimeoutError else 1
        while len(daemon.requests) < number:  # it may be busy with its answer
            time.sleep(0.001)
        assert daemon.requests == [("TRACKING", None)] * number
        # No trace of it in the next answer, however busy the machine is.
        connection._timeouts = timeouts_of(20, 0)
        daemon.misbehave = None
        daemon.tracking = make_tracking(stratum=9)
        assert connection.get_tracking().stratum == 9


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_number_of_resends(retries: int) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        with pytest.raises(
            ChronyTimeoutError, match=f"{retries + 1} request{'s' * (retries > 0)} in"
        ):
            pychrony.get_tracking(daemon.address, timeout=0.01, retries=retries)
        assert len(daemon.requests) == retries + 1
        daemon.misbehave = faults.first(retries, faults.silent)
        found = pychrony.get_tracking(
            daemon.address, timeout=2.0 / 2**retries, retries=retries
        )
        assert found.stratum == 2


def test_every_request_of_a_list_has_its_own_resends() -> None:
    tries: Counter[tuple[str, int | None]] = Counter()

    def losing(request: Request, reply: bytes) -> Iterable[bytes]:
        """Lose the first try for each third source, and for the count."""
        which = request.name, request.index
        tries[which] += 1
        return () if tries[which] == 1 and (which[1] or 0) % 3 == 0 else (reply,)

    with ScriptedDaemon(sources=sources_of(MANY), misbehave=losing) as daemon:
        # As many retries as a busy machine may need.
        found = pychrony.get_sources(daemon.address, timeout=0.1, retries=8)
        assert letters_of(found) == MANY
    assert all(tries["SOURCE_DATA", index] > 1 for index in range(0, len(MANY), 3))


def test_late_and_double_replies_disturb_nothing() -> None:
    with connected(sources=sources_of(MANY), timeout=0.1) as (daemon, connection):
        daemon.misbehave = faults.first(1, faults.delayed(0.15))
        assert connection.get_tracking().stratum == 2
        assert len(daemon.requests) == 2  # the late reply is still to come
        daemon.misbehave = faults.chain(faults.duplicated, faults.delayed(0.01))
        for _ in range(3):
            assert letters_of(connection.get_sources()) == MANY


def test_replies_that_an_earlier_request_ignored_are_not_told() -> None:
    fault = faults.first(1, faults.duplicated)
    with connected(misbehave=fault, **QUICK) as (daemon, connection):
        for _ in range(2):  # the second finds and ignores the second reply
            assert connection.get_tracking().stratum == 2
        daemon.misbehave = faults.silent
        with pytest.raises(ChronyTimeoutError, match="Is chronyd running there"):
            connection.get_tracking()


def test_errors_tell_the_errno() -> None:
    with pytest.raises(pychrony.ChronyConnectionError) as caught:
        pychrony.get_tracking("255.255.255.255:323", **QUICK)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno in (errno.EACCES, errno.ENETUNREACH)
