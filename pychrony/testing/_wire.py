"""chronyd's monitoring protocol, version 6: what stands where in a datagram.

A request is a header of 20 bytes, its argument, and zeros up to the length of
the longest reply to it; a reply is a header of 28 bytes and the record.
Numbers are big-endian and nothing is aligned.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeAlias

from pychrony import Source, SourceMode

VERSION = 6
REQUEST_HEADER = 20
REPLY_HEADER = 28
LONGEST_REQUEST = 860
"""What chronyd accepts: it ignores a request that is longer."""

SUCCESS = 0
INVALID = 3
NO_SUCH_SOURCE = 4
NO_RTC = 13
BAD_VERSION = 18
BAD_LENGTH = 19


class Kind(NamedTuple):
    """How an attribute of a record is sent."""

    size: int
    encode: Callable[[Any, str], bytes]


def _integer(size: int, *, signed: bool = False) -> Kind:
    bits = size * 8
    low, high = (-1 << bits - 1, 1 << bits - 1) if signed else (0, 1 << bits)

    def encode(record: Any, name: str) -> bytes:
        value = getattr(record, name)
        number = operator.index(value.value if isinstance(value, Enum) else value)
        if not low <= number < high:
            raise ValueError(f"{number} is not in {low} to {high - 1}")
        return number.to_bytes(size, "big", signed=signed)

    return Kind(size, encode)


_LARGEST_FLOAT = math.ldexp((1 << 24) - 1, 38)


def _encode_float(record: Any, name: str) -> bytes:
    """Encode a number as coefficient * 2 ** (exponent - 25).

    The exponent has 7 bits, the coefficient 25, both in two's complement. As
    from chronyd, NaN becomes 0, and what is too large the largest there is.
    """
    value = float(getattr(record, name))
    if math.isnan(value):
        value = 0.0
    value = max(-_LARGEST_FLOAT, min(value, _LARGEST_FLOAT))
    exponent = max(math.frexp(value)[1] + 1, -64)
    coefficient = round(math.ldexp(value, 25 - exponent))
    if coefficient == 1 << 24:
        coefficient >>= 1
        exponent += 1
    if coefficient == 0:
        exponent = 0
    return ((exponent & 0x7F) << 25 | coefficient & 0x1FFFFFF).to_bytes(4, "big")


def _encode_timespec(record: Any, name: str) -> bytes:
    seconds, nanoseconds = divmod(operator.index(getattr(record, name)), 10**9)
    if not -1 << 63 <= seconds < 1 << 63:
        raise ValueError(f"{seconds} seconds are not in {-1 << 63} to {(1 << 63) - 1}")
    return struct.pack("!qI", seconds, nanoseconds)


def _encode_address(record: Any, name: str) -> bytes:
    text: str = getattr(record, name)
    if text == "":
        family, address = 0, b""
    elif text == "?":
        family, address = 4, b""
    elif text.startswith("ID#"):
        family, address = 3, int(text[3:]).to_bytes(4, "big")
    elif "%" in text:
        raise ValueError(f"{text!r} has a scope, for which there is no room")
    else:
        ip = ip_address(text)
        family, address = (1 if ip.version == 4 else 2), ip.packed
    return struct.pack("!16sHxx", address, family)


def _encode_source_address(source: Source, name: str) -> bytes:
    text: str = getattr(source, name)
    if source.mode is not SourceMode.REFCLOCK or len(text) > 4:
        return _encode_address(source, name)
    return struct.pack("!16sHxx", text.encode("ascii"), 1)


i16 = _integer(2, signed=True)
u16 = _integer(2)
u32 = _integer(4)
float32 = Kind(4, _encode_float)
timespec = Kind(12, _encode_timespec)
address = Kind(20, _encode_address)
source_address = Kind(20, _encode_source_address)
"""As ``address``, but of a reference clock its ID stands where IPv4 would."""


class Count(NamedTuple):
    """The record that answers N_SOURCES."""

    sources: int


class Report(NamedTuple):
    """What is asked for with one request, and how it is answered."""

    request: str
    """The request's name in chrony's protocol."""
    code: int
    reply: int
    layout: tuple[tuple[Kind, str], ...]
    """The reply's fields: how they are sent, and the attributes they come from."""
    indexed: bool = False
    """Whether the request's argument says which source is meant."""
    absent: int = INVALID
    """The status where there is no such record."""

    @property
    def record_size(self) -> int:
        """How many bytes follow the header of the reply."""
        return sum(kind.size for kind, _ in self.layout)

    @property
    def request_size(self) -> int:
        """What chronyd demands: never less than it is going to send."""
        argument = u32.size if self.indexed else 0
        return max(REQUEST_HEADER + argument, REPLY_HEADER + self.record_size)

    def encode(self, record: object) -> bytes:
        """Encode a record.

        Raises:
            ValueError: An attribute has a value that the protocol cannot say.
        """
        fields: list[bytes] = []
        for kind, name in self.layout:
            try:
                fields.append(kind.encode(record, name))
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{type(record).__name__}.{name}: {error}") from error
        return b"".join(fields)


