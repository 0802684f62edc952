"""``python -m pychrony.check`` as other plugins are: time, host, port, length."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from checking import OTHER, SELECTED, WRONG, check_here, clock, fine_daemon

from pychrony import SourceState
from pychrony.__main__ import main as reports
from pychrony._cli import complete
from pychrony._reader import Reader
from pychrony.check import CRITICAL, OK, UNKNOWN
from pychrony.testing import ScriptedDaemon, faults, make_source


def test_the_timeout_is_that_of_the_whole_check() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as silent:
        for number in (1, 600):
            start = time.monotonic()
            status, _ = check_here("-t", "1", "-r", "9", *[silent.address] * number)
            # The machine may be busy, but not for the 1023 s of ten waits.
            assert time.monotonic() - start < 60
            assert status == CRITICAL


def test_the_timeout_holds_for_several_reports() -> None:
    """Each is slow, but none so slow that it would not arrive."""
    with fine_daemon() as daemon:
        daemon.misbehave = faults.only("SOURCE_DATA", faults.silent)
        start = time.monotonic()
        status, output = check_here("-t", "1", "-r", "9", daemon.address)
        assert time.monotonic() - start < 60
    assert status == CRITICAL
    assert "sources: no answer" in output or "not done within" in output


def test_what_explains_is_not_read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "left", 0.0)
    with ScriptedDaemon(tracking=clock(), sources=[WRONG]) as daemon:
        assert check_here(daemon.address)[0] == CRITICAL
        assert "ACTIVITY" not in str(daemon.requests)
        monkeypatch.undo()
        assert check_here(daemon.address)[0] == CRITICAL
        assert "ACTIVITY" in str(daemon.requests)


def test_host_and_port() -> None:
    with fine_daemon() as daemon:
        host, _, port = daemon.address.partition(":")
        assert check_here("-H", host, "-p", port)[0] == OK
        assert check_here("--hostname", host, "--port", port, "-4")[0] == OK
        assert check_here("-p", port)[0] == OK
        assert check_here("-4", "-p", port)[0] == OK
        # A port of its own comes first.
        assert check_here("-H", daemon.address, "-p", "1")[0] == OK
        assert check_here("-4", "-p", port, "localhost")[0] == OK
        # As Icinga gives a macro that a host does not have.
        assert check_here("-H", "", daemon.address)[0] == OK
        assert check_here("-w", "", "-c", "", daemon.address)[0] == OK
    assert "CHRONY CRITICAL - [::1]:9: " in check_here("-p", "1", "[::1]:9")[1]
    assert complete("unix.example", 4323, None, 0.0) == "unix.example:4323"
    for path in ("/run/a", "unix:///run/a", "unixgram:///run/a"):
        assert complete(path, 4323, 4, 0.0) == path
    status, output = check_here("-6", "-H", host)
    assert status == UNKNOWN
    assert output == f"CHRONY UNKNOWN - {host} is no IPv6 address, and -6 given\n"


def test_ipv6_host_and_port() -> None:
    with ExitStack() as stack:
        daemon = ScriptedDaemon(
            tracking=clock(), sources=[SELECTED, OTHER], address="[::1]:0"
        )
        try:
            stack.enter_context(daemon)
        except OSError:
            pytest.skip("this machine has no ::1")
        port = daemon.address.rpartition(":")[2]
        assert check_here("-H", "::1", "-p", port)[0] == OK
        assert check_here("-6", "-p", port)[0] == OK
        assert check_here("-6", "-p", port, "::1")[0] == OK


def test_names_that_are_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without -4 and -6: nobody answers; the other clocks are checked."""
    may_end = threading.Event()

    def look_up(name: str, *_: object) -> list[Any]:
        if name.startswith("slow"):
            may_end.wait(60)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with fine_daemon() as daemon:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        status, output = check_here("-6", "none.example")
        assert status == CRITICAL
        assert "none.example: no IPv6 address is known. Check the name" in output
        options = ("-4", "-t", "0.2", "--timeout-state", "unknown")
        status, output = check_here(*options, "slow.example", "-f", "json")
        assert status == UNKNOWN
        assert "slow.example: the name was not resolved in time. Check" in output
        status, output = check_here(*options, "none.example", daemon.address)
        assert status == CRITICAL
        assert output.startswith("CHRONY CRITICAL - 1 of 2 clocks OK, 1 critical. Fir")
        assert reports(["-6", "-H", "none.example"]) == 1
    may_end.set()


def test_length_of_the_line() -> None:
    """Many bad sources with long names, and all that can be wrong of a clock."""
    sources = [
        make_source(
            address=f"2001:db8:1111:2222:3333:4444:5555:{number:04x}",
            state=state,
            reachability=255 if number % 2 else 0,
        )
        for number, state in enumerate([*SourceState] * 12, 16)
    ]
    tracking = clock(
        offset=-12345.678901, root_delay=1.0, root_dispersion=1e5, stratum=15, skew=1e9
    )
    everything = [f"-w{name}=@0:99999999999" for name in ("skew", "frequency", "age")]
    with ScriptedDaemon(tracking=tracking, sources=sources) as daemon:
        status, output = check_here(daemon.address, *everything)
        _, verbose = check_here("-v", daemon.address)
    assert status == CRITICAL
    assert len(output.encode()) < 1024
    text, performance = output.split(" | ")
    assert text.endswith("...")
    assert ";" not in text
    assert "dead_sources=" in performance
    assert len(verbose.encode()) > 1024


def test_small_values_are_kept() -> None:
    """Monitoring systems keep six decimals."""
    tracking = clock(offset=-123e-9, root_delay=1e-9, root_dispersion=2e-9)
    with ScriptedDaemon(tracking=tracking, sources=[SELECTED, OTHER]) as daemon:
        _, output = check_here(daemon.address)
    performance = output.split(" | ")[1].split()
    values = {
        name: f"{float(value):.6f}"
        for name, value in re.findall(r"(\w+)=(-?[\d.]+)", " ".join(performance))
    }
    assert values["offset_us"] == "-0.123000"
    assert values["offset_abs_us"] == "0.123000"
    assert values["error_bound_us"] == "0.126000"
    assert values["root_delay_us"] == "0.001000"
    by_name = dict(one.split("=", 1) for one in performance)
    assert by_name["offset_abs_us"] == "0.123;50000;200000;0"
    assert by_name["error_bound_us"].endswith(";100000;500000;0")


def test_ranges_that_are_no_single_number() -> None:
    with fine_daemon() as daemon:
        _, output = check_here(daemon.address, "-w", "-1ms:2ms", "-c", "~:1")
    assert " offset_us=122.070;-1000:2000;~:1000000 " in output
