"""One report of many chronyds, with many requests in flight."""

from __future__ import annotations

import os
import socket
from collections import deque
from errno import EMFILE, ENFILE
from operator import index, length_hint

from ._address import parse
from ._base import open_session, timeouts_of
from ._queries import query_for
from ._waiting import Waiter, side_by_side
from .exceptions import ChronyError, ChronyUsageError

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from ._address import Target
    from ._session import Session
    from ._waiting import RequestGenerator, Task

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
    """Read a report of many chronyds, as fast as they reply.

    Args:
        addresses: as for :class:`ChronyConnection`, but not ``None``. The next is
            taken when a query ends, so this may be a generator of a million
            addresses.
        report: libchrony's name of the report, one of :func:`reports`.
        concurrency: maximum number of concurrent queries. Each takes two
            descriptors, and two more while its name is resolved. If descriptors
            run out, there are fewer concurrent queries.
        timeout: seconds to wait for a reply; doubles at each retry.
        retries: number of retries. A silent host occupies one of the concurrent
            queries until its last timeout; the others go on.
        progress: called after each result, with the number of results so far.

    Yields:
        Each address with what the method of :class:`ChronyConnection` for that
        report returns, or with the :class:`ChronyError` that it would raise, in
        the order of their arrival. Between two results, queries wait for the
        caller.

    Raises:
        ChronyLibraryError: no usable libchrony.
        ChronyDataError: libchrony has no such report.
        ValueError: ``concurrency``, ``timeout`` or ``retries`` is out of range.
        TypeError: ``addresses`` is a single address.
    """
    sweep = Sweep(
        addresses, report, concurrency, timeouts_of(timeout, retries), progress
    )
    return _results(sweep)


def _results(sweep: Sweep) -> Iterator[tuple[Address, Any]]:
    waiter = Waiter()
    requests = sweep.requests()
    ready: Any = None
    try:
        while True:
            wait = requests.send(ready)
            yield from sweep.arrived()
            ready = waiter.wait(*wait)
    except StopIteration:  # all results were yielded: each task yields after its own
        pass
    finally:
        requests.close()


class Sweep:
    """A query of many chronyds; the driver takes the results as they arrive.

    ``concurrency`` tasks run side by side. Each takes the next address when it
    has a result, so addresses are taken in order, and results arrive in the order
    of the replies.
    """

    def __init__(
        self,
        addresses: Iterable[Address],
        report: str,
        concurrency: int,
        timeouts: Sequence[float],
        progress: Callable[[int], object] | None,
    ) -> None:
        if isinstance(addresses, str):  # it would be iterated letter by letter
            raise TypeError(f"for one address give [{addresses!r}]")
        concurrency = index(concurrency)
        if concurrency < 1:
            raise ValueError(f"concurrency {concurrency!r} is less than 1")
        # More tasks than addresses would take memory, and their share of the requests
        # in flight. A generator has no length.
        expected = length_hint(addresses, -1)
        if expected >= 0:
            concurrency = min(concurrency, max(expected, 1))
        self._addresses = iter(addresses)
        # Addresses that a task could not query, as it lacked descriptors.
        self._deferred: list[Address] = []
        self._query = query_for(report)
        self._concurrency = concurrency
        self._timeouts = timeouts
        self._progress = progress
        self._results: deque[tuple[Address, Any]] = deque()
        self._done = 0
        self._running = 0
        self._pid = os.getpid()

    def requests(self) -> RequestGenerator[None]:
        return side_by_side(self._read_hosts() for _ in range(self._concurrency))

    def arrived(self) -> Iterator[tuple[Address, Any]]:
        """Yield the results that have arrived and were not yielded before."""
        while self._results:
            yield self._results.popleft()
        # Checked after each wait: parent and child share the descriptors, and
        # would take each other's replies.
        if os.getpid() != self._pid:
            raise ChronyUsageError(
                f"these queries were begun by process {self._pid}, this is its child "
                f"{os.getpid()}. Start a new query in this process"
            )

    def _read_hosts(self) -> Task:
        """Read one chronyd after the other, over the same session where possible."""
        session: Session | None = None
        result: Any
        self._running += 1
        try:
            for address in self._next_addresses():
                try:
                    target = parse(address)
                    if session is None or not _reconnect(session, target):
                        session = yield from self._open(target)
                    result = yield from self._query(session)
                except ChronyError as error:
                    # No session survives an error.
                    if session is not None:
                        session.close()
                        session = None
                    # The limit of descriptors is reached. This task ends and
                    # leaves its address to the others. The last task that is left
                    # has to report the error.
                    if self._running > 1 and _lacks_descriptors(error):
                        self._deferred.append(address)
                        return
                    result = _without_frames(error)
                self._results.append((address, result))
                self._done += 1
                if self._progress is not None:
                    self._progress(self._done)
                # The driver yields the result before this task goes on.
                yield None
        finally:
            self._running -= 1
            if session is not None:
                session.close()

    def _next_addresses(self) -> Iterator[Address]:
        """Yield addresses, and those that other tasks have deferred.

        When a task defers an address, other tasks are still running, and each looks
        for deferred addresses after its current one.
        """
        for address in self._addresses:
            yield address
            while self._deferred:
                yield self._deferred.pop()

    def _open(self, target: Target) -> RequestGenerator[Session]:
        session = yield from open_session([target], self._timeouts, blocking=False)
        # To read a list, it opens more sessions: all tasks together must not take
        # more descriptors than one connection does.
        session.in_flight //= self._concurrency
        return session


def _reconnect(session: Session, target: Target) -> bool:
    """Connect a session to the next target; close it where that is not possible.

    To open one takes longer than all the rest.
    """
    if target.family == session.target.family != socket.AF_UNIX:
        session.reconnect(target)
        return True
    session.close()
    return False


def _without_frames(error: ChronyError) -> ChronyError:
    """Return an error without tracebacks: they keep the objects of frames alive."""
    seen: list[BaseException | None] = [error]
    for one in seen:
        if one is not None:
            one.__traceback__ = None
            seen += one.__cause__, one.__context__
    return error


def _lacks_descriptors(error: ChronyError) -> bool:
    reason = error.__cause__
    return isinstance(reason, OSError) and reason.errno in (EMFILE, ENFILE)
