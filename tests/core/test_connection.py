"""The connection against daemons that answer badly, late, or not at all."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from select import POLLIN, POLLOUT
from typing import Any

import pytest
from helpers import (
    QUICK,
    descriptors,
    hung_daemon,
    in_child,
    on_alarm,
    resident,
    short_directory,
)

import pychrony
from pychrony import (
    ChronyConnection,
    ChronyConnectionError,
    ChronyDataError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
    ChronyUsageError,
    SourceMode,
    TrackingStatus,
    Transport,
    _address,
    _library,
    get_sources,
    get_tracking,
)
from pychrony._base import open_session, timeouts_of
from pychrony._queries import read_single
from pychrony._session import Session
from pychrony._waiting import Waiter
from pychrony.testing import (
    ALL_COMMANDS,
    Request,
    ScriptedDaemon,
    faults,
    make_source,
    make_source_stats,
    make_tracking,
)


@pytest.fixture(params=["UDP", "Unix"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address for a scripted daemon, of either transport."""
    if request.param == "UDP":
        yield "127.0.0.1:0"
    else:
        with short_directory() as directory:
            yield f"{directory}/chronyd.sock"


# --- what published 2.x promised ------------------------------------------


def test_context_manager(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        connection = ChronyConnection(daemon.address)
        assert connection.address is None
        assert connection.transport is None
        for _ in range(2):  # it may be entered again
            with connection as entered:
                assert entered is connection
                assert connection.address == daemon.address
                assert connection.get_tracking().stratum == 2
                assert len(connection.get_sources()) == 4
                assert len(connection.get_source_stats()) == 4
                assert connection.get_rtc_data() is None
                unix = daemon.address.startswith("/")
                assert connection.transport is (
                    Transport.UNIX_SOCKET if unix else Transport.COMMAND_PORT
                )
            assert connection.address is None
            assert connection.transport is None


def test_without_with_it_opens_at_the_first_report(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        connection = ChronyConnection(daemon.address)
        assert "not open" in repr(connection)
        assert not connection.closed
        assert connection.get_tracking().stratum == 2
        assert "(open)" in repr(connection)
        connection.close()
        connection.close()
        assert connection.closed
        assert "(closed)" in repr(connection)
        with pytest.raises(ChronyUsageError, match="closed"):
            connection.get_tracking()


@pytest.mark.parametrize(
    "name", [name for name in pychrony.__all__ if name.startswith("get_")]
)
def test_one_shot_functions(name: str, address: str) -> None:
    arguments = ["tracking"] if name == "get_report" else []
    with (
        ScriptedDaemon(address=address, open_commands=ALL_COMMANDS) as daemon,
        ChronyConnection(daemon.address) as connection,
    ):
        expected = getattr(connection, name)(*arguments)
        found = getattr(pychrony, name)(*arguments, daemon.address, **QUICK)
        assert found == expected


def test_within_a_call_only_closing_is_possible() -> None:
    def reading(_: Session) -> Generator[Any, bool, None]:
        connection.get_tracking()
        yield from ()

    def closing(_: Session) -> Generator[Any, bool, None]:
        connection.close()
        yield from ()

    with ScriptedDaemon() as daemon:
        connection = ChronyConnection(daemon.address)
        with pytest.raises(ChronyUsageError, match="in the middle of a call"):
            connection._read(partial(reading))
        connection._read(partial(closing))
        assert connection.closed
        assert connection._session is None


@pytest.mark.parametrize(
    "patience",
    [
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"retries": -1},
        {"retries": 30},
        {"retries": 10**9},
        {"timeout": 10**400},
        {"timeout": 1e-300, "retries": 2000},
        {"limit": 0},
        {"limit": float("nan")},
        {"limit": 86_401},
    ],
)
def test_patience_has_limits(patience: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a day at most"):
        ChronyConnection("127.0.0.1", **patience)


def test_limit_of_a_call_that_nobody_answers(address: str) -> None:
    with ScriptedDaemon(address=address, misbehave=faults.silent) as daemon:
        connection = ChronyConnection(daemon.address, timeout=3600, limit=0.1)
        with connection:
            with pytest.raises(ChronyTimeoutError, match=r"limit of 0\.1 s") as caught:
                connection.get_tracking()
            assert str(caught.value).startswith(f"{daemon.address}: not done")
            daemon.misbehave = None
            assert connection.get_tracking().stratum == 2


def test_limit_of_a_list_that_is_answered(address: str) -> None:
    """Each answer comes in time, all of them would take a minute."""
    sources = [make_source(address=f"192.0.2.{number}") for number in range(200)]
    slow = faults.delayed(0.3)
    with (
        ScriptedDaemon(address=address, sources=sources, misbehave=slow) as daemon,
        ChronyConnection(daemon.address, limit=1) as connection,
        pytest.raises(ChronyTimeoutError, match="limit of 1 s"),
    ):
        for _ in range(100):  # a list far away may be read at once
            connection.get_sources()
            connection.get_report("sourcestats")


def test_limit_of_looking_for_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,) * 3)
        with pytest.raises(ChronyTimeoutError) as caught:
            ChronyConnection(timeout=3600, limit=0.1).__enter__()
    place = " | ".join((daemon.address,) * 3)
    assert str(caught.value).startswith(f"{place}: not done within the limit of 0.1 s")


