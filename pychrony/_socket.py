"""The datagram socket of a session: UDP, or Unix with a file of its own.

chronyd replies to a client of its Unix socket by path. So the client's socket has
a file in chronyd's directory, and chronyd, which runs as another user, must be
permitted to write to it. libchrony 0.2 puts that file two directories deeper,
where chronyd may not write under the AppArmor profiles of Debian and Ubuntu.
Therefore the socket is opened here and passed to libchrony.

A signal handler may raise an exception at any bytecode. So everything that is open
is always held by an object that closes it, and can be closed twice.
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

from . import _advice
from .enums import Transport
from .exceptions import (
    ChronyConnectionError,
    ChronyError,
    ChronyPermissionError,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from ._address import Target

# The path of a Unix socket has at most 107 bytes: sun_path in unix(7).
_PATH_MAX = 107
_PREFIX = b"pychrony."
_RANDOM_BYTES = 6
_DIRECTORY_MAX = _PATH_MAX - len(b"/" + _PREFIX) - 2 * _RANDOM_BYTES

# The mode of the client's socket. bind() never sets the sticky bit, whatever the
# umask: it says that bind() is done, see _remove_dead().
_ALL_MAY_WRITE = 0o1666

# The error_code where libchrony's chrony_open_socket would have failed.
_NOT_OPENED = -1

# The open sockets, with their address and the process that opened them. They are
# cleaned up at exit, when the interpreter does not collect all objects.
_unclosed: dict[socket.socket, tuple[str, int]] = {}


class DatagramSocket:
    """A socket connected to a chronyd.

    Attributes:
        pid: the process that opened it.
        raw: the socket itself.
    """

    raw: socket.socket

    # For __del__(), when the names of this module are gone already at exit.
    _unclosed = _unclosed

    def __init__(self, target: Target) -> None:
        """Open it.

        Raises:
            ChronyConnectionError: no chronyd is there, or the client's socket
                cannot be created.
            ChronyPermissionError: one of these is not permitted.
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
        """Whether it is closed, or left open until the process ends."""
        return getattr(self, "raw", None) not in self._unclosed

    def set_timeout(self, seconds: float) -> None:
        """Let libchrony's own ``recv`` wait for a reply."""
        whole, fraction = divmod(seconds, 1)
        timeout = struct.pack("ll", int(whole), int(fraction * 1_000_000))
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self.raw.setblocking(True)

    def close(self) -> None:
        """Close it, and remove its file if this process created that.

        A second call does nothing, unless the first was interrupted.
        """
        if not self.closed:
            if self.pid == os.getpid():
                _remove_file(self.raw)
            self._unclosed.pop(self.raw, None)
            self.raw.close()


def _open_unix(unix: socket.socket, target: Target) -> None:
    path = os.fsencode(target.host)
    directory = os.path.dirname(path)
    if len(directory) > _DIRECTORY_MAX or len(path) > _PATH_MAX:
        raise ChronyConnectionError(
            f"{target}: this path is too long. pychrony creates a socket in the same "
            f"directory. The path of a socket can have {_PATH_MAX} bytes at most, and "
            f"that of the directory {_DIRECTORY_MAX}, not {len(directory)}. Use a "
            "symbolic link to the directory that chronyd can also reach, or address "
            "127.0.0.1",
            _NOT_OPENED,
        )
    unix.connect(path)
    _remove_dead(directory)
    own = os.path.join(directory, _PREFIX + os.urandom(_RANDOM_BYTES).hex().encode())
    try:
        unix.bind(own)
    except OSError as reason:
        raise _no_place(target, os.fsdecode(directory), reason) from reason
    _let_chronyd_write(own, target)


def _remove_dead(directory: bytes) -> None:
    """Remove the files of other processes' sockets that nobody removed, as by SIGKILL.

    There is no race: a file that has our mode was bound before, and cannot be bound
    again, so the kernel refuses connections only after its socket was closed. chronyd
    is in this kernel, and so are all clients that it can reply to.
    """
    with suppress(OSError):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if (
                name.startswith(_PREFIX)
                and os.lstat(path).st_mode == stat.S_IFSOCK | _ALL_MAY_WRITE
            ):
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                    if probe.connect_ex(path) == errno.ECONNREFUSED:
                        os.unlink(path)


def _let_chronyd_write(own: bytes, target: Target) -> None:
    """Permit all users to write to the file of the socket that was just created.

    Still only chronyd can send to it: the kernel lets nobody else send to a
    connected socket. The user of a compromised chronyd may write to the directory,
    and could put a link to any file in its place. So the file is opened once, and
    checked and changed through that descriptor.
    """
    if not hasattr(os, "O_PATH"):
        raise ChronyConnectionError(
            f"{target}: the Unix socket can be used on Linux only. Use address "
            "127.0.0.1",
            _NOT_OPENED,
        )
    held: list[FileIO] = []
    try:
        # Opened and stored in one C call, which no signal handler can interrupt.
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(FileNotFoundError):
            held.extend(map(FileIO, map(os.open, (own,), (flags,))))
        if not (held and _is_ours(fd := held[0].fileno())):
            raise ChronyConnectionError(
                f"{target}: another process removed or replaced {os.fsdecode(own)}, "
                "the socket that pychrony created. Who may write to that directory?",
                _NOT_OPENED,
            )
        try:
            os.chmod(f"/proc/self/fd/{fd}", _ALL_MAY_WRITE)
        except FileNotFoundError as reason:
            raise ChronyConnectionError(
                f"{target}: /proc is not mounted, and without it pychrony cannot "
                "permit chronyd to reply. Mount it, or use address 127.0.0.1",
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
        # It may be closed already, or its file or the directory removed.
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
    """Remove the files; the sockets close when the process ends."""
    left = _unclosed.copy()
    _unclosed.clear()
    for raw in left:
        if left[raw][1] == os.getpid():
            _remove_file(raw)
        # Otherwise each would be closed with a warning of its own. If there are
        # daemon threads, they may be using it.
        if threading.active_count() == 1:
            raw.detach()
    for address, pid in left.values():
        if pid == os.getpid():
            _warn(address)


def _no_place(target: Target, directory: str, reason: OSError) -> ChronyError:
    """Return the error when no socket can be created in chronyd's directory."""
    kind: type[ChronyError] = ChronyConnectionError
    advice = ""
    if reason.errno == errno.EROFS:
        advice = (
            ": it is mounted read-only here, and chronyd replies to a socket in that "
            "directory. Mount it read-write, or use UDP (address 127.0.0.1, or that "
            "of the host)"
        )
    elif reason.errno in (errno.EACCES, errno.EPERM):
        kind = ChronyPermissionError
        advice = (
            ", where chronyd would reply to it. Run this as root or the user that "
            f"chronyd runs as. {_advice.OVER_UDP}"
        )
    return kind(
        f"{target}: {reason.strerror or reason}: no socket can be made in "
        f"{directory}{advice}",
        _NOT_OPENED,
    )


def unreachable(
    target: Target, reason: OSError, code: int = _NOT_OPENED
) -> ChronyError:
    """Return the error of a socket that cannot be opened or used."""
    kind: type[ChronyError] = ChronyConnectionError
    unix = target.transport is Transport.UNIX_SOCKET
    if unix and reason.errno in (errno.EACCES, errno.EPERM):
        kind = ChronyPermissionError
    advice = _advice.unreachable(target.host, unix, reason)
    text = f"{target}: {reason.strerror or reason}"
    error = kind(f"{text}. {advice}" if advice else text, code)
    error.__cause__ = reason
    return error
