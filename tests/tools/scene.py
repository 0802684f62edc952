"""The chronyds that the examples of the docs talk to.

Each is a scripted daemon on loopback; no name is looked up. Sphinx's doctest
builder and test_docs.py both play in it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from pychrony import SourceState, TrackingStatus, _address
from pychrony.testing import ScriptedDaemon, faults, make_source, make_tracking


def clock(offset: float) -> TrackingStatus:
    return make_tracking(
        offset=offset,
        root_delay=0.001,
        root_dispersion=0.000524,
        reference_ip="192.0.2.1",
        stratum=3,
        ref_time=time.time() - 200,
    )


def _daemons() -> dict[str, ScriptedDaemon]:
    """Each host of the examples, and the chronyd there."""
    sources = [
        make_source(address="192.0.2.1"),
        make_source(address="192.0.2.2", state=SourceState.UNSELECTED),
    ]
    return {
        "localhost": ScriptedDaemon(tracking=clock(0.000012), sources=sources),
        "ntp1.example": ScriptedDaemon(tracking=clock(-0.000034), sources=sources),
        "ntp2.example": ScriptedDaemon(tracking=clock(0.25), sources=sources),
        "silent.example": ScriptedDaemon(misbehave=faults.silent),
        "odd.example": ScriptedDaemon(misbehave=faults.truncated(40)),
        "stopped.example": ScriptedDaemon(),
    }


@contextmanager
def scene() -> Iterator[dict[str, ScriptedDaemon]]:
    """Let the daemons run; "localhost" is the chronyd of this machine."""
    daemons = _daemons()
    with ExitStack() as stack:
        for daemon in daemons.values():
            stack.enter_context(daemon)
        daemons["stopped.example"].stop()

        def look_up(name: bytes, *_args: object, **_options: object) -> list[Any]:
            host = name.decode()
            if host not in daemons:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            ip, _, port = daemons[host].address.rpartition(":")
            return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (ip, int(port)))]

        here = daemons["localhost"].address
        port = int(here.rpartition(":")[2])
        local = ("/run/nobody/chronyd.sock", here, f"[::1]:{port}")
        stack.enter_context(mock.patch.object(_address, "PORT", port))
        stack.enter_context(mock.patch.object(_address, "LOCAL", local))
        stack.enter_context(mock.patch.object(socket, "getaddrinfo", look_up))
        yield daemons
