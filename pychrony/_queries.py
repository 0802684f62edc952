"""What is asked for each report, and how a list becomes that of one moment."""

from __future__ import annotations

from functools import partial
from time import monotonic

from ._decode import decode, decode_generic
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
from .models import BY_ADDRESS, LISTS, OPTIONAL, REPORTS, SourceStats

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias, TypeVar

    from ._waiting import Conversation
    from .models import Value

    T = TypeVar("T")
    # Reads the record with an index: who the source is, and its record if it
    # has one.
    _Reader: TypeAlias = Callable[[Session, int], Conversation[tuple[Any, T | None]]]

# How often a list is read that changes while it is read.
LIST_READS = 10

# Where a round trip takes longer [s], many records of a list are asked for at
# once, each over a session of its own.
_FAR = 0.002


def probe(session: Session) -> Conversation[None]:
    """Return when a chronyd has answered, whatever the answer."""
    try:
        yield from session.record("tracking", 0, lambda _: None)
    except (ChronyDataError, ChronyPermissionError):
        session.reset()


def one(session: Session, record: type[T]) -> Conversation[T]:
    """Read a report that is one record."""
    return session.record(REPORTS[record], 0, partial(decode, record, session.lib))


def one_or_none(session: Session, record: type[T]) -> Conversation[T | None]:
    """Read a report that is one record, or none where it is disabled."""
    try:
        return (yield from one(session, record))
    except ChronyDataError as error:
        if error.error_code != session.lib.CHRONY_DISABLED:
            raise
        session.reset()
        return None


def every(session: Session, record: type[T]) -> Conversation[list[T]]:
    """Read a report that is a list of sources."""
    report = REPORTS[record]
    decoder = partial(decode, record, session.lib)

    def read(session: Session, index: int) -> Conversation[tuple[Any, T | None]]:
        if report in BY_ADDRESS:
            return (yield from _by_address(session, report, index, decoder))
        found: Any = yield from session.record(report, index, decoder)
        clock = getattr(found, "mode", None) is SourceMode.REFCLOCK
        reference_id = getattr(found, "reference_id", found.address)
        return _identity("" if clock else found.address, reference_id), found

    return (yield from _list(session, report, read))


def generic(session: Session, report: str) -> Conversation[list[dict[str, Value]]]:
    """Read any report that libchrony knows, by its introspection alone."""
    decoder = partial(decode_generic, report, session.lib)

    def read(
        session: Session, index: int
    ) -> Conversation[tuple[Any, dict[str, Value] | None]]:
        if report in BY_ADDRESS:
            return (yield from _by_address(session, report, index, decoder))
        found = yield from session.record(report, index, decoder)
        if "address" not in found and "reference ID" not in found:
            return (False, index), found
        address, reference_id = (
            found[name].value if name in found else ""
            for name in ("address", "reference ID")
        )
        return _identity(address, reference_id), found

    known(report)
    try:
        return (yield from _list(session, report, read))
    except ChronyDataError as error:
        if error.error_code != session.lib.CHRONY_DISABLED:
            raise
        session.reset()
        return []


def known(report: str) -> None:
    """Complain about a report that libchrony does not know."""
    if report not in reports():
        raise ChronyDataError(
            f"this libchrony has no report {report!r}, only {', '.join(reports())}"
        )


def question(report: str) -> Callable[[Session], Conversation[Any]]:
    """Return what reads a report as the method for it does.

    A report that has none is read as it is.
    """
    known(report)
    record = next((record for record in REPORTS if REPORTS[record] == report), None)
    if record is None:
        return lambda session: generic(session, report)
    ask = every if report in LISTS else one_or_none if report in OPTIONAL else one
    return lambda session: ask(session, record)


def _list(session: Session, report: str, read: _Reader[T]) -> Conversation[list[T]]:
    """Read a list that is that of one moment."""
    before: list[Any] | None = None
    refusal: ChronyDataError | None = None
    for _ in range(LIST_READS):
        keys = found = None
        # What it was the last time saves a round trip; it is counted anyhow.
        count = session.counts.pop(report, None)
        far = count is not None
        if count is None:
            began = monotonic()
            count = yield from session.count(report)
            far = monotonic() - began > _FAR
        udp = session.target.transport is Transport.COMMAND_PORT
        at_once = far and udp and count > 4 and session.in_flight > 1
        try:
            found = yield from (_at_once if at_once else _one_by_one)(
                session, report, read, count
            )
        except ChronyDataError as error:
            # To a request for a record: there is none with that index.
            if error.error_code != session.lib.CHRONY_UNEXPECTED_STATUS:
                raise
            refusal = error
            session.reset()
        if found is not None:
            keys = [key for key, _ in found]
            sources = [key for key in keys if not key[0]]
            # Two reference clocks may share an ID for good; then the list is
            # the same the second time.
            if len(set(sources)) == len(sources) and (
                len(set(keys)) == len(keys) or keys == before
            ):
                return [record for _, record in found if record is not None]
        before = keys
    raise ChronyDataError(
        f"{session.target}: {report}: the list of sources changed during each of "
        f"{LIST_READS} reads. Try again when fewer are added and deleted"
    ) from refusal


