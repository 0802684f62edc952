"""The requests for each report; lists are read as consistent snapshots."""

from __future__ import annotations

import os
from functools import partial
from math import inf
from time import monotonic

from ._decode import decode_generic, decoder
from ._library import reports
from ._poll import epoll
from ._session import Session
from ._waiting import side_by_side
from .enums import SourceMode, Transport
from .exceptions import (
    ChronyConnectionError,
    ChronyDataError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
)
from .models import (
    BY_ADDRESS,
    REPORTS,
    Activity,
    AuthData,
    NTPData,
    RTCData,
    SelectData,
    ServerStats,
    Smoothing,
    Source,
    SourceStats,
    TrackingStatus,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias, TypeVar

    from ._waiting import RequestGenerator
    from .models import Value

    T = TypeVar("T")
    # The identity of a source, see _identity(), and its record if it has one.
    _Entry: TypeAlias = tuple[tuple[bool, Any], T | None]
    # A function that reads the entry with an index.
    _Reader: TypeAlias = Callable[[Session, int], RequestGenerator[_Entry[T]]]
    # Reads only what identifies it.
    _KeyReader: TypeAlias = Callable[[Session, int], RequestGenerator[tuple[bool, Any]]]

# How many times to read a list that changes while it is read.
LIST_READS = 10

# If reading a list one by one would take longer than this [s], it is mostly waiting.
# Then as many requests as possible are in flight, each over its own session. For less
# it is not worth it: a busy machine delays the replies of near chronyds, too, and
# opening sessions would take more of its time.
_LONG_READ = 0.05

# Requests in flight also help on the same machine with two cores: one by one, each
# process waits for the other to wake up. 8 sessions take 0.25 ms to open.
_LOCAL_IN_FLIGHT = 8
_SHORT_LOCAL_LIST = 16
# Not the cores that this process may use: chronyd may be on another one.
_TWO_CORES = (os.cpu_count() or 1) > 1


def probe(session: Session) -> RequestGenerator[None]:
    """Return when a chronyd has replied, with a report or an error."""
    try:
        yield from session.record("tracking", 0, lambda _: None)
    except (ChronyDataError, ChronyPermissionError):
        session.reset()


def read_single(session: Session, record: type[T]) -> RequestGenerator[T]:
    """Read a report that is one record."""
    return session.record(REPORTS[record], 0, decoder(record))


def read_optional(session: Session, record: type[T]) -> RequestGenerator[T | None]:
    """Read a report that is one record; return None if it is disabled."""
    try:
        return (yield from read_single(session, record))
    except ChronyDataError as error:
        if error.error_code != session.lib.CHRONY_DISABLED:
            raise
        session.reset()
        return None


def read_list(session: Session, record: type[T]) -> RequestGenerator[list[T]]:
    """Read a report that is a list of sources."""
    report = REPORTS[record]
    decode = decoder(record)

    def read(session: Session, index: int) -> RequestGenerator[_Entry[T]]:
        if report in BY_ADDRESS:
            source, found = yield from _read_by_address(session, report, index, decode)
            return _identity_of(source), found
        found = yield from session.record(report, index, decode)
        return _identity_of(found), found

    return (yield from _read_snapshot(session, report, read))


# The order in which the records of a source are read, where several are: what may be
# read by everybody first, and "sourcestats" last, as those by address contain it.
_LISTS: dict[str, type[Any]] = {
    REPORTS[record]: record
    for record in (Source, SelectData, NTPData, AuthData, SourceStats)
}


def read_lists(
    session: Session, reports: Sequence[str]
) -> RequestGenerator[dict[str, list[Any] | ChronyError]]:
    """Read lists of sources as they were at one point in time.

    The records of a source are read together, so that the length is asked for once
    and a list by address gives "sourcestats", too. A report that chronyd refuses has
    its error, and the others go on.
    """
    lists = _Lists(reports)
    rows = yield from _read_snapshot(
        session, lists.wanted[0], lists.read, lists.read_key
    )
    return {
        report: lists.refused.get(report)
        or [row[report] for row in rows if row[report] is not None]
        for report in lists.wanted
    }


class _Lists:
    """Reads the records of a source in several lists."""

    def __init__(self, reports: Sequence[str]) -> None:
        self.wanted = [name for name in _LISTS if name in reports]
        self.refused: dict[str, ChronyError] = {}

    def read(
        self, session: Session, index: int
    ) -> RequestGenerator[_Entry[dict[str, Any]]]:
        found: dict[str, Any] = {}
        key = None
        for report in self.wanted:
            if report in self.refused or report in found:
                continue
            try:
                source = yield from self._read_one(session, report, index, found)
            except ChronyConnectionError:
                raise
            except ChronyError as error:
                session.reset()
                # Is there no such report, or is the source not there any more?
                if error.error_code == session.lib.CHRONY_UNEXPECTED_STATUS and (
                    key is None or (yield from self.read_key(session, index)) != key
                ):
                    raise
                self.refused[report] = error.with_traceback(None)
                continue
            before, key = key, _identity_of(source)
            if before not in (None, key):
                raise ChronyDataError(
                    f"{session.target}: {report}: another source has taken this place",
                    session.lib.CHRONY_UNEXPECTED_STATUS,
                )
        return key or (False, index), found

    def read_key(
        self, session: Session, index: int
    ) -> RequestGenerator[tuple[bool, Any]]:
        """Read only what identifies the source."""
        for report in self.wanted:
            if report not in self.refused:
                name = "sourcestats" if report in BY_ADDRESS else report
                source = yield from self._read_one(session, name, index, {})
                return _identity_of(source)
        return False, index

    def _read_one(
        self, session: Session, report: str, index: int, found: dict[str, Any]
    ) -> RequestGenerator[Any]:
        """Read a record into ``found``; return one that identifies the source."""
        decode = decoder(_LISTS[report])
        if report in BY_ADDRESS:
            source, found[report] = yield from _read_by_address(
                session, report, index, decode
            )
            found["sourcestats"] = source
            return source
        found[report] = yield from session.record(report, index, decode)
        return found[report]


def read_generic(
    session: Session, report: str
) -> RequestGenerator[list[dict[str, Value]]]:
    """Read any report that libchrony knows, by its introspection alone."""
    decode = partial(decode_generic, report, session.lib)

    def read(
        session: Session, index: int
    ) -> RequestGenerator[_Entry[dict[str, Value]]]:
        if report in BY_ADDRESS:
            source, of_source = yield from _read_by_address(
                session, report, index, decode
            )
            return _identity_of(source), of_source
        found = yield from session.record(report, index, decode)
        if "address" not in found and "reference ID" not in found:
            return (False, index), found
        address, reference_id = (
            found[name].value if name in found else ""
            for name in ("address", "reference ID")
        )
        return _identity(address, reference_id), found

    _check_known(report)
    try:
        return (yield from _read_snapshot(session, report, read))
    except ChronyDataError as error:
        if error.error_code != session.lib.CHRONY_DISABLED:
            raise
        session.reset()
        return []


# How the connections and query_many() read each report: as one record, one that may
# be disabled, or a list.
TRACKING = partial(read_single, record=TrackingStatus)
ACTIVITY = partial(read_single, record=Activity)
SERVER_STATS = partial(read_single, record=ServerStats)
RTC_DATA = partial(read_optional, record=RTCData)
SMOOTHING = partial(read_optional, record=Smoothing)
SOURCES = partial(read_list, record=Source)
SOURCE_STATS = partial(read_list, record=SourceStats)
SELECT_DATA = partial(read_list, record=SelectData)
AUTH_DATA = partial(read_list, record=AuthData)
NTP_DATA = partial(read_list, record=NTPData)

_BY_NAME: dict[str, partial[RequestGenerator[Any]]] = {
    REPORTS[query.keywords["record"]]: query
    for query in (
        *(TRACKING, ACTIVITY, SERVER_STATS, RTC_DATA, SMOOTHING),
        *(SOURCES, SOURCE_STATS, SELECT_DATA, AUTH_DATA, NTP_DATA),
    )
}


def query_for(report: str) -> partial[RequestGenerator[Any]]:
    """Return the query that the connection's method for a report uses.

    A report that has no method is read by introspection.
    """
    _check_known(report)
    return _BY_NAME.get(report) or partial(read_generic, report=report)


def _check_known(report: str) -> None:
    if report not in reports():
        raise ChronyDataError(
            f"this libchrony has no report {report!r}, only {', '.join(reports())}"
        )


def _read_snapshot(
    session: Session,
    report: str,
    read: _Reader[T],
    read_key: _KeyReader | None = None,
) -> RequestGenerator[list[T]]:
    """Read a list as it was at one point in time, again if it has changed.

    Where ``read`` makes several requests, ``read_key`` makes one.
    """
    refusal: ChronyDataError | None = None
    for _ in range(LIST_READS):
        found = None
        # The length in the last call saves a request; it is verified anyway.
        count = session.counts.pop(report, None)
        round_trip = inf
        if count is None:
            began = monotonic()
            count = yield from session.count(report)
            round_trip = monotonic() - began
        try:
            found = yield from _read_once(
                session, report, read, read_key, count=count, round_trip=round_trip
            )
        except ChronyDataError as error:
            # The status of a record that does not exist, or was removed.
            if error.error_code != session.lib.CHRONY_UNEXPECTED_STATUS:
                raise
            refusal = error
            session.reset()
        if found is not None:
            # Two reference clocks may have the same ID.
            sources = [key for key, _ in found if not key[0]]
            if len(set(sources)) == len(sources):
                return [record for _, record in found if record is not None]
    raise ChronyDataError(
        f"{session.target}: {report}: the list of sources changed during each of "
        f"{LIST_READS} reads. Try again when fewer are added and deleted"
    ) from refusal


def _read_once(
    session: Session,
    report: str,
    read: _Reader[T],
    read_key: _KeyReader | None,
    *,
    count: int,
    round_trip: float,
) -> RequestGenerator[list[_Entry[T]] | None]:
    """Read a list once; return None if it changed in a way that matters.

    chronyd has no snapshots: when it removes a source, those behind it move up, and
    new ones are appended (sources.c). "chronyc reload sources" does both at once. So
    if the last record is in its place both before and after all others were read,
    none of them moved, and the count in between shows that no source was behind it:
    the list is as it was then. Only if the last source itself was removed and added
    again meanwhile, this shows nothing. A record that is alone has no others.
    """
    if not count:
        return []
    began = monotonic()
    last, record = yield from read(session, count - 1)
    found = {count - 1: (last, record)}
    # The shorter of the two: a busy machine may delay either.
    round_trip = min(round_trip, monotonic() - began)
    sessions: list[Session] = []
    try:
        _open_sessions(
            sessions, session, _requests_in_flight(session, count, round_trip)
        )
        recount = yield from _read_others(sessions or [session], report, read, found)
    finally:
        for one in sessions:
            one.close()
    if recount != count:
        return None
    key = last
    if read_key:
        key = yield from read_key(session, count - 1)
    elif count > 1:
        key, _ = yield from read(session, count - 1)
    if key != last:
        return None
    session.counts[report] = count
    return [found[index] for index in range(count)]


def _read_others(
    sessions: list[Session],
    report: str,
    read: _Reader[T],
    found: dict[int, _Entry[T]],
) -> RequestGenerator[int]:
    """Read the records before the one in ``found``, and return the new count."""
    (last,) = found
    # All sessions take their next index from this iterator.
    others = reversed(range(last))
    count = 0

    def read_others(session: Session) -> RequestGenerator[None]:
        for index in others:
            found[index] = yield from read(session, index)

    def count_and_read_others(session: Session) -> RequestGenerator[None]:
        nonlocal count
        count = yield from session.count(report)
        if count == last + 1:
            yield from read_others(session)

    first, *more = sessions
    if more:
        yield from side_by_side([count_and_read_others(first), *map(read_others, more)])
    else:
        yield from count_and_read_others(first)
    return count


def _requests_in_flight(session: Session, count: int, round_trip: float) -> int:
    """Return how many requests for a list to keep in flight; 1 is one by one.

    Each call decides this from its own round trips. Each request in flight needs a
    session: a libchrony session has one request at a time. Opening a session takes
    30 us over UDP, but 450 us over the Unix socket.
    """
    if session.target.transport is Transport.UNIX_SOCKET:
        return 1
    if count * round_trip > _LONG_READ:
        return min(count, session.in_flight)
    # Lists of other machines nearby are read one by one: they may have a
    # cmdratelimit, which never applies to loopback.
    local = session.target.host.startswith("127.") or session.target.host == "::1"
    if local and count >= _SHORT_LOCAL_LIST and _TWO_CORES:
        return min(session.in_flight, _LOCAL_IN_FLIGHT)
    return 1


def _open_sessions(sessions: list[Session], like: Session, number: int) -> None:
    """Open sessions for requests in flight, or fewer if descriptors are lacking.

    The caller's session is not one of them: it may block.
    """
    if number < 2:
        return
    try:
        with epoll():  # keeps the descriptor that side_by_side() needs
            while len(sessions) < number:
                sessions.append(Session(like.target, like.timeouts))
    except (ChronyConnectionError, OSError):
        pass


def _read_by_address(
    session: Session, report: str, index: int, decode: Callable[..., T]
) -> RequestGenerator[tuple[SourceStats, T | None]]:
    """Read a record that chronyd gives by address, and put the address in it.

    libchrony takes the address from the last response if that was the
    ``sourcestats`` of the same index, which is returned, too. For a retry it would
    fetch it again by itself, perhaps that of another source by then, so both requests
    are made again.
    """
    timeouts = list(session.timeouts)
    while True:
        source = yield from session.record("sourcestats", index, decoder(SourceStats))
        if not source.address:  # a reference clock
            return source, None
        with_address = partial(decode, address=source.address)
        try:
            record = yield from session.record(
                report, index, with_address, timeouts[:1]
            )
            return source, record
        except ChronyTimeoutError:
            del timeouts[0]
            if not timeouts:
                raise session.no_answer(report, session.timeouts) from None


def _identity_of(record: Any) -> tuple[bool, Any]:
    """Return the same for the records of a source in all lists, see `_identity`."""
    clock = getattr(record, "mode", None) is SourceMode.REFCLOCK
    # In "sources", the address of a clock is its name.
    name = getattr(record, "name", record.address)
    return _identity("" if clock else record.address, name)


def _identity(address: Any, name: Any) -> tuple[bool, Any]:
    """Return whether other sources may have the same identity, and the identity.

    No two NTP sources have the same address. A reference clock has no address, and
    libchrony shows addresses of an unknown family as "?".
    """
    return (False, address) if address not in ("", "?") else (True, name)
