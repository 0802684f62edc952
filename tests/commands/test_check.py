"""``python -m pychrony.check``: what it says, and with which status it exits."""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import resource
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, redirect_stdout
from importlib.metadata import entry_points
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import pytest
from chronyd import Chronyd, chronyc_command
from prometheus_client.parser import text_string_to_metric_families
from provision import Parts

import pychrony
from pychrony import LeapStatus, SourceMode, SourceState, _chronyc
from pychrony.check import CRITICAL, OK, UNKNOWN, WARNING, _range, main
from pychrony.check._items import ITEMS
from pychrony.testing import ScriptedDaemon, faults, make_source, make_tracking

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
    r"([a-z_]+=-?\d+(\.\d+)?s?"
    r"(;(@?(~|-?\d+(\.\d+)?)?:?(-?\d+(\.\d+)?)?)?){0,2}(;0)? ?)+"
)

SELECTED = make_source(address="192.0.2.1")
OTHER = make_source(address="192.0.2.2", state=SourceState.UNSELECTED)
WRONG = make_source(address="192.0.2.9", state=SourceState.FALSETICKER)

MANY_WRONG = [
    SELECTED,
    *(
        make_source(address=f"10.0.0.{number}", state=SourceState.FALSETICKER)
        for number in range(1, 8)
    ),
]

# Figures that are exact as chronyd's floats, so that the outputs are, too.
FINE: Any = {
    "offset": 2**-13,
    "root_delay": 0.25,
    "root_dispersion": 0.5,
    "reference_ip": "192.0.2.1",
    "stratum": 3,
    "frequency": -1.5,
    "skew": 0.0625,
}

UNSYNCHRONISED: Any = {
    "reference_id": 0,
    "reference_ip": "",
    "stratum": 0,
    "leap_status": LeapStatus.UNSYNC,
}

LOCAL: Any = {"reference_id": 0x7F7F0101, "reference_ip": ""}


def clock(age: float = 0.0, **changes: Any) -> pychrony.TrackingStatus:
    """A fine clock, updated ``age`` seconds ago, but for the changes."""
    return make_tracking(**{**FINE, "ref_time": time.time() - age, **changes})


def fine_daemon(**changes: Any) -> ScriptedDaemon:
    return ScriptedDaemon(tracking=clock(**changes), sources=[SELECTED, OTHER])


def ageless(output: str) -> str:
    """The output without the age, which is another each time."""
    output = re.sub(r'"time": ".*?"', "", output)
    return re.sub(r'\bage(",.*?"value": |=|\s+)[\d.e-]+(ms|us|s)?', "age", output)


def items(output: str) -> dict[str, dict[str, Any]]:
    """The items of the only clock in a JSON document."""
    (only,) = json.loads(output)["clocks"]
    return {item["name"]: item for item in only["items"]}


def test_fine_clock() -> None:
    with fine_daemon() as daemon:
        status, output = check(daemon.address)
    assert status == OK
    (line,) = output.splitlines()
    text, performance = line.split(" | ")
    assert text == (
        "CHRONY OK - offset +122us, error bound 625ms, stratum 3, source 192.0.2.1, "
        "2 of 2 sources usable"
    )
    assert ageless(performance) == (
        "synchronised=1;;1:;0 local=0;0;;0 offset=0.00012207s;-0.05:0.05;-0.2:0.2 "
        "error_bound=0.62512207s;;;0 root_delay=0.25s;;;0 root_dispersion=0.5s;;;0 "
        "stratum=3;9;;0 age;1025;;0 frequency=-1.500 skew=0.062;;;0 "
        "usable_sources=2;2:;1:;0 reach=8;4:;;0 falsetickers=0;0;;0"
    )
    assert PERFORMANCE.fullmatch(performance)


