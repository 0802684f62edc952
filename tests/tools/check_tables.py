"""The tables of the check in the documentation: its items, and the likely states."""

from __future__ import annotations

import os
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from typing import Any
from unittest import mock

import pychrony
from pychrony import LeapStatus, SelectState, SourceMode, SourceState
from pychrony.check import _read, main
from pychrony.check._items import ITEMS
from pychrony.check._judge import SOURCE
from pychrony.testing import (
    ScriptedDaemon,
    make_activity,
    make_auth_data,
    make_ntp_data,
    make_select_data,
    make_source,
    make_tracking,
)

NOW = 1_800_000_000.0
FINE: dict[str, Any] = {
    "reference_ip": "192.0.2.1",
    "stratum": 3,
    "offset": 0.000012,
    "root_delay": 0.02,
    "root_dispersion": 0.001,
}
UNSYNCHRONISED: dict[str, Any] = {
    "reference_id": 0,
    "reference_ip": "",
    "stratum": 0,
    "leap_status": LeapStatus.UNSYNC,
}
LOCAL: dict[str, Any] = {"reference_id": 0x7F7F0101, "reference_ip": "", "stratum": 10}
PPS: dict[str, Any] = {"reference_id": 0x50505300, "reference_ip": "", "stratum": 1}
BAD = SourceState.NONSELECTABLE


def source(number: int, state: SourceState, **changes: Any) -> Any:
    return make_source(address=f"192.0.2.{number}", state=state, **changes)


def clock_source(name: str, **changes: Any) -> Any:
    known = {"mode": SourceMode.REFCLOCK, "stratum": 0, "poll": 4, **changes}
    return make_source(address=name, **known)


def silent(number: int) -> Any:
    return source(number, BAD, reachability=0, last_sample_ago=0xFFFFFFFF)


def dead(name: str) -> Any:
    return clock_source(name, state=BAD, reachability=0, last_sample_ago=0xFFFFFFFF)


def nameless(count: int) -> list[Any]:
    return [
        make_source(address=f"ID#{number:010}", state=BAD, reachability=0)
        for number in range(1, count + 1)
    ]


A = source(1, SourceState.SELECTED)
B = source(2, SourceState.UNSELECTED)
C = source(3, SourceState.SELECTABLE)


def two(**changes: Any) -> list[Any]:
    """Two good sources; the changes are those of the selected one."""
    poll = changes.get("poll", 6)
    return [
        source(1, SourceState.SELECTED, **changes),
        source(2, SourceState.UNSELECTED, poll=poll),
    ]


def select(*records: tuple[Any, SelectState], noselect: int = -1) -> Any:
    """Selection data of sources; one of them may have the option."""
    return [
        make_select_data(
            address="" if one.mode is SourceMode.REFCLOCK else one.address,
            reference_id=int.from_bytes(
                one.address[:4].encode().ljust(4, b"\0"), "big"
            ),
            state=state,
            effective_options=pychrony.SelectOption(number == noselect),
        )
        for number, (one, state) in enumerate(records)
    ]


THREE = [dead("GPS"), dead("PPS"), dead("kPPS")]
BEST = SelectState.BEST

# The situation, what is changed of a fine clock, its sources, other reports (these
# are over the Unix socket), and options.
Row = tuple[str, dict[str, Any], list[Any], dict[str, Any], list[str]]


FOUND: list[Row] = []


def add(
    name: str,
    changes: dict[str, Any],
    sources: list[Any],
    reports: dict[str, Any] | None = None,
    options: str = "",
) -> None:
    """Add a situation."""
    FOUND.append((name, changes, sources, reports or {}, options.split()))


def rows() -> list[Row]:
    """All situations, in the order of the page."""
    FOUND.clear()
    _figures()
    _times()
    _sources()
    _reasons()
    _nothing_followed()
    return list(FOUND)


