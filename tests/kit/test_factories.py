"""The factories of records."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from pychrony import (
    Activity,
    AuthData,
    NTPData,
    RTCData,
    SelectData,
    ServerStats,
    Smoothing,
    Source,
    SourceStats,
    TrackingStatus,
)
from pychrony.testing import (
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


@pytest.mark.parametrize(
    ("make", "defaults", "record"),
    [
        (make_tracking, TRACKING_DEFAULTS, TrackingStatus),
        (make_source, SOURCE_DEFAULTS, Source),
        (make_source_stats, SOURCESTATS_DEFAULTS, SourceStats),
        (make_rtc_data, RTCDATA_DEFAULTS, RTCData),
        (make_select_data, SELECTDATA_DEFAULTS, SelectData),
        (make_activity, ACTIVITY_DEFAULTS, Activity),
        (make_auth_data, AUTHDATA_DEFAULTS, AuthData),
        (make_ntp_data, NTPDATA_DEFAULTS, NTPData),
        (make_server_stats, SERVERSTATS_DEFAULTS, ServerStats),
        (make_smoothing, SMOOTHING_DEFAULTS, Smoothing),
    ],
)
def test_factory(make: Any, defaults: dict[str, Any], record: Any) -> None:
    made = make()
    assert type(made) is record
    assert {name: getattr(made, name) for name in defaults} == defaults
    fields = dataclasses.fields(record)
    # What has a default of its own follows from the others.
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    assert needed <= set(defaults) <= {field.name for field in fields}, (
        "the defaults of each field stand in pychrony/testing/_factories.py"
    )
    for name in defaults:
        assert getattr(make(**{name: 1}), name) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, next(iter(defaults)), 0)
    with pytest.raises(TypeError):
        make(nonsense=1)


def test_factories_make_what_2_0_3_made() -> None:
    tracking = make_tracking()
    assert tracking.is_synchronized()
    assert tracking.ref_time == 1705320000.123456789
    assert (tracking.reference_id, tracking.stratum) == (0x7F000001, 2)
    assert make_source().is_selected() and make_source().is_reachable()
    assert make_source_stats().has_sufficient_samples()
    assert make_rtc_data().is_calibrated()


@pytest.mark.parametrize("make", [make_tracking, make_rtc_data, make_ntp_data])
def test_ref_time_follows_from_nanoseconds_and_back(make: Any) -> None:
    assert make(ref_time_ns=1705320000123456789).ref_time == 1705320000.1234567
    assert make(ref_time=2.5).ref_time_ns == 2_500_000_000
    both = make(ref_time=1.0, ref_time_ns=5)
    assert (both.ref_time, both.ref_time_ns) == (1.0, 5)


def test_importing_it_does_not_import_pytest() -> None:
    code = "import sys, pychrony.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
