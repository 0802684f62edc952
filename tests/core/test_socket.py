"""The socket of a session: where its file is, who may write to it, what is left."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    NOBODY,
    QUICK,
    as_root,
    connected,
    descriptors,
    hung_daemon,
    in_child,
    in_threads,
    interrupted_at,
    python,
    seeing,
    short_directory,
    traces_every_instruction,
    unix_daemon,
)

import pychrony
from pychrony import (
    ChronyConnection,
    ChronyConnectionError,
    ChronyPermissionError,
    ChronyTimeoutError,
    _address,
    _socket,
    get_tracking,
)
from pychrony._base import timeouts_of
from pychrony._session import Session
from pychrony.testing import Request, ScriptedDaemon, make_tracking


@contextmanager
def without_rights() -> Iterator[None]:
    """Be nobody; who is not root has no right anyway."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def directory() -> Iterator[str]:
    with short_directory() as path:
        yield path


@pytest.fixture
def daemon(directory: str) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
        yield daemon


def own_sockets(directory: str) -> list[Path]:
    return [path for path in Path(directory).iterdir() if path.name != "chronyd.sock"]


# --- the file of a Unix socket -----------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_own_socket_is_beside_that_of_chronyd_and_all_may_write_to_it(
    umask: int, daemon: ScriptedDaemon, directory: str
) -> None:
    before = os.umask(umask)
    try:
        with ChronyConnection(daemon.address) as connection:
            (own,) = own_sockets(directory)
            assert stat.filemode(own.stat().st_mode) == "srw-rw-rwT"
            assert connection.get_tracking().stratum == 2
    finally:
        os.umask(before)
    assert re.fullmatch(r"pychrony\.[0-9a-f]{12}", own.name)
    assert not own.exists()


def test_own_socket_takes_datagrams_of_chronyd_alone(
    daemon: ScriptedDaemon, directory: str
) -> None:
    with ChronyConnection(daemon.address) as connection:
        (own,) = own_sockets(directory)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            with pytest.raises(PermissionError):
                other.sendto(b"noise", str(own))
        assert connection.get_tracking().stratum == 2


def test_connections_have_sockets_of_their_own(
    daemon: ScriptedDaemon, directory: str
) -> None:
    connections = [ChronyConnection(daemon.address) for _ in range(20)]
    for connection in connections:
        connection.get_tracking()
    assert len(own_sockets(directory)) == 20
    for connection in connections:
        connection.close()


# --- what is left ------------------------------------------------------------


@traces_every_instruction
@pytest.mark.interrupts
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("transport", ["Unix", "UDP"])
def test_interruption_at_every_instruction_leaves_nothing(
    transport: str, daemon: ScriptedDaemon, directory: str
) -> None:
    target = _address.parse(daemon.address if transport == "Unix" else "127.0.0.1:9")
    patience = timeouts_of(1.0, 0)

    def open_and_close() -> None:
        Session(target, patience, blocking=True).close()

    open_and_close()
    before = descriptors()
    number = 0
    while interrupted_at(number := number + 1, open_and_close):
        assert descriptors() == before, number
        assert not own_sockets(directory), number
    assert number > 200
    assert not _socket._unclosed


def test_warnings_that_are_errors_leave_nothing(
    daemon: ScriptedDaemon, directory: str
) -> None:
    code = (
        "import pychrony, sys\n"
        "for n in range(3):\n"
        "    connection = pychrony.ChronyConnection(sys.argv[1])\n"
        "    connection.get_tracking()\n"
        "others = [pychrony.ChronyConnection(sys.argv[1]) for _ in range(2)]\n"
        "for each in others: each.get_tracking()\n"
    )
    python(code, daemon.address, options=["-W", "error"])
    assert not own_sockets(directory)


def test_child_removes_its_own_socket_only(
    daemon: ScriptedDaemon, directory: str
) -> None:
    with ChronyConnection(daemon.address) as connection:
        (own,) = own_sockets(directory)

        def child() -> None:
            connection.close()
            assert own.exists()
            with connection:
                assert len(own_sockets(directory)) == 2
                assert connection.get_tracking().stratum == 2
            assert own_sockets(directory) == [own]

        in_child(child)
        assert connection.get_tracking().stratum == 2


