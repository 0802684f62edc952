"""One scrape of one chronyd, as a request generator.

So it is the same for the collector, which blocks, and for the exporter, which runs many
scrapes in one event loop.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cache, partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pychrony
from pychrony._base import BaseConnection, just_open
from pychrony._queries import TRACKING, query_for, read_lists

from . import _metrics

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from pychrony._waiting import RequestGenerator

_log = logging.getLogger("pychrony.prometheus")

# The least and the greatest limit of a call [s].
_SHORTEST, _LONGEST = 0.001, 86_400


@dataclass
class Reading:
    """The result of a scrape.

    Attributes:
        up: whether a chronyd replied.
        silent: whether none replied though it had all of the planned time. A late
            process cannot tell.
        found: the reports by name.
        outcomes: the result of reading each report, by name.
        errors: in the order in which they happened.
    """

    up: bool = False
    silent: bool = False
    found: dict[str, Any] = field(default_factory=dict[str, Any])
    outcomes: dict[str, _metrics.Outcome] = field(
        default_factory=dict[str, _metrics.Outcome]
    )
    errors: list[pychrony.ChronyError] = field(
        default_factory=list[pychrony.ChronyError]
    )

    def add(self, found: Mapping[str, Any], seconds: float) -> None:
        """Add reports that were read together, or their errors."""
        for name, one in found.items():
            success = not isinstance(one, pychrony.ChronyError)
            self.outcomes[name] = _metrics.Outcome(name, success, seconds)
            if success:
                self.found[name] = one
            elif one not in self.errors:
                self.note(one)

    def note(self, error: pychrony.ChronyError) -> None:
        """Keep an error without its traceback, which would keep objects alive."""
        _log.info("%s", error)
        self.errors.append(error.with_traceback(None))


class Plan:
    """What to read from a chronyd, and how long to wait for it.

    The arguments and errors are those of :class:`Collector`.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | None,
        *,
        timeout: float,
        retries: int,
        reports: Iterable[str],
        budget: float | None,
    ) -> None:
        self.reports = tuple(reports)
        for name in self.reports:
            if name not in _metrics.REPORTS:
                raise ValueError(
                    f"{name!r} is none of the reports {', '.join(_metrics.REPORTS)}"
                )
        if budget is not None and not budget >= _SHORTEST:
            raise ValueError(f"budget {budget!r} is less than {_SHORTEST} s")
        half = None
        if budget is not None:
            half = min(budget / 2, _LONGEST)
            # The timeout doubles at each retry. All retries should end before the
            # limit, as their error says more about the cause.
            if 0 <= retries < 99:
                timeout = min(timeout, 0.9 * half / (2 ** (retries + 1) - 1))
        self._half = half or inf
        self._address = address
        self._options: dict[str, Any] = {
            "timeout": timeout,
            "retries": retries,
            "limit": half,
        }

    def requests(self) -> RequestGenerator[Reading]:
        """Return the requests of a scrape, over a new connection.

        Raises:
            ChronyAddressError: ``address`` is not valid.
            ValueError: ``timeout`` or ``retries`` is.
        """
        connection = _Connection(self._address, **self._options)
        return connection.scrape(self.reports, self._half)


class _Connection(BaseConnection):
    """A connection for one scrape."""

    def scrape(
        self, reports: tuple[str, ...], half: float
    ) -> RequestGenerator[Reading]:
        reading = Reading()
        for name in reports:
            reading.outcomes[name] = _metrics.Outcome(name, False, None)
        begin = perf_counter()
        try:
            yield from self._requests(just_open)
            if "tracking" not in reports:
                # A report that fails does not show whether a chronyd replies.
                yield from self._requests(TRACKING)
                reading.up = True
            for names, query in _queries(reports):
                before = perf_counter()
                if before - begin > half:
                    _log.info("no time is left for %s", ", ".join(names))
                    break
                try:
                    found = yield from self._requests(query)
                    if query.func is not read_lists:
                        found = {names[0]: found}
                except pychrony.ChronyError as error:
                    self._drop()  # no session survives an error
                    found = dict.fromkeys(names, error)
                reading.add(found, perf_counter() - before)
                if isinstance(found[names[0]], pychrony.ChronyConnectionError):
                    break
                reading.up = True
        except pychrony.ChronyError as error:
            reading.note(error)
        finally:
            self._drop()
        punctual = perf_counter() - begin < half
        reading.silent = (
            not reading.up and punctual and isinstance(reading.errors[-1], TimeoutError)
        )
        return reading


@cache
def _queries(
    reports: tuple[str, ...],
) -> list[tuple[tuple[str, ...], partial[RequestGenerator[Any]]]]:
    """Return the queries for these reports; lists of sources are read together."""
    lists = tuple(name for name in reports if _metrics.REPORTS[name].source)
    together = partial(read_lists, reports=lists)
    return [
        (lists, together) if name in lists else ((name,), query_for(name))
        for name in reports
        if name not in lists[1:]
    ]
