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
