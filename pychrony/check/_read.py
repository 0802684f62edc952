"""One clock with its sources, or many clocks side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import pychrony
from pychrony import ChronyError
from pychrony._cli import is_terminal

from ._items import Clock
from ._judge import WORST_FIRST, Limits, Verdict, failure, judge


def one(
    address: str | None,
    *,
    limits: Limits,
    timeout_state: int,
    timeout: float,
    retries: int,
) -> Verdict:
    """Judge one clock by what it reports of itself and its sources."""
    try:
        with pychrony.ChronyConnection(
            address, timeout=timeout, retries=retries
        ) as connection:
            tracking = connection.get_tracking()
            clock = Clock(tracking, connection.get_sources())
            return judge(address or "", clock, limits)
    except ChronyError as error:
        return failure(address or "", error, timeout_state)


def many(
    addresses: Sequence[str],
    *,
    concurrency: int,
    limits: Limits,
    timeout_state: int,
    timeout: float,
    retries: int,
) -> list[Verdict]:
    """Judge many clocks by their ``tracking`` alone, and return the worst first."""
    try:
        results = pychrony.query_many(
            addresses,
            concurrency=min(concurrency, len(addresses)),
            timeout=timeout,
            retries=retries,
            progress=_bar(len(addresses)) if is_terminal(sys.stderr) else None,
        )
    except ChronyError as error:  # there is no libchrony
        return [failure("", error, timeout_state)]
    verdicts = [
        failure(str(address), result, timeout_state)
        if isinstance(result, ChronyError)
        else judge(str(address), Clock(result), limits)
        for address, result in results
    ]
    return sorted(verdicts, key=_rank)


def _rank(verdict: Verdict) -> tuple[int, float, str]:
    offset = verdict.clock.tracking.offset if verdict.clock else 0.0
    return WORST_FIRST.index(verdict.state), -abs(offset), verdict.address


def _bar(total: int) -> Callable[[int], None]:
    """Return what shows a progress bar on a terminal."""
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
