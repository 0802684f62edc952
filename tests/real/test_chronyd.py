"""Against real chronyd: what is read is what chronyc prints at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chronyc import agree, wait
from chronyd import Chronyd
from clock import Clock
from network import READ
from provision import Parts

import pychrony
from pychrony import ChronyConnection, ChronyConnectionError, get_tracking


@pytest.fixture(scope="module")
def network(
    parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Chronyd]]:
    """Daemons in every state that the four reports can show."""
    clock = Clock(str(tmp_path_factory.mktemp("clock") / "sock"))
    follow = "server {} port {} iburst minpoll {} maxpoll {}\n".format
    with ExitStack() as stack:

        def start(config: str = "", bind: str = "127.0.0.1") -> Chronyd:
            daemon = Chronyd(parts, config, bind=bind, serve=True)
            return stack.enter_context(daemon)

        reference = start("local stratum 1")
        sixth = start(follow("127.0.0.1", reference.ntp_port, -6, -6), bind="::1")
        client = start(
            follow("127.0.0.1", reference.ntp_port, -2, -2)
            + follow("::1", sixth.ntp_port, -4, -4)
            + "server 127.0.0.9 port 9\n"
            "server nowhere.invalid offline\n"
            f"refclock SOCK {clock.path} refid GPS poll 0 filter 1 noselect\n"
        )
        wait(lambda: Path(clock.path).exists())
        daemons = {
            "synchronised": client,
            "local": reference,
            "unsynchronised": start(),
            "clock": start(f"refclock SOCK {clock.path}2 refid PPS0 poll 0 filter 1\n"),
        }
        clocks = [clock, Clock(f"{clock.path}2")]

        def ready() -> bool:
            for one in clocks:
                one.tick(0.0125)
            sources = ChronyConnection(client.address)
            with sources:
                found = {source.address: source for source in sources.get_sources()}
            return (
                get_tracking(client.address).is_synchronized()
                and get_tracking(daemons["clock"].address).is_synchronized()
                and found["127.0.0.1"].poll == -2
                and found["::1"].is_usable()
                and found["GPS"].is_reachable()
            )

        wait(ready)
        yield daemons


DAEMONS = ("synchronised", "local", "unsynchronised", "clock")


@pytest.fixture(params=["UDP", "UDP on ::1", "Unix"])
def transport(request: pytest.FixtureRequest) -> Callable[[Chronyd], str]:
    """The address of a daemon over this transport."""
    addresses: dict[str, Callable[[Chronyd], str]] = {
        "UDP": lambda daemon: daemon.address,
        "UDP on ::1": lambda daemon: f"[::1]:{daemon.cmdport}",
        "Unix": lambda daemon: daemon.socket,
    }
    return addresses[request.param]


@pytest.mark.parametrize("name", DAEMONS)
def test_tracking_is_that_of_chronyc(
    name: str, network: dict[str, Chronyd], transport: Callable[[Chronyd], str]
) -> None:
    daemon = network[name]
    with ChronyConnection(transport(daemon)) as connection:
        agree(
            daemon.chronyc, pychrony.TrackingStatus, lambda: [connection.get_tracking()]
        )
        tracking = connection.get_tracking()
    assert tracking.is_synchronized() == (name in ("synchronised", "clock"))
    assert tracking.is_local() == (name == "local")


@pytest.mark.parametrize("record", [pychrony.Source, pychrony.SourceStats])
def test_lists_are_those_of_chronyc(
    record: type[Any], network: dict[str, Chronyd], transport: Callable[[Chronyd], str]
) -> None:
    daemon = network["synchronised"]
    with ChronyConnection(transport(daemon)) as connection:
        agree(daemon.chronyc, record, partial(READ[record], connection))


def test_unsynchronised_daemon(network: dict[str, Chronyd]) -> None:
    tracking = get_tracking(network["unsynchronised"].address)
    assert tracking.leap_status is pychrony.LeapStatus.UNSYNC
    assert (tracking.reference_id, tracking.reference_ip) == (0, "")
    assert tracking.error_bound is None
    with ChronyConnection(network["unsynchronised"].address) as connection:
        assert connection.get_sources() == []
        assert connection.get_source_stats() == []


def test_restart_under_an_open_connection(
    parts: Parts, transport: Callable[[Chronyd], str]
) -> None:
    with (
        Chronyd(parts, "local stratum 3") as daemon,
        ChronyConnection(transport(daemon), timeout=1.0, retries=1) as connection,
    ):
        assert connection.get_tracking().stratum == 3
        daemon.restart()
        with suppress(ChronyConnectionError):  # the Unix socket is another one now
            connection.get_tracking()
        assert connection.get_tracking().stratum == 3
        daemon.kill()
        with pytest.raises(ChronyConnectionError):
            connection.get_tracking()
        daemon.restart()
        assert connection.get_tracking().stratum == 3
        unix = connection.address == daemon.socket
        assert (connection.transport is pychrony.Transport.UNIX_SOCKET) == unix
