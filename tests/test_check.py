"""``python -m pychrony.check``: what it says, and with which status it exits."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from chronyd import Chronyd, chronyc_command
from provision import Parts

import pychrony
from pychrony import LeapStatus, SourceMode, SourceState, _text
from pychrony.check import main
from pychrony.testing import ScriptedDaemon, faults, make_source, make_tracking

OK, WARNING, CRITICAL, UNKNOWN = range(4)
STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


def check(
    *arguments: str,
    stdout: Any = subprocess.PIPE,
    lines: str | None = None,
    **variables: str,
) -> tuple[int, str]:
    """Run the command; return its status and output. It never shows a traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "pychrony.check", *arguments],
        # A buffered output fails in other places than an unbuffered one.
        env={**os.environ, "PYTHONUNBUFFERED": "", **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
        input=lines,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in result.stderr
    return result.returncode, (result.stdout or "") + result.stderr


PERFORMANCE = re.compile(
    r"([a-z_]+=-?\d+(\.\d+)?s?(;(-?\d+\.\d+:\d+\.\d+)?){0,2}(;\d+){0,2} ?)+"
)


def test_fine_clock() -> None:
    tracking = make_tracking(
        offset=0.000123456,
        root_delay=0.25,
        root_dispersion=0.5,
        reference_ip="192.0.2.1",
        stratum=3,
        frequency=-1.5,
        skew=0.0625,
    )
    sources = [make_source(), make_source(address="192.0.2.2", state=SourceState(1))]
    with ScriptedDaemon(tracking=tracking, sources=sources) as daemon:
        status, output = check(daemon.address)
    assert status == OK
    (line,) = output.splitlines()
    text, performance = line.split(" | ")
    assert text == (
        "CHRONY OK - offset +123us, error bound 625ms, stratum 3, source 192.0.2.1, "
        "1 of 2 sources usable"
    )
    assert performance == (
        "offset=0.000123456s;-0.050000000:0.050000000;-0.200000000:0.200000000 "
        "error_bound=0.625123456s;;;0 root_delay=0.250000000s;;;0 "
        "root_dispersion=0.500000000s;;;0 frequency=-1.500 skew=0.062;;;0 "
        "stratum=3;;;0;16 sources_usable=1;;;0;2"
    )
    assert PERFORMANCE.fullmatch(performance)


@pytest.mark.parametrize(
    ("offset", "arguments", "status"),
    [
        (0.049, [], OK),
        (0.051, [], WARNING),
        (-0.051, [], WARNING),
        (0.21, [], CRITICAL),
        (-0.21, [], CRITICAL),
        (0.051, ["-w", "0.1"], OK),
        (1e-7, ["-w", "1e-8", "-c", "1e-3"], WARNING),
        (0.051, ["-w", "0.01", "-c", "0.05"], CRITICAL),
        (5.0, ["--warning=1", "--critical=9"], WARNING),
        (0.21, ["-w", "0.2"], CRITICAL),
        (0.25, ["-w", "0.25", "-c", "0.5"], OK),
        (0.5, ["-w", "0.25", "-c", "0.5"], WARNING),
    ],
)
def test_thresholds(offset: float, arguments: list[str], status: int) -> None:
    with ScriptedDaemon(tracking=make_tracking(offset=offset)) as daemon:
        found, output = check(daemon.address, *arguments)
    assert found == status
    assert output.startswith(f"CHRONY {STATES[status]} - offset ")
    assert ("(more than " in output) == (status != OK)
    assert PERFORMANCE.fullmatch(output.rstrip().split(" | ")[1])


UNSYNCHRONISED: Any = {
    "reference_id": 0,
    "reference_ip": "",
    "stratum": 0,
    "leap_status": LeapStatus.UNSYNC,
}


@pytest.mark.parametrize(
    ("changes", "sources", "status", "message"),
    [
        (
            UNSYNCHRONISED,
            [],
            CRITICAL,
            "not synchronised: chronyd has no sources, 0 of 0 sources usable",
        ),
        (
            UNSYNCHRONISED,
            [make_source(reachability=0, state=SourceState.NONSELECTABLE)],
            CRITICAL,
            "not synchronised: no source is reachable, 0 of 1 sources usable",
        ),
        (
            UNSYNCHRONISED,
            [make_source(state=SourceState.FALSETICKER)],
            CRITICAL,
            "not synchronised: no source is selected, 0 of 1 sources usable",
        ),
        (
            {"reference_id": 0x7F7F0101, "reference_ip": ""},
            [],
            WARNING,
            "local mode: chronyd serves its own clock, 0 of 0 sources usable",
        ),
    ],
)
def test_clock_without_a_source(
    changes: Any, sources: list[pychrony.Source], status: int, message: str
) -> None:
    with ScriptedDaemon(tracking=make_tracking(**changes), sources=sources) as daemon:
        found, output = check(daemon.address)
    assert found == status
    assert f"CHRONY {STATES[status]} - {message} | " in output
    assert "error_bound" not in output


def test_many_clocks(tmp_path: Path) -> None:
    with (
        ScriptedDaemon(tracking=make_tracking(offset=0.001)) as fine,
        ScriptedDaemon(tracking=make_tracking(offset=-0.1)) as late,
        ScriptedDaemon(tracking=make_tracking(offset=-0.3)) as wrong,
        ScriptedDaemon(misbehave=faults.status(2)) as closed,
    ):
        hosts = tmp_path / "hosts"
        hosts.write_text(f"# our clocks\n\n {late.address} # a bar | here\nx y\n")
        everyone = (fine.address, wrong.address, closed.address, "/nowhere")
        status, output = check(*everyone, "--hosts", str(hosts))
        line, *table = output.splitlines()
        assert check("--hosts", "-", lines=f"{fine.address}\n" * 2)[0] == OK
        assert check(fine.address, late.address)[0] == WARNING
        assert check(fine.address, closed.address, late.address)[0] == UNKNOWN
    assert status == CRITICAL
    assert line == (
        "CHRONY CRITICAL - 1 of 6 clocks OK, 2 critical, 2 unknown, 1 warning | "
        "ok=1;;;0;6 warning=1;;;0;6 unknown=2;;;0;6 critical=2;;;0;6"
    )
    assert [row.split()[:2] for row in table] == [
        ["CRITICAL", wrong.address],
        ["CRITICAL", "/nowhere"],
        ["UNKNOWN", closed.address],
        ["UNKNOWN", "x"],
        ["WARNING", late.address],
        ["OK", fine.address],
    ]
    assert "offset -300ms (more than 200ms)" in table[0]
    assert table[1].endswith("  No such file or directory. Is chronyd running?")
    assert "Not authorized" in table[2]


def test_many_clocks_are_checked_like_one() -> None:
    with (
        ScriptedDaemon(tracking=make_tracking(offset=0.01)) as daemon,
        ScriptedDaemon(misbehave=faults.silent) as silent,
    ):
        addresses = (daemon.address, silent.address)
        options = ("-w", "0.001", "-c", "0.005", "-t", "0.05", "-r", "0")
        status, output = check(*options, *addresses)
        assert (status, output.count("CRITICAL ")) == (CRITICAL, 3)
        assert "offset +10ms (more than 5000us)" in output
        assert "no answer to 1 request in 0.05 s" in output
        status, output = check(daemon.address, daemon.address, "-c", "1")
    assert status == OK
    # States that no clock is in are told to the monitoring system only.
    assert output.startswith("CHRONY OK - 2 of 2 clocks OK | ok=2;;;0;2 warning=0;")


def test_a_bar_of_many_clocks_is_only_before_the_performance_data() -> None:
    with ScriptedDaemon() as daemon:
        _, output = check("/no|where", daemon.address)
    assert "CRITICAL  /no/where" in output
    assert output.count("|") == 1


def test_only_the_worst_of_many_clocks_are_shown() -> None:
    offsets = [number / 1000 for number in range(25)]
    with ExitStack() as stack:
        daemons = [ScriptedDaemon(tracking=make_tracking(offset=o)) for o in offsets]
        addresses = [stack.enter_context(daemon).address for daemon in daemons]
        _, output = check(*addresses)
        _, verbose = check("-v", *addresses)
    _, *table, rest = output.splitlines()
    assert [row.split()[1] for row in table] == addresses[:4:-1]
    assert rest == "and 5 that are no worse (-v shows them)"
    assert [row.split()[1] for row in verbose.splitlines()[1:]] == addresses[::-1]


def test_progress_is_shown_on_a_terminal() -> None:
    leader, terminal = pty.openpty()
    with ScriptedDaemon() as daemon:
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


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (faults.silent, CRITICAL, "no answer to 2 requests in 0.3 s"),
        (faults.garbage, CRITICAL, "libchrony ignored 2 datagrams"),
        (faults.status(2), UNKNOWN, "Not authorized"),
        (faults.truncated(30), UNKNOWN, "truncated"),
        (faults.only("SOURCE_DATA", faults.status(2)), UNKNOWN, "Not authorized"),
    ],
)
def test_daemon_that_misbehaves(fault: faults.Fault, status: int, message: str) -> None:
    with ScriptedDaemon(misbehave=fault) as daemon:
        found, output = check("-t", "0.1", "--retries", "1", daemon.address)
    assert found == status
    (line,) = output.splitlines()
    assert line.startswith(f"CHRONY {STATES[status]} - {daemon.address}")
    assert message in line
    assert "|" not in line


