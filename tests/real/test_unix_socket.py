"""The Unix socket of a chronyd that runs as another user, as distributions have it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chronyd import Chronyd
from helpers import (
    NOBODY,
    as_root,
    in_child,
    interrupted_at,
    traces_every_instruction,
)
from network import READ
from provision import Parts

from pychrony import (
    AuthData,
    ChronyConnection,
    ChronyPermissionError,
    NTPData,
    SelectData,
    Source,
    SourceStats,
    _address,
    get_server_stats,
    get_tracking,
)
from pychrony._base import timeouts_of
from pychrony._session import Session

USER = "nobody"
SOURCE = "127.0.0.9"

BY_SOURCE = (Source, SourceStats, SelectData, AuthData, NTPData)
UMASKS = [0o022, 0o077]


@pytest.fixture(scope="module", params=UMASKS, ids=oct)
def chronyd(parts: Parts, request: pytest.FixtureRequest) -> Iterator[Chronyd]:
    user = "root" if os.geteuid() else USER
    config = f"local stratum 5\nserver {SOURCE} offline"
    with Chronyd(parts, config, user=user, umask=request.param) as daemon:
        yield daemon


one_chronyd = pytest.mark.parametrize("chronyd", UMASKS[1:], ids=oct, indirect=True)
both_users = pytest.mark.parametrize(
    "client", ["own", pytest.param(USER, marks=as_root)]
)


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def own_sockets(daemon: Chronyd) -> list[str]:
    entries = Path(daemon.directory).iterdir()
    return [entry.name for entry in entries if entry.name.startswith("pychrony")]


@as_root
def test_chronyd_runs_as_that_user(chronyd: Chronyd) -> None:
    assert os.stat(chronyd.socket).st_uid == NOBODY
    assert f"Uid:\t{NOBODY}" in Path(f"/proc/{chronyd.pid}/status").read_text()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
@both_users
def test_chronyd_answers_both_users(client: str, umask: int, chronyd: Chronyd) -> None:
    def child() -> None:
        if client == USER:
            become_nobody()
        os.umask(umask)
        with ChronyConnection(chronyd.socket) as connection:
            (own,) = own_sockets(chronyd)
            assert re.fullmatch(r"pychrony\.[0-9a-f]{12}", own)
            for record, read in READ.items():
                found = read(connection)
                if record in BY_SOURCE:
                    assert [one.address for one in found] == [SOURCE]
                else:
                    assert isinstance(found, record) or found is None

    in_child(child)
    assert not own_sockets(chronyd)


@as_root
def test_another_user_is_not_permitted(chronyd: Chronyd) -> None:
    def child() -> None:
        os.setgroups([NOBODY])  # the group does not help
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(65533, 65533, 65533)
        with pytest.raises(ChronyPermissionError):
            get_server_stats(chronyd.socket)

    in_child(child)


ENDS = {
    # Nothing is left before the end.
    "closed": ("connection.close(); os._exit(0)", True),
    "dropped": ("del connection; os._exit(0)", True),
    "fork": (
        (
            "os.fork() or sys.exit(); os.wait(); connection.get_tracking(); "
            "connection.close(); os._exit(0)"
        ),
        True,
    ),
    # Python runs the finalizers.
    "end of the program": ("pass", True),
    "sys.exit": ("sys.exit(0)", True),
    "uncaught exception": ("raise RuntimeError", True),
    "daemon thread reading": (
        "threading.Thread(target=read_on, daemon=True).start(); time.sleep(0.05)",
        True,
    ),
    "handler of SIGTERM": (
        (
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
            "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
        ),
        True,
    ),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT)", True),
    # Python gets no chance to run anything.
    "os._exit": ("os._exit(0)", False),
    "exec": ("os.execv('/bin/true', ['true'])", False),
    "SIGTERM, default action": ("os.kill(os.getpid(), signal.SIGTERM)", False),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", False),
}


END = """
import os, signal, sys, threading, time
import pychrony
connection = pychrony.ChronyConnection(sys.argv[1])
user = int(sys.argv[2])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
connection.get_tracking()

def read_on():
    while True:
        connection.get_tracking()

"""


@one_chronyd
@both_users
@pytest.mark.parametrize("end", ENDS)
def test_what_a_process_leaves_behind(end: str, client: str, chronyd: Chronyd) -> None:
    """One that Python cannot clean up leaves a file, which the next one removes."""
    action, clean = ENDS[end]
    user = NOBODY if client == USER else os.geteuid()
    command = [sys.executable, "-c", END + action, chronyd.socket, str(user)]
    subprocess.run(command, check=False, capture_output=True)
    assert len(own_sockets(chronyd)) == (0 if clean else 1)
    assert get_tracking(chronyd.socket).stratum == 5
    assert not own_sockets(chronyd)


@traces_every_instruction
@pytest.mark.interrupts
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@one_chronyd
@both_users
def test_interruption_at_every_instruction(client: str, chronyd: Chronyd) -> None:
    target = _address.parse(chronyd.socket)

    def open_and_close() -> None:
        Session(target, timeouts_of(1.0, 0), blocking=True).close()

    def child() -> None:
        signal.alarm(0)
        if client == USER:
            become_nobody()
        number = 0
        while interrupted_at(number := number + 1, open_and_close):
            assert not own_sockets(chronyd), number
        assert number > 200

    in_child(child)
