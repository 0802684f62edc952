"""What ``python -m pychrony.check`` says of a clock."""

from __future__ import annotations

import re
from typing import Any

import pytest
from checking import (
    LOCAL,
    MANY_WRONG,
    OTHER,
    PERFORMANCE,
    SELECTED,
    STATES,
    UNSYNCHRONISED,
    WRONG,
    check_here,
    clock,
    fine_daemon,
)

import pychrony
from pychrony import LeapStatus, SourceMode, SourceState
from pychrony.check import CRITICAL, OK, WARNING
from pychrony.check._items import ITEMS
from pychrony.testing import ScriptedDaemon, make_source

UNREACHABLE = SourceState.NONSELECTABLE
DEAD = make_source(address="192.0.2.8", reachability=0, state=UNREACHABLE)
ASKED = make_source(address="192.0.2.7", state=UNREACHABLE)
NEW = make_source(address="192.0.2.5", state=UNREACHABLE, reachability=0b11)
GPS = make_source(
    address="GPS",
    mode=SourceMode.REFCLOCK,
    stratum=0,
    state=UNREACHABLE,
    reachability=0,
    last_sample_ago=0xFFFFFFFF,
)
RIVALS = [WRONG, make_source(address="192.0.2.6", state=SourceState.FALSETICKER)]
UNRESOLVED = [
    make_source(address=f"ID#000000000{number}", reachability=0, state=UNREACHABLE)
    for number in (1, 2)
]


def polled(exponent: int, **changes: Any) -> list[pychrony.Source]:
    """Two good sources with this polling interval."""
    return [
        make_source(address="192.0.2.1", poll=exponent, **changes),
        make_source(address="192.0.2.2", poll=exponent, state=SourceState.UNSELECTED),
    ]


