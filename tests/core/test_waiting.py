"""Request generators side by side, driven by hand over pipes."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from select import POLLIN, POLLOUT
from types import FrameType
from typing import Any

import pytest
from helpers import descriptors, limit_descriptors, limit_of_descriptors_restored

from pychrony import ChronyConnectionError, ChronyTimeoutError, _waiting
from pychrony._waiting import Waiter, side_by_side, within

NEVER = time.monotonic() + 50_000
Slot = Generator[Any, Any, None]


@pytest.fixture
def pipes() -> Iterator[Any]:
    """Make socket pairs that are closed at the end."""
    with ExitStack() as stack:

        def make(number: int) -> list[tuple[socket.socket, socket.socket]]:
            pairs = [socket.socketpair() for _ in range(number)]
            for end in (end for pair in pairs for end in pair):
                stack.enter_context(end)
            return pairs

        yield make


def asking(
    log: list[Any], name: Any, fd: int, deadline: float = NEVER, events: int = POLLIN
) -> Slot:
    """Wait once; log the answer, and that it ended."""
    try:
        log.append((name, (yield fd, events, deadline)))
    except GeneratorExit:
        log.append((name, "closed"))
        raise


@pytest.mark.interrupts
def test_waiter_that_was_interrupted_waits_for_what_it_is_told(pipes: Any) -> None:
    """As by a signal handler that raises an exception, at every instruction."""
    (a, _), (b, to_b) = pipes(2)
    to_b.send(b"!")
    moment = left = 0
    while not left:
        moment += 1
        left = moment
        waiter = Waiter()
        assert not waiter.wait(a.fileno(), POLLIN, 0.0)

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code is not Waiter.wait.__code__:
                return None
            frame.f_trace_opcodes = True
            left -= 1
            if not left:
                raise InterruptedError
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with suppress(InterruptedError):
                waiter.wait(b.fileno(), POLLIN, 0.0)
        finally:
            sys.settrace(before)
        assert waiter.wait(b.fileno(), POLLIN, 0.0)
        assert not waiter.wait(a.fileno(), POLLIN, 0.0)
    assert moment > 5  # opcodes, or lines where Python has no better


def test_limit_comes_before_later_deadlines() -> None:
    log: list[Any] = []
    requests = within(1000, "there", asking(log, "a", 7))
    begin = time.monotonic()
    fd, events, deadline = next(requests)
    assert (fd, events) == (7, POLLIN)
    assert begin + 900 < deadline <= time.monotonic() + 1000
    with pytest.raises(StopIteration):
        requests.send(True)
    assert log == [("a", True)]
    soon = time.monotonic() + 10
    requests = within(1000, "there", asking(log, "b", 7, soon))
    assert next(requests) == (7, POLLIN, soon)
    requests.close()
    assert log[1:] == [("b", "closed")]


def test_after_the_limit_one_answer_counts_if_it_is_there() -> None:
    """This process may have been held up; but it does not wait for another."""
    log: list[Any] = []

    def twice() -> Slot:
        yield from asking(log, "a", 7)
        yield from asking(log, "b", 7)

    for ready, expected in (
        (False, [("a", "closed")]),
        (True, [("a", True), ("b", "closed")]),
    ):
        log.clear()
        requests = within(1e-9, "there", twice())
        next(requests)
        with pytest.raises(
            ChronyTimeoutError, match=r"^there: not done within the limit"
        ):
            requests.send(ready)
        assert log == expected
    requests = within(1e-9, "there", asking(log, "c", 7))
    next(requests)
    with pytest.raises(StopIteration):
        requests.send(True)


def test_side_by_side_of_nothing() -> None:
    before = descriptors()
    assert list(side_by_side([])) == []
    assert descriptors() == before


def test_each_slot_is_told_that_its_own_descriptor_is_ready(pipes: Any) -> None:
    (a, to_a), (b, to_b) = pipes(2)
    log: list[Any] = []
    before = descriptors()
    requests = side_by_side(
        [asking(log, "a", a.fileno()), asking(log, "b", b.fileno())]
    )
    fd, events, deadline = next(requests)
    assert events == POLLIN
    assert deadline == NEVER
    waiter = Waiter()
    assert not waiter.wait(fd, events, 0.0)
    to_b.send(b"!")
    assert waiter.wait(fd, events, 0.0)
    assert requests.send(True) == (fd, POLLIN, NEVER)
    assert log == [("b", True)]
    to_a.send(b"!")
    assert waiter.wait(fd, events, 0.0)
    with pytest.raises(StopIteration):  # at once, without a last wait
        requests.send(True)
    assert log == [("b", True), ("a", True)]
    assert descriptors() == before


def test_word_of_the_driver_does_not_matter_side_by_side(pipes: Any) -> None:
    """It may have waited for too short, or looked before the answer came."""
    ((a, to_a),) = pipes(1)
    log: list[Any] = []
    requests = side_by_side([asking(log, "a", a.fileno())])
    wait = next(requests)
    assert requests.send(True) == wait
    assert requests.send(False) == wait
    to_a.send(b"!")
    with pytest.raises(StopIteration):
        requests.send(False)
    assert log == [("a", True)]


def test_slot_is_told_that_it_can_write(pipes: Any) -> None:
    ((a, to_a),) = pipes(1)
    a.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            a.send(b"!" * 1000)
    log: list[Any] = []
    requests = side_by_side([asking(log, "a", a.fileno(), events=POLLOUT)])
    fd, events, _ = next(requests)
    assert not Waiter().wait(fd, events, 0.0)
    to_a.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            to_a.recv(10**6)
    assert Waiter().wait(fd, events, 0.0)
    with pytest.raises(StopIteration):
        requests.send(True)
    assert log == [("a", True)]


def test_deadlines_of_several_slots(pipes: Any) -> None:
    """The earliest is waited for; who is late is told, and the others wait on."""
    (a, _), (b, _), (c, _) = pipes(3)
    log: list[Any] = []
    soon, past = time.monotonic() + 1000, time.monotonic()
    requests = side_by_side(
        [
            asking(log, "a", a.fileno(), soon),
            asking(log, "b", b.fileno()),
            asking(log, "c", c.fileno(), past),
        ]
    )
    fd, _, deadline = next(requests)
    assert deadline == past
    assert requests.send(False) == (fd, POLLIN, soon)
    assert log == [("c", False)]
    requests.close()
    assert log == [("c", False), ("a", "closed"), ("b", "closed")]


def test_deadline_of_one_that_was_answered_is_forgotten(pipes: Any) -> None:
    (a, to_a), (b, _) = pipes(2)
    log: list[Any] = []
    past = time.monotonic()
    requests = side_by_side(
        [asking(log, "a", a.fileno(), past), asking(log, "b", b.fileno())]
    )
    next(requests)
    to_a.send(b"!")
    requests.send(True)
    # It is looked at anew once it has passed, not before.
    _, _, deadline = requests.send(False)
    assert deadline == NEVER
    assert log == [("a", True)]
    requests.close()


def test_answer_that_is_there_counts_after_its_deadline(pipes: Any) -> None:
    ((a, to_a),) = pipes(1)
    log: list[Any] = []
    requests = side_by_side([asking(log, "a", a.fileno(), 0.0)])
    next(requests)
    to_a.send(b"!")
    with pytest.raises(StopIteration):
        requests.send(False)
    assert log == [("a", True)]


def test_answer_counts_that_comes_while_this_process_is_held_up(
    pipes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any point after the driver's wait: here when the clock is read."""
    ((a, to_a),) = pipes(1)
    log: list[Any] = []
    requests = side_by_side([asking(log, "a", a.fileno(), 0.0)])
    next(requests)

    def late() -> float:
        to_a.send(b"!")
        return NEVER

    monkeypatch.setattr(_waiting, "monotonic", late)
    with pytest.raises(StopIteration):
        requests.send(False)
    assert log == [("a", True)]


