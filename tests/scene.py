"""The chronyds that the examples on these pages talk to.

Each is a scripted daemon on loopback; no name is looked up, and nothing else is
touched. Sphinx's doctest builder and tests/test_docs.py both play in it.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager
from unittest import mock

from pychrony import SourceState, _address
from pychrony.testing import ScriptedDaemon, faults, make_source, make_tracking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def _daemons() -> dict[str, ScriptedDaemon]:
    """Each host of the examples, and the chronyd there."""

    def clock(offset: float) -> dict[str, Any]:
        return {
            "tracking": make_tracking(
                offset=offset,
                root_delay=0.001,
                root_dispersion=0.000524,
                reference_ip="192.0.2.1",
                stratum=3,
                ref_time=time.time() - 200,
            ),
            "sources": [
                make_source(address="192.0.2.1"),
                make_source(address="192.0.2.2", state=SourceState.UNSELECTED),
            ],
        }

    return {
        "localhost": ScriptedDaemon(**clock(0.000012)),
        "ntp1.example": ScriptedDaemon(**clock(-0.000034)),
        "ntp2.example": ScriptedDaemon(**clock(0.25)),
        "silent.example": ScriptedDaemon(misbehave=faults.silent),
        "odd.example": ScriptedDaemon(misbehave=faults.truncated(40)),
        "stopped.example": ScriptedDaemon(),
    }


@contextmanager
def scene() -> Iterator[dict[str, ScriptedDaemon]]:
    """Let the daemons run, the first as the one of this machine."""
    with ExitStack() as stack:
        daemons = _daemons()
        for daemon in daemons.values():
            stack.enter_context(daemon)
        daemons["stopped.example"].stop()

        def look_up(host: str, port: int, **_: object) -> list[Any]:
            if host not in daemons:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            ip, _, port_there = daemons[host].address.rpartition(":")
            where = (ip, int(port_there))
            return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", where)]

        here = (daemons["localhost"].address,)
        stack.enter_context(mock.patch.object(_address, "LOCAL", here))
        stack.enter_context(mock.patch.object(socket, "getaddrinfo", look_up))
        yield daemons
