"""What the README shows is what happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import blocks_in
from scene import clock

from pychrony import SourceState, _address, check
from pychrony.testing import ScriptedDaemon, make_source, make_tracking

ROOT = Path(__file__).parents[2]
README = ROOT.joinpath("README.rst").read_text()


def test_python_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks_in("python", README)
    tracking = make_tracking(offset=0.25)
    with ScriptedDaemon(tracking=tracking) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,))
        exec(code, {})
    output = capsys.readouterr().out
    assert re.fullmatch(r"off by \+0\.250000000 s, at most 0\.25\d{7} s\n", output)


def test_figures_of_speed() -> None:
    tables = json.loads(ROOT.joinpath("docs/bench.json").read_text())["tables"]

    def milliseconds(table: str, row: str, who: str) -> float:
        median = tables[table]["rows"][row][who]["typical"]
        units = {"us": median / 1e3, "ms": median, "daemons/s": 10_000 / median * 1e3}
        return float(units[tables[table]["unit"]])

    measured = {
        "tracking of this machine": ("tracking", "all cores free"),
        "100 sources of this machine": ("local", "all cores free"),
        "1 source, 10 ms away": ("lists", "1 at 10 ms"),
        "100 sources, 50 ms away": ("lists", "100 at 50 ms"),
        "tracking of 10,000 daemons": ("sweeps", "10,000 at 0 ms"),
    }
    for name, place in measured.items():
        theirs, ours = (milliseconds(*place, who) for who in ("chronyc", "pychrony"))
        row = re.search(
            rf"^{name} +([\d.]+) ms +([\d.]+) ms +([\d.]+) : 1$", README, re.M
        )
        assert row
        wanted = (f"{theirs:.3g}", f"{ours:.3g}", f"{theirs / ours:.2g}")
        assert [*map(float, row.groups())] == [*map(float, wanted)]


def test_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [
        block for block in blocks_in("console", README) if "--format text" in block
    ]
    command, *shown = example.splitlines()
    states = [SourceState.SELECTED, *[SourceState.UNSELECTED] * 2]
    sources = [
        make_source(address=f"192.0.2.{number}", state=state)
        for number, state in enumerate([*states, SourceState.FALSETICKER], 1)
    ]
    with ScriptedDaemon(tracking=clock(0.000012), sources=sources) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,))
        options = command.removeprefix("$ python -m pychrony.check ").split()
        assert check.main(options) == check.WARNING
    output = re.sub(r"\b2[01]\d\.\ds", "200.0s", capsys.readouterr().out)
    assert output.splitlines() == shown


def test_files_that_are_named_exist() -> None:
    """They are links with the whole address, since an index shows this page, too."""
    address = r"https://github\.com/arunderwood/pychrony/(?:blob|tree)/main/"
    targets = dict(re.findall(rf"^\.\. _(\S+): {address}(\S+)$", README, re.M))
    assert {*targets} == {*re.findall(r"`([\w./]+)`_", README)}
    for name, path in targets.items():
        assert name.rstrip("/") == path and ROOT.joinpath(path).exists(), name
    assert not re.findall(r"``[\w/]+(?:\.rst|\.json|/)``", README)


@pytest.mark.parametrize("session", ["demo", "tests"])
def test_commands_name_sessions_that_exist(session: str) -> None:
    commands = [
        line for block in blocks_in("console", README) for line in block.splitlines()
    ]
    (command,) = [one for one in commands if one.endswith(f"nox -s {session}")]
    assert command.startswith("$ python3 -m venv .venv && ")
    noxfile = ROOT.joinpath("noxfile.py").read_text()
    assert f"\ndef {session}(session" in noxfile


def test_installation() -> None:
    """Its commands name what this tree and package have."""
    (block,) = [one for one in blocks_in("console", README) if "git clone" in one]
    lines = block.splitlines()
    assert lines[3] == "$ ~/clock/bin/pip install ./pychrony"
    for line in lines[4:]:
        program, *options = line.removeprefix("$ ~/clock/bin/").split()
        command = ["-m", "pychrony.check"] if program == "check_chrony" else options
        subprocess.run(
            [sys.executable, *command, *([] if options else ["--version"])], check=True
        )


def test_demo() -> None:
    output = subprocess.check_output(
        [sys.executable, ROOT / "tests/tools/demo.py"], text=True
    )
    # Before it looks for its parts, which may take a while.
    assert output.startswith("Looking for libchrony, chronyd and chronyc.")
    assert "3 of 3 servers usable, synchronised at stratum 3\n" in output
    over_udp, over_unix = re.findall("^CHRONY .*", output, flags=re.M)
    assert over_udp.startswith("CHRONY OK - offset ")
    assert over_unix.startswith("CHRONY OK - offset ")
    assert "Leap status     : Normal\n" in output


KEEPS = "import subprocess, sys; subprocess.run(sys.argv[1:])"


@pytest.mark.parametrize(
    ("kill", "number"),
    [
        (os.killpg, signal.SIGINT),  # Ctrl-C
        (os.killpg, signal.SIGTERM),
        (os.kill, signal.SIGKILL),  # of what started it only
    ],
)
def test_demo_that_is_kept(kill: Callable[[int, int], None], number: int) -> None:
    demo = [sys.executable, str(ROOT / "tests/tools/demo.py"), "--keep"]
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS, *demo],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        shown = ""
        try:
            while "kill -CONT" not in shown:
                line = process.stdout.readline()
                assert line, shown
                shown += line
            _, _, commands = shown.partition("Try in another terminal:\n\n")
            script = commands.partition("\n\n")[0].replace(".watch ", ".watch -n 1 ")
            tried = subprocess.check_output(["sh", "-ec", script], text=True)
        finally:
            kill(process.pid, number)
        process.stdout.read()  # until all have closed it
    assert tried.count("offset ") >= 2 and "\nOK        synchronised" in tried
    pids = re.findall(r" pid (\d+)$", shown, re.M)
    assert len(pids) == 5
    (directory,) = re.findall(r" (/tmp/\w+)/chronyd\.sock$", shown, re.M)
    for left in (directory, *(f"/proc/{pid}" for pid in pids)):
        assert not Path(left).exists()
