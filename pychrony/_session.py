"""One libchrony session on one socket, and the conversations over it.

The only room that calls libchrony to open, send, receive and close. A
conversation is a generator: it yields ``(fd, events, deadline)`` where it has
to wait until the descriptor is ready for those ``poll`` events, and is sent
whether that came before the deadline (on the ``time.monotonic`` clock). How to
wait is the business of the drivers; resends, deadlines and what an error means
are decided here, once for all of them.
"""

from __future__ import annotations

import errno
import os
import warnings
import weakref
from collections import deque
from functools import partial
from select import POLLIN, POLLOUT
from time import monotonic

from ._decode import decode, decode_generic
from ._libchrony import ffi
from ._library import load, locked, reports
from .exceptions import (
    ChronyConnectionError,
    ChronyDataError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
)
from .models import BY_ADDRESS, REPORTS, SourceMode, SourceStats, Transport

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import Any, TypeAlias, TypeVar

    from ._address import Target
    from .models import Value

    T = TypeVar("T")
    Conversation: TypeAlias = Generator[tuple[int, int, float], bool, T]

# The length of a list comes from the network. chronyd sets itself no limit,
# but no configuration comes near this one.
MOST_RECORDS = 65_536

# How often a list is read that changes while it is read.
LIST_READS = 10

_NOT_AUTHORIZED = (
    "chronyd says 'Not authorized'. Read it over chronyd's Unix socket, as root or "
    "the user that chronyd runs as. From chronyd 4.7 on, its directive opencommands "
    "can open it to UDP: it replaces the list of what is open, and authdata and "
    "ntpdata need sourcestats in it, too"
)

# libchrony may keep the pointer to a name (follow_report in client.c), so they
# live for ever.
_NAMES: dict[str, bytes] = {}

_AGAIN = (errno.EAGAIN, errno.EINTR)