N_SOURCES = Report("N_SOURCES", code=14, reply=2, layout=((u32, "sources"),))
SOURCE_DATA = Report(
    "SOURCE_DATA",
    code=15,
    reply=3,
    layout=(
        (source_address, "address"),
        (i16, "poll"),
        (u16, "stratum"),
        (u16, "state"),
        (u16, "mode"),
        (u16, "flags"),
        (u16, "reachability"),
        (u32, "last_sample_ago"),
        (float32, "orig_latest_meas"),
        (float32, "latest_meas"),
        (float32, "latest_meas_err"),
    ),
    indexed=True,
    absent=NO_SUCH_SOURCE,
)
TRACKING = Report(
    "TRACKING",
    code=33,
    reply=5,
    layout=(
        (u32, "reference_id"),
        (address, "reference_ip"),
        (u16, "stratum"),
        (u16, "leap_status"),
        (timespec, "ref_time_ns"),
        (float32, "offset"),
        (float32, "last_offset"),
        (float32, "rms_offset"),
        (float32, "frequency"),
        (float32, "residual_freq"),
        (float32, "skew"),
        (float32, "root_delay"),
        (float32, "root_dispersion"),
        (float32, "update_interval"),
    ),
)
SOURCESTATS = Report(
    "SOURCESTATS",
    code=34,
    reply=6,
    layout=(
        (u32, "reference_id"),
        (address, "address"),
        (u32, "samples"),
        (u32, "runs"),
        (u32, "span"),
        (float32, "std_dev"),
        (float32, "resid_freq"),
        (float32, "skew"),
        (float32, "offset"),
        (float32, "offset_err"),
    ),
    indexed=True,
    absent=NO_SUCH_SOURCE,
)
RTCREPORT = Report(
    "RTCREPORT",
    code=35,
    reply=7,
    layout=(
        (timespec, "ref_time_ns"),
        (u16, "samples"),
        (u16, "runs"),
        (u32, "span"),
        (float32, "offset"),
        (float32, "freq_offset"),
    ),
    absent=NO_RTC,
)


NULL_REPLY = 1
"""The reply code where there is no record."""

_REPLY_TYPE = 2
_reply_start = struct.Struct("!BBxxHHH6x")
_REPLY_PADDING = bytes(8)


def around_sequence(
    code: int, reply: int, status: int, record: bytes = b""
) -> tuple[bytes, bytes]:
    """Return what stands before and after the sequence number in a reply."""
    start = _reply_start.pack(VERSION, _REPLY_TYPE, code, reply, status)
    return start, _REPLY_PADDING + record


def refusal(code: int, status: int) -> tuple[bytes, bytes]:
    """Return the same for a reply that has a status and no record."""
    return around_sequence(code, NULL_REPLY, status)


@dataclass(frozen=True)
class Request:
    """One request that reached the daemon.

    Attributes:
        name: What is asked for, as chrony's protocol calls it: "N_SOURCES",
            "SOURCE_DATA", "TRACKING", "SOURCESTATS" or "RTCREPORT"; the code
            in digits if it is none of these.
        code: The request's code (0 to 65535).
        index: Which source is asked for (0 to 4294967295), None where the
            request names none.
        attempt: How often the client says that it has sent this before
            (0 to 65535). libchrony always says 0.
        sequence: The number that the reply must repeat (0 to 4294967295).
        data: The whole datagram.
    """

    name: str
    code: int
    index: int | None
    attempt: int
    sequence: int
    data: bytes


_request_start = struct.Struct("!B3sHHI8xI")
_REQUEST_KIND = b"\1\0\0"
_OLDEST_VERSION_TOLD = 5


def parse_request(data: bytes) -> tuple[int, int, int, int, int] | None:
    """Return version, code, attempt, sequence number and argument.

    None for what chronyd ignores; it tells the clients of old versions nothing.
    """
    if not REPLY_HEADER <= len(data) <= LONGEST_REQUEST:
        return None
    version, kind, code, attempt, sequence, argument = _request_start.unpack_from(data)
    if kind != _REQUEST_KIND or version < _OLDEST_VERSION_TOLD:
        return None
    return version, code, attempt, sequence, argument


Datagram: TypeAlias = bytes | tuple[float, bytes]
"""What is sent: bytes, or the same after so many seconds."""


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