def test_nobody_there() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        status, output = check(daemon.address)
    assert status == CRITICAL
    assert "Connection refused. Is chronyd running" in output


def test_no_library_says_how_to_get_it(tmp_path: Path) -> None:
    missing = str(tmp_path / "libchrony.so.0")
    for arguments in ([], ["127.0.0.1"], ["-v", "/nowhere"]):
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
        (["-w", "much"], "'much' is not a positive number"),
        (["-w", "nan"], "'nan' is not a positive number"),
        (["-c", "inf"], "'inf' is not a positive number"),
        (["-c", "-1"], "'-1' is not a positive number"),
        (["-w", "1"], "the warning threshold, 1 s, is above the critical one, 0.2 s"),
        (["-t", "0"], "'0' is not a positive number"),
        (["-r", "-1"], "'-1' is not a natural number"),
        (["-r", "99"], "all waits a day at most"),
        (["-r", "x"], "'x' is not a natural number"),
        (["127.0.0.1:x"], "'x' is not a port"),
        (["--hosts", "/nowhere"], "cannot read '/nowhere': "),
        (["--hosts", "/dev/null"], "there is no address to check"),
        (["--concurrency", "0", "127.0.0.1", "::1"], "concurrency 0 is less than 1"),
    ],
)
def test_usage_errors_are_unknown(arguments: list[str], message: str) -> None:
    status, output = check(*arguments)
    assert status == UNKNOWN
    assert output.startswith("CHRONY UNKNOWN - ")
    assert message in output