# --- daemons that answer badly --------------------------------------------


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
        (faults.truncated(60), ChronyDataError, "truncated"),
        (faults.status(2), ChronyPermissionError, "Not authorized"),
        (faults.status(3), ChronyDataError, "too old"),
        (faults.status(6), ChronyDataError, "disabled"),
        (faults.status(19), ChronyDataError, "too new"),
        (faults.status(77), ChronyDataError, "status that libchrony does not know"),
    ],
)
def test_bad_answers(
    fault: faults.Fault, kind: type[ChronyError], message: str, address: str
) -> None:
    timeout = 0.25 if kind is ChronyTimeoutError else 20
    with (
        ScriptedDaemon(address=address, misbehave=fault) as daemon,
        ChronyConnection(daemon.address, timeout=timeout, retries=1) as connection,
    ):
        with pytest.raises(kind) as caught:
            connection.get_tracking()
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
def test_resends(retries: int) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        with pytest.raises(
            ChronyTimeoutError, match=f"{retries + 1} request{'s' * (retries > 0)} in"
        ):
            get_tracking(daemon.address, timeout=0.01, retries=retries)
        assert len(daemon.requests) == retries + 1
        daemon.misbehave = faults.first(retries, faults.silent)
        assert get_tracking(daemon.address, timeout=0.3, retries=retries).stratum == 2


def test_every_request_of_a_list_has_its_own_resends() -> None:
    tries: Counter[tuple[str, int | None]] = Counter()

    def losing(request: Request, reply: bytes) -> Iterable[bytes]:
        """Lose the first try for each third source, and for the count."""
        which = request.name, request.index
        tries[which] += 1
        return () if tries[which] == 1 and (which[1] or 0) % 3 == 0 else (reply,)

    with ScriptedDaemon(sources=sources_of(MANY), misbehave=losing) as daemon:
        # As many retries as a busy machine may need.
        found = get_sources(daemon.address, timeout=0.1, retries=8)
        assert letters_of(found) == MANY
    assert all(tries["SOURCE_DATA", index] > 1 for index in range(0, len(MANY), 3))


def test_late_and_double_replies_disturb_nothing() -> None:
    with (
        ScriptedDaemon(sources=sources_of(MANY)) as daemon,
        ChronyConnection(daemon.address, timeout=0.1) as connection,
    ):
        daemon.misbehave = faults.first(1, faults.delayed(0.15))
        assert connection.get_tracking().stratum == 2
        assert len(daemon.requests) == 2  # the late reply is still to come
        daemon.misbehave = faults.chain(faults.duplicated, faults.delayed(0.01))
        for _ in range(3):
            assert letters_of(connection.get_sources()) == MANY


def test_what_an_earlier_request_ignored_is_not_told() -> None:
    with (
        ScriptedDaemon(misbehave=faults.first(1, faults.duplicated)) as daemon,
        ChronyConnection(daemon.address, **QUICK) as connection,
    ):
        for _ in range(2):  # the second finds and ignores the second reply
            assert connection.get_tracking().stratum == 2
        daemon.misbehave = faults.silent
        with pytest.raises(ChronyTimeoutError, match="Is chronyd running there"):
            connection.get_tracking()


def test_no_session_survives_an_error(address: str) -> None:
    with (
        ScriptedDaemon(address=address) as daemon,
        ChronyConnection(daemon.address, **QUICK) as connection,
    ):
        before = connection._session
        daemon.misbehave = faults.status(2)
        with pytest.raises(ChronyPermissionError):
            connection.get_tracking()
        daemon.misbehave = None
        assert connection._session is None
        assert connection.get_tracking().stratum == 2
        assert connection._session is not before


