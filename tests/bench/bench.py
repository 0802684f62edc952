"""Compare the speed of pychrony with that of others, side by side in one run.

Every contender is a process that measures itself, so that only chronyc and the
imports pay for starting one. In each round all take their turn, every time in
another order. Who asks for one source after the other mostly waits if they are
far away: such lists are read once, the long ones all at the same time.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import provision
from bench_client import Times, laps
from bench_picture import DOCS, draw
from chronyd import Chronyd, chronyc_command

HERE = Path(__file__).parent

C = "C"
RAW = "raw sockets"
OLD = "pychrony 2.0.3"
CHRONYC = "chronyc"
NEW = "pychrony"
ASYNC = "pychrony asyncio"
FLOOR = "floor"
"""The calls of libchrony for a tracking from Python, and a record filled with them."""
CONTENDERS = (C, RAW, OLD, CHRONYC, NEW, ASYNC)
NO_DEADLINE = (C, OLD)
"""These wait for ever for an answer that does not come."""
ONE_BY_ONE = (C, OLD, CHRONYC)
"""These ask for a source when they have the one before."""
PARALLEL = (OLD, CHRONYC)
"""These sweep with threads or processes, which get all the cores."""
WAYS = {
    RAW: "raw",
    OLD: "blocking",
    NEW: "blocking",
    ASYNC: "asyncio",
    FLOOR: "floor",
}

SECONDS = 0.2
"""How long a contender repeats what takes less."""
PATIENCE = 300.0
"""How long one measurement may take."""
ALL_CORES, ONE_CORE = "all cores free", "all on one core"
SOURCES = (1, 10, 100, 500)
LONG = 100
"""From so many sources on, reading them one by one takes seconds if they are far."""
LIST_TIMEOUT = 1.0
LOCAL_SOURCES = 100
HOSTS = (1_000, 10_000)
DEAD, LOSS = "1 % dead", "1 % loss"
SWEEP_WORST_WAIT = 1.5
C_SAMPLE = 100
"""So many daemons are asked from C, one after the other, if they are far away."""
CHRONYC_SAMPLE, CHRONYC_PROCESSES = 400, 4
IMPORTS = ("import pychrony", "from pychrony import ChronyConnection")
NEW_IMPORTS = (
    "from pychrony import query_many",
    "from pychrony import AsyncChronyConnection",
)
IMPORTS_A_ROUND = 5
MEMORY = {
    "growth": "MB above the start",
    "memory": "MB in all",
    "descriptors": "descriptors",
}


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
    median: float = math.nan
    ratio: float = math.nan

    def add(self, new: Value) -> None:
        self.values.append(new.value)
        self.wrong = max(self.wrong, new.wrong)
        self.failed = max(self.failed, new.failed)
        self.busy = max(self.busy, new.busy)
        self.median = median(self.values)

    def compare(self, reference: Cell) -> None:
        """Compare round by round, as the machine's mood changes between them."""
        if len(self.values) == len(reference.values):
            pairs = zip(self.values, reference.values, strict=True)
            self.ratio = median(mine / other for mine, other in pairs)
        else:
            self.ratio = self.median / reference.median

    def __str__(self) -> str:
        if not self.values:
            return self.note or "-"
        number = self.median
        text = f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
        text += "" if math.isnan(self.ratio) else f" ({self.ratio:.3g}x)"
        text += f", {self.wrong} wrong" if self.wrong else ""
        text += f", {self.failed} failed" if self.failed else ""
        return text + (", daemons' limit" if self.busy > 0.9 else "")


class Table:
    """Rows of what was measured, with a column for each contender.

    The ratio is to the first of REFERENCES that has a value in the row.
    """

    def __init__(
        self, title: str, unit: str, columns: tuple[str, ...], *references: str
    ) -> None:
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
            for reference in self._references:
                if cells[reference].values:
                    for cell in cells.values():
                        if cell.values:
                            cell.compare(cells[reference])
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


class Daemons:
    """A process of bench_daemons.py, until the end of the `with` block."""

    def __init__(
        self, delay: int = 0, *, loss: bool = False, dead: bool = False
    ) -> None:
        options = [f"--delay={delay / 1000}", f"--loss={0.01 if loss else 0}"]
        options += ["--dead"] if dead else []
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(HERE / "bench_daemons.py"), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.port = self._process.stdout.readline().strip()
        self.pid = self._process.pid

    def __enter__(self) -> Daemons:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # This closes its standard input, which ends it.
        self._process.communicate()

    def processor_time(self) -> float:
        with open(f"/proc/{self.pid}/schedstat") as statistics:
            return int(statistics.read().split()[0]) / 1e9


