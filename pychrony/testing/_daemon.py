"""A chronyd that says what it is told to."""

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
from threading import Lock, Thread
from typing import Any, Generic, TypeVar, overload

from pychrony import (
    Activity,
    AuthData,
    NTPData,
    RTCData,
    SelectData,
    SelectState,
    ServerStats,
    Smoothing,
    Source,
    SourceMode,
    SourceState,
    SourceStats,
    TrackingStatus,
)

from ._factories import (
    make_activity,
    make_auth_data,
    make_ntp_data,
    make_select_data,
    make_server_stats,
    make_source,
    make_source_stats,
    make_tracking,
)
from ._wire import (
    ACTIVITY,
    ALL_COMMANDS,
    AUTH_DATA,
    BAD_LENGTH,
    BAD_VERSION,
    DEFAULT_OPEN_COMMANDS,
    INVALID,
    LONGEST_REQUEST,
    N_SOURCES,
    NOTHING,
    NTP_DATA,
    REPLY_HEADER,
    REQUEST_HEADER,
    RTCREPORT,
    SELECT_DATA,
    SERVER_STATS,
    SMOOTHING,
    SOURCE_DATA,
    SOURCESTATS,
    TRACKING,
    UNAUTHORIZED,
    VERSION,
    Count,
    Datagram,
    Reply,
    Report,
    Request,
    parse_request,
    refusal,
    success,
    timed,
)
from .faults import Fault

D = TypeVar("D", bound="Daemon")
G = TypeVar("G")
S = TypeVar("S")


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


class Replies:
    """All replies to one kind of request, by what it says besides its code."""

    def __init__(self, report: Report, replies: Mapping[bytes, Reply]) -> None:
        self.report = report
        self.by_argument = replies
        # As by chronyd, no less is demanded of a request than is sent.
        sizes = [len(before + after) + 4 for before, after in replies.values()]
        self.request_size = max(
            REQUEST_HEADER + report.argument.size,
            max(sizes, default=REPLY_HEADER + report.record_size),
        )


class Daemon:
    """What a ``ScriptedDaemon`` has, apart from its records and rights."""

    _replies: Mapping[int, Replies]

    def __init__(self, address: str, misbehave: Fault | None) -> None:
        self.misbehave = misbehave
        self.requests: list[tuple[str, int | str | None]] = []
        self.address = address
        self._server: Server | None = None

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
        listener = bound_socket(self.address)
        self.address = _address_of(listener)
        self._server = Server(f"{type(self).__name__} {self.address}")
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

    def __enter__(self: D) -> D:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _answer(self, data: bytes) -> Iterable[Datagram]:
        """Answer a request as chronyd does, or ignore it where chronyd does."""
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
            parts = refusal(code, INVALID)
        elif len(data) < replies.request_size:
            parts = refusal(code, BAD_LENGTH)
        else:
            report = replies.report
            end = REQUEST_HEADER + report.argument.size
            key = data[REQUEST_HEADER:end]
            argument = report.argument.read(key)
            if self._permits(report):
                parts = replies.by_argument.get(key) or refusal(code, report.absent)
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

    def _permits(self, report: Report) -> bool:
        return True


def _reference_id(source: Source) -> int:
    # A reference ID is an IPv4 address, or the name of a reference clock; the
    # wire has either in the same place, at the start of the record.
    _, record = SOURCE_DATA.encode(source)
    return 0 if _is_unresolved(source) else int.from_bytes(record[:4], "big")


def _ip_address(source: Source) -> str:
    return "" if source.mode is SourceMode.REFCLOCK else source.address


def _is_unresolved(source: Source) -> bool:
    return _ip_address(source).startswith("ID#")


_SELECTION = {
    SourceState.SELECTED: SelectState.BEST,
    SourceState.NONSELECTABLE: SelectState.NOT_SYNCHRONIZED,
    SourceState.FALSETICKER: SelectState.FALSETICKER,
    SourceState.JITTERY: SelectState.JITTERY,
    SourceState.UNSELECTED: SelectState.COMBINED,
    SourceState.SELECTABLE: SelectState.LARGE_DISTANCE,
}


def _default_sources(records: Mapping[str, Any]) -> tuple[Source, ...]:
    if not {"auth_data", "ntp_data"} & records.keys():
        return (make_source(),)
    named = (*records.get("auth_data", ()), *records.get("ntp_data", ()))
    addresses = dict.fromkeys(record.address for record in named)
    return tuple(make_source(address=address) for address in addresses)


def _default_source_stats(records: Mapping[str, Any]) -> tuple[SourceStats, ...]:
    return tuple(
        make_source_stats(
            reference_id=_reference_id(source), address=_ip_address(source)
        )
        for source in records["sources"]
    )


def _default_select_data(records: Mapping[str, Any]) -> tuple[SelectData, ...]:
    return tuple(
        make_select_data(
            reference_id=_reference_id(source),
            address=_ip_address(source),
            state=_SELECTION.get(source.state, SelectState.UNKNOWN),
            authentication=source.mode is not SourceMode.REFCLOCK,
            last_sample_ago=source.last_sample_ago,
        )
        for source in records["sources"]
    )