def _figures() -> None:
    add("Two good sources", {}, [A, B])
    add("Three good sources", {}, [A, B, C])
    add("One source, by design", {}, [A])
    add("One source, where two are wanted", {}, [A], options="-w usable_sources=2:")
    add("PPS with NTP servers", PPS, [clock_source("PPS"), B, C])
    phc = {**PPS, "reference_id": 0x50484330, "stratum": 3}
    add("PHC of a hypervisor as the only source", phc, [clock_source("PHC0")])
    for offset in (0.049, 0.051, -0.051, 0.199, 0.201, 0.9, 5.0, -3600.0):
        add(f"Offset {offset:+g} s", {"offset": offset}, [A, B])
    for bound in (0.065, 0.099, 0.101, 0.499, 0.501, 3850.0):
        add(f"Error bound {bound:g} s", {"root_dispersion": bound - 0.010012}, [A, B])
    add("Root delay 1.4 s", {"root_delay": 1.4}, [A, B])
    add("Skew 1,000,000 ppm, few samples", {"skew": 1e6}, [A, B])
    for stratum in (9, 10, 11):
        add(f"Stratum {stratum}", {"stratum": stratum}, [A, B])


def _times() -> None:
    for poll in (-2, 4, 6, 10, 14, 17):
        limit = max(4 * 2.0**poll, 64)
        for age in (limit - 1, limit + 1):
            changes = {"ref_time": NOW - age, "update_interval": 2.0}
            sources = two(poll=poll, last_sample_ago=int(age))
            add(f"Poll {poll}, last update {age:g} s ago", changes, sources)
    name = "Last update long ago, last sample not: the clock was set"
    add(name, {"ref_time": NOW - 7200}, two())
    for ahead in (1, 3, 3600):
        add(f"Last update {ahead} s in the future", {"ref_time": NOW + ahead}, two())
    add("Last sample far from the clock", {}, two(latest_meas=-3600.0))
    coasting = {"ref_time": NOW - 3600, "root_dispersion": 0.005}
    add("Coasting for an hour, one source", coasting, [silent(1)])
    add("Coasting for an hour, two sources", coasting, [silent(1), silent(2)])
    day = {"ref_time": NOW - 86400, "root_dispersion": 0.09}
    add("Coasting for a day", day, [silent(1), silent(2)])
    for kind, leap in (("inserted", LeapStatus.INSERT), ("deleted", LeapStatus.DELETE)):
        add(f"A leap second will be {kind}", {"leap_status": leap}, [A, B])
    inserted = {"leap_status": LeapStatus.INSERT}
    add("The same, as a warning", inserted, [A, B], {}, "-w leap=0")
    for text, reach in (
        ("the first poll", 1),
        ("the first three polls", 7),
        ("four of eight polls", 0o360),
        ("three of eight polls", 0o340),
        ("every third poll", 0o111),
    ):
        add(f"The selected source answered {text}", {}, two(reachability=reach))


def _sources() -> None:
    wrong = source(9, SourceState.FALSETICKER)
    add("A falseticker among three", {}, [A, B, wrong])
    add("A falseticker among two", {}, [A, wrong])
    both = [source(8, SourceState.FALSETICKER), wrong]
    add("Two sources that disagree", UNSYNCHRONISED, both)
    add("Two sources that disagree, synchronised before", {}, both)
    six = [source(number, SourceState.FALSETICKER) for number in range(10, 16)]
    add("Six falsetickers", {}, [A, B, *six])
    add("A dead reference clock beside servers", {}, [A, B, dead("GPS")])
    add("Three dead reference clocks beside three servers", {}, [*THREE, A, B, C])
    add("The same, as a warning", {}, [*THREE, A, B, C], {}, "-w dead_sources=0")
    add("A dead server beside two good ones", {}, [A, B, silent(4)])
    add("Two configured, one unreachable", {}, [A, silent(4)])
    add("The same, accepted", {}, [A, silent(4)], {}, "-w usable_sources=1:")
    add("Two configured, one not resolved", {}, [A, *nameless(1)])
    add("Two good ones and unresolved places of pools", {}, [A, B, *nameless(24)])
    add("One too variable", {}, [A, source(4, SourceState.JITTERY)])
    asked = [A, source(4, BAD), source(5, BAD)]
    add("Reachable ones that are not selectable", {}, asked)