class Bench:
    """The contenders, and the parts of the comparison."""

    def __init__(
        self, parts: provision.Parts, old: str, directory: str, rounds: int
    ) -> None:
        self._parts = parts
        self._old = old
        self._rounds = rounds
        self._program = _compiled(directory)
        self._chronyc_command = (*chronyc_command(parts), "-c")

    def tracking(self) -> Table:
        """Read a real chronyd on this machine."""
        names = (*CONTENDERS, FLOOR)
        table = Table("tracking, local chronyd", "us", names, C, RAW)
        return self._local(table, names, "tracking", 1e6, "local stratum 1")

    def local(self) -> Table:
        """Read a list of a real chronyd on this machine."""
        names = tuple(name for name in CONTENDERS if name != RAW)
        table = Table(f"{LOCAL_SOURCES} sources, local chronyd", "ms", names, C)
        servers = (f"server 10.0.0.{index} offline" for index in range(LOCAL_SOURCES))
        return self._local(table, names, "sources", 1e3, *servers)

    def _local(
        self, table: Table, names: tuple[str, ...], what: str, scale: float, *conf: str
    ) -> Table:
        every = os.sched_getaffinity(0)
        with Chronyd(self._parts, *conf) as daemon:
            host, _, port = daemon.address.partition(":")
            jobs = {name: self._report(name, what, host, port, scale) for name in names}
            plan = {
                row: {
                    name: _pinned(job, cores, 0, daemon.pid)
                    for name, job in jobs.items()
                }
                for row, cores in ((ALL_CORES, every), (ONE_CORE, {min(every)}))
            }
            table.interleave(self._rounds, plan)
        return table

    def lists(self) -> Table:
        """Read lists of sources, near and far."""
        table = Table("sources (0 ms: on one core)", "ms", CONTENDERS, C, RAW)
        one_core = {min(os.sched_getaffinity(0))}
        in_turn: dict[str, dict[str, Job]] = {}
        once: dict[str, dict[str, Job]] = {}
        at_once: dict[str, dict[str, Job]] = {}
        with ExitStack() as stack:
            for delay, loss in ((0, False), (10, False), (50, False), (50, True)):
                daemons = stack.enter_context(Daemons(delay, loss=loss))
                for count in SOURCES[-2:] if loss else SOURCES:
                    row = list_row(count, delay, loss=loss)
                    host = f"127.1.{count >> 8}.{count & 255}"
                    for name in CONTENDERS:
                        job: Job = "hangs"
                        if not (loss and name in NO_DEADLINE):
                            job = self._report(name, "sources", host, daemons.port, 1e3)
                        if not delay:
                            job = _pinned(job, one_core, 0, daemons.pid)
                        plan = in_turn
                        if delay and name in ONE_BY_ONE:
                            plan = at_once if count >= LONG else once
                        plan.setdefault(row, {})[name] = job
            table.interleave(self._rounds, in_turn)
            table.interleave(1, once)
            table.measure_at_once(at_once)
        return table

    def sweeps(self) -> Table:
        """Read one report from each of many daemons."""
        table = Table("tracking, many daemons", "daemons/s", CONTENDERS, OLD, CHRONYC)
        *others, own = sorted(os.sched_getaffinity(0))
        in_turn: dict[str, dict[str, Job]] = {}
        once: dict[str, dict[str, Job]] = {}
        with ExitStack() as stack:
            for delay, trouble in ((0, ""), (10, ""), (0, DEAD), (0, LOSS)):
                daemons = stack.enter_context(
                    Daemons(delay, loss=trouble == LOSS, dead=trouble == DEAD)
                )
                # As if they were on other machines: a daemon that is woken would
                # often take the core of its client.
                os.sched_setaffinity(daemons.pid, {own})
                # A second loss in a row must not fail a sweep.
                retries = 2 if trouble == LOSS else 1
                for hosts in HOSTS[-1:] if trouble else HOSTS:
                    for name in CONTENDERS:
                        job: Job = "hangs"
                        if not (trouble and name in NO_DEADLINE):
                            asked = C_SAMPLE if delay and name == C else hosts
                            job = self._sweep(name, asked, daemons, retries)
                        if name not in PARALLEL:
                            job = _pinned(job, set(others) or {own}, 0)
                        plan = once if trouble and name == CHRONYC else in_turn
                        row = sweep_row(hosts, delay, trouble)
                        plan.setdefault(row, {})[name] = job
            table.interleave(self._rounds, in_turn)
            table.interleave(1, once)
        return table

    def memory(self) -> Table:
        """Watch what a sweep needs, which is the same in every round."""
        table = Table("needs of a sweep", "see row", (RAW, OLD, NEW, ASYNC))
        with Daemons() as daemons:

            @functools.cache
            def run(name: str, hosts: int) -> dict[str, Any]:
                return _run(
                    *self._client(name, "memory"), "memory", str(hosts), daemons.port
                )

            def job(name: str, hosts: int, key: str) -> Job:
                return lambda: Value(
                    run(name, hosts)[key] / (1 if key == "descriptors" else 1024)
                )

            plan = {
                f"{hosts:,} daemons: {text}": {
                    name: job(name, hosts, key) for name in (RAW, OLD, NEW, ASYNC)
                }
                for hosts in HOSTS
                for key, text in MEMORY.items()
            }
            table.interleave(1, plan)
        return table

    def imports(self) -> Table:
        """Start an interpreter and import, less the time without the import."""
        table = Table("imports", "ms", (OLD, NEW), OLD)

        def job(python: str, statement: str) -> Job:
            def measure() -> Value:
                return Value(
                    1e3
                    * median(
                        _start_time(python, statement) - _start_time(python, "pass")
                        for _ in range(IMPORTS_A_ROUND)
                    )
                )

            return measure

        plan = {
            statement: {
                OLD: job(self._old, statement) if statement in IMPORTS else "-",
                NEW: job(sys.executable, statement),
            }
            for statement in (*IMPORTS, *NEW_IMPORTS)
        }
        table.interleave(self._rounds, plan)
        return table

    def _client(self, name: str, what: str) -> tuple[str, ...]:
        old = name == OLD
        way = "threads" if old and what in ("sweep", "memory") else WAYS[name]
        python = self._old if old else sys.executable
        # -I: the installed package, not what lies in the current directory.
        return (python, "-I", str(HERE / "bench_client.py"), way)

    def _report(self, name: str, what: str, host: str, port: str, scale: float) -> Job:
        command: tuple[str, ...]
        if name == C:
            if not self._program:
                return "no compiler"
            command = (self._program, what, host, port, str(SECONDS))
        elif name == CHRONYC:
            return lambda: self._chronyc_report(what, host, port, scale)
        else:
            options = (what, host, port, f"--seconds={SECONDS}")
            command = (*self._client(name, what), *options)
        return lambda: Value(median(_run(*command)["times"]) * scale)

    def _chronyc_report(self, what: str, host: str, port: str, scale: float) -> Value:
        times: Times = []
        for _ in laps(times, SECONDS):
            result = self._chronyc(what, host, port)
            if result.returncode:
                raise FailedError(result.stdout + result.stderr)
        return Value(median(times) * scale)

    def _sweep(self, name: str, hosts: int, daemons: Daemons, retries: int) -> Job:
        command: tuple[str, ...]
        if name == C:
            if not self._program:
                return "no compiler"
            command = (self._program, "sweep", str(hosts), daemons.port)
        elif name == CHRONYC:
            return lambda: self._chronyc_sweep(min(hosts, CHRONYC_SAMPLE), daemons)
        else:
            options = ("sweep", str(hosts), daemons.port, f"--retries={retries}")
            command = (*self._client(name, "sweep"), *options)

        def measure() -> Value:
            before = daemons.processor_time()
            result = _run(*command)
            (seconds,) = result["times"]
            return Value(
                hosts / seconds,
                result["wrong"],
                result.get("failed", 0),
                (daemons.processor_time() - before) / seconds,
            )

        return measure

    def _chronyc_sweep(self, hosts: int, daemons: Daemons) -> Value:
        def ask(number: int) -> str:
            host = f"127.1.{number >> 8}.{number & 255}"
            result = self._chronyc("tracking", host, daemons.port)
            if result.returncode:
                return "failed"
            # The fields are the reference ID, its address or name, and others.
            return "right" if result.stdout.split(",")[1] == host else "wrong"

        begin = perf_counter()
        with ThreadPoolExecutor(CHRONYC_PROCESSES) as pool:
            answers = list(pool.map(ask, range(hosts)))
        rate = hosts / (perf_counter() - begin)
        return Value(rate, answers.count("wrong"), answers.count("failed"))

    def _chronyc(
        self, what: str, host: str, port: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._chronyc_command, "-h", host, "-p", port, what],
            env={"LC_ALL": "C", "LD_LIBRARY_PATH": self._parts.library_path},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )


