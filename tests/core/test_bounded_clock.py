"""The bounded clock over a scripted chronyd: its thread, its errors, its waits."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from math import inf, nan
from typing import Any

import pytest
from bounded_simulator import Machine
from helpers import in_child, in_threads, on_full_disk, python

from pychrony import (
    BoundedClock,
    BoundedTime,
    BoundStatus,
    ChronyAddressError,
    ChronyDataError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
    ChronyUsageError,
    ClockUnboundError,
    TrackingStatus,
)
from pychrony.__main__ import main
from pychrony.bounded import _reader
from pychrony.bounded._bounds import Bounds
from pychrony.testing import ScriptedDaemon, faults, make_tracking

SECOND = 10**9


def tracking(**changes: object) -> TrackingStatus:
    good: dict[str, object] = {
        "ref_time": time.time() - 10,
        "offset": 0.0,
        "root_delay": 0.001,
        "root_dispersion": 0.0005,
    }
    return make_tracking(**{**good, **changes})


LOCAL = {"reference_id": 0x7F7F0101, "reference_ip": ""}
UNSYNCHRONISED = {"reference_id": 0, "reference_ip": "", "stratum": 0}


@pytest.fixture
def daemon() -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tracking=tracking()) as daemon:
        yield daemon


def test_interval_holds_true_time(daemon: ScriptedDaemon) -> None:
    for offset in (0.0, 0.25, -0.25):
        daemon.tracking = tracking(offset=offset)
        with BoundedClock(daemon.address) as clock:
            before = time.time_ns()
            earliest, latest, status = clock.now()
            after = time.time_ns()
            assert earliest - offset * SECOND < after
            assert latest - offset * SECOND > before
            # 0.5 ms dispersion, half of 1 ms delay, 10 s at 50 ppm
            least = 2 * (0.0005 + 0.0005 + (10 + offset) * 50e-6)
            assert least <= (latest - earliest) / SECOND < 0.5
            assert status is BoundStatus.SYNCHRONIZED
            assert clock.now()[:2] < clock.now()[:2]


def test_bounded_time() -> None:
    one = BoundedTime(1_000_000_000_000_000_001, 1_000_000_000_000_002_002, _status())
    two = BoundedTime(one.latest + 1, one.latest + 9, _status())
    overlapping = BoundedTime(one.latest, one.latest + 9, _status())
    assert one.is_before(two) and two.is_after(one)
    assert one.is_before(two.earliest) and two.is_after(one.latest)
    assert not (one.is_before(overlapping) or overlapping.is_after(one))
    assert not (one.is_after(two) or two.is_before(one) or one.is_before(one.latest))
    assert one == BoundedTime(*one) and one != two
    assert one.error_bound == 1001e-9
    epoch = datetime(2001, 9, 9, 1, 46, 40, tzinfo=timezone.utc)
    assert one.datetime() == (epoch, epoch + timedelta(microseconds=3))
    begin, end = BoundedTime(-(10**30), 10**30, _status()).datetime()
    assert (begin.year, end.year) == (1, 9999)


def _status() -> BoundStatus:
    return BoundStatus.SYNCHRONIZED


def test_bounded_times_have_no_order() -> None:
    one, two = BoundedTime(1, 2, _status()), BoundedTime(2, 3, _status())
    comparisons: list[Callable[[], object]] = [
        lambda: one < two,
        lambda: one <= two,
        lambda: one > two,
        lambda: one >= two,
        lambda: one > (1, 2),
        lambda: sorted([two, one]),
    ]
    for compare in comparisons:
        with pytest.raises(TypeError, match="is_before"):
            compare()


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 0.0},
        {"interval": 3601.0},
        {"max_drift_ppm": -1.0},
        {"max_drift_ppm": float("inf")},
        {"holdover": float("nan")},
        {"reference_error": -1e-9},
    ],
)
def test_numbers_outside_of_their_range(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BoundedClock(**options)


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        *((one, "of this machine") for one in ("192.0.2.7", "192.0.2.7:323", "::")),
        *((one, "of this machine") for one in ("ntp1.example", "[2001:db8::1]:323")),
        ("127.0.0.1:99999", "not an address of a chronyd"),
    ],
)
def test_address_of_another_machine_or_none_is_refused(
    address: str, cause: str
) -> None:
    with pytest.raises(ChronyAddressError, match=cause):
        BoundedClock(address)


@pytest.mark.parametrize(
    "address",
    ["/run/chrony/chronyd.sock", "127.0.0.1", "127.9.9.9:99", "::1", "[::1]:3"],
)
def test_address_of_this_machine(address: str) -> None:
    assert address in repr(BoundedClock(address))
    assert "of this machine" in repr(BoundedClock())


def test_error_bound_at() -> None:
    record = tracking(offset=-0.25)
    assert record.error_bound == 0.251
    assert record.error_bound_at(0.0, 50.0) == 0.251
    assert record.error_bound_at(-5.0, 50.0) == 0.251
    assert record.error_bound_at(100.0, 50.0) == pytest.approx(0.256)
    assert tracking(**LOCAL).error_bound_at(1.0, 50.0) is None


def test_clock_is_opened_and_closed(daemon: ScriptedDaemon) -> None:
    clock = BoundedClock(daemon.address)
    with pytest.raises(ChronyUsageError, match="not open"):
        clock.now()
    clock.close()
    for _ in range(2):
        with clock as same:
            assert same is clock and "(open)" in repr(clock)
            with pytest.raises(ChronyUsageError, match="open already"):
                clock.__enter__()
            clock.now()
        with pytest.raises(ChronyUsageError, match="is closed"):
            clock.now()
        with pytest.raises(ChronyUsageError, match="is closed"):
            clock.wait_until_bounded()


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (LOCAL, "directive local"),
        (UNSYNCHRONISED, "not synchronised"),
        ({"ref_time": time.time() + 9999}, "in the future"),
    ],
)
def test_nothing_bounds_the_clock(
    daemon: ScriptedDaemon, changes: dict[str, object], cause: str
) -> None:
    daemon.tracking = tracking(**changes)
    with BoundedClock(daemon.address, interval=0.01) as clock:
        with pytest.raises(ClockUnboundError, match=cause) as caught:
            clock.now()
        assert isinstance(caught.value.__cause__, (ClockUnboundError, ChronyDataError))
        with pytest.raises(ChronyTimeoutError, match=rf"0\.05 s: .*{cause}"):
            clock.wait_until_bounded(timeout=0.05)
        with pytest.raises(ChronyTimeoutError, match=cause):
            asyncio.run(clock.async_wait_until_bounded(timeout=0.05))
        daemon.tracking = tracking()
        assert clock.wait_until_bounded(timeout=30) is not None
        found = asyncio.run(clock.async_wait_until_bounded())
        assert found.earliest < clock.now().latest


def test_silent_daemon_bounds_nothing(daemon: ScriptedDaemon) -> None:
    daemon.misbehave = faults.silent
    with BoundedClock(daemon.address, interval=0.01) as clock:
        with pytest.raises(ClockUnboundError) as caught:
            clock.now()
        assert isinstance(caught.value.__cause__, ChronyTimeoutError)
        daemon.misbehave = None
        asyncio.run(clock.async_wait_until_bounded(timeout=30))


def test_daemon_that_refuses() -> None:
    with ScriptedDaemon(tracking=tracking(), open_commands=[]) as daemon:
        with pytest.raises(ChronyPermissionError):
            BoundedClock(daemon.address).__enter__()


def test_error_without_libchrony() -> None:
    code = (
        "import pychrony\n"
        "try: pychrony.BoundedClock('127.0.0.1:9').__enter__()\n"
        "except pychrony.ChronyLibraryError: print('as elsewhere')"
    )
    said = python(code, PYCHRONY_LIBCHRONY="/nowhere/libchrony.so.0").stdout
    assert said == "as elsewhere\n"


def test_error_without_a_thread(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    clock = BoundedClock(daemon.address)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(ChronyError, match="cannot start the thread"):
            clock.__enter__()
    with clock:
        clock.now()


def test_commit_wait(daemon: ScriptedDaemon) -> None:
    with BoundedClock(daemon.address, interval=0.01) as clock:
        written = clock.now()
        assert clock.wait_until_past(written.latest).is_after(written)
        later = asyncio.run(clock.async_wait_until_past(clock.now().latest))
        assert later.is_after(written)
        assert clock.wait_until_past(written.latest, timeout=0.0).is_after(written)
        far = written.latest + 3600 * SECOND
        with pytest.raises(
            ChronyTimeoutError, match=r"not certainly past within 0\.05"
        ):
            clock.wait_until_past(far, timeout=0.05)
        with pytest.raises(ChronyTimeoutError, match="within nan s"):
            clock.wait_until_past(far, timeout=nan)
        with pytest.raises(ChronyTimeoutError, match=str(far)):
            asyncio.run(clock.async_wait_until_past(far, timeout=0.05))


def test_close_ends_a_wait(daemon: ScriptedDaemon) -> None:
    clock = BoundedClock(daemon.address)
    with clock:
        closer = threading.Timer(0.1, clock.close)
        closer.start()
        with pytest.raises(ChronyUsageError, match="is closed"):
            clock.wait_until_past(clock.now().latest + 3600 * SECOND)
        closer.join()


def test_two_hundred_threads(daemon: ScriptedDaemon) -> None:
    def ask(_: int) -> None:
        last = clock.now()
        for _ in range(50):
            now = clock.now()
            assert now.latest > last.earliest
            last = now
        clock.wait_until_past(last.latest, timeout=60)

    with BoundedClock(daemon.address, interval=0.005) as clock:
        in_threads(200, ask)


def test_thread_survives_what_it_does_not_know(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Bounds.read

    def fail(self: Bounds) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Bounds, "read", fail)
        with BoundedClock(daemon.address, interval=0.01) as clock:
            with pytest.raises(ClockUnboundError, match="MemoryError"):
                clock.now()
            patch.setattr(Bounds, "read", read)
            clock.wait_until_bounded(timeout=30)


def test_thread_that_is_ended_is_no_secret(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(_: Bounds) -> None:
        raise SystemExit

    with BoundedClock(daemon.address, interval=0.01) as clock:
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        monkeypatch.setattr(Bounds, "read", leave)
        with pytest.raises(ChronyUsageError, match="has ended"):
            while True:
                clock.now()


def test_dropped_open(daemon: ScriptedDaemon) -> None:
    clock = BoundedClock(daemon.address, interval=0.01).__enter__()
    clock.now()
    with pytest.warns(ResourceWarning, match="unclosed <BoundedClock"):
        del clock
        gc.collect()


@pytest.mark.interrupts
def test_forked_child_opens_its_own_clock(daemon: ScriptedDaemon) -> None:
    clock = BoundedClock(daemon.address, interval=0.01)
    with clock:

        def work() -> None:
            with pytest.raises(ChronyUsageError, match="parent of this process"):
                clock.now()
            clock.close()
            with BoundedClock(daemon.address) as another:
                another.now()
            with clock:
                clock.now()

        in_child(work)
        clock.now()


def test_clock_of_the_parent_is_of_no_use(daemon: ScriptedDaemon) -> None:
    """What a forked child does first, here without a fork."""
    with BoundedClock(daemon.address) as clock:
        _reader._in_child()
        with pytest.raises(ChronyUsageError, match="parent of this process"):
            clock.now()


@pytest.mark.parametrize("interval", [0.0001, 60], ids=["reading", "waiting"])
def test_exit_with_an_open_clock(interval: float, daemon: ScriptedDaemon) -> None:
    code = (
        "import pychrony, time\n"
        f"clock = pychrony.BoundedClock({daemon.address!r}, interval={interval})\n"
        "clock.__enter__().now(); time.sleep(0.05)"
    )
    done = python(code, options=["-X", "dev"])
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("name", "value"), [("skew", inf), ("offset", nan), ("root_delay", -1.0)]
)
def test_report_that_makes_no_sense(name: str, value: float) -> None:
    machine = Machine()
    bounds = Bounds(machine)
    changes: Any = {name: value}
    bounds._get_tracking = lambda: replace(machine.report(), **changes)
    with pytest.raises(ChronyDataError, match=name):
        bounds.read()


def test_reading_after_the_end_is_not_used() -> None:
    """The thread may be in the middle of one when the clock is closed."""
    bounds = Bounds(Machine())
    bounds.read()
    bounds.now()
    bounds.end("closed")
    bounds.read()
    with pytest.raises(ChronyUsageError, match=r"^closed$"):
        bounds.now()


def test_now_command(
    daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["now", "-H", daemon.address]
    assert main([*where, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["earliest"] < time.time_ns() and found["status"] == "SYNCHRONIZED"
    assert found["latest"] - found["earliest"] <= found["error_bound"] * 2 * SECOND + 1
    assert main(where) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("Earliest time : 20") and last.endswith(": SYNCHRONIZED")
    daemon.tracking = tracking(**LOCAL)
    assert main([*where, "-t", "0.05"]) == 1
    assert "directive local" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["now", "-H", "192.0.2.7"])
    assert "of this machine" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*where, "-t", "nan"])
    assert "'nan' is not a positive number" in capsys.readouterr().err


def test_now_command_on_a_full_disk(daemon: ScriptedDaemon) -> None:
    status, said = on_full_disk("pychrony", "now", "-H", daemon.address)
    assert (status, said) == (1, "cannot write: [Errno 28] No space left on device\n")
