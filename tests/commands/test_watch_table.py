"""The tables of the live view, in every width, and the states of what is in them."""

from __future__ import annotations

from typing import Any

import pytest

from pychrony import (
    ChronyConnectionError,
    LeapStatus,
    SelectOption,
    SelectState,
    SourceMode,
    SourceState,
)
from pychrony.testing import (
    make_select_data,
    make_source,
    make_source_stats,
    make_tracking,
)
from pychrony.watch._follow import Reading
from pychrony.watch._limits import CRITICAL, FINE, WARNING, source_state, states
from pychrony.watch._table import (
    REASONS,
    host_state,
    hosts_table,
    source_fields,
    sources_table,
    words,
)

UNSYNC = LeapStatus.UNSYNC

ADDRESSES = [
    ["192.0.2.1", "192.0.2.200"],
    ["192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"],
    [],
]


def reading(addresses: list[str], **changes: Any) -> Reading:
    sources = [make_source(address=address) for address in addresses]
    selection = [make_select_data(address=address) for address in addresses]
    return Reading(make_tracking(**changes), sources, selection)


@pytest.mark.parametrize("addresses", ADDRESSES)
@pytest.mark.parametrize("width", [*range(40, 130)])
def test_sources_fit_the_width_and_no_word_is_broken(
    addresses: list[str], width: int
) -> None:
    widest = sources_table(reading(addresses), 1000)
    known = {"Offset", "Name/IP", "address,", *widest.head.split()}
    known |= {word for row in widest.rows for word in row.lines[0].split()}
    table = sources_table(reading(addresses), width)
    lines = [table.head, *(line for row in table.rows for line in row.lines)]
    found = {word for line in lines for word in line.split()}
    assert max(map(len, lines)) <= width
    assert found - known <= {"+123us"}
    assert set(addresses) <= found
    assert len({len(row.lines) for row in table.rows}) <= 1


@pytest.mark.parametrize("width", [*range(40, 130)])
def test_clocks_fit_the_width_and_no_word_is_broken(width: int) -> None:
    hosts = [
        ("ntp1.example", reading(ADDRESSES[0])),
        ("a-rather-long-name-of-a-host.example", reading(ADDRESSES[0])),
        ("ntp2.example", None),
    ]
    widest, table = hosts_table(hosts, 1000), hosts_table(hosts, width)
    known = {"Clock,", *widest.head.split()}
    known |= {word for row in widest.rows for word in row.lines[0].split()}
    lines = [table.head, *(line for row in table.rows for line in row.lines)]
    assert max(map(len, lines)) <= width
    assert {word for line in lines for word in line.split()} <= known


def test_clocks_are_sorted_worst_first() -> None:
    lost = ChronyConnectionError("no answer")
    unsynchronised = reading(
        [], reference_id=0, reference_ip="", leap_status=LeapStatus.UNSYNC
    )
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
    assert "no answer" in table.rows[0].lines[0]
    assert "not synchronised" in table.rows[1].lines[0]
    assert [host_state(one) for _, one in hosts] == [
        *(FINE, WARNING, WARNING, CRITICAL, FINE, CRITICAL)
    ]


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({"offset": 0.05}, "offset", FINE),
        ({"offset": -0.06}, "offset", WARNING),
        ({"offset": 0.3}, "offset", CRITICAL),
        ({"root_dispersion": 0.2}, "error_bound", WARNING),
        ({"root_dispersion": 2.0}, "error_bound", CRITICAL),
        ({"stratum": 10}, "stratum", WARNING),
        ({"reference_id": 0x7F7F0101, "reference_ip": ""}, "source", WARNING),
        (
            {"reference_id": 0, "reference_ip": "", "leap_status": UNSYNC},
            "source",
            CRITICAL,
        ),
    ],
)
def test_states_of_a_clock(changes: Any, name: str, state: int) -> None:
    assert states(make_tracking(**changes), [])[name] == state


@pytest.mark.parametrize(("number", "state"), [(0, 2), (1, 1), (2, 0)])
def test_state_of_few_sources(number: int, state: int) -> None:
    assert states(make_tracking(), [make_source()] * number)["usable"] == state


@pytest.mark.parametrize(
    ("source", "state"),
    [
        (SourceState.SELECTED, FINE),
        (SourceState.SELECTABLE, FINE),
        (SourceState.JITTERY, WARNING),
        (SourceState.FALSETICKER, CRITICAL),
        (SourceState.NONSELECTABLE, CRITICAL),
    ],
)
def test_states_of_sources(source: SourceState, state: int) -> None:
    assert source_state(make_source(state=source)) == state


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
    sources = [make_source(address="GPS", mode=SourceMode.REFCLOCK)] * 2
    table = sources_table(Reading(make_tracking(), sources, ()), 200)
    assert [row.key for row in table.rows] == ["GPS 1", "GPS 2"]


def test_words_of_nothing() -> None:
    assert words([], 40) == [""]
    assert words(["longer than that"], 3) == ["longer than that"]


def test_every_state_of_the_selection_has_a_reason_that_fits() -> None:
    assert set(REASONS) == set(SelectState)
    assert max(map(len, REASONS.values())) <= 27
