"""The text formats of Prometheus, written directly.

prometheus_client makes an object for each sample and each family, and took a quarter of
the time of a scrape. A test compares the output with that of prometheus_client.
"""

from __future__ import annotations

from functools import cache
from math import inf, isnan
from typing import TYPE_CHECKING, Any

from . import _metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._reading import Reading

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# The labels of a source are the same in the lines of all metrics.
_SOURCE = 'source_address="%s",source_name="%s"'

# The parts of a line before and after those labels, and the function that returns the
# number. If a metric has its own labels, the parts are empty, and there is a format
# with the functions for its texts, or the index of a label of the source.
_Line = tuple[str, str, Any, str, "list[Callable[[Any], str] | int]"]


class Text:
    """The metrics of a page, in one of both formats."""

    def __init__(self, *, openmetrics: bool = False) -> None:
        self.kind = OPENMETRICS if openmetrics else TEXT
        self._openmetrics = openmetrics
        self._families: dict[str, list[str]] = {}

    def reading(
        self, reading: Reading, names: Mapping[str, str] = _metrics.NO_NAMES
    ) -> None:
        """Add the metrics of a reading, with these names of the addresses."""
        for name, found in reading.found.items():
            self._add(name, _metrics.REPORTS[name].records(found, names), names)
        self._add("up", [((), reading.up)], names)
        outcomes = [((), outcome) for outcome in reading.outcomes.values()]
        self._add("outcome", outcomes, names)

    def _add(
        self,
        name: str,
        records: Sequence[tuple[tuple[str, ...], Any]],
        names: Mapping[str, str],
    ) -> None:
        escaped = [(tuple(map(_escaped, texts)), record) for texts, record in records]
        sources = [(_SOURCE % texts if texts else "", one) for texts, one in escaped]
        for metric, (start, end, number, form, makers) in _lines(name):
            labelled = sources
            if form:
                labelled = [
                    (form % _own(makers, texts, record, names), record)
                    for texts, record in escaped
                ]
            lines = [
                f"{start}{labels}{end}{float(value)!r}\n"
                if -1e6 < value < 1e6
                # Other types may have another repr().
                else f"{start}{labels}{end}{formatted(value)}\n"
                for labels, record in labelled
                if (value := number(record)) is not None
            ]
            if lines:
                self._family(metric.name, metric.kind, metric.help).extend(lines)

    def family(
        self, name: str, kind: str, text: str, samples: Mapping[str, float]
    ) -> None:
        """Add a metric; a sample is what follows the name, and the value."""
        family = self._family(name, kind, text)
        for labels, value in samples.items():
            written = repr(value) if -1e6 < value < 1e6 else formatted(value)
            family.append(f"{name}{labels} {written}\n")

    def _family(self, name: str, kind: str, text: str) -> list[str]:
        family = self._families.get(name)
        if family is None:
            shown = name.removesuffix("_total") if self._openmetrics else name
            head = f"# HELP {shown} {text}\n# TYPE {shown} {kind}\n"
            family = self._families[name] = [head]
        return family

    def done(self) -> bytes:
        """Return the page."""
        lines = [line for family in self._families.values() for line in family]
        if self._openmetrics:
            lines.append("# EOF\n")
        return "".join(lines).encode(errors="backslashreplace")


def formatted(value: float) -> str:
    """Write a number as prometheus_client does."""
    value = float(value)
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    if isnan(value):
        return "NaN"
    text = repr(value)
    whole, point, fraction = text.partition(".")
    if value > 0 and point and len(whole) > 6:
        digits = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0.")
        return f"{digits}e+{len(whole) - 1:02d}"
    return text


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _own(
    makers: Iterable[Callable[[Any], str] | int],
    texts: tuple[str, ...],
    record: Any,
    names: Mapping[str, str],
) -> tuple[str, ...]:
    found: list[str] = []
    for make in makers:
        if isinstance(make, int):
            found.append(texts[make])
        else:
            text = make(record)
            # An address as the value of a label is that of tracking_name.
            if names and make is _metrics.tracking_name:
                text = names.get(text, text)
            found.append(_escaped(text))
    return tuple(found)


@cache
def _lines(name: str) -> list[tuple[_metrics.Metric, _Line]]:
    labels: tuple[str, ...] = ()
    if name == "up":
        metrics: tuple[_metrics.Metric, ...] = (_metrics.UP,)
    elif name == "outcome":
        metrics = _metrics.OUTCOME
    else:
        metrics, labels = _metrics.REPORTS[name].metrics, _metrics.REPORTS[name].labels
    return [(metric, _line(metric, labels)) for metric in metrics]


def _line(metric: _metrics.Metric, labels: tuple[str, ...]) -> _Line:
    parts: list[str] = []
    makers: list[Callable[[Any], str] | int] = []
    for name in sorted((*labels, *metric.labels)):
        text = labels.index(name) if name in labels else metric.labels[name]
        if isinstance(text, str):
            parts.append(f'{name}="{_escaped(text)}"'.replace("%", "%%"))
        else:
            parts.append(f'{name}="%s"')
            makers.append(text)
    inner = f"{{{','.join(parts)}}}" if parts else ""
    line = f"{metric.name}{inner} "
    if makers == list(range(len(labels))):
        start, _, end = line.partition(_SOURCE)
        return start % (), end, metric.number, "", []
    return "", "", metric.number, line, makers
