"""The factories of records."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import pychrony
from pychrony import testing
from pychrony.testing import (
    make_ntp_data,
    make_rtc_data,
    make_source,
    make_source_stats,
    make_tracking,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tracking", "TrackingStatus"),
        ("source", "Source"),
        ("source_stats", "SourceStats"),
        ("rtc_data", "RTCData"),
        ("select_data", "SelectData"),
        ("activity", "Activity"),
        ("auth_data", "AuthData"),
        ("ntp_data", "NTPData"),
        ("server_stats", "ServerStats"),
        ("smoothing", "Smoothing"),
    ],
)
def test_factory(name: str, kind: str) -> None:
    make, record = getattr(testing, f"make_{name}"), getattr(pychrony, kind)
    defaults = getattr(testing, f"{name.replace('_', '').upper()}_DEFAULTS")
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
    assert make(ref_time=1705320000.3).ref_time_ns == 1705320000_299_999_952
    assert make(ref_time=float("nan")).ref_time_ns == -1
