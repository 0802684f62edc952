"""The metrics of one chronyd, as prometheus_client collects them."""

from __future__ import annotations

import logging
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector as _Collector

import pychrony

from . import _metrics

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

_log = logging.getLogger("pychrony.prometheus")

# Less is no time to ask anybody, and more no call may have [s].
_SHORTEST, _LONGEST = 0.001, 86_400


class Collector(_Collector):
    """The metrics of one chronyd, read anew at each scrape.

    Each scrape has a connection of its own, so that threads may collect at
    once, nothing old is shown, and rights are found out again. A report that
    fails has ``chrony_report_success`` 0 and no other metric; the others go on.
    After the first report that nobody answers, no other is asked. The reasons
    are logged (logger ``pychrony.prometheus``, level INFO).

    Args:
        address, timeout, retries: as for :class:`ChronyConnection`.
        reports: libchrony's names of the reports to read, in this order; all
            ten by default.
        budget: seconds that a scrape may take. A report may take half of it, after
            which no other is begun; ``timeout`` is shortened to have room for the
            retries in that. ``None``: as long as it takes.

    Raises:
        ChronyAddressError: ``address`` is nonsense.
        ChronyLibraryError: no usable libchrony.
        ValueError: ``timeout``, ``retries``, ``reports`` or ``budget`` is.
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
        self._reports = tuple(reports)
        for name in self._reports:
            if name not in _metrics.REPORTS:
                raise ValueError(
                    f"{name!r} is none of the reports {', '.join(_metrics.REPORTS)}"
                )
        if budget is not None and not budget >= _SHORTEST:
            raise ValueError(f"budget {budget!r} is less than {_SHORTEST} s")
        connect = partial(pychrony.ChronyConnection, address, retries=retries)
        # These complain at once of what would fail at each scrape.
        pychrony.reports()
        connect(timeout=timeout)
        half = None
        if budget is not None:
            half = min(budget / 2, _LONGEST)
            # Each resend waits twice as long as the one before. The end of them is
            # to come first, as it knows more of the reason.
            timeout = min(timeout, 0.9 * half / (2 ** (retries + 1) - 1))
        self._half = half or float("inf")
        self._connect = partial(connect, timeout=timeout, limit=half)

    def describe(self) -> Iterator[Family]:
        """Yield the metrics without their values, asking nobody."""
        families = _Families()
        families.add(_metrics.UP)
        for metric in _metrics.OUTCOME:
            families.add(metric)
        for name in self._reports:
            report = _metrics.REPORTS[name]
            for metric in report.metrics:
                families.add(metric, report.labels)
        return families.all()

    def collect(self) -> Iterator[Family]:
        """Read the reports and yield the metrics."""
        families = _Families()
        outcomes = {name: _metrics.Outcome(name, False, None) for name in self._reports}
        answered = False
        begin = perf_counter()
        try:
            with self._connect() as connection:
                if "tracking" not in self._reports:
                    # A report that fails tells not whether anybody is there.
                    connection.get_tracking()
                    answered = True
                for name in self._reports:
                    before = perf_counter()
                    if before - begin > self._half:
                        _log.info("no time is left for %s and what follows", name)
                        break
                    success = False
                    try:
                        families.read(_metrics.REPORTS[name], connection)
                        success = True
                    except pychrony.ChronyConnectionError:
                        raise
                    except pychrony.ChronyError as error:
                        _log.info("%s", error)
                    finally:
                        seconds = perf_counter() - before
                        outcomes[name] = _metrics.Outcome(name, success, seconds)
                    answered = True
        except pychrony.ChronyError as error:
            _log.info("%s", error)
        families.sample(_metrics.UP, answered)
        for outcome in outcomes.values():
            for metric in _metrics.OUTCOME:
                families.sample(metric, outcome)
        return families.all()


class _Families:
    """Metrics by their names, with the samples that they got."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {}
        self._seen: set[tuple[str, ...]] = set()

    def all(self) -> Iterator[Family]:
        return iter(self._families.values())

    def add(self, metric: _metrics.Metric, labels: Sequence[str] = ()) -> Any:
        """Return the family of this metric."""
        if metric.name not in self._families:
            make = (
                CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            )
            labels = (*labels, *metric.labels)
            self._families[metric.name] = make(metric.name, metric.help, labels=labels)
        return self._families[metric.name]

    def read(self, report: _metrics.Report, connection: Any) -> None:
        """Add what a report says."""
        for texts, record in report.records(connection):
            for metric in report.metrics:
                self.sample(metric, record, report.labels, texts)

    def sample(
        self,
        metric: _metrics.Metric,
        record: Any,
        labels: Sequence[str] = (),
        texts: tuple[str, ...] = (),
    ) -> None:
        number = metric.number(record)
        if number is None:
            return
        texts += metric.texts(record)
        # Two reference clocks may have the same reference ID; Prometheus would
        # take the first of two samples with the same labels.
        if (metric.name, *texts) not in self._seen:
            self._seen.add((metric.name, *texts))
            self.add(metric, labels).add_metric(texts, float(number))
