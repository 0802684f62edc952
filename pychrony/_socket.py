"""The datagram socket of a session: UDP, or Unix with a file of its own.

chronyd answers a client of its Unix socket by path. So the client's socket has
a file, in the directory of chronyd's, and chronyd, which runs as another user,
must be permitted to write to it. libchrony 0.2 puts that file two directories
deeper, which the AppArmor profiles of Debian and Ubuntu do not let chronyd
reach. Therefore the socket is opened here and given to libchrony.

A signal handler may raise an exception at any bytecode. What is open is always
held by an object that closes it, and everything can be closed again.
"""

from __future__ import annotations

import atexit
import errno
import os
import socket
import stat
import struct
import threading
import warnings
from contextlib import suppress
from io import FileIO

from .enums import Transport
from .exceptions import (
    ChronyConnectionError,
    ChronyError,
    ChronyPermissionError,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from ._address import Target

# A Unix socket's path has 107 bytes at most, sun_path in unix(7).
_PATH_MAX = 107
_PREFIX = b"pychrony."
_RANDOM_BYTES = 6
_DIRECTORY_MAX = _PATH_MAX - len(b"/" + _PREFIX) - 2 * _RANDOM_BYTES

# The mode of the client's socket.
_ALL_MAY_WRITE = 0o666

# The error_code where libchrony's chrony_open_socket would have failed.
_NOT_OPENED = -1

_OVER_UDP = (
    "tracking, sources, sourcestats, activity, rtcdata and smoothing need no right "
    "over UDP, address 127.0.0.1"
)

# What is open, its address, and the process that opened it: for the end of the
# interpreter, which does not collect everything.
_unclosed: dict[socket.socket, tuple[str, int]] = {}


class DatagramSocket:
    """A socket connected to a chronyd.

    Attributes:
        pid: the process that opened it.
        raw: the socket itself.
    """

    raw: socket.socket

    # Also where this module is being torn down.
    _unclosed = _unclosed

    def __init__(self, target: Target) -> None:
        """Open it.

        Raises:
            ChronyConnectionError: nobody is there, or a socket for the answers
                cannot be made.
            ChronyPermissionError: one of the two is not permitted.
        """
        self._address = str(target)
        self.pid = os.getpid()
        try:
            try:
                self.raw = socket.socket(target.family, socket.SOCK_DGRAM)
                _unclosed[self.raw] = self._address, self.pid
                self.raw.setblocking(False)
                if target.transport is Transport.UNIX_SOCKET:
                    _open_unix(self.raw, target)
                else:
                    self.raw.connect(target.socket_address())
            except OSError as reason:
                raise unreachable(target, reason) from reason
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        if not self.closed:
            self.close()
            if self.pid == os.getpid():
                _warn(self._address)

    @property
    def closed(self) -> bool:
        """Whether it is closed, or left to the end of the process."""
        return getattr(self, "raw", None) not in self._unclosed

    def set_timeout(self, seconds: float) -> None:
        """Let libchrony's own ``recv`` wait for an answer."""
        whole, fraction = divmod(seconds, 1)
        timeout = struct.pack("ll", int(whole), int(fraction * 1_000_000))
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self.raw.setblocking(True)

    def close(self) -> None:
        """Close it, and remove its file if this process made that.

        A second time it does nothing, or what an interruption left to do.
        """
        if not self.closed:
            if self.pid == os.getpid():
                _remove_file(self.raw)
            self._unclosed.pop(self.raw, None)
            self.raw.close()


def _open_unix(unix: socket.socket, target: Target) -> None:
    path = os.fsencode(target.host)
    directory = os.path.dirname(path)
    if max(len(directory), len(path) + _DIRECTORY_MAX - _PATH_MAX) > _DIRECTORY_MAX:
        raise ChronyConnectionError(
            f"{target}: this path is too long. pychrony makes a socket beside that of "
            f"chronyd, and the path of one has {_PATH_MAX} bytes at most: that of the "
            f"directory {_DIRECTORY_MAX}, not {len(directory)}. Use a symbolic link to "
            "the directory, which chronyd can reach, too, or address 127.0.0.1",
            _NOT_OPENED,
        )
    unix.connect(path)
    own = os.path.join(directory, _PREFIX + os.urandom(_RANDOM_BYTES).hex().encode())
    try:
        unix.bind(own)
    except OSError as reason:
        raise _no_place(target, os.fsdecode(directory), reason) from reason
    _let_chronyd_write(own, target)


def _let_chronyd_write(own: bytes, target: Target) -> None:
    """Permit all users to write to the socket that was just made.

    Only chronyd's can: the kernel lets nobody else send to a connected socket.
    As whoever may write to the directory (the user of a chronyd that was
    broken into) could put a link to any file in its place, it is opened, looked
    at and changed without following its path again.
    """
    if not hasattr(os, "O_PATH"):
        raise ChronyConnectionError(
            f"{target}: the Unix socket can be used on Linux only. Use address "
            "127.0.0.1",
            _NOT_OPENED,
        )
    held: list[FileIO] = []
    try:
        # Opened and held in one call of C: no interruption comes in between.
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(FileNotFoundError):
            held.extend(map(FileIO, map(os.open, (own,), (flags,))))
        if not (held and _is_ours(fd := held[0].fileno())):
            raise ChronyConnectionError(
                f"{target}: another process removed or replaced {os.fsdecode(own)}, "
                "the socket that pychrony made. Who may write to that directory?",
                _NOT_OPENED,
            )
        try:
            os.chmod(f"/proc/self/fd/{fd}", _ALL_MAY_WRITE)
        except FileNotFoundError as reason:
            raise ChronyConnectionError(
                f"{target}: /proc is not mounted, and without it pychrony cannot let "
                "chronyd answer. Mount it, or use address 127.0.0.1",
                _NOT_OPENED,
            ) from reason
    finally:
        for file in held:
            file.close()


def _is_ours(fd: int) -> bool:
    found = os.fstat(fd)
    return (
        stat.S_ISSOCK(found.st_mode)
        and found.st_uid == os.geteuid()
        and found.st_nlink == 1
    )


def _remove_file(own: socket.socket) -> None:
    if own.family == socket.AF_UNIX:
        # It is closed already, or its file or the directory is gone.
        with suppress(OSError):
            path = own.getsockname()
            if path:
                os.unlink(path)


def _warn(address: str) -> None:
    warnings.warn(
        f"unclosed connection to chronyd at {address}", ResourceWarning, stacklevel=3
    )


@atexit.register
def _at_exit() -> None:
    """Remove the files, and leave the sockets to the end of the process."""
    left = _unclosed.copy()
    _unclosed.clear()
    for raw in left:
        if left[raw][1] == os.getpid():
            _remove_file(raw)
        # They would close and warn one by one. Daemon threads may be using them.
        if threading.active_count() == 1:
            raw.detach()
    for address, pid in left.values():
        if pid == os.getpid():
            _warn(address)


def _no_place(target: Target, directory: str, reason: OSError) -> ChronyError:
    """Return the error where no socket can be made in chronyd's directory."""
    kind: type[ChronyError] = ChronyConnectionError
    advice = ""
    if reason.errno == errno.EROFS:
        advice = (
            ": it is mounted read-only here, and chronyd answers to a socket beside "
            "its own. Mount it read-write, or use UDP, address 127.0.0.1 or that of "
            "the host"
        )
    elif reason.errno in (errno.EACCES, errno.EPERM):
        kind = ChronyPermissionError
        advice = (
            ", where chronyd answers to a socket beside its own. Run this as root or "
            f"the user that chronyd runs as; {_OVER_UDP}"
        )
    return kind(
        f"{target}: {reason.strerror or reason}: no socket can be made in "
        f"{directory}{advice}",
        _NOT_OPENED,
    )


def unreachable(
    target: Target, reason: OSError, code: int = _NOT_OPENED
) -> ChronyError:
    """Return the error for a socket that cannot be opened or used."""
    kind: type[ChronyError] = ChronyConnectionError
    unix = target.transport is Transport.UNIX_SOCKET
    if unix and reason.errno in (errno.EACCES, errno.EPERM):
        kind = ChronyPermissionError
    from . import _advice

    advice = _advice.unreachable(target.host, unix, reason)
    text = f"{target}: {reason.strerror or reason}"
    error = kind(f"{text}. {advice}" if advice else text, code)
    error.__cause__ = reason
    return error
