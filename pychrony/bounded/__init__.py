"""A bounded clock: an interval that holds true time.

chronyd's report ``tracking`` gives an interval at the time of the report. It is
carried on by CLOCK_MONOTONIC_RAW and not by CLOCK_REALTIME: chronyd may select
a worse source after the report and slew CLOCK_REALTIME by 83 ms a second, but
nothing slews, steps or sets CLOCK_MONOTONIC_RAW. The explanation is in
docs/explanation/bounded.rst.
"""

from pychrony.exceptions import ClockUnboundError

from ._clock import BoundedClock
from ._time import BoundedTime, BoundStatus

__all__ = ["BoundStatus", "BoundedClock", "BoundedTime", "ClockUnboundError"]