def _one_by_one(
    session: Session, report: str, read: _Reader[T], count: int
) -> Conversation[list[tuple[Any, T | None]] | None]:
    """Read a list once; return None if it changed in a way that matters.

    chronyd has no snapshots: it closes the gap when it removes a source and
    appends new ones (sources.c). Read from the end, a source that moves is
    read twice, and what comes or goes otherwise does not matter: the list
    is that of the moment when its last record was read, if the count
    belongs to that moment, too.
    """
    found: list[tuple[Any, T | None]] = []
    for index in reversed(range(count)):
        found.append((yield from read(session, index)))
        if len(found) == 1 and (yield from session.count(report)) != count:
            return None
    return found[::-1]


def _at_once(
    session: Session, report: str, read: _Reader[T], count: int
) -> Conversation[list[tuple[Any, T | None]] | None]:
    """Read a list as :func:`_one_by_one` does, with many requests in flight.

    They may overtake each other. But where a source goes, those behind it move
    and never move back: a last record that is in its place both before and
    after all the others were read shows that none of them moved, and a count
    between the two that none was behind it. (Unless it went and came back
    itself meanwhile.)
    """
    found: dict[int, tuple[Any, T | None]] = {}
    # Not the session itself: it may wait where the others could go on.
    sessions: list[Session] = []
    last = count - 1
    others = reversed(range(last))
    recount = 0

    def read_others(session: Session) -> Conversation[None]:
        for index in others:
            found[index] = yield from read(session, index)

    def recount_and_read_others() -> Conversation[None]:
        nonlocal recount
        recount = yield from sessions[0].count(report)
        yield from read_others(sessions[0])

    try:
        # One for each of the others, and one that counts meanwhile.
        _add_sessions(sessions, session, min(count, session.in_flight))
        if not sessions:
            return (yield from _one_by_one(session, report, read, count))
        found[last] = yield from read(session, last)
        yield from side_by_side(
            [recount_and_read_others(), *map(read_others, sessions[1:])]
        )
        key, _ = yield from read(session, last)
        if recount != count or key != found[last][0]:
            return None
        session.counts[report] = count
        return [found[index] for index in range(count)]
    finally:
        for each in sessions:
            each.close()


def _add_sessions(sessions: list[Session], like: Session, number: int) -> None:
    try:
        with epoll():  # keeps the descriptor that it takes to wait for them
            while len(sessions) < number:
                sessions.append(Session(like.target, like.waits))
    except (ChronyConnectionError, OSError):  # no more are left: fewer are slower
        pass


def _by_address(
    session: Session, report: str, index: int, decoder: Callable[..., T]
) -> Conversation[tuple[Any, T | None]]:
    """Read a record that chronyd gives by address, and tell the address.

    libchrony takes the address from the last response if that was the
    ``sourcestats`` of the same index. It would fetch it again itself for a
    resend, perhaps that of another source by then, so both requests are made
    again.
    """
    decode_stats = partial(decode, SourceStats, session.lib)
    waits = list(session.waits)
    while True:
        stats = yield from session.record("sourcestats", index, decode_stats)
        key = _identity(stats.address, stats.reference_id)
        if not stats.address:  # a reference clock
            return key, None
        with_address = partial(decoder, address=stats.address)
        try:
            record = yield from session.record(report, index, with_address, waits[:1])
            return key, record
        except ChronyTimeoutError:
            del waits[0]
            if not waits:
                raise session.no_answer(report, session.waits) from None


def _identity(address: Any, reference_id: Any) -> tuple[bool, Any]:
    """Return whether others may have the same identity, and the identity.

    No two NTP sources have the same address. A reference clock has none, and
    libchrony shows as "?" one of a family that it does not know.
    """
    return (False, address) if address not in ("", "?") else (True, reference_id)
