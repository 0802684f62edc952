"""A chronyd that says what it is told to."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from threading import Lock, Thread
from typing import Any, NamedTuple

from pychrony import RTCData, Source, SourceMode, SourceStats, TrackingStatus

from ._factories import make_source, make_source_stats, make_tracking
from ._wire import (
    BAD_LENGTH,
    BAD_VERSION,
    INVALID,
    LONGEST_REQUEST,
    N_SOURCES,
    RTCREPORT,
    SOURCE_DATA,
    SOURCESTATS,
    SUCCESS,
    TRACKING,
    VERSION,
    Count,
    Datagram,
    Report,
    Request,
    around_sequence,
    parse_request,
    refusal,
    timed,
)
from .faults import Fault


class Server:
    """Answers datagrams on any number of sockets, in a thread of its own.

    The sockets become its property: it closes them when it ends.
    """

    def __init__(self, name: str) -> None:
        self.error: Exception | None = None
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._late: list[tuple[float, int, socket.socket, bytes, Any]] = []
        self._order = itertools.count()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def listen(
        self,
        listener: socket.socket,
        answer: Callable[[bytes], Iterable[Datagram]],
    ) -> None:
        """Answer what arrives on a bound socket; to be called before ``start``."""
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, (listener, answer))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._waker.close()
        self._thread.join()

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
            for key in self._selector.get_map().values():
                (key.data[0] if key.data else self._woken).close()
            self._selector.close()

    def _serve(
        self,
        listener: socket.socket,
        answer: Callable[[bytes], Iterable[Datagram]],
    ) -> None:
        # One datagram per wake-up: no other socket has to wait for a busy one.
        try:
            request, peer = listener.recvfrom(LONGEST_REQUEST + 1)
        except BlockingIOError:
            return  # the kernel found its checksum wrong when it was to hand it out
        if peer is None:
            return  # a Unix socket without a path cannot be answered
        for datagram in answer(request):
            seconds, reply = timed(datagram)
            if seconds > 0:
                due = time.monotonic() + seconds
                entry = (due, next(self._order), listener, reply, peer)
                heapq.heappush(self._late, entry)
            else:
                self._send(listener, reply, peer)

    def _send_late(self) -> float | None:
        """Send what is due; return the seconds until something else is."""
        while self._late:
            wait = self._late[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, listener, reply, peer = heapq.heappop(self._late)
            self._send(listener, reply, peer)
        return None

    def _send(self, listener: socket.socket, reply: bytes, peer: Any) -> None:
        # The client may be gone, or not read its replies: as with chronyd, this
        # one is lost then, and nobody is told.
        with contextlib.suppress(OSError):
            listener.sendto(reply, peer)


class _Replies(NamedTuple):
    """All replies to one kind of request, each in two parts.

    They stand before and after the sequence number, the only thing in which
    the replies to two equal requests differ.
    """

    name: str
    request_size: int
    indexed: bool
    absent: tuple[bytes, bytes]
    records: Sequence[tuple[bytes, bytes]]


def _encoded(report: Report, records: Iterable[object]) -> _Replies:
    return _Replies(
        report.request,
        report.request_size,
        report.indexed,
        refusal(report.code, report.absent),
        [
            around_sequence(report.code, report.reply, SUCCESS, report.encode(record))
            for record in records
        ],
    )


def _stats_of(source: Source) -> SourceStats:
    # A reference ID is an IPv4 address, or the name of a reference clock; the
    # wire has either in the same place, at the start of the record.
    start = SOURCE_DATA.encode(source)[:4]
    return make_source_stats(
        address="" if source.mode is SourceMode.REFCLOCK else source.address,
        reference_id=int.from_bytes(start, "big"),
    )


class _Script(NamedTuple):
    """The records of one daemon."""

    tracking: TrackingStatus
    sources: tuple[Source, ...]
    given_stats: tuple[SourceStats, ...] | None
    rtc_data: RTCData | None

    @property
    def source_stats(self) -> tuple[SourceStats, ...]:
        if self.given_stats is None:
            return tuple(map(_stats_of, self.sources))
        return self.given_stats

    def replies(self) -> dict[int, _Replies]:
        """Encode the records: all replies by the code of their request."""
        source_stats = self.source_stats
        count = Count(max(len(self.sources), len(source_stats)))
        return {
            report.code: _encoded(report, records)
            for report, records in (
                (N_SOURCES, (count,)),
                (SOURCE_DATA, self.sources),
                (TRACKING, (self.tracking,)),
                (SOURCESTATS, source_stats),
                (RTCREPORT, () if self.rtc_data is None else (self.rtc_data,)),
            )
        }


class ScriptedDaemon:
    """A server that answers like chronyd, with the records that it is given.

    It listens on one address and runs in a thread, between ``start`` and ``stop``
    or inside of ``with``::

        with ScriptedDaemon(tracking=make_tracking(stratum=3)) as daemon:
            with ChronyConnection(daemon.address) as connection:
                assert connection.get_tracking().stratum == 3
                daemon.misbehave = faults.silent
                ...
        assert daemon.requests == [("TRACKING", None), ...]

    Only what chronyd would send is read from the records: derived attributes
    such as ``reference_id_name`` are not sent, and of ``ref_time`` and
    ``ref_time_ns`` the latter is. Numbers lose what the protocol's 24 bits of
    coefficient cannot hold (relative error 2**-24 at most).

    Attributes:
        address: Where it listens, as a client writes it: "127.0.0.1:40123",
            "[::1]:40123", or a path. A port 0 becomes a real one in ``start``
            and stays the same when it is started again.
        misbehave: What to do instead of sending the correct reply, see
            ``pychrony.testing.faults``; None for nothing. May be replaced at any
            time.
        requests: What was asked so far, in order: ``Request.name`` and
            ``Request.index``. May be emptied at any time.
    """

    def __init__(
        self,
        *,
        tracking: TrackingStatus | None = None,
        sources: Iterable[Source] | None = None,
        source_stats: Iterable[SourceStats] | None = None,
        rtc_data: RTCData | None = None,
        address: str = "127.0.0.1:0",
        misbehave: Fault | None = None,
    ) -> None:
        """Encode the records; nothing is opened yet.

        Args:
            tracking: By default, ``make_tracking``.
            sources: By default, one ``make_source``.
            source_stats: By default, a ``make_source_stats`` for each source.
            rtc_data: By default, chronyd tracks no RTC.
            address: IP address and port (0: any that is free), or the path of
                a Unix socket, which must not exist, in a directory where the
                client may write. libchrony accepts paths of up to about 64
                bytes.
            misbehave: One of ``pychrony.testing.faults``, or your own.

        Raises:
            ValueError: A record has a value that the protocol cannot say.
        """
        self.misbehave = misbehave
        self.requests: list[tuple[str, int | None]] = []
        self.address = address
        self._server: Server | None = None
        self._lock = Lock()
        self._perform(
            _Script(
                make_tracking() if tracking is None else tracking,
                (make_source(),) if sources is None else tuple(sources),
                None if source_stats is None else tuple(source_stats),
                rtc_data,
            )
        )

    def _perform(self, script: _Script) -> None:
        # The server sees either all of the old replies or all of the new ones.
        self._replies = script.replies()
        self._script = script

    def _change(self, **records: Any) -> None:
        with self._lock:
            self._perform(self._script._replace(**records))

    @property
    def tracking(self) -> TrackingStatus:
        """The answer to TRACKING. May be replaced at any time."""
        return self._script.tracking

    @tracking.setter
    def tracking(self, record: TrackingStatus) -> None:
        self._change(tracking=record)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The answers to SOURCE_DATA. May be replaced at any time."""
        return self._script.sources

    @sources.setter
    def sources(self, records: Iterable[Source]) -> None:
        self._change(sources=tuple(records))

    @property
    def source_stats(self) -> tuple[SourceStats, ...]:
        """The answers to SOURCESTATS. May be replaced at any time.

        Unless they were given, they follow ``sources``. N_SOURCES is answered
        with the length of the longer of the two.
        """
        return self._script.source_stats

    @source_stats.setter
    def source_stats(self, records: Iterable[SourceStats]) -> None:
        self._change(given_stats=tuple(records))

    @property
    def rtc_data(self) -> RTCData | None:
        """The answer to RTCREPORT, None for "no RTC". May be replaced at any time."""
        return self._script.rtc_data

    @rtc_data.setter
    def rtc_data(self, record: RTCData | None) -> None:
        self._change(rtc_data=record)

    def start(self) -> None:
        """Listen, and answer from now on.

        Raises:
            ValueError: The address is neither a path nor an IP address and port.
            OSError: It cannot be had.
            OverflowError: The port is above 65535.
            RuntimeError: The daemon runs already.
        """
        if self._server is not None:
            raise RuntimeError("the daemon runs already")
        listener = _listener(self.address)
        self.address = _address_of(listener)
        self._server = Server(f"ScriptedDaemon {self.address}")
        self._server.listen(listener, self._answer)
        self._server.start()

    def stop(self) -> None:
        """Stop answering, and leave no thread, descriptor or file behind.

        Delayed replies that are not due are not sent. Nothing happens if the
        daemon does not run.

        Raises:
            Exception: What ``misbehave`` raised; with it, the daemon fell silent.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.stop()
        if self.address.startswith("/"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)
        if server.error is not None:
            raise server.error

    def __enter__(self) -> ScriptedDaemon:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _answer(self, data: bytes) -> Iterable[Datagram]:
        """Answer a request as chronyd does, or ignore it where chronyd does."""
        parsed = parse_request(data)
        if parsed is None:
            return ()
        version, code, attempt, sequence, argument = parsed
        replies = self._replies.get(code)
        name = str(code) if replies is None else replies.name
        index = None
        if version != VERSION:
            before, after = refusal(code, BAD_VERSION)
        elif replies is None:
            before, after = refusal(code, INVALID)
        elif len(data) < replies.request_size:
            before, after = refusal(code, BAD_LENGTH)
        else:
            position = 0
            if replies.indexed:
                position = index = argument
            records = replies.records
            before, after = (
                records[position] if position < len(records) else replies.absent
            )
        self.requests.append((name, index))
        reply = before + data[8:12] + after
        misbehave = self.misbehave
        if misbehave is None:
            return (reply,)
        request = Request(name, code, index, attempt, sequence, data)
        return misbehave(request, reply)


def _listener(address: str) -> socket.socket:
    """Return a socket that is bound to the address."""
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
                f"{address!r} is neither a path from / on nor an IP address and port"
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