def _reasons() -> None:
    for state in (
        SelectState.NOT_SYNCHRONIZED,
        SelectState.MISSING_SAMPLES,
        SelectState.UNACCEPTABLE_DISTANCE,
        SelectState.JITTERY,
        SelectState.WAITING_FOR_OTHERS,
        SelectState.STALE,
        SelectState.ORPHAN,
        SelectState.NOT_TRUSTED,
        SelectState.UNACCEPTABLE_STRATUM,
        SelectState.UNKNOWN,
    ):
        name = state.name.lower().replace("_", " ")
        other = source(4, BAD)
        known = {"select_data": select((A, BEST), (other, state))}
        add(f"Two, one of them {name}", {}, [A, other], known)
    nmea = [clock_source("PPS"), clock_source("NMEA", state=BAD)]
    add("PPS and NMEA that only numbers the seconds", PPS, nmea)
    ignored = select((nmea[0], BEST), (nmea[1], SelectState.IGNORED), noselect=1)
    add("The same, with noselect known", PPS, nmea, {"select_data": ignored})
    wanted = "-w usable_sources=2:"
    add("The same, where two are wanted", PPS, nmea, {"select_data": ignored}, wanted)
    nts = [
        make_auth_data(address="192.0.2.1"),
        make_auth_data(address="192.0.2.4", cookies=0, key_id=0, ke_attempts=3),
    ]
    add("A server whose NTS key exchange fails", {}, [A, silent(4)], {"auth_data": nts})
    failed = {"auth_data": nts[1:]}
    name = "NTS key exchange fails, no other server"
    add(name, UNSYNCHRONISED, [silent(4)], failed)
    mode = pychrony.AuthMode.SYMMETRIC_KEY
    keys = {"auth_data": [nts[0], make_auth_data(address="192.0.2.4", mode=mode)]}
    add("A symmetric key that does not fit", {}, [A, silent(4)], keys)
    local = make_ntp_data(address="192.0.2.1", reference_id=0x7F7F0101)
    known = {"ntp_data": [local, make_ntp_data(address="192.0.2.2")]}
    add("The server followed is in local mode", {}, [A, B], known)


def _nothing_followed() -> None:
    add("Local mode, no source configured", LOCAL, [])
    add("Local mode, sources lost", LOCAL, [silent(1), silent(2)])
    add("Local mode that is meant", LOCAL, [], {}, "-c synchronised=off -w local=off")
    add("Local mode, warnings off", LOCAL, [], {}, "-w off")
    add("No sources", UNSYNCHRONISED, [])
    add("The only source is unreachable", UNSYNCHRONISED, [silent(1)])
    both = [silent(1), silent(2)]
    add("All sources are unreachable", UNSYNCHRONISED, both)
    offline = {"activity": make_activity(online=0, offline=2)}
    one_offline = {"activity": make_activity(online=1, offline=1)}
    add("All sources are offline", UNSYNCHRONISED, both, offline)
    add("One of two dead sources is offline", UNSYNCHRONISED, both, one_offline)
    mixed = [THREE[0], silent(1)]
    add("A reference clock and a server are dead", UNSYNCHRONISED, mixed)
    asleep = [
        make_ntp_data(address=f"192.0.2.{number}", leap_status=LeapStatus.UNSYNC)
        for number in (1, 2)
    ]
    name = "The servers answer, but are not synchronised"
    add(name, UNSYNCHRONISED, both, {"ntp_data": asleep})
    for name, sources in (
        ("The only source is dead, and has noselect", [silent(2)]),
        ("A dead server, and one with noselect", [silent(2), silent(1)]),
    ):
        states = ((one, SelectState.MISSING_SAMPLES) for one in sources)
        ignored = {"select_data": select(*states, noselect=0)}
        add(name, UNSYNCHRONISED, sources, ignored)
    all_ignored = {"select_data": select((C, SelectState.IGNORED), noselect=0)}
    noselect = source(3, BAD)
    add("All sources have noselect", UNSYNCHRONISED, [noselect], all_ignored)
    add("No name is resolved", UNSYNCHRONISED, nameless(5))
    activity = {"activity": make_activity(online=0, offline=1, unresolved=4)}
    name = "No name is resolved, one server is offline"
    add(name, UNSYNCHRONISED, [silent(1), *nameless(4)], activity)
    sources = [noselect, *nameless(4)]
    states = ((one, SelectState.MISSING_SAMPLES) for one in sources)
    ignored = {"select_data": select(*states, noselect=0)}
    add(
        "No name is resolved, one server has noselect", UNSYNCHRONISED, sources, ignored
    )
    add("All reference clocks are dead", UNSYNCHRONISED, THREE)
    young = [source(1, BAD, reachability=1), source(2, BAD, reachability=1)]
    for name, state in (
        ("The first measurements after a start", SelectState.MISSING_SAMPLES),
        ("Servers that are not synchronised", SelectState.NOT_SYNCHRONIZED),
    ):
        known = {"select_data": select(*((one, state) for one in young))}
        add(name, UNSYNCHRONISED, young, known)
    add("Selectable, but too few (minsources)", UNSYNCHRONISED, [C])
    add("Selected, but not yet updated", {"leap_status": LeapStatus.UNSYNC}, [A, B])
    add("The wanted source is followed", {}, [A, B], {}, "-c source=192.0.2.1")
    add("Another source is followed", {}, [A, B], {}, "-c source=192.0.2.2")
    add("A limit without its unit", {}, [A, B], {}, "-w 50")


