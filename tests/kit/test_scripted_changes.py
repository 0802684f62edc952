"""The records of a scripted daemon are replaced while it runs."""

from __future__ import annotations

import struct
import threading

import pytest
from kit_helpers import SERVER_STATS, TRACKING, ask, connected, read_tracking, request

from pychrony.testing import (
    Request,
    ScriptedDaemon,
    make_activity,
    make_rtc_data,
    make_select_data,
    make_server_stats,
    make_smoothing,
    make_source,
    make_source_stats,
    make_tracking,
)


def test_records_are_replaced_while_it_runs() -> None:
    with connected() as (daemon, connection):
        daemon.tracking = make_tracking(stratum=9)
        assert connection.get_tracking().stratum == daemon.tracking.stratum == 9

        daemon.sources = [make_source(address=f"192.0.2.{n}") for n in range(5)]
        addresses = [one.address for one in daemon.sources]
        for records in (connection.get_sources(), connection.get_source_stats()):
            assert [one.address for one in records] == addresses

        daemon.source_stats = (make_source_stats(samples=n) for n in range(7))
        assert [one.samples for one in daemon.source_stats] == list(range(7))
        (count,) = ask(daemon, request(14, 32))
        assert count[28:] == struct.pack("!I", 7)

        daemon.rtc_data = make_rtc_data(runs=8)
        assert daemon.rtc_data.runs == 8
        rtc_data = connection.get_rtc_data()
        assert rtc_data is not None and rtc_data.runs == 8
        daemon.rtc_data = None
        assert connection.get_rtc_data() is None

        daemon.smoothing = make_smoothing(wander=0.5)
        smoothing = connection.get_smoothing()
        assert smoothing is not None and smoothing.wander == 0.5
        daemon.smoothing = None
        assert connection.get_smoothing() is None

        daemon.activity = make_activity(offline=8)
        assert connection.get_activity().offline == daemon.activity.offline == 8


@pytest.mark.parametrize("lengths", [(3, 1, 2), (1, 3, 2), (1, 2, 3), (0, 0, 0)])
def test_the_longest_list_is_counted(lengths: tuple[int, int, int]) -> None:
    sources, stats, selected = lengths
    with ScriptedDaemon(
        sources=[make_source()] * sources,
        source_stats=[make_source_stats()] * stats,
        select_data=[make_select_data()] * selected,
    ) as daemon:
        (count,) = ask(daemon, request(14, 32))
    assert count[28:] == struct.pack("!I", max(lengths))


def test_none_puts_the_default_back() -> None:
    daemon = ScriptedDaemon(
        sources=[make_source(address="::1")],
        source_stats=[],
        auth_data=[],
        server_stats=SERVER_STATS,
        tracking=TRACKING,
    )
    daemon.source_stats = None
    daemon.auth_data = None
    assert [one.address for one in daemon.source_stats] == ["::1"]
    assert [one.address for one in daemon.auth_data] == ["::1"]
    daemon.sources = None
    assert daemon.sources == ScriptedDaemon().sources
    assert daemon.source_stats == ScriptedDaemon().source_stats
    daemon.server_stats = None
    daemon.tracking = None
    assert daemon.server_stats == make_server_stats()
    assert ScriptedDaemon.tracking.__get__(daemon, ScriptedDaemon) != TRACKING


def test_its_class_can_be_inspected() -> None:
    for name in ("tracking", "sources"):
        assert getattr(ScriptedDaemon, name) is vars(ScriptedDaemon)[name]
    assert "Attributes:" in str(ScriptedDaemon.__doc__)


def test_a_hook_may_replace_records() -> None:
    def hook(request: Request, reply: bytes) -> list[bytes]:
        daemon.tracking = make_tracking(stratum=daemon.tracking.stratum + 1)
        return [reply]

    with ScriptedDaemon(misbehave=hook) as daemon:
        assert [read_tracking(daemon).stratum for _ in range(3)] == [2, 3, 4]


def test_threads_may_replace_different_records() -> None:
    daemon = ScriptedDaemon()

    def change() -> None:
        for n in range(50):
            daemon.rtc_data = make_rtc_data(runs=n)

    thread = threading.Thread(target=change)
    thread.start()
    for n in range(50):
        daemon.tracking = make_tracking(stratum=n)
    thread.join()
    assert daemon.rtc_data is not None
    assert (daemon.tracking.stratum, daemon.rtc_data.runs) == (49, 49)
