"""Reads one chronyd repeatedly, for the live view and the plain output."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pychrony import ChronyError, ChronyPermissionError
from pychrony.check._clock import Clock, matching
from pychrony.check._judge import Limits, Verdict, judge
from pychrony.check._states import OK, WARNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pychrony import (
        AsyncChronyConnection,
        SelectData,
        Source,
        SourceStats,
        TrackingStatus,
    )

_LIMITS = Limits()


@dataclass(frozen=True)
class Reading:
    """The clock and its sources at one time.

    Attributes:
        tracking: the state of the clock.
        sources: its sources.
        selection: ``selectdata`` of each source, in the same order; empty if the
            sources changed meanwhile, ``None`` if it is not permitted.
        stats: ``sourcestats`` of each source, in the same order; empty if the
            sources changed meanwhile, or if it was not read.
        read_at: when, by the clock of this machine [s since 1970].
    """

    tracking: TrackingStatus
    sources: Sequence[Source]
    selection: Sequence[SelectData] | None
    stats: Sequence[SourceStats] = ()
    read_at: float = field(default_factory=time.time)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict of the check with its default limits."""
        return judge("", self._clock, _LIMITS)

    @cached_property
    def states(self) -> dict[str, int]:
        """The state of each item of the check, by its name."""
        return {one.item.name: one.state for one in self.verdict.findings}

    @property
    def wrong(self) -> str:
        """What is wrong with the clock; empty if nothing is."""
        return ", ".join(one.wrong for one in self.verdict.wrong)

    def source_state(self, index: int) -> int:
        """Return the state of a source: OK if it is usable, or has ``noselect``."""
        if self.sources[index].is_usable() or self._clock.is_ignored(index):
            return OK
        return max(WARNING, self.states.get("usable_sources", OK))

    @cached_property
    def _clock(self) -> Clock:
        select = self.selection or ()
        return Clock(self.tracking, self.read_at, self.sources, select=select)


Readings = AsyncGenerator[Reading | ChronyError, None]


def _no() -> bool:
    return False


async def follow(
    connection: AsyncChronyConnection,
    interval: float,
    most: int | None = None,
    *,
    with_stats: Callable[[], bool] = _no,
) -> Readings:
    """Read every ``interval`` seconds, ``most`` times, and close the connection.

    ``with_stats`` is called before each reading and says whether it needs
    ``sourcestats``. A failed reading yields its error. Close the generator
    (``contextlib.aclosing``) if you do not iterate to the end.
    """
    permitted = True
    number = 0
    try:
        while True:
            try:
                reading = await _read(connection, permitted, with_stats())
            except ChronyError as error:
                permitted = True  # the next session may be over another socket
                yield error
            else:
                permitted = reading.selection is not None
                yield reading
            number += 1
            if number == most:
                return
            await asyncio.sleep(interval)
    finally:
        await connection.close()


async def _read(
    connection: AsyncChronyConnection, permitted: bool, with_stats: bool
) -> Reading:
    tracking = await connection.get_tracking()
    sources = await connection.get_sources()
    selection: Sequence[SelectData] | None = None
    stats: Sequence[SourceStats] = ()
    if permitted:
        with suppress(ChronyPermissionError):
            selection = matching(sources, await connection.get_select_data())
    if with_stats:
        with suppress(ChronyPermissionError):
            stats = matching(sources, await connection.get_source_stats())
    return Reading(tracking, sources, selection, stats)
