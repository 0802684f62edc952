"""Compare the speed of pychrony with that of others, side by side in one run.

Every contender is a process that measures itself, so that only chronyc, the
imports and the check pay for starting one. In each round all run, every time in
another order. Who asks for one source after the other mostly waits if they are
distant: such lists are read once, the long ones all at the same time.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import provision
from bench_client import Times, laps
from bench_picture import DOCS, draw
from bench_table import FailedError, Job, Table, Value, lower_quartile
from bench_targets import (
    ALL_CORES,
    ASYNC,
    BEFORE,
    CHECK,
    CHRONYC,
    CONTENDERS,
    DEAD,
    FLOOR,
    HOSTS,
    LOCAL_SOURCES,
    LOSS,
    MEMORY,
    NEW,
    OLD,
    ONE_CORE,
    RAW,
    TWO_CORES,
    C,
    Target,
    list_row,
    sweep_row,
    targets,
)
from chronyd import Chronyd, chronyc_command

HERE = Path(__file__).parent

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
    BEFORE: "blocking",
    ASYNC: "asyncio",
    FLOOR: "floor",
}

SECONDS, LOCAL_SECONDS = 0.2, 0.1
"""How long a contender repeats what takes less."""
LOCAL_ROUNDS = 3
"""So many times the rounds, each shorter, where the machine disturbs most."""
LONGEST = 300.0
"""How long one measurement may take."""
SOURCES = (1, 10, 100, 500)
LONG = 100
"""Reading so many sources one by one takes seconds if they are distant."""
C_SAMPLE = 100
"""So many daemons are asked from C, one after the other, if they are distant."""
CHRONYC_SAMPLE, CHRONYC_PROCESSES = 400, 4
IMPORTS = ("import pychrony", "from pychrony import ChronyConnection")
NEW_IMPORTS = (
    "from pychrony import query_many",
    "from pychrony import AsyncChronyConnection",
)
IMPORTS_A_ROUND = 5


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
        self, parts: provision.Parts, old: str, before: str, directory: str, rounds: int
    ) -> None:
        self._parts = parts
        self._pythons = {OLD: old, BEFORE: before}
        self._before = (BEFORE,) if before else ()
        self._rounds = rounds
        self._program = _compiled(directory)
        self._chronyc_command = (*chronyc_command(parts), "-c")

    def tracking(self) -> Table:
        """Read a real chronyd on this machine."""
        names = (*CONTENDERS, FLOOR)
        title = "tracking, local chronyd"
        table = Table(title, "us", names, C, RAW, typical=lower_quartile)
        return self._local(table, names, "tracking", 1e6, "local stratum 1")

    def local(self) -> Table:
        """Read a list of a real chronyd on this machine."""
        names = tuple(name for name in CONTENDERS if name != RAW)
        title = f"{LOCAL_SOURCES} sources, local chronyd"
        table = Table(title, "ms", names, C, typical=lower_quartile)
        servers = (f"server 10.0.0.{index} offline" for index in range(LOCAL_SOURCES))
        return self._local(table, names, "sources", 1e3, *servers)

    def _local(
        self, table: Table, names: tuple[str, ...], what: str, scale: float, *conf: str
    ) -> Table:
        every = os.sched_getaffinity(0)
        # Free processes of which one always waits for the other may share a core.
        cores = {
            ALL_CORES: (every, every),
            TWO_CORES: ({min(every)}, {max(every)}),
            ONE_CORE: ({min(every)}, {min(every)}),
        }
        with Chronyd(self._parts, "\n".join(conf)) as daemon:
            host, _, port = daemon.address.partition(":")
            jobs = {
                name: self._report(name, what, host, port, scale, LOCAL_SECONDS)
                for name in names
            }
            plan = {
                row: {
                    name: _pinned(job, {0: own, daemon.pid: its})
                    for name, job in jobs.items()
                }
                for row, (own, its) in cores.items()
            }
            table.interleave(self._rounds * LOCAL_ROUNDS, plan)
        return table

    def lists(self) -> Table:
        """Read lists of sources, near and distant."""
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
                            job = _pinned(job, {0: one_core, daemons.pid: one_core})
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
        names = (*CONTENDERS, *self._before)
        table = Table("tracking, many daemons", "daemons/s", names, OLD, CHRONYC)
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
                    for name in names:
                        job: Job = "hangs"
                        if not (trouble and name in NO_DEADLINE):
                            asked = C_SAMPLE if delay and name == C else hosts
                            job = self._sweep(name, asked, daemons, retries)
                        if name not in PARALLEL:
                            job = _pinned(job, {0: set(others) or {own}})
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
                OLD: job(self._pythons[OLD], statement)
                if statement in IMPORTS
                else "-",
                NEW: job(sys.executable, statement),
            }
            for statement in (*IMPORTS, *NEW_IMPORTS)
        }
        table.interleave(self._rounds, plan)
        return table

    def check(self) -> Table:
        """Take the CPU time of a whole process that checks a clock."""
        pythons = {NEW: sys.executable}
        pythons |= {name: self._pythons[name] for name in self._before}
        table = Table("CPU time", "ms", tuple(pythons), *self._before, typical=min)
        with Chronyd(self._parts, "local stratum 1") as daemon:

            def job(python: str) -> Job:
                command = [python, "-I", "-m", "pychrony.check", daemon.address]
                return lambda: Value(1e3 * _processor_time(command))

            jobs = {name: job(python) for name, python in pythons.items()}
            table.interleave(self._rounds * LOCAL_ROUNDS, {CHECK: jobs})
        return table

    def _client(self, name: str, what: str) -> tuple[str, ...]:
        old = name == OLD
        way = "threads" if old and what in ("sweep", "memory") else WAYS[name]
        python = self._pythons.get(name, sys.executable)
        # -I: the installed package, not what lies in the current directory.
        return (python, "-I", str(HERE / "bench_client.py"), way)

    def _report(
        self,
        name: str,
        what: str,
        host: str,
        port: str,
        scale: float,
        seconds: float = SECONDS,
    ) -> Job:
        command: tuple[str, ...]
        if name == C:
            if not self._program:
                return "no compiler"
            command = (self._program, what, host, port, str(seconds))
        elif name == CHRONYC:
            return lambda: self._chronyc_report(what, host, port, scale)
        else:
            options = (what, host, port, f"--seconds={seconds}")
            command = (*self._client(name, what), *options)
        # Whatever disturbs only adds to a time.
        typical = min if seconds == LOCAL_SECONDS else median
        return lambda: Value(typical(_run(*command)["times"]) * scale)

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
            timeout=LONGEST,
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
            command, capture_output=True, text=True, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"no end after {LONGEST:g} s") from error
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


def _processor_time(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == 3:  # UNKNOWN
        raise FailedError(f"exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def _pinned(job: Job, cores: dict[int, set[int]]) -> Job:
    """Keep processes on these cores while the job runs; 0 is what it starts."""
    if isinstance(job, str):
        return job

    def measure() -> Value:
        with ExitStack() as stack:
            for pid, allowed in cores.items():
                stack.enter_context(_affinity(pid, allowed))
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
    "check": Bench.check,
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
    parser.add_argument(
        "--before", default="", metavar="PYTHON", help="one that has an earlier tree"
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
            bench = Bench(
                found,
                arguments.old,
                arguments.before,
                directory,
                arguments.rounds,
            )
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
