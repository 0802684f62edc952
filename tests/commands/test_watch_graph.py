"""The graph of the live view."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pychrony.watch._graph import Point, draw, scale, shown


@pytest.mark.parametrize(
    ("offsets", "limit"),
    [
        ([], 1e-9),
        ([0.0], 1e-9),
        ([3e-6], 5e-6),
        ([-3e-6], 5e-6),
        ([1e-3], 1e-3),
        ([1.01e-3], 2e-3),
        ([0.7], 1.0),
        ([123.0], 200.0),
        # An outlier leaves the picture, but not while it is the newest.
        ([9.0, *[3e-6] * 9], 5e-6),
        ([*[3e-6] * 9, 9.0], 10.0),
        ([*[3e-6] * 18, 9.0, 3e-6], 5e-6),
        # Two in twenty are outliers, three are not.
        ([*[9.0] * 2, *[3e-6] * 18], 5e-6),
        ([*[9.0] * 3, *[3e-6] * 17], 10.0),
    ],
)
def test_scale_suits_the_offsets(offsets: list[float], limit: float) -> None:
    points = [Point(0.0, offset) for offset in offsets]
    assert scale([*points, Point(0.0)], bounded=True) == pytest.approx(limit)


def test_scale_fits_the_bound_or_the_offset() -> None:
    points = [Point(0.0, 3e-6, 3e-3)]
    assert scale(points, bounded=True) == pytest.approx(5e-3)
    assert scale(points, bounded=False) == pytest.approx(5e-6)


def drawn(points: Iterable[Point], width: int, height: int, limit: float) -> list[str]:
    lines = draw(list(points), width, height, limit)
    return ["".join(run.text for run in line) for line in lines]


def test_graph_of_the_offset() -> None:
    points = [Point(0.0, value) for value in (1, 0.5, 0, -0.5, -1, -1)]
    assert drawn(points, 3, 3, 1.0) == ["⢹⡀ ", "┈⢧┈", " ⠈⣇"]


def test_graph_of_one_point() -> None:
    assert drawn([Point(0.0, 1.0)], 3, 3, 1.0) == ["  ⠈", "┈┈┈", "   "]


@pytest.mark.parametrize(
    ("before", "dots"), [([], "⠈⠐⠠⢀"), ([Point(0.0)], "⠁⠂⠄⡀")], ids=["right", "left"]
)
def test_each_dot_of_a_character(before: list[Point], dots: str) -> None:
    for value, dot in zip((1, 1 / 3, -1 / 3, -1), dots, strict=True):
        assert drawn([Point(0.0, value), *before], 1, 1, 1.0) == [dot]


def test_zero_is_in_the_middle() -> None:
    assert drawn([], 2, 5, 1.0) == ["  ", "  ", "┈┈", "  ", "  "]


def test_graph_of_the_bound() -> None:
    lines = draw([Point(0.0, 0.0, 0.7)] * 2, 2, 5, 1.0)
    assert [[(run.ink, run.inside) for run in line] for line in lines] == [
        [("", False), ("bound", False)],
        [("", False), ("", True)],
        [("zero", False), ("offset", True)],
        [("", False), ("", True)],
        [("", False), ("bound", False)],
    ]


def test_characters_are_inside_by_half_at_least() -> None:
    lines = draw([Point(0.0, 0.0, 0.37)] * 2, 1, 5, 1.0)
    assert [run.inside for (run,) in lines] == [False, False, True, False, False]


def test_graph_of_a_bound_outside_of_it() -> None:
    lines = draw([Point(0.0, 0.0, 50.0), Point(0.0, 0.0, 90.0)], 1, 3, 1.0)
    assert [[(run.ink, run.inside) for run in line] for line in lines] == [
        [("", True)],
        [("offset", True)],
        [("", True)],
    ]


def test_graph_leaves_a_gap() -> None:
    gap = [Point(0.0, 1.0, 1.0), Point(0.0), Point(0.0), Point(0.0, -1.0, 1.0)]
    assert drawn(gap, 2, 3, 1.0) == ["⠁⠈", "┈┈", "⡀⢀"]


def test_graph_shows_what_fits() -> None:
    points = [Point(float(number)) for number in range(5)]
    assert [point.time for point in shown(points, 2)] == [1, 2, 3, 4]
    assert shown(points, 9) == points
