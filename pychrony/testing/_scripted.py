"""The scripted daemon: its records and their defaults, and its permissions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from threading import Lock
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

from ._daemon import Daemon, Replies
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
from ._reports import (
    ACTIVITY,
    ALL_COMMANDS,
    AUTH_DATA,
    CLIENT_ACCESSES,
    DEFAULT_OPEN_COMMANDS,
    MANUAL_LIST,
    N_SOURCES,
    NOTHING,
    NTP_DATA,
    NTP_SOURCE_NAME,
    RTCREPORT,
    SELECT_DATA,
    SERVER_STATS,
    SMOOTHING,
    SOURCE_DATA,
    SOURCESTATS,
    TRACKING,
    Count,
    Report,
    SourceName,
)
from ._wire import Reply, success
from .faults import Fault

G = TypeVar("G")
S = TypeVar("S")


def _reference_id(source: Source) -> int:
    # A reference ID is an IPv4 address, or the name of a reference clock; the
    # wire has either in the same place, at the start of the record.
    _, record = SOURCE_DATA.encode(source)
    return 0 if _is_unresolved(source) else int.from_bytes(record[:4], "big")


def _ip_address(source: Source) -> str:
    return "" if source.mode is SourceMode.REFCLOCK else source.address


def _is_unresolved(source: Source) -> bool:
    return _ip_address(source).startswith("ID#")


_NEVER = 0xFFFFFFFF

# Between two updates of a clock that is not scripted [ns].
_UPDATE_INTERVAL = 64 * 10**9

_SELECTION = {
    SourceState.SELECTED: SelectState.BEST,
    SourceState.NONSELECTABLE: SelectState.NOT_SYNCHRONIZED,
    SourceState.FALSETICKER: SelectState.FALSETICKER,
    SourceState.JITTERY: SelectState.JITTERY,
    SourceState.UNSELECTED: SelectState.COMBINED,
    SourceState.SELECTABLE: SelectState.LARGE_DISTANCE,
}


def _following(sources: Iterable[Source], updated: int) -> TrackingStatus:
    """Return the state of a clock that follows the selected one of these."""
    source = _selected(sources)
    if source is None:
        return make_tracking(ref_time_ns=updated)
    return make_tracking(
        reference_id=_reference_id(source),
        reference_id_name=source.address,
        reference_ip=_ip_address(source),
        ref_time_ns=updated,
    )


def _selected(sources: Iterable[Source]) -> Source | None:
    return next(filter(Source.is_selected, sources), None)


def _default_sources(records: Mapping[str, Any]) -> tuple[Source, ...]:
    if not {"auth_data", "ntp_data"} & records.keys():
        if {"source_stats", "select_data"} & records.keys():
            return (make_source(),)
        combined = make_source(stratum=1, state=SourceState.UNSELECTED)
        return (
            make_source(stratum=1),
            *(replace(combined, address=f"192.168.1.{one}") for one in (101, 102, 103)),
        )
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
    # Clients take the addresses from SOURCESTATS.
    return filter(None, (record.address for record in records["source_stats"]))


def _default_auth_data(records: Mapping[str, Any]) -> tuple[AuthData, ...]:
    return tuple(make_auth_data(address=one) for one in _ntp_addresses(records))


def _default_ntp_data(records: Mapping[str, Any]) -> tuple[NTPData, ...]:
    return tuple(
        make_ntp_data(address=one, remote_address=one)
        for one in _ntp_addresses(records)
    )


# Each attribute with records, the request that they answer, and its default, which
# depends on the attributes above it and on those that are given.
_REPORTS: dict[str, tuple[Report, Callable[[Mapping[str, Any]], Any]]] = {
    # Of each time when it is asked for: see _reply.
    "tracking": (TRACKING, lambda records: None),
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
    """Return all records: those that are given, and the defaults of the others."""
    records = {
        name: value if _REPORTS[name][0].argument is NOTHING else tuple(value)
        for name, value in given.items()
        if name in _REPORTS and value is not None
    }
    records["source_names"] = dict(given.get("source_names") or {})
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
    """Return the encoded replies by the code of their request."""
    lists = ("sources", "source_stats", "select_data")
    count = Count(max(len(records[name]) for name in lists))
    replies = {N_SOURCES.code: _encode(N_SOURCES, (count,))}
    for name, (report, _) in _REPORTS.items():
        value = records[name]
        if report.argument is NOTHING:
            value = () if value is None else (value,)
        replies[report.code] = _encode(report, value)
    names = {one: one for one in _ntp_addresses(records)} | records["source_names"]
    named = (SourceName(*item) for item in names.items())
    replies[NTP_SOURCE_NAME.code] = _encode(NTP_SOURCE_NAME, named)
    for report in (MANUAL_LIST, CLIENT_ACCESSES):
        replies[report.code] = _encode(report, (None,))
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


class _Tracking(_Records[TrackingStatus, TrackingStatus | None]):
    """The attribute whose default depends on the time."""

    def __get__(self, daemon: ScriptedDaemon | None, owner: Any) -> Any:
        if daemon is None:
            return self
        return daemon._tracking_now()  # pyright: ignore[reportPrivateUsage]


class ScriptedDaemon(Daemon):
    """A daemon that replies like chronyd, with the records that it is given.

    By default its clock is healthy and passes ``pychrony.check``: it follows the first
    of four sources that agree, and is updated every 64 seconds.

    It listens on one address and runs in a thread, from ``start`` to ``stop`` or in a
    ``with`` block::

        with ScriptedDaemon(tracking=make_tracking(stratum=3)) as daemon:
            with ChronyConnection(daemon.address) as connection:
                assert connection.get_tracking().stratum == 3
                daemon.misbehave = faults.silent
                ...
        assert daemon.requests == [("TRACKING", None), ...]

    It sends only what chronyd would send: ``ref_time_ns`` and not ``ref_time``, and no
    derived attributes such as ``reference_id_name``. Numbers have the protocol's
    precision of 24 bits (relative error at most 2**-24). A record with None for
    attributes that older versions of chronyd do not send is sent in their layout.

    Like chronyd, it answers all requests over a Unix socket, but over UDP only those in
    ``open_commands``. By default it refuses SELECT_DATA, AUTH_DATA, NTP_DATA,
    SERVER_STATS and the list of clients over UDP as not authorised. It has no clients
    and no manual samples, and refuses all commands that would change something::

        ScriptedDaemon(open_commands=[*DEFAULT_OPEN_COMMANDS, "serverstats"])
        ScriptedDaemon(open_commands=ALL_COMMANDS)

    Each attribute below except ``requests`` is also an argument, and can be set at any
    time; None sets the default.

    Attributes:
        address: Where it listens: "127.0.0.1:40123", "[::1]:40123", or the path of a
            Unix socket, which must not exist, in a directory where the client may
            write. By default "127.0.0.1:0"; ``start`` replaces port 0 by a free one.
        misbehave: A fault, applied to each reply: one of ``pychrony.testing.faults``,
            or your own.
        requests: The requests so far, in order: ``Request.name``, and
            ``Request.index`` or ``Request.address``. May be emptied at any time.
        tracking: The answer to TRACKING. By default, a ``make_tracking`` of a clock
            that follows the selected source, or 127.0.0.1 if none is selected, and is
            updated every 64 seconds: ``ref_time`` is computed at each request.
        sources: The answers to SOURCE_DATA. By default, a ``make_source`` for each
            address in ``auth_data`` and ``ntp_data``; else one, or four that agree if
            no list is given. The answer to N_SOURCES is the length of the longest of
            this and the next two.
        source_stats: The answers to SOURCESTATS. By default, a ``make_source_stats``
            for each source.
        select_data: The answers to SELECT_DATA. By default, a ``make_select_data``
            for each source.
        activity: The answer to ACTIVITY. By default, the NTP sources are online, or
            unresolved if their address starts with "ID#".
        auth_data: The answers to AUTH_DATA, found by their ``address``: clients have
            the addresses from SOURCESTATS and ask for each. By default, a
            ``make_auth_data`` for each.
        ntp_data: The answers to NTP_DATA, as ``auth_data``.
        server_stats: The answer to SERVER_STATS. By default, ``make_server_stats``.
        rtc_data: The answer to RTCREPORT, None for "no RTC".
        smoothing: The answer to SMOOTHING, None for "not enabled".
        source_names: The answers to NTP_SOURCE_NAME (``chronyc -N sources``):
            names by addresses of sources. By default, the name is the address, as in
            a configuration without host names.
        open_commands: What clients may read over UDP, as names of chronyd's
            directive ``opencommands``, which these replace. By default,
            ``DEFAULT_OPEN_COMMANDS``.
    """

    tracking = _Tracking()
    sources = _Records[tuple[Source, ...], Iterable[Source] | None]()
    source_stats = _Records[tuple[SourceStats, ...], Iterable[SourceStats] | None]()
    select_data = _Records[tuple[SelectData, ...], Iterable[SelectData] | None]()
    activity = _Records[Activity, Activity | None]()
    auth_data = _Records[tuple[AuthData, ...], Iterable[AuthData] | None]()
    ntp_data = _Records[tuple[NTPData, ...], Iterable[NTPData] | None]()
    server_stats = _Records[ServerStats, ServerStats | None]()
    rtc_data = _Records[RTCData | None, RTCData | None]()
    smoothing = _Records[Smoothing | None, Smoothing | None]()
    source_names = _Records[dict[str, str], Mapping[str, str] | None]()

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
        source_names: Mapping[str, str] | None = None,
        open_commands: Iterable[str] | None = None,
        address: str | os.PathLike[str] = "127.0.0.1:0",
        misbehave: Fault | None = None,
    ) -> None:
        """Encode the records; nothing is opened yet.

        Raises:
            ValueError: The protocol cannot represent a value of a record, or
                chronyd has no such command.
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
                "source_names": source_names,
            }
        )
        self.open_commands = open_commands

    def _change(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            given = {**self._given, **change}
            records = _complete(given)
            # One assignment: the thread uses either all old replies or all new ones.
            self._updated = 0
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

    def _tracking_now(self) -> TrackingStatus:
        """Return the given record, or the default for this time and these sources."""
        with self._lock:
            given: TrackingStatus | None = self._records["tracking"]
            if given is not None:
                return given
            sources: tuple[Source, ...] = self._records["sources"]
            now = time.time_ns()
            if not 0 <= now - self._updated <= _UPDATE_INTERVAL:
                source = _selected(sources)
                ago = source.last_sample_ago if source is not None else 0
                self._updated = now - (0 if ago in (None, _NEVER) else ago) * 10**9
            return _following(sources, self._updated)

    def _reply(self, replies: Replies, argument: bytes) -> Reply | None:
        if replies.report is TRACKING and not replies.by_argument:
            return success(TRACKING, self.tracking)
        return super()._reply(replies, argument)

    def _permits(self, report: Report) -> bool:
        unix = self.address.startswith("/")
        return unix or not self._open_commands.isdisjoint(report.commands)
