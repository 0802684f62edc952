"""Options of ``python -m pychrony.check``, and what cannot be checked."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from checking import (
    LOCAL,
    OTHER,
    SELECTED,
    STATES,
    UNSYNCHRONISED,
    check,
    check_here,
    clock,
    fine_daemon,
)

import pychrony
from pychrony.check import CRITICAL, OK, UNKNOWN, main
from pychrony.testing import ScriptedDaemon, faults


def wait(address: str) -> subprocess.Popen[str]:
    """The check while it waits."""
    command = [sys.executable, "-m", "pychrony.check", "--wait", "60", address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_wait_until_synchronised() -> None:
    """As a boot script does: nobody there, then no source, then a clock."""
    with ScriptedDaemon(tracking=clock(**UNSYNCHRONISED), sources=[]) as daemon:
        daemon.stop()
        with wait(daemon.address) as waiting:
            time.sleep(0.3)
            daemon.start()
            while not daemon.requests:
                time.sleep(0.01)
            daemon.sources = [SELECTED, OTHER]
            daemon.tracking = clock()
            output, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == OK
    assert output.startswith("CHRONY OK - ")


@pytest.mark.parametrize("changes", [UNSYNCHRONISED, LOCAL])
def test_wait_ends(changes: Any) -> None:
    with ScriptedDaemon(tracking=clock(**changes), sources=[]) as daemon:
        assert check_here("--wait", "0.1", daemon.address)[0] == CRITICAL
        assert len(daemon.requests) > 2


def test_wait_for_a_list_that_changes() -> None:
    with fine_daemon() as daemon:
        daemon.misbehave = changing = faults.only("N_SOURCES", faults.count(9))
        with wait(daemon.address) as waiting:
            while len(daemon.requests) < 5:
                time.sleep(0.01)
            assert daemon.misbehave is changing
            daemon.misbehave = None
            output, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == OK, output


def test_wait_only_for_what_may_come() -> None:
    with ScriptedDaemon(misbehave=faults.status(2)) as closed:
        status, output = check_here("--wait", "600", closed.address)
    assert status == UNKNOWN
    assert "Not authorized" in output
    assert check_here("--wait", "600", "x y")[0] == UNKNOWN


def test_timeout_state() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as silent:
        options = ("-t", "0.1", "-r", "0", silent.address)
        assert check_here(*options)[0] == CRITICAL
        assert check_here(*options, "--timeout-state", "unknown")[0] == UNKNOWN
        assert check_here(*options, "--timeout-state", "critical")[0] == CRITICAL
        silent.stop()
        status, output = check_here(*options, "--timeout-state", "unknown")
    assert status == CRITICAL
    assert "Connection refused. Is chronyd running" in output


def test_self_tells_what_a_report_of_a_bug_needs(tmp_path: Path) -> None:
    with ScriptedDaemon() as daemon, ScriptedDaemon() as refused:
        refused.stop()
        home = str(Path(pychrony.library_path()).parent)
        status, output = check(
            *("--self", daemon.address, refused.address, f"{tmp_path}/chronyd.sock"),
            HOME=home,
        )
    assert status == OK
    rows = [re.split(" {2,}", line, maxsplit=1) for line in output.splitlines()]
    told = {row[0]: row[1] for row in rows if row[0] and len(row) == 2}
    assert told["pychrony"].startswith(pychrony.__version__)
    assert told["Python"].endswith(platform.python_version())
    assert told["libchrony"].startswith("~/libchrony")
    assert told["libchrony"].endswith(" symbols found")
    assert told["reports"] == ", ".join(pychrony.reports())
    assert told["user"].startswith(f"uid {os.geteuid()}, ")
    assert home not in output
    assert told["tracking"] == "1 record"
    assert told["rtcdata"] == "0 records"
    assert "Not authorized" in told["serverstats"]
    shown = [row[1] for row in rows if row[0] == "daemon"]
    assert shown == [daemon.address, refused.address, f"{tmp_path}/chronyd.sock"]
    assert "Connection refused" in output
    assert re.search(rf"{tmp_path}: drwx------ uid {os.geteuid()} gid \d+\n", output)
    assert f"{tmp_path}/chronyd.sock: No such file or directory\n" in output


def test_self_where_the_system_has_no_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> NoReturn:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", fail)
    with ScriptedDaemon() as daemon:
        assert main(["--self", daemon.address]) == OK
    assert re.search(r"^system +Linux, Linux \d", capsys.readouterr().out, re.M)


def test_self_without_a_library(tmp_path: Path) -> None:
    missing = str(tmp_path / "libchrony.so.0")
    status, output = check("--self", "/nowhere", PYCHRONY_LIBCHRONY=missing)
    assert status == OK
    assert "no usable libchrony. Tried " in output
    assert "To get it: " in output


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (faults.silent, CRITICAL, "no answer to 2 requests in "),
        (faults.garbage, CRITICAL, "libchrony ignored 2 datagrams"),
        (faults.status(2), UNKNOWN, "Not authorized"),
        (faults.truncated(30), UNKNOWN, "truncated"),
        (faults.only("SOURCE_DATA", faults.status(2)), UNKNOWN, "Not authorized"),
    ],
)
def test_daemon_that_misbehaves(fault: faults.Fault, status: int, message: str) -> None:
    patience = "-t0.4" if status == CRITICAL else "-t20"
    with ScriptedDaemon(misbehave=fault) as daemon:
        found, output = check_here(patience, "--retries", "1", daemon.address)
        text = check_here(patience, "-r0", "-ftext", daemon.address)[1]
    assert found == status
    for shown in (output, text):
        (line,) = shown.splitlines()
        assert line.startswith(f"CHRONY {STATES[status]} - {daemon.address}")
        assert "|" not in line
    assert message in output


def test_no_library_says_how_to_get_it(tmp_path: Path) -> None:
    missing = str(tmp_path / "libchrony.so.0")
    for arguments in ([], ["127.0.0.1"], ["-v", "/nowhere"], ["::1", "/nowhere"]):
        status, output = check(*arguments, PYCHRONY_LIBCHRONY=missing)
        assert status == UNKNOWN
        assert output.startswith("CHRONY UNKNOWN - no usable libchrony. Tried")
    status, output = check("--version", PYCHRONY_LIBCHRONY=missing)
    assert status == OK
    assert "no usable libchrony" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense. See --help"),
        (["--warn", "0.1"], "unrecognized arguments: --warn"),
        (["-w"], "expected one argument"),
        (["-w", "much"], "'much' is not a range. There are 10 (alert outside of"),
        (["-c", "5:1"], "'5:1' is not a range: its start is above its end"),
        (["-w", "size=1"], "'size' is none of synchronised, local, offset, error_"),
        (["-f", "xml"], "argument -f/--format: invalid choice: 'xml'"),
        (["--timeout-state", "ok"], "argument --timeout-state: invalid choice: 'ok'"),
        (["--wait", "0"], "'0' is not a positive number"),
        (["-t", "much"], "'much' is not a positive number"),
        (["-t", "nan"], "'nan' is not a positive number"),
        (["-t", "inf"], "'inf' is not a positive number"),
        (["-t", "0"], "'0' is not a positive number"),
        (["-r", "-1"], "argument -r/--retries: expected one argument"),
        (["-r", "99"], "all waits may take a day at most"),
        (["-p", "0"], "argument -p/--port: 0 is less than 1"),
        (["-p", "70000"], "'70000' is not a port, 1 to 65535"),
        (["-4", "-6"], "not allowed with argument"),
        (["-6", "127.0.0.1"], "127.0.0.1 is no IPv6 address, and -6 given"),
        (["-4", "::1"], "::1 is no IPv4 address, and -4 given"),
        (["-w", "stratum=9ms"], "there are no units here"),
        (["-w", "5min"], "the units here are s, ms, us, ns"),
        (["-c", "source="], "names no source"),
        (["-r", "x"], "'x' is not a natural number"),
        (["127.0.0.1:x"], "'x' is not a port"),
        (["--hosts", "/nowhere"], "cannot read '/nowhere': "),
        (["--hosts", "/dev/null"], "there is no address to check"),
        (["--concurrency", "0", "::1"], "argument --concurrency: 0 is less than 1"),
    ],
)
def test_usage_errors_are_unknown(arguments: list[str], message: str) -> None:
    status, output = check_here(*arguments)
    assert status == UNKNOWN
    assert output.startswith("CHRONY UNKNOWN - ")
    assert message in output


def test_version_names_the_library() -> None:
    status, output = check_here("--version")
    assert status == OK
    assert output == (
        f"pychrony {pychrony.__version__}, libchrony {pychrony.library_path()}\n"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (RuntimeError("boom"), "unexpected RuntimeError: boom"),
    ],
)
def test_what_nobody_expected_is_unknown(
    error: BaseException,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pychrony, "ChronyConnection", fail)
    assert main([]) == UNKNOWN
    assert capsys.readouterr().out == f"CHRONY UNKNOWN - {message}\n"
