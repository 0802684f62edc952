"""The HTTP face of the exporter: pages, allowed targets, and the server."""

from __future__ import annotations

import logging
import re
import socket
import socketserver
import ssl
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from html import escape
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import isfinite
from threading import Semaphore
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import ThreadingWSGIServer

# The parser that the connection uses: what is allowed is what is asked.
from pychrony._address import Target, parse
from pychrony.exceptions import ChronyAddressError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from prometheus_client.registry import Collector

    MakeCollector = Callable[[str | None, float | None], Collector]

_log = logging.getLogger("pychrony.prometheus")

_PREFIX = re.compile(r"/\d+")

# A client that has not sent its request by then is left [s].
_PATIENCE = 3.0

# How often such clients, and free descriptors, are looked for [s].
_LOOK = 0.5

# In less time nobody can be asked [s].
_SHORTEST = 0.01

_LANDING = """\
<!DOCTYPE html>
<html lang="en">
<head><title>pychrony exporter</title></head>
<body>
<h1>pychrony exporter</h1>
<p><a href="metrics">Metrics</a> of the chronyd of this exporter</p>
<form action="probe">
<label>Metrics of another: <input name="target" placeholder="192.0.2.7"></label>
<button>Probe</button>
</form>
<p>{allowed}</p>
</body>
</html>
"""