def test_daemon_goes_and_comes_back(address: str) -> None:
    daemon = ScriptedDaemon(address=address)
    daemon.start()
    with ChronyConnection(daemon.address, **QUICK) as connection:
        assert connection.get_tracking().stratum == 2
        daemon.stop()
        with pytest.raises(ChronyConnectionError, match="Is chronyd running"):
            connection.get_tracking()
        daemon.start()
        assert connection.get_tracking().stratum == 2
        daemon.stop()
        daemon.start()
        try:
            connection.get_tracking()
        except ChronyConnectionError:  # the Unix socket is another one now
            assert connection.get_tracking().stratum == 2
    daemon.stop()


@pytest.mark.parametrize("count", [0xFFFFFFFE, 2**31, 100_000_000, 65_537])
def test_count_that_cannot_be(count: int) -> None:
    with ScriptedDaemon(misbehave=faults.count(count)) as daemon:
        with pytest.raises(ChronyDataError, match=f"claims to have {count} sources"):
            get_sources(daemon.address, **QUICK)
        assert len(daemon.requests) == 1


def test_count_that_can_be() -> None:
    with ScriptedDaemon(misbehave=faults.count(65_536)) as daemon:
        with pytest.raises(ChronyDataError, match="changed during each"):
            get_sources(daemon.address)
        assert ("SOURCE_DATA", 65_535) in daemon.requests


# --- conversations, driven by hand ------------------------------------------


@contextmanager
def by_hand(address: str, timeout: float, retries: int) -> Iterator[Session]:
    session = Session(_address.parse(address), timeouts_of(timeout, retries))
    try:
        yield session
    finally:
        session.close()


def test_each_wait_is_twice_the_one_before() -> None:
    with (
        ScriptedDaemon(misbehave=faults.silent) as daemon,
        by_hand(daemon.address, 1000, 2) as session,
    ):
        begin = time.monotonic()
        conversation = read_single(session, TrackingStatus)
        waits = [next(conversation), conversation.send(False), conversation.send(False)]
        end = time.monotonic()
        with pytest.raises(ChronyTimeoutError, match="3 requests in 7000 s"):
            conversation.send(False)
    for (_, events, deadline), wait in zip(waits, (1000, 2000, 4000), strict=True):
        assert events == POLLIN
        assert begin + wait <= deadline <= end + wait


def test_so_it_is_while_looking_for_the_daemon() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        target = _address.parse(daemon.address)
        begin = time.monotonic()
        looking = open_session([target, target], timeouts_of(1000, 1), blocking=False)
        seen = [next(looking), *(looking.send(False) for _ in range(3))]
        end = time.monotonic()
        with pytest.raises(ChronyTimeoutError):
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
        conversation = read_single(session, TrackingStatus)
        _, _, deadline = next(conversation)
        assert deadline <= time.monotonic() + 1000
        conversation.close()
        session.close()


def test_only_the_silent_are_asked_again() -> None:
    with ScriptedDaemon() as refused, ScriptedDaemon(misbehave=faults.silent) as silent:
        refused.stop()
        targets = [_address.parse(one.address) for one in (refused, silent)]
        looking = open_session(targets, timeouts_of(1000, 1), blocking=False)
        fd, events, _ = next(looking)
        assert Waiter().wait(fd, events, time.monotonic() + 20)
        looking.send(True)
        looking.send(False)
        with pytest.raises(ChronyTimeoutError):
            looking.send(False)


def test_late_process_still_takes_the_answer_that_is_there() -> None:
    with ScriptedDaemon() as daemon, by_hand(daemon.address, 1e-9, 0) as session:
        conversation = read_single(session, TrackingStatus)
        fd, events, deadline = next(conversation)
        assert deadline <= time.monotonic()
        assert Waiter().wait(fd, events, time.monotonic() + 20)
        with pytest.raises(StopIteration) as end:
            conversation.send(True)
        assert end.value.value.stratum == 2


def test_woken_for_nothing_it_waits_again(address: str) -> None:
    with (
        ScriptedDaemon(address=address, misbehave=faults.silent) as daemon,
        by_hand(daemon.address, 1000, 0) as session,
    ):
        conversation = read_single(session, TrackingStatus)
        wait = next(conversation)
        for _ in range(3):
            assert conversation.send(True) == wait
        with pytest.raises(ChronyTimeoutError, match=r"hung|running there"):
            conversation.send(False)


@pytest.mark.timeout(30)
def test_flood_ends_at_the_deadline(address: str) -> None:
    with (
        ScriptedDaemon(address=address, misbehave=faults.silent) as daemon,
        by_hand(daemon.address, 0.05, 0) as session,
    ):
        conversation = read_single(session, TrackingStatus)
        next(conversation)
        with pytest.raises(ChronyTimeoutError):
            while True:
                conversation.send(True)


