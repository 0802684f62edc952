"""What bench.py measures: rows of values, with a column for each contender."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeAlias


class FailedError(Exception):
    """A contender did not do what it was told; the text says why."""


class Value(NamedTuple):
    """What was measured once. BUSY is for how much of the time the daemons were."""

    value: float
    wrong: int = 0
    failed: int = 0
    busy: float = 0.0


Job: TypeAlias = Callable[[], Value] | str
"""What measures once, or the reason why there is nothing to measure."""
Plan: TypeAlias = Mapping[str, Mapping[str, Job]]
"""The jobs of each row, by contender."""


@dataclass
class Cell:
    """All that was measured of one contender in one row."""

    values: list[float] = field(default_factory=list)
    wrong: int = 0
    failed: int = 0
    busy: float = 0.0
    note: str = ""
    typical: float = math.nan
    ratio: float = math.nan

    def add(self, new: Value) -> None:
        self.values.append(new.value)
        self.wrong = max(self.wrong, new.wrong)
        self.failed = max(self.failed, new.failed)
        self.busy = max(self.busy, new.busy)

    def compare(self, reference: Cell, *, by_rounds: bool) -> None:
        """Compare with another contender."""
        # The load of the machine changes between the rounds.
        if by_rounds and len(self.values) == len(reference.values):
            pairs = zip(self.values, reference.values, strict=True)
            self.ratio = median(mine / other for mine, other in pairs)
        else:
            self.ratio = self.typical / reference.typical

    def __str__(self) -> str:
        if not self.values:
            return self.note or "-"
        number = self.typical
        text = f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
        text += "" if math.isnan(self.ratio) else f" ({self.ratio:.3g}x)"
        text += f", {self.wrong} wrong" if self.wrong else ""
        text += f", {self.failed} failed" if self.failed else ""
        return text + (", daemons' limit" if self.busy > 0.9 else "")


def lower_quartile(values: Sequence[float]) -> float:
    """Return what is typical of short times: whatever disturbs only adds to them."""
    return quantiles(values, n=4)[0] if len(values) > 1 else values[0]


class Table:
    """Rows of what was measured, with a column for each contender.

    The ratio is to the first of REFERENCES that has a value in the row. Of the
    rounds, TYPICAL is shown.
    """

    def __init__(
        self,
        title: str,
        unit: str,
        columns: tuple[str, ...],
        *references: str,
        typical: Callable[[Sequence[float]], float] = median,
    ) -> None:
        self._typical = typical
        self.title = title
        self.unit = unit
        self.rows: dict[str, dict[str, Cell]] = {}
        self._columns = columns
        self._references = references
        self._failures: dict[str, str] = {}

    def interleave(self, rounds: int, plan: Plan) -> None:
        for number in range(rounds):
            for row, jobs in plan.items():
                names = list(jobs)
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    self._measure(row, name, jobs[name])

    def measure_at_once(self, plan: Plan) -> None:
        jobs = [(row, *job) for row, jobs in plan.items() for job in jobs.items()]
        with ThreadPoolExecutor(len(jobs)) as pool:
            for _ in pool.map(lambda job: self._measure(*job), jobs):
                pass

    def _measure(self, row: str, column: str, job: Job) -> None:
        cells = self.rows.setdefault(row, {name: Cell() for name in self._columns})
        cell = cells[column]
        if isinstance(job, str):
            cell.note = job
        elif not cell.note:
            try:
                cell.add(job())
            except FailedError as error:
                cell.note = "fails"
                self._failures.setdefault(str(error), f"{row}, {column}: {error}")

    def finish(self) -> None:
        for cells in self.rows.values():
            for cell in cells.values():
                if cell.values:
                    cell.typical = self._typical(cell.values)
            for reference in self._references:
                if cells[reference].values:
                    for cell in cells.values():
                        if cell.values:
                            cell.compare(
                                cells[reference], by_rounds=self._typical is median
                            )
                    break

    def __str__(self) -> str:
        lines = [(f"{self.title} [{self.unit}]", *self._columns)]
        lines += [(row, *map(str, cells.values())) for row, cells in self.rows.items()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                (
                    row.ljust(widths[0]),
                    *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True)),
                )
            )
            for row, *cells in lines
        ]
        return "\n".join((*text, *self._failures.values(), ""))

    def as_json(self) -> dict[str, Any]:
        rows = {
            row: {name: _without_nan(cell) for name, cell in cells.items()}
            for row, cells in self.rows.items()
        }
        return {"title": self.title, "unit": self.unit, "rows": rows}


def _without_nan(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in asdict(cell).items() if value == value}
