"""Many chronyds at once."""

from __future__ import annotations

import os
import socket
from collections import deque
from errno import EMFILE, ENFILE

from ._address import parse
from ._base import open_session, waits
from ._queries import question
from ._waiting import Waiter, side_by_side
from .exceptions import ChronyError, ChronyUsageError

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from ._session import Session
    from ._waiting import Conversation, Polite

    Address = str | os.PathLike[str]

__all__ = ["query_many"]


def query_many(
    addresses: Iterable[Address],
    report: str = "tracking",
    *,
    concurrency: int = 256,
    timeout: float = 1.0,
    retries: int = 2,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[Address, Any]]:
    """Read a report of many chronyds, as fast as they answer.

    Args:
        addresses: as for :class:`ChronyConnection`, never ``None``. They are
            taken one by one as there is room, so they may be made lazily and be
            a million.
        report: libchrony's name of the report, one of :func:`reports`.
        concurrency: how many chronyds are asked at once. Each takes two
            descriptors, and two more while its name is resolved; where
            they run out, fewer are asked at once.
        timeout: seconds to wait for an answer before sending again.
        retries: how often to send again, the wait doubled each time. A silent
            host takes its place among those asked at once until the end of
            its waits; the others go on.
        progress: called with the number of results so far, after each.

    Yields:
        Each address with what the method of :class:`ChronyConnection` for that
        report returns, or with the :class:`ChronyError` that it would raise, in
        the order of their arrival. Nothing goes on while the caller does not
        ask for the next.

    Raises:
        ChronyLibraryError: no usable libchrony.
        ChronyDataError: libchrony has no such report.
        ValueError: ``concurrency``, ``timeout`` or ``retries`` is nonsense.
        TypeError: ``addresses`` is one address.
    """
    sweep = Sweep(addresses, report, concurrency, waits(timeout, retries), progress)
    return _results(sweep)


def _results(sweep: Sweep) -> Iterator[tuple[Address, Any]]:
    waiter = Waiter()
    conversation = sweep.conversation()
    ready: Any = None
    try:
        while True:
            wait = conversation.send(ready)
            yield from sweep.arrived()
            ready = waiter.wait(*wait)
    except StopIteration:  # all have arrived: each gave us a turn
        pass
    finally:
        conversation.close()


class Sweep:
    """Many chronyds, asked side by side; whoever drives it takes the results."""

    def __init__(
        self,
        addresses: Iterable[Address],
        report: str,
        concurrency: int,
        waits: Sequence[float],
        progress: Callable[[int], object] | None,
    ) -> None:
        if isinstance(addresses, str):  # its letters are addresses, too
            raise TypeError(f"for one address give [{addresses!r}]")
        if concurrency < 1:
            raise ValueError(f"concurrency {concurrency!r} is less than 1")
        self._addresses = iter(addresses)
        self._again: list[Address] = []
        self._question = question(report)
        self._slots = range(concurrency)
        self._waits = waits
        self._progress = progress
        self._found: deque[tuple[Address, Any]] = deque()
        self._done = 0
        self._asking = 0
        self._pid = os.getpid()

    def conversation(self) -> Conversation[None]:
        return side_by_side(self._slot() for _ in self._slots)

    def arrived(self) -> Iterator[tuple[Address, Any]]:
        """Yield the results that have arrived and were not yielded before."""
        while self._found:
            yield self._found.popleft()
        if os.getpid() != self._pid:
            raise ChronyUsageError(
                f"these queries were begun by process {self._pid}, this is its child "
                f"{os.getpid()}. Begin others here"
            )

    def _slot(self) -> Polite:
        """Ask one chronyd after the other."""
        session: Session | None = None
        result: Any
        self._asking += 1
        try:
            for address in self._take():
                try:
                    session = yield from self._turn(session, address)
                    result = yield from self._question(session)
                except ChronyError as error:
                    if session is not None:
                        session.close()
                        session = None
                    if self._asking > 1 and _lacks_descriptors(error):
                        self._again.append(address)
                        return
                    result = _as_value(error)
                self._found.append((address, result))
                self._done += 1
                if self._progress is not None:
                    self._progress(self._done)
                yield None
        finally:
            self._asking -= 1
            if session is not None:
                session.close()

    def _take(self) -> Iterator[Address]:
        """Yield addresses, also those that others have to leave."""
        for address in self._addresses:
            yield address
            while self._again:
                yield self._again.pop()

    def _turn(self, session: Session | None, address: Address) -> Conversation[Session]:
        """Return a session with ``address``: the same one where that can be."""
        target = parse(address)
        if session is not None:
            udp = target.family in (socket.AF_INET, socket.AF_INET6)
            if udp and target.family == session.target.family:
                session.turn_to(target)
                return session
            session.close()
        session = yield from open_session([target], self._waits, alone=False)
        # The others need descriptors, too.
        session.in_flight //= len(self._slots)
        return session


def _as_value(error: ChronyError) -> ChronyError:
    """Return it without the frames that it has seen: they keep all they used."""
    seen: list[BaseException | None] = [error]
    for one in seen:
        if one is not None:
            one.__traceback__ = None
            seen += one.__cause__, one.__context__
    return error


def _lacks_descriptors(error: ChronyError) -> bool:
    reason = error.__cause__
    return isinstance(reason, OSError) and reason.errno in (EMFILE, ENFILE)