def test_error_that_nobody_expected() -> None:
    lib = _library.load()
    with ScriptedDaemon() as daemon, by_hand(daemon.address, 1, 0) as session:
        request = session.record("nonsense", 0, lambda _: None)
        with pytest.raises(ChronyError, match="nonsense: ") as caught:
            next(request)
        assert type(caught.value) is ChronyError
        assert caught.value.error_code == lib.CHRONY_UNKNOWN_REPORT


@pytest.mark.timeout(30)
def test_queue_that_fills_again_ends_at_the_deadline() -> None:
    with hung_daemon() as path, by_hand(path, 0.05, 0) as session:
        conversation = read_single(session, TrackingStatus)
        _, events, _ = next(conversation)
        assert events == POLLOUT
        with pytest.raises(ChronyTimeoutError):
            while True:
                conversation.send(True)


def test_driver_has_the_last_word_on_a_full_queue() -> None:
    with hung_daemon() as path, by_hand(path, 1000, 0) as session:
        conversation = read_single(session, TrackingStatus)
        next(conversation)
        with pytest.raises(ChronyTimeoutError):
            conversation.send(False)


def test_a_deadline_that_is_over_is_no_endless_wait() -> None:
    read, write = os.pipe()
    try:
        assert not Waiter().wait(read, POLLIN, 0.0)
        os.write(write, b"!")
        assert Waiter().wait(read, POLLIN, 0.0)
    finally:
        os.close(read)
        os.close(write)


# --- lists that change while they are read ---------------------------------


MANY = "ABCDEFGHIJKLMNOPQRST"


def sources_of(letters: str) -> list[pychrony.Source]:
    """A source for each letter; ``#`` is a reference clock."""
    return [
        make_source(address="GPS", mode=SourceMode.REFCLOCK)
        if letter == "#"
        else make_source(address=f"192.0.2.{ord(letter)}")
        for letter in letters
    ]


def letters_of(sources: list[pychrony.Source]) -> str:
    return "".join(
        "#" if one.address == "GPS" else chr(int(one.address.rpartition(".")[2]))
        for one in sources
    )


@pytest.mark.parametrize("before", ["ABCD", "#BCD", "A#CD", "AB#D", "ABC#"])
@pytest.mark.parametrize("moment", range(1, 6))
@pytest.mark.parametrize("gone", range(4))
@pytest.mark.parametrize("new", ["", "E", "EF"])
def test_list_is_that_of_one_moment(
    before: str, moment: int, gone: int, new: str
) -> None:
    """A source goes, as chronyd removes it, and others come, between two requests."""
    after = before[:gone] + before[gone + 1 :] + new
    with ScriptedDaemon(sources=sources_of(before)) as daemon:

        def change(request: Request, reply: bytes) -> Iterable[bytes]:
            if len(daemon.requests) == moment:
                daemon.sources = sources_of(after)
            return (reply,)

        daemon.misbehave = change
        assert letters_of(get_sources(daemon.address)) in (before, after)


def once(name: str) -> list[tuple[str, int | None]]:
    """The requests for a list of four: how the last and its number come first."""
    number = ("N_SOURCES", None)
    return [number, (name, 3), number, (name, 2), (name, 1), (name, 0)]


def test_list_that_holds_still_is_read_once() -> None:
    stats = [
        make_source_stats(address=address, reference_id=reference_id)
        for address, reference_id in (
            *(("", 0x47505300), ("", 0x50505330)),  # reference clocks
            *(("ID#0000000001", 0), ("ID#0000000002", 0)),  # unresolved names
        )
    ]
    with ScriptedDaemon(sources=sources_of("A#CD"), source_stats=stats) as daemon:
        assert letters_of(get_sources(daemon.address)) == "A#CD"
        assert daemon.requests == once("SOURCE_DATA")
        daemon.requests.clear()
        assert len(pychrony.get_source_stats(daemon.address)) == 4
        assert daemon.requests == once("SOURCESTATS")


def test_what_is_appended_after_the_last_was_read_does_not_matter() -> None:
    with ScriptedDaemon(sources=sources_of("ABCD")) as daemon:

        def change(request: Request, reply: bytes) -> Iterable[bytes]:
            if request.index == 1:
                daemon.sources = sources_of("ABCDE")
            return (reply,)

        daemon.misbehave = change
        assert letters_of(get_sources(daemon.address)) == "ABCD"
        assert daemon.requests == once("SOURCE_DATA")


