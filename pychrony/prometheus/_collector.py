"""The metrics of one chronyd, as prometheus_client collects them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector as _Collector

import pychrony
from pychrony._waiting import Waiter

from . import _metrics
from ._reading import Plan, Reading

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator


class Collector(_Collector):
    """The metrics of one chronyd, read at each scrape.

    Each scrape opens a connection, so threads may collect at the same time, and no
    value is old. A report that cannot be read has ``chrony_report_success`` 0 and no
    other metric. After the first report without a reply, no other is requested. The
    lists of sources are one consistent snapshot. Errors are logged (logger
    ``pychrony.prometheus``, level INFO).

    Args:
        address, timeout, retries: as for :class:`ChronyConnection`.
        reports: libchrony's names of the reports to read, in this order, except
            that lists of sources are read together; all ten by default.
        budget: maximum number of seconds for a scrape. A report may take half of it,
            and none begins after that; ``timeout`` is shortened so that the retries
            fit. ``None`` for no limit.

    Raises:
        ChronyAddressError: ``address`` is not valid.
        ChronyLibraryError: no usable libchrony.
        ValueError: ``timeout``, ``retries``, ``reports`` or ``budget`` is not valid.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 1.0,
        retries: int = 2,
        reports: Iterable[str] = tuple(_metrics.REPORTS),
        budget: float | None = None,
    ) -> None:
        self._plan = Plan(
            address, timeout=timeout, retries=retries, reports=reports, budget=budget
        )
        # These raise errors now, and not at each scrape.
        pychrony.reports()
        self._plan.requests().close()

    def describe(self) -> Iterator[Family]:
        """Yield the metrics without values; read nothing."""
        families = _Families()
        for metric in (_metrics.UP, *_metrics.OUTCOME):
            families.family(metric, ())
        for name in self._plan.reports:
            report = _metrics.REPORTS[name]
            for metric in report.metrics:
                families.family(metric, report.labels)
        return families.all()

    def collect(self) -> Iterator[Family]:
        """Read the reports and yield the metrics."""
        return families(Waiter().drive(self._plan.requests()))


def families(reading: Reading) -> Iterator[Family]:
    """Return the metrics of a reading."""
    found = _Families()
    for name, records in reading.found.items():
        report = _metrics.REPORTS[name]
        found.add(report.metrics, report.labels, report.records(records))
    found.add((_metrics.UP,), (), [((), reading.up)])
    outcomes = [((), outcome) for outcome in reading.outcomes.values()]
    found.add(_metrics.OUTCOME, (), outcomes)
    return found.all()


class _Families:
    """The metrics by name, with their samples."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {}

    def all(self) -> Iterator[Family]:
        return iter(self._families.values())

    def family(self, metric: _metrics.Metric, labels: tuple[str, ...]) -> Any:
        if metric.name not in self._families:
            make = (
                CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            )
            labels = (*labels, *metric.labels)
            self._families[metric.name] = make(metric.name, metric.help, labels=labels)
        return self._families[metric.name]

    def add(
        self,
        metrics: Iterable[_metrics.Metric],
        labels: tuple[str, ...],
        records: Iterable[tuple[tuple[str, ...], Any]],
    ) -> None:
        for metric in metrics:
            for texts, record in records:
                number = metric.number(record)
                if number is not None:
                    own = (
                        text if isinstance(text, str) else text(record)
                        for text in metric.labels.values()
                    )
                    family = self.family(metric, labels)
                    family.add_metric((*texts, *own), float(number))