def test_more_answers_than_are_taken_at_once_do_not_expire_the_rest(
    pipes: Any,
) -> None:
    number = 200
    pairs = pipes(number)
    log: list[Any] = []
    requests = side_by_side(
        asking(log, index, a.fileno(), 0.0) for index, (a, _) in enumerate(pairs)
    )
    next(requests)
    for _, to_a in pairs:
        to_a.send(b"!")
    rounds = 0
    with pytest.raises(StopIteration):
        while True:
            requests.send(False)
            rounds += 1
    assert sorted(log) == [(index, True) for index in range(number)]
    assert rounds >= 2  # the driver has its turn in between


def test_silent_slot_expires_while_others_answer(pipes: Any) -> None:
    (a, _), (b, to_b) = pipes(2)
    log: list[Any] = []

    def talking() -> Slot:
        while True:
            assert (yield b.fileno(), POLLIN, NEVER)

    requests = side_by_side([talking(), asking(log, "a", a.fileno(), 0.0)])
    next(requests)
    to_b.send(b"!")  # never read, so always ready
    while not log:
        requests.send(True)
    assert log == [("a", False)]
    requests.close()


def test_one_that_is_polite_lets_the_others_and_the_driver_go_first(
    pipes: Any,
) -> None:
    ((a, to_a),) = pipes(1)
    log: list[Any] = []

    def polite(name: str) -> Slot:
        for number in range(3):
            log.append((name, number))
            assert (yield None) is None

    requests = side_by_side([polite("p"), polite("q"), asking(log, "a", a.fileno())])
    fd, _, deadline = next(requests)
    assert deadline == 0.0  # it has only to look
    assert log == [("p", 0), ("q", 0)]
    to_a.send(b"!")
    requests.send(False)
    assert log[2:] == [("p", 1), ("q", 1), ("a", True)]
    assert requests.send(False) == (fd, POLLIN, 0.0)
    with pytest.raises(StopIteration):
        requests.send(False)
    assert log[5:] == [("p", 2), ("q", 2)]