class Targets:
    """The chronyds that ``/probe`` may ask: none but those in the list.

    Args:
        entries: ``HOST``, ``HOST:PORT`` or ``HOST:*`` (any port; without one it
            is 323), with ``[...]`` around IPv6 where a port follows. HOST is an
            IP address, a network (``192.0.2.0/24``), or a host name, which
            allows whatever addresses that name has. A name that is probed is
            never looked up to see whether it is in a network.

    Raises:
        ValueError: an entry is none of these.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self.entries = tuple(entries)
        self._networks: list[tuple[IPv4Network | IPv6Network, int | None]] = []
        self._names: set[tuple[str, int | None]] = set()
        for entry in self.entries:
            self._add(entry)

    def _add(self, entry: str) -> None:
        text = entry.removesuffix(":*")
        prefix = _PREFIX.search(text)
        try:
            target = parse(_PREFIX.sub("", text, count=1))
            port = None if text != entry else target.port
            if target.is_name and not prefix:
                self._names.add((_name(target), port))
                return
            if prefix and text[: prefix.start()].lstrip("[") != target.host:
                raise ValueError("the prefix length stands behind the address")
            network = ip_network(target.host + (prefix[0] if prefix else ""))
            if isinstance(network, IPv6Network) and (
                network.network_address.ipv4_mapped or "%" in target.host
            ):
                raise ValueError("a scope, or IPv4 in IPv6, is never compared")
            self._networks.append((network, port))
        except ValueError as error:
            raise ValueError(
                f"{entry!r} cannot be allowed: {error}. Give an IP address, a network "
                "like 192.0.2.0/24, or a host name, with or without :PORT or :*"
            ) from error

    def __contains__(self, target: Target) -> bool:
        if target.port is None:  # a Unix socket
            return False
        if target.is_name:
            name = _name(target)
            return not self._names.isdisjoint({(name, target.port), (name, None)})
        address = ip_address(target.host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            # That is where the packets go.
            address = address.ipv4_mapped
        return any(
            address in network and port in (None, target.port)
            for network, port in self._networks
        )


def _name(target: Target) -> str:
    return target.host.lower().removesuffix(".")


class Application:
    """The WSGI application: ``/``, ``/metrics`` and ``/probe?target=ADDRESS``.

    Args:
        make_collector: given an address (``None``: the exporter's own chronyd)
            and the seconds that it may take (``None``: any), makes the collector
            for one scrape.
        targets: what may be probed.
        timeout_offset: seconds by which a scrape shall end before Prometheus
            gives it up.
    """

    def __init__(
        self,
        make_collector: MakeCollector,
        targets: Targets,
        timeout_offset: float,
    ) -> None:
        self._make_collector = make_collector
        self._targets = targets
        self._timeout_offset = timeout_offset
        self._pages = {
            "/": self._landing,
            "/metrics": self._metrics,
            "/probe": self._probe,
        }

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        try:
            page = self._pages.get(environ["PATH_INFO"])
            if page is None:
                raise _RefusedError(
                    "404 Not Found", "there is nothing but /, /metrics and /probe"
                )
            if environ["REQUEST_METHOD"] != "GET":
                raise _RefusedError("405 Method Not Allowed", "use GET")
            return page(environ, start_response)
        except _RefusedError as refused:
            return _respond(
                start_response, refused.status, f"{refused}\n", "text/plain"
            )

    def _landing(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        entries = ", ".join(self._targets.entries) or "nothing, see --allow"
        page = _LANDING.format(allowed=escape(f"May be probed: {entries}"))
        return _respond(start_response, "200 OK", page, "text/html")

    def _metrics(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self._make_collector(None, self._budget(environ)))
        return _expose(registry, environ, start_response)

    def _probe(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        given = parse_qs(environ["QUERY_STRING"]).get("target", [])
        if len(given) != 1:
            raise _RefusedError(
                "400 Bad Request", "give one target: /probe?target=ADDRESS"
            )
        try:
            target = parse(given[0])
        except ChronyAddressError as error:
            raise _RefusedError("400 Bad Request", error.message) from error
        if target not in self._targets:
            raise _RefusedError(
                "403 Forbidden",
                f"{given[0]!r} is not allowed as a target: see the option --allow of "
                "the exporter",
            )
        registry = CollectorRegistry()
        registry.register(self._make_collector(given[0], self._budget(environ)))
        return _expose(registry, environ, start_response)

    def _budget(self, environ: WSGIEnvironment) -> float | None:
        """Return how many seconds the scrape may take."""
        header = environ.get("HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS")
        if header is None:
            return None
        try:
            seconds = float(header)
        except ValueError:
            seconds = 0.0
        if not (isfinite(seconds) and seconds >= _SHORTEST):
            raise _RefusedError(
                "400 Bad Request",
                f"X-Prometheus-Scrape-Timeout-Seconds: {header!r} is not a number "
                f"of {_SHORTEST} or more",
            )
        return max(seconds - self._timeout_offset, seconds / 2)


class _RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _respond(
    start_response: StartResponse, status: str, text: str, kind: str
) -> Iterable[bytes]:
    start_response(status, [("Content-Type", f"{kind}; charset=utf-8")])
    return [text.encode(errors="backslashreplace")]


def _expose(
    registry: CollectorRegistry, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    untyped: Any = prometheus_client
    application: WSGIApplication = untyped.make_wsgi_app(registry)
    return application(environ, start_response)


class _Handler(WSGIRequestHandler):
    server: Any

    def parse_request(self) -> bool:
        received = super().parse_request()
        self.server.received(self.connection)
        return received

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("%s: %s", self.client_address[0], format % args)


class Server(ThreadingWSGIServer):
    """The HTTP server of prometheus_client, with bounds.

    Args:
        listen: host, empty for every address of this machine, and port, 0 for any
            that is free.
        application: what answers.
        concurrency: so many requests at once, the others wait for their turn.
        context: for TLS.

    Raises:
        OSError: it cannot listen there.
    """

    request_queue_size = 128

    def __init__(
        self,
        listen: tuple[str, int],
        application: Application,
        *,
        concurrency: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        host, port = listen
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # Of the wildcards, that of IPv6 takes IPv4, too.
        chosen = found[0] if host else max(found, key=lambda one: one[0])
        self.address_family, address = chosen[0], chosen[4]
        self._wildcard = not host
        self._room = Semaphore(concurrency)
        self._awaited: dict[socket.socket, float] = {}
        self._context = context
        super().__init__((str(address[0]), port), _Handler)
        self.set_app(application)

    @property
    def url(self) -> str:
        scheme = "https" if self._context else "http"
        host = self.server_name
        host = f"[{host}]" if ":" in host else host
        return f"{scheme}://{host}:{self.server_port}/"

    def server_bind(self) -> None:
        # Not that of HTTPServer, which asks the resolver for the host's name.
        if self._wildcard and self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:  # no descriptor is left, and it would be asked again at once
            sleep(_LOOK)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        while not self._room.acquire(timeout=_LOOK):
            self.service_actions()
        self._awaited[request] = monotonic() + _PATIENCE
        return True

    def received(self, request: socket.socket) -> None:
        """Wait no more for what was received."""
        self._awaited.pop(request, None)

    def service_actions(self) -> None:
        """Leave clients that send nothing, or little by little."""
        now = monotonic()
        for request, end in list(self._awaited.items()):
            if now > end:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        # Called for each request that was verified, however it ends; twice if a
        # signal ends all, which a bounded semaphore would not bear.
        self.received(request)
        try:
            super().shutdown_request(request)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_PATIENCE)
        if self._context is None:
            super().finish_request(request, client_address)
            return
        # Here and not where connections are accepted: a client that does not
        # shake hands holds up nobody else.
        with self._context.wrap_socket(
            request, server_side=True, do_handshake_on_connect=False
        ) as secured:
            self._awaited[secured] = self._awaited.pop(request)
            try:
                secured.do_handshake()
                super().finish_request(secured, client_address)
            finally:
                self.received(secured)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.info("%s: %s", client_address[0], sys.exc_info()[1])