def _compiled(directory: str) -> str:
    """Return the path of the program in C, or nothing if it cannot be had."""
    compiler = shutil.which("cc")
    program = f"{directory}/bench"
    source = str(HERE / "bench.c")
    if not compiler:
        return ""
    command = [compiler, "-O2", "-o", program, source, "-ldl"]
    return "" if subprocess.run(command, check=False).returncode else program


def _run(*command: str) -> dict[str, Any]:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"no end after {PATIENCE:g} s") from error
    if result.returncode:
        reason = result.stderr.strip().rpartition("\n")[2]
        raise FailedError(f"exit code {result.returncode}: {reason}")
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def _start_time(python: str, statement: str) -> float:
    begin = perf_counter()
    result = subprocess.run(
        [python, "-I", "-c", statement], stderr=subprocess.PIPE, text=True, check=False
    )
    seconds = perf_counter() - begin
    if result.returncode:
        raise FailedError(result.stderr.strip().rpartition("\n")[2])
    return seconds


def _pinned(job: Job, cores: set[int], *pids: int) -> Job:
    """Keep these processes on these cores while the job runs; 0 is what it starts."""
    if isinstance(job, str):
        return job

    def measure() -> Value:
        with ExitStack() as stack:
            for pid in pids:
                stack.enter_context(_affinity(pid, cores))
            return job()

    return measure