def lines() -> list[tuple[str, str, int, str]]:
    """Each situation: its name, the options, the exit status and the line."""
    found: list[tuple[str, str, int, str]] = []
    with (
        tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as directory,
        mock.patch.object(_read, "time", return_value=NOW),
    ):
        for name, changes, sources, reports, options in rows():
            tracking = make_tracking(**{**FINE, "ref_time": NOW - 20, **changes})
            # Over the Unix socket, all reports are permitted.
            address = f"{directory}/s" if reports else "127.0.0.1:0"
            with (
                ScriptedDaemon(
                    tracking=tracking, sources=sources, address=address, **reports
                ) as daemon,
                redirect_stdout(StringIO()) as output,
            ):
                status = main(["-f", "nagios", "-t", "60", daemon.address, *options])
            text = output.getvalue().rstrip("\n").partition(" | ")[0]
            found.append((name, " ".join(options), status, text))
            if os.path.exists(address):
                os.unlink(address)
    return found


def states() -> str:
    """Return the page of the states."""
    page = [
        "States of the check",
        "===================",
        "",
        "The exit status and the line of ``check_chrony`` in likely situations,",
        "generated from runs of the check. :doc:`check` says what it checks.",
        "",
        ".. list-table::",
        "   :class: narrow",
        "   :header-rows: 1",
        "   :widths: 30 8 62",
        "",
        "   * - Situation",
        "     - Status",
        "     - Line",
    ]
    for name, options, status, text in lines():
        shown = f"{name} (``{options}``)" if options else name
        page += [f"   * - {shown}", f"     - {status}", f"     - ``{text}``"]
    return "\n".join(page) + "\n"


def items() -> str:
    """Return the table of the items and their limits."""
    rows = [("Item", "Warning", "Critical", "What it is, and why these limits")]
    for item in (*ITEMS, SOURCE):
        unit = {"": "", "flag": "(0 or 1)"}.get(item.unit, f"[{item.unit}]")
        warning, critical = (
            "varies" if callable(limit) else f"``{limit}``" if limit else ""
            for limit in (item.warning, item.critical)
        )
        name = f"``{item.name}`` {'' if item is SOURCE else unit}"
        texts = filter(None, (item.meaning, item.reason))
        text = " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)
        rows.append((name, warning, critical, text))
    page = ".. list-table::\n   :header-rows: 1\n   :widths: 24 12 12 52\n\n"
    for row in rows:
        for number, cell in enumerate(row):
            page += f"   {' ' if number else '*'} - {cell}".rstrip() + "\n"
    return page