@pytest.mark.parametrize("first", [True, False])
def test_error_of_one_closes_the_others(first: bool, pipes: Any) -> None:
    (a, to_a), (b, _) = pipes(2)
    log: list[Any] = []

    def failing() -> Slot:
        if not first:
            yield a.fileno(), POLLIN, NEVER
        raise OSError(errno.EIO, "broken")
        yield

    before = descriptors()
    others = [asking(log, "b", b.fileno()), asking(log, "c", b.fileno())]
    requests = side_by_side([others[0], failing(), *others[1 : 1 + first]])
    with pytest.raises(OSError, match="broken") as caught:
        next(requests)
        to_a.send(b"!")
        requests.send(True)
    # At once, not only when nobody refers to them. The third was never begun.
    assert caught.tb is not None
    assert log == [("b", "closed")]
    assert descriptors() == before


@pytest.mark.parametrize("begun", [True, False])
def test_driver_that_leaves_closes_all(begun: bool, pipes: Any) -> None:
    pairs = pipes(5)
    log: list[Any] = []
    before = descriptors()
    requests = side_by_side(
        asking(log, index, a.fileno()) for index, (a, _) in enumerate(pairs)
    )
    if begun:
        next(requests)
        assert descriptors() == before + 1
    requests.close()
    assert log == [(index, "closed") for index in range(5 * begun)]
    assert descriptors() == before


def test_error_that_the_driver_throws_in_closes_all(pipes: Any) -> None:
    ((a, _),) = pipes(1)
    log: list[Any] = []
    before = descriptors()
    requests = side_by_side([asking(log, "a", a.fileno())])
    next(requests)
    with pytest.raises(KeyboardInterrupt):
        requests.throw(KeyboardInterrupt)
    assert log == [("a", "closed")]
    assert descriptors() == before


def test_descriptor_that_was_closed_and_opened_again_with_the_same_number() -> None:
    log: list[Any] = []

    def twice() -> Slot:
        for number in range(3):
            one, other = socket.socketpair()
            with one, other:
                fds.append(one.fileno())
                other.send(b"!")
                log.append((number, (yield one.fileno(), POLLIN, NEVER)))

    fds: list[int] = []
    Waiter().drive(side_by_side([twice()]))
    assert fds == fds[:1] * 3
    assert log == [(0, True), (1, True), (2, True)]