class Session:
    """A libchrony session, its socket, and its patience.

    Attributes:
        target: where it is connected to.
        timeout: seconds to wait for the first answer; doubled at each resend.
        retries: how often a request is sent again.
    """

    def __init__(self, target: Target, timeout: float, retries: int) -> None:
        self.target = target
        self.timeout = timeout
        self.retries = retries
        self._lib = load()
        self.pid = os.getpid()
        self._holder = ffi.new("chrony_session **")
        self._fds: list[int] = []
        self._held = self._holder, self._fds, self.pid
        # It exists before what it releases: a signal handler may raise an
        # exception at any bytecode.
        self._finalizer = weakref.finalize(
            self, _forsake, self._lib, self._held, weakref.ref(self), str(target)
        )
        try:
            if target.transport is Transport.UNIX_SOCKET:
                self._open_unix()
            else:
                self._open_udp()
            self._fd = self._fds[0]
            self._init()
        except BaseException:
            self.close()
            raise

    def _open_unix(self) -> None:
        # Opened and kept in one function of C: nothing comes in between.
        path = os.fsencode(self.target.host)
        self._fds.extend(map(self._lib.chrony_open_socket, (path,)))
        fd = self._fds[0]
        if fd < 0:
            self._fds.clear()
            raise _unreachable(self.target, _os_error(), fd)
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)

    def _open_udp(self) -> None:
        import socket

        try:
            with socket.socket(self.target.family, socket.SOCK_DGRAM) as udp:
                udp.setblocking(False)
                udp.connect(self.target.socket_address())
                self._fds.extend(map(socket.SocketType.detach, (udp,)))
        except OSError as reason:
            raise _unreachable(self.target, reason, -1) from reason

    def _init(self) -> None:
        code = self._lib.chrony_init_session(self._holder, self._fd)
        if code != self._lib.CHRONY_OK:
            raise self._error(code, "a session")
        self._handle = self._holder[0]

    def _reset(self) -> None:
        """Begin a fresh libchrony session on the same socket.

        After any error the old one may hold a pending request or a report to
        follow, and would return wrong results (client.c).
        """
        _deinit(self._lib, self._holder)
        self._init()

    def close(self) -> None:
        """Close the session and its socket. Does nothing the second time."""
        if self._finalizer.alive:
            _release(self._lib, self._held)
            self._finalizer.detach()

    def probe(self) -> Conversation[None]:
        """Return when a chronyd has answered, whatever the answer."""
        try:
            yield from self._exchange("tracking", self._lib.chrony_request_record, 0)
        except (ChronyDataError, ChronyPermissionError):
            self._reset()

    def record(self, record: type[T]) -> Conversation[T]:
        """Read a report that is one record."""
        report = REPORTS[record]
        return (yield from self._record(report, 0, partial(decode, record, self._lib)))

    def record_or_none(self, record: type[T]) -> Conversation[T | None]:
        """Read a report that is one record, or none where it is disabled."""
        try:
            return (yield from self.record(record))
        except ChronyDataError as error:
            if error.error_code != self._lib.CHRONY_DISABLED:
                raise
            self._reset()
            return None

    def records(self, record: type[T]) -> Conversation[list[T]]:
        """Read a report that is a list with one record for each source."""
        report = REPORTS[record]

        def read(index: int) -> Conversation[tuple[Any, T]]:
            one: Any = yield from self._record(
                report, index, partial(decode, record, self._lib)
            )
            clock = getattr(one, "mode", None) is SourceMode.REFCLOCK
            reference_id = getattr(one, "reference_id", one.address)
            return _identity("" if clock else one.address, reference_id), one

        return (yield from self._list(report, read))

    def records_by_address(self, record: type[T]) -> Conversation[list[T]]:
        """Read a report that is a list with one record for each NTP source."""
        report = REPORTS[record]

        def read(index: int) -> Conversation[tuple[Any, T | None]]:
            return self._by_address(report, index, partial(decode, record, self._lib))

        return (yield from self._list(report, read))

    def generic(self, report: str) -> Conversation[list[dict[str, Value]]]:
        """Read any report that libchrony knows, by its introspection alone."""
        decoder = partial(decode_generic, report, self._lib)

        def read(index: int) -> Conversation[tuple[Any, dict[str, Value] | None]]:
            if report in BY_ADDRESS:
                return (yield from self._by_address(report, index, decoder))
            one = yield from self._record(report, index, decoder)
            if "address" not in one and "reference ID" not in one:
                return (False, index), one
            address, reference_id = (
                one[name].value if name in one else ""
                for name in ("address", "reference ID")
            )
            return _identity(address, reference_id), one

        if report not in reports():
            raise ChronyDataError(
                f"this libchrony has no report {report!r}, only {', '.join(reports())}"
            )
        try:
            return (yield from self._list(report, read))
        except ChronyDataError as error:
            if error.error_code != self._lib.CHRONY_DISABLED:
                raise
            self._reset()
            return []

    def _list(
        self, report: str, read: Callable[[int], Conversation[tuple[Any, T | None]]]
    ) -> Conversation[list[T]]:
        """Read a list that is that of one moment.

        ``read`` returns the identity of a source, and its record or None.
        """
        before: list[Any] | None = None
        refusal: ChronyDataError | None = None
        for _ in range(LIST_READS):
            keys = found = None
            count = yield from self._count(report)
            try:
                found = yield from self._list_once(report, read, count)
            except ChronyDataError as error:
                # To a request for a record: there is none with that index.
                if error.error_code != self._lib.CHRONY_UNEXPECTED_STATUS:
                    raise
                refusal = error
                self._reset()
            if found is not None:
                keys = [key for key, _ in found]
                sources = [key for key in keys if not key[0]]
                # Two reference clocks may share an ID for good; then the list
                # is the same the second time.
                if len(set(sources)) == len(sources) and (
                    len(set(keys)) == len(keys) or keys == before
                ):
                    return [one for _, one in found if one is not None]
            before = keys
        raise ChronyDataError(
            f"{self.target}: {report}: the list of sources changed during each of "
            f"{LIST_READS} reads. Try again when fewer are added and deleted"
        ) from refusal

    def _list_once(
        self,
        report: str,
        read: Callable[[int], Conversation[tuple[Any, T | None]]],
        count: int,
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
            found.append((yield from read(index)))
            if len(found) == 1 and (yield from self._count(report)) != count:
                return None
        return found[::-1]

    def _count(self, report: str) -> Conversation[int]:
        lib = self._lib
        yield from self._exchange(report, lib.chrony_request_report_number_records)
        # A uint32 of the network in an int: the largest are negative.
        count: int = lib.chrony_get_report_number_records(self._handle)
        if not 0 <= count <= MOST_RECORDS:
            raise ChronyDataError(
                f"{self.target}: {report}: chronyd claims to have "
                f"{count & 0xFFFFFFFF} sources, more than the {MOST_RECORDS} that "
                "pychrony reads. Is it a chronyd?"
            )
        return count

    def _by_address(
        self, report: str, index: int, decoder: Callable[..., T]
    ) -> Conversation[tuple[Any, T | None]]:
        """Read a record that chronyd gives by address, and tell the address.

        libchrony takes the address from the last response if that was the
        ``sourcestats`` of the same index. It would fetch it again itself for a
        resend, perhaps that of another source by then, so both requests are
        made again.
        """
        decode_stats = partial(decode, SourceStats, self._lib)
        waits = self._waits()
        while True:
            stats = yield from self._record("sourcestats", index, decode_stats)
            key = _identity(stats.address, stats.reference_id)
            if not stats.address:  # a reference clock
                return key, None
            one = partial(decoder, address=stats.address)
            try:
                return key, (yield from self._record(report, index, one, waits[:1]))
            except ChronyTimeoutError:
                del waits[0]
                if not waits:
                    raise self._timeout(report, self._waits()) from None

    def _record(
        self,
        report: str,
        index: int,
        decoder: Callable[[Any], T],
        waits: list[float] | None = None,
    ) -> Conversation[T]:
        lib = self._lib
        yield from self._exchange(report, lib.chrony_request_record, index, waits=waits)
        try:
            return decoder(self._handle)
        except ValueError as reason:
            raise ChronyDataError(
                f"{self.target}: {report}: the reply makes no sense: {reason}"
            ) from None

    def _waits(self) -> list[float]:
        return [self.timeout * 2.0**number for number in range(self.retries + 1)]

    def _exchange(
        self,
        report: str,
        request: Any,
        *arguments: int,
        waits: list[float] | None = None,
    ) -> Conversation[None]:
        """Send a request until libchrony has taken the response to it."""
        self._ignored = 0
        waits = waits or self._waits()
        for wait in waits:
            deadline = monotonic() + wait
            sent = yield from self._send(report, request, arguments, deadline)
            if sent and (yield from self._receive(report, deadline)):
                return
        raise self._timeout(report, waits)

    def _send(
        self, report: str, request: Any, arguments: Iterable[int], deadline: float
    ) -> Conversation[bool]:
        lib, name = self._lib, _NAMES.setdefault(report, report.encode())
        send = partial(request, self._handle, name, *arguments)
        while True:
            code = locked(send)
            if code == lib.CHRONY_OK:
                return True
            if code != lib.CHRONY_SEND_FAILED or ffi.errno not in _AGAIN:
                raise self._error(code, report)
            # chronyd does not keep up with the queue of its Unix socket.
            if not (yield self._fd, POLLOUT, deadline) or monotonic() >= deadline:
                return False
            # A send that failed made libchrony forget the address: it would ask
            # for that of the index by itself (follow_report in client.c), which
            # may be another source by now.
            if report in BY_ADDRESS:
                return False

    def _receive(self, report: str, deadline: float) -> Conversation[bool]:
        lib = self._lib
        receive = partial(lib.chrony_process_response, self._handle)
        late = False
        while lib.chrony_needs_response(self._handle):
            # The first wait is granted even if this process was held up past
            # the deadline: the response may be there. A flood of datagrams
            # that libchrony ignores ends at the deadline all the same.
            if late or not (yield self._fd, POLLIN, deadline):
                return False
            code = locked(receive)
            if code == lib.CHRONY_OK:
                self._ignored += 1
            elif code != lib.CHRONY_RECV_FAILED or ffi.errno not in _AGAIN:
                raise self._error(code, report)
            late = monotonic() >= deadline
        return True

    def _error(self, code: int, report: str) -> ChronyError:
        """Return the error for a ``chrony_err`` other than CHRONY_OK."""
        lib = self._lib
        if code in (
            lib.CHRONY_SEND_FAILED,
            lib.CHRONY_RECV_FAILED,
        ):
            return _unreachable(self.target, _os_error(), code)
        if code == lib.CHRONY_NO_RANDOM:
            reason = _os_error()
            text = f"libchrony cannot open /dev/urandom: {reason.strerror}"
            error = ChronyConnectionError(f"{self.target}: {text}", code)
            error.__cause__ = reason
            return error
        kind, text = {
            lib.CHRONY_UNAUTHORIZED: (ChronyPermissionError, _NOT_AUTHORIZED),
            lib.CHRONY_DISABLED: (ChronyDataError, "chronyd says that it is disabled"),
            lib.CHRONY_UNEXPECTED_STATUS: (
                ChronyDataError,
                "chronyd refuses it with a status that libchrony does not know",
            ),
            lib.CHRONY_OLD_SERVER: (ChronyDataError, "this chronyd is too old for it"),
            lib.CHRONY_NEW_SERVER: (
                ChronyDataError,
                "this chronyd is too new for libchrony, update libchrony",
            ),
            lib.CHRONY_INVALID_RESPONSE: (ChronyDataError, "the reply is truncated"),
        }.get(code) or (
            ChronyError,
            ffi.string(lib.chrony_get_error_string(code)).decode(),
        )
        return kind(f"{self.target}: {report}: {text}", code)

    def _timeout(self, report: str, waits: list[float]) -> ChronyTimeoutError:
        text = (
            f"{self.target}: {report}: no answer to {len(waits)} "
            f"request{'s'[: len(waits) > 1]} in {sum(waits):g} s. "
        )
        if self._ignored:
            text += (
                f"libchrony ignored {self._ignored} datagrams: too late (raise the "
                "timeout), no answer to them, or in another version of the protocol. "
                "Is it a chronyd, and libchrony recent enough?"
            )
        elif self.target.transport is Transport.UNIX_SOCKET:
            text += "Is chronyd hung or stopped, or was its directory removed?"
        else:
            text += (
                "Is chronyd running there, does its cmdallow name this machine, do "
                "cmdport and bindcmdaddress fit, and does no firewall drop UDP?"
            )
        return ChronyTimeoutError(text)


def _identity(address: Any, reference_id: Any) -> tuple[bool, Any]:
    """Return whether others may have the same identity, and the identity.

    No two NTP sources have the same address. A reference clock has none, and
    libchrony shows as "?" one of a family that it does not know.
    """
    return (False, address) if address not in ("", "?") else (True, reference_id)


def patience(timeout: float, retries: int) -> float:
    """Return the longest that one request with its resends can take [s]."""
    return timeout * (2.0 ** (retries + 1) - 1)


def _os_error() -> OSError:
    return OSError(ffi.errno, os.strerror(ffi.errno))


def _unreachable(target: Target, reason: OSError, code: int) -> ChronyError:
    kind: type[ChronyError] = ChronyConnectionError
    unix = target.transport is Transport.UNIX_SOCKET
    advice = ""
    if reason.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.ECONNRESET):
        advice = ". Is chronyd running"
        advice += "?" if unix else ", and its command port open there?"
    elif reason.errno == errno.EACCES and unix:
        kind = ChronyPermissionError
        advice = (
            ". The socket is for root and the user that chronyd runs as (its group "
            "does not help); tracking, sources, sourcestats, activity, rtcdata and "
            "smoothing need no right over UDP, address 127.0.0.1"
        )
    elif reason.errno == errno.EINVAL and unix:
        advice = (
            ". libchrony puts a socket of its own beside chronyd's, so the path must "
            "name a directory other than / and be about 60 bytes at most"
        )
    elif reason.errno == errno.EINVAL and target.host.startswith("fe80:"):
        advice = ". A link-local address needs its interface, as in fe80::1%eth0"
    error = kind(f"{target}: {reason.strerror or reason}{advice}", code)
    error.__cause__ = reason
    return error


