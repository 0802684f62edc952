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
    from collections.abc import Callable
    from typing import Any, TypeAlias, TypeVar

    from ._waiting import RequestGenerator, Waiter
    from .models import Value

    T = TypeVar("T")
    # The identity of a source, see _identity(), and its record if it has one.
    _Entry: TypeAlias = tuple[tuple[bool, Any], T | None]
    # A function that reads the entry with an index.
    _Reader: TypeAlias = Callable[[Session, int], RequestGenerator[_Entry[T]]]

# How many times to read a list that changes while it is read.
LIST_READS = 10

# If a round trip takes longer than this [s], reading a list is mostly waiting. Then
# there are as many requests in flight as possible, each over its own session.
_HIGH_LATENCY = 0.002
_SHORT_LIST = 4

# Requests in flight also help on the same machine with two cores: one by one, each
# process waits for the other to wake up. 8 sessions take 0.25 ms to open.
_LOCAL_IN_FLIGHT = 8
_SHORT_LOCAL_LIST = 16


def probe(session: Session) -> RequestGenerator[None]:
    """Return when a chronyd has replied, with a report or an error."""
    try:
        yield from session.record("tracking", 0, lambda _: None)
    except (ChronyDataError, ChronyPermissionError):
        session.reset()


def read_single(session: Session, record: type[T]) -> RequestGenerator[T]:
    """Read a report that is one record."""
    return session.record(REPORTS[record], 0, decoder(record))


def read_single_now(session: Session, waiter: Waiter, record: type[T]) -> T:
    """Do the same over a blocking session, without generators at the first try."""
    report = REPORTS[record]
    deadline = monotonic() + session.timeouts[0]
    if session.try_record(report):
        return session.decoded(report, decoder(record))
    return waiter.drive(session.continue_record(report, decoder(record), deadline))


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
            return (yield from _read_by_address(session, report, index, decode))
        found: Any = yield from session.record(report, index, decode)
        clock = getattr(found, "mode", None) is SourceMode.REFCLOCK
        reference_id = getattr(found, "reference_id", found.address)
        return _identity("" if clock else found.address, reference_id), found

    return (yield from _read_snapshot(session, report, read))


def read_generic(
    session: Session, report: str
) -> RequestGenerator[list[dict[str, Value]]]:
    """Read any report that libchrony knows, by its introspection alone."""
    decode = partial(decode_generic, report, session.lib)

    def read(
        session: Session, index: int
    ) -> RequestGenerator[_Entry[dict[str, Value]]]:
        if report in BY_ADDRESS:
            return (yield from _read_by_address(session, report, index, decode))
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
    session: Session, report: str, read: _Reader[T]
) -> RequestGenerator[list[T]]:
    """Read a list as it was at one point in time; read it again if it changed."""
    before: list[Any] | None = None
    refusal: ChronyDataError | None = None
    for _ in range(LIST_READS):
        keys = found = None
        # The length in the last call saves a round trip; it is verified anyway.
        count = session.counts.pop(report, None)
        round_trip = inf
        if count is None:
            began = monotonic()
            count = yield from session.count(report)
            round_trip = monotonic() - began
        try:
            found = yield from _read_once(session, report, read, count, round_trip)
        except ChronyDataError as error:
            # The status of a record that does not exist, or was removed.
            if error.error_code != session.lib.CHRONY_UNEXPECTED_STATUS:
                raise
            refusal = error
            session.reset()
        if found is not None:
            keys = [key for key, _ in found]
            sources = [key for key in keys if not key[0]]
            # Two reference clocks may have the same ID; then the second read gives
            # the same list.
            if len(set(sources)) == len(sources) and (
                len(set(keys)) == len(keys) or keys == before
            ):
                return [record for _, record in found if record is not None]
        before = keys
    raise ChronyDataError(
        f"{session.target}: {report}: the list of sources changed during each of "
        f"{LIST_READS} reads. Try again when fewer are added and deleted"
    ) from refusal


