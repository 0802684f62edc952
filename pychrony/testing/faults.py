"""Ways in which a ``ScriptedDaemon`` can misbehave.

A fault is a callable that is given the ``Request`` and the correct reply, and
returns the datagrams to send instead: none, one, or more. Set one as the
daemon's ``misbehave``, at construction or while it runs::

    ScriptedDaemon(misbehave=faults.silent)
    daemon.misbehave = faults.only("SOURCE_DATA", faults.status(2), index=3)
    daemon.misbehave = faults.chain(faults.delayed(0.05), faults.dropping(100))
    daemon.misbehave = lambda request, reply: [reply, b"noise"]
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TypeAlias

from ._reports import N_SOURCES
from ._wire import (
    BAD_VERSION,
    NULL_REPLY,
    REPLY_HEADER,
    Datagram,
    Request,
    timed,
)

__all__ = [
    "Datagram",
    "Fault",
    "chain",
    "count",
    "delayed",
    "dropping",
    "duplicated",
    "first",
    "garbage",
    "only",
    "overwritten",
    "silent",
    "status",
    "truncated",
    "version",
    "wrong_sequence",
]

Fault: TypeAlias = Callable[[Request, bytes], Iterable[Datagram]]
"""Given the request and the correct reply, returns what is sent instead."""


def silent(request: Request, reply: bytes) -> Iterable[Datagram]:
    """Send nothing, like a host that drops packets."""
    return ()


def garbage(request: Request, reply: bytes) -> Iterable[Datagram]:
    """Send the reply with all bits inverted."""
    return (bytes(byte ^ 0xFF for byte in reply),)


def duplicated(request: Request, reply: bytes) -> Iterable[Datagram]:
    """Send the reply twice."""
    return (reply, reply)


def wrong_sequence(request: Request, reply: bytes) -> Iterable[Datagram]:
    """Send a reply to another request: its sequence number is one too high."""
    sequence = (request.sequence + 1) & 0xFFFFFFFF
    return _patched(16, sequence.to_bytes(4, "big"))(request, reply)


def delayed(seconds: float) -> Fault:
    """Send the reply ``seconds`` later; other replies are not delayed."""
    return lambda request, reply: ((seconds, reply),)


def truncated(length: int) -> Fault:
    """Send only the first ``length`` bytes; the header alone has 28."""
    return lambda request, reply: (reply[:length],)


def _patched(position: int, data: bytes) -> Fault:
    end = position + len(data)
    return lambda request, reply: (reply[:position] + data + reply[end:],)


def overwritten(offset: int, data: bytes) -> Fault:
    """Put ``data`` into the record, from its byte ``offset`` on.

    For values that no attribute can have, such as a time with 10**9 nanoseconds:
    ``only("TRACKING", overwritten(36, (10**9).to_bytes(4, "big")))``. The
    reply grows if ``data`` reaches beyond its end.
    """
    return _patched(REPLY_HEADER + offset, data)


def status(code: int) -> Fault:
    """Refuse, with chronyd's status ``code`` (0 to 65535) and without a record.

    Among them: 1 failed, 2 not authorised, 3 invalid (an old chronyd), 4 no
    such source, 6 not enabled, 13 no RTC, 18 bad version, 19 bad length (a new
    chronyd).
    """
    outcome = struct.pack("!HH", NULL_REPLY, code)
    return chain(truncated(REPLY_HEADER), _patched(6, outcome))


def version(number: int) -> Fault:
    """Refuse like a chronyd with protocol ``number`` (0 to 255) instead of 6."""
    return chain(status(BAD_VERSION), _patched(0, bytes([number])))


def count(sources: int) -> Fault:
    """Report this number of sources (0 to 4294967295); send other replies as usual."""
    return only(N_SOURCES.request, overwritten(0, sources.to_bytes(4, "big")))


def dropping(every: int) -> Fault:
    """Send no reply to each ``every``-th request (1: all of them)."""
    seen = 0

    def fault(request: Request, reply: bytes) -> Iterable[Datagram]:
        nonlocal seen
        seen = (seen + 1) % every
        return (reply,) if seen else ()

    return fault


def first(times: int, fault: Fault) -> Fault:
    """Apply ``fault`` to the first ``times`` requests."""
    left = times

    def limited(request: Request, reply: bytes) -> Iterable[Datagram]:
        nonlocal left
        left -= 1
        return fault(request, reply) if left >= 0 else (reply,)

    return limited


def only(
    name: str, fault: Fault, *, index: int | None = None, address: str | None = None
) -> Fault:
    """Apply ``fault`` to some requests only.

    Args:
        name: The ``Request.name``, for example "TRACKING".
        fault: What to do with them.
        index: Only those for the source with this number, from 0.
        address: Only those for the source with this address (NTP_DATA and
            AUTH_DATA).
    """

    def selective(request: Request, reply: bytes) -> Iterable[Datagram]:
        if (
            request.name == name
            and index in (None, request.index)
            and address in (None, request.address)
        ):
            return fault(request, reply)
        return (reply,)

    return selective


def chain(*faults: Fault) -> Fault:
    """Apply each fault to what the previous one sends; delays add up."""

    def chained(request: Request, reply: bytes) -> Iterable[Datagram]:
        datagrams: list[Datagram] = [reply]
        for fault in faults:
            datagrams = [
                (seconds + more, changed)
                for seconds, datagram in map(timed, datagrams)
                for more, changed in map(timed, fault(request, datagram))
            ]
        return datagrams

    return chained
