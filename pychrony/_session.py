"""One libchrony session on one socket, and the requests over it.

This is the only module that calls libchrony to send and receive. It implements
retries, deadlines and the meaning of errors, once for all drivers.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from select import POLLIN, POLLOUT
from time import monotonic

from . import _advice
from ._libchrony import ffi
from ._library import call_locked, load
from ._socket import DatagramSocket, unreachable
from .enums import Transport
from .exceptions import (
    ChronyConnectionError,
    ChronyDataError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
)
from .models import BY_ADDRESS

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from ._address import Target
    from ._waiting import RequestGenerator

    T = TypeVar("T")

# The length of a list comes from the network. chronyd has no limit, but no
# configuration comes near this one.
MOST_RECORDS = 65_536

_NOT_AUTHORIZED = (
    "chronyd says 'Not authorized'. Read it over chronyd's Unix socket, as root or "
    "the user that chronyd runs as. From chronyd 4.7 on, the directive opencommands "
    "can allow it over UDP. The directive replaces the default list, and authdata and "
    "ntpdata also need sourcestats in it"
)

# The names of reports for libchrony. They must never be freed, as it may keep a
# pointer to one (follow_report in client.c).
_NAMES: dict[str, bytes] = {}

_AGAIN = (errno.EAGAIN, errno.EINTR)

# A struct sockaddr with the family AF_UNSPEC.
_NOWHERE = bytes(16)


class Session:
    """A libchrony session and its socket.

    Attributes:
        target: the address that it is connected to.
        timeouts: how long to wait for the reply to a request, and to each of its
            retries [s].
        blocking: whether the caller waits for nothing else; set by
            :meth:`set_timeouts`. If so, libchrony's own ``recv`` does the first
            wait, with a timeout, which saves the system call of ``poll``.
        in_flight: maximum number of requests in flight for a list.
        counts: the length of each list in the last call, which saves a request.
    """

    in_flight = 128

    def __init__(
        self, target: Target, timeouts: Sequence[float], *, blocking: bool = False
    ) -> None:
        self._ignored = 0
        self.target = target
        self.counts: dict[str, int] = {}
        self.lib = load()
        # Made before what it releases: a signal handler may raise an exception at
        # any bytecode.
        self._holder = ffi.new("chrony_session **")
        self._socket = DatagramSocket(target)
        self.pid = self._socket.pid
        self._fd = self._socket.raw.fileno()
        try:
            self.set_timeouts(timeouts, blocking=blocking)
            self._init()
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        # The socket closes itself, and warns. At exit it counts as closed: daemon
        # threads may be using the session, which ends with the process.
        if hasattr(self, "_socket") and not self._socket.closed:
            _deinit(self.lib, self._holder)

    def set_timeouts(self, timeouts: Sequence[float], *, blocking: bool) -> None:
        """Set the timeouts of a request and of its retries [s]."""
        self.timeouts = timeouts
        # Not for the Unix socket, as its send() would also wait; nor if time_t and
        # long may differ in size, or the timeout is too short for the clock tick.
        udp = self.target.transport is Transport.COMMAND_PORT
        precise = timeouts[0] >= 0.01 and ffi.sizeof("long") == 8
        self.blocking = blocking and udp and precise
        if self.blocking:
            self._socket.set_timeout(timeouts[0])

    def reconnect(self, target: Target) -> None:
        """Connect to another UDP address of the same family, between two reports."""
        self.target = target
        self.counts.clear()
        # Otherwise the socket would keep the local address chosen for the old target.
        self.lib.connect(self._fd, _NOWHERE, len(_NOWHERE))
        try:
            self._socket.raw.connect(target.socket_address())
        except OSError as reason:
            raise unreachable(target, reason) from reason
        # From now on the kernel accepts only datagrams of the new target. Discard
        # the replies and errors of the old one.
        while self.lib.recv(self._fd, ffi.NULL, 0, 0) == 0 or ffi.errno not in _AGAIN:
            pass

    def _init(self) -> None:
        code = self.lib.chrony_init_session(self._holder, self._fd)
        if code != self.lib.CHRONY_OK:
            raise self._error(code, "a session")
        self._handle = self._holder[0]

    def reset(self) -> None:
        """Start a new libchrony session on the same socket.

        After any error the old session may have a pending request or a report to
        follow, and would return wrong results (client.c).
        """
        _deinit(self.lib, self._holder)
        self._init()

    def close(self) -> None:
        """Close the session and its socket; a second call does nothing."""
        _deinit(self.lib, self._holder)
        self._socket.close()

    def count(self, report: str) -> RequestGenerator[int]:
        """Request the number of records of a report."""
        request = self.lib.chrony_request_report_number_records
        return self._exchange(report, request, (), self._number, self.timeouts)

    def _number(self, handle: Any) -> int:
        # An int made of a uint32 from the network: the largest are negative.
        count: int = self.lib.chrony_get_report_number_records(handle)
        if not 0 <= count <= MOST_RECORDS:
            raise ValueError(
                f"chronyd claims to have {count & 0xFFFFFFFF} sources, more than the "
                f"{MOST_RECORDS} that pychrony reads. Is it a chronyd?"
            )
        return count

    def record(
        self,
        report: str,
        index: int,
        decoder: Callable[[Any], T],
        timeouts: Sequence[float] = (),
        *,
        begun: float | None = None,
    ) -> RequestGenerator[T]:
        """Ask for a record and return what ``decoder`` makes of it.

        ``begun`` is the deadline of the first try, if :meth:`request` began it.
        """
        request = self.lib.chrony_request_record
        if report in BY_ADDRESS:
            request = partial(call_locked, request)  # it formats that address
        timeouts = timeouts or self.timeouts
        arguments = (index,)
        return self._exchange(
            report, request, arguments, decoder, timeouts, begun=begun
        )

    def request(self, report: str) -> float | None:
        """Send the request for a report of one record, and return its deadline.

        Return None if it could not be sent. With :meth:`received` and :meth:`decoded`
        it is the first try of :meth:`record`, without a generator: that would cost a
        fifth of a call, and nearly every call ends with it.
        """
        self._ignored = 0
        deadline = monotonic() + self.timeouts[0]
        code = self.lib.chrony_request_record(self._handle, _name(report), 0)
        if not code:
            return deadline
        if self._may_retry(code, self.lib.CHRONY_SEND_FAILED):
            return None
        raise self._error(code, report)

    def decoded(self, report: str, decoder: Callable[[Any], T]) -> T:
        """Decode the record that was received last."""
        try:
            return decoder(self._handle)
        except ValueError as reason:
            raise ChronyDataError(
                f"{self.target}: {report}: the reply makes no sense: {reason}"
            ) from None

    def _exchange(
        self,
        report: str,
        request: Callable[..., int],
        arguments: tuple[int, ...],
        decoder: Callable[[Any], T],
        timeouts: Sequence[float],
        *,
        begun: float | None = None,
    ) -> RequestGenerator[T]:
        """Send a request until its reply is there, and decode that.

        The reply is looked for once even if this process was held up past the
        deadline, as it may be there. Datagrams that libchrony ignores do not extend
        that.
        """
        if begun is None:
            self._ignored = 0
        for timeout in timeouts:
            if begun is not None:
                deadline, begun = begun, None
            else:
                deadline = monotonic() + timeout
                code = request(self._handle, _name(report), *arguments)
                if code and not (
                    yield from self._send_later(
                        code, report, request, arguments, deadline
                    )
                ):
                    continue
                if (
                    # libchrony knows the count of some reports, and sends no request.
                    not (arguments or self.lib.chrony_needs_response(self._handle))
                    or (self.blocking and self.received(report))
                ):
                    return self.decoded(report, decoder)
            while (yield self._fd, POLLIN, deadline):
                if self.received(report):
                    return self.decoded(report, decoder)
                if monotonic() >= deadline:
                    break
        raise self.no_answer(report, timeouts)

    def _send_later(
        self,
        code: int,
        report: str,
        request: Callable[..., int],
        arguments: tuple[int, ...],
        deadline: float,
    ) -> RequestGenerator[bool]:
        """Send again a request that failed with ``code``; return False if too late.

        The queue of chronyd's Unix socket may be full.
        """
        while code:
            if not self._may_retry(code, self.lib.CHRONY_SEND_FAILED):
                raise self._error(code, report)
            if not (yield self._fd, POLLOUT, deadline) or monotonic() >= deadline:
                return False
            # After a failed send libchrony has lost the address. It would request
            # the address of the index itself (follow_report in client.c), which may
            # be another source by now.
            if report in BY_ADDRESS:
                return False
            code = request(self._handle, _name(report), *arguments)
        return True

    def received(self, report: str) -> bool:
        """Let libchrony receive a datagram; return whether it is the reply."""
        # Without the lock: this writes to the buffer of addresses only if libchrony
        # requests an address itself.
        code = self.lib.chrony_process_response(self._handle)
        if not code:
            if not self.lib.chrony_needs_response(self._handle):
                return True
            self._ignored += 1
        elif not self._may_retry(code, self.lib.CHRONY_RECV_FAILED):
            raise self._error(code, report)
        return False

    def _may_retry(self, code: int, failed: int) -> bool:
        """Whether the call failed only because the socket was not ready."""
        return code == failed and ffi.errno in _AGAIN

    def _error(self, code: int, report: str) -> ChronyError:
        """Return the error for a ``chrony_err`` other than CHRONY_OK."""
        lib = self.lib
        if code in (lib.CHRONY_SEND_FAILED, lib.CHRONY_RECV_FAILED):
            return unreachable(self.target, _os_error(), code)
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

    def no_answer(self, report: str, timeouts: Sequence[float]) -> ChronyTimeoutError:
        """Return the error when no reply has come within these timeouts."""
        text = (
            f"{self.target}: {report}: no answer to {len(timeouts)} "
            f"request{'s'[: len(timeouts) > 1]} in {sum(timeouts):g} s. "
        )
        if self._ignored:
            text += (
                f"libchrony ignored {self._ignored} datagrams: too late (raise the "
                "timeout), no answer to them, or in another version of the protocol. "
                "Is it a chronyd, and libchrony recent enough?"
            )
        elif self.target.transport is Transport.UNIX_SOCKET:
            text += _advice.silent(self.target.host)
        else:
            text += (
                "Is chronyd running there, does its cmdallow name this machine, do "
                "cmdport and bindcmdaddress fit, and does no firewall drop UDP?"
            )
        return ChronyTimeoutError(text)


def _name(report: str) -> bytes:
    return _NAMES.get(report) or _NAMES.setdefault(report, report.encode())


def _os_error() -> OSError:
    return OSError(ffi.errno, os.strerror(ffi.errno))


def _deinit(lib: Any, holder: Any) -> None:
    handle, holder[0] = holder[0], ffi.NULL
    if handle:
        lib.chrony_deinit_session(handle)
