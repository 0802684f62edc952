"""``python -m pychrony.check`` of real daemons, beside chronyc."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from checking import UNSYNCHRONISED, check_here
from chronyc import wait
from chronyd import Chronyd, run_chronyc
from provision import Parts

import pychrony
from pychrony import LeapStatus, SourceMode, SourceState, _chronyc
from pychrony.check import CRITICAL, OK, WARNING
from pychrony.testing import ScriptedDaemon, make_source, make_tracking

FOLLOW = "server {host} port {port} iburst minpoll -6 maxpoll -2{option}\n"


def test_real_clocks(parts: Parts) -> None:
    """Of a real network: fine, with a source that is wrong, and with none."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                Chronyd(parts, "local stratum 1", bind=f"127.0.0.{host}", serve=True)
            )
            for host in (2, 3, 4)
        ]
        follow = "".join(
            FOLLOW.format(host=f"127.0.0.{host}", port=server.ntp_port, option="")
            for host, server in zip((2, 3, 4), servers)
        )
        wrong = follow.replace("\n", " offset 0.5\n", 1)
        fine, late, alone = (
            stack.enter_context(Chronyd(parts, config))
            for config in (follow, wrong, "")
        )
        settled = ("--wait", "60", "-c", "reach=4:", "-c", "usable_sources=3:")
        assert check_here(*settled, fine.address)[0] == OK
        assert check_here("-c", "offset=@1", fine.address)[0] == CRITICAL
        assert check_here("-w", "error_bound=1e-9", fine.socket)[0] == WARNING
        options = ("--wait", "60", "-c", "falsetickers=1:", "-c", "reach=4:")
        status, output = check_here(*options, late.address)
        assert status == WARNING
        assert "falsetickers 1 (more than 0): Check or remove 127.0.0.2. " in output
        status, output = check_here(alone.address)
        assert status == CRITICAL
        assert "not synchronised: chronyd has no sources" in output
        _, diagnosis = check_here("--self", fine.socket)
        assert re.search(r"^serverstats +1 record$", diagnosis, flags=re.M)
        assert re.search(r"^selectdata +3 records$", diagnosis, flags=re.M)
        _, output = check_here(fine.address, late.address, alone.address)
        assert output.startswith("CHRONY CRITICAL - 2 of 3 clocks OK, 1 critical")


def test_why_no_source_answers(parts: Parts, tmp_path: Path) -> None:
    """Other causes than the network, as far as chronyd's own reports show them."""
    keys = tmp_path / "keys"
    keys.write_text("1 MD5 ASCII:secret\n")
    with ExitStack() as stack:
        start = stack.enter_context
        unset = start(Chronyd(parts, "", bind="127.0.0.5", serve=True))
        good = start(Chronyd(parts, "local stratum 1", bind="127.0.0.2", serve=True))
        server = FOLLOW.format(host="127.0.0.2", port=good.ntp_port, option=" {}")
        asleep = FOLLOW.format(host="127.0.0.5", port=unset.ntp_port, option="")
        dead = "server 127.0.0.9 port 9 iburst\n"
        offline = "server 127.0.0.8 port 9 offline\n"
        cases = {
            asleep: "answer, but are not synchronised themselves (127.0.0.5). Check",
            asleep + dead: "127.0.0.5 not synchronised, 127.0.0.9 unreachable. Check",
            server.format("nts"): "the NTS key exchange fails (127.0.0.2). Check TCP",
            server.format("key 1") + f"keyfile {keys}\n": "or the keys differ (127.",
            server.format("noselect"): "any source (127.0.0.2): all have noselect",
            dead + offline: "and some are offline (127.0.0.9, 127.0.0.8). See",
        }
        for config, said in cases.items():
            client = start(Chronyd(parts, config))
            wait(partial(says, client, said))
            if config == asleep:  # over UDP that is not seen
                _, output = check_here(client.address)
                assert "and whether they are synchronised themselves" in output


def says(client: Chronyd, text: str) -> bool:
    return text in check_here(client.socket)[1]


def without_trailing_blanks(text: str) -> str:
    return re.sub(" +\n", "\n", text).rstrip()


AGES = [
    *(0, 1199, 1200, 35_999, 36_000, 345_599, 345_600, 86_400_000, 0xFFFFFFFF),
    *(86_399_999, 4_294_967_294, 1, 2, 3, 4, 5, 6, 7),
]


# Figures on both sides of every change of unit.
FIGURES = [
    *(0.0, 1e-9, -9.99e-6, 9.9996e-6, 1e-5, -0.0099996, 0.01, 9.9996, 10.0, -999.6),
    *(1000.0, 99_999.6, 1e6, 5_999_999.0, 6e6, 4e8, 8.7e9, -1e12),
]


def test_report_is_that_of_chronyc(parts: Parts) -> None:
    """chronyc and the check ask the same scripted daemon."""
    sources = [
        make_source(
            address=f"192.0.2.{number}",
            latest_meas=figure,
            orig_latest_meas=-figure,
            latest_meas_err=abs(figure),
            last_sample_ago=age,
            poll=number - 3,
            reachability=number,
            state=SourceState(number % 6),
            mode=SourceMode(number % 2),
        )
        for number, (figure, age) in enumerate(zip(FIGURES, AGES, strict=True))
    ]
    gps = make_source(address="GPS", mode=SourceMode.REFCLOCK, state=SourceState(9))
    tracking = make_tracking(
        offset=-0.125,
        frequency=-3.5,
        leap_status=LeapStatus.INSERT,
        reference_id=0xC0000201,
        reference_ip="192.0.2.1",
    )
    with ScriptedDaemon(tracking=tracking, sources=[*sources, gps]) as daemon:

        def chronyc(*report: str) -> str:
            output = run_chronyc(parts, daemon.address, *report).stdout
            return without_trailing_blanks(output)

        status, output = check_here("-v", daemon.address)
        line, report = output.split("\n", 1)
        assert line.startswith("CHRONY WARNING - offset -125ms (less than -50ms): Wait")
        assert status == WARNING
        reports = [chronyc("tracking"), chronyc("sources") + "\n"]
        assert report.split("\n\n") == reports
        _, text = check_here("-v", "-f", "text", daemon.address)
        assert text.split("\n\n")[2:] == reports
        leaps: list[Any] = [{"leap_status": LeapStatus(number)} for number in range(5)]
        for changes in (*leaps, UNSYNCHRONISED):
            daemon.tracking = make_tracking(frequency=2.5, offset=1.5, **changes)
            assert _chronyc.tracking(pychrony.get_tracking(daemon.address)) == (
                chronyc("tracking")
            )
