"""Our metrics beside those of chrony_exporter: the table of docs/prometheus.rst."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pychrony.prometheus import _metrics

FACTS = Path(__file__).with_name("chrony_exporter.txt")

# libchrony has no such report.
IMPOSSIBLE = "chrony_clients_"

# Name to type and labels.
Facts = dict[str, tuple[str, frozenset[str]]]


def chrony_exporter() -> Facts:
    """What it exports."""
    lines = FACTS.read_text().splitlines()
    facts = [line.split() for line in lines if line and line[0] != "#"]
    return {name: (kind, frozenset(labels)) for name, kind, *labels in facts}


def ours() -> Iterator[tuple[str, _metrics.Metric, tuple[str, ...]]]:
    yield "", _metrics.UP, ()
    for metric in _metrics.OUTCOME:
        yield "", metric, ()
    for name, report in _metrics.REPORTS.items():
        for metric in report.metrics:
            yield name, metric, report.labels


def table() -> str:
    old = chrony_exporter()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    seen: set[str] = set()
    for report, metric, source in ours():
        if metric.name not in seen:
            seen.add(metric.name)
            labels = ", ".join((*source, *metric.labels))
            writer.writerow(
                (
                    f"``{metric.name}``",
                    metric.kind,
                    f"``{labels}``" if labels else "",
                    report,
                    "old" if metric.name in old else "new",
                    metric.help,
                )
            )
    head = ".. csv-table::\n   :header: Metric, Type, Labels, Report, Age, What it is\n"
    return f"{head}\n{textwrap.indent(text.getvalue(), '   ')}"
