"""One clock with its sources, or many clocks side by side."""

from __future__ import annotations

import sys
from time import monotonic, time

import pychrony
from pychrony import ChronyConnectionError, ChronyError, Transport
from pychrony._cli import Waits, is_terminal

from ._clock import Clock
from ._judge import WORST_FIRST, Limits, Verdict, failure, judge

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# What reads each report.
_METHODS = {
    "tracking": "get_tracking",
    "sources": "get_sources",
    "activity": "get_activity",
    "selectdata": "get_select_data",
    "authdata": "get_auth_data",
    "ntpdata": "get_ntp_data",
}

# How many places are tried where no address is given.
_PLACES = 3

# A connection limits each call. After this share of the whole time, the next
# call gets a connection with what is left.
_RENEWED = 0.02


def one(
    address: str | None,
    *,
    limits: Limits,
    timeout_state: int,
    seconds: float,
    retries: int,
) -> Verdict:
    """Judge one clock by its reports, within ``seconds`` in all."""
    try:
        with _Reader(address, seconds, retries) as reader:
            return judge(address or "", _read(reader), limits)
    except ChronyError as error:
        return failure(address or "", error, timeout_state)


def _read(reader: _Reader) -> Clock:
    tracking = reader.read("tracking")
    read_at = time()
    sources = reader.read("sources")
    more: dict[str, Any] = {}
    fine = tracking.is_synchronized() and all(one.is_usable() for one in sources)
    if reader.transport is Transport.UNIX_SOCKET:
        # Only these reports tell of a server that is in local mode.
        more["ntp"] = reader.read_if_permitted("ntpdata")
    if not fine:
        more["activity"] = reader.read_if_permitted("activity")
        more["select"] = reader.read_if_permitted("selectdata")
        if reader.transport is Transport.UNIX_SOCKET:
            more["auth"] = reader.read_if_permitted("authdata")
    known = {name: value for name, value in more.items() if value is not None}
    return Clock(tracking, read_at, sources, **known)


class _Reader:
    """Reads reports of one chronyd until a time is over."""

    def __init__(self, address: str | None, seconds: float, retries: int) -> None:
        self._address: str | None = address
        self._seconds = seconds
        self._retries = retries
        self._end = monotonic() + seconds
        self._places = 1 if address is not None else _PLACES
        self._connect(seconds)

    def _connect(self, left: float) -> None:
        waits = Waits(left, self._retries, self._places)
        self._renew_at = monotonic() + _RENEWED * self._seconds
        self._connection = pychrony.ChronyConnection(
            self._address, timeout=waits.timeout, retries=waits.retries, limit=left
        )

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @property
    def transport(self) -> Transport | None:
        return self._connection.transport

    def read(self, report: str) -> Any:
        now = monotonic()
        if now > self._renew_at:
            self._connection.close()
            # The place where chronyd answered, if it was found.
            self._address = str(self._connection.address or self._address or "") or None
            self._places = 1 if self._address is not None else _PLACES
            self._connect(max(self._end - now, 0.01))
        return getattr(self._connection, _METHODS[report])()

    def read_if_permitted(self, report: str) -> Any:
        """Read a report that only explains: without it, the check is as good."""
        if monotonic() >= self._end:
            return None
        try:
            return self.read(report)
        except ChronyConnectionError:
            self._end = 0.0  # it would not answer the next one either
        except ChronyError:
            pass
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
    """Judge many clocks by their ``tracking`` alone, and return the worst first."""
    at_once = min(concurrency, len(addresses))
    # Should nobody answer, each has its waits in as many rounds as are needed.
    rounds = -(-len(addresses) // at_once)
    waits = Waits(seconds, retries, rounds)
    try:
        results = pychrony.query_many(
            addresses,
            concurrency=at_once,
            timeout=waits.timeout,
            retries=waits.retries,
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
