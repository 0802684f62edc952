"""``--wait`` beside ``chronyc waitsync``, and what containers lack, really."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from checking import check_here
from chronyc import wait
from chronyd import Chronyd, chronyc_command
from provision import Parts

import pychrony
from pychrony.check import CRITICAL, OK, WARNING

FOLLOW = "server 127.0.0.{0} port {1} iburst minpoll -6 maxpoll -2\n"


def waitsync(parts: Parts, daemon: Chronyd) -> bool:
    """Whether chronyc waitsync succeeds at its first try."""
    result = subprocess.run(
        [*chronyc_command(parts), "-h", daemon.socket, "waitsync", "1"],
        env={"LD_LIBRARY_PATH": parts.library_path},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return result.returncode == 0


def all_answered(daemon: Chronyd) -> bool:
    """Whether each source of a daemon has answered several polls."""
    with pychrony.ChronyConnection(daemon.address) as connection:
        return all(source.reachability > 7 for source in connection.get_sources())


def test_wait_succeeds_where_waitsync_does(parts: Parts) -> None:
    """Twenty daemons: all that a source may be, alone and beside others."""
    with ExitStack() as stack:
        good, late, local = (
            stack.enter_context(Chronyd(parts, config, bind=bind, serve=True))
            for config, bind in (
                ("local stratum 1", "127.0.0.2"),
                ("local stratum 1", "127.0.0.3"),
                ("local stratum 10", "127.0.0.4"),
            )
        )
        unsynchronised = stack.enter_context(
            Chronyd(parts, "", bind="127.0.0.5", serve=True)
        )
        one = FOLLOW.format(2, good.ntp_port)
        two = FOLLOW.format(3, late.ntp_port)
        of_local = FOLLOW.format(4, local.ntp_port)
        of_none = FOLLOW.format(5, unsynchronised.ntp_port)
        wrong = two.replace("\n", " offset 0.5\n")
        nobody = "server 127.0.0.9 port 9 iburst\n"
        offline = nobody.replace("iburst", "offline")
        configs = {
            "nothing": (False, ""),
            "local": (False, "local stratum 5\n"),
            "orphan": (False, "local stratum 5 orphan\n"),
            "one": (True, one),
            "two": (True, one + two),
            "one and local": (True, one + "local stratum 12\n"),
            "one and dead": (True, one + nobody),
            "one and offline": (True, one + offline),
            "one and a name": (True, one + "server a.invalid\n"),
            "one and a dead clock": (True, one + "refclock SHM 0 refid GPS\n"),
            "one that is late": (True, one.replace("\n", " offset 0.001\n")),
            "one noselect": (False, one.replace("\n", " noselect\n")),
            "no majority": (False, one + wrong),
            "too few": (False, one + "minsources 2\n"),
            "local upstream": (True, of_local),
            "unsynchronised upstream": (False, of_none),
            "dead": (False, nobody),
            "dead and local": (False, nobody + "local stratum 5\n"),
            "offline": (False, offline),
            "names": (False, "server a.invalid\npool b.invalid\n"),
        }
        assert len(configs) == 20
        clients = {
            name: (expected, stack.enter_context(Chronyd(parts, config)))
            for name, (expected, config) in configs.items()
        }
        for name, (expected, client) in clients.items():
            if expected:
                wait(partial(waitsync, parts, client))
            elif name in ("one noselect", "no majority", "too few"):
                wait(partial(all_answered, client))
            status, output = check_here(
                *("--wait", "0.01", "-w", "off", "-c", "off", client.address)
            )
            assert waitsync(parts, client) is expected, name
            assert (status == OK) is expected, (name, output)
            assert expected or status == CRITICAL
        # Of a server that is not synchronised itself, more is known over the socket.
        upstream = clients["local upstream"][1]
        assert check_here(upstream.address)[0] == WARNING
        status, output = check_here(upstream.socket, "-w", "stratum=off")
        assert status == WARNING, output
        assert "127.0.0.4 is in local mode" in output


def namespaces() -> bool:
    """Whether this process may make a mount and a network namespace."""
    command = ["unshare", "-m", "-n", "true"]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not namespaces(), reason="needs root, and unshare")
@pytest.mark.parametrize(
    ("setup", "address", "said"),
    [
        # The directory of the host is mounted read-only.
        (
            "mount --bind {0} {0} && mount -o remount,ro,bind {0}",
            *("{0}/chronyd.sock", "[Rr]ead-only"),
        ),
        # Nothing of the host is mounted.
        ("mount -t tmpfs none {0}", "{0}/chronyd.sock", "Is chronyd running"),
        # The network is another one.
        ("ip link set lo up || :", "{1}", "Connection refused"),
    ],
    ids=["read-only", "no socket", "no network"],
)
def test_containers(parts: Parts, setup: str, address: str, said: str) -> None:
    with Chronyd(parts, "local stratum 5") as daemon:
        names = (daemon.directory, daemon.address)
        command = (
            f"{setup.format(*names)}; exec {sys.executable} -m pychrony.check "
            f"-t 3 {address.format(*names)}"
        )
        result = subprocess.run(
            ["unshare", "-m", "-n", "sh", "-c", command],
            env={**os.environ, "PYCHRONY_LIBCHRONY": pychrony.library_path()},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == CRITICAL, result.stdout + result.stderr
    assert re.search(said, result.stdout), result.stdout
