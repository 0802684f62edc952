"""Feed Prometheus: a collector for prometheus_client, and an exporter.

In a program of your own::

    from prometheus_client import REGISTRY
    from pychrony.prometheus import Collector

    REGISTRY.register(Collector())

``python -m pychrony.prometheus`` is the exporter: ``/metrics`` has the chronyd
of this machine, ``/probe?target=ADDRESS`` any other that ``--allow`` names.
Both need ``pip install pychrony[prometheus]``; ``docs/prometheus.rst`` has the
rest.
"""

from __future__ import annotations

import argparse
import logging
import re
import signal
import ssl
import sys
from functools import partial
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pychrony
from pychrony import _metrics

try:
    from prometheus_client import Metric as Family
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector as _Collector

    from pychrony import _exporter
except ImportError as error:
    _MISSING = (
        "pychrony.prometheus needs prometheus_client. "
        f"Install it with: pip install 'pychrony[prometheus]' ({error})"
    )
    if __name__ == "__main__":
        sys.exit(_MISSING)
    raise ImportError(_MISSING) from error

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Collector", "main"]

_log = logging.getLogger("pychrony.prometheus")


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
        budget: seconds that a scrape may take. ``timeout`` is shortened so that
            one unanswered request takes no more than half of it, and after that
            time no further report is begun. ``None``: as long as it takes.

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
        # These complain at once of what would fail at each scrape.
        pychrony.reports()
        pychrony.ChronyConnection(address, timeout=timeout, retries=retries)
        self._half = float("inf")
        if budget is not None:
            if not budget > 0:
                raise ValueError(f"budget {budget!r} is not positive")
            self._half = budget / 2
            # Each resend waits twice as long as the one before.
            timeout = min(timeout, self._half / (2 ** (retries + 1) - 1))
        self._connect = partial(
            pychrony.ChronyConnection, address, timeout=timeout, retries=retries
        )

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
        found = report.read(connection)
        if report.source is None:
            found = [] if found is None else [found]
        for record in found:
            texts: tuple[str, ...] = ()
            if report.source is not None:
                source = report.source(record)
                if source is None:
                    continue
                texts = (source, source)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the exporter until SIGINT or SIGTERM, and return its exit status."""
    try:
        arguments = _arguments(argv)
    except pychrony.ChronyLibraryError as error:
        print(error, file=sys.stderr)
        return 1
    logging.basicConfig(format="%(message)s", level=arguments.level)
    try:
        # An end that is asked for is no failure.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with _exporter.Server(
            arguments.listen,
            _exporter.Application(
                arguments.collector, arguments.targets, arguments.timeout_offset
            ),
            concurrency=arguments.concurrency,
            context=arguments.context,
        ) as server:
            print(f"listening on {server.url}", file=sys.stderr, flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        pass
    except OSError as error:
        host, port = arguments.listen
        print(f"cannot listen on {host}:{port}: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pychrony.prometheus",
        description="Export the state of chronyd to Prometheus, until it is "
        "interrupted. Exit status: 0 interrupted, 1 cannot run, 2 usage.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--listen",
        "--web.listen-address",
        type=_host_and_port,
        default=("127.0.0.1", 9123),
        metavar="[HOST]:PORT",
        help="where to listen; without HOST on every address (127.0.0.1:9123)",
    )
    parser.add_argument(
        "--address",
        "--chrony.address",
        type=lambda text: text.removeprefix("unix://"),
        metavar="ADDRESS",
        help="the chronyd of /metrics, as for pychrony.check; default: the one of "
        "this machine",
    )
    parser.add_argument(
        "--report",
        action="append",
        choices=tuple(_metrics.REPORTS),
        metavar="NAME",
        help="read only this report, may be repeated: " + ", ".join(_metrics.REPORTS),
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="let /probe ask this IP address, network (192.0.2.0/24) or host name, "
        "may be repeated; PORT is 323, or * for any; default: none",
    )
    parser.add_argument(
        "--timeout",
        "--chrony.timeout",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="wait so long for an answer, doubled at each resend; less where "
        "Prometheus has less time (%(default)s)",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="send a request again so often (%(default)s)",
    )
    parser.add_argument(
        "--timeout-offset",
        type=_seconds,
        default=0.5,
        metavar="SECONDS",
        help="end a scrape so long before Prometheus gives it up (%(default)s)",
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        default=128,
        metavar="N",
        help="answer so many scrapes at once, the others wait (%(default)s)",
    )
    parser.add_argument("--certfile", metavar="FILE", help="serve TLS with this one")
    parser.add_argument("--keyfile", metavar="FILE", help="its key, if not in CERTFILE")
    parser.add_argument(
        "--client-cafile",
        metavar="FILE",
        help="serve only clients with a certificate of these authorities",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        dest="level",
        action="store_const",
        const=logging.INFO,
        help="say on the standard error output why a report could not be read",
    )
    arguments = parser.parse_args(argv)
    if arguments.concurrency < 1:
        parser.error(f"--concurrency {arguments.concurrency} is less than 1")
    try:
        arguments.targets = _exporter.Targets(arguments.allow)
        arguments.collector = _maker(arguments)
        arguments.collector(None, None)
        arguments.context = _tls(arguments)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _maker(arguments: argparse.Namespace) -> _exporter.MakeCollector:
    def make(address: str | None, budget: float | None) -> Collector:
        return Collector(
            address or arguments.address,
            timeout=arguments.timeout,
            retries=arguments.retries,
            reports=arguments.report or _metrics.REPORTS,
            budget=budget,
        )

    return make


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.certfile is None:
        if arguments.keyfile or arguments.client_cafile:
            raise ValueError("--keyfile and --client-cafile need --certfile")
        return None
    try:
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=arguments.client_cafile
        )
    except OSError as error:
        raise ValueError(
            f"the authorities in {arguments.client_cafile} are not usable: {error}"
        ) from error
    if arguments.client_cafile:
        context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(arguments.certfile, arguments.keyfile)
    except OSError as error:
        raise ValueError(
            f"the certificate {arguments.certfile} or its key is not usable: {error}"
        ) from error
    return context


def _host_and_port(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[^]]+\]|[^]:[]*):([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not [HOST]:PORT, as in 127.0.0.1:9123, [::1]:9123 or :9123"
        )
    return match[1].strip("[]"), int(match[2])


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0
    if not (isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
