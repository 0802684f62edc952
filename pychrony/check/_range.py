"""Ranges of values, as the plugins of Nagios write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from math import inf

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?"
_RANGE = re.compile(rf"(@?)(?:(~|{_NUMBER})?(:))?({_NUMBER})?", re.ASCII)


@dataclass(frozen=True)
class Range:
    """What is fine lies within ``start`` and ``end``, or, if ``inside``, does not.

    The syntax is that of the Monitoring Plugins Development Guidelines.
    """

    start: float
    end: float
    inside: bool = False
    signed: bool = False

    def alerts(self, value: float) -> bool:
        """Whether ``value`` is not fine."""
        return (self.start <= value <= self.end) is self.inside

    def __str__(self) -> str:
        start = "~" if self.start == -inf else _exact(self.start)
        end = "" if self.end == inf else _exact(self.end)
        # Alone, the end of what has a sign would mean another range.
        alone = start == "0" and end and not self.signed
        return "@" * self.inside + (end if alone else f"{start}:{end}")


def parse(text: str, *, signed: bool) -> Range:
    """Return the range that ``text`` means.

    A lone number is the end of a range that starts at 0, or, if the value is
    ``signed``, at the same distance below 0.

    Raises:
        ValueError: it means none.
    """
    match = _RANGE.fullmatch(text)
    if match is None or not text.strip("@:"):
        raise ValueError(
            f"{text!r} is not a range. There are 10 (alert outside of 0 to 10), 10: "
            "(below 10), ~:10 (above 10), 10:20 (outside of it) and @10:20 (inside)"
        )
    inside, low, colon, high = match.groups()
    end = inf if high is None else float(high)
    if low is None:
        start = -end if signed and not colon else 0.0
    else:
        start = -inf if low == "~" else float(low)
    if start > end:
        raise ValueError(f"{text!r} is not a range: its start is above its end")
    return Range(start, end, bool(inside), signed)


def _exact(value: float) -> str:
    return f"{Decimal(repr(value)).normalize():f}"


def plain(value: float) -> str:
    """Return a number in plain decimals, to 9 places: never ``1e-07``."""
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
