"""The blocking connection: what published 2.x promised, and its limits."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

import pytest
from helpers import QUICK, connected, many_sources

import pychrony
from pychrony import ChronyConnection, ChronyTimeoutError, ChronyUsageError, Transport
from pychrony._session import Session
from pychrony.testing import ALL_COMMANDS, ScriptedDaemon, faults


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


def test_connection_without_with_opens_at_the_first_report(address: str) -> None:
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
    with connected(address=address, open_commands=ALL_COMMANDS) as (daemon, connection):
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
def test_timeout_retries_and_limit_have_a_range(patience: dict[str, Any]) -> None:
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
    """Each answer comes in time, all of them would take twenty seconds."""
    script: Any = {"sources": many_sources(200), "misbehave": faults.delayed(0.1)}
    with (
        connected(address=address, **script, limit=0.4) as (_, connection),
        pytest.raises(ChronyTimeoutError, match=r"limit of 0\.4 s"),
    ):
        for _ in range(100):  # more than a list with many requests in flight
            connection.get_sources()
            connection.get_report("sourcestats")