# What is changed of a fine clock, options, the state, and what is said of it.
VERDICTS: list[tuple[Any, Any, list[str], int, str]] = [
    ({"offset": 0.049}, None, [], OK, "offset +49ms, "),
    ({"offset": 0.051}, None, [], WARNING, "offset +51ms (more than +50ms): Wait"),
    ({"offset": -0.051}, None, [], WARNING, "offset -51ms (less than -50ms): Wait"),
    ({"offset": 0.21}, None, [], CRITICAL, "offset +210ms (more than +200ms): Wait"),
    ({"offset": -0.21}, None, [], CRITICAL, "offset -210ms (less than -200ms): "),
    ({"offset": 0.051}, None, ["-w", "0.1"], OK, "offset +51ms, "),
    ({"offset": 0.25}, None, ["-w", "0.25", "-c", "0.5"], OK, "offset +250ms, "),
    ({"offset": 0.5}, None, ["-w", "0.25", "-c", "0.5"], WARNING, "(more than +250ms)"),
    ({"offset": -1.5}, None, ["-w", "off", "--critical=off"], OK, "offset -1500ms, "),
    ({"offset": 2**-23}, None, ["-w", "1e-8"], WARNING, "offset +119ns (more than"),
    ({"offset": 0.01}, None, ["-c", "~:0.005"], CRITICAL, "(more than +5000us)"),
    ({"offset": -9.0}, None, ["-w~:1", "-c~:2"], OK, "offset -9000ms, "),
    ({"offset": 0.03}, None, ["-w", "@0.02:0.04"], WARNING, "+30ms (in @0.02:0.04): "),
    ({"offset": -0.03}, None, ["-w", "@0.04"], WARNING, "-30ms (in @-0.04:0.04): "),
    ({}, None, ["-w", "error_bound=.5"], WARNING, "error bound 625ms (more than 500ms"),
    ({}, None, ["-c", "root_delay=0.1"], CRITICAL, "root delay 250ms (more than 100"),
    ({}, None, ["-w", "root_dispersion=.1"], WARNING, "root dispersion 500ms (more"),
    ({"stratum": 9}, None, [], OK, "stratum 9, "),
    ({"stratum": 10}, None, [], WARNING, "stratum 10 (more than 9): Use sources"),
    ({"stratum": 3}, None, ["-c", "stratum=2"], CRITICAL, "stratum 3 (more than 2): "),
    ({"age": 1000.0}, None, [], OK, "offset"),
    ({"age": 1030.0}, None, [], WARNING, "s (more than 1025s): chronyd gets no"),
    ({"age": 8000.0, "update_interval": 1024.0}, None, [], OK, "offset"),
    ({"age": 8200.0, "update_interval": 1024.0}, None, [], WARNING, "more than 8192s"),
    ({"age": 9.0}, None, ["-c", "age=5"], CRITICAL, "(more than 5000ms): chronyd gets"),
    ({"age": -500.0}, None, [], OK, "offset"),
    ({"age": -2000.0}, None, [], WARNING, "and, if it runs elsewhere, the clock"),
    ({}, None, ["-w", "frequency=1"], WARNING, "frequency -1.500ppm (less than -1.000"),
    ({}, None, ["-w", "frequency=1", "-c", "frequency=2:"], CRITICAL, "less than +2.0"),
    ({}, None, ["-w", "skew=0.01"], WARNING, "skew 0.062ppm (more than 0.010ppm): "),
    ({}, [SELECTED], [], WARNING, "usable sources 1 (less than 2): Add sources; "),
    ({}, [WRONG], [], CRITICAL, "usable sources 0 (less than 1): Add sources, or see"),
    ({}, [SELECTED], ["-w", "usable_sources=1:"], OK, "1 of 1 sources usable"),
    (
        {},
        [make_source(address="192.0.2.1", reachability=0o105), OTHER],
        *([], WARNING, "reach 3 (less than 4): Check the network to 192.0.2.1; "),
    ),
    ({}, [make_source(reachability=0o17), OTHER], [], OK, "offset"),
    (
        {},
        [SELECTED, OTHER, WRONG],
        *([], WARNING, "falsetickers 1 (more than 0): Check or remove 192.0.2.9; "),
    ),
    ({}, [SELECTED, OTHER, WRONG], ["-w", "falsetickers=off"], OK, "2 of 3 sources us"),
    ({"leap_status": LeapStatus.INSERT}, None, [], OK, ", a leap second will be inser"),
    ({"leap_status": LeapStatus.DELETE}, None, [], OK, ", a leap second will be delet"),
    (
        {"leap_status": LeapStatus.UNSYNC},
        None,
        *([], CRITICAL, "not synchronised: chronyd follows a source, but has not"),
    ),
    (
        UNSYNCHRONISED,
        [],
        *([], CRITICAL, "not synchronised: chronyd has no sources. Add a server or "),
    ),
    (
        UNSYNCHRONISED,
        [make_source(reachability=0, state=SourceState.NONSELECTABLE)],
        *([], CRITICAL, "not synchronised: no source is reachable. Check the network"),
    ),
    (
        UNSYNCHRONISED,
        [WRONG],
        *([], CRITICAL, "not synchronised: no source is selected. "),
    ),
    (UNSYNCHRONISED, None, ["-c", "synchronised=off"], OK, "2 of 2 sources usable"),
    (LOCAL, [], [], WARNING, "local mode: chronyd serves its own clock, as it has"),
    (LOCAL, [], ["-w", "local=off"], OK, "OK - local mode, 0 of 0 sources usable"),
    (LOCAL, [], ["-w", "off"], OK, "OK - local mode, 0 of 0 sources usable"),
    ({"offset": 9.0}, [WRONG], ["-w", "off", "-c", "off"], OK, "0 of 1 sources"),
    ({"offset": -0.3}, None, ["-w", "-0.4:0.1", "-c", "-.4:1"], OK, "offset -300ms"),
    ({"offset": -0.3}, None, ["--critical", "-0.2:1"], CRITICAL, "less than -200ms"),
    ({}, MANY_WRONG, [], WARNING, "Check or remove 10.0.0.1, 10.0.0.2, 10.0.0.3, 10."),
    ({}, MANY_WRONG, [], WARNING, "10.0.0.5 and 2 more; "),
    (LOCAL, [], ["-c", "local=0"], CRITICAL, "local mode: "),
]


