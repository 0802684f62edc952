"""The command line of the exporter, with the flags of chrony_exporter."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from functools import partial
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from socket import AF_INET6, AF_UNIX
from typing import TYPE_CHECKING, Any

import pychrony
from pychrony._cli import (
    add_timeout_and_retries,
    counting,
    positive,
    silence,
    versions,
)

from . import _metrics, _poller, _workers
from ._http import Server
from ._own import Own
from ._pages import Pages
from ._reading import Plan
from ._scraper import Names, Scraper
from ._targets import Targets
from ._web import Web, load, tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

_log = logging.getLogger("pychrony.prometheus")

# A connection of a client takes one descriptor, one to a chronyd another, and waiting
# for several replies one more; this number is for everything else.
_OTHER_DESCRIPTORS = 64

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}

# The flags of the reports; chrony_exporter has another name for one.
_COLLECTORS = {name: name for name in _metrics.REPORTS}
_COLLECTORS["ntpdata"] = "sources.with-ntpdata"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the exporter until SIGINT or SIGTERM, and return its exit status."""
    try:
        arguments = _arguments(argv)
    except pychrony.ChronyLibraryError as error:
        print(error, file=sys.stderr)
        return 1
    # A list that is read at a high latency takes two descriptors for each source.
    most = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (most, most))
    # SIGTERM is not a failure.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        try:
            sockets = _sockets(arguments)
        except _ListenError as error:
            print(error, file=sys.stderr)
            return 1
        try:
            for each in sockets:
                print(f"listening on {_url(each, arguments)}", file=sys.stderr)
            sys.stderr.flush()
        except OSError:  # nobody reads it
            silence(sys.stderr)
        # Until there are handlers for them, so that nothing is left half-started.
        signal.pthread_sigmask(signal.SIG_BLOCK, _workers.SIGNALS)
        own = Own(arguments.workers)
        # These objects stay. A full collection of them would take 7 ms, in which
        # nothing is served. There is one now, as CPython makes the next ones the
        # sooner the fewer objects it found in the last; start() made none.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        if arguments.workers == 1:
            _poller.run(partial(_serve, arguments, sockets, own))
        else:
            _workers.supervise(
                arguments.workers,
                lambda worker, lifeline: _work(
                    arguments, sockets, own, worker, lifeline
                ),
                own.restarted,
            )
    return 0


def _work(
    arguments: argparse.Namespace,
    sockets: list[socket],
    own: Own,
    worker: int,
    lifeline: int,
) -> None:
    own.begin(worker)
    _poller.run(partial(_serve, arguments, sockets, own, lifeline=lifeline))


