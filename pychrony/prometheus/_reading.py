"""One scrape of one chronyd: what is asked in which order, and what came of it.

The order, the time limits and the meaning of errors are the same for the
collector, which blocks, and for the exporter, which awaits. So :meth:`Plan.steps`
is a generator that yields the name of a method of the connection and is sent
what that method returns, or thrown the error that it raises.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pychrony

from . import _metrics
from ._poller import Connection, Poller

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable

_log = logging.getLogger("pychrony.prometheus")

# Less is not enough to ask anybody, and no call may have more [s].
_SHORTEST, _LONGEST = 0.001, 86_400

OPEN = "open"


@dataclass
class Reading:
    """What a scrape found.

    Attributes:
        up: whether a chronyd answered.
        found: what the methods returned, by the names of the reports.
        outcomes: how the reading of each report went, by name.
        errors: in the order in which they came.
    """

    up: bool = False
    found: dict[str, Any] = field(default_factory=dict[str, Any])
    outcomes: dict[str, _metrics.Outcome] = field(
        default_factory=dict[str, _metrics.Outcome]
    )
    errors: list[pychrony.ChronyError] = field(
        default_factory=list[pychrony.ChronyError]
    )


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
            # Each retry waits twice as long as the one before. They shall end
            # before the limit does, as their error knows more of the reason.
            if 0 <= retries < 99:
                timeout = min(timeout, 0.9 * half / (2 ** (retries + 1) - 1))
        self._half = half or float("inf")
        self.address = address
        self.options: dict[str, Any] = {
            "timeout": timeout,
            "retries": retries,
            "limit": half,
        }

    def steps(self) -> Generator[str, Any, Reading]:
        """Yield ``OPEN`` and the methods to call; return what they found."""
        reading = Reading()
        for name in self.reports:
            reading.outcomes[name] = _metrics.Outcome(name, False, None)
        begin = perf_counter()
        try:
            yield OPEN
            if "tracking" not in self.reports:
                # Whether anybody answers cannot be seen from a report that fails.
                yield "get_tracking"
                reading.up = True
            for name in self.reports:
                before = perf_counter()
                if before - begin > self._half:
                    _log.info("no time is left for %s and the reports after it", name)
                    break
                success = False
                try:
                    reading.found[name] = yield _metrics.REPORTS[name].method
                    success = True
                except pychrony.ChronyConnectionError:
                    raise
                except pychrony.ChronyError as error:
                    _note(reading, error)
                finally:
                    seconds = perf_counter() - before
                    reading.outcomes[name] = _metrics.Outcome(name, success, seconds)
                reading.up = True
        except pychrony.ChronyError as error:
            _note(reading, error)
        return reading


def _note(reading: Reading, error: pychrony.ChronyError) -> None:
    _log.info("%s", error)
    reading.errors.append(error)


def read(plan: Plan) -> Reading:
    """Read it over a blocking connection."""
    connection = pychrony.ChronyConnection(plan.address, **plan.options)
    steps = plan.steps()
    try:
        step = next(steps)
        while True:
            call: Callable[[], Any] = (
                connection.__enter__ if step is OPEN else getattr(connection, step)
            )
            try:
                found = call()
            except pychrony.ChronyError as error:
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as end:
        reading: Reading = end.value
        return reading
    finally:
        steps.close()
        connection.close()


async def read_async(plan: Plan, poller: Poller) -> Reading:
    """Read it over a connection of asyncio."""
    connection = Connection(poller, plan.address, **plan.options)
    steps = plan.steps()
    try:
        step = next(steps)
        while True:
            call: Callable[[], Any] = (
                connection.__aenter__ if step is OPEN else getattr(connection, step)
            )
            try:
                found = await call()
            except pychrony.ChronyError as error:
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as end:
        reading: Reading = end.value
        return reading
    finally:
        steps.close()
        await connection.close()