@pytest.mark.parametrize(("changes", "sources", "options", "state", "said"), VERDICTS)
def test_every_verdict(
    changes: Any, sources: Any, options: list[str], state: int, said: str
) -> None:
    tracking = clock(**changes)
    with ScriptedDaemon(
        tracking=tracking, sources=[SELECTED, OTHER] if sources is None else sources
    ) as daemon:
        status, output = check(daemon.address, *options)
    assert status == state, output
    assert output.startswith(f"CHRONY {STATES[status]} - ")
    text, performance = output.rstrip().split(" | ")
    assert said in text
    assert PERFORMANCE.fullmatch(performance)
    follows = tracking.is_synchronized() and tracking.leap_status != LeapStatus.UNSYNC
    for figure in ("offset=", "stratum=", "age=", "skew=", "error_bound="):
        assert (f" {figure}" in performance) == follows


@pytest.mark.parametrize("item", [item.name for item in ITEMS])
def test_each_item_can_warn_be_critical_and_be_switched_off(item: str) -> None:
    everything = f"{item}=@~:"
    with fine_daemon() as daemon:
        warning, output = check(daemon.address, "-w", everything)
        critical, worse = check(daemon.address, "-w", everything, "-c", everything)
        both = ("-w", everything, "-w", f"{item}=off", "-c", f"{item}=off")
        off, fine = check(daemon.address, *both)
    assert (warning, critical, off) == (WARNING, CRITICAL, OK)
    assert output.startswith("CHRONY WARNING - ")
    assert worse.startswith("CHRONY CRITICAL - ")
    assert re.search(rf" {item}=[^;]+;@~:[; ]", output)
    assert re.search(rf" {item}=[^; ]+(;;;0)?( |\n)", fine)


def test_the_worst_is_first() -> None:
    tracking = clock(offset=0.3, stratum=11)
    with ScriptedDaemon(tracking=tracking, sources=[SELECTED]) as daemon:
        status, output = check("-w", "frequency=1", daemon.address)
        _, table = check("-f", "text", "-c", "skew=@1", daemon.address)
    assert status == CRITICAL
    order = [output.index(name) for name in ("offset +300ms", "stratum 11", "freq")]
    assert order == sorted(order)
    head, _, *lines = table.splitlines()
    assert head == (
        "CHRONY CRITICAL - offset +300ms (more than +200ms), skew 0.062ppm (in @1), "
        "stratum 11 (more than 9), usable sources 1 (less than 2); error bound 925ms, "
        "source 192.0.2.1"
    )
    assert [line.split()[0] for line in lines] == (
        ["CRITICAL"] * 2 + ["WARNING"] * 2 + ["OK"] * 9
    )
    assert lines[2] == (
        "WARNING   stratum                   11  warning 9 - Use sources that are "
        "nearer to a reference clock"
    )


def test_a_clock_of_which_only_tracking_is_read_says_where_to_look() -> None:
    with ScriptedDaemon(tracking=clock(**UNSYNCHRONISED)) as daemon, fine_daemon() as d:
        status, output = check(d.address, daemon.address)
    assert status == CRITICAL
    assert "; first 127.0.0.1:" in output
    assert "not synchronised: 'chronyc sources' there says more | ok=1;" in output


