"""One chronyd, read again and again: what a live view and a plain list show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pychrony import ChronyError, ChronyPermissionError

if TYPE_CHECKING:
    from pychrony import (
        AsyncChronyConnection,
        SelectData,
        SelectState,
        Source,
        TrackingStatus,
    )


@dataclass(frozen=True)
class Reading:
    """The clock and its sources at one moment.

    Attributes:
        tracking: the state of the clock.
        sources: its sources.
        selection: what became of each of them, in the same order; empty where
            they changed meanwhile, ``None`` where chronyd does not tell us.
    """

    tracking: TrackingStatus
    sources: list[Source]
    selection: list[SelectState] | None


Readings = AsyncGenerator[Reading | ChronyError, None]


async def follow(
    connection: AsyncChronyConnection, interval: float, most: int | None = None
) -> Readings:
    """Read every ``interval`` seconds, ``most`` times, and close the connection.

    A chronyd that cannot be read is an error among the results: it may come
    back. Close the generator (``contextlib.aclosing``) where it is not taken to
    the end.
    """
    permitted = True
    number = 0
    try:
        while True:
            try:
                reading = await _read(connection, permitted)
            except ChronyError as error:
                permitted = True  # perhaps over another socket next time
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


async def _read(connection: AsyncChronyConnection, permitted: bool) -> Reading:
    tracking = await connection.get_tracking()
    sources = await connection.get_sources()
    selection = None
    if permitted:
        with suppress(ChronyPermissionError):
            selection = _states(sources, await connection.get_select_data())
    return Reading(tracking, sources, selection)


def _states(sources: list[Source], selection: list[SelectData]) -> list[SelectState]:
    # The two lists are of two moments. A reference clock has no address there.
    if len(sources) != len(selection) or any(
        two.address not in ("", one.address) for one, two in zip(sources, selection)
    ):
        return []
    return [one.state for one in selection]
