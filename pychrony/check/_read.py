"""Reads and judges one clock with its sources, or many clocks at the same time."""

from __future__ import annotations

import sys
from time import monotonic, time

import pychrony
from pychrony import ChronyError, Transport
from pychrony._cli import is_terminal, timeout_within
from pychrony._reader import Reader

from ._clock import Clock
from ._judge import Limits, Verdict, failure, judge
from ._states import WORST_FIRST

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def one(
    address: str | None,
    *,
    limits: Limits,
    timeout_state: int,
    seconds: float,
    retries: int,
) -> Verdict:
    """Judge one clock by its reports, within ``seconds``."""
    try:
        with Reader(address, seconds, retries) as reader:
            return judge(address or "", _read(reader), limits)
    except ChronyError as error:
        return failure(address or "", error, timeout_state)


def _read(reader: Reader) -> Clock:
    tracking = reader.read("tracking")
    read_at = time()
    sources = reader.read("sources")
    more: dict[str, Any] = {}
    fine = tracking.is_synchronized() and all(one.is_usable() for one in sources)
    if reader.connection.transport is Transport.UNIX_SOCKET:
        # Only ntpdata shows that a server is in local mode.
        more["ntp"] = _if_permitted(reader, "ntpdata")
    if not fine:
        more["activity"] = _if_permitted(reader, "activity")
        more["select"] = _if_permitted(reader, "selectdata")
        if reader.connection.transport is Transport.UNIX_SOCKET:
            more["auth"] = _if_permitted(reader, "authdata")
    known = {name: value for name, value in more.items() if value is not None}
    return Clock(tracking, read_at, sources, **known)


def _if_permitted(reader: Reader, report: str) -> Any:
    """Read a report that only explains others; ``None`` if it cannot be read."""
    if reader.left <= 0:
        return None
    try:
        return reader.read(report)
    except ChronyError:
        return None


def many(
    addresses: Sequence[str],
    *,
    concurrency: int,
    limits: Limits,
    timeout_state: int,
    seconds: float,
    retries: int,
) -> list[Verdict]:
    """Judge many clocks by their ``tracking``.

    If the last update is old, ``sources`` is read, too, for the polling interval.
    """
    end = monotonic() + seconds
    at_once = min(concurrency, len(addresses))
    # If none replies, all timeouts of each round must fit into the time.
    rounds = -(-len(addresses) // at_once)
    try:
        results = pychrony.query_many(
            addresses,
            concurrency=at_once,
            timeout=timeout_within(seconds, retries, rounds),
            retries=retries,
            progress=_bar(len(addresses)) if is_terminal(sys.stderr) else None,
        )
    except ChronyError as error:  # there is no libchrony
        return [failure("", error, timeout_state)]
    verdicts = [
        failure(str(address), result, timeout_state)
        if isinstance(result, ChronyError)
        else judge(str(address), Clock(result, time()), limits)
        for address, result in results
    ]
    old = {one.address for one in verdicts if one.has_wrong("age")}
    if old and (left := end - monotonic()) > 0:
        answers = pychrony.query_many(
            old,
            "sources",
            concurrency=at_once,
            timeout=timeout_within(left, retries, -(-len(old) // at_once)),
            retries=retries,
        )
        sources = {
            str(address): result
            for address, result in answers
            if not isinstance(result, ChronyError)
        }
        verdicts = [
            judge(one.address, one.clock.with_sources(sources[one.address]), limits)
            if one.clock and one.address in sources
            else one
            for one in verdicts
        ]
    return verdicts


def worst_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts, the worst and those with the largest offset first."""
    return sorted(verdicts, key=_rank)


def _rank(verdict: Verdict) -> tuple[int, float, str]:
    offset = verdict.clock.tracking.offset if verdict.clock else 0.0
    return WORST_FIRST.index(verdict.state), -abs(offset), verdict.address


def _bar(total: int) -> Callable[[int], None]:
    """Return a function that shows a progress bar on the terminal."""
    shown = -1

    def show(done: int) -> None:
        nonlocal shown
        parts = 40 * done // total
        if parts > shown:
            shown = parts
            end = "\r" if done < total else "\r\x1b[K"
            bar = f"[{'#' * parts:40}] {done} of {total}"
            print(bar, end=end, file=sys.stderr, flush=True)

    return show
