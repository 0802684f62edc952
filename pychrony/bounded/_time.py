"""What a bounded clock returns: an interval that holds true time."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import NoReturn

SECOND = 10**9


class BoundStatus(Enum):
    """What chronyd does with the clock; the interval is right in both cases."""

    SYNCHRONIZED = 1
    """chronyd follows its sources, and its measurements arrive."""
    FREE_RUNNING = 2
    """Measurements or reports of chronyd are overdue, and the interval grows."""


class BoundedTime(NamedTuple):
    """An interval that holds true time.

    It is a tuple of three items. Intervals that overlap have no order, so ``<`` and
    ``>`` raise TypeError: use :meth:`is_before` and :meth:`is_after`.

    Attributes:
        earliest: true time is not before this [ns since 1970, UTC].
        latest: true time is not after this [ns since 1970, UTC].
        status: whether chronyd follows its sources.
    """

    earliest: int
    latest: int
    status: BoundStatus

    def is_before(self, other: BoundedTime | int) -> bool:
        """Whether this was certainly before ``other``, an interval or ns since 1970."""
        return self.latest < (other if isinstance(other, int) else other.earliest)

    def is_after(self, other: BoundedTime | int) -> bool:
        """Whether this was certainly after ``other``, an interval or ns since 1970."""
        return self.earliest > (other if isinstance(other, int) else other.latest)

    @property
    def error_bound(self) -> float:
        """The most that the middle of the interval can be wrong [s]."""
        return -((self.earliest - self.latest) // 2) / SECOND

    def datetime(self) -> tuple[datetime, datetime]:
        """Return both ends in UTC, rounded outwards to whole microseconds."""
        return _datetime(self.earliest // 1000), _datetime(-(-self.latest // 1000))

    def __lt__(self, other: object) -> NoReturn:
        raise _no_order()

    def __le__(self, other: object) -> NoReturn:
        raise _no_order()

    def __gt__(self, other: object) -> NoReturn:
        raise _no_order()

    def __ge__(self, other: object) -> NoReturn:
        raise _no_order()


def _no_order() -> TypeError:
    return TypeError(
        "intervals that overlap have no order: use is_before() or is_after(), or sort "
        "by earliest or latest"
    )


def _datetime(microseconds: int) -> datetime:
    from datetime import datetime, timedelta, timezone

    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    try:
        return epoch + timedelta(microseconds=microseconds)
    except OverflowError:  # a clock with a skew of 10**6 ppm, after years
        end = datetime.max if microseconds > 0 else datetime.min
        return end.replace(tzinfo=timezone.utc)
