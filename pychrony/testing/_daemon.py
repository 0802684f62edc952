"""A daemon that sends prepared replies."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from threading import Thread
from typing import Any, TypeAlias, TypeVar

from ._reports import CONTROL, INVALID, Report
from ._wire import (
    BAD_LENGTH,
    BAD_VERSION,
    LONGEST_REQUEST,
    REPLY_HEADER,
    REQUEST_HEADER,
    UNAUTHORIZED,
    VERSION,
    Datagram,
    Reply,
    Request,
    parse_request,
    refusal,
    timed,
)
from .faults import Fault

Answer: TypeAlias = Callable[[bytes], Iterable[Datagram]]
"""Given a request, returns what is sent."""

D = TypeVar("D", bound="Daemon")


class Server:
    """Answers datagrams on any number of sockets, in its own thread.

    It owns the sockets, and closes them when it ends.
    """

    def __init__(self, name: str) -> None:
        self.error: Exception | None = None
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._late: list[tuple[float, int, socket.socket, bytes, Any]] = []
        self._order = itertools.count()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def listen(self, listener: socket.socket, answer: Answer) -> None:
        """Answer requests on a bound socket; to be called before ``start``."""
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, (listener, answer))

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:  # there are too many
            self._waker.close()
            self._close()
            raise

    def stop(self) -> None:
        self._waker.close()
        self._thread.join()

    def _close(self) -> None:
        for key in self._selector.get_map().values():
            (key.data[0] if key.data else self._woken).close()
        self._selector.close()

    def _run(self) -> None:
        try:
            while True:
                for key, _ in self._selector.select(self._send_late()):
                    if key.data is None:
                        return
                    self._serve(*key.data)
        except Exception as error:
            self.error = error
        finally:
            self._close()

    def _serve(self, listener: socket.socket, answer: Answer) -> None:
        # One datagram per wake-up: no other socket has to wait for a busy one.
        try:
            request, peer = listener.recvfrom(LONGEST_REQUEST + 1)
        except BlockingIOError:
            return  # its checksum is wrong, as the kernel finds only now
        if peer is None:
            return  # a client socket without a path gets no reply
        for datagram in answer(request):
            seconds, reply = timed(datagram)
            if seconds > 0:
                due = time.monotonic() + seconds
                entry = (due, next(self._order), listener, reply, peer)
                heapq.heappush(self._late, entry)
            else:
                self._send(listener, reply, peer)

    def _send_late(self) -> float | None:
        """Send the delayed replies that are due; return the seconds until the next."""
        while self._late:
            wait = self._late[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, listener, reply, peer = heapq.heappop(self._late)
            self._send(listener, reply, peer)
        return None

    def _send(self, listener: socket.socket, reply: bytes, peer: Any) -> None:
        # The client may be gone, or not read its replies: as with chronyd, this
        # one is lost then, without an error.
        with contextlib.suppress(OSError):
            listener.sendto(reply, peer)


class Replies:
    """All replies to one kind of request, by its argument."""

    def __init__(self, report: Report, replies: Mapping[bytes, Reply]) -> None:
        self.report = report
        self.by_argument = replies
        # Like chronyd: a request must be as long as its reply.
        sizes = [len(before + after) + 4 for before, after in replies.values()]
        self.request_size = max(
            REQUEST_HEADER + report.argument.size,
            max(sizes, default=REPLY_HEADER + report.record_size),
        )


class Daemon:
    """A daemon on one address, with prepared replies and a fault."""

    _replies: Mapping[int, Replies]

    def __init__(
        self, address: str | os.PathLike[str], misbehave: Fault | None
    ) -> None:
        self.misbehave = misbehave
        self.requests: list[tuple[str, int | str | None]] = []
        self.address = os.fspath(address)
        self._server: Server | None = None

    def start(self) -> None:
        """Start to listen and answer.

        Raises:
            ValueError: The address is neither a path nor an IP address and port.
            OSError: It cannot listen there; the message names the address.
            OverflowError: The port is above 65535.
            RuntimeError: The daemon is running.
        """
        if self._server is not None:
            raise RuntimeError("the daemon runs already")
        try:
            listener = bound_socket(self.address)
        except (OSError, OverflowError) as error:
            # The error of bind() does not name the address.
            number = getattr(error, "errno", None)
            why = getattr(error, "strerror", None) or str(error)
            message = f"cannot listen on {self.address}: {why}"
            raise type(error)(*filter(None, (number, message))) from None
        try:
            self.address = _address_of(listener)
            server = Server(f"{type(self).__name__} {self.address}")
            server.listen(listener, self._answer)
            server.start()
        except BaseException:
            listener.close()
            self._remove_file()
            raise
        self._server = server

    def stop(self) -> None:
        """Stop, and release the thread, the socket and its file.

        Delayed replies that are not due are not sent. If the daemon is not running,
        this does nothing.

        Raises:
            Exception: What ``misbehave`` raised, after which nothing was answered.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.stop()
        self._remove_file()
        if server.error is not None:
            raise server.error

    def _remove_file(self) -> None:
        if self.address.startswith("/"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)

    def __enter__(self: D) -> D:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _answer(self, data: bytes) -> Iterable[Datagram]:
        """Answer a request, or ignore it, like chronyd."""
        parsed = parse_request(data)
        if parsed is None:
            return ()
        version, code, attempt, sequence = parsed
        replies = self._replies.get(code)
        name = str(code) if replies is None else replies.report.request
        argument: dict[str, Any] = {}
        if version != VERSION:
            parts = refusal(code, BAD_VERSION)
        elif replies is None:
            parts = refusal(code, UNAUTHORIZED if code in CONTROL else INVALID)
        elif len(data) < replies.request_size:
            parts = refusal(code, BAD_LENGTH)
        else:
            report = replies.report
            end = REQUEST_HEADER + report.argument.size
            key = data[REQUEST_HEADER:end]
            argument = report.argument.read(key)
            if self._permits(report):
                parts = self._reply(replies, key) or refusal(code, report.absent)
            else:
                parts = refusal(code, UNAUTHORIZED)
        request = Request(
            **{"index": None, **argument},
            name=name,
            code=code,
            attempt=attempt,
            sequence=sequence,
            data=data,
        )
        which = request.address if request.index is None else request.index
        self.requests.append((name, which))
        reply = data[8:12].join(parts)
        misbehave = self.misbehave
        return (reply,) if misbehave is None else misbehave(request, reply)

    def _reply(self, replies: Replies, argument: bytes) -> Reply | None:
        return replies.by_argument.get(argument)

    def _permits(self, report: Report) -> bool:
        return True


def bound_socket(address: str) -> socket.socket:
    """Return a bound datagram socket; to a Unix socket any user may send."""
    where: str | tuple[str, int]
    if address.startswith("/"):
        family, where = socket.AF_UNIX, address
    else:
        host, _, port = address.rpartition(":")
        try:
            ip = ip_address(host.removeprefix("[").removesuffix("]"))
            where = str(ip), int(port)
        except ValueError:
            raise ValueError(
                f"{address!r} is neither an absolute path nor an IP address and port"
            ) from None
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_DGRAM)
    try:
        listener.bind(where)
        if family == socket.AF_UNIX:
            os.chmod(address, 0o666)
    except BaseException:
        listener.close()
        raise
    return listener


def _address_of(listener: socket.socket) -> str:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(name)
    host, port = name[:2]
    return f"{host}:{port}" if listener.family == socket.AF_INET else f"[{host}]:{port}"
