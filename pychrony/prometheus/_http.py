"""The HTTP server: one request for each connection, on the event loop.

Connections that stay open would not make Prometheus faster (measured), and those of
5,000 targets would each take a descriptor.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence

_log = logging.getLogger("pychrony.prometheus")

# Maximum time for a client to send its request, and to read the response [s].
_REQUEST_TIME, _ANSWER_TIME = 3.0, 10.0

# Maximum length of a request [bytes].
_LONGEST_HEAD = 16_384

_END = b"\r\n\r\n"


@dataclass
class Request:
    """A request; the names of the headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass
class Response:
    """A response."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def encode(self, *, body: bool = True) -> bytes:
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        status = HTTPStatus(self.status)
        return (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Content-Type: {self.kind}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            f"{head}Connection: close\r\n\r\n"
        ).encode() + (self.body if body else b"")


def text(status: int, message: str) -> Response:
    """Return a page with one line of text."""
    return Response(status, f"{message}\n".encode(errors="backslashreplace"))


class Server:
    """Answers requests on listening sockets.

    Args:
        sockets: bound sockets, which are left open.
        answer: returns the response to a request.
        limit: maximum of concurrent connections; the others get a 503.
        context: for TLS.
        refused: called with the status of a response that is not from ``answer``.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        answer: Callable[[Request], Awaitable[Response]],
        *,
        limit: int,
        context: ssl.SSLContext | None = None,
        refused: Callable[[int], object] = id,
    ) -> None:
        self.answer = answer
        self.limit = limit
        self.refused = refused
        self.clients: set[_Client] = set()
        self._sockets = sockets
        self._context = context
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Server:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report)
        options: dict[str, Any] = {}
        if self._context:
            options = {"ssl": self._context, "ssl_handshake_timeout": _REQUEST_TIME}
        for each in self._sockets:
            # Before dup(), which makes a blocking socket block again in all workers
            # that share it. One of them would wait in accept() for a connection that
            # another has taken.
            each.setblocking(False)
            self._servers.append(
                await loop.create_server(
                    lambda: _Client(self), sock=each.dup(), backlog=128, **options
                )
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        tasks = [client.abort() for client in list(self.clients)]
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error outside of a request."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        # asyncio reports it at each attempt to accept a connection, up to a thousand
        # times, and tries again after a second.
        _log.debug("no descriptor is left to accept a connection")
    else:
        loop.default_exception_handler(context)


class _Client(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_REQUEST_TIME, self._transport.abort)
        self._server.clients.add(self)
        if len(self._server.clients) > self._server.limit:
            self._refuse(503, "too many connections at once, see LimitNOFILE")

    def data_received(self, data: bytes) -> None:
        if self._task or self._transport.is_closing():
            return  # what follows the head is ignored
        self._received += data
        head, end, _ = self._received.partition(_END)
        if not end:
            if len(head) > _LONGEST_HEAD:
                self._refuse(431, f"more than {_LONGEST_HEAD} bytes of headers")
            return
        self._timer.cancel()
        request = _parse(head)
        if request is None:
            self._refuse(400, "this is no HTTP request")
        else:
            self._task = self._loop.create_task(self._answer(request))

    def eof_received(self) -> bool:
        # A client that has shut down its side may still wait for the response.
        plain = self._transport.get_extra_info("ssl_object") is None
        return plain and self._task is not None

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.clients.discard(self)
        self._timer.cancel()
        if self._task:
            self._task.cancel()

    def abort(self) -> asyncio.Task[None] | None:
        """End the connection; return its task, which has yet to end."""
        self._transport.abort()
        if self._task:
            self._task.cancel()
        return self._task

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._server.answer(request)
        except Exception:
            _log.exception("%s %s", request.method, request.path)
            self._refuse(500, "an error of the exporter, see its log")
        else:
            self._send(response.encode(body=request.method != "HEAD"))

    def _refuse(self, status: int, message: str) -> None:
        self._server.refused(status)
        self._send(text(status, message).encode())

    def _send(self, data: bytes) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(_ANSWER_TIME, self._transport.abort)
        self._transport.write(data)
        self._transport.close()


def _parse(head: bytes) -> Request | None:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    method, target, _ = words
    path, _, query = target.partition("?")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            return None
        headers[name.lower()] = value.strip()
    return Request(method, unquote(path), query, headers)
