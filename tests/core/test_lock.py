"""The lock around libchrony's buffer, and what may run while it is held."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from pychrony import ChronyConnection, _decode, _library
from pychrony._libchrony import ffi
from pychrony.testing import ScriptedDaemon, make_source, make_tracking

OURS, OTHER = "192.0.2.1", "198.51.100.222"


@pytest.fixture
def clocks() -> Iterator[tuple[ChronyConnection, ChronyConnection]]:
    """Connections to two clocks that follow different sources."""
    with (
        ScriptedDaemon(tracking=make_tracking(reference_ip=OURS)) as daemon,
        ScriptedDaemon(tracking=make_tracking(reference_ip=OTHER)) as other,
        ChronyConnection(daemon.address, timeout=20) as connection,
        ChronyConnection(other.address, timeout=20) as spare,
    ):
        connection.get_tracking()
        spare.get_tracking()
        yield connection, spare


def at_instruction(left: list[int], action: Callable[[], Any]) -> Callable[..., Any]:
    """Return a trace function that runs ``action`` once, as a handler would run.

    It does so when it has counted the only item of ``left`` down.
    """

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        left[0] -= 1
        if not left[0]:
            action()
        return trace

    return trace


@pytest.mark.interrupts
def test_another_clock_read_at_any_instruction_changes_no_address(
    clocks: tuple[ChronyConnection, ChronyConnection],
) -> None:
    sessions = [clock._session for clock in clocks]
    assert sessions[0] is not None and sessions[1] is not None
    handle, other_handle = sessions[0]._handle, sessions[1]._handle
    read = _decode._string_reader(_library.load())
    others: list[str] = []
    number = reached = 0
    while reached == number:
        number += 1
        left = [number]
        trace = at_instruction(left, lambda: others.append(read(other_handle, 1)))
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            address = read(handle, 1)
        finally:
            sys.settrace(before)
        assert address == OURS
        reached = number - max(left[0], 0)
    assert number > 8  # instructions, or lines where Python has no better
    assert set(others) == {OTHER}


@pytest.mark.interrupts
def test_finalizers_may_read_another_clock(
    clocks: tuple[ChronyConnection, ChronyConnection],
) -> None:
    """Before Python 3.12 any allocation may run one."""
    connection, spare = clocks
    wrong: list[str] = []
    runs = 0

    class Cycle:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            nonlocal runs
            if threading.current_thread() is not threading.main_thread():
                return  # a daemon's own thread cannot wait for its answer
            runs += 1
            found = spare.get_tracking().reference_ip
            if found != OTHER:
                wrong.append(found)

    before = gc.get_threshold()
    gc.set_threshold(10)
    try:
        while runs < 500:
            Cycle()
            assert connection.get_tracking().reference_ip == OURS
    finally:
        gc.set_threshold(*before)
        gc.collect()
    assert wrong == []


def test_text_is_read_again_where_another_was_read_meanwhile() -> None:
    """By a signal handler or a finalizer, into the same buffer."""
    calls: list[int] = []

    def read(_: object, index: int) -> object:
        calls.append(index)
        if len(calls) == 1:
            assert _library.read_text(lambda *_: ffi.NULL, None, 0) == ""
        return text

    text = ffi.new("char[]", OURS.encode())
    assert _library.read_text(read, None, 7) == OURS
    assert calls == [7, 7]


@pytest.mark.parametrize("call", [_library.call_locked, _library.read_text])
def test_exception_under_the_lock_releases_it(call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        call(int, "x", 10)
    got: list[bool] = []

    def take() -> None:
        got.append(_library.lock.acquire(timeout=5))
        _library.lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert got == [True]
    assert gc.isenabled()


def test_garbage_collector_is_left_as_another_thread_has_set_it() -> None:
    try:
        _library.call_locked(gc.disable)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_collector_that_is_off_stays_off_while_lists_are_read() -> None:
    sources = [make_source(address=f"10.0.0.{number}") for number in range(1, 21)]
    with (
        ScriptedDaemon(sources=sources) as daemon,
        ChronyConnection(daemon.address) as connection,
    ):
        gc.disable()
        try:
            connection.get_sources()
            assert not gc.isenabled()
        finally:
            gc.enable()
