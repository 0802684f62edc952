"""Many clocks in one ``python -m pychrony.check``."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from checking import UNSYNCHRONISED, check, check_here, clock, fine_daemon

from pychrony.check import CRITICAL, OK, UNKNOWN, WARNING, _read
from pychrony.testing import ScriptedDaemon, faults, make_source


def test_many_clocks(tmp_path: Path) -> None:
    with (
        ScriptedDaemon(tracking=clock(offset=0.001)) as fine,
        ScriptedDaemon(tracking=clock(offset=-0.1)) as late,
        ScriptedDaemon(tracking=clock(offset=-0.3)) as wrong,
        ScriptedDaemon(misbehave=faults.status(2)) as closed,
    ):
        hosts = tmp_path / "hosts"
        hosts.write_text(f"# our clocks\n\n {late.address} # a bar | here\nx y\n")
        everyone = (fine.address, wrong.address, closed.address, "/nowhere")
        status, output = check_here("-f", "text", *everyone, "--hosts", str(hosts))
        nagios = check_here("-v", *everyone, "--hosts", str(hosts))
        line, *table = output.splitlines()
        assert check("--hosts", "-", lines=f"{fine.address}\n" * 2)[0] == OK
        assert check_here("-H", fine.address, fine.address)[0] == OK
        assert check_here("-H", fine.address, "-H", wrong.address)[0] == CRITICAL
        twice = ("--hosts", "-", "--hosts", "-")
        assert check(*twice, lines=f"\ufeff{fine.address}\r\n")[0] == OK
        late_and_fine = check_here("--hosts", str(hosts), "--hosts", "/dev/null")[1]
        assert late_and_fine.startswith("CHRONY UNKNOWN - 0 of 2 clocks OK, 1 unknown")
        assert check_here(fine.address, late.address)[0] == WARNING
        assert check_here(fine.address, closed.address, late.address)[0] == UNKNOWN
    assert status == CRITICAL
    assert line == (
        "CHRONY CRITICAL - 1 of 6 clocks OK, 2 critical, 2 unknown, 1 warning"
    )
    assert [row.split()[:2] for row in table] == [
        ["CRITICAL", wrong.address],
        ["CRITICAL", "/nowhere"],
        ["UNKNOWN", closed.address],
        ["UNKNOWN", "x"],
        ["WARNING", late.address],
        ["OK", fine.address],
    ]
    first = "offset -300ms (less than -200ms): Wait"
    assert first in table[0]
    assert nagios[0] == CRITICAL
    assert nagios[1].startswith(f"{line}. First {wrong.address}: {first} while")
    assert (
        nagios[1]
        .splitlines()[0]
        .endswith(" | ok=1;;;0;6 warning=1;;;0;6 unknown=2;;;0;6 critical=2;;;0;6")
    )
    assert nagios[1].splitlines()[1:] == table
    assert "  No such file or directory. Is chronyd running?" in table[1]
    assert "Not authorized" in table[2]


def test_many_clocks_are_checked_like_one() -> None:
    with (
        ScriptedDaemon(tracking=clock(offset=0.01)) as daemon,
        ScriptedDaemon(misbehave=faults.silent) as silent,
    ):
        addresses = (daemon.address, silent.address)
        options = ("-ftext", "-w0.001", "-c0.005", "-t0.5", "-r0")
        status, output = check_here(*options, *addresses)
        assert (status, output.count("CRITICAL ")) == (CRITICAL, 3)
        assert "offset +10ms (more than +5000us)" in output
        assert "no answer to 1 request in 0.45 s" in output
        status, output = check_here(daemon.address, daemon.address, "-c", "1")
    assert status == OK
    # States that no clock is in are told to the monitoring system only.
    assert output.startswith("CHRONY OK - 2 of 2 clocks OK | ok=2;;;0;2 warning=0;")


def test_the_sources_of_old_clocks_are_read() -> None:
    """After the burst of a start, nothing is measured for 4.5 hours at poll 14."""
    old: Any = {"age": 7200.0, "update_interval": 2.0}
    with (
        ScriptedDaemon(tracking=clock(**old), sources=[make_source(poll=14)]) as rare,
        ScriptedDaemon(tracking=clock(**old), sources=[make_source(poll=6)]) as lost,
        ScriptedDaemon(
            tracking=clock(**old), misbehave=faults.only("N_SOURCES", faults.silent)
        ) as half,
    ):
        assert check_here(rare.address, rare.address)[0] == OK
        options = ("-f", "text", "-t", "2", "-r", "0")
        status, output = check_here(*options, rare.address, lost.address, half.address)
    assert status == WARNING
    _, *table = output.splitlines()
    ages = {words[1]: words[2:6] for words in map(str.split, table)}
    assert ages[rare.address][0] == "offset"
    for one in (lost, half):  # the second figure is the age by now
        assert ages[one.address][::2] == ["age", "(more"]


def test_there_may_be_no_time_for_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 10.0])
    monkeypatch.setattr(_read, "monotonic", lambda: next(times))
    with ScriptedDaemon(tracking=clock(age=7200.0)) as daemon:
        assert check_here(daemon.address, daemon.address)[0] == WARNING
        assert len(daemon.requests) == 2


def test_a_bar_of_many_clocks_is_only_before_the_performance_data() -> None:
    with fine_daemon() as daemon:
        _, output = check_here("-v", "/no|where", daemon.address)
    assert "CRITICAL  /no/where" in output
    assert output.count("|") == 1


def test_only_the_worst_of_many_clocks_are_shown() -> None:
    offsets = [number / 1000 for number in range(25)]
    with ExitStack() as stack:
        daemons = [ScriptedDaemon(tracking=clock(offset=o)) for o in offsets]
        addresses = [stack.enter_context(daemon).address for daemon in daemons]
        _, output = check_here("-f", "text", *addresses)
        _, verbose = check_here("-f", "text", "-v", *addresses)
    _, *table, rest = output.splitlines()
    assert [row.split()[1] for row in table] == addresses[:4:-1]
    assert rest == "and 5 more, not worse (-v shows them)"
    assert [row.split()[1] for row in verbose.splitlines()[1:]] == addresses[::-1]


def test_progress_is_shown_on_a_terminal() -> None:
    leader, terminal = pty.openpty()
    with fine_daemon() as daemon:
        command = [sys.executable, "-m", "pychrony.check", *[daemon.address] * 80]
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=terminal, check=True, timeout=60
        )
    os.close(terminal)
    with open(leader, "rb", buffering=0) as shown:
        bars = shown.read(65536).decode().split("\r")
    assert result.stdout.startswith(b"CHRONY OK - 80 of 80 clocks OK | ")
    assert bars[1] == f"[{'#':40}] 2 of 80"
    assert bars[-2:] == [f"[{'#' * 40}] 80 of 80", "\x1b[K"]
    assert len(bars) == 42


def test_a_clock_of_which_only_tracking_is_read_says_where_to_look() -> None:
    with ScriptedDaemon(tracking=clock(**UNSYNCHRONISED)) as daemon, fine_daemon() as d:
        status, output = check_here(d.address, daemon.address)
    assert status == CRITICAL
    assert ". First 127.0.0.1:" in output
    assert "not synchronised: 'chronyc sources' there says more | ok=1;" in output
