"""What the pages of docs/ show is what happens."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

import pychrony
from pychrony import _address, _reports, check, models
from pychrony.check._items import ITEMS
from pychrony.testing import (
    ScriptedDaemon,
    make_smoothing,
    make_source,
    make_tracking,
)

DOCS = Path(__file__).parents[1] / "docs"
CHECK = DOCS.joinpath("check.rst").read_text()


def commands(page: str) -> list[tuple[list[str], list[str]]]:
    """The arguments of each command on a page, and what it is shown to print."""
    found: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"code-block:: console\n\n((?:   .*\n)+)", page):
        command, *shown = (line.removeprefix("   ") for line in block.splitlines())
        found.append((shlex.split(command.removeprefix("$ ")), shown))
    return found


def test_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tracking = make_tracking(
        offset=0.000012,
        root_delay=0.001,
        root_dispersion=0.000524,
        reference_ip="192.0.2.1",
        stratum=3,
        ref_time=time.time() - 200,
    )
    sources = [make_source(address=f"192.0.2.{number}") for number in (1, 2)]
    monkeypatch.chdir(tmp_path)
    with (
        ScriptedDaemon(tracking=tracking, sources=sources) as daemon,
        ScriptedDaemon() as refused,
    ):
        refused.stop()
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,))
        Path("clocks.txt").write_text(f"{daemon.address}\n{refused.address}\n")
        names = {daemon.address: "192.0.2.7", refused.address: "127.0.0.1:9"}
        for (program, *options), shown in commands(CHECK):
            assert program == "check_chrony"
            here = [option.replace("/var/lib/node_exporter/", "") for option in options]
            status = check.main(here)
            output = re.sub(r"\b200\.\d+s", "200.0s", capsys.readouterr().out)
            for address, name in names.items():
                output = output.replace(address, name)
            assert status == (check.CRITICAL if "--hosts" in options else check.OK)
            if shown:
                # The table is as wide as the longest address.
                assert output.split() == " ".join(shown).split()
        assert Path("chrony.prom").read_text().startswith("# HELP ")


def test_check_in_other_programs() -> None:
    """Options that a unit and monitoring systems give to the command."""
    lines: list[str] = re.findall(r"/usr/bin/check_chrony (.+)", CHECK)
    for line in lines:
        # As soon after the start of chronyd as it can follow a source.
        young = make_source(reachability=0o7)
        tracking = make_tracking(ref_time=time.time())
        with ScriptedDaemon(tracking=tracking, sources=[young]) as daemon:
            values = {"$ARG1$": "-1:1", "$ARG2$": "2", "$HOSTADDRESS$": daemon.address}
            options = [values.get(option, option) for option in line.split()]
            waits = "--wait" in options
            found = check.main([*options, daemon.address] if waits else options)
            assert found == (check.OK if waits else check.WARNING)


def test_field_that_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line that CONTRIBUTING shows, in a report that lacks the field."""
    page = DOCS.with_name("CONTRIBUTING.rst").read_text()
    (line,) = re.findall(r"code-block:: python\n\n   (.*)\n", page)
    code = (
        f"@dataclass(frozen=True, repr=False, eq=False)\nclass New(Smoothing):\n {line}"
    )
    names = dict(vars(models))
    exec(compile(code, "models.py", "exec", dont_inherit=True), names)
    monkeypatch.setitem(models.REPORTS, names["New"], "smoothing")
    with ScriptedDaemon(smoothing=make_smoothing(wander=0.5)) as daemon:
        with pychrony.ChronyConnection(daemon.address) as connection:
            record: Any = connection._turn(lambda s: _reports.one(s, names["New"]))
    assert (record.wander, record.temperature) == (0.5, None)


def test_items_of_the_check() -> None:
    rows = re.findall(r"^([a-z_]+) +(0 or 1|s|ppm|) +(.*)$", CHECK, flags=re.M)
    table = {name: (unit, rest) for name, unit, rest in rows}
    for item in ITEMS:
        unit, rest = table[item.name]
        assert unit == ("0 or 1" if item.unit == "flag" else item.unit)
        limits = [limit for limit in (item.warning, item.critical) if limit]
        assert rest.split()[: len(limits)] == [
            "8" if callable(limit) else limit for limit in limits
        ]