def test_list_that_never_holds_still() -> None:
    with ScriptedDaemon(sources=sources_of("AB")) as daemon:

        def change(request: Request, reply: bytes) -> Iterable[bytes]:
            if request.name == "N_SOURCES":
                daemon.sources = sources_of("ABC" if len(daemon.sources) == 2 else "AB")
            return (reply,)

        daemon.misbehave = change
        with pytest.raises(ChronyDataError, match="changed during each of 10 reads"):
            get_sources(daemon.address)
        assert daemon.requests.count(("N_SOURCES", None)) == 2 * 10


@pytest.mark.parametrize("request_name", ["N_SOURCES", "SOURCE_DATA"])
def test_refusal_is_not_taken_for_a_change_for_ever(request_name: str) -> None:
    fault = faults.only(request_name, faults.status(1))
    with (
        ScriptedDaemon(misbehave=fault) as daemon,
        pytest.raises(ChronyDataError) as caught,
    ):
        get_sources(daemon.address)
    known = "refuses it with a status that libchrony does not know"
    if request_name == "N_SOURCES":
        assert known in str(caught.value)
    else:
        assert known in str(caught.value.__cause__)


def test_two_reference_clocks_with_one_id() -> None:
    with ScriptedDaemon(sources=sources_of("A##B")) as daemon:
        assert letters_of(get_sources(daemon.address)) == "A##B"


def test_two_addresses_of_an_unknown_kind() -> None:
    with ScriptedDaemon(sources=[make_source(address="?")] * 2) as daemon:
        assert [one.address for one in get_sources(daemon.address)] == ["?", "?"]


@pytest.mark.parametrize("gone", range(4))
def test_generic_list_is_that_of_one_moment(gone: int) -> None:
    before = "A#CD"
    after = before[:gone] + before[gone + 1 :] + "E"
    with ScriptedDaemon(sources=sources_of(before)) as daemon:

        def change(request: Request, reply: bytes) -> Iterable[bytes]:
            if request.index == 2:
                daemon.sources = sources_of(after)
            return (reply,)

        daemon.misbehave = change
        found = [
            str(one["address"].value) if "address" in one else ""
            for one in pychrony.get_report("sources", daemon.address)
        ]
    possible = [
        ["" if one.address == "GPS" else one.address for one in sources_of(letters)]
        for letters in (before, after)
    ]
    assert found in possible


def test_the_same_wrong_list_twice_is_still_wrong() -> None:
    """As happens with changes in step with the reads."""
    with ScriptedDaemon(sources=sources_of("ABC")) as daemon:

        def change(request: Request, reply: bytes) -> Iterable[bytes]:
            if request.name == "N_SOURCES" and len(daemon.requests) % 5 == 1:
                daemon.sources = sources_of("ABC")
            elif request.index == 2:  # A goes and D comes
                daemon.sources = sources_of("BCD")
            return (reply,)

        daemon.misbehave = change
        with pytest.raises(ChronyDataError, match="changed during each of 10 reads"):
            get_sources(daemon.address)


def test_empty_list() -> None:
    with ScriptedDaemon(sources=[]) as daemon:
        assert get_sources(daemon.address) == []


# --- finding the daemon ------------------------------------------------------


def test_the_first_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedDaemon() as refused,
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(tracking=make_tracking(stratum=4)) as daemon,
    ):
        refused.stop()
        local = ("/nowhere/chronyd.sock", refused.address, silent.address)
        monkeypatch.setattr(_address, "LOCAL", (*local, daemon.address))
        with ChronyConnection(timeout=0.1) as connection:
            assert connection.address == daemon.address
            assert connection.get_tracking().stratum == 4
        assert len(silent.requests) == 1
        assert get_tracking(timeout=0.1).stratum == 4


def test_a_refusal_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedDaemon(misbehave=faults.status(2)) as daemon,
        ScriptedDaemon() as other,
    ):
        monkeypatch.setattr(_address, "LOCAL", (daemon.address, other.address))
        with pytest.raises(ChronyPermissionError):
            get_tracking(timeout=0.1)
        assert not other.requests


def test_the_silent_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(misbehave=faults.first(1, faults.silent)) as daemon,
    ):
        monkeypatch.setattr(_address, "LOCAL", (silent.address, daemon.address))
        with ChronyConnection(timeout=0.05) as connection:
            assert connection.address == daemon.address
        assert len(silent.requests) == 2