def test_descriptor_number_that_is_used_again(pipes: Any) -> None:
    """One closes its descriptor, and another gets the number for its own."""
    ((a, to_a),) = pipes(1)
    log: list[Any] = []
    fds: list[int] = []

    def first() -> Slot:
        one, other = socket.socketpair()
        with one, other:
            fds.append(one.fileno())
            assert not (yield one.fileno(), POLLIN, 0.0)

    def second() -> Slot:
        assert (yield a.fileno(), POLLIN, NEVER)
        one, other = socket.socketpair()
        with one, other:
            fds.append(one.fileno())
            log.append((yield one.fileno(), POLLIN, time.monotonic()))
            other.send(b"!")
            log.append((yield one.fileno(), POLLIN, NEVER))

    requests = side_by_side([first(), second()])
    next(requests)
    requests.send(False)  # the first expires
    to_a.send(b"!")
    with pytest.raises(StopIteration):
        while True:
            requests.send(True)
    assert fds[0] == fds[1]
    assert log == [False, True]


def test_what_comes_for_one_that_waits_no_more_disturbs_nobody(pipes: Any) -> None:
    (a, to_a), (b, to_b) = pipes(2)
    log: list[Any] = []

    def patient() -> Slot:
        log.append((yield a.fileno(), POLLIN, 0.0))
        log.append((yield b.fileno(), POLLIN, NEVER))
        log.append((yield a.fileno(), POLLIN, NEVER))

    requests = side_by_side([patient()])
    fd, events, _ = next(requests)
    _, _, deadline = requests.send(False)
    assert deadline == NEVER
    to_a.send(b"!")  # too late
    requests.send(True)
    assert log == [False]
    # It is told once, else the driver would be woken for ever.
    assert not Waiter().wait(fd, events, 0.0)
    to_b.send(b"!")
    requests.send(True)
    # And not lost for who asks for it later.
    with pytest.raises(StopIteration):
        while True:
            requests.send(True)
    assert log == [False, True, True]


def test_descriptor_that_was_expected_before_is_expected_again(pipes: Any) -> None:
    ((a, to_a),) = pipes(1)
    answers: list[bool] = []

    def again() -> Slot:
        for _ in range(5):
            to_a.send(b"!")
            answers.append((yield a.fileno(), POLLIN, NEVER))
            a.recv(1)
            answers.append((yield a.fileno(), POLLIN, 0.0))

    Waiter().drive(side_by_side([again()]))
    assert answers == [True, False] * 5


def test_side_by_side_within_side_by_side(pipes: Any) -> None:
    pairs = pipes(9)
    log: list[Any] = []
    for _, to_a in pairs:
        to_a.send(b"!")
    Waiter().drive(
        side_by_side(
            side_by_side(asking(log, a.fileno(), a.fileno()) for a, _ in pairs[n::3])
            for n in range(3)
        )
    )
    assert sorted(log) == sorted((a.fileno(), True) for a, _ in pairs)


def test_no_descriptor_to_wait_with() -> None:
    log: list[Any] = []
    requests = side_by_side([asking(log, "a", 0)])
    with limit_of_descriptors_restored():
        limit_descriptors(0)
        with pytest.raises(ChronyConnectionError, match="Too many open") as caught:
            next(requests)
    assert isinstance(caught.value.__cause__, OSError)
    assert log == []


def test_deadline_that_is_over_is_no_endless_wait() -> None:
    read, write = os.pipe()
    try:
        assert not Waiter().wait(read, POLLIN, 0.0)
        os.write(write, b"!")
        assert Waiter().wait(read, POLLIN, 0.0)
    finally:
        os.close(read)
        os.close(write)


def test_descriptor_that_was_waited_for_before_wakes_nobody() -> None:
    one, other = socket.socketpair()
    with one, other:
        waiter = Waiter()
        other.send(b"!")
        assert waiter.wait(one.fileno(), POLLIN, 0.0)
        assert not waiter.wait(other.fileno(), POLLIN, 0.0)
        assert waiter.wait(other.fileno(), POLLOUT, 0.0)
        assert not waiter.wait(other.fileno(), POLLIN, 0.0)
        assert waiter.wait(one.fileno(), POLLIN, 0.0)
