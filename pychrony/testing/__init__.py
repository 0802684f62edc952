"""Test programs that read clocks, without a chronyd.

Factories make records, for code that takes one::

    from pychrony.testing import make_tracking

    def test_alarm():
        assert alarm(make_tracking(offset=0.5))

A ``ScriptedDaemon`` replies like chronyd, or with a fault, for code that reads
chronyd::

    from pychrony.testing import ScriptedDaemon, faults

    def test_dead_daemon():
        with ScriptedDaemon(misbehave=faults.silent) as daemon:
            assert my_check(daemon.address) == "no answer"

A ``RecordedDaemon`` replays what ``python -m pychrony.testing record`` has recorded of
a real chronyd. pytest is not needed, but finds the fixtures of
``pychrony.testing.plugin``.
"""

from . import faults
from ._factories import (
    ACTIVITY_DEFAULTS,
    AUTHDATA_DEFAULTS,
    NTPDATA_DEFAULTS,
    RTCDATA_DEFAULTS,
    SELECTDATA_DEFAULTS,
    SERVERSTATS_DEFAULTS,
    SMOOTHING_DEFAULTS,
    SOURCE_DEFAULTS,
    SOURCESTATS_DEFAULTS,
    TRACKING_DEFAULTS,
    make_activity,
    make_auth_data,
    make_ntp_data,
    make_rtc_data,
    make_select_data,
    make_server_stats,
    make_smoothing,
    make_source,
    make_source_stats,
    make_tracking,
)
from ._recording import RecordedDaemon
from ._reports import ALL_COMMANDS, DEFAULT_OPEN_COMMANDS
from ._scripted import ScriptedDaemon
from ._wire import Request

__all__ = [
    "ACTIVITY_DEFAULTS",
    "ALL_COMMANDS",
    "AUTHDATA_DEFAULTS",
    "DEFAULT_OPEN_COMMANDS",
    "NTPDATA_DEFAULTS",
    "RTCDATA_DEFAULTS",
    "SELECTDATA_DEFAULTS",
    "SERVERSTATS_DEFAULTS",
    "SMOOTHING_DEFAULTS",
    "SOURCESTATS_DEFAULTS",
    "SOURCE_DEFAULTS",
    "TRACKING_DEFAULTS",
    "RecordedDaemon",
    "Request",
    "ScriptedDaemon",
    "faults",
    "make_activity",
    "make_auth_data",
    "make_ntp_data",
    "make_rtc_data",
    "make_select_data",
    "make_server_stats",
    "make_smoothing",
    "make_source",
    "make_source_stats",
    "make_tracking",
]