def _deinit(lib: Any, holder: Any) -> None:
    handle, holder[0] = holder[0], ffi.NULL
    if handle:
        lib.chrony_deinit_session(handle)


def _release(lib: Any, held: tuple[Any, list[int], int]) -> None:
    holder, fds, pid = held
    _deinit(lib, holder)
    # In a forked child, chrony_close_socket would remove the file of the Unix
    # socket, which the parent still uses.
    close = lib.chrony_close_socket if os.getpid() == pid else os.close
    while fds:  # forgotten and closed in one function of C
        deque(map(close, map(fds.pop, (0,))), 0)


def _forsake(
    lib: Any, held: tuple[Any, list[int], int], session: Any, target: str
) -> None:
    _, fds, pid = held
    if not fds:  # close() was interrupted when all was done
        return
    mine = os.getpid() == pid
    if session() is None:
        _release(lib, held)
    elif mine:
        # The interpreter exits. Daemon threads may be using the session: only
        # the file of its socket goes now, the rest goes with the process.
        lib.chrony_close_socket(os.dup(fds[0]))
    if mine:
        warnings.warn(
            f"unclosed connection to chronyd at {target}", ResourceWarning, stacklevel=2
        )


def connect(
    targets: list[Target], timeout: float, retries: int
) -> Conversation[Session]:
    """Open a session to the first target where a chronyd answers.

    UDP "connects" to nobody, so with several targets only an answer counts.
    They are asked in turn, each once with the first wait, then the silent ones
    again with the doubled wait, and so on.
    """
    if len(targets) == 1:
        return Session(targets[0], timeout, retries)
    failures: dict[Target, ChronyError] = {}
    for attempt in range(retries + 1):
        for target in targets:
            if attempt and not isinstance(failures[target], ChronyTimeoutError):
                continue
            try:
                session = Session(target, timeout * 2**attempt, 0)
            except (ChronyConnectionError, ChronyPermissionError) as error:
                failures[target] = error
                continue
            try:
                yield from session.probe()
            except ChronyConnectionError as error:
                session.close()
                failures[target] = error
                continue
            except BaseException:
                session.close()
                raise
            session.timeout, session.retries = timeout, retries
            return session
    silent = any(isinstance(error, TimeoutError) for error in failures.values())
    kind = ChronyTimeoutError if silent else ChronyConnectionError
    raise kind(
        "no chronyd answered. "
        + "; ".join(error.message for error in failures.values())
    )