@pytest.mark.parametrize(
    ("text", "shown", "fine", "wrong"),
    [
        ("10", "10", (0, 10), (-0.1, 10.1)),
        ("10:", "10:", (10, 1e9), (9.9, -10)),
        ("~:10", "~:10", (-1e9, 10), (10.1,)),
        ("10:20", "10:20", (10, 20), (9.9, 20.1)),
        ("@10:20", "@10:20", (9.9, 20.1), (10, 20)),
        ("@10", "@10", (-0.1, 10.1), (0, 10)),
        (":5", "5", (0, 5), (-1, 6)),
        ("-5:-2.50", "-5:-2.5", (-5, -2.5), (-2, -6)),
        ("0:", "0:", (0, 1), (-1,)),
        ("0", "0", (0,), (1, -1)),
        ("1e-7", "0.0000001", (0, 1e-7), (2e-7,)),
        (".5:1.", "0.5:1", (0.5, 1), (0.4,)),
        ("-1e-12:1", "-0.000000000001:1", (0, 1), (-1e-11, 2)),
        ("1e3:1e10", "1000:10000000000", (1000,), (999,)),
    ],
)
def test_ranges(
    text: str, shown: str, fine: tuple[float, ...], wrong: tuple[float, ...]
) -> None:
    limit = _range.parse(text, signed=False)
    assert str(limit) == shown
    assert not any(map(limit.alerts, fine))
    assert all(map(limit.alerts, wrong))


def test_ranges_of_what_has_a_sign() -> None:
    assert str(_range.parse("0.5", signed=True)) == "-0.5:0.5"
    assert str(_range.parse("@2", signed=True)) == "@-2:2"
    assert str(_range.parse(":2", signed=True)) == "0:2"
    assert str(_range.parse("@0:2", signed=True)) == "@0:2"
    assert str(_range.parse("2:", signed=True)) == "2:"


@pytest.mark.parametrize(
    "text",
    ["", ":", "@", "@:", "~", "x", "1:2:3", "5:1", "nan", "inf", "1e999", "10~"],
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not a range")):
        _range.parse(text, signed=False)


SCHEMA = json.loads(
    Path(__file__).parents[2].joinpath("docs", "check.schema.json").read_text()
)


def strict(schema: Any) -> Any:
    """The schema without the room that it leaves for properties of later versions."""
    if isinstance(schema, list):
        return [*map(strict, schema)]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    return {"additionalProperties": False, **closed} if "required" in schema else closed


def test_json() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    exact = strict(SCHEMA)
    assert str(exact).count("'additionalProperties'") == 4
    names = [item.name for item in ITEMS]
    item = SCHEMA["$defs"]["item"]
    assert item["properties"]["name"]["enum"] == names
    every: list[tuple[Any, int, int]] = [
        ({}, 2, OK),
        ({"offset": 1.0}, 1, CRITICAL),
        (LOCAL, 0, WARNING),
        (UNSYNCHRONISED, 0, CRITICAL),
    ]
    for changes, number, state in every:
        sources = [SELECTED, OTHER][:number]
        with ScriptedDaemon(tracking=clock(**changes), sources=sources) as daemon:
            status, output = check("--format", "json", daemon.address)
        document = json.loads(output)
        jsonschema.validate(document, exact)
        assert (status, document["status"]) == (state, state)
        assert document["clocks"][0]["address"] == daemon.address
        assert document["clocks"][0]["error"] is None
        follows = state == OK or changes == {"offset": 1.0}
        assert document["clocks"][0]["source"] == ("192.0.2.1" if follows else None)
        found = items(output)
        assert list(found) == [name for name in names if name in found]
    with fine_daemon() as daemon, ScriptedDaemon() as silent:
        silent.misbehave = faults.silent
        options = ("-f", "json", "-t", "0.01", "-r", "0")
        assert items(check(*options, daemon.address)[1])["offset"] == {
            "name": "offset",
            "state": "OK",
            "status": 0,
            "value": 2**-13,
            "unit": "s",
            "warning": "-0.05:0.05",
            "critical": "-0.2:0.2",
            "reason": "",
        }
        for addresses in ([silent.address], [silent.address, "x y", daemon.address]):
            status, output = check(*options, "-v", *addresses)
            document = json.loads(output)
            jsonschema.validate(document, exact)
            assert status == document["status"] == CRITICAL
            assert [clock["address"] for clock in document["clocks"]] == addresses
            assert document["clocks"][0]["error"]["type"] == "ChronyTimeoutError"
            assert document["clocks"][0]["items"] == []


def samples(output: str) -> dict[str, float]:
    """The samples of an exposition, by name and labels."""
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): (
            sample.value
        )
        for family in text_string_to_metric_families(output)
        for sample in family.samples
    }


