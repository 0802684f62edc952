"""The tables of the live view, in every width, and the states of what is in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from checking import UNSYNCHRONISED

import pychrony
from pychrony import ChronyConnectionError, SelectOption, SelectState, _chronyc
from pychrony.check import CRITICAL, OK, WARNING
from pychrony.check._causes import REASONS
from pychrony.testing import (
    make_select_data,
    make_source,
    make_source_stats,
    make_tracking,
)
from pychrony.watch._follow import Reading
from pychrony.watch._table import (
    Table,
    host_state,
    hosts_table,
    source_fields,
    sources_table,
    words,
)

ADDRESSES = [
    ["192.0.2.1", "192.0.2.200"],
    ["192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"],
    [],
]


def reading(addresses: list[str], **changes: Any) -> Reading:
    sources = [make_source(address=address) for address in addresses]
    selection = [make_select_data(address=address) for address in addresses]
    tracking = make_tracking(**changes)
    return Reading(tracking, sources, selection, read_at=tracking.ref_time + 9)


def check_every_width(make: Callable[[int], Table], *others: str) -> None:
    """Whatever the width, nothing is beyond it, and no word is broken."""
    widest = make(1000)
    known = {*others, *widest.head.split()}
    known |= {word for row in widest.rows for word in row.lines[0].split()}
    for width in range(40, 130):
        table = make(width)
        lines = [table.head, *(line for row in table.rows for line in row.lines)]
        assert max(map(len, lines)) <= width
        assert {word for line in lines for word in line.split()} <= known
        assert {row.key.split()[0] for row in table.rows} <= set(
            " ".join(lines).split()
        )
        assert len({len(row.lines) for row in table.rows}) <= 1


@pytest.mark.parametrize("addresses", ADDRESSES)
def test_sources_fit_every_width(addresses: list[str]) -> None:
    one = reading(addresses)
    check_every_width(
        lambda width: sources_table(one, width), "Name,", "Offset", "+123us"
    )


def test_clocks_fit_every_width() -> None:
    hosts = [
        ("ntp1.example", reading(ADDRESSES[0], offset=0.1)),
        ("a-rather-long-name-of-a-host.example", reading(ADDRESSES[0])),
        ("ntp2.example", None),
        ("ntp3.example", ChronyConnectionError("ntp3.example: this is a long story")),
    ]
    check_every_width(
        lambda width: hosts_table(hosts, width), "Clock,", "\N{HORIZONTAL ELLIPSIS}"
    )


def test_clocks_are_sorted_worst_first() -> None:
    lost = ChronyConnectionError("lost: no answer")
    unsynchronised = reading(ADDRESSES[0], **UNSYNCHRONISED)
    hosts: list[Any] = [
        ("good", reading(ADDRESSES[0])),
        ("slow", reading(ADDRESSES[0], offset=-0.1)),
        ("fast", reading(ADDRESSES[0], offset=0.15)),
        ("lost", lost),
        ("unread", None),
        ("bad", unsynchronised),
    ]
    table = hosts_table(hosts, 200)
    assert [row.key for row in table.rows] == [
        *("lost", "bad", "fast", "slow", "good", "unread")
    ]
    ends = [row.lines[0].split("  ")[-1].strip() for row in table.rows]
    assert ends == [
        "no answer",
        "not synchronised",
        "offset +150ms (more than +50ms)",
        "offset -100ms (less than -50ms)",
        "source 127.0.0.1",
        "...",
    ]
    assert [host_state(one) for _, one in hosts] == [
        *(OK, WARNING, WARNING, CRITICAL, OK, CRITICAL)
    ]
    narrow = hosts_table(hosts, 50).rows[2].lines[0]
    assert narrow.endswith("+150ms  offset +150ms (more \N{HORIZONTAL ELLIPSIS}")


def test_colours_are_those_of_the_check() -> None:
    worse = reading(ADDRESSES[0], offset=0.1, root_dispersion=0.5, stratum=10)
    assert worse.states == {one.item.name: one.state for one in worse.verdict.findings}
    assert [worse.states[one] for one in ("offset", "error_bound", "stratum")] == [
        *(WARNING, CRITICAL, WARNING)
    ]


@pytest.mark.parametrize(
    ("states", "selected", "wanted"),
    [
        ("* + -", "", [OK, OK, OK]),
        ("* x ~", "", [OK, WARNING, WARNING]),
        ("? x", "", [CRITICAL, CRITICAL]),
        # Of these, one has the option noselect.
        ("* ? ?", "* M N", [OK, WARNING, OK]),
    ],
)
def test_states_of_sources(states: str, selected: str, wanted: list[int]) -> None:
    by_glyph = {glyph: state for state, glyph in _chronyc.STATES.items()}
    sources = [make_source(state=by_glyph[one]) for one in states.split()]
    selection = [
        make_select_data(state=SelectState(ord(one))) for one in selected.split()
    ]
    table = sources_table(Reading(make_tracking(), sources, selection), 200)
    assert [row.state for row in table.rows] == wanted


def test_details_of_a_source() -> None:
    options = SelectOption.PREFER | SelectOption.TRUST
    record = make_select_data(
        state=SelectState.OUTLIER, effective_options=options, score=1.5
    )
    one = Reading(make_tracking(), [make_source()], [record], [make_source_stats()])
    text = "   ".join(source_fields(one, 0))
    assert "selection: too different to combine   score 1.5" in text
    assert "samples 8   runs 3   span 512 s   frequency +0.001 ppm" in text
    assert "prefer" in text and "trust" in text
    bare = Reading(make_tracking(), [make_source()], None)
    assert source_fields(bare, 0) == ["192.168.1.100"]


def test_sources_of_the_same_name_have_keys_of_their_own() -> None:
    sources = [make_source(address="GPS", mode=pychrony.SourceMode.REFCLOCK)] * 2
    table = sources_table(Reading(make_tracking(), sources, ()), 200)
    assert [row.key for row in table.rows] == ["GPS 1", "GPS 2"]


def test_words_of_nothing() -> None:
    assert words([], 40) == [""]
    assert words(["longer than that"], 3) == ["longer than that"]


def test_every_state_of_the_selection_has_a_reason_that_fits() -> None:
    assert set(REASONS) == set(SelectState)
    assert max(map(len, REASONS.values())) <= 27
