"""Recordings of a real chronyd, and their replay.

``python -m pychrony.testing record`` writes one, a ``RecordedDaemon`` replays it. It
is JSON::

    {
     "format": "pychrony recording",
     "version": 1,
     "replies": [
      {"request": 33, "reply": "0602000000210005..."},
      {"request": 34, "index": 0, "reply": "0602000000220006..."},
      {"request": 67, "address": "192.0.2.7", "reply": "0602000000430014..."}
     ]
    }

Each element of ``replies`` has the code of a request in version 6 of chrony's
protocol, the index or the address of a source if the request has one, and all bytes
of the reply in hexadecimal, with the sequence number 0.

A recording contains what chronyc shows: the addresses and reference IDs of the
sources, the address of the machine that they reply to, numbers and algorithms of
keys, counters, and times. It contains no keys or cookies, no addresses of clients,
and no host names.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

from pychrony import _address
from pychrony._waiting import Waiter

from ._daemon import Daemon, Replies, bound_socket
from ._reports import (
    ADDRESS,
    INDEX,
    N_SOURCES,
    NOTHING,
    REPORTS,
    SOURCESTATS,
    Argument,
    Report,
)
from ._wire import (
    REPLY_HEADER,
    SOURCESTATS_ADDRESS,
    Reply,
    is_reply,
    request,
)
from .faults import Fault

FORMAT = "pychrony recording"
VERSION = 1

# The timeouts of a request and its retries [s], as in chronyc.
_WAITS = (1.0, 2.0, 4.0)
_TIME_LIMIT = 60.0
_MOST_SOURCES = 65_536
_LONGEST_REPLY = 65_536
# What reading an invalid file can raise.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class RecordedDaemon(Daemon):
    """A daemon that replays the recording of a real chronyd.

    It is used like a ``ScriptedDaemon``. It sends the replies in a file that ``python
    -m pychrony.testing record`` wrote, byte for byte except for the sequence number::

        with RecordedDaemon("clock.json") as daemon:
            assert my_check(daemon.address) == "falseticker"

    It has no permissions of its own: it refuses what the recorded chronyd refused, and
    answers everything else, also over UDP.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        address: str | os.PathLike[str] = "127.0.0.1:0",
        misbehave: Fault | None = None,
    ) -> None:
        """Read the recording; nothing else is opened yet.

        Args:
            path: The file.
            address: As for ``ScriptedDaemon``.
            misbehave: As for ``ScriptedDaemon``.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not a recording, or has a later format.
        """
        super().__init__(address, misbehave)
        with open(path, encoding="utf-8") as file:
            try:
                self._replies = _replies(json.load(file))
            except _MALFORMED as error:
                raise ValueError(
                    f"{os.fspath(path)!r} is no {FORMAT} of version {VERSION}: "
                    f"{type(error).__name__}: {error}"
                ) from error


def _replies(recording: Any) -> dict[int, Replies]:
    found = recording["format"], recording["version"]
    if found != (FORMAT, VERSION):
        raise ValueError(f"it says that it is {found}")
    reports = {report.code: report for report in REPORTS}
    replies: defaultdict[int, dict[bytes, Reply]] = defaultdict(dict)
    for entry in recording["replies"]:
        argument = reports[entry["request"]].argument
        key = argument.key(entry.get("index"), SimpleNamespace(**entry))
        reply = bytes.fromhex(entry["reply"])
        if len(reply) < REPLY_HEADER:
            raise ValueError(f"a reply of {len(reply)} bytes")
        replies[entry["request"]][key] = reply[:16], reply[20:]
    return {code: Replies(reports[code], replies[code]) for code in replies}


def record(address: str | None) -> dict[str, Any]:
    """Read everything that a chronyd reports, and return the recording.

    Args:
        address: As for ``ChronyConnection``.

    Raises:
        OSError: There is no chronyd, or it did not reply in time.
        ValueError: The address or a reply is not valid, or the sources changed
            meanwhile.
    """
    deadline = time.monotonic() + _TIME_LIMIT
    wanted = _address.LOCAL if address is None else (address,)
    targets = [_address.parse(one) for one in wanted]
    if targets[0].is_name:
        targets = Waiter().drive(_address.resolve(targets[0], sum(_WAITS)))
    failures: list[str] = []
    for target in targets:
        try:
            with _connected(target) as client:
                return {
                    "format": FORMAT,
                    "version": VERSION,
                    "replies": _ask_everything(client, deadline),
                }
        except OSError as error:
            failures.append(f"{target}: {error.strerror or error}")
    raise OSError("; ".join(failures))


@contextmanager
def _connected(target: _address.Target) -> Generator[socket.socket, None, None]:
    if target.family != socket.AF_UNIX:
        with socket.socket(target.family, socket.SOCK_DGRAM) as client:
            client.connect(target.socket_address())
            yield client
        return
    # chronyd replies to a path, and may not see other directories.
    directory = os.path.dirname(target.host)
    path = os.path.join(directory, f"pychrony.{secrets.token_hex(4)}.sock")
    with bound_socket(path) as client:
        try:
            client.connect(target.host)
            yield client
        finally:
            os.unlink(path)


def _ask_everything(client: socket.socket, deadline: float) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []

    def ask_each(kind: Argument, argument: bytes) -> dict[int, bytes]:
        replies = {
            report.code: _ask(client, report, argument, deadline)
            for report in REPORTS
            if report.argument is kind
        }
        entries.extend(
            {"request": code, **kind.read(argument), "reply": reply.hex()}
            for code, reply in replies.items()
        )
        return replies

    counted = ask_each(NOTHING, b"")[N_SOURCES.code]
    count = int.from_bytes(counted[REPLY_HEADER : REPLY_HEADER + 4], "big")
    if count > _MOST_SOURCES:
        raise ValueError(f"it claims to have {count} sources. Is it a chronyd?")
    positions = [INDEX.key(position, None) for position in range(count)]
    addresses: list[bytes] = []
    for position in positions:
        address = ask_each(INDEX, position)[SOURCESTATS.code][SOURCESTATS_ADDRESS]
        addresses.append(address)
        if ADDRESS.read(address)["address"]:  # a reference clock has none
            ask_each(ADDRESS, address)
    again = [
        _ask(client, SOURCESTATS, position, deadline)[SOURCESTATS_ADDRESS]
        for position in positions
    ]
    if addresses != again or counted != _ask(client, N_SOURCES, b"", deadline):
        raise ValueError("its list of sources changed meanwhile. Try again")
    return entries


def _ask(
    client: socket.socket, report: Report, argument: bytes, deadline: float
) -> bytes:
    """Return the reply to a request, with 0 as its sequence number."""
    asked = request(report, argument, secrets.randbits(32))
    for wait in _WAITS:
        end = min(time.monotonic() + wait, deadline)
        with suppress(TimeoutError):
            _limit(client, end)
            client.send(asked)
            while True:
                _limit(client, end)
                reply = client.recv(_LONGEST_REPLY)
                if is_reply(reply, asked):
                    return reply[:16] + bytes(4) + reply[20:]
    raise TimeoutError(
        f"no answer to {report.request} in {sum(_WAITS):g} s, or not done in "
        f"{_TIME_LIMIT:g} s"
    )


def _limit(client: socket.socket, end: float) -> None:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    client.settimeout(left)