def test_prometheus() -> None:
    with fine_daemon(offset=0.0625) as daemon:
        status, output = check("-f", "prometheus", daemon.address)
        many, both = check("-f", "prometheus", daemon.address, "x y")
        found = samples(output)
        assert status == found[f"chrony_check_state {daemon.address}"] == WARNING
        assert found[f"chrony_check_item_state {daemon.address} offset"] == WARNING
        assert found[f"chrony_check_item_state {daemon.address} stratum"] == OK
        # What the exporter has, too, though of a single clock only.
        assert found["chrony_up"] == 1
        assert found["chrony_tracking_system_time_seconds"] == 0.0625
        daemon.stop()
        dead, nothing = check("-f", "prometheus", daemon.address)
    assert many == UNKNOWN
    assert samples(both)["chrony_check_state x y"] == UNKNOWN
    assert "chrony_up" not in samples(both)
    assert dead == samples(nothing)[f"chrony_check_state {daemon.address}"] == CRITICAL
    assert samples(nothing)["chrony_up"] == 0
    status, output = check("-f", "prometheus", "x y")
    assert status == UNKNOWN
    assert samples(output) == {"chrony_check_state x y": UNKNOWN}


def test_prometheus_without_its_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with fine_daemon() as daemon:
        assert main(["-f", "prometheus", daemon.address]) == UNKNOWN
    assert capsys.readouterr().out.startswith(
        "CHRONY UNKNOWN - --format prometheus needs prometheus_client. Install it "
        "with: pip install 'pychrony[prometheus]'"
    )


def test_text_is_for_a_terminal() -> None:
    leader, terminal = pty.openpty()
    with fine_daemon() as daemon:
        status, _ = check(daemon.address, stdout=terminal)
        os.close(terminal)
        with open(leader, "rb", buffering=0) as shown:
            lines = shown.read(65536).decode().splitlines()
        plain = check("-f", "text", daemon.address)[1]
    assert status == OK
    assert lines[0] == (
        "CHRONY OK - offset +122us, error bound 625ms, stratum 3, source 192.0.2.1, "
        "2 of 2 sources usable"
    )
    assert lines[1] == ""
    assert lines[4] == (
        "OK        offset                +122us  warning -0.05:0.05, critical -0.2:0.2"
    )
    assert "OK        synchronised             yes  critical 1:" in lines
    assert [*map(ageless, lines)] == [*map(ageless, plain.splitlines())]


@pytest.mark.parametrize("style", ["text", "nagios", "json"])
def test_output_to_a_file(tmp_path: Path, style: str) -> None:
    file = tmp_path / "clock"
    link = tmp_path / "link"
    link.symlink_to(file)
    with fine_daemon() as daemon:
        options = ("-f", style, daemon.address)
        _, shown = check(*options)
        assert check(*options, "--output", str(link)) == (OK, "")
        written = file.read_text()
        assert ageless(written) == ageless(shown)
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert link.is_symlink()
        # Nothing else is written there, and nobody sees half a file.
        assert sorted(tmp_path.iterdir()) == [file, link]
        before = file.stat().st_ino
        check(*options, "-o", str(file))
        assert file.stat().st_ino != before
        # What is no file is not replaced.
        status, piped = check(*options, "-o", "/dev/stdout")
    assert status == OK
    assert piped[:20] == written[:20]


