"""``python -m pychrony``: reports as text, JSON and CSV, and ``to_dict()``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from chronyd import Chronyd, run_chronyc
from helpers import on_full_disk, short_directory
from kit_helpers import NTP_DATA_2
from provision import Parts

import pychrony
from pychrony import SourceMode, SourceState, _library
from pychrony.__main__ import main
from pychrony.models import REPORTS
from pychrony.testing import (
    ScriptedDaemon,
    faults,
    make_ntp_data,
    make_rtc_data,
    make_smoothing,
    make_source,
    make_tracking,
)

NAMES = [*REPORTS.values()]
SCHEMA = json.loads(
    Path(__file__).parents[2].joinpath("docs", "reports.schema.json").read_text()
)
CLOCK = make_source(address="PPS0", mode=SourceMode.REFCLOCK, stratum=0)
NEVER = make_source(
    address="2001:db8::1",
    state=SourceState.NONSELECTABLE,
    reachability=0,
    last_sample_ago=0xFFFFFFFF,
)
COMBINED = make_source(address="192.0.2.1", state=SourceState.UNSELECTED)


def printed(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("filled", [False, True])
def test_json_of_every_report(filled: bool, capsys: pytest.CaptureFixture[str]) -> None:
    more: dict[str, Any] = {}
    if filled:
        more = {"rtc_data": make_rtc_data(), "smoothing": make_smoothing()}
    with (
        short_directory() as directory,
        ScriptedDaemon(
            address=f"{directory}/s", sources=[CLOCK, NEVER, COMBINED], **more
        ) as daemon,
    ):
        status, output, complaint = printed(
            capsys, "-H", daemon.address, "--json", "all"
        )
    assert (status, complaint) == (0, "")
    document = json.loads(output)
    jsonschema.validate(document, SCHEMA)
    reports = document["reports"]
    assert list(reports) == NAMES
    assert document["address"] == daemon.address
    assert document["errors"] == {}
    assert (reports["rtcdata"] is not None) == filled
    for report in ("sources", "sourcestats", "selectdata"):
        names = [record["name"] for record in reports[report]]
        assert names == ["PPS0", "2001:db8::1", "192.0.2.1"]
    clock, never, combined = reports["sources"]
    assert clock["mode"] == "refclock"
    assert never["last_sample_ago_seconds"] is None
    assert combined["state"] == "combined"
    assert reports["tracking"]["reference_id"] == "50505330"
    assert reports["tracking"]["synchronized"] is True


def test_value_of_a_field_as_a_dictionary() -> None:
    with ScriptedDaemon(open_commands=["ntpdata", "sourcestats"]) as daemon:
        record = pychrony.get_report("ntpdata", daemon.address)[0]
    assert record["mode"].to_dict() == {
        "value": 4,
        "type": "uinteger",
        "content": "enum",
        "names": ["server"],
    }


def test_no_value_that_json_does_not_have() -> None:
    record = make_tracking(offset=float("nan"), frequency=float("inf")).to_dict()
    assert record["offset_seconds"] is record["frequency_ppm"] is None
    unknown = make_source(state=SourceState(9)).to_dict()
    assert unknown["state"] == "unknown_9"


def test_csv(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedDaemon(sources=[CLOCK, NEVER]) as daemon:
        host, _, port = daemon.address.partition(":")
        arguments = ("-H", host, "-p", port, "--csv", "tracking", "sources")
        status, output, _ = printed(capsys, *arguments)
        # A report that is disabled has no table.
        assert printed(capsys, "-p", port, "--csv", "rtcdata") == (0, "", "")
        tracking = pychrony.get_tracking(daemon.address)
    assert status == 0
    first, second = output.split("\n\n")
    (row,) = csv.DictReader(io.StringIO(first))
    assert float(row["offset_seconds"]) == tracking.offset
    assert row["leap_status"] == "normal"
    rows = list(csv.DictReader(io.StringIO(second)))
    assert [one["name"] for one in rows] == ["PPS0", "2001:db8::1"]
    assert rows[1]["last_sample_ago_seconds"] == ""


def test_what_is_not_permitted_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedDaemon() as daemon:
        arguments = ("-H", daemon.address, "--json", "serverstats", "activity")
        status, output, complaint = printed(capsys, *arguments)
    assert status == 1
    assert list(json.loads(output)["reports"]) == ["activity"]
    assert "Not authorized" in json.loads(output)["errors"]["serverstats"]
    assert complaint.startswith("serverstats: ")


def test_no_socket_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with short_directory() as directory:
        assert main(["-H", f"{directory}/chronyd.sock", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["reports"] == {}
    (line,) = printed.err.splitlines()
    assert "chronyd.sock: No such file or directory" in line


def test_missing_libchrony_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_library, "_lib", None)
    monkeypatch.setattr(_library, "_tried", [("libchrony.so.0", OSError("no file"))])
    monkeypatch.delenv(_library.VARIABLE, raising=False)
    assert main(["tracking", "sources"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking: no usable libchrony. Tried libchrony.so.0: ")
    assert " To get it: " in line


def test_full_disk() -> None:
    with ScriptedDaemon() as daemon:
        status, said = on_full_disk("pychrony", "-H", daemon.address)
    assert status == 1
    assert "output: [Errno 28] No space left on device" in said


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        arguments = ("-H", daemon.address, "-t", "0.2", "tracking", "sources")
        status, output, complaint = printed(capsys, *arguments)
    assert (status, output) == (1, "")
    assert complaint.startswith("tracking: ")
    assert complaint.count("\n") == 1


SHORT = ("tracking", "activity", "rtcdata", "smoothing")


def test_the_timeout_is_that_of_all_reports(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each reply is slow, but none so slow that it would not arrive."""
    with ScriptedDaemon(misbehave=faults.delayed(0.3)) as daemon:
        arguments = ("-H", daemon.address, "-t", "1", "-r", "0", "--json", *SHORT)
        status, output, _ = printed(capsys, *arguments)
    document = json.loads(output)
    assert status == 1
    assert len(document["reports"]) < 4
    assert len(document["errors"]) == 1


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["-H", "127.0.0.1:x"], ["-6", "-H", "127.0.0.1"]]
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "python -m pychrony: error: " in capsys.readouterr().err