def test_only_dead_sockets_of_pychrony_are_removed(
    daemon: ScriptedDaemon, directory: str
) -> None:
    """What another process has bound, but not finished, is not dead."""
    for name, mode in (
        *(("pychrony.dead", 0o1666), ("pychrony.bound", 0o777)),
        ("other", 0o1666),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(f"{directory}/{name}")
        os.chmod(f"{directory}/{name}", mode)
    Path(directory, "pychrony.file").touch()
    os.chmod(f"{directory}/pychrony.file", 0o1666)
    with ChronyConnection(daemon.address) as connection:
        connection.get_tracking()
        for _ in range(2):
            assert get_tracking(daemon.address).stratum == 2
            names = {path.name for path in own_sockets(directory)}
            assert names > {"pychrony.bound", "pychrony.file", "other"}
            assert len(names) == 4
            daemon.stop()  # then its socket is connected to nobody
            daemon.start()
    left = own_sockets(directory)
    assert len(left) == 3
    for path in left:
        path.unlink()


# --- somebody in the directory is hostile ------------------------------------


def _victim(directory: str) -> str:
    path = f"{directory}/victim"
    Path(path).touch(mode=0o600)
    return path


def _socket_with_two_names(own: str, directory: str) -> None:
    victim = f"{directory}/victim"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(victim)
    os.chmod(victim, 0o600)
    os.link(victim, own)


def _socket_of_another_user(own: str, directory: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(own)
    os.chown(own, NOBODY, NOBODY)


# What makes another file in the place of our socket, given the directory.
SWAPS: dict[str, Callable[[str, str], object]] = {
    "symlink": lambda own, directory: os.symlink(_victim(directory), own),
    "hard link": lambda own, directory: os.link(_victim(directory), own),
    "file": lambda own, _: Path(own).touch(mode=0o600),
    "fifo": lambda own, _: os.mkfifo(own, 0o600),
    "socket with two names": _socket_with_two_names,
    "nothing": lambda *_: None,
}


@pytest.mark.parametrize(
    "swap",
    [
        *(pytest.param(swap, id=name) for name, swap in SWAPS.items()),
        pytest.param(_socket_of_another_user, marks=as_root),
    ],
)
def test_file_that_is_swapped_in_is_not_opened_to_all(
    swap: Callable[[str, str], object],
    daemon: ScriptedDaemon,
    directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_write = _socket._let_chronyd_write

    def too_late(own: bytes, target: Any) -> None:
        os.unlink(own)
        swap(os.fsdecode(own), directory)
        let_write(own, target)

    monkeypatch.setattr(_socket, "_let_chronyd_write", too_late)
    with pytest.raises(ChronyConnectionError, match="removed or replaced"):
        get_tracking(daemon.address)
    for path in own_sockets(directory):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.unlink()


# --- directories that do not suit --------------------------------------------


def test_longest_path_of_a_socket(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="l", dir="/tmp") as name:
        base = Path(name)
        for length, fits in ((85, True), (86, False)):
            directory = base / ("x" * (length - len(str(base)) - 1))
            directory.mkdir(parents=True)
            with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
                if fits:
                    assert get_tracking(daemon.address).stratum == 2
                    continue
                with pytest.raises(
                    ChronyConnectionError, match=r"directory 85, not 86\. Use a symb"
                ) as caught:
                    get_tracking(daemon.address)
                assert caught.value.error_code == -1
                (base / "short").symlink_to(directory)
                assert get_tracking(f"{base}/short/chronyd.sock").stratum == 2


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/" + "long/" * 30 + "chronyd.sock", "107 bytes at most"),
        ("/tmp/" + "x" * 103, "107 bytes at most"),
        ("/nowhere.sock", "No such file"),  # libchrony refuses such a path
        (__file__, r"That is no socket; .* by"),
        (str(Path(__file__).parent), r"That is no socket; .* by"),
    ],
)
def test_path_of_no_socket(path: str, cause: str) -> None:
    with pytest.raises(ChronyConnectionError, match=cause):
        get_tracking(path)


def test_socket_of_another_kind(directory: str) -> None:
    path = f"{directory}/stream.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(path)
        with pytest.raises(ChronyConnectionError, match="wrong type"):
            get_tracking(path)
    os.unlink(path)


def test_socket_that_nobody_listens_on(directory: str) -> None:
    path = f"{directory}/chronyd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(path)
    cause = r"refused\. Is .* running\? The socket is that of one that has ended"
    with pytest.raises(ChronyConnectionError, match=cause):
        get_tracking(path)
    os.unlink(path)


@as_root
def test_directory_that_is_not_writable(directory: str, daemon: ScriptedDaemon) -> None:
    os.chmod(directory, 0o755)
    with (
        without_rights(),
        pytest.raises(
            ChronyPermissionError, match=r"no socket can be made in .* as root or the"
        ) as caught,
    ):
        get_tracking(daemon.address)
    assert isinstance(caught.value.__cause__, PermissionError)


def test_error_that_explains_itself_has_no_advice() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    error = _socket._no_place(_address.parse("/run/s"), "/run", full)
    said = "/run/s: No space left on device: no socket can be made in /run"
    assert (type(error), error.message) == (ChronyConnectionError, said)


def test_system_without_o_path(
    daemon: ScriptedDaemon, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_PATH")
    with pytest.raises(ChronyConnectionError, match=r"on Linux only\. Use addr"):
        get_tracking(daemon.address)
    assert not own_sockets(directory)


@pytest.mark.usefixtures("one_chronyd")
def test_silent_unix_socket() -> None:
    with (
        unix_daemon() as (path, _),
        pytest.raises(ChronyTimeoutError, match=r"hung or stopped.*AppArmor"),
    ):
        get_tracking(path, **QUICK)


def test_threads_open_and_close_at_the_same_time(
    daemon: ScriptedDaemon, directory: str
) -> None:
    def read(_: int) -> None:
        for _ in range(50):
            with suppress(pychrony.ChronyTimeoutError):
                get_tracking(daemon.address)

    in_threads(4, read)
    assert not own_sockets(directory)
    assert not _socket._unclosed


# --- opening a Unix socket, and what libchrony does with it -----------------


def test_no_socket_there() -> None:
    with pytest.raises(
        ChronyConnectionError, match=r"No such file.*running\?"
    ) as caught:
        get_tracking("/nowhere/chronyd.sock")
    assert caught.value.error_code == -1
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_socket_without_the_right(
    directory: str, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(directory, 0o755)
    os.chmod(daemon.address, 0)
    with without_rights():
        with pytest.raises(ChronyPermissionError, match=r"address 127\.0\.0\.1"):
            get_tracking(daemon.address)
        # Auto-detection goes on to UDP, where anybody may read.
        with ScriptedDaemon(tracking=make_tracking(stratum=6)) as udp:
            monkeypatch.setattr(_address, "LOCAL", (daemon.address, udp.address))
            assert get_tracking().stratum == 6


@pytest.mark.timeout(30)
def test_full_queue_is_waited_for(daemon: ScriptedDaemon) -> None:
    """The kernel queues few datagrams on a Unix socket, some systems only ten."""

    def busy(_: Request) -> None:
        time.sleep(0.01)

    def read(_: int) -> None:
        results.append(get_tracking(daemon.address, timeout=20, retries=0).stratum)

    results: list[int] = []
    daemon.misbehave = seeing(busy)
    in_threads(40, read)
    assert results == [2] * 40


@pytest.mark.usefixtures("one_chronyd")
@pytest.mark.timeout(30)
def test_full_queue_of_a_hung_daemon() -> None:
    with hung_daemon() as path:
        with pytest.raises(ChronyTimeoutError, match="hung or stopped"):
            get_tracking(path, **QUICK)


@pytest.mark.parametrize("timeout", [2.5, 0.009])
def test_libchrony_itself_waits_for_the_timeout_at_most(
    timeout: float, address: str
) -> None:
    with connected(address=address, timeout=timeout) as (_, connection):
        assert connection._session is not None
        fd = connection._session._fd
        # Not where its send() would wait, too, or the kernel's clock is too coarse.
        waits = timeout == 2.5 and not address.startswith("/")
        assert os.get_blocking(fd) == waits
        with socket.socket(fileno=os.dup(fd)) as copy:
            limit = copy.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
        assert struct.unpack("ll", limit) == ((2, 500_000) if waits else (0, 0))


def test_descriptors_are_not_inherited(address: str) -> None:
    with connected(address=address) as (_, connection):
        assert connection._session is not None
        assert not os.get_inheritable(connection._session._fd)