async def _serve(
    arguments: argparse.Namespace,
    sockets: Sequence[socket],
    own: Own,
    poller: _poller.Poller,
    lifeline: int | None = None,
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _workers.SIGNALS)
    if lifeline is not None:
        loop.add_reader(lifeline, stop.set)
    scraper = Scraper(
        arguments.address,
        timeout=arguments.timeout,
        retries=arguments.retries,
        reports=arguments.reports,
        names=Names() if arguments.dns else None,
        poller=poller,
    )
    pages = Pages(
        scraper,
        arguments.targets,
        own,
        arguments.web,
        timeout_offset=arguments.timeout_offset,
        path=arguments.path,
    )
    descriptors = getrlimit(RLIMIT_NOFILE)[0] - _OTHER_DESCRIPTORS
    async with Server(
        sockets,
        pages.answer,
        limit=max(1, descriptors // 3),
        context=arguments.web.context,
        refused=own.request,
    ):
        await stop.wait()


class _ListenError(Exception):
    """The exporter cannot listen; the text says why."""


def _sockets(arguments: argparse.Namespace) -> list[socket]:
    """Return the listening sockets, which all workers share."""
    if arguments.systemd:
        try:
            return _workers.from_systemd()
        except ValueError as error:
            raise _ListenError(error) from error
    sockets: list[socket] = []
    for host, port in arguments.listen or [("127.0.0.1", 9123)]:
        try:
            sockets.append(_workers.listen((host, port)))
        except OSError as error:
            shown = f"[{host}]" if ":" in host else host
            raise _ListenError(f"cannot listen on {shown}:{port}: {error}") from error
    return sockets


def _url(listening: socket, arguments: argparse.Namespace) -> str:
    scheme = "https" if arguments.web.context else "http"
    name = listening.getsockname()
    if listening.family == AF_UNIX:  # of systemd; an abstract one has bytes
        path = os.fsdecode(name).replace("\0", "@", 1)
        return f"{scheme}+unix://{path}"
    host = f"[{name[0]}]" if listening.family == AF_INET6 else name[0]
    return f"{scheme}://{host}:{name[1]}/"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(argv)
    _log_as(arguments.level, arguments.format)
    try:
        arguments.targets = Targets(arguments.allow)
        arguments.reports = _reports(arguments)
        arguments.web = _web(arguments)
        if not arguments.path.startswith("/") or arguments.path == "/":
            raise ValueError(
                f"--web.telemetry-path {arguments.path!r} is not a path as /metrics"
            )
        # These raise errors now, and not at each scrape.
        Plan(
            arguments.address,
            timeout=arguments.timeout,
            retries=arguments.retries,
            reports=arguments.reports,
            budget=None,
        ).requests().close()
        pychrony.reports()
    except ValueError as error:
        parser.error(str(error))
    if arguments.chmod_socket:
        _log.warning(
            "--collector.chmod-socket has no meaning here: chronyd can answer without"
        )
    return arguments


def _reports(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the reports to read.

    If one is switched on, only tracking and those switched on are read, as in
    chrony_exporter.
    """
    switched = {
        name: on
        for name in _metrics.REPORTS
        if (on := getattr(arguments, f"collector_{name}")) is not None
    }
    if arguments.report and switched:
        raise ValueError("give either --report or --collector.*")
    if arguments.report:
        return tuple(arguments.report)
    others = not any(switched.values())
    found = tuple(
        name
        for name in _metrics.REPORTS
        if switched.get(name, others or name == "tracking")
    )
    if not found:
        raise ValueError("no report is left to read")
    return found


def _web(arguments: argparse.Namespace) -> Web:
    if arguments.config:
        if arguments.certfile or arguments.keyfile or arguments.client_cafile:
            raise ValueError("give either --web.config.file or --certfile")
        return load(arguments.config)
    if arguments.certfile is None:
        if arguments.keyfile or arguments.client_cafile:
            raise ValueError("--keyfile and --client-cafile need --certfile")
        return Web()
    return Web(
        tls_context(arguments.certfile, arguments.keyfile, arguments.client_cafile)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pychrony.prometheus",
        usage="%(prog)s [OPTION ...]",  # argparse would not fit it into 80 columns
        description="Export the state of chronyd to Prometheus. Exit status: 0 after "
        "SIGINT or SIGTERM, 1 cannot run, 2 usage error.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--listen",
        "--web.listen-address",
        action="append",
        type=_host_and_port,
        metavar="[HOST]:PORT",
        help="where to listen; without HOST on all addresses; may be repeated "
        "(127.0.0.1:9123)",
    )
    parser.add_argument(
        "--address",
        "--chrony.address",
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
        help="let /probe read this IP address, network (192.0.2.0/24) or host name; "
        "PORT is 323 by default, * for any; may be repeated; default: none",
    )
    add_timeout_and_retries(parser, retries=2)
    parser.add_argument(
        "--chrony.timeout",
        dest="timeout",
        type=_duration,
        metavar="DURATION",
        help="the same as --timeout, written as 5s or 500ms",
    )
    parser.add_argument(
        "--timeout-offset",
        type=positive,
        default=0.5,
        metavar="SECONDS",
        help="reply this long before the timeout of Prometheus (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=counting,
        default=1,
        metavar="N",
        help="number of processes that serve (%(default)s)",
    )
    _add_collectors(parser)
    _add_web(parser)
    _add_log(parser)
    return parser


def _add_collectors(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "collectors",
        "If any report is switched on, only tracking and those switched on are read; "
        "else all but those switched off.",
    )
    for name, shown in _COLLECTORS.items():
        for each in dict.fromkeys((shown, name)):
            group.add_argument(
                f"--collector.{each}",
                action=argparse.BooleanOptionalAction,
                dest=f"collector_{name}",
                help=f"read {name}, or not",
            )
    group.add_argument(
        "--collector.dns-lookups",
        action=argparse.BooleanOptionalAction,
        dest="dns",
        default=False,
        help="look up the names of the sources for source_name and tracking_name; "
        "they are kept for an hour",
    )
    group.add_argument(
        "--collector.chmod-socket",
        action=argparse.BooleanOptionalAction,
        dest="chmod_socket",
        default=False,
        help="accepted and ignored, for compatibility with chrony_exporter",
    )


def _add_web(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web.telemetry-path",
        dest="path",
        default="/metrics",
        metavar="PATH",
        help="path of the metrics of --address (%(default)s)",
    )
    parser.add_argument(
        "--web.systemd-socket",
        action=argparse.BooleanOptionalAction,
        dest="systemd",
        default=False,
        help="listen on the sockets that systemd passes",
    )
    parser.add_argument(
        "--web.config.file",
        dest="config",
        metavar="FILE",
        help="web configuration file of the Prometheus exporters: TLS, passwords, "
        "headers",
    )
    parser.add_argument(
        "--certfile", metavar="FILE", help="serve TLS with this certificate"
    )
    parser.add_argument(
        "--keyfile", metavar="FILE", help="key of --certfile, if that has none"
    )
    parser.add_argument(
        "--client-cafile",
        metavar="FILE",
        help="serve only clients with a certificate of these authorities",
    )


def _add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-v",
        "--verbose",
        dest="level",
        action="store_const",
        const="info",
        default="warn",
        help="the same as --log.level info",
    )
    parser.add_argument(
        "--log.level",
        dest="level",
        choices=tuple(_LEVELS),
        default="warn",
        help="what to log on the standard error output; info: why a report could not "
        "be read (%(default)s)",
    )
    parser.add_argument(
        "--log.format",
        dest="format",
        choices=("text", "logfmt", "json"),
        default="text",
        help="how to log (%(default)s)",
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        help="print the version of pychrony and which libchrony it uses",
    )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(versions())
        parser.exit()


def _duration(text: str) -> float:
    """Return seconds of a duration as Go writes it: 5s, 1m30s, 500ms."""
    parts = _DURATION.findall(text)
    seconds: float = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not seconds or "".join(map("".join, parts)) != text:
        return positive(text)
    return seconds


def _host_and_port(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[^]]+\]|[^]:[]*):([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not [HOST]:PORT, as in 127.0.0.1:9123, [::1]:9123 or :9123"
        )
    return match[1].strip("[]"), int(match[2])


def _log_as(level: str, form: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATS[form]())
    logging.basicConfig(handlers=[handler], level=_LEVELS[level])
    # An error of the standard error output cannot be reported on it.
    logging.raiseExceptions = False


class _Formatter(logging.Formatter):
    """Writes a record as ``key=value``, like the exporters in Go."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": {"warning": "warn", "critical": "error"}.get(level, level),
            "msg": super().format(record),
        }
        return self.write(fields)

    def write(self, fields: dict[str, Any]) -> str:
        quoted = re.compile(r'[^!-~]|[="]')
        return " ".join(
            f"{name}={_json(value) if quoted.search(value) else value}"
            for name, value in fields.items()
        )


class _JSONFormatter(_Formatter):
    def write(self, fields: dict[str, Any]) -> str:
        return _json(fields)


def _json(value: Any) -> str:
    import json  # takes milliseconds, and few need it

    return json.dumps(value)


_FORMATS: dict[str, type[logging.Formatter]] = {
    "text": logging.Formatter,
    "logfmt": _Formatter,
    "json": _JSONFormatter,
}
