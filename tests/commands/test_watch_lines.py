"""``python -m pychrony.watch`` without a terminal, and its readings."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from checking import UNSYNCHRONISED
from chronyd import Chronyd
from provision import Parts
from watching import LINE, asked, run, start, take

from pychrony import AsyncChronyConnection, ChronyConnectionError, SelectState
from pychrony.check._clock import matching
from pychrony.testing import (
    ALL_COMMANDS,
    ScriptedDaemon,
    faults,
    make_select_data,
    make_source,
    make_tracking,
)
from pychrony.watch import main
from pychrony.watch._follow import Reading, follow


def test_reasons_where_permitted() -> None:
    select = [make_select_data(state=SelectState.FALSETICKER)]
    with ScriptedDaemon(select_data=select, open_commands=ALL_COMMANDS) as daemon:
        first, second = asyncio.run(take(daemon.address, 2))
    assert isinstance(first, Reading)
    for reading in (first, second):
        assert reading.selection is not None
        assert [one.state for one in reading.selection] == [SelectState.FALSETICKER]
    assert asked(daemon, "SELECT_DATA") == 2


def test_reasons_are_not_asked_for_again_where_they_are_denied() -> None:
    with ScriptedDaemon() as daemon:
        found = asyncio.run(take(daemon.address, 3))
    assert [reading.selection for reading in found] == [None, None, None]
    assert asked(daemon, "SELECT_DATA") == 1
    assert asked(daemon, "TRACKING") == 3


def test_chronyd_comes_back_and_permits_more() -> None:
    def change(number: int) -> None:
        if number == 1:
            daemon.misbehave = faults.silent
        else:
            daemon.misbehave = None
            daemon.open_commands = ALL_COMMANDS

    with ScriptedDaemon() as daemon:
        first, lost, last = asyncio.run(take(daemon.address, 3, change, timeout=2.0))
    assert first.selection is None
    assert isinstance(lost, ChronyConnectionError)
    assert len(last.selection) == 4


@pytest.mark.parametrize(
    ("sources", "selected", "match"),
    [
        (["192.0.2.1"], ["192.0.2.1"], True),
        (["192.0.2.1"], ["192.0.2.2"], False),
        (["192.0.2.1", "192.0.2.2"], ["192.0.2.1"], False),
        (["192.0.2.1", "GPS"], ["192.0.2.1", ""], True),
    ],
)
def test_reasons_of_other_sources_are_not_shown(
    sources: list[str], selected: list[str], match: bool
) -> None:
    given = [make_source(address=address) for address in sources]
    records = [make_select_data(address=address) for address in selected]
    reading = Reading(make_tracking(), given, records)
    assert reading._clock.select == (records if match else ())
    assert matching(given, records) == (records if match else ())


def test_lines_of_a_good_clock() -> None:
    with ScriptedDaemon() as daemon:
        status, output, errors = run(daemon.address, "-n", "3", "-i", "0.01")
    assert (status, errors) == (0, "")
    assert re.fullmatch(f"({LINE}\n){{3}}", output)


def test_lines_of_several_clocks() -> None:
    with ScriptedDaemon() as one, ScriptedDaemon() as other:
        other.stop()
        both = one.address, other.address, one.address
        status, output, errors = run(*both, "-n", "2", "-i", "0.01")
    assert (status, errors) == (1, "")
    assert output.count(f"Z {one.address}: offset ") == 2
    assert output.count(f"Z {other.address}: lost: ") == 2


def test_statistics_where_they_are_wanted() -> None:
    async def read(daemon: ScriptedDaemon) -> list[Any]:
        connection = AsyncChronyConnection(daemon.address)
        return [
            reading
            async for reading in follow(connection, 1e-3, 1, with_stats=lambda: True)
        ]

    with ScriptedDaemon() as daemon:
        (reading,) = asyncio.run(read(daemon))
        assert [one.samples for one in reading.stats] == [8] * 4
        daemon.open_commands = ["tracking", "sources"]
        (reading,) = asyncio.run(read(daemon))
        assert reading.stats == ()


def test_lines_of_a_clock_without_a_source() -> None:
    with ScriptedDaemon(tracking=make_tracking(**UNSYNCHRONISED)) as daemon:
        _, output, _ = run(daemon.address, "--count=1")
    assert ", no error bound, stratum 0, not synchronised, 4 of 4" in output


def test_lines_while_chronyd_comes_back() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        with start(daemon.address, "-i", "0.01") as process:
            assert process.stdout is not None
            assert " lost: " in process.stdout.readline()
            daemon.start()
            while " lost: " in (line := process.stdout.readline()):
                pass
            assert re.fullmatch(LINE + "\n", line)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "")


def test_last_reading_failed() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        status, output, errors = run(daemon.address, "-n", "2", "-i", "0.01")
    assert (status, errors) == (1, "")
    assert output.count(" lost: ") == 2


def test_line_is_there_at_once() -> None:
    with ScriptedDaemon() as daemon, start(daemon.address, "-i", "999") as process:
        assert process.stdout is not None
        assert re.fullmatch(LINE + "\n", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_lines_into_a_broken_pipe() -> None:
    with ScriptedDaemon() as daemon:
        with start(daemon.address, "-i", "0.01") as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait() == 0


def test_lines_onto_a_full_disk() -> None:
    with ScriptedDaemon() as daemon, open("/dev/full", "w") as full:
        status, _, errors = run(daemon.address, stdout=full)
    assert status == 1
    assert errors.startswith("cannot write: ")
    assert len(errors.splitlines()) == 1


def test_output_that_is_no_file() -> None:
    with ScriptedDaemon() as daemon, redirect_stdout(StringIO()) as output:
        assert main([daemon.address, "-n", "1"]) == 0
    assert re.fullmatch(LINE + "\n", output.getvalue())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["127.0.0.1:x"], "'127.0.0.1:x'"),
        (["-i", "0"], "'0' is not a positive number"),
        (["-i", "soon"], "'soon' is not a positive number"),
        (["-n", "0"], "argument -n/--count: 0 is less than 1"),
        (["-n", "-1"], "-n"),
        (["-t", "1e9"], "timeout 1000000000.0 s"),
        (["-r", "-1"], "'-1' is not a natural number"),
    ],
)
def test_usage_errors_of_watch(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    output, errors = capsys.readouterr()
    (line,) = errors.splitlines()
    assert output == ""
    assert line.startswith("python -m pychrony.watch: ")
    assert message in line
    assert line.endswith("See --help")


def test_watch_without_libchrony() -> None:
    environment = {**os.environ, "PYCHRONY_LIBCHRONY": "/nowhere/libchrony.so"}
    status, output, errors = run(env=environment)
    assert (status, output) == (1, "")
    (line,) = errors.splitlines()
    assert "/nowhere/libchrony.so" in line


def test_real_chronyd_restarts(parts: Parts) -> None:
    with Chronyd(parts, "local stratum 5") as daemon:
        with start(daemon.socket, "-i", "0.01") as process:
            assert process.stdout is not None
            assert "stratum 5, local mode, 0 of 0" in process.stdout.readline()
            daemon.kill()
            while " lost: " not in process.stdout.readline():
                pass
            daemon.restart()
            while "stratum 5, local mode" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "")
        assert not list(Path(daemon.directory).glob("libchrony*"))
