"""The output formats of the check."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress

from pychrony import ChronyError, _chronyc

from ._judge import worst
from ._range import Range, exact
from ._states import NAMES, OK, UNKNOWN, WORST_FIRST

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from ._judge import Finding, Verdict

# Number of clocks that are shown without -v.
SHOWN = 20

# NRPE version 2 has 1,024 bytes for the output, the end of the line included.
_MOST_BYTES = 1022


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
            summary += f". First {verdicts[0].address}: {_reason(verdicts[0])}"
        counts = Counter(verdict.state for verdict in verdicts)
        data = [
            f"{NAMES[state].lower()}={counts[state]};;;0;{len(verdicts)}"
            for state in reversed(WORST_FIRST)
        ]
        more = _table(verdicts, verbose=options.verbose)
    else:
        summary = verdicts[0].summary
        data = [text for one in verdicts[0].findings for text in _performance(one)]
        more = _reports(verdicts[0])
    head = _plain_line(_head(verdicts, summary))
    performance = f" | {' '.join(data)}" if data else ""
    if not options.verbose:
        head = _cut(head, _MOST_BYTES - len(performance))
    lines = [head + performance]
    if options.verbose:
        lines += map(_plain_line, more)
    return "\n".join(lines)


def failed(reason: str) -> str:
    """Return the line for a check that could not be made."""
    return _plain_line(f"CHRONY {NAMES[UNKNOWN]} - {reason}")


def _plain_line(line: str) -> str:
    # Performance data begins after a bar, and Nagios replaces semicolons by colons.
    return _chronyc.printable(line).replace("|", "/").replace(";", ",")


def _cut(line: str, most: int) -> str:
    """Return the line, shortened to a number of bytes."""
    raw = line.encode(errors="backslashreplace")
    if len(raw) <= most:
        return line
    return raw[: most - 3].decode(errors="ignore") + "..."


def as_json(verdicts: Sequence[Verdict], options: Namespace) -> str:
    """Return a JSON document; docs/check.schema.json describes it."""
    import json  # takes milliseconds, and is needed for this format only

    document = {
        "format": 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        **_state(worst(verdicts)),
        "clocks": [_clock(one, verbose=options.verbose) for one in verdicts],
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
        # An invalid address has a state, but no metrics.
        with suppress(ChronyError):
            registry.register(
                Collector(
                    verdicts[0].address or None,
                    retries=options.retries,
                    # What is left of the time for the whole check.
                    budget=max(options.until - time.monotonic(), 0.1),
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
        address = _chronyc.printable(verdict.address)
        check.labels(address).set(verdict.state)
        for finding in verdict.findings:
            item.labels(address, finding.item.name).set(finding.state)
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
    """Return the summary without the address."""
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
        table.append(f"and {rest} more, not worse (-v shows them)")
    return table


def _line(finding: Finding) -> str:
    item = finding.item
    value = f"{item.label:15}  {item.show(finding.value):>11}"
    return f"{NAMES[finding.state]:8}  {value}  {_why(finding)}".rstrip()


def _why(finding: Finding) -> str:
    """Return the limits of an item, and what to do if it is outside of them."""
    ranges = {"warning": finding.warning, "critical": finding.critical}
    limits = ", ".join(
        f"{name} {limit.shown(finding.item.show_limit)}"
        for name, limit in ranges.items()
        if limit
    )
    return f"{limits} - {finding.advice}" if finding.advice else limits


def _reports(verdict: Verdict) -> list[str]:
    """Return what chronyc would print of a clock."""
    clock = verdict.clock
    if clock is None:
        return []
    sources = _chronyc.sources(clock.sources or ())
    return f"{_chronyc.tracking(clock.tracking)}\n\n{sources}".split("\n")


def _performance(finding: Finding) -> Iterator[str]:
    """Return a finding as performance data: plain numbers that every system keeps.

    Icinga's writers convert units of time to seconds and keep six decimals, so
    nanoseconds would become 0. Therefore short times are in microseconds without a
    unit. The writers do not support ranges as thresholds, so a value with a sign has
    no thresholds, and is repeated without its sign.
    """
    item, value = finding.item, finding.value
    limits = (finding.warning, finding.critical)
    if not item.performance:
        return
    if item.name == "age":
        yield _datum("age", f"{value:.1f}s", limits, exact)
    elif item.unit == "s" and item.signed:
        name, text = f"{item.name}_us", f"{value * 1e6:.3f}"
        if any(one and (one.inside or one.start != -one.end) for one in limits):
            yield _datum(name, text, limits, _microseconds, low="")
        else:
            yield f"{name}={text}"
            ends = [one and Range(0.0, one.end) for one in limits]
            yield _datum(f"{item.name}_abs_us", text.lstrip("-"), ends, _microseconds)
    elif item.unit == "s":
        yield _datum(f"{item.name}_us", f"{value * 1e6:.3f}", limits, _microseconds)
    elif item.unit == "ppm":
        low = "" if item.signed else "0"
        yield _datum(item.name, f"{value:.3f}", limits, exact, low=low)
    else:
        yield _datum(item.name, f"{value:d}", limits, exact)


def _datum(
    name: str,
    value: str,
    limits: Sequence[Range | None],
    show: Callable[[float], str],
    low: str = "0",
) -> str:
    ranges = ";".join("" if limit is None else limit.shown(show) for limit in limits)
    return f"{name}={value};{ranges};{low}".rstrip(";")


def _microseconds(seconds: float) -> str:
    return exact(round(seconds * 1e6, 3))


def _state(state: int) -> dict[str, Any]:
    return {"state": NAMES[state], "status": state}


def _clock(verdict: Verdict, *, verbose: bool) -> dict[str, Any]:
    error = verdict.error
    found = {
        "address": verdict.address,
        **_state(verdict.state),
        "summary": verdict.summary,
        "source": verdict.source,
        "error": error and {"type": type(error).__name__, "message": error.message},
        "items": list(map(_item, verdict.findings)),
    }
    clock = verdict.clock
    if verbose and clock:
        found["tracking"] = clock.tracking.to_dict()
        found["sources"] = [one.to_dict() for one in clock.sources or ()]
    return found


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