CONFIG = """\
local stratum 5
server 127.0.0.5 port 9 offline
server 127.0.0.6 port 9 offline noselect
smoothtime 400 0.01
refclock SOCK {directory}/gps refid GPS
"""


@pytest.fixture
def assert_like_chronyc(
    parts: Parts, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], None]:
    """Compare the text of a report with what chronyc prints of it."""

    def compare(address: str, report: str) -> None:
        shown_all = report in ("sources", "sourcestats", "selectdata", "authdata")
        words = [report, *(["-a"] if shown_all else [])]
        printed = run_chronyc(parts, address, *words).stdout
        assert main(["-H", address, report]) == 0
        theirs, ours = (
            [line.rstrip() for line in text.rstrip("\n").split("\n")]
            for text in (printed, capsys.readouterr().out)
        )
        assert ours == theirs

    return compare


def test_text_is_that_of_chronyc(
    assert_like_chronyc: Callable[[str, str], None],
    parts: Parts,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Chronyd(parts, CONFIG) as daemon:
        for report in NAMES:
            if report != "serverstats":  # it counts our requests
                assert_like_chronyc(daemon.socket, report)
        assert main(["-H", daemon.socket, "serverstats"]) == 0
        assert "NTP packets received       : 0\n" in capsys.readouterr().out


def test_text_of_what_a_real_chronyd_seldom_says(
    assert_like_chronyc: Callable[[str, str], None], parts: Parts, directory: str
) -> None:
    old: dict[str, Any] = {}
    addresses = ("2001:db8::9", "ID#0000000007", "", "192.0.2.7")
    with ScriptedDaemon(address=f"{directory}/s") as daemon:
        if run_chronyc(parts, daemon.address, "ntpdata").returncode:
            old = NTP_DATA_2  # this chronyc cannot read what a newer chronyd sends
        daemon.ntp_data = [
            make_ntp_data(address=f"192.0.2.{number}", remote_address=address, **old)
            for number, address in enumerate(addresses)
        ]
        for report in ("ntpdata", "rtcdata", "smoothing"):
            assert_like_chronyc(daemon.address, report)
        daemon.rtc_data, daemon.smoothing = make_rtc_data(), make_smoothing()
        assert_like_chronyc(daemon.address, "rtcdata")
        assert_like_chronyc(daemon.address, "smoothing")