# What is changed of a fine clock, options, the state, and what is said of it.
VERDICTS: list[tuple[Any, Any, str, int, str]] = [
    # The offset.
    ({"offset": 0.049}, None, "", OK, "offset +49ms, "),
    ({"offset": 0.051}, None, "", WARNING, "offset +51ms (more than +50ms): Wait"),
    ({"offset": -0.051}, None, "", WARNING, "offset -51ms (less than -50ms): Wait"),
    ({"offset": 0.21}, None, "", CRITICAL, "offset +210ms (more than +200ms): Wait"),
    ({"offset": -0.21}, None, "", CRITICAL, "offset -210ms (less than -200ms): "),
    ({"offset": 0.051}, None, "-w 0.1", OK, "offset +51ms, "),
    ({"offset": 0.051}, None, "-w 100ms", OK, "offset +51ms, "),
    ({"offset": 0.051}, None, "-w -100000us:60ms", OK, "offset +51ms, "),
    ({"offset": 0.09}, None, "-w 50ms -c 0.1s", WARNING, "more than +50ms"),
    ({"offset": 0.25}, None, "-w 0.25 -w error_bound=1 -c 0.5", OK, "offset +250ms, "),
    ({"offset": 0.5}, None, "-w 0.25 -c 0.75", CRITICAL, "than +250ms)"),
    ({"offset": 2**-23}, None, "-w 1e-8", WARNING, "offset +119ns (more than"),
    ({"offset": 2**-23}, None, "-w 10ns", WARNING, "offset +119ns (more than +10"),
    ({"offset": 0.01}, None, "-c ~:0.005", CRITICAL, "(more than +5000us)"),
    ({"offset": 0.03}, None, "-w @0.02:0.04", WARNING, "+30ms (in @20ms:40ms): "),
    ({"offset": -0.03}, None, "-w @0.04", WARNING, "-30ms (in @-40ms:40ms): "),
    ({"offset": -0.3}, None, "-w -0.4:0.1 -c -.4:1", WARNING, "-300ms"),
    ({"offset": -0.3}, None, "--critical -0.2:1", CRITICAL, "less than -200ms"),
    ({"offset": 0.05}, None, "-w 50", OK, "-w or -c offset=50 is in seconds"),
    # One that slewing does not correct in a reasonable time.
    ({"offset": 0.9}, None, "", CRITICAL, "): Wait while chronyd slews it"),
    ({"offset": 1.1}, None, "", CRITICAL, "): slewing this takes 13.2s or more. Step"),
    ({"offset": -3600.0}, None, "", CRITICAL, "slewing this takes 43200s or more"),
    # The error bound.
    ({"root_delay": 0.0946, "root_dispersion": 0.0172}, None, "", OK, "bound 65ms"),
    ({"root_dispersion": 0.083}, None, "", OK, "error bound 99ms"),
    ({"root_dispersion": 0.085}, None, "", WARNING, "bound 101ms (more than 100ms): "),
    ({"root_dispersion": 0.483}, None, "", WARNING, "error bound 499ms (more than"),
    ({"root_dispersion": 0.485}, None, "", CRITICAL, "error bound 501ms (more than 50"),
    ({"root_delay": 1.4}, None, "", CRITICAL, ": the root delay is most of it. Wait"),
    ({"skew": 1e6, "root_dispersion": 3849.0}, None, "", CRITICAL, "dispersion is mos"),
    ({"skew": 1e6}, None, "", OK, "offset"),
    ({}, None, "-w error_bound=.01", WARNING, "error bound 31ms (more than 10ms"),
    ({}, None, "-c root_delay=0.01", CRITICAL, "root delay 31ms (more than 10"),
    ({}, None, "-w root_dispersion=.01", WARNING, "root dispersion 16ms (more"),
    ({}, None, "-w root_dispersion=10ms", WARNING, "root dispersion 16ms (more"),
    # What the source says that is followed.
    ({}, polled(6, latest_meas=0.2), "", OK, "offset"),
    ({}, polled(6, latest_meas=0.21), "", WARNING, "last sample 210ms (more than 200"),
    ({}, polled(6, latest_meas=-3600.0), "", WARNING, "Something other than chronyd"),
    ({}, polled(6, latest_meas=0.5, latest_meas_err=0.4), "", OK, "offset"),
    # The stratum.
    ({"stratum": 9}, None, "", OK, "stratum 9, "),
    ({"stratum": 10}, None, "", WARNING, "stratum 10 (more than 9): a server upstream"),
    ({"stratum": 3}, None, "-c stratum=2", CRITICAL, "stratum 3 (more than 2): Us"),
    # The age follows the polls.
    ({"age": 250.0}, None, "", OK, "offset"),
    ({"age": 265.0}, None, "", WARNING, "s (more than 256.0s): the last sample is "),
    ({"age": 265.0}, polled(6, last_sample_ago=260), "", WARNING, "chronyd gets no"),
    ({"age": 60.0}, polled(-2), "", OK, "offset"),
    ({"age": 70.0}, polled(-2, last_sample_ago=70), "", WARNING, "more than 64.0s"),
    ({"age": 4080.0}, polled(10, last_sample_ago=999), "", OK, "offset"),
    ({"age": 4110.0}, polled(10, last_sample_ago=4100), "", WARNING, "than 4096s): "),
    ({"age": 65000.0, "update_interval": 2.0}, polled(14), "", OK, "offset"),
    ({"age": 66000.0}, polled(14), "", WARNING, "(more than 65536s): the last sample"),
    ({"age": 500000.0}, polled(17), "", OK, "offset"),
    ({"age": 530000.0}, polled(17), "", WARNING, "(more than 8738m): "),
    ({"age": 86400.0}, [DEAD], "", CRITICAL, "age 86400s (more than 256.0s): chronyd"),
    ({"age": 9.0}, None, "-c age=5", CRITICAL, "(more than 5000ms): chronyd gets"),
    ({"age": -1.0}, None, "", OK, "offset"),
    ({"age": -50.0}, None, "", WARNING, "s in the future: something other than"),
    ({"age": -50.0}, None, "-w future=60", OK, "offset"),
    ({"age": -50.0}, None, "-w future=off", OK, "offset"),
    # An offset that is being slewed is no age.
    ({"age": -0.9, "offset": 0.9}, None, "-w future=0", CRITICAL, "offset +900ms"),
    # The frequency.
    ({}, None, "-w frequency=1", WARNING, "frequency -1.500ppm (less than -1.000"),
    ({}, None, "-w frequency=1 -c frequency=2:", CRITICAL, "less than +2.0"),
    ({}, None, "-w skew=0.01", WARNING, "skew 0.062ppm (more than 0.010ppm): "),
    # One source.
    ({}, [SELECTED], "", OK, "source 192.0.2.1, 1 of 1 sources usable"),
    ({}, [SELECTED], "-w usable_sources=2:", WARNING, "(less than 2): Add source"),
    ({}, [WRONG], "", CRITICAL, "usable sources 0 (less than 1): no source is select"),
    ({}, [DEAD], "", CRITICAL, "no source is reachable (192.0.2.8). Check the network"),
    ({}, [GPS], "", CRITICAL, "no reference clock delivers samples (GPS). Check the"),
    # Two.
    ({}, [SELECTED, DEAD], "", WARNING, "1 (less than 2): 192.0.2.8 unreachable. Rep"),
    ({}, [SELECTED, GPS], "", WARNING, "usable sources 1 (less than 2): GPS dead. Rep"),
    ({}, [SELECTED, WRONG], "", WARNING, "(less than 2): 192.0.2.9 falseticker. Repai"),
    ({}, [SELECTED, ASKED], "", WARNING, "192.0.2.7 not selectable, 'chronyc selectda"),
    ({}, [SELECTED, UNRESOLVED[0]], "", WARNING, "1 (less than 2): 1 not resolved (ch"),
    ({}, [SELECTED, DEAD], "-w usable_sources=1:", OK, "1 of 2 sources usable (1"),
    ({}, RIVALS, "", CRITICAL, "no majority: 192.0.2.9, 192.0.2.6 disagree with each"),
    ({}, [GPS, DEAD], "", CRITICAL, "reachable: GPS dead, 192.0.2.8 unreachable. Chec"),
    ({}, [SELECTED, NEW], "", WARNING, "192.0.2.5 with too few measurements. Wait"),
    ({}, [SELECTED, NEW, DEAD], "", WARNING, "few measurements, 192.0.2.8 unreachable"),
    ({}, [NEW], "", CRITICAL, "selectable: 192.0.2.5 with too few measurements. T"),
    ({}, [UNRESOLVED[0], DEAD], "", CRITICAL, "1 source has no address, as its na"),
    # Three and more.
    ({}, [SELECTED, OTHER, GPS], "", OK, "2 of 3 sources usable (GPS dead)"),
    ({}, [SELECTED, OTHER, DEAD, GPS], "", OK, "(192.0.2.8 unreachable, GPS dead)"),
    ({}, [SELECTED, OTHER, GPS], "-w dead_sources=0", WARNING, "dead sources 1 ("),
    ({}, [SELECTED, OTHER, *UNRESOLVED], "", OK, "2 of 2 sources usable, 2 not resolv"),
    ({}, [SELECTED, OTHER, ASKED], "", OK, "2 of 3 sources usable (192.0.2.7 not sele"),
    ({}, [SELECTED, OTHER, WRONG], "", WARNING, "0): Check or remove 192.0.2.9. "),
    ({}, [SELECTED, OTHER, WRONG], "-w falsetickers=off", OK, "2 of 3 sources us"),
    ({}, MANY_WRONG, "", WARNING, "10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5 a"),
    ({}, MANY_WRONG, "", WARNING, "10.0.0.5 and 2 more"),
    # Which one is followed.
    ({}, None, "-c source=192.0.2.1", OK, "source 192.0.2.1, "),
    ({}, None, "-c source=PPS,192.0.2.1", OK, "source 192.0.2.1, "),
    ({}, None, "-c source=192.0.2.2", CRITICAL, "source 192.0.2.1 (not 192.0.2.2"),
    ({}, None, "-c source=a:b", CRITICAL, "source 192.0.2.1 (not a:b): chronyd fol"),
    ({}, None, "-w source=PPS", WARNING, "(not PPS): chronyd follows another "),
    ({}, None, "-w source=PPS -w source=off", OK, "source 192.0.2.1, "),
    ({}, None, "-w source=PPS -w off", OK, "source 192.0.2.1, "),
    ({"reference_ip": "2001:db8::1"}, None, "-c source=2001:DB8:0::1", OK, "db8::1, "),
    # Whether it answers.
    (
        {},
        [make_source(address="192.0.2.1", reachability=0o105), OTHER],
        "",
        WARNING,
        "reach 3 (less than 4): Check the network to 192.0.2.1.",
    ),
    ({}, [make_source(reachability=0o360), OTHER], "", OK, "offset"),
    ({}, [make_source(reachability=0o340), OTHER], "", WARNING, "reach 3 (less than 4"),
    # New sources have missed nothing yet.
    ({}, [make_source(reachability=0o1), OTHER], "", OK, "offset"),
    ({}, [make_source(reachability=0o7), OTHER], "", OK, "offset"),
    ({}, [make_source(reachability=0o6), OTHER], "", WARNING, "reach 2 (less than 4)"),
    # Leap seconds.
    ({"leap_status": LeapStatus.INSERT}, None, "", OK, ", a leap second will be inser"),
    ({"leap_status": LeapStatus.DELETE}, None, "", OK, ", a leap second will be delet"),
    ({"leap_status": LeapStatus.INSERT}, None, "-w leap=0", WARNING, "(UTC): Che"),
    # Not synchronised.
    ({"leap_status": LeapStatus.UNSYNC}, None, "", CRITICAL, "follows a source, but h"),
    (UNSYNCHRONISED, [], "", CRITICAL, "not synchronised: chronyd has no sources. Add"),
    (UNSYNCHRONISED, [DEAD], "", CRITICAL, "not synchronised: no source is reachable "),
    (UNSYNCHRONISED, [GPS], "", CRITICAL, "no reference clock delivers samples (GPS)"),
    (UNSYNCHRONISED, [WRONG], "", CRITICAL, "not synchronised: no source is selectabl"),
    (UNSYNCHRONISED, [ASKED], "", CRITICAL, "no source is selectable: 192.0.2.7 not s"),
    (UNSYNCHRONISED, [ASKED, *UNRESOLVED], "", CRITICAL, ", 2 not resolved (check D"),
    (UNSYNCHRONISED, [OTHER], "", CRITICAL, "no source is selected, though 192.0.2.2 "),
    (UNSYNCHRONISED, UNRESOLVED, "", CRITICAL, "2 sources have no address, as names a"),
    (UNSYNCHRONISED, [DEAD, *UNRESOLVED], "", CRITICAL, "resolved, 192.0.2.8 unreacha"),
    (UNSYNCHRONISED, None, "-c synchronised=off", OK, "2 of 2 sources usable"),
    (UNSYNCHRONISED, None, "-c synchronized=off", OK, "2 of 2 sources usable"),
    (UNSYNCHRONISED, None, "-w off", CRITICAL, "not synchronised: chronyd follow"),
    (LOCAL, [], "", CRITICAL, "not synchronised, local mode: chronyd serves its own"),
    (LOCAL, [], "-w off", CRITICAL, "not synchronised, local mode: chronyd serves"),
    (LOCAL, [], "-w local=off", CRITICAL, "not synchronised, local mode: chronyd"),
    (LOCAL, [], "-c synchronised=off", WARNING, "local mode: chronyd serves its o"),
    (LOCAL, [], "-c synchronised=off -w local=off", OK, "OK - local mode, 0 of 0 sour"),
    ({"offset": 9.0}, [WRONG], "-w off -c off", OK, "0 of 1 sources"),
    (LOCAL, [], "-c local=0", CRITICAL, "local mode: "),
]


