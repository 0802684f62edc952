"""The records and enums, and what published pychrony 2.x promised of them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from enum import Enum
from typing import Any

import pytest

import pychrony
from pychrony import FieldContent, LeapStatus, SourceState, Transport, models
from pychrony._serialize import UNITS as UNITS_IN_JSON
from pychrony.models import REPORTS, refid_name
from pychrony.testing import (
    ALL_COMMANDS,
    ScriptedDaemon,
    make_rtc_data,
    make_smoothing,
    make_source,
    make_source_stats,
    make_tracking,
)

# Names, order and types of published 2.0.3.
PUBLISHED: dict[Any, str] = {
    pychrony.TrackingStatus: (
        "reference_id: int, reference_id_name: str, reference_ip: str, stratum: "
        "int, leap_status: LeapStatus, ref_time: float, offset: float, "
        "last_offset: float, rms_offset: float, frequency: float, residual_freq: "
        "float, skew: float, root_delay: float, root_dispersion: float, "
        "update_interval: float"
    ),
    pychrony.Source: (
        "address: str, poll: int, stratum: int, state: SourceState, mode: "
        "SourceMode, flags: int, reachability: int, last_sample_ago: int, "
        "orig_latest_meas: float, latest_meas: float, latest_meas_err: float"
    ),
    pychrony.SourceStats: (
        "reference_id: int, address: str, samples: int, runs: int, span: int, "
        "std_dev: float, resid_freq: float, skew: float, offset: float, "
        "offset_err: float"
    ),
    pychrony.RTCData: (
        "ref_time: float, samples: int, runs: int, span: int, offset: float, "
        "freq_offset: float"
    ),
}


UNITS = {
    FieldContent.TIME: "s",
    FieldContent.INTERVAL_LOG2_SECONDS: "log2 s",
    FieldContent.INTERVAL_SECONDS: "s",
    FieldContent.OFFSET_SECONDS: "s",
    FieldContent.MEASURE_SECONDS: "s",
    FieldContent.OFFSET_PPM: "ppm",
    FieldContent.MEASURE_PPM: "ppm",
    FieldContent.OFFSET_PPM_PER_SECOND: "ppm/s",
    FieldContent.LENGTH_BITS: "bit",
    FieldContent.LENGTH_BYTES: "byte",
}


# Ours in the keys of JSON.
JSON_UNITS = {
    None: "",
    "seconds": "s",
    "log2_seconds": "log2 s",
    "ppm": "ppm",
    "ppm_per_second": "ppm/s",
    "bits": "bit",
    "bytes": "byte",
}


def units(record: Any) -> dict[str, str]:
    """The units of the attributes of a record, as far as this libchrony has them."""
    with ScriptedDaemon(
        open_commands=ALL_COMMANDS, rtc_data=make_rtc_data(), smoothing=make_smoothing()
    ) as daemon:
        contents = {
            name: value.content
            for one in pychrony.get_report(REPORTS[record], daemon.address)
            for name, value in one.items()
        }
    found = {
        field.name: UNITS.get(contents[name], "")
        for field in dataclasses.fields(record)
        for name in field.metadata.get("names", ())
        if name in contents
    }
    if "ref_time_ns" in found:
        found |= {"ref_time": "s", "ref_time_ns": "ns"}
    return found


def records() -> list[Any]:
    public = [vars(models)[name] for name in models.__all__]
    return [one for one in public if dataclasses.is_dataclass(one)]


@pytest.mark.parametrize("record", records())
def test_docstring_has_each_field_and_its_unit(record: Any) -> None:
    attributes = (inspect.getdoc(record) or "").partition("Attributes:\n")[2]
    documented = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.M)
    assert [name for name, _ in documented] == [
        field.name for field in dataclasses.fields(record)
    ]
    shown = {
        name: "".join(re.findall(r"\[(.+?)(?: since [^]]+)?\]", text))
        for name, text in documented
    }
    if record in REPORTS:
        assert shown == shown | units(record)
        in_json = {name: JSON_UNITS[UNITS_IN_JSON.get(name)] for name in shown}
        assert shown == in_json | {name: "ns" for name in shown if name[-3:] == "_ns"}


@pytest.mark.parametrize("record", PUBLISHED)
def test_published_fields_come_first_and_are_enough(record: Any) -> None:
    published = PUBLISHED[record].split(", ")
    kinds: list[Any] = [one.type for one in dataclasses.fields(record)]
    names = [one.name for one in dataclasses.fields(record)]
    fields = [f"{name}: {kind.__name__}" for name, kind in zip(names, kinds)]
    assert fields[: len(published)] == published
    instance = record(
        *(
            next(iter(kind)) if issubclass(kind, Enum) else kind(1)
            for kind in kinds[: len(published)]
        )
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        instance.offset = 1.0
    assert vars(instance)


@pytest.mark.parametrize(
    ("enum", "members"),
    [
        (LeapStatus, "NORMAL INSERT DELETE UNSYNC"),
        (
            SourceState,
            "SELECTED NONSELECTABLE FALSETICKER JITTERY UNSELECTED SELECTABLE",
        ),
        (pychrony.SourceMode, "CLIENT PEER REFCLOCK"),
    ],
)
def test_published_enums(enum: type[Enum], members: str) -> None:
    assert [member.name for member in enum] == members.split()
    assert [member.value for member in enum] == list(range(len(list(enum))))


def test_every_letter_of_chronyc_is_a_state() -> None:
    letters = "NsMd~wSOTxWPUDLr?+*"  # chronyc(1), "selectdata", and its source
    assert "".join(chr(state.value) for state in pychrony.SelectState) == letters
    assert not any(state.name.startswith("UNKNOWN_") for state in pychrony.SelectState)


def test_an_unknown_number_becomes_a_member() -> None:
    member = LeapStatus(77)
    assert (member.name, member.value) == ("UNKNOWN_77", 77)
    assert member is LeapStatus(77)
    assert member != LeapStatus.UNSYNC
    assert isinstance(member, LeapStatus)
    assert pickle.loads(pickle.dumps(member)) is member
    assert copy.deepcopy(member) is member
    assert len(LeapStatus) == 4
    for nonsense in (-1, 2**32, 1.5, "NORMAL", True, None):
        if nonsense is True:  # equal to 1, which is a member
            continue
        with pytest.raises(ValueError, match="is not a valid LeapStatus"):
            LeapStatus(nonsense)


def test_values_of_transport() -> None:
    assert Transport("unix_socket") is Transport.UNIX_SOCKET
    assert Transport("command_port") is Transport.COMMAND_PORT


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0x47505300, "GPS"),
        (0x50505330, "PPS0"),
        (0xC0000201, "192.0.2.1"),
        (0x7F7F0101, "127.127.1.1"),
        (0xE9E9E9E9, "233.233.233.233"),
        (0, ""),
    ],
)
def test_reference_id_as_text(number: int, name: str) -> None:
    assert refid_name(number) == name


@pytest.mark.parametrize(
    ("changes", "synchronised", "local"),
    [
        ({}, True, False),
        ({"reference_id": 0, "reference_ip": "", "stratum": 0}, False, False),
        ({"reference_id": 0x7F7F0101, "reference_ip": ""}, False, True),
        ({"reference_id": 0x7F7F0101, "reference_ip": "127.127.1.1"}, True, False),
        ({"reference_id": 0x47505300, "reference_ip": ""}, True, False),
        ({"reference_id": 0, "reference_ip": "192.0.2.1"}, True, False),
        ({"stratum": 16}, False, False),
    ],
)
def test_synchronised_as_waitsync_has_it(
    changes: dict[str, object], synchronised: bool, local: bool
) -> None:
    tracking = make_tracking(**changes)
    assert tracking.is_synchronized() is synchronised
    assert tracking.is_local() is local
    assert (tracking.error_bound is not None) is synchronised


def test_error_bound() -> None:
    tracking = make_tracking(offset=-0.5, root_dispersion=0.25, root_delay=0.125)
    assert tracking.error_bound == 0.5 + 0.25 + 0.0625


def test_records_equal_only_their_like() -> None:
    assert make_tracking() == make_tracking()
    assert make_tracking() != make_tracking(stratum=9)
    assert make_tracking() != "tracking"


def test_predicates_of_records() -> None:
    assert make_tracking(leap_status=LeapStatus.DELETE).is_leap_pending()
    assert make_tracking(leap_status=LeapStatus.INSERT).is_leap_pending()
    assert not make_tracking(leap_status=LeapStatus.UNSYNC).is_leap_pending()
    assert not make_source(reachability=0).is_reachable()
    assert make_source().is_selected()
    usable = [state for state in SourceState if make_source(state=state).is_usable()]
    assert usable == [
        SourceState.SELECTED,
        SourceState.UNSELECTED,
        SourceState.SELECTABLE,
    ]
    assert make_source_stats(samples=4).has_sufficient_samples()
    assert not make_source_stats(samples=4).has_sufficient_samples(5)
    assert make_rtc_data(samples=1).is_calibrated()
    assert not make_rtc_data(samples=0).is_calibrated()


def errors() -> list[type[pychrony.ChronyError]]:
    return [
        kind
        for kind in vars(pychrony).values()
        if isinstance(kind, type) and issubclass(kind, pychrony.ChronyError)
    ]


@pytest.mark.parametrize("kind", errors())
def test_errors_survive_a_trip_to_another_process(
    kind: type[pychrony.ChronyError],
) -> None:
    error = kind("what happened")
    assert (error.message, error.error_code) == ("what happened", None)
    assert str(error) == "what happened"
    error.error_code = 5
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == "what happened (error code: 5)"


def test_tree_of_errors() -> None:
    assert issubclass(pychrony.ChronyTimeoutError, TimeoutError)
    assert issubclass(pychrony.ChronyTimeoutError, pychrony.ChronyConnectionError)
    assert issubclass(pychrony.ChronyAddressError, ValueError)
    assert issubclass(pychrony.ChronyUsageError, RuntimeError)
    assert not issubclass(
        pychrony.ChronyPermissionError, pychrony.ChronyConnectionError
    )
    assert pychrony.ChronyDataError("text", 14).error_code == 14
