"""The table of states of the check, and its limits in the rules of Prometheus."""

from __future__ import annotations

import re
from pathlib import Path

import check_tables

from pychrony.check._items import ITEMS, LEAST_AGE, MISSED_POLLS

RULES = Path(__file__).parents[2].joinpath("docs/prometheus/rules.yml").read_text()


def test_likely_states_are_a_hundred() -> None:
    names = [name for name, *_ in check_tables.rows()]
    assert len(names) >= 100


def expression(alert: str) -> str:
    """The expression of an alert on one line."""
    (found,) = re.findall(rf"alert: {alert}\n(.*?)\n        for:", RULES, re.S)
    return " ".join(found.partition("expr:")[2].split())


def test_rules_have_the_limits_of_the_check() -> None:
    limits = {item.name: (item.warning, item.critical) for item in ITEMS}
    warning, critical = limits["error_bound"]
    assert expression("ChronyClockErrorHigh").endswith(f" > {warning}")
    assert expression("ChronyClockErrorCritical").endswith(f" > {critical}")
    name = "record: instance:chrony_tracking_age_limit_seconds:max"
    (age,) = re.findall(rf"{name}\n(.*?)\n      - ", RULES, re.S)
    age = " ".join(age.split())
    assert f"clamp_min({MISSED_POLLS} * max " in age
    assert f", {LEAST_AGE:g})" in age
    used = expression("ChronyNoMeasurement")
    assert "> instance:chrony_tracking_age_limit_seconds:max" in used
    few = expression("ChronyTooFewSources")
    assert "< clamp(instance:chrony_sources_configured:count, 1, 2)" in few
