"""The records as dictionaries of plain values: for JSON, CSV and databases."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum, Flag
from math import isfinite

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The unit of each attribute that has one. It is the same in all records.
_UNITS = {
    "seconds": (
        *("ref_time", "offset", "last_offset", "rms_offset", "root_delay"),
        *("root_dispersion", "update_interval", "last_sample_ago", "latest_meas"),
        *("orig_latest_meas", "latest_meas_err", "span", "std_dev", "offset_err"),
        *("low_limit", "high_limit", "last_ke_ago", "peer_delay", "peer_dispersion"),
        *("response_time", "timestamp_span", "last_update_ago", "remaining_time"),
    ),
    "ppm": ("frequency", "residual_freq", "skew", "resid_freq", "freq_offset"),
    "ppm_per_second": ("wander",),
    "log2_seconds": ("poll", "precision"),
    "bits": ("key_length",),
    "bytes": ("cookie_length",),
}
UNITS = {name: unit for unit, names in _UNITS.items() for name in names}

# The keys of what is no field: properties and methods, where a record has them.
COMPUTED = {
    "error_bound": "error_bound_seconds",
    "is_synchronized": "synchronized",
    "is_local": "local",
}

# The age that chronyd reports for "never".
_NEVER = 0xFFFFFFFF
_AGES = ("last_sample_ago", "last_ke_ago")

# chronyc's word where libchrony's is misleading.
_WORDS = {"unselected": "combined"}


def to_dict(record: Any, name_of: Callable[[int], str]) -> dict[str, Any]:
    """Return a record as a dictionary of plain values.

    ``name_of`` returns the name for a reference ID, for reference clocks.
    """
    found: dict[str, Any] = {}
    values = {one.name: getattr(record, one.name) for one in fields(record)}
    if "address" in values:
        # A reference clock has no address in some reports.
        found["name"] = values["address"] or name_of(values.get("reference_id", 0))
    for name, value in values.items():
        unit = UNITS.get(name)
        found[f"{name}_{unit}" if unit else name] = _plain(name, value)
    for name, key in COMPUTED.items():
        if hasattr(record, name):
            value = getattr(record, name)
            found[key] = value() if callable(value) else value
    return found


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Flag):
        return [word(one) for one in type(value) if one in value]
    if isinstance(value, Enum):
        return word(value)
    if name == "reference_id":
        return f"{value:08X}"
    if name == "names":  # of a Value
        return list(value)
    never = name in _AGES and value == _NEVER
    # JSON has no NaN or infinity.
    return None if never or (type(value) is float and not isfinite(value)) else value


def word(member: Any) -> str:
    """Return the name of an enum member, or chronyc's word if that is better."""
    name = str(member.name).lower()
    return _WORDS.get(name, name)
