"""Who is compared by bench.py, the names of the rows, and what is to be reached."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from bench_table import Cell, Table

C = "C"
RAW = "raw sockets"
OLD = "pychrony 2.0.3"
CHRONYC = "chronyc"
NEW = "pychrony"
BEFORE = "pychrony before"
"""Of another tree, if one is named."""
ASYNC = "pychrony asyncio"
FLOOR = "floor"
"""The calls of libchrony for a tracking from Python, and a record filled with them."""
CONTENDERS = (C, RAW, OLD, CHRONYC, NEW, ASYNC)
ALL_CORES, ONE_CORE = "all cores free", "all on one core"
TWO_CORES = "chronyd on another core"
CHECK = "python -m pychrony.check"
LIST_TIMEOUT = 1.0
LOCAL_SOURCES = 100
HOSTS = (1_000, 10_000)
DEAD, LOSS = "1 % dead", "1 % loss"
SWEEP_WORST_WAIT = 1.5
MEMORY = {
    "growth": "MB above the start",
    "memory": "MB in all",
    "descriptors": "descriptors",
}


def list_row(count: int, delay: int, *, loss: bool = False) -> str:
    return f"{count} at {delay} ms" + (f", {LOSS}" if loss else "")


def sweep_row(hosts: int, delay: int = 0, trouble: str = "") -> str:
    return f"{hosts:,} at {delay} ms" + (f", {trouble}" if trouble else "")


class Target(NamedTuple):
    """What is to be reached: VALUE at most LIMIT, or AT_LEAST that."""

    what: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "MISSED"
        return f"{verdict:<6} {self.what}: {self.value:.3g} ({bound} {self.limit:g})"


def targets(tables: Mapping[str, Table]) -> list[Target]:
    """Return those of the parts that were measured."""

    def cost(part: str, row: str, name: str) -> float:
        cells = tables[part].rows[row] if part in tables else {}
        return cells.get(name, Cell()).typical

    # Free cores blur it: waking the other core can cost more than the report.
    ours, old, c = (cost("tracking", ONE_CORE, name) for name in (NEW, OLD, C))
    found = [
        Target(f"tracking, {ONE_CORE}, times C", ours / c, 1.5),
        Target(f"tracking, times faster than {OLD}", old / ours, 1.25, at_least=True),
        Target(
            "tracking, times the floor", ours / cost("tracking", ONE_CORE, FLOOR), 1.2
        ),
        Target(
            "the same, asyncio / blocking",
            cost("tracking", ONE_CORE, ASYNC) / ours,
            1.5,
        ),
    ]
    near = {name: cost("local", TWO_CORES, name) for name in (NEW, C)}
    what = f"{LOCAL_SOURCES} local sources, {TWO_CORES}, times C"
    found.append(Target(what, near[NEW] / near[C], 0.5))
    for count, limit in ((100, 4), (500, 10)):
        clean = cost("lists", list_row(count, 50), NEW)
        lossy = cost("lists", list_row(count, 50, loss=True), NEW)
        extra = (lossy - clean) / 1e3 / LIST_TIMEOUT
        found += [
            Target(f"{count} sources at 50 ms, round trips", clean / 50, limit),
            # The resend takes a round trip too.
            Target(f"the same with {LOSS}, timeouts more", extra, 1.1),
        ]
    most = f"{HOSTS[-1]:,} daemons"
    rate = {
        name: cost("sweeps", sweep_row(HOSTS[-1]), name)
        for name in (*CONTENDERS, BEFORE)
    }
    memory = cost("memory", f"{most}: {MEMORY['memory']}", NEW)
    found += [
        Target(f"{most}, times {OLD}", rate[NEW] / rate[OLD], 4, at_least=True),
        Target(
            f"{most}, times {CHRONYC}", rate[NEW] / rate[CHRONYC], 40, at_least=True
        ),
        Target(
            f"{most}, times {BEFORE}", rate[NEW] / rate[BEFORE], 1.25, at_least=True
        ),
        Target(
            "the same, asyncio / blocking", rate[ASYNC] / rate[NEW], 0.8, at_least=True
        ),
        Target(f"{most}, {MEMORY['memory']}", memory, 100),
    ]
    rows = tables["sweeps"].rows.values() if "sweeps" in tables else ()
    for name in (NEW, ASYNC):
        clean = HOSTS[-1] / rate[name]
        dead = HOSTS[-1] / cost("sweeps", sweep_row(HOSTS[-1], 0, DEAD), name)
        waits = (dead - clean) / SWEEP_WORST_WAIT
        wrong = [cells[name].wrong for cells in rows if cells[name].values]
        found += [
            Target(f"{name}, {DEAD}, worst-case waits more", waits, 1.1),
            Target(f"{name}, wrong answers", sum(wrong) if wrong else math.nan, 0),
        ]
    check = {name: cost("check", CHECK, name) for name in (NEW, BEFORE)}
    found.append(
        Target(f"check, CPU time, times {BEFORE}", check[NEW] / check[BEFORE], 0.75)
    )
    return [target for target in found if not math.isnan(target.value)]