def _default_activity(records: Mapping[str, Any]) -> Activity:
    sources: tuple[Source, ...] = records["sources"]
    unresolved = sum(map(_is_unresolved, sources))
    resolved = sum(map(bool, map(_ip_address, sources))) - unresolved
    return make_activity(online=resolved, unresolved=unresolved)


def _ntp_addresses(records: Mapping[str, Any]) -> Iterable[str]:
    # The very ones that a client asks for: it has them from SOURCESTATS.
    return filter(None, (record.address for record in records["source_stats"]))


def _default_auth_data(records: Mapping[str, Any]) -> tuple[AuthData, ...]:
    return tuple(make_auth_data(address=one) for one in _ntp_addresses(records))


def _default_ntp_data(records: Mapping[str, Any]) -> tuple[NTPData, ...]:
    return tuple(
        make_ntp_data(address=one, remote_address=one)
        for one in _ntp_addresses(records)
    )


# Each attribute with records, the request that they answer, and what follows
# from the attributes above it and those that are given where it is not.
_REPORTS: dict[str, tuple[Report, Callable[[Mapping[str, Any]], Any]]] = {
    "tracking": (TRACKING, lambda records: make_tracking()),
    "sources": (SOURCE_DATA, _default_sources),
    "source_stats": (SOURCESTATS, _default_source_stats),
    "select_data": (SELECT_DATA, _default_select_data),
    "activity": (ACTIVITY, _default_activity),
    "auth_data": (AUTH_DATA, _default_auth_data),
    "ntp_data": (NTP_DATA, _default_ntp_data),
    "server_stats": (SERVER_STATS, lambda records: make_server_stats()),
    "rtc_data": (RTCREPORT, lambda records: None),
    "smoothing": (SMOOTHING, lambda records: None),
}


