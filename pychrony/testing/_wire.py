"""The layout of datagrams in chronyd's monitoring protocol, version 6.

A request is a header of 20 bytes, its argument, and zeros up to the length of
its longest reply; a reply is a header of 28 bytes and the record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

from ._reports import Report

VERSION = 6
REQUEST_HEADER = 20
REPLY_HEADER = 28
LONGEST_REQUEST = 860
"""What chronyd accepts: it ignores a request that is longer."""

SUCCESS = 0
UNAUTHORIZED = 2
BAD_VERSION = 18
BAD_LENGTH = 19

SOURCESTATS_ADDRESS = slice(REPLY_HEADER + 4, REPLY_HEADER + 24)
"""Where a source's address is in the reply; AUTH_DATA and NTP_DATA ask with it."""

_REQUEST_TYPE = 1
_request_start = struct.Struct("!BBxxHHI")


def request(report: Report, argument: bytes, sequence: int) -> bytes:
    """Return a request as libchrony sends it, as long as the longest reply."""
    start = _request_start.pack(VERSION, _REQUEST_TYPE, report.code, 0, sequence)
    whole = start.ljust(REQUEST_HEADER, b"\0") + argument
    return whole.ljust(REPLY_HEADER + report.record_size, b"\0")


NULL_REPLY = 1
"""The reply code where there is no record."""

_REPLY_TYPE = 2
_reply_start = struct.Struct("!BBxxHHH6x")
_REPLY_PADDING = bytes(8)

Reply: TypeAlias = tuple[bytes, bytes]
"""What stands before and after the sequence number, which is the request's."""


def success(report: Report, record: object) -> Reply:
    """Return a reply that has this record."""
    reply, data = report.encode(record)
    start = _reply_start.pack(VERSION, _REPLY_TYPE, report.code, reply, SUCCESS)
    return start, _REPLY_PADDING + data


def refusal(code: int, status: int) -> Reply:
    """Return a reply that has a status and no record."""
    start = _reply_start.pack(VERSION, _REPLY_TYPE, code, NULL_REPLY, status)
    return start, _REPLY_PADDING


def status_of(reply: bytes) -> int:
    return int.from_bytes(reply[8:10], "big")


def is_reply(data: bytes, asked: bytes) -> bool:
    """Whether a datagram is the reply to this request."""
    return (
        len(data) >= REPLY_HEADER
        and data[:4] == bytes((VERSION, _REPLY_TYPE, 0, 0))
        and data[4:6] == asked[4:6]
        and data[16:20] == asked[8:12]
    )


@dataclass(frozen=True)
class Request:
    """One request that reached the daemon.

    Attributes:
        name: The name of the request in chrony's protocol: "N_SOURCES",
            "SOURCE_DATA", "TRACKING", "SOURCESTATS", "RTCREPORT", "ACTIVITY",
            "SMOOTHING", "SERVER_STATS", "NTP_DATA", "AUTH_DATA", "SELECT_DATA",
            "NTP_SOURCE_NAME", "MANUAL_LIST" or "CLIENT_ACCESSES_BY_INDEX3"; the
            code in digits if it is none of these.
        code: The request's code (0 to 65535).
        index: The index of the requested source (0 to 4294967295), or None.
        attempt: The number of earlier attempts in the request (0 to 65535);
            libchrony always sends 0.
        sequence: The number that the reply must repeat (0 to 4294967295).
        data: The whole datagram.
        address: The address of the requested source in NTP_DATA, AUTH_DATA and
            NTP_SOURCE_NAME, or None.
    """

    name: str
    code: int
    index: int | None
    attempt: int
    sequence: int
    data: bytes
    address: str | None = None


_OLDEST_VERSION_TOLD = 5


def parse_request(data: bytes) -> tuple[int, int, int, int] | None:
    """Return version, code, attempt and sequence number.

    None for a datagram that chronyd ignores, such as one of an old version.
    """
    if not REPLY_HEADER <= len(data) <= LONGEST_REQUEST:
        return None
    version, kind, code, attempt, sequence = _request_start.unpack_from(data)
    reserved = any(data[2:4])
    if kind != _REQUEST_TYPE or reserved or version < _OLDEST_VERSION_TOLD:
        return None
    return version, code, attempt, sequence


Datagram: TypeAlias = bytes | tuple[float, bytes]
"""What is sent: bytes, or the same after a number of seconds."""


def timed(datagram: object) -> tuple[float, bytes]:
    """Return the seconds to wait and the bytes to send.

    Raises:
        TypeError: It is not a ``Datagram``.
    """
    match datagram:
        case bytes():
            return 0.0, datagram
        case (float() | int() as seconds, bytes() as data):
            return seconds, data
        case _:
            raise TypeError(
                "a fault returns a list of bytes, or of (seconds, bytes), but in it is "
                f"{datagram!r}"
            )
