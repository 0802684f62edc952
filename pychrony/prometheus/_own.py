"""The exporter's own metrics, summed over its workers.

The workers share memory, and each counts in its own part of it. So every worker can
serve the sums, and a worker that is restarted continues its counts.
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
from functools import cache
from time import time
from typing import TYPE_CHECKING

import pychrony

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._text import Text

_CODES = (200, 400, 401, 403, 404, 405, 431, 500, 503)

_PATHS = ("metrics", "probe")

# The first class that an error belongs to counts.
_REASONS: dict[str, type[Exception]] = {
    "timeout": pychrony.ChronyTimeoutError,
    "connection": pychrony.ChronyConnectionError,
    "permission": pychrony.ChronyPermissionError,
    "data": pychrony.ChronyDataError,
    "other": Exception,
}

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_PLACES = {
    place: index
    for index, place in enumerate(
        (
            *(("requests", str(code)) for code in _CODES),
            *(("scrapes", path) for path in _PATHS),
            *(("errors", reason) for reason in _REASONS),
            *(("seconds", str(bound)) for bound in (*_BOUNDS, "+Inf", "sum")),
            ("in_flight", ""),
            ("restarts", ""),
            ("pid", ""),
        )
    )
}

_NAME = "pychrony_exporter_"

# Each family: its name, what it counts, its label and its help.
_FAMILIES = (
    ("http_requests_total", "requests", "code", "Number of HTTP responses, by status."),
    (
        "scrapes_total",
        "scrapes",
        "path",
        "Number of scrapes begun, by path.",
    ),
    ("errors_total", "errors", "reason", "Number of errors in scrapes, by reason."),
    ("scrapes_in_flight", "in_flight", "", "Number of scrapes in progress."),
    ("worker_restarts_total", "restarts", "", "Number of workers that were restarted."),
)

_TICKS = os.sysconf("SC_CLK_TCK")


class Own:
    """The counts of the exporter.

    Args:
        workers: how many processes count.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        shared = mmap.mmap(-1, workers * len(_PLACES) * 8)
        self._all = memoryview(shared).cast("d")
        self._began = time()
        self.begin(0)

    def begin(self, worker: int) -> None:
        """Count as this worker from now on."""
        self._start = worker * len(_PLACES)
        self._put("in_flight", "", 0)
        self._put("pid", "", os.getpid())

    def restarted(self, worker: int) -> None:
        """Count a worker that was restarted."""
        self._all[worker * len(_PLACES) + _PLACES["restarts", ""]] += 1

    def request(self, code: int) -> None:
        """Count a response with this status."""
        self._add("requests", str(code), 1)

    def scrape_begins(self, path: str) -> None:
        self._add("scrapes", path, 1)
        self._add("in_flight", "", 1)

    def scrape_ends(self, seconds: float, errors: list[pychrony.ChronyError]) -> None:
        self._add("in_flight", "", -1)
        bound = next((one for one in _BOUNDS if seconds <= one), "+Inf")
        self._add("seconds", str(bound), 1)
        self._add("seconds", "sum", seconds)
        for error in errors:
            reason = next(one for one in _REASONS if isinstance(error, _REASONS[one]))
            self._add("errors", reason, 1)

    def write(self, text: Text) -> None:
        """Add the counts, and the resources of the processes, to a page."""
        for name, counted, label, meaning in _FAMILIES:
            kind = "counter" if name.endswith("_total") else "gauge"
            text.family(_NAME + name, kind, meaning, self._rows(counted, label))
        text.family(
            f"{_NAME}scrape_duration_seconds",
            "histogram",
            "Time that a scrape took.",
            dict(self._histogram()),
        )
        for name, meaning, samples in (
            ("build_info", "1; the versions of pychrony and Python.", _versions()),
            ("workers", "Number of worker processes.", {"": float(self._workers)}),
        ):
            text.family(_NAME + name, "gauge", meaning, samples)
        self._write_processes(text)

    def _write_processes(self, text: Text) -> None:
        """Add the metrics of processes that every exporter has."""
        virtual = resident = seconds = descriptors = 0.0
        for pid in self._values("pid", ""):
            # A process that has just ended, or whose files are hidden, is left out.
            with suppress(OSError):
                folder = f"/proc/{pid:.0f}"
                fields = _content(f"{folder}/stat").rpartition(b")")[2].split()
                seconds += (int(fields[11]) + int(fields[12])) / _TICKS
                virtual += int(fields[20])
                resident += int(fields[21]) * mmap.PAGESIZE
                descriptors += len(os.listdir(f"{folder}/fd"))
        for name, kind, meaning, value in (
            ("virtual_memory_bytes", "gauge", "Virtual memory size.", virtual),
            ("resident_memory_bytes", "gauge", "Resident memory size.", resident),
            ("start_time_seconds", "gauge", "When it started.", self._began),
            ("cpu_seconds_total", "counter", "User and system CPU time.", seconds),
            ("open_fds", "gauge", "Number of open descriptors.", descriptors),
            (
                "max_fds",
                "gauge",
                "Maximum number of descriptors of a process.",
                _most_descriptors(),
            ),
        ):
            text.family(f"process_{name}", kind, meaning, {"": value})

    def _add(self, name: str, value: str, number: float) -> None:
        self._all[self._start + _PLACES[name, value]] += number

    def _put(self, name: str, value: str, number: float) -> None:
        self._all[self._start + _PLACES[name, value]] = number

    def _values(self, name: str, value: str) -> list[float]:
        return list(self._all[_PLACES[name, value] :: len(_PLACES)])

    def _sum(self, name: str, value: str) -> float:
        return sum(self._values(name, value))

    def _rows(self, name: str, label: str) -> dict[str, float]:
        return {
            _label(label, value): self._sum(name, value)
            for one, value in _PLACES
            if one == name
        }

    def _histogram(self) -> Iterator[tuple[str, float]]:
        total = 0.0
        for bound in (*_BOUNDS, "+Inf"):
            total += self._sum("seconds", str(bound))
            yield f"_bucket{_label('le', str(bound))}", total
        yield "_count", total
        yield "_sum", self._sum("seconds", "sum")


def _content(path: str) -> bytes:
    # An open() and its buffers take twice as long.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


@cache
def _versions() -> dict[str, float]:
    # Python finds the version by parsing a file: that took as long as the scrape.
    python = sys.version.split()[0]
    return {f'{{python_version="{python}",version="{pychrony.__version__}"}}': 1.0}


@cache
def _label(name: str, value: str) -> str:
    return f'{{{name}="{value}"}}' if name else ""


def _most_descriptors() -> float:
    from resource import RLIMIT_NOFILE, getrlimit

    return float(getrlimit(RLIMIT_NOFILE)[0])
