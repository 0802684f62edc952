"""Ranges of values in the syntax of Nagios plugins."""

from __future__ import annotations

import re
from math import inf

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?"
_NUMBER = rf"{_DIGITS}[a-z]*"
_RANGE = re.compile(rf"(@?)(?:(~|{_NUMBER})?(:))?({_NUMBER})?", re.ASCII)

# The divisor for each unit of a number, by the unit of the item.
_DIVISORS = {
    "s": {"": 1, "s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000},
    "ppm": {"": 1, "ppm": 1},
}
_NO_UNIT = {"": 1}


class Range:
    """A range outside of which, or if ``inside`` within which, a value alerts.

    The syntax is that of the Monitoring Plugins Development Guidelines.
    """

    __slots__ = ("end", "inside", "signed", "start")

    def __init__(
        self, start: float, end: float, inside: bool = False, signed: bool = False
    ) -> None:
        self.start = start
        self.end = end
        self.inside = inside
        self.signed = signed

    def alerts(self, value: float) -> bool:
        """Whether ``value`` alerts."""
        return (self.start <= value <= self.end) is self.inside

    def __str__(self) -> str:
        return self.shown(exact)

    def shown(self, show: Callable[[float], str]) -> str:
        """Return the range with its numbers as ``show`` writes them."""
        start = "~" if self.start == -inf else show(self.start)
        end = "" if self.end == inf else show(self.end)
        # A lone end has another meaning for a value with a sign.
        alone = self.start == 0 and end and not self.signed
        return "@" * self.inside + (end if alone else f"{start}:{end}")


def parse(text: str, *, signed: bool, unit: str = "") -> Range:
    """Return the range that ``text`` means.

    A lone number is the end of a range that starts at 0, or, if the value is
    ``signed``, at the same distance below 0. Numbers of a value in seconds
    (``unit`` is ``s``) may have one of the units s, ms, us and ns.

    Raises:
        ValueError: it is not a range.
    """
    match = _RANGE.fullmatch(text)
    if match is None or not text.strip("@:"):
        raise ValueError(
            f"{text!r} is not a range. There are 10 (alert outside of 0 to 10), 10: "
            "(below 10), ~:10 (above 10), 10:20 (outside of it) and @10:20 (inside)"
        )
    inside, low, colon, high = match.groups()
    end = inf if high is None else _number(text, high, unit)
    if low is None:
        start = -end if signed and not colon else 0.0
    else:
        start = -inf if low == "~" else _number(text, low, unit)
    if start > end:
        raise ValueError(f"{text!r} is not a range: its start is above its end")
    return Range(start, end, bool(inside), signed)


def _number(text: str, number: str, unit: str) -> float:
    ((digits, suffix),) = re.findall(f"({_DIGITS})(.*)", number)
    divisors = _DIVISORS.get(unit, _NO_UNIT)
    if suffix not in divisors:
        known = ", ".join(filter(None, divisors))
        units = f"the units here are {known}" if known else "there are no units here"
        raise ValueError(f"{text!r} is not a range: {units}")
    return float(digits) / divisors[suffix]


def exact(value: float) -> str:
    """Return a number with all decimals and without an exponent."""
    text = repr(value)
    if "e" in text:
        from decimal import Decimal  # takes milliseconds, and is needed rarely

        return f"{Decimal(text):f}"
    return text.removesuffix(".0")


def plain(value: float) -> str:
    """Return a number with up to 9 decimals and without an exponent."""
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
