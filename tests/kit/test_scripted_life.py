"""A scripted daemon starts and stops, and its server serves many sockets."""

from __future__ import annotations

import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import descriptors, limit_descriptors, limit_of_descriptors_restored
from kit_helpers import assert_same, read_tracking, request

from pychrony import ChronyConnectionError, ChronyTimeoutError
from pychrony.testing import ScriptedDaemon, faults
from pychrony.testing._daemon import Server


def test_stop_leaves_nothing(any_address: str, directory: str) -> None:
    before = descriptors(), threading.enumerate()
    for _ in range(50):
        with ScriptedDaemon(address=any_address) as daemon:
            assert_same(read_tracking(daemon), daemon.tracking)
    assert (descriptors(), threading.enumerate()) == before
    assert os.listdir(directory) == []


def test_stop_is_prompt_and_discards_what_is_delayed(any_address: str) -> None:
    with (
        ScriptedDaemon(address=any_address, misbehave=faults.delayed(3600)) as daemon,
        pytest.raises(ChronyTimeoutError),
    ):
        read_tracking(daemon, 0.1)


def test_it_starts_again_where_it_was(any_address: str) -> None:
    daemon = ScriptedDaemon(address=any_address)
    with daemon:
        first = daemon.address
        assert first.rpartition(":")[2] != "0"
        assert_same(read_tracking(daemon), daemon.tracking)
    with pytest.raises(ChronyConnectionError):
        read_tracking(daemon, 0.1)
    with daemon:
        assert daemon.address == first
        assert_same(read_tracking(daemon), daemon.tracking)


def test_start_and_stop_are_checked() -> None:
    daemon = ScriptedDaemon()
    daemon.stop()
    daemon.start()
    with pytest.raises(RuntimeError):
        daemon.start()
    assert_same(read_tracking(daemon), daemon.tracking)
    daemon.stop()
    daemon.stop()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("chronyd.sock", ValueError),
        ("localhost:0", ValueError),
        ("127.0.0.1", ValueError),
        ("127.0.0.1:x", ValueError),
        (":0", ValueError),
        ("127.0.0.1:65536", OverflowError),
        ("192.0.2.7:0", OSError),
        ("/nowhere/at/all", FileNotFoundError),
        (f"/tmp/{'x' * 200}", OSError),
    ],
)
def test_an_address_that_cannot_be_had(address: str, error: type[Exception]) -> None:
    before = descriptors(), threading.enumerate()
    daemon = ScriptedDaemon(address=address)
    with pytest.raises(error, match=re.escape(address)) as caught:
        daemon.start()
    assert isinstance(caught.value, ValueError) or "listen" in str(caught.value)
    daemon.stop()
    assert (descriptors(), threading.enumerate()) == before


def test_a_start_that_fails_in_the_middle(any_address: str) -> None:
    before = descriptors()
    daemon = ScriptedDaemon(address=any_address)
    with open(os.devnull) as free:
        most = free.fileno() + 1  # enough for the listening socket, and no other
    with limit_of_descriptors_restored():
        limit_descriptors(most)
        with pytest.raises(OSError, match="Too many open files"):
            daemon.start()
    assert descriptors() == before
    with daemon:
        assert_same(read_tracking(daemon), daemon.tracking)


def test_a_start_without_a_thread(
    any_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = descriptors()
    daemon = ScriptedDaemon(address=any_address)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError) as caught:
            daemon.start()
        # At once, not only when the exception is forgotten.
        assert caught.tb is not None
        assert descriptors() == before
    with daemon:
        assert_same(read_tracking(daemon), daemon.tracking)


def test_a_path_may_be_a_path(directory: str) -> None:
    with ScriptedDaemon(address=Path(directory, "chronyd.sock")) as daemon:
        assert daemon.address == f"{directory}/chronyd.sock"
        assert_same(read_tracking(daemon), daemon.tracking)


def test_it_does_not_take_the_path_of_another(directory: str) -> None:
    path = f"{directory}/chronyd.sock"
    with ScriptedDaemon(address=path) as daemon:
        other = ScriptedDaemon(address=path)
        with pytest.raises(OSError):
            other.start()
        other.stop()
        assert_same(read_tracking(daemon), daemon.tracking)


def test_any_user_may_write_to_its_unix_socket(directory: str) -> None:
    with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
        assert stat.S_IMODE(os.stat(daemon.address).st_mode) == 0o666


def test_its_unix_socket_may_be_removed_by_others(directory: str) -> None:
    with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
        Path(daemon.address).unlink()


def test_clients_may_vanish(directory: str) -> None:
    delayed = faults.first(1, faults.delayed(0.05))
    with ScriptedDaemon(
        address=f"{directory}/chronyd.sock", misbehave=delayed
    ) as daemon:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(f"{directory}/client")
            client.connect(daemon.address)
            client.send(request())
        time.sleep(0.1)
        assert_same(read_tracking(daemon), daemon.tracking)


def repeating(times: int) -> Callable[[bytes], list[bytes]]:
    return lambda data: [data * times]


def test_a_server_has_many_sockets() -> None:
    server = Server("many")
    listeners = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
    for n, listener in enumerate(listeners):
        listener.bind(("127.0.0.1", 0))
        server.listen(listener, repeating(n))
    addresses = [listener.getsockname() for listener in listeners]
    server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        for n, address in enumerate(addresses):
            client.sendto(b"x", address)
            assert client.recvfrom(99) == (b"x" * n, address)
    server.stop()
    assert all(listener.fileno() == -1 for listener in listeners)


class Fickle(socket.socket):
    """Ready to be read, and then not: the kernel found a checksum wrong."""

    tried = False

    def recvfrom(self, *args: Any) -> Any:
        if not self.tried:
            self.tried = True
            raise BlockingIOError
        return super().recvfrom(*args)


def test_a_server_survives_being_woken_for_nothing() -> None:
    server = Server("fickle")
    listener = Fickle(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    server.listen(listener, repeating(2))
    server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"x", listener.getsockname())
        assert client.recv(99) == b"xx"
    server.stop()
    assert listener.tried
    assert server.error is None
