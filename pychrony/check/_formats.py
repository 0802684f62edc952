"""The verdicts as a person, a monitoring system or a program reads them."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from pychrony import ChronyError, _chronyc

from ._judge import NAMES, OK, UNKNOWN, WORST_FIRST, Finding, Verdict, worst
from ._range import plain

# So many clocks are shown where -v does not show them all.
SHOWN = 20


def text(verdicts: Sequence[Verdict], options: Namespace) -> str:
    """Return a headline, and a line for each item or clock."""
    if len(verdicts) > 1:
        head = _head(verdicts, _counts(verdicts))
        lines = [head, *_table(verdicts, verbose=options.verbose)]
    else:
        lines = [_head(verdicts, verdicts[0].headline)]
        if verdicts[0].findings:
            lines += ["", *map(_line, verdicts[0].worst_first)]
            if options.verbose:
                lines += ["", *_reports(verdicts[0])]
    return "\n".join(map(_chronyc.printable, lines))


def nagios(verdicts: Sequence[Verdict], options: Namespace) -> str:
    """Return one line with performance data, for plugins of the Nagios family."""
    if len(verdicts) > 1:
        summary = _counts(verdicts)
        if verdicts[0].state != OK:
            summary += f"; first {verdicts[0].address}: {_reason(verdicts[0])}"
        counts = Counter(verdict.state for verdict in verdicts)
        data = [
            f"{NAMES[state].lower()}={counts[state]};;;0;{len(verdicts)}"
            for state in reversed(WORST_FIRST)
        ]
        more = _table(verdicts, verbose=options.verbose)
    else:
        summary = verdicts[0].summary
        data = list(map(_performance, verdicts[0].findings))
        more = _reports(verdicts[0])
    lines = [_unbarred(_head(verdicts, summary))]
    if data:
        lines[0] += f" | {' '.join(data)}"
    if options.verbose:
        lines += map(_unbarred, more)
    return "\n".join(lines)


def failed(reason: str) -> str:
    """Return the line for a check that could not be made."""
    return _unbarred(f"CHRONY {NAMES[UNKNOWN]} - {reason}")


def _unbarred(line: str) -> str:
    # What follows a bar is performance data, to a monitoring system.
    return _chronyc.printable(line).replace("|", "/")


def as_json(verdicts: Sequence[Verdict], options: Namespace) -> str:
    """Return a JSON document; docs/check.schema.json describes it."""
    document = {
        "format": 1,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **_state(worst(verdicts)),
        "clocks": list(map(_clock, verdicts)),
    }
    return json.dumps(document, indent=2 if options.verbose else None, allow_nan=False)


def prometheus(verdicts: Sequence[Verdict], options: Namespace) -> str:
    """Return metrics for the textfile collector of node_exporter."""
    try:
        from prometheus_client import CollectorRegistry, Gauge, generate_latest

        from pychrony.prometheus import Collector
    except ImportError as error:
        raise ValueError(
            "--format prometheus needs prometheus_client. Install it with: "
            "pip install 'pychrony[prometheus]'"
        ) from error
    registry = CollectorRegistry()
    if len(verdicts) == 1:
        # What is no address has a state all the same.
        with suppress(ChronyError):
            registry.register(
                Collector(
                    verdicts[0].address or None,
                    timeout=options.timeout,
                    retries=options.retries,
                )
            )
    check = Gauge(
        "chrony_check_state",
        "Verdict of pychrony.check (0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN).",
        ["address"],
        registry=registry,
    )
    item = Gauge(
        "chrony_check_item_state",
        "Verdict on each item of pychrony.check.",
        ["address", "item"],
        registry=registry,
    )
    for verdict in verdicts:
        check.labels(verdict.address).set(verdict.state)
        for finding in verdict.findings:
            item.labels(verdict.address, finding.item.name).set(finding.state)
    return generate_latest(registry).decode().rstrip("\n")


FORMATS: dict[str, Callable[[Sequence[Verdict], Namespace], str]] = {
    "text": text,
    "nagios": nagios,
    "json": as_json,
    "prometheus": prometheus,
}


def _head(verdicts: Sequence[Verdict], summary: str) -> str:
    return f"CHRONY {NAMES[worst(verdicts)]} - {summary}"


def _counts(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.state for verdict in verdicts)
    parts = [f"{counts[OK]} of {len(verdicts)} clocks OK"]
    parts += [
        f"{counts[state]} {NAMES[state].lower()}"
        for state in WORST_FIRST[:-1]
        if counts[state]
    ]
    return ", ".join(parts)


def _reason(verdict: Verdict) -> str:
    """Return the summary without the address, which is beside it."""
    return verdict.summary.removeprefix(f"{verdict.address}: ")


def _table(verdicts: Sequence[Verdict], *, verbose: bool) -> list[str]:
    shown = verdicts if verbose else verdicts[:SHOWN]
    width = max(len(verdict.address) for verdict in shown)
    table = [
        f"{NAMES[verdict.state]:8}  {verdict.address:{width}}  {_reason(verdict)}"
        for verdict in shown
    ]
    if len(shown) < len(verdicts):
        rest = len(verdicts) - len(shown)
        table.append(f"and {rest} that are no worse (-v shows them)")
    return table


def _line(finding: Finding) -> str:
    item = finding.item
    value = f"{item.label:15}  {item.show(finding.value):>11}"
    return f"{NAMES[finding.state]:8}  {value}  {_why(finding)}".rstrip()


def _why(finding: Finding) -> str:
    """Return the limits of an item, and what to do if it is outside of them."""
    ranges = {"warning": finding.warning, "critical": finding.critical}
    limits = ", ".join(f"{name} {limit}" for name, limit in ranges.items() if limit)
    return f"{limits} - {finding.advice}" if finding.advice else limits


def _reports(verdict: Verdict) -> list[str]:
    """Return what chronyc would print of a clock."""
    clock = verdict.clock
    if clock is None:
        return []
    sources = _chronyc.sources(clock.sources or ())
    return f"{_chronyc.tracking(clock.tracking)}\n\n{sources}".split("\n")


def _performance(finding: Finding) -> str:
    item, limits = finding.item, (finding.warning, finding.critical)
    if item.unit == "s":
        value = f"{plain(finding.value)}s"
    elif item.unit == "ppm":
        value = f"{finding.value:.3f}"
    else:
        value = f"{finding.value:d}"
    ranges = ";".join("" if limit is None else str(limit) for limit in limits)
    low = "" if item.signed else "0"
    return f"{item.name}={value};{ranges};{low}".rstrip(";")


def _state(state: int) -> dict[str, Any]:
    return {"state": NAMES[state], "status": state}


def _clock(verdict: Verdict) -> dict[str, Any]:
    error = verdict.error
    return {
        "address": verdict.address,
        **_state(verdict.state),
        "summary": verdict.summary,
        "source": verdict.source,
        "error": error and {"type": type(error).__name__, "message": error.message},
        "items": list(map(_item, verdict.findings)),
    }


def _item(finding: Finding) -> dict[str, Any]:
    item = finding.item
    return {
        "name": item.name,
        **_state(finding.state),
        "value": +finding.value,  # of a flag 1 or 0
        "unit": item.unit if item.unit in ("s", "ppm") else "",
        "warning": finding.warning and str(finding.warning),
        "critical": finding.critical and str(finding.critical),
        "reason": finding.reason,
    }