def test_output_to_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "clock"
    file.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with fine_daemon() as daemon:
        status, output = check(daemon.address, "-o", "/dev/full")
        assert status == UNKNOWN
        assert output == (
            "CHRONY UNKNOWN - cannot write '/dev/full': No space left on device\n"
        )
        # As full as a disk can be made without filling one.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        try:
            status = main([daemon.address, "-o", str(file)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == UNKNOWN
    assert capsys.readouterr().out == (
        f"CHRONY UNKNOWN - cannot write '{file}': File too large\n"
    )
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_output_is_that_of_a_check_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("old")
    for options in (["-w", "bogus=1"], ["--hosts", "/dev/null"], ["-V"], ["-h"]):
        status, output = check(*options, "-f", "json", "-o", str(file))
        assert output.startswith("CHRONY UNKNOWN - " if status else ("pych", "usage"))
    assert file.read_text() == "old"


def test_output_to_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with fine_daemon() as daemon:
        status, output = check(daemon.address, "-o", str(pipe))
    assert status == UNKNOWN
    assert output.startswith(f"CHRONY UNKNOWN - cannot write '{pipe}': ")


def test_standard_output_is_never_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with fine_daemon() as daemon:
        for name in ("/dev/stdout", "-"):
            with log.open("a") as file:
                assert check(daemon.address, "-o", name, stdout=file)[0] == OK
    assert [line[:9] for line in log.read_text().splitlines()] == (
        ["before", "CHRONY OK", "CHRONY OK"]
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    with fine_daemon(offset=0.1) as daemon:
        for addresses in (daemon.address, f"{daemon.address} {daemon.address}"):
            command = f"{sys.executable} -m pychrony.check {addresses} {closed}"
            result = subprocess.run(["sh", "-c", command], check=False)
            assert result.returncode == WARNING


def test_output_to_nowhere(tmp_path: Path) -> None:
    with fine_daemon() as daemon:
        status, output = check(daemon.address, "-o", str(tmp_path / "no" / "file"))
    assert status == UNKNOWN
    assert output.startswith(f"CHRONY UNKNOWN - cannot write '{tmp_path}/no/file': No")


@pytest.mark.parametrize("locale", ["C", "de_DE.UTF-8", "de_DE"])
def test_locales(locale: str) -> None:
    with fine_daemon() as daemon:
        for style in ("text", "nagios", "json"):
            _, plain = check("-f", style, daemon.address, LC_ALL="C.UTF-8")
            status, output = check("-f", style, daemon.address, LC_ALL=locale)
            assert status == OK
            assert ageless(output) == ageless(plain)


def test_wait_until_synchronised() -> None:
    """As a boot script does: nobody there, then no source, then a clock."""
    with ScriptedDaemon(tracking=clock(**UNSYNCHRONISED), sources=[]) as daemon:
        daemon.stop()
        command = [sys.executable, "-m", "pychrony.check", "--wait", "60"]
        with subprocess.Popen(
            [*command, daemon.address], stdout=subprocess.PIPE, text=True
        ) as waiting:
            time.sleep(0.3)
            daemon.start()
            while not daemon.requests:
                time.sleep(0.01)
            daemon.sources = [SELECTED, OTHER]
            daemon.tracking = clock()
            output, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == OK
    assert output.startswith("CHRONY OK - ")


@pytest.mark.parametrize(
    ("changes", "state"), [(UNSYNCHRONISED, CRITICAL), (LOCAL, WARNING)]
)
def test_wait_ends(changes: Any, state: int) -> None:
    with ScriptedDaemon(tracking=clock(**changes), sources=[]) as daemon:
        status, _ = check("--wait", "3", daemon.address)
        asked = len(daemon.requests)
    assert status == state
    assert asked > 2


def test_wait_for_a_list_that_changes() -> None:
    with fine_daemon() as daemon:
        daemon.misbehave = changing = faults.only("N_SOURCES", faults.count(9))
        command = [sys.executable, "-m", "pychrony.check", "--wait", "60"]
        with subprocess.Popen(
            [*command, daemon.address], stdout=subprocess.PIPE, text=True
        ) as waiting:
            while len(daemon.requests) < 5:
                time.sleep(0.01)
            assert daemon.misbehave is changing
            daemon.misbehave = None
            output, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == OK, output


def test_wait_only_for_what_may_come() -> None:
    with ScriptedDaemon(misbehave=faults.status(2)) as closed:
        status, output = check("--wait", "600", closed.address)
    assert status == UNKNOWN
    assert "Not authorized" in output
    assert check("--wait", "600", "x y")[0] == UNKNOWN


def test_timeout_state() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as silent:
        options = ("-t", "0.01", "-r", "0", silent.address)
        assert check(*options)[0] == CRITICAL
        assert check(*options, "--timeout-state", "unknown")[0] == UNKNOWN
        assert check(*options, "--timeout-state", "critical")[0] == CRITICAL
        silent.stop()
        assert check(*options, "--timeout-state", "unknown")[0] == CRITICAL


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


def test_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="check_chrony")
    assert command.load() is main


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
        follow = [
            FOLLOW.format(host=f"127.0.0.{host}", port=server.ntp_port, option="{}")
            for host, server in zip((2, 3, 4), servers)
        ]
        fine, late, alone = (
            stack.enter_context(Chronyd(parts, config))
            for config in (
                "".join(follow).replace("{}", ""),
                "".join([follow[0].replace("{}", " offset 0.5"), *follow[1:]]).replace(
                    "{}", ""
                ),
                "",
            )
        )
        settled = ("--wait", "60", "-c", "reach=4:", "-c", "usable_sources=3:")
        assert check(*settled, fine.address)[0] == OK
        assert check("-c", "offset=@1", fine.address)[0] == CRITICAL
        assert check("-w", "error_bound=1e-9", fine.socket)[0] == WARNING
        options = ("--wait", "60", "-c", "falsetickers=1:", "-c", "reach=4:")
        status, output = check(*options, late.address)
        assert status == WARNING
        assert "falsetickers 1 (more than 0): Check or remove 127.0.0.2; " in output
        status, output = check(alone.address)
        assert status == CRITICAL
        assert "not synchronised: chronyd has no sources" in output
        _, diagnosis = check("--self", fine.socket)
        assert re.search(r"^serverstats +1 record$", diagnosis, flags=re.M)
        assert re.search(r"^selectdata +3 records$", diagnosis, flags=re.M)
        hosts = (fine.address, late.address, alone.address)
        assert check(*hosts)[1].startswith("CHRONY CRITICAL - 2 of 3 clocks OK, 1 crit")


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
        status, output = check("-f", "text", *everyone, "--hosts", str(hosts))
        nagios = check("-v", *everyone, "--hosts", str(hosts))
        line, *table = output.splitlines()
        assert check("--hosts", "-", lines=f"{fine.address}\n" * 2)[0] == OK
        assert check("-H", fine.address, fine.address)[0] == OK
        assert check("-H", fine.address, "-H", wrong.address)[0] == CRITICAL
        twice = ("--hosts", "-", "--hosts", "-")
        assert check(*twice, lines=f"\ufeff{fine.address}\r\n")[0] == OK
        late_and_fine = check("--hosts", str(hosts), "--hosts", "/dev/null")[1]
        assert late_and_fine.startswith("CHRONY UNKNOWN - 0 of 2 clocks OK, 1 unknown")
        assert check(fine.address, late.address)[0] == WARNING
        assert check(fine.address, closed.address, late.address)[0] == UNKNOWN
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
    assert nagios[1].startswith(f"{line}; first {wrong.address}: {first} while")
    assert (
        nagios[1]
        .splitlines()[0]
        .endswith(" | ok=1;;;0;6 warning=1;;;0;6 unknown=2;;;0;6 critical=2;;;0;6")
    )
    assert nagios[1].splitlines()[1:] == table
    assert table[1].endswith("  No such file or directory. Is chronyd running?")
    assert "Not authorized" in table[2]


def test_many_clocks_are_checked_like_one() -> None:
    with (
        ScriptedDaemon(tracking=clock(offset=0.01)) as daemon,
        ScriptedDaemon(misbehave=faults.silent) as silent,
    ):
        addresses = (daemon.address, silent.address)
        options = ("-ftext", "-w0.001", "-c0.005", "-t0.05", "-r0")
        status, output = check(*options, *addresses)
        assert (status, output.count("CRITICAL ")) == (CRITICAL, 3)
        assert "offset +10ms (more than +5000us)" in output
        assert "no answer to 1 request in 0.05 s" in output
        status, output = check(daemon.address, daemon.address, "-c", "1")
    assert status == OK
    # States that no clock is in are told to the monitoring system only.
    assert output.startswith("CHRONY OK - 2 of 2 clocks OK | ok=2;;;0;2 warning=0;")


def test_a_bar_of_many_clocks_is_only_before_the_performance_data() -> None:
    with fine_daemon() as daemon:
        _, output = check("-v", "/no|where", daemon.address)
    assert "CRITICAL  /no/where" in output
    assert output.count("|") == 1


def test_only_the_worst_of_many_clocks_are_shown() -> None:
    offsets = [number / 1000 for number in range(25)]
    with ExitStack() as stack:
        daemons = [ScriptedDaemon(tracking=clock(offset=o)) for o in offsets]
        addresses = [stack.enter_context(daemon).address for daemon in daemons]
        _, output = check("-f", "text", *addresses)
        _, verbose = check("-f", "text", "-v", *addresses)
    _, *table, rest = output.splitlines()
    assert [row.split()[1] for row in table] == addresses[:4:-1]
    assert rest == "and 5 that are no worse (-v shows them)"
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
        text = check("-t0.01", "-r0", "-ftext", daemon.address)[1]
    assert found == status
    for shown in (output, text):
        (line,) = shown.splitlines()
        assert line.startswith(f"CHRONY {STATES[status]} - {daemon.address}")
        assert "|" not in line
    assert message in output


def test_nobody_there() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        status, output = check(daemon.address)
    assert status == CRITICAL
    assert "Connection refused. Is chronyd running" in output


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
        (["-w", "nan"], "'nan' is not a range"),
        (["-c", "inf"], "'inf' is not a range"),
        (["-c", "5:1"], "'5:1' is not a range: its start is above its end"),
        (["-w", "stratum="], "'' is not a range"),
        (["-w", "size=1"], "'size' is none of synchronised, local, offset, error_"),
        (["-f", "xml"], "argument -f/--format: invalid choice: 'xml'"),
        (["--timeout-state", "ok"], "argument --timeout-state: invalid choice: 'ok'"),
        (["--wait", "0"], "'0' is not a positive number"),
        (["-t", "much"], "'much' is not a positive number"),
        (["-t", "nan"], "'nan' is not a positive number"),
        (["-t", "inf"], "'inf' is not a positive number"),
        (["-t", "0"], "'0' is not a positive number"),
        (["-r", "-1"], "'-1' is not a natural number"),
        (["-r", "99"], "all waits a day at most"),
        (["-r", "x"], "'x' is not a natural number"),
        (["127.0.0.1:x"], "'x' is not a port"),
        (["--hosts", "/nowhere"], "cannot read '/nowhere': "),
        (["--hosts", "/dev/null"], "there is no address to check"),
        (["--concurrency", "0", "::1"], "argument --concurrency: 0 is less than 1"),
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
    with fine_daemon() as daemon, open(write, "wb") as pipe:
        for options in (["-v"], ["-h"], ["-V"]):
            assert check(*options, daemon.address, stdout=pipe) == (OK, "")


def test_output_that_is_no_file() -> None:
    with fine_daemon() as daemon, redirect_stdout(StringIO()) as output:
        assert main([daemon.address]) == OK
    assert output.getvalue().startswith("CHRONY OK")


def test_full_disk() -> None:
    with fine_daemon() as daemon, open("/dev/full", "wb") as full:
        status, output = check(daemon.address, stdout=full)
        both = f"{sys.executable} -m pychrony.check -V >/dev/full 2>&1"
        assert subprocess.run(["sh", "-c", both], check=False).returncode == UNKNOWN
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
    gps = make_source(address="GPS", mode=SourceMode.REFCLOCK, state=SourceState(9))
    tracking = make_tracking(
        offset=-0.125,
        frequency=-3.5,
        leap_status=LeapStatus.INSERT,
        reference_id=0xC0000201,
        reference_ip="192.0.2.1",
    )
    with ScriptedDaemon(tracking=tracking, sources=[*sources, gps]) as daemon:
        host, _, port = daemon.address.partition(":")

        def chronyc(*report: str) -> str:
            command = [*chronyc_command(parts), "-h", host, "-p", port, *report]
            paths = {"LD_LIBRARY_PATH": parts.library_path}
            output = subprocess.check_output(command, env=paths, text=True)
            return without_trailing_blanks(output)

        status, output = check("-v", daemon.address)
        line, report = output.split("\n", 1)
        assert line.startswith("CHRONY WARNING - offset -125ms (less than -50ms): Wait")
        assert status == WARNING
        reports = [chronyc("tracking"), chronyc("sources") + "\n"]
        assert report.split("\n\n") == reports
        _, text = check("-v", "-f", "text", daemon.address)
        assert text.split("\n\n")[2:] == reports
        for leap in [*LeapStatus, LeapStatus(9)]:
            daemon.tracking = make_tracking(leap_status=leap, frequency=2.5, offset=1.5)
            assert _chronyc.tracking(pychrony.get_tracking(daemon.address)) == (
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


def test_nothing_that_a_terminal_would_obey_is_printed(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("/tmp/\x1b[2J\x07\n/tmp/a\x9bb\n", encoding="utf-8")
    for options in (["-f", "text"], ["-v"], ["-f", "json"]):
        _, output = check(*options, "--hosts", str(hosts))
        assert "\\x1b[2J" in output or "\\u001b[2J" in output
        assert all(letter.isprintable() or letter == "\n" for letter in output)
    _, output = check("/tmp/a\nOK - fine | x=1", "-w", "a|b=1")
    assert output.count("\n") == 1
    assert "|" not in output


def test_a_bar_is_only_before_the_performance_data() -> None:
    tracking = clock(reference_id=0x417C4200, reference_ip="")  # "A|B"
    gps = make_source(address="A|B", mode=SourceMode.REFCLOCK)
    with ScriptedDaemon(tracking=tracking, sources=[gps]) as daemon:
        _, output = check("-v", "-w", "usable_sources=1", daemon.address)
    assert ", source A/B, 1 of 1 sources usable | " in output
    assert output.count("|") == 1


def test_time_beyond_the_calendar() -> None:
    far = make_tracking(ref_time_ns=2**62 * 10**9)
    assert f"{2**62} s since 1970" in _chronyc.tracking(far)
