"""A little NTP network of real daemons that has something in every report."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from chronyd import Chronyd
from clock import Clock
from provision import Parts

import pychrony
from pychrony import ChronyConnection, NTPMode, TrackingStatus
from pychrony._reader import METHODS
from pychrony.models import REPORTS

# A key and a certificate that it signed itself, for localhost, 127.0.0.1 to
# 127.0.0.4 and ::1, valid from 2000 to 2049. They protect nothing.
NTS = Path(__file__).with_name("nts.pem")


READ: dict[type[Any], Callable[[ChronyConnection], Any]] = {
    record: getattr(ChronyConnection, METHODS[report])
    for record, report in REPORTS.items()
}


class Network:
    """A daemon that has something in every report, and those around it."""

    def __init__(self, parts: Parts, directory: Path, stack: ExitStack) -> None:
        def start(bind: str, *config: str) -> Chronyd:
            daemon = Chronyd(parts, "\n".join(config), bind=bind, serve=True)
            return stack.enter_context(daemon)

        # chronyd wants its secrets unreadable for others, and no space in a path.
        keys, nts = directory / "keys", directory / "nts.pem"
        for file in (keys, nts):
            file.touch(mode=0o600)
        nts.write_bytes(NTS.read_bytes())
        keys.write_text(f"10 AES128 HEX:{'a5' * 16}\n11 SHA256 HEX:{'5a' * 18}\n")
        port, own_port = _free_tcp_port(), _free_tcp_port()
        client = f"keyfile {keys}\nntstrustedcerts {nts}\nnosystemcert"
        server = f"ntsservercert {nts}\nntsserverkey {nts}\nntsprocesses 0\nntsport"
        poll = "minpoll {0} maxpoll {0}".format

        with_key = start("127.0.0.2", "local stratum 1", client)
        with_nts = start("127.0.0.3", "local stratum 1", f"{server} {port}")
        sixth = start("::1", "local stratum 3")
        # A delay that tells root delay and root dispersion apart.
        refclock = "refclock SOCK {directory}/clock refid PPS1 poll 0 filter 1 delay "
        active = start("127.0.0.4", f"{refclock} 0.01")
        passive = start("127.0.0.5", "local stratum 7", client)
        self.leap_only = start("127.0.0.6", "smoothtime 400 0.001 leaponly")
        self.daemon = start(
            "127.0.0.1",
            client,
            f"{server} {own_port}",
            f"server 127.0.0.2 port {with_key.ntp_port} key 10 xleave prefer iburst "
            f"{poll(0)}",
            f"server 127.0.0.3 port {with_nts.ntp_port} nts ntsport {port} trust "
            f"require iburst {poll(-1)}",
            f"server ::1 port {sixth.ntp_port} noselect iburst {poll(-2)}",
            f"peer 127.0.0.4 port {active.ntp_port} maxsamples 3 {poll(0)}",
            f"peer 127.0.0.5 port {passive.ntp_port} {poll(0)}",
            "refclock SOCK {directory}/clock refid GPS poll 0 filter 1 noselect",
            "server nowhere.invalid",
            "server 127.0.6.1 port 9 nts ntsport 9",
            *(f"server 127.0.7.{number} port 9" for number in (1, 2)),
            *(f"server 127.0.8.{number} port 9 offline" for number in (1, 2, 3, 4)),
            *(f"server 127.0.9.{number} port 9 offline" for number in (1, 2, 3)),
            "smoothtime 50 0.01",
            "cmdallow 127.0.0.0/8",
            "ratelimit interval -4 burst 8",
            "cmdratelimit interval 2 burst 4",
            "ntsratelimit interval 6 burst 2",
            "clientloglimit 1",
        )
        self.own_nts_port = own_port
        self.clock = Clock(f"{self.daemon.directory}/clock")
        self.other_clock = Clock(f"{active.directory}/clock")
        at_daemon = f"port {self.daemon.ntp_port} {poll(0)}".split()
        active.chronyc("add", "peer", "127.0.0.1", "noselect", *at_daemon)
        for options in (
            "127.0.0.1 key 11 xleave iburst",
            f"::1 nts ntsport {own_port} iburst",
        ):
            passive.chronyc("add", "server", *options.split(), *at_daemon)
        self.daemon.chronyc("burst", "255/255", "255.255.255.0/127.0.7.0")
        self.daemon.chronyc("burst", "255/255", "255.255.255.0/127.0.8.0")
        self.daemon.chronyc("smoothtime", "activate")

    def knock(self) -> None:
        """Ask from many addresses, and from one too often."""
        here = [("127.0.0.1", self.daemon.ntp_port), ("127.0.0.1", self.daemon.cmdport)]
        requests = [b"\x23" + bytes(47), b"\x06\x01\x00\x00\x00\x21" + bytes(98)]
        for number in range(1, 40):
            for address, request in zip(here, requests, strict=True):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.bind((f"127.0.10.{number}", 0))
                    for _ in range(20 if number == 1 else 1):
                        client.sendto(request, address)
        for _ in range(10):
            with socket.socket() as client:
                client.bind(("127.0.10.1", 0))
                client.connect(("127.0.0.1", self.own_nts_port))

    def ready(self) -> bool:
        self.clock.tick(0.0125, leap=1)
        self.other_clock.tick(0)
        self.knock()
        with ChronyConnection(self.daemon.socket) as connection:
            ntp = {one.address: one for one in connection.get_ntp_data()}
            auth = {one.address: one for one in connection.get_auth_data()}
            sources = {one.address: one for one in connection.get_sources()}
            stats = connection.get_server_stats()
            smoothing = connection.get_smoothing()
            there = {
                "tracking": _differ(connection.get_tracking()),
                "interleaved": pychrony.NTPFlag.INTERLEAVED in ntp["127.0.0.2"].flags,
                "NTS": auth["127.0.0.3"].cookies and ntp["127.0.0.3"].total_good_rx,
                "IPv6": ntp["::1"].total_good_rx,
                "active peer": ntp["127.0.0.4"].mode is NTPMode.ACTIVE_SYMMETRIC
                and ntp["127.0.0.4"].root_delay > 0.005
                and sources["127.0.0.4"].stratum,
                "passive peer": ntp["127.0.0.5"].mode is NTPMode.PASSIVE_SYMMETRIC,
                "no NTS": auth["127.0.6.1"].ke_attempts,
                "refclock": sources["GPS"].is_reachable(),
                "smoothing": smoothing and smoothing.last_update_ago,
                **{name: getattr(stats, name) for name in COUNTED},
            }
        self.missing = [name for name, value in there.items() if not value]
        return not self.missing


# Those that need no special hardware, and that every chronyd since 4.2 has.
COUNTED = (
    *("ntp_received", "ntp_dropped", "command_received", "command_dropped"),
    *("log_dropped", "nts_ke_accepted", "nts_ke_dropped", "ntp_authenticated"),
    *("ntp_interleaved", "timestamps_held", "timestamp_span"),
)


def _differ(tracking: TrackingStatus) -> bool:
    """Whether chronyc shows which is which: after the first update, it does not."""
    offsets = tracking.offset, tracking.last_offset, tracking.rms_offset
    others = tracking.root_delay, tracking.root_dispersion
    return len({f"{abs(value):.9f}" for value in offsets + others}) == 5


def _free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
