"""Lists that are read with many requests in flight, and when they are."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from helpers import (
    answer_all,
    by_hand,
    connected,
    descriptors,
    descriptors_left,
    many_sources,
    on_alarm,
    seeing,
    short_directory,
)

import pychrony
from pychrony import ChronyConnection, Source, _address, _queries, _session, _waiting
from pychrony._base import timeouts_of
from pychrony._queries import read_generic, read_list
from pychrony._reader import METHODS
from pychrony._session import Session
from pychrony._waiting import Waiter
from pychrony.testing import ALL_COMMANDS, Request, ScriptedDaemon, faults, make_source

LONG_READ = _queries._LONG_READ  # before a test changes it

NAMES = ("sources", "sourcestats", "selectdata", "authdata", "ntpdata")
LISTS: dict[str, tuple[str, ...]] = {
    **{name: (METHODS[name],) for name in NAMES},
    **{f"get_report {name}": ("get_report", name) for name in NAMES},
}
pytestmark = pytest.mark.usefixtures("in_flight")


class Watched:
    """A fault that harms nothing, and sees how many descriptors are in use."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, request: Request, reply: bytes) -> Iterable[bytes]:
        self.most = max(self.most, descriptors())
        return (reply,)


@pytest.mark.parametrize("number", [5, 40])
@pytest.mark.parametrize("which", LISTS)
def test_list_is_that_of_one_by_one(
    which: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *arguments = LISTS[which]
    sources = many_sources(number)
    sources[number // 2] = make_source(address="GPS", mode=pychrony.SourceMode.REFCLOCK)
    with ScriptedDaemon(sources=sources, open_commands=ALL_COMMANDS) as daemon:
        with ChronyConnection(daemon.address) as connection:
            found = getattr(connection, name)(*arguments)
            requests = sorted(daemon.requests, key=str)
            daemon.requests.clear()
        monkeypatch.setattr(_queries, "_requests_in_flight", lambda *_: 1)
        with ChronyConnection(daemon.address) as connection:
            assert getattr(connection, name)(*arguments) == found
            assert sorted(daemon.requests, key=str) == requests
    # Of a reference clock there is no record.
    assert len(found) == number - which.endswith(("authdata", "ntpdata"))


@pytest.mark.parametrize("number", [0, 1, 2, 127, 128, 129, 300])
def test_list_of_any_length(number: int) -> None:
    before = descriptors()
    watched = Watched()
    sources = many_sources(number)
    with connected(sources=sources, misbehave=watched) as (_, connection):
        with_one = descriptors()
        found = connection.get_sources()
        assert [one.address for one in found] == [one.address for one in sources]
        assert descriptors() == with_one
        sessions = 0 if number < 2 else min(number, 128)
        # Two for each session; one to wait; the one that counts them.
        assert watched.most <= with_one + 2 * sessions + 2
        assert watched.most >= with_one + 2 * sessions
    assert descriptors() == before


@pytest.mark.parametrize("long_read", [-1.0, 9e9])
@pytest.mark.parametrize("change", [0, -30, -1, 1, 30])
def test_number_of_the_last_time_saves_a_request_or_nothing(
    change: int, long_read: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_queries, "_LONG_READ", long_read)
    with connected(sources=many_sources(40)) as (daemon, connection):
        assert len(connection.get_sources()) == 40
        assert daemon.requests[0] == ("N_SOURCES", None)
        asked = len(daemon.requests)
        daemon.sources = many_sources(40 + change)
        found = connection.get_sources()
        assert [one.address for one in found] == [one.address for one in daemon.sources]
        # At once for the last one of before; counted while the others are read.
        assert daemon.requests[asked] == ("SOURCE_DATA", 39)
        if not change:
            assert daemon.requests[asked:].count(("N_SOURCES", None)) == 1


def test_all_records_are_asked_for_before_an_answer_is_waited_for() -> None:
    script = ScriptedDaemon(sources=many_sources(40))
    batches: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.setblocking(False)
        with by_hand(f"127.0.0.1:{daemon.getsockname()[1]}", 20, 0) as session:
            requests = read_list(session, Source)
            next(requests)
            with pytest.raises(StopIteration) as end:
                while True:
                    batches.append(answer_all(script, daemon))
                    requests.send(True)
    assert len(end.value.value) == 40
    # The number, the last one, the others with the number, and the last one.
    assert batches == [1, 1, 40, 1]


def test_unix_socket_never_has_a_high_latency() -> None:
    watched = Watched()
    with (
        short_directory() as directory,
        connected(
            address=f"{directory}/chronyd.sock",
            sources=many_sources(20),
            misbehave=watched,
        ) as (_, connection),
    ):
        before = descriptors()
        assert len(connection.get_sources()) == 20
        assert watched.most == before


def test_lost_request_is_sent_again_alone() -> None:
    lost: list[int | None] = []

    def losing(request: Request, reply: bytes) -> Iterable[bytes]:
        if request.index in (3, 17, 39) and lost.count(request.index) == 0:
            lost.append(request.index)
            return ()
        return (reply,)

    sources = many_sources(40)
    waits: Any = {"timeout": 0.5, "retries": 1}
    with connected(sources=sources, misbehave=losing, **waits) as (daemon, connection):
        assert len(connection.get_sources()) == 40
        assert sorted(filter(None, lost)) == [3, 17, 39]
        assert daemon.requests.count(("N_SOURCES", None)) == 2
        asked = [daemon.requests.count(("SOURCE_DATA", index)) for index in range(40)]
        # The last one is asked for before and after the others.
        assert asked == [1 + (index in lost) + (index == 39) for index in range(40)]


def test_silence_in_the_middle_of_a_list() -> None:
    fault = faults.only("SOURCE_DATA", faults.silent, index=3)
    with connected(
        sources=many_sources(40), misbehave=fault, timeout=0.3, retries=1
    ) as (daemon, connection):
        with pytest.raises(
            pychrony.ChronyTimeoutError, match=r"no answer to 2 requests"
        ):
            connection.get_sources()
        assert daemon.requests.count(("SOURCE_DATA", 3)) == 2
        daemon.misbehave = None
        assert len(connection.get_sources()) == 40


@pytest.mark.parametrize("which", ["sources", "get_report sources"])
@pytest.mark.parametrize("times", [1, 9, 10])
def test_source_that_is_not_there(times: int, which: str) -> None:
    name, *arguments = LISTS[which]
    fault = faults.only("SOURCE_DATA", faults.first(times, faults.status(4)), index=3)
    with connected(sources=many_sources(40), misbehave=fault) as (daemon, connection):
        before = descriptors()
        if times < 10:
            assert len(getattr(connection, name)(*arguments)) == 40
            assert descriptors() == before
        else:
            with pytest.raises(
                pychrony.ChronyDataError, match="changed during each of 10"
            ):
                getattr(connection, name)(*arguments)
        assert daemon.requests.count(("SOURCE_DATA", 3)) == min(times + 1, 10)


@pytest.mark.parametrize("which", ["sources", "get_report sources"])
def test_error_in_the_middle_of_a_list_closes_all_sessions(which: str) -> None:
    name, *arguments = LISTS[which]
    fault = faults.only("SOURCE_DATA", faults.status(2), index=3)
    with ScriptedDaemon(sources=many_sources(40), misbehave=fault) as daemon:
        before = descriptors()
        with ChronyConnection(daemon.address) as connection:
            with pytest.raises(pychrony.ChronyPermissionError) as caught:
                getattr(connection, name)(*arguments)
            # At once, not only when the traceback lets go of them.
            assert caught.tb is not None
            assert descriptors() == before
            daemon.misbehave = None
            assert len(getattr(connection, name)(*arguments)) == 40


@pytest.mark.interrupts
@pytest.mark.timeout(15)
def test_interrupted_list_closes_all_sessions() -> None:
    fault = faults.only("SOURCE_DATA", faults.silent, index=3)
    with ScriptedDaemon(sources=many_sources(40), misbehave=fault) as daemon:
        before = descriptors()
        with ChronyConnection(daemon.address, timeout=20) as connection:
            with (
                on_alarm(signal.default_int_handler, 0.2),
                pytest.raises(KeyboardInterrupt) as caught,
            ):
                connection.get_sources()
            assert caught.tb is not None
            assert descriptors() == before
            daemon.misbehave = None
            assert len(connection.get_sources()) == 40


@pytest.mark.parametrize("left", range(12))
def test_list_with_few_descriptors(left: int) -> None:
    """They are asked over fewer sessions, or one by one."""
    with connected(sources=many_sources(40)) as (_, connection), descriptors_left(left):
        assert len(connection.get_sources()) == 40


def test_driver_that_leaves_a_list_closes_all_sessions() -> None:
    with (
        ScriptedDaemon(sources=many_sources(40)) as daemon,
        by_hand(daemon.address, 9, 0) as session,
    ):
        before = descriptors()
        requests = read_list(session, Source)
        wait = next(requests)
        waiter = Waiter()
        while descriptors() == before:
            wait = requests.send(waiter.wait(*wait))
        assert descriptors() > before + 40
        requests.close()
        assert descriptors() == before


# --- when many are in flight, decided for each call -------------------------


@pytest.mark.parametrize(("late", "expected"), [(1, 0), (2, 10)])
def test_late_replies_count_for_this_call_only(
    late: int, expected: int, opened: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_queries, "_LONG_READ", 5.0)
    fault = faults.first(late, faults.delayed(0.7))
    sources = many_sources(10)
    with connected(sources=sources, misbehave=fault, timeout=20) as (_, connection):
        before = len(opened)
        assert len(connection.get_sources()) == 10
        assert len(opened) == before + expected
        for _ in range(3):
            assert len(connection.get_sources()) == 10
        assert len(opened) == before + expected


@pytest.mark.parametrize(
    ("number", "two_cores", "expected"),
    [(15, True, 0), (16, True, 8), (40, True, 8), (40, False, 0)],
)
def test_lists_of_the_same_machine(
    number: int,
    two_cores: bool,
    expected: int,
    opened: list[Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_queries, "_LONG_READ", 9e9)
    monkeypatch.setattr(_queries, "_TWO_CORES", two_cores)
    sources = many_sources(number)
    with connected(sources=sources, timeout=20) as (_, connection):
        before = len(opened)
        found = connection.get_sources()
        assert [one.address for one in found] == [one.address for one in sources]
        assert len(opened) == before + expected


def test_near_lists_of_other_machines_are_read_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They may limit the rate of requests, as loopback is never limited."""
    monkeypatch.setattr(_queries, "_TWO_CORES", True)
    monkeypatch.setattr(_queries, "_LONG_READ", LONG_READ)
    decide = _queries._requests_in_flight
    for host, near in (("127.0.0.1", 8), ("192.0.2.1", 1)):
        with suppress(pychrony.ChronyConnectionError):  # where there is no route
            session = Session(_address.parse(host), timeouts_of(1.0, 0))
            assert decide(session, 100, 0.0004) == near
            assert decide(session, 100, 0.0006) == 100
            # A busy machine delays the replies for a short list, too.
            assert decide(session, 10, 0.0049) == 1
            assert decide(session, 10, 0.0051) == 10
            session.close()


# --- lists that change while they are read ---------------------------------


def test_number_counted_after_all_was_read_is_that_of_another_moment() -> None:
    everyone = many_sources(7)
    with ScriptedDaemon(sources=everyone[:5]) as daemon:

        def change(_: Request) -> None:
            if daemon.requests == [("N_SOURCES", None)]:
                daemon.sources = everyone[1:]  # one goes, two come
            elif daemon.requests.count(("SOURCE_DATA", 4)) == 2:
                daemon.sources = everyone[2:]  # as many as at first

        daemon.misbehave = seeing(change)
        with ChronyConnection(daemon.address, timeout=20) as connection:
            found = [one.address for one in connection.get_sources()]
        assert found == [one.address for one in everyone[2:]]


class Network:
    """A chronyd whose list changes at any moment, also several times at once.

    Requests and replies are lost, and overtake each other. It lives in the
    thread of the test: a seed says all that happens, and the clock stands
    still until nothing else is left to happen.
    """

    POOL = many_sources(200)
    SCRIPT = ScriptedDaemon(sources=POOL, open_commands=ALL_COMMANDS)

    def __init__(
        self, seed: str, number: int, shortest: int, changes: float, losses: float
    ) -> None:
        self.random = random.Random(seed)
        self.changes = changes
        self.losses = losses
        self.shortest = shortest
        self.list = list(range(number))
        self.fresh = number
        self.history = [tuple(self.list)]
        self.requests: list[tuple[bytes, Any]] = []
        self.replies: list[tuple[bytes, Any]] = []
        self.clock = 0.0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def monotonic(self) -> float:
        return self.clock

    def change(self) -> None:
        """Remove a source as chronyd does, or append one that was never there."""
        if self.random.random() < 0.5 and len(self.list) > self.shortest:
            del self.list[self.random.randrange(len(self.list))]
        elif self.fresh < len(self.POOL):
            self.list.append(self.fresh)
            self.fresh += 1
        self.history.append(tuple(self.list))

    def answer(self, request: bytes) -> bytes:
        code = int.from_bytes(request[4:6], "big")
        if code in (15, 34, 69):  # by index
            index = int.from_bytes(request[20:24], "big")
            which = self.list[index] if index < len(self.list) else len(self.POOL)
            request = request[:20] + which.to_bytes(4, "big") + request[24:]
        (reply,) = self.SCRIPT._answer(request)
        assert isinstance(reply, bytes)
        name, asked = self.SCRIPT.requests.pop()
        if name == "N_SOURCES":
            reply = reply[:28] + len(self.list).to_bytes(4, "big") + reply[32:]
        elif name == "AUTH_DATA":
            there = {self.POOL[one].address for one in self.list}
            if asked not in there:
                reply = reply[:6] + b"\0\1\0\4" + reply[10:28]  # no such source
        return reply

    def happen(self) -> bool:
        """Let things happen until something arrives; say whether anything did."""
        while True:
            with suppress(BlockingIOError):
                while True:
                    datagram = self.socket.recvfrom(2000)
                    if self.random.random() >= self.losses:
                        self.requests.append(datagram)
            if not (self.requests or self.replies):
                return False
            if self.random.random() < self.changes:
                # As "chronyc reload sources" replaces several.
                for _ in range(self.random.choice((1, 1, 1, 6))):
                    self.change()
            which = self.random.choice((self.requests, self.replies))
            if not which:
                continue
            datagram = which.pop(self.random.randrange(len(which)))
            if which is self.requests:
                self.replies.append((self.answer(datagram[0]), datagram[1]))
            elif self.random.random() >= self.losses:
                with suppress(ConnectionRefusedError):  # by a socket that is closed
                    self.socket.sendto(*datagram)
                return True

    def read(self, kind: type[Any] | str) -> list[Any]:
        """Return the addresses in a list, read as dataclasses or generically."""
        session = Session(_address.parse(self.address), timeouts_of(1.0, 9))
        try:
            requests: Generator[Any, bool, list[Any]] = (
                read_generic(session, kind)
                if isinstance(kind, str)
                else read_list(session, kind)
            )
            waiter = Waiter()
            fd, events, deadline = next(requests)
            while True:
                arrived = waiter.wait(fd, events, 0.0) or self.happen()
                if not arrived:
                    self.clock = max(self.clock, deadline)
                fd, events, deadline = requests.send(arrived)
        except StopIteration as end:
            return [
                one["address"].value if isinstance(one, dict) else one.address
                for one in end.value
            ]
        finally:
            session.close()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Network]]:
    def monotonic() -> float:
        return made[-1].clock

    made: list[Network] = []

    class Made(Network):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    for module in (_waiting, _session, _queries):
        monkeypatch.setattr(module, "monotonic", monotonic)
    yield Made
    for one in made:
        one.socket.close()


@pytest.mark.parametrize(
    ("kind", "reads", "shortest"),
    [
        *(
            (Source, 500, 5),
            (pychrony.SourceStats, 120, 5),
            (pychrony.AuthData, 120, 5),
        ),
        ("sources", 100, 5),
        # One by one.
        *((Source, 200, 1), (pychrony.AuthData, 120, 1)),
    ],
)
@pytest.mark.parametrize(("changes", "losses"), [(0.02, 0.0), (0.1, 0.0), (0.05, 0.05)])
def test_list_is_that_of_one_moment(
    kind: type[Any] | str,
    reads: int,
    shortest: int,
    changes: float,
    losses: float,
    network: type[Network],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if shortest == 1:
        monkeypatch.setattr(_queries, "_LONG_READ", 9e9)
    wrong, changed = [], 0
    for seed in range(reads):
        number = shortest + seed % 8
        there = network(f"{seed} {changes} {losses}", number, shortest, changes, losses)
        try:
            found = there.read(kind)
        except pychrony.ChronyDataError:
            continue  # it never held still
        finally:
            there.socket.close()
        moments = [[there.POOL[one].address for one in then] for then in there.history]
        changed += len(moments) > 1
        if found not in moments:
            wrong.append((seed, found, there.history))
    assert wrong == []
    assert changed > reads / 10
