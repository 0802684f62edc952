"""``--wait`` beside ``chronyc waitsync``, and what containers lack, really."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from functools import partial

import pytest
from checking import check_here
from chronyc import wait
from chronyd import Chronyd, run_chronyc
from helpers import UNSHARE, in_namespaces
from provision import Parts

import pychrony
from pychrony.check import CRITICAL, OK, WARNING

FOLLOW = "server 127.0.0.{0} port {1} iburst minpoll -6 maxpoll -2\n"


def waitsync(parts: Parts, daemon: Chronyd) -> bool:
    """Whether chronyc waitsync succeeds at its first try."""
    return run_chronyc(parts, daemon.socket, "waitsync", "1").returncode == 0


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
        # Not SHM, whose segments are the machine's, and others' to keep.
        no_clock = "refclock SOCK {directory}/gps refid GPS\n"
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
            "one and a dead clock": (True, one + no_clock),
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


OWN_PROCESSES = ("--pid", "--fork", "--mount-proc")

# What a container lacks of the host's chronyd: how that is made, the address that is
# checked, and what is said. {0} is the directory of chronyd, {1} its UDP address.
FAULTS = {
    "read-only": (
        "mount --bind {0} {0}; mount -o remount,ro,bind {0}",
        "{0}/chronyd.sock",
        """{0}/chronyd.sock: Read-only file system: no socket can be made in {0}: it is
        mounted read-only here, and chronyd replies to a socket in that directory.
        Mount it read-write, or use UDP""",
    ),
    "only the file": (
        """mount --bind {0} /mnt; mount -t tmpfs none {0}; : >{0}/chronyd.sock
        mount --bind /mnt/chronyd.sock {0}/chronyd.sock""",
        "{0}/chronyd.sock",
        """Only the file of the socket is mounted here. In a container, mount the
        directory of the host's socket, at the same path and writable""",
    ),
    "another path": (
        "mount --bind {0} /mnt",
        "/mnt/chronyd.sock",
        """/mnt is mounted here, and no process chronyd is visible: chronyd can reply
        only if it has this directory at the same path""",
    ),
    "no socket": (
        "mount -t tmpfs -o mode=0750 none {0}",
        "{0}/chronyd.sock",
        """{0}/chronyd.sock: No such file or directory. Is chronyd running? It has made
        no socket there""",
    ),
    "no directory": (
        "mount -t tmpfs none /run",
        "/run/chrony/chronyd.sock",
        """There is no directory /run/chrony. In a container, mount the directory of the
        host's socket""",
    ),
    "no network": (":", "{1}", "{1}: Network is unreachable"),
    "another network": (
        "ip link set lo up",
        "{1}",
        """{1}: Connection refused. Is chronyd running, and its command port open there?
        In a container, that address is its own""",
    ),
    "no address": (
        "ip link set lo up; mount -t tmpfs none /run",
        "",
        """no chronyd answered. /run/chrony/chronyd.sock: No such file or directory,
        127.0.0.1:323: Connection refused, [::1]:323: Connection refused. No chronyd is
        running in this container. Mount the host's /run/chrony at the same path""",
    ),
}


@in_namespaces
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_a_container_is_named(parts: Parts, fault: str) -> None:
    """Each fault of a container is named; with its own processes, as they have."""
    with Chronyd(parts, "local stratum 5") as daemon:
        names = (daemon.directory, daemon.address)
        setup, address, said = (text.format(*names) for text in FAULTS[fault])
        check = f"exec {sys.executable} -m pychrony.check -f nagios -t 1 -r 0 {address}"
        result = subprocess.run(
            [*UNSHARE[:-2], *OWN_PROCESSES, *UNSHARE[-2:], f"{setup}\n{check}"],
            env={**os.environ, "KUBERNETES_SERVICE_HOST": "192.0.2.1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == CRITICAL, result.stdout + result.stderr
    assert " ".join(said.split()) in result.stdout
    assert result.stdout.count("In a container") <= 1
