"""Ranges of ``python -m pychrony.check``."""

from __future__ import annotations

import re

import pytest

from pychrony.check import _range


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


@pytest.mark.parametrize(
    ("text", "unit", "end"),
    [
        *(("2", "s", 2.0), ("2s", "s", 2.0), ("3ms", "s", 0.003), ("4us", "s", 4e-6)),
        *(("5ns", "s", 5e-9), ("6", "ppm", 6.0), ("6ppm", "ppm", 6.0), ("7", "", 7.0)),
    ],
)
def test_units_of_ranges(text: str, unit: str, end: float) -> None:
    limit = _range.parse(text, signed=False, unit=unit)
    assert (limit.start, limit.end) == (0.0, end)


@pytest.mark.parametrize(
    ("unit", "known"),
    [
        ("s", "the units here are s, ms, us, ns"),
        ("ppm", "the units here are ppm"),
        ("", "there are no units here"),
    ],
)
@pytest.mark.parametrize("text", ["5min", "5minute", "5e"])
def test_unit_that_a_value_has_not(text: str, unit: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not a range: {known}$"):
        _range.parse(text, signed=False, unit=unit)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-7, "0.0000001"),
        (-1e-12, "0"),
        (0.25, "0.25"),
        (100.0, "100"),
        (-2.5, "-2.5"),
    ],
)
def test_plain_numbers(value: float, text: str) -> None:
    assert _range.plain(value) == text
