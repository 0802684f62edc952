"""Our metrics and those of chrony_exporter; the tables of docs/prometheus.rst."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
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
    """Return the sections of docs/prometheus.rst, one for each report."""
    text = ""
    seen: set[str] = set()
    for (report, shared), metrics in groupby(ours(), key=itemgetter(0, 2)):
        lines = io.StringIO()
        for _, metric, _ in metrics:
            if metric.name not in seen:
                seen.add(metric.name)
                more = ", ".join(f"``{label}``" for label in metric.labels)
                meaning = f"{metric.help} Labels: {more}." if more else metric.help
                writer = csv.writer(lines, lineterminator="\n")
                writer.writerow((f"``{metric.name}``", meaning))
        title = report or "Every scrape"
        text += f"\n{title}\n{'~' * len(title)}\n"
        if shared:
            text += f"\nLabels: {', '.join(f'``{label}``' for label in shared)}.\n"
        text += "\n.. csv-table::\n   :class: narrow\n   :header: Metric, Meaning\n"
        text += "   :widths: 45 55\n\n"
        text += textwrap.indent(lines.getvalue(), "   ")
    return text


if __name__ == "__main__":
    print(table(), end="")
