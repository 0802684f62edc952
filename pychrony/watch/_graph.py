"""The offset and its error bound over time, drawn with the dots of braille.

Each reading is a column of dots, the newest at the right; a character has two
columns of four dots.
"""

from __future__ import annotations

from itertools import groupby
from math import floor, log10
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# The bits of a braille character, from U+2800 on, for its columns of dots.
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_DOTS = 4

_ZERO = "\N{BOX DRAWINGS LIGHT QUADRUPLE DASH HORIZONTAL}"


class Point(NamedTuple):
    """One reading.

    Attributes:
        time: when it was read [s], on any clock.
        offset: of the clock [s], ``None`` if it could not be read.
        bound: error bound [s], ``None`` if there is none.
    """

    time: float
    offset: float | None = None
    bound: float | None = None


class Run(NamedTuple):
    """Characters that are drawn alike.

    Attributes:
        text: the characters.
        ink: what they show: ``offset``, ``bound``, ``zero`` or empty.
        inside: whether they are within the error bound.
    """

    text: str
    ink: str
    inside: bool


def shown(points: Sequence[Point], width: int) -> Sequence[Point]:
    """Return the points that fit into a number of characters."""
    return points[-2 * width :]


def scale(points: Sequence[Point], *, bounded: bool) -> float:
    """Return 1, 2 or 5 times a power of ten that suits the offsets, or the bounds [s].

    The newest and nine in ten of the others fit. The others may be much larger, as
    just after the start of chronyd, and would flatten the rest.
    """
    sizes = [
        max(abs(point.offset), (bounded and point.bound) or 0.0)
        for point in points
        if point.offset is not None
    ]
    most = max([1e-9, *sizes[-1:], *sorted(sizes)[: len(sizes) * 9 // 10][-1:]])
    unit = 10.0 ** floor(log10(most))
    return next(unit * step for step in (1, 2, 5, 10, 20) if unit * step >= most)


def draw(
    points: Sequence[Point], width: int, height: int, limit: float
) -> list[list[Run]]:
    """Draw lines of characters from ``limit`` at the top to ``-limit`` [s]."""
    dots: dict[tuple[int, int], int] = {}
    inks: dict[tuple[int, int], str] = {}
    inside: set[tuple[int, int]] = set()
    before: dict[str, int] = {}
    for x, point in enumerate(points, 2 * width - len(points)):
        here = _rows(point, height * _DOTS - 1, limit)
        for trace, row in here.items():
            # Connected with the point before, as far as it is visible.
            first, last = sorted((row, before.get(trace, row)))
            for y in range(max(0, first), min(last, height * _DOTS - 1) + 1):
                cell = y // _DOTS, x // 2
                dots[cell] = dots.get(cell, 0) | _BITS[x % 2][y % _DOTS]
                inks[cell] = trace if trace == "offset" else inks.get(cell, "bound")
        if "upper" in here:
            # Characters of which at least half is inside.
            first, last = ((here[edge] + 2) // _DOTS for edge in ("upper", "lower"))
            inside.update((y, x // 2) for y in range(max(0, first), min(last, height)))
        before = here

    def look(cell: tuple[int, int]) -> tuple[str, bool]:
        ground = "zero" if cell[0] == height // 2 else ""
        return inks.get(cell, ground), cell in inside

    def character(cell: tuple[int, int]) -> str:
        if cell in dots:
            return chr(0x2800 + dots[cell])
        return _ZERO if cell[0] == height // 2 else " "

    return [
        [
            Run("".join(map(character, cells)), *kind)
            for kind, cells in groupby(((y, x) for x in range(width)), look)
        ]
        for y in range(height)
    ]


def _rows(point: Point, bottom: int, limit: float) -> dict[str, int]:
    """Return the rows of dots for what is known at a point."""
    values = {"offset": point.offset}
    if point.bound is not None:
        values |= {"upper": point.bound, "lower": -point.bound}
    return {
        trace: round((1 - value / limit) / 2 * bottom)
        for trace, value in values.items()
        if value is not None
    }
