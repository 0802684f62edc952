"""The command line of the exporter."""

from __future__ import annotations

import argparse
import logging
import re
import signal
import ssl
import sys
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import TYPE_CHECKING

import pychrony
from pychrony._cli import add_patience, counting, positive, silence

from . import _exporter, _metrics
from ._collector import Collector

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(argv: Sequence[str] | None) -> int:
    """Run the exporter until SIGINT or SIGTERM, and return its exit status."""
    try:
        arguments = _arguments(argv)
    except pychrony.ChronyLibraryError as error:
        print(error, file=sys.stderr)
        return 1
    logging.basicConfig(format="%(message)s", level=arguments.level)
    # A list far away takes two descriptors a source.
    most = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (most, most))
    try:
        # An end that is asked for is no failure.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server = _exporter.Server(
                arguments.listen,
                _exporter.Application(
                    arguments.collector, arguments.targets, arguments.timeout_offset
                ),
                concurrency=arguments.concurrency,
                context=arguments.context,
            )
        except OSError as error:
            host, port = arguments.listen
            print(f"cannot listen on {host}:{port}: {error}", file=sys.stderr)
            return 1
        with server:
            try:
                print(f"listening on {server.url}", file=sys.stderr, flush=True)
            except OSError:  # nobody has to read it
                silence(sys.stderr)
            server.serve_forever()
    except KeyboardInterrupt:
        pass
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        arguments.targets = _exporter.Targets(arguments.allow)
        arguments.collector = _maker(arguments)
        arguments.collector(None, None)
        arguments.context = _tls(arguments)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _parser() -> argparse.ArgumentParser:
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
    add_patience(parser, "--chrony.timeout", retries=2)
    parser.add_argument(
        "--timeout-offset",
        type=positive,
        default=0.5,
        metavar="SECONDS",
        help="end a scrape so long before Prometheus gives it up (%(default)s)",
    )
    parser.add_argument(
        "--concurrency",
        type=counting,
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
    return parser


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
        # Without a password it would ask for one at the terminal.
        context.load_cert_chain(arguments.certfile, arguments.keyfile, password="")
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