def _complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all records: those that are given, and what follows from them."""
    records = {
        name: value if _REPORTS[name][0].argument is NOTHING else tuple(value)
        for name, value in given.items()
        if value is not None
    }
    for name, (_, default) in _REPORTS.items():
        if name not in records:
            records[name] = default(records)
    return records


def _encode(report: Report, records: Iterable[object]) -> Replies:
    return Replies(
        report,
        {
            report.argument.key(position, record): success(report, record)
            for position, record in enumerate(records)
        },
    )


def _replies(records: Mapping[str, Any]) -> dict[int, Replies]:
    """Encode all records: the replies by the code of their request."""
    lists = ("sources", "source_stats", "select_data")
    count = Count(max(len(records[name]) for name in lists))
    replies = {N_SOURCES.code: _encode(N_SOURCES, (count,))}
    for name, (report, _) in _REPORTS.items():
        value = records[name]
        if report.argument is NOTHING:
            value = () if value is None else (value,)
        replies[report.code] = _encode(report, value)
    return replies


class _Records(Generic[G, S]):
    """An attribute of a ``ScriptedDaemon``: gives a G, and takes an S."""

    def __set_name__(self, owner: type[ScriptedDaemon], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, daemon: None, owner: type[ScriptedDaemon]) -> _Records[G, S]: ...

    @overload
    def __get__(self, daemon: ScriptedDaemon, owner: type[ScriptedDaemon]) -> G: ...

    def __get__(self, daemon: ScriptedDaemon | None, owner: Any) -> Any:
        if daemon is None:
            return self
        return daemon._records[self._name]  # pyright: ignore[reportPrivateUsage]

    def __set__(self, daemon: ScriptedDaemon, value: S) -> None:
        daemon._change({self._name: value})  # pyright: ignore[reportPrivateUsage]


class ScriptedDaemon(Daemon):
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
    coefficient cannot hold (relative error 2**-24 at most). Where a record has
    None for what older versions of chronyd did not send, it is sent as they
    did.

    Like chronyd, it answers everything over a Unix socket, but over UDP only
    what ``open_commands`` names: without them SELECT_DATA, AUTH_DATA, NTP_DATA
    and SERVER_STATS are refused as not authorised::

        ScriptedDaemon(open_commands=[*DEFAULT_OPEN_COMMANDS, "serverstats"])
        ScriptedDaemon(open_commands=ALL_COMMANDS)

    All attributes below may be replaced at any time; None puts the default back
    that the constructor describes.

    Attributes:
        address: Where it listens, as a client writes it: "127.0.0.1:40123",
            "[::1]:40123", or a path. A port 0 becomes a real one in ``start``
            and stays the same when it is started again.
        misbehave: What to do instead of sending the correct reply, see
            ``pychrony.testing.faults``; None for nothing.
        requests: What was asked so far, in order: ``Request.name``, and
            ``Request.index`` or ``Request.address``. May be emptied at any time.
        tracking: The answer to TRACKING.
        sources: The answers to SOURCE_DATA. N_SOURCES is answered with the
            length of the longest of this and the next two.
        source_stats: The answers to SOURCESTATS.
        select_data: The answers to SELECT_DATA.
        activity: The answer to ACTIVITY.
        auth_data: The answers to AUTH_DATA, found by their ``address``. Clients
            have the addresses from SOURCESTATS and ask for each.
        ntp_data: The answers to NTP_DATA, as ``auth_data``.
        server_stats: The answer to SERVER_STATS.
        rtc_data: The answer to RTCREPORT, None for "no RTC".
        smoothing: The answer to SMOOTHING, None for "not enabled".
        open_commands: What clients may read over UDP, as names of chronyd's
            directive ``opencommands``.
    """

    tracking = _Records[TrackingStatus, TrackingStatus | None]()
    sources = _Records[tuple[Source, ...], Iterable[Source] | None]()
    source_stats = _Records[tuple[SourceStats, ...], Iterable[SourceStats] | None]()
    select_data = _Records[tuple[SelectData, ...], Iterable[SelectData] | None]()
    activity = _Records[Activity, Activity | None]()
    auth_data = _Records[tuple[AuthData, ...], Iterable[AuthData] | None]()
    ntp_data = _Records[tuple[NTPData, ...], Iterable[NTPData] | None]()
    server_stats = _Records[ServerStats, ServerStats | None]()
    rtc_data = _Records[RTCData | None, RTCData | None]()
    smoothing = _Records[Smoothing | None, Smoothing | None]()

    def __init__(
        self,
        *,
        tracking: TrackingStatus | None = None,
        sources: Iterable[Source] | None = None,
        source_stats: Iterable[SourceStats] | None = None,
        select_data: Iterable[SelectData] | None = None,
        activity: Activity | None = None,
        auth_data: Iterable[AuthData] | None = None,
        ntp_data: Iterable[NTPData] | None = None,
        server_stats: ServerStats | None = None,
        rtc_data: RTCData | None = None,
        smoothing: Smoothing | None = None,
        open_commands: Iterable[str] | None = None,
        address: str = "127.0.0.1:0",
        misbehave: Fault | None = None,
    ) -> None:
        """Encode the records; nothing is opened yet.

        Args:
            tracking: By default, ``make_tracking``.
            sources: By default, a ``make_source`` for each address in
                ``auth_data`` and ``ntp_data``; one if neither is given.
            source_stats: By default, a ``make_source_stats`` for each source.
            select_data: By default, a ``make_select_data`` for each source.
            activity: By default, the NTP sources are online, or unresolved if
                their address starts with "ID#".
            auth_data: By default, a ``make_auth_data`` for each address in
                ``source_stats``.
            ntp_data: By default, a ``make_ntp_data`` for each address in
                ``source_stats``.
            server_stats: By default, ``make_server_stats``.
            rtc_data: By default, chronyd tracks no RTC.
            smoothing: By default, chronyd does not smooth the time.
            open_commands: By default, ``DEFAULT_OPEN_COMMANDS``; as in
                chronyd, these are replaced, not added to.
            address: IP address and port (0: any that is free), or the path of
                a Unix socket, which must not exist, in a directory where the
                client may write. libchrony accepts paths of up to about 64
                bytes.
            misbehave: One of ``pychrony.testing.faults``, or your own.

        Raises:
            ValueError: A record has a value that the protocol cannot say, or
                chronyd knows no such command.
        """
        super().__init__(address, misbehave)
        self._lock = Lock()
        self._given: dict[str, Any] = {}
        self._change(
            {
                "tracking": tracking,
                "sources": sources,
                "source_stats": source_stats,
                "select_data": select_data,
                "activity": activity,
                "auth_data": auth_data,
                "ntp_data": ntp_data,
                "server_stats": server_stats,
                "rtc_data": rtc_data,
                "smoothing": smoothing,
            }
        )
        self.open_commands = open_commands

    def _change(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            given = {**self._given, **change}
            records = _complete(given)
            # The server sees either all of the old replies or all of the new ones.
            self._replies = _replies(records)
            self._records = records
            self._given = {
                name: records[name] for name in given if given[name] is not None
            }

    @property
    def open_commands(self) -> frozenset[str]:
        return self._open_commands

    @open_commands.setter
    def open_commands(self, commands: Iterable[str] | None) -> None:
        wanted = DEFAULT_OPEN_COMMANDS if commands is None else frozenset(commands)
        unknown = sorted(wanted - ALL_COMMANDS)
        if unknown:
            raise ValueError(
                f"opencommands of chronyd knows no {', '.join(map(repr, unknown))}, "
                f"only {', '.join(sorted(ALL_COMMANDS))}"
            )
        self._open_commands = wanted

    def _permits(self, report: Report) -> bool:
        unix = self.address.startswith("/")
        return unix or not self._open_commands.isdisjoint(report.commands)


def bound_socket(address: str) -> socket.socket:
    """Return a datagram socket there; to one with a path any user may send."""
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
