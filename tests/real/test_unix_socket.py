"""The Unix socket of a chronyd that runs as another user, as distributions have it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chronyd import Chronyd
from helpers import in_child
from provision import Parts

from pychrony import ChronyConnection, ChronyPermissionError, get_server_stats

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NOBODY = 65534
USER = "nobody"


@pytest.fixture(scope="module", params=[0o022, 0o077], ids=oct)
def chronyd(parts: Parts, request: pytest.FixtureRequest) -> Iterator[Chronyd]:
    with Chronyd(parts, "local stratum 5", user=USER, umask=request.param) as daemon:
        yield daemon


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def own_sockets(daemon: Chronyd) -> list[str]:
    entries = Path(daemon.directory).iterdir()
    return [entry.name for entry in entries if entry.name.startswith("pychrony")]


def test_chronyd_runs_as_that_user(chronyd: Chronyd) -> None:
    assert os.stat(chronyd.socket).st_uid == NOBODY
    assert f"Uid:\t{NOBODY}" in Path(f"/proc/{chronyd.pid}/status").read_text()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
@pytest.mark.parametrize("client", ["root", USER])
def test_chronyd_answers_both_users(client: str, umask: int, chronyd: Chronyd) -> None:
    def child() -> None:
        if client == USER:
            become_nobody()
        os.umask(umask)
        with ChronyConnection(chronyd.socket) as connection:
            (own,) = own_sockets(chronyd)
            assert re.fullmatch(r"pychrony\.[0-9a-f]{12}", own)
            assert connection.get_tracking().stratum == 5
            # None of these can be read over UDP.
            connection.get_server_stats()
            assert connection.get_select_data() == []
            assert connection.get_auth_data() == []
            assert connection.get_ntp_data() == []

    in_child(child)
    assert not own_sockets(chronyd)


def test_another_user_is_not_permitted(chronyd: Chronyd) -> None:
    def child() -> None:
        os.setgroups([NOBODY])  # the group does not help
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(65533, 65533, 65533)
        with pytest.raises(ChronyPermissionError):
            get_server_stats(chronyd.socket)

    in_child(child)
