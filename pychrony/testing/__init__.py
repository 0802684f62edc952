"""Test your monitoring of clocks without a clock.

Factories make records, for code that is given one::

    from pychrony.testing import make_tracking

    def test_alarm():
        assert alarm(make_tracking(offset=0.5))

A ``ScriptedDaemon`` answers like chronyd, and misbehaves on request, for code
that reads one::

    from pychrony.testing import ScriptedDaemon, faults

    def test_dead_daemon():
        with ScriptedDaemon(misbehave=faults.silent) as daemon:
            assert my_check(daemon.address) == "no answer"

Nothing here needs pytest.
"""

from . import faults
from ._daemon import ScriptedDaemon
from ._factories import (
    RTCDATA_DEFAULTS,
    SOURCE_DEFAULTS,
    SOURCESTATS_DEFAULTS,
    TRACKING_DEFAULTS,
    make_rtc_data,
    make_source,
    make_source_stats,
    make_tracking,
)
from ._wire import Request

__all__ = [
    "RTCDATA_DEFAULTS",
    "SOURCESTATS_DEFAULTS",
    "SOURCE_DEFAULTS",
    "TRACKING_DEFAULTS",
    "Request",
    "ScriptedDaemon",
    "faults",
    "make_rtc_data",
    "make_source",
    "make_source_stats",
    "make_tracking",
]