def _read_once(
    session: Session, report: str, read: _Reader[T], count: int, round_trip: float
) -> RequestGenerator[list[_Entry[T]] | None]:
    """Read a list once; return None if it changed in a way that matters.

    chronyd has no snapshots: when it removes a source, the following ones move
    down; new ones are appended (sources.c). As the list is read from its end, a
    source that moves is read twice, and other changes do not matter: if the count
    is still the same after its last record was read, the list is as it was at
    that time.
    """
    if not count:
        return []
    began = monotonic()
    last = yield from read(session, count - 1)
    # The shorter of the two: a busy machine may delay either.
    round_trip = min(round_trip, monotonic() - began)
    sessions: list[Session] = []
    try:
        _open_sessions(
            sessions, session, _requests_in_flight(session, count, round_trip)
        )
        if sessions:
            found = yield from _read_in_flight(
                session, report, read, count, last=last, sessions=sessions
            )
            if found and round_trip > _HIGH_LATENCY:
                session.counts[report] = count
            return found
    finally:
        for one in sessions:
            one.close()
    entries = [last]
    if (yield from session.count(report)) != count:
        return None
    for index in reversed(range(count - 1)):
        entries.append((yield from read(session, index)))
    return entries[::-1]


def _requests_in_flight(session: Session, count: int, round_trip: float) -> int:
    """Return how many requests for a list to keep in flight; 1 is one by one.

    Each call decides this from its own round trips. Each request in flight needs a
    session: a libchrony session has one request at a time. Opening a session takes
    30 us over UDP, but 450 us over the Unix socket.
    """
    if session.target.transport is Transport.UNIX_SOCKET:
        return 1
    if round_trip > _HIGH_LATENCY:
        return min(count, session.in_flight) if count > _SHORT_LIST else 1
    # Lists of other machines nearby are read one by one: they may have a
    # cmdratelimit, which never applies to loopback.
    local = session.target.host.startswith("127.") or session.target.host == "::1"
    if local and count >= _SHORT_LOCAL_LIST and len(os.sched_getaffinity(0)) > 1:
        return min(session.in_flight, _LOCAL_IN_FLIGHT)
    return 1


def _read_in_flight(
    session: Session,
    report: str,
    read: _Reader[T],
    count: int,
    *,
    last: _Entry[T],
    sessions: list[Session],
) -> RequestGenerator[list[_Entry[T]] | None]:
    """Read the records before the last one, with many requests in flight.

    Requests may overtake each other. But when a source is removed, those behind it
    move, and never move back. So if the last record is in its place both before and
    after all others were read, none of them moved, and the count in between shows
    that no source was behind it. (Unless the last source itself was removed and
    added again meanwhile.)
    """
    found = {count - 1: last}
    # All sessions take their next index from this iterator.
    others = reversed(range(count - 1))
    recount = 0

    def read_others(session: Session) -> RequestGenerator[None]:
        for index in others:
            found[index] = yield from read(session, index)

    def recount_and_read_others() -> RequestGenerator[None]:
        nonlocal recount
        recount = yield from sessions[0].count(report)
        yield from read_others(sessions[0])

    yield from side_by_side(
        [recount_and_read_others(), *map(read_others, sessions[1:])]
    )
    key, _ = yield from read(session, count - 1)
    if recount != count or key != last[0]:
        return None
    return [found[index] for index in range(count)]


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
) -> RequestGenerator[_Entry[T]]:
    """Read a record that is requested by address, and put the address in it.

    libchrony takes the address from the last reply if that was the ``sourcestats``
    of the same index. For a retry it would request the address again itself, which
    may be another source's by then. So both requests are sent again.
    """
    timeouts = list(session.timeouts)
    while True:
        stats = yield from session.record("sourcestats", index, decoder(SourceStats))
        key = _identity(stats.address, stats.reference_id)
        if not stats.address:  # a reference clock
            return key, None
        with_address = partial(decode, address=stats.address)
        try:
            record = yield from session.record(
                report, index, with_address, timeouts[:1]
            )
            return key, record
        except ChronyTimeoutError:
            del timeouts[0]
            if not timeouts:
                raise session.no_answer(report, session.timeouts) from None


def _identity(address: Any, reference_id: Any) -> tuple[bool, Any]:
    """Return whether other sources may have the same identity, and the identity.

    No two NTP sources have the same address. A reference clock has no address, and
    libchrony shows addresses of an unknown family as "?".
    """
    return (False, address) if address not in ("", "?") else (True, reference_id)