@pytest.mark.parametrize(("changes", "sources", "options", "state", "said"), VERDICTS)
def test_every_verdict(
    changes: Any, sources: Any, options: str, state: int, said: str
) -> None:
    tracking = clock(**changes)
    with ScriptedDaemon(
        tracking=tracking, sources=[SELECTED, OTHER] if sources is None else sources
    ) as daemon:
        status, output = check_here(daemon.address, *options.split())
    assert status == state, output
    assert output.startswith(f"CHRONY {STATES[status]} - ")
    text, performance = output.rstrip().split(" | ")
    assert said in text
    assert PERFORMANCE.fullmatch(performance)
    assert ";" not in text
    assert len(output.encode()) < 1024
    follows = tracking.is_synchronized() and tracking.leap_status != LeapStatus.UNSYNC
    for figure in ("offset_us=", "stratum=", "age=", "skew=", "error_bound_us="):
        assert (f" {figure}" in performance) == follows


ITEM = {item.name: item for item in ITEMS}


# What ntpdata is needed for is not read over UDP.
@pytest.mark.parametrize("item", sorted(ITEM.keys() - {"upstream_local"}))
def test_each_item_can_warn_be_critical_and_be_switched_off(item: str) -> None:
    everything = f"{item}=@~:"
    with fine_daemon() as daemon:
        warning, output = check_here(daemon.address, "-w", everything)
        critical, worse = check_here(daemon.address, "-w", everything, "-c", everything)
        both = ("-w", everything, "-w", f"{item}=off", "-c", f"{item}=off")
        off, fine = check_here(daemon.address, *both)
    assert (warning, critical, off) == (WARNING, CRITICAL, OK)
    assert output.startswith("CHRONY WARNING - ")
    assert worse.startswith("CHRONY CRITICAL - ")
    if ITEM[item].performance:
        name = item + "_us" * (ITEM[item].unit == "s" and item != "age")
        assert re.search(rf"\b{name}=[^;]+;@~:[; ]", output)
        assert re.search(rf"\b{name}=[^; ]+(;;;0)?( |\n)", fine)


def test_the_worst_is_first() -> None:
    tracking = clock(offset=0.3, stratum=11)
    with ScriptedDaemon(tracking=tracking, sources=[SELECTED]) as daemon:
        status, output = check_here("-w", "frequency=1", daemon.address)
        _, table = check_here("-f", "text", "-c", "skew=@1", daemon.address)
    assert status == CRITICAL
    order = [output.index(name) for name in ("offset +300ms", "stratum 11", "freq")]
    assert order == sorted(order)
    head, _, *lines = table.splitlines()
    assert head == (
        "CHRONY CRITICAL - offset +300ms (more than +200ms), skew 0.062ppm (in "
        "@1.000ppm), stratum 11 (more than 9). error bound 331ms, source 192.0.2.1, "
        "1 of 1 sources usable"
    )
    assert [line.split()[0] for line in lines] == (
        ["CRITICAL"] * 2 + ["WARNING"] * 2 + ["OK"] * (len(ITEMS) - 5)
    )
    assert lines[3].startswith(
        "WARNING   stratum                   11  warning 9 - a server upstream is "
    )
