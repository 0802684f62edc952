"""The formats of ``python -m pychrony.check``."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from checking import (
    LOCAL,
    OTHER,
    PERFORMANCE,
    SELECTED,
    UNSYNCHRONISED,
    ageless,
    check,
    check_here,
    clock,
    fine_daemon,
    items,
)
from helpers import python
from prometheus_client.parser import text_string_to_metric_families

from pychrony import SourceMode, _chronyc
from pychrony.check import CRITICAL, OK, UNKNOWN, WARNING, main
from pychrony.check._items import ITEMS
from pychrony.prometheus import Collector
from pychrony.testing import ScriptedDaemon, faults, make_source, make_tracking

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


def test_json_is_as_the_schema_says() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    exact = strict(SCHEMA)
    assert str(exact).count("'additionalProperties'") == 4
    names = [*(item.name for item in ITEMS), "source"]
    item = SCHEMA["$defs"]["item"]
    assert item["properties"]["name"]["enum"] == names
    every: list[tuple[Any, int, int]] = [
        ({}, 2, OK),
        ({"offset": 1.0}, 1, CRITICAL),
        (LOCAL, 0, CRITICAL),
        (UNSYNCHRONISED, 0, CRITICAL),
    ]
    for changes, number, state in every:
        sources = [SELECTED, OTHER][:number]
        with ScriptedDaemon(tracking=clock(**changes), sources=sources) as daemon:
            status, output = check_here("--format", "json", daemon.address)
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
        options = ("-f", "json", "-t", "0.5", "-r", "0")
        assert items(check_here(*options, daemon.address)[1])["offset"] == {
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
            status, output = check_here(*options, "-v", *addresses)
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


def test_samples_of_the_format_prometheus() -> None:
    with fine_daemon(offset=0.0625) as daemon:
        status, output = check_here("-f", "prometheus", daemon.address)
        many, both = check_here("-f", "prometheus", daemon.address, "x y")
        found = samples(output)
        assert status == found[f"chrony_check_state {daemon.address}"] == WARNING
        assert found[f"chrony_check_item_state {daemon.address} offset"] == WARNING
        assert found[f"chrony_check_item_state {daemon.address} stratum"] == OK
        # What the exporter has, too, though of a single clock only.
        assert found["chrony_up"] == 1
        assert found["chrony_tracking_system_time_seconds"] == 0.0625
        daemon.stop()
        dead, nothing = check_here("-f", "prometheus", daemon.address)
    assert many == UNKNOWN
    assert samples(both)["chrony_check_state x y"] == UNKNOWN
    assert "chrony_up" not in samples(both)
    assert dead == samples(nothing)[f"chrony_check_state {daemon.address}"] == CRITICAL
    assert samples(nothing)["chrony_up"] == 0
    status, output = check_here("-f", "prometheus", "x y")
    assert status == UNKNOWN
    assert samples(output) == {"chrony_check_state x y": UNKNOWN}
    _, output = check("-f", "prometheus", "\udcff")  # as from an argument of no UTF-8
    assert samples(output) == {r"chrony_check_state \udcff": UNKNOWN}


def test_prometheus_within_the_time_of_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budgets: list[float] = []

    def collector(*arguments: Any, budget: float, **options: Any) -> Collector:
        budgets.append(budget)
        return Collector(*arguments, budget=budget, **options)

    monkeypatch.setattr("pychrony.prometheus.Collector", collector)
    with fine_daemon() as daemon:
        for seconds in ("60", "120"):
            assert (
                check_here("-f", "prometheus", "-t", seconds, daemon.address)[0] == OK
            )
    assert 0 < budgets[0] < 60 < budgets[1] < 120


def test_format_prometheus_without_its_library(
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
        plain = check_here("-f", "text", daemon.address)[1]
    assert status == OK
    assert lines[0] == (
        "CHRONY OK - offset +122us, error bound 31ms, stratum 3, source 192.0.2.1, "
        "2 of 2 sources usable"
    )
    assert lines[1] == ""
    assert lines[4] == (
        "OK        offset                +122us  warning -50ms:50ms, "
        "critical -200ms:200ms"
    )
    assert "OK        synchronised             yes  critical 1:" in lines
    assert [*map(ageless, lines)] == [*map(ageless, plain.splitlines())]


STYLES = """
import sys
from pychrony.check import main
sys.exit(max(main(["-f", style, sys.argv[1]]) for style in ("text", "nagios", "json")))
"""


def test_output_is_the_same_in_every_locale() -> None:
    with fine_daemon() as daemon:
        outputs = {
            ageless(python(STYLES, daemon.address, LC_ALL=locale).stdout)
            for locale in ("C.UTF-8", "C", "de_DE.UTF-8", "de_DE")
        }
    assert len(outputs) == 1


def test_what_the_terminal_cannot_show() -> None:
    for address, shown in (("/tmp/\udcff", "/tmp/\\udcff"), ("ü.example", "\\xfc")):
        status, output = check(address, PYTHONIOENCODING="ascii:strict")
        assert status in (CRITICAL, UNKNOWN)
        assert shown in output


def test_nothing_that_a_terminal_would_obey_is_printed(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("/tmp/\x1b[2J\x07\n/tmp/a\x9bb\n", encoding="utf-8")
    for options in (["-f", "text"], ["-v"], ["-f", "json"]):
        _, output = check_here(*options, "--hosts", str(hosts))
        assert "\\x1b[2J" in output or "\\u001b[2J" in output
        assert all(letter.isprintable() or letter == "\n" for letter in output)
    _, output = check_here("/tmp/a\nOK - fine | x=1", "-w", "a|b=1")
    assert output.count("\n") == 1
    assert "|" not in output


def test_hostile_reference_id() -> None:
    """It comes from the network, and goes into a line that a shell may see."""
    tracking = clock(reference_id=0x613B7C27, reference_ip="")  # a;|'
    source = make_source(address="a;|'", mode=SourceMode.REFCLOCK)
    with ScriptedDaemon(tracking=tracking, sources=[source]) as daemon:
        _, output = check_here("-v", "-w", "usable_sources=1", daemon.address)
    assert ", source a,/', 1 of 1 sources usable | " in output
    # A bar is only before the performance data.
    assert output.count("|") == 1


def test_time_beyond_the_calendar() -> None:
    far = make_tracking(ref_time_ns=2**62 * 10**9)
    assert f"{2**62} s since 1970" in _chronyc.tracking(far)


def test_fine_clock() -> None:
    with fine_daemon() as daemon:
        status, output = check_here("-f", "nagios", daemon.address)
    assert status == OK
    (line,) = output.splitlines()
    text, performance = line.split(" | ")
    assert text == (
        "CHRONY OK - offset +122us, error bound 31ms, stratum 3, source 192.0.2.1, "
        "2 of 2 sources usable"
    )
    assert ageless(performance) == (
        "synchronised=1;;1:;0 local=0;0;;0 offset_us=122.070 "
        "offset_abs_us=122.070;50000;200000;0 error_bound_us=31372.070;100000;500000;0 "
        "root_delay_us=31250.000;;;0 root_dispersion_us=15625.000;;;0 stratum=3;9;;0 "
        "age;256;;0 frequency=-1.500 skew=0.062;;;0 usable_sources=2;2:;1:;0 "
        "reach=8;4:;;0 falsetickers=0;0;;0 dead_sources=0;;;0"
    )
    assert PERFORMANCE.fullmatch(performance)
