"""Where a figure of a clock is worth a colour: the default limits of pychrony.check."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pychrony import SourceState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pychrony import Source, TrackingStatus

FINE, WARNING, CRITICAL = range(3)
NAMES = ("ok", "warning", "critical")


class _Limit(NamedTuple):
    """Above which value it is WARNING, and CRITICAL."""

    warning: float
    critical: float


# Seconds, but of the stratum.
_LIMITS = {
    "offset": _Limit(0.05, 0.2),
    "error_bound": _Limit(0.1, 0.5),
    "stratum": _Limit(9, float("inf")),
}


def states(tracking: TrackingStatus, sources: Sequence[Source]) -> dict[str, int]:
    """Return the state of each figure of a clock, by its name in ``_chronyc.clock``."""
    bound = tracking.error_bound
    if bound is None:
        # Local mode is meant, but no source is followed.
        return {"source": WARNING if tracking.is_local() else CRITICAL}
    values = {
        "offset": abs(tracking.offset),
        "error_bound": bound,
        "stratum": tracking.stratum,
    }
    found = {name: _state(value, _LIMITS[name]) for name, value in values.items()}
    usable = sum(source.is_usable() for source in sources)
    found["usable"] = FINE if usable > 1 else WARNING if usable else CRITICAL
    return found


def source_state(source: Source) -> int:
    """Return the state of a source, by what the selection made of it."""
    if source.is_usable():
        return FINE
    return WARNING if source.state is SourceState.JITTERY else CRITICAL


def _state(value: float, limit: _Limit) -> int:
    return (value > limit.warning) + (value > limit.critical)
