"""One libchrony session on one socket, and the requests over it.

The only room that calls libchrony to open, send, receive and close. Resends,
deadlines and what an error means are decided here, once for all drivers.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from select import POLLIN, POLLOUT
from time import monotonic

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
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TypeVar

    from ._address import Target
    from ._waiting import Conversation

    T = TypeVar("T")

# The length of a list comes from the network. chronyd sets itself no limit,
# but no configuration comes near this one.
MOST_RECORDS = 65_536

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

# A struct sockaddr with the family AF_UNSPEC.
_NOWHERE = bytes(16)


class Session:
    """A libchrony session, its socket, and its patience.

    Attributes:
        target: where it is connected to.
        waits: how long to wait for the answer to a request and its resends [s].
        alone: whether nothing else has to go on meanwhile; set by
            :meth:`be_patient`. Then the first wait is that of libchrony's own
            ``recv``, with a timeout: ``poll`` would be another system call.
        in_flight: how many records of a list may be asked for at once.
        counts: how many records far lists had the last time.
    """

    in_flight = 128

    def __init__(
        self, target: Target, waits: Sequence[float], *, alone: bool = False
    ) -> None:
        self.target = target
        self.counts: dict[str, int] = {}
        self.lib = load()
        # It exists before what it releases: a signal handler may raise an
        # exception at any bytecode.
        self._holder = ffi.new("chrony_session **")
        self._socket = DatagramSocket(target)
        self.pid = self._socket.pid
        self._fd = self._socket.raw.fileno()
        try:
            self.be_patient(waits, alone=alone)
            self._init()
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        # The socket closes itself, and warns. After the end of the interpreter
        # it counts as closed, and what daemon threads use goes with the process.
        if hasattr(self, "_socket") and not self._socket.closed:
            _deinit(self.lib, self._holder)

    def be_patient(self, waits: Sequence[float], *, alone: bool) -> None:
        """Wait so long for the answer to a request and its resends [s]."""
        self.waits = waits
        # Not for the Unix socket, whose send() would wait, too; nor where the
        # size of time_t is not that of long, or the clock tick is too coarse.
        udp = self.target.transport is Transport.COMMAND_PORT
        self.alone = alone and udp and waits[0] >= 0.01 and ffi.sizeof("long") == 8
        if self.alone:
            self._socket.set_timeout(waits[0])

    def turn_to(self, target: Target) -> None:
        """Turn from one UDP address to another of the same family, when idle."""
        self.target = target
        self.counts.clear()
        # Else it would keep the local address that was right for the first.
        self.lib.connect(self._fd, _NOWHERE, len(_NOWHERE))
        try:
            self._socket.raw.connect(target.socket_address())
        except OSError as reason:
            raise unreachable(target, reason) from reason
        # From here on only the new one can send something. What others left,
        # an error or a datagram, must not count as its answer.
        while self.lib.recv(self._fd, ffi.NULL, 0, 0) == 0 or ffi.errno not in _AGAIN:
            pass

    def _init(self) -> None:
        code = self.lib.chrony_init_session(self._holder, self._fd)
        if code != self.lib.CHRONY_OK:
            raise self._error(code, "a session")
        self._handle = self._holder[0]

    def reset(self) -> None:
        """Begin a fresh libchrony session on the same socket.

        After any error the old one may hold a pending request or a report to
        follow, and would return wrong results (client.c).
        """
        _deinit(self.lib, self._holder)
        self._init()

    def close(self) -> None:
        """Close the session and its socket. Does nothing the second time."""
        _deinit(self.lib, self._holder)
        self._socket.close()

    def count(self, report: str) -> Conversation[int]:
        """Ask how many records a report has."""
        request = self.lib.chrony_request_report_number_records
        return self._exchange(report, request, (), self._number, self.waits)

    def _number(self, handle: Any) -> int:
        # A uint32 of the network in an int: the largest are negative.
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
        waits: Sequence[float] = (),
    ) -> Conversation[T]:
        """Ask for a record and return what ``decoder`` makes of it."""
        request = self.lib.chrony_request_record
        if report in BY_ADDRESS:
            request = partial(call_locked, request)  # it formats that address
        return self._exchange(report, request, (index,), decoder, waits or self.waits)

    def _exchange(
        self,
        report: str,
        request: Callable[..., int],
        arguments: tuple[int, ...],
        decoder: Callable[[Any], T],
        waits: Sequence[float],
    ) -> Conversation[T]:
        """Send a request until libchrony has taken the response, and decode it."""
        lib, handle = self.lib, self._handle
        name = _NAMES.get(report) or _NAMES.setdefault(report, report.encode())
        self._ignored = 0
        for wait in waits:
            deadline = monotonic() + wait
            code = request(handle, name, *arguments)
            if code and not (
                yield from self._queue(code, report, request, arguments, deadline)
            ):
                continue
            # A count that libchrony knows by itself is not asked for.
            pending = arguments or lib.chrony_needs_response(handle)
            here, late = self.alone, False
            while pending:
                # The first wait is granted even if this process was held up
                # past the deadline: the response may be there. A flood of
                # datagrams that libchrony ignores ends at the deadline all the
                # same.
                if here:
                    here = False
                elif late or not (yield self._fd, POLLIN, deadline):
                    break
                # Without the lock: only where libchrony asks for an address by
                # itself does this write into its buffer.
                code = lib.chrony_process_response(handle)
                if not code:
                    pending = lib.chrony_needs_response(handle)
                    self._ignored += 1
                elif code != lib.CHRONY_RECV_FAILED or ffi.errno not in _AGAIN:
                    raise self._error(code, report)
                late = pending and monotonic() >= deadline
            else:
                try:
                    return decoder(handle)
                except ValueError as reason:
                    raise ChronyDataError(
                        f"{self.target}: {report}: the reply makes no sense: {reason}"
                    ) from None
        raise self.no_answer(report, waits)

    def _queue(
        self,
        code: int,
        report: str,
        request: Callable[..., int],
        arguments: Iterable[int],
        deadline: float,
    ) -> Conversation[bool]:
        """Wait until a request that failed with ``code`` can be sent."""
        lib = self.lib
        while code:
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
            code = request(self._handle, _NAMES[report], *arguments)
        return True

    def _error(self, code: int, report: str) -> ChronyError:
        """Return the error for a ``chrony_err`` other than CHRONY_OK."""
        lib = self.lib
        if code in (
            lib.CHRONY_SEND_FAILED,
            lib.CHRONY_RECV_FAILED,
        ):
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

    def no_answer(self, report: str, waits: Sequence[float]) -> ChronyTimeoutError:
        """Return the error for no answer within these waits."""
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
            from . import _advice

            text += _advice.silent(self.target.host)
        else:
            text += (
                "Is chronyd running there, does its cmdallow name this machine, do "
                "cmdport and bindcmdaddress fit, and does no firewall drop UDP?"
            )
        return ChronyTimeoutError(text)


def _os_error() -> OSError:
    return OSError(ffi.errno, os.strerror(ffi.errno))


def _deinit(lib: Any, holder: Any) -> None:
    handle, holder[0] = holder[0], ffi.NULL
    if handle:
        lib.chrony_deinit_session(handle)