def test_requests_are_sent_again_to_the_daemon_that_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedDaemon() as refused, ScriptedDaemon() as daemon:
        refused.stop()
        monkeypatch.setattr(_address, "LOCAL", (refused.address, daemon.address))
        with ChronyConnection(timeout=0.1, retries=1) as connection:
            daemon.misbehave = faults.first(1, faults.silent)
            assert connection.get_tracking().stratum == 2


@pytest.mark.parametrize("fault", [faults.status(2), faults.status(77)])
def test_other_reports_are_read_from_the_daemon_that_refused(
    fault: faults.Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = faults.only("TRACKING", fault)
    with ScriptedDaemon(misbehave=fault) as daemon, ScriptedDaemon() as other:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address, other.address))
        assert len(get_sources()) == 4
        assert not other.requests


@pytest.mark.parametrize("alone", [True, False])
def test_nobody_answers(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon() as refused, ScriptedDaemon(misbehave=faults.silent) as silent:
        refused.stop()
        local = ["/nowhere/chronyd.sock", refused.address]
        kind: type[ChronyError] = ChronyConnectionError
        if not alone:
            local.append(silent.address)
            kind = ChronyTimeoutError
        monkeypatch.setattr(_address, "LOCAL", local)
        with pytest.raises(
            ChronyConnectionError, match="no chronyd answered"
        ) as caught:
            get_tracking(timeout=0.02, retries=1)
        assert type(caught.value) is kind
        assert all(place in str(caught.value) for place in local)


def test_an_explicit_address_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon() as other, ScriptedDaemon() as refused:
        refused.stop()
        monkeypatch.setattr(_address, "LOCAL", (other.address,))
        with pytest.raises(ChronyConnectionError, match="port open there") as caught:
            get_tracking(refused.address)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert caught.value.error_code == _library.load().CHRONY_RECV_FAILED
        assert not other.requests


# --- Unix sockets --------------------------------------------------------------


def test_no_socket_there() -> None:
    with pytest.raises(
        ChronyConnectionError, match=r"No such file.*running\?"
    ) as caught:
        get_tracking("/nowhere/chronyd.sock")
    assert caught.value.error_code == -1
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("path", [__file__, str(Path(__file__).parent)])
def test_path_of_something_else(path: str) -> None:
    with pytest.raises(ChronyConnectionError, match=r"That is no socket; .* by"):
        get_tracking(path)


def test_socket_that_nobody_listens_on() -> None:
    with short_directory() as directory:
        path = Path(f"{directory}/chronyd.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(str(path))
        with pytest.raises(ChronyConnectionError, match=r"refused\. Is .* running\?"):
            get_tracking(str(path))
        path.unlink()


def test_socket_without_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    root = os.geteuid() == 0
    with short_directory() as directory:
        os.chmod(directory, 0o755)
        with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
            os.chmod(daemon.address, 0)
            if root:
                os.seteuid(65534)
            try:
                with pytest.raises(
                    ChronyPermissionError, match=r"address 127\.0\.0\.1"
                ):
                    get_tracking(daemon.address)
                # Auto-detection goes on to UDP, where anybody may read.
                with ScriptedDaemon(tracking=make_tracking(stratum=6)) as udp:
                    local = (daemon.address, udp.address)
                    monkeypatch.setattr(_address, "LOCAL", local)
                    assert get_tracking().stratum == 6
            finally:
                if root:
                    os.seteuid(0)


@pytest.mark.timeout(30)
def test_full_queue_is_waited_for() -> None:
    """The kernel queues few datagrams on a Unix socket, some systems only ten."""

    def busy(request: Request, reply: bytes) -> Iterable[bytes]:
        time.sleep(0.01)
        return (reply,)

    results: list[int] = []
    with short_directory() as directory:
        path = f"{directory}/chronyd.sock"
        with ScriptedDaemon(address=path, misbehave=busy) as daemon:
            threads = [
                threading.Thread(
                    target=lambda: results.append(
                        get_tracking(daemon.address, timeout=20, retries=0).stratum
                    )
                )
                for _ in range(40)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert results == [2] * 40


@pytest.mark.timeout(30)
def test_full_queue_of_a_hung_daemon() -> None:
    with hung_daemon() as path:
        with pytest.raises(ChronyTimeoutError, match="hung or stopped"):
            get_tracking(path, **QUICK)


# --- descriptors, memory, and what is left behind ----------------------------


@pytest.mark.parametrize("timeout", [2.5, 0.009])
def test_libchrony_itself_waits_for_the_timeout_at_most(
    timeout: float, address: str
) -> None:
    with (
        ScriptedDaemon(address=address) as daemon,
        ChronyConnection(daemon.address, timeout=timeout) as connection,
    ):
        assert connection._session is not None
        fd = connection._session._fd
        # Not where its send() would wait, too, or the kernel's clock is too coarse.
        waits = timeout == 2.5 and not address.startswith("/")
        assert os.get_blocking(fd) == waits
        with socket.socket(fileno=os.dup(fd)) as copy:
            limit = copy.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
        assert struct.unpack("ll", limit) == ((2, 500_000) if waits else (0, 0))


def test_so_it_does_with_the_daemon_that_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the waits were when it was found."""
    with (
        ScriptedDaemon(misbehave=faults.silent) as silent,
        ScriptedDaemon(misbehave=faults.first(1, faults.silent)) as daemon,
    ):
        monkeypatch.setattr(_address, "LOCAL", (silent.address, daemon.address))
        with ChronyConnection(timeout=0.1) as connection:
            assert connection.address == daemon.address
            assert connection._session is not None
            fd = connection._session._fd
            assert os.get_blocking(fd)
            with socket.socket(fileno=os.dup(fd)) as copy:
                limit = copy.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert struct.unpack("ll", limit) == (0, 100_000)


def test_descriptors_are_not_inherited(address: str) -> None:
    with (
        ScriptedDaemon(address=address) as daemon,
        ChronyConnection(daemon.address) as connection,
    ):
        assert connection._session is not None
        assert not os.get_inheritable(connection._session._fd)


def test_ten_thousand_connections_leave_nothing(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        memory = opened = 0
        for number in range(10_000):
            if number == 1000:
                gc.collect()
                memory, opened = resident(), descriptors()
            assert get_tracking(daemon.address).stratum == 2
            daemon.requests.clear()
        gc.collect()
        assert descriptors() == opened
        assert resident() - memory < 1024


def test_dropped_connection_warns_and_closes(address: str) -> None:
    with ScriptedDaemon(address=address) as daemon:
        connection = ChronyConnection(daemon.address)
        connection.get_tracking()
        with pytest.warns(ResourceWarning, match=f"at {daemon.address}"):
            del connection
            gc.collect()


def test_failed_opening_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left for /dev/urandom, which libchrony opens."""
    import resource

    with ScriptedDaemon() as daemon:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
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
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)


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
            with enough_descriptors_later():
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
        with enough_descriptors_later():
            with pytest.raises(ChronyConnectionError, match="Too many open files"):
                connection.get_sources()
        daemon.misbehave = fault
        assert len(connection.get_sources()) == 4
        connection.close()


def starving(fault: faults.Fault | None) -> faults.Fault:
    """From the first request on, this process can open nothing more."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def starve(request: Request, reply: bytes) -> Iterable[Any]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        return fault(request, reply) if fault else (reply,)

    return starve


@contextmanager
def enough_descriptors_later() -> Iterator[None]:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


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
        result = subprocess.run(
            [sys.executable, "-W", "always", "-c", EXIT, daemon.address],
            capture_output=True,
            text=True,
            check=True,
        )
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
        result = subprocess.run(
            [sys.executable, "-W", "always", "-c", FORK, daemon.address],
            capture_output=True,
            text=True,
            check=True,
        )
    assert result.stdout == "2\n"
    assert "unclosed" not in result.stderr


DEATHS = {
    # Python runs the finalizers.
    "end of the program": ("pass", True),
    "sys.exit": ("sys.exit(0)", True),
    "uncaught exception": ("raise RuntimeError", True),
    "daemon thread reading": (
        "threading.Thread(target=read_on, daemon=True).start(); time.sleep(0.05)",
        True,
    ),
    "handler of SIGTERM": (
        (
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
            "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
        ),
        True,
    ),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT)", True),
    # Python gets no chance to run anything.
    "os._exit": ("os._exit(0)", False),
    "exec": ("os.execv('/bin/true', ['true'])", False),
    "SIGTERM, default action": ("os.kill(os.getpid(), signal.SIGTERM)", False),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", False),
}

DIE = """
import os, signal, sys, threading, time
import pychrony
connection = pychrony.ChronyConnection(sys.argv[1])
connection.get_tracking()

def read_on():
    while True:
        connection.get_tracking()

"""


@pytest.mark.parametrize("death", DEATHS)
def test_what_a_dead_process_leaves_behind(death: str) -> None:
    """Only a process that Python cannot clean up leaves the file of its socket."""
    action, clean = DEATHS[death]
    directory = Path(f"/tmp/d{os.getpid()}")
    directory.mkdir(mode=0o700)
    try:
        with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
            command = [sys.executable, "-c", DIE + action, daemon.address]
            subprocess.run(command, check=False, capture_output=True)
            left = {path.name for path in directory.iterdir()} - {"chronyd.sock"}
            assert len(left) == (0 if clean else 1)
            assert all(name.startswith("pychrony.") for name in left)
            # What is left bothers nobody.
            assert get_tracking(daemon.address).stratum == 2
    finally:
        shutil.rmtree(directory)


EXIT_WITH_THREADS = """
import sys, threading
import pychrony

begun = threading.Barrier(7)

def read():
    with pychrony.ChronyConnection(sys.argv[1]) as connection:
        connection.get_tracking()
        begun.wait()
        while True:
            connection.get_tracking()

for _ in range(6):
    threading.Thread(target=read, daemon=True).start()
begun.wait()
"""


def test_exit_while_daemon_threads_read() -> None:
    """Their sessions are destroyed under their hands."""
    with ScriptedDaemon() as daemon:
        command = [sys.executable, "-c", EXIT_WITH_THREADS, daemon.address]
        for _ in range(30):
            result = subprocess.run(command, check=False, capture_output=True)
            assert result.returncode == 0, result.stderr.decode()


# --- signals, threads, forks ----------------------------------------------------


@pytest.mark.interrupts
def test_signals_during_a_wait_are_no_errors() -> None:
    with (
        ScriptedDaemon(misbehave=faults.delayed(0.02)) as daemon,
        ChronyConnection(daemon.address, timeout=10, retries=0) as connection,
    ):
        hits: list[int] = []
        with on_alarm(lambda *_: hits.append(1), 0.002, 0.002):
            for _ in range(50):
                assert connection.get_tracking().stratum == 2
        assert len(hits) > 50


@pytest.mark.interrupts
@pytest.mark.timeout(20)
def test_interrupt_during_a_wait(address: str) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with (
        ScriptedDaemon(address=address, misbehave=faults.silent) as daemon,
        ChronyConnection(daemon.address, timeout=1000) as connection,
    ):
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
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address, daemon.address))
        before = descriptors()
        with pytest.raises(KeyboardInterrupt) as caught, on_alarm(interrupt, 0.05):
            get_tracking(timeout=1000)
        # At once, not only when the traceback lets go of the conversation.
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
    class Interrupt(BaseException):
        pass

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


def in_threads(number: int, work: Callable[[int], None]) -> None:
    """Run ``work`` in threads, all at once, and raise what it raised."""
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_read_their_own_daemons() -> None:
    """libchrony formats addresses in one static buffer for the whole process."""
    number, reads = 16, 20_000
    daemons = [
        ScriptedDaemon(
            tracking=make_tracking(reference_ip=f"192.0.2.{index}"),
            address="127.0.0.1:0",
        )
        for index in range(number)
    ]
    wrong: list[str] = []

    def read(index: int) -> None:
        with ChronyConnection(daemons[index].address, timeout=20) as connection:
            for _ in range(reads // number):
                found = connection.get_tracking().reference_ip
                if found != f"192.0.2.{index}":
                    wrong.append(found)

    for daemon in daemons:
        daemon.start()
    try:
        in_threads(number, read)
    finally:
        for daemon in daemons:
            daemon.stop()
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
                    for _ in range(0 if index % 2 else 5_000):
                        assert connection.get_tracking().reference_ip == "192.0.2.1"
                finally:
                    if not index % 2:
                        done.set()
                while not done.is_set():
                    (one,) = connection.get_report(report)
                    assert one["address"].value == other.address

        in_threads(6, read)


def test_threads_share_a_connection() -> None:
    with (
        ScriptedDaemon(sources=sources_of("ABC")) as daemon,
        ChronyConnection(daemon.address, timeout=20) as connection,
    ):

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
    with (
        ScriptedDaemon(address=address) as daemon,
        ChronyConnection(daemon.address) as connection,
    ):
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


@pytest.mark.interrupts
@pytest.mark.timeout(60)
def test_fork_while_other_threads_read() -> None:
    """A child must not inherit a lock that a thread of the parent was holding."""
    with ScriptedDaemon() as daemon, ChronyConnection(daemon.address) as unopened:
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
            for _ in range(50):
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


def test_errors_tell_the_errno() -> None:
    with pytest.raises(ChronyConnectionError) as caught:
        get_tracking("255.255.255.255:323", **QUICK)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno in (errno.EACCES, errno.ENETUNREACH)