@contextmanager
def _affinity(pid: int, cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(pid, before)


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
        cell = tables[part].rows[row][name] if part in tables else Cell()
        return cell.median

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
    near = {name: cost("local", ALL_CORES, name) for name in (NEW, C)}
    found.append(
        Target(f"{LOCAL_SOURCES} local sources, times C", near[NEW] / near[C], 0.5)
    )
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
    rate = {name: cost("sweeps", sweep_row(HOSTS[-1]), name) for name in CONTENDERS}
    memory = cost("memory", f"{most}: {MEMORY['memory']}", NEW)
    found += [
        Target(f"{most}, times {OLD}", rate[NEW] / rate[OLD], 4, at_least=True),
        Target(
            f"{most}, times {CHRONYC}", rate[NEW] / rate[CHRONYC], 40, at_least=True
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
    return [target for target in found if not math.isnan(target.value)]


def _machine() -> dict[str, object]:
    return {
        "system": platform.system(),
        "release": platform.release(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def _write(tables: Mapping[str, Table], found: list[Target], rounds: int) -> None:
    results = {
        "machine": _machine(),
        "rounds": rounds,
        "tables": {part: table.as_json() for part, table in tables.items()},
        "targets": [{**target._asdict(), "met": target.met} for target in found],
    }
    (DOCS / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results)


PARTS = {
    "tracking": Bench.tracking,
    "local": Bench.local,
    "lists": Bench.lists,
    "sweeps": Bench.sweeps,
    "memory": Bench.memory,
    "imports": Bench.imports,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help=f"{', '.join(PARTS)}; without any all of them, which then writes "
        "docs/bench.json and docs/bench.svg",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--old", required=True, metavar="PYTHON", help=f"one that has {OLD}"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # What ends a session of nox must not leave daemons behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = provision.provide()
        with tempfile.TemporaryDirectory() as directory:
            bench = Bench(found, arguments.old, directory, arguments.rounds)
            _bench(bench, arguments.parts or list(PARTS), arguments.rounds)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except provision.ProvisionError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


def _bench(bench: Bench, parts: list[str], rounds: int) -> None:
    tables: dict[str, Table] = {}
    for part in parts:
        begin = perf_counter()
        tables[part] = PARTS[part](bench)
        tables[part].finish()
        print(tables[part], flush=True)
        print(f"({part}: {perf_counter() - begin:.0f} s)\n", flush=True)
    reached = targets(tables)
    print(*reached, sep="\n")
    if set(parts) == set(PARTS):
        _write(tables, reached, rounds)


if __name__ == "__main__":
    sys.exit(main())
