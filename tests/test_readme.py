"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pychrony import SourceState, TrackingStatus, _address, check, library_path
from pychrony.testing import ScriptedDaemon, faults, make_source, make_tracking

README = Path(__file__).parents[1].joinpath("README.rst").read_text()


def clock() -> TrackingStatus:
    return make_tracking(
        offset=0.000012,
        root_delay=0.001,
        root_dispersion=0.000524,
        reference_ip="192.0.2.1",
        stratum=3,
        ref_time=time.time() - 200,
    )


def blocks(language: str) -> list[str]:
    """The code blocks of the README in one language."""
    pattern = rf"\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)"
    return [
        re.sub("^   ", "", block, flags=re.M).strip()
        for block in re.findall(pattern, README)
    ]


def test_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = blocks("python")
    with ScriptedDaemon(tracking=make_tracking(offset=0.25)) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,))
        # The only thing changed: where the chronyd of this machine is.
        exec(code.replace('"127.0.0.1"', repr(daemon.address)), {})
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"off by \+0\.250000000 s, at most 0\.25\d{7} s", first)
    assert second.startswith("192.168.1.100 SELECTED 0.000123456")


def test_asyncio_and_many(capsys: pytest.CaptureFixture[str]) -> None:
    _, code = blocks("python")
    with ScriptedDaemon() as daemon, ScriptedDaemon() as silent:
        silent.misbehave = faults.silent
        here = code.replace('"127.0.0.1"', repr(daemon.address))
        exec(here.replace('"192.0.2.7"', repr(silent.address)), {})
    lists, answer, failure = capsys.readouterr().out.splitlines()
    assert lists == "1 of 1"
    assert answer.startswith(f"{daemon.address} 0.000123456")
    assert failure.startswith(f"{silent.address}: tracking: no answer to 3 requests")


def test_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [block for block in blocks("console") if "--format text" in block]
    command, *shown = example.splitlines()
    states = [SourceState.SELECTED, *[SourceState.UNSELECTED] * 2]
    sources = [
        make_source(address=f"192.0.2.{number}", state=state)
        for number, state in enumerate([*states, SourceState.FALSETICKER], 1)
    ]
    with ScriptedDaemon(tracking=clock(), sources=sources) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,))
        options = command.removeprefix("$ python -m pychrony.check ").split()
        assert check.main(options) == check.WARNING
    output = re.sub(r"\b200\.\ds", "200.0s", capsys.readouterr().out)
    assert output.splitlines() == shown


@pytest.mark.parametrize("session", ["demo", "tests"])
def test_commands_name_sessions_that_exist(session: str) -> None:
    commands = [line for block in blocks("console") for line in block.splitlines()]
    (command,) = [one for one in commands if one.endswith(f"nox -s {session}")]
    assert command.startswith("$ python3 -m venv .venv && ")
    noxfile = Path(__file__).parents[1].joinpath("noxfile.py").read_text()
    assert f"\ndef {session}(session" in noxfile


def test_borrowed_library_is_named_right(tmp_path: Path) -> None:
    """The two lines that get libchrony where no distribution has it."""
    (block,) = [one for one in blocks("console") if "export PYCHRONY" in one]
    install, export = block.replace("/opt/libchrony", str(tmp_path)).splitlines()
    assert "pip install --no-deps --target" in install
    assert install.endswith("pychrony==2.0.3")
    target = tmp_path / "pychrony.libs" / "libchrony-0123.so.0.0.1"
    target.parent.mkdir()
    target.symlink_to(library_path())
    script = f"{export.removeprefix('$ ')}; {sys.executable} -m pychrony.check -V"
    output = subprocess.check_output(["sh", "-c", script], text=True)
    assert output.endswith(f"libchrony {target}\n")


def test_demo() -> None:
    output = subprocess.check_output(
        [sys.executable, Path(__file__).with_name("demo.py")], text=True
    )
    assert "3 of 3 servers usable, synchronised at stratum 3\n" in output
    over_udp, over_unix = re.findall("^CHRONY .*", output, flags=re.M)
    assert over_udp.startswith("CHRONY OK - offset ")
    assert over_unix.startswith("CHRONY OK - offset ")
    assert "Leap status     : Normal\n" in output