def test_version_names_the_library() -> None:
    status, output = check("--version")
    assert status == OK
    assert output == (
        f"pychrony {pychrony.__version__}, libchrony {pychrony.library_path()}\n"
    )


def test_help() -> None:
    status, output = check("--help")
    assert status == OK
    assert "3 UNKNOWN" in output


def test_reader_that_leaves() -> None:
    read, write = os.pipe()
    os.close(read)
    with ScriptedDaemon() as daemon, open(write, "wb") as pipe:
        assert check("-v", daemon.address, stdout=pipe) == (OK, "")


def test_output_that_is_no_file() -> None:
    with ScriptedDaemon() as daemon, redirect_stdout(StringIO()) as output:
        assert main([daemon.address]) == OK
    assert output.getvalue().startswith("CHRONY OK")


def test_full_disk() -> None:
    with ScriptedDaemon() as daemon, open("/dev/full", "wb") as full:
        status, output = check(daemon.address, stdout=full)
    assert status == UNKNOWN
    assert "cannot write: [Errno 28] No space left on device" in output


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
        for number, (figure, age) in enumerate(
            zip(
                FIGURES,
                AGES,
                strict=True,
            )
        )
    ]
    clock = make_source(address="GPS", mode=SourceMode.REFCLOCK, state=SourceState(9))
    tracking = make_tracking(
        offset=-0.125,
        frequency=-3.5,
        leap_status=LeapStatus.INSERT,
        reference_id=0xC0000201,
        reference_ip="192.0.2.1",
    )
    with ScriptedDaemon(tracking=tracking, sources=[*sources, clock]) as daemon:
        host, _, port = daemon.address.partition(":")

        def chronyc(*report: str) -> str:
            command = [*chronyc_command(parts), "-h", host, "-p", port, *report]
            paths = {"LD_LIBRARY_PATH": parts.library_path}
            output = subprocess.check_output(command, env=paths, text=True)
            return without_trailing_blanks(output)

        status, output = check("-v", daemon.address)
        line, report = output.split("\n", 1)
        assert line.startswith("CHRONY WARNING - offset -125ms (more than 50ms)")
        assert status == WARNING
        assert report.split("\n\n") == [chronyc("tracking"), chronyc("sources") + "\n"]
        for leap in [*LeapStatus, LeapStatus(9)]:
            daemon.tracking = make_tracking(leap_status=leap, frequency=2.5, offset=1.5)
            assert _text.tracking(pychrony.get_tracking(daemon.address)) == (
                chronyc("tracking")
            )


@pytest.mark.parametrize("socket", [False, True])
def test_real_daemon(parts: Parts, socket: bool) -> None:
    with Chronyd(parts, "local stratum 7") as daemon:
        address = daemon.socket if socket else daemon.address
        status, output = check("-v", address)
        assert status == WARNING
        assert "local mode" in output
        assert "Stratum         : 7\n" in output


def test_what_the_terminal_cannot_show() -> None:
    for address, shown in (("/tmp/\udcff", "/tmp/\\udcff"), ("ü.example", "\\xfc")):
        status, output = check(address, PYTHONIOENCODING="ascii:strict")
        assert status in (CRITICAL, UNKNOWN)
        assert shown in output


def test_a_bar_is_only_before_the_performance_data() -> None:
    tracking = make_tracking(reference_id=0x417C4200, reference_ip="")  # "A|B"
    clock = make_source(address="A|B", mode=SourceMode.REFCLOCK)
    with ScriptedDaemon(tracking=tracking, sources=[clock]) as daemon:
        _, output = check("-v", daemon.address)
    assert "source A/B," in output
    assert output.count("|") == 1


def test_time_beyond_the_calendar() -> None:
    far = make_tracking(ref_time_ns=2**62 * 10**9)
    assert f"{2**62} s since 1970" in _text.tracking(far)
