"""chronyd's monitoring protocol, version 6: what stands where in a datagram.

A request is a header of 20 bytes, its argument, and zeros up to the length of
the longest reply to it; a reply is a header of 28 bytes and the record.
Numbers are big-endian and nothing is aligned.
"""

from __future__ import annotations

import math
import operator
import socket
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
UNAUTHORIZED = 2
INVALID = 3
NO_SUCH_SOURCE = 4
NOT_ENABLED = 6
NO_RTC = 13
BAD_VERSION = 18
BAD_LENGTH = 19


class Kind(NamedTuple):
    """How an attribute of a record is sent."""

    size: int
    encode: Callable[[Any, str], bytes]
    knows_none: bool = False
    """Whether it has bytes for None, so that no older layout need leave it out."""


def _integer(size: int, *, signed: bool = False) -> Kind:
    bits = size * 8
    low, high = (-1 << bits - 1, 1 << bits - 1) if signed else (0, 1 << bits)

    def encode(record: Any, name: str) -> bytes:
        value = getattr(record, name)
        if value is None:  # an age: never
            value = high - 1
        number = operator.index(value.value if isinstance(value, Enum) else value)
        if not low <= number < high:
            raise ValueError(f"{number} is not in {low} to {high - 1}")
        return number.to_bytes(size, "big", signed=signed)

    return Kind(size, encode)


def _encode_age(record: Any, name: str) -> bytes:
    """Encode a number of seconds since something, None where it never happened."""
    return b"\xff" * 4 if getattr(record, name) is None else u32.encode(record, name)


def _encode_name(record: Any, name: str) -> bytes:
    data = getattr(record, name).encode()
    if len(data) > 255 or b"\0" in data:
        raise ValueError("a name has 255 bytes at most, and none of them is 0")
    return struct.pack("!256s", data)


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
        raise ValueError(f"{text!r} has a scope, which the protocol cannot carry")
    else:
        ip = ip_address(text)
        family, address = (1 if ip.version == 4 else 2), ip.packed
    return struct.pack("!16sHxx", address, family)


def _encode_source_address(source: Source, name: str) -> bytes:
    text: str = getattr(source, name)
    if source.mode is not SourceMode.REFCLOCK or len(text) > 4:
        return _encode_address(source, name)
    return struct.pack("!16sHxx", text.encode("ascii"), 1)


def _decode_address(data: bytes) -> str:
    """Return an address as libchrony writes it."""
    family = int.from_bytes(data[16:18], "big")
    if family == 0:
        return ""
    if family == 1:
        return socket.inet_ntop(socket.AF_INET, data[:4])
    if family == 2:
        return socket.inet_ntop(socket.AF_INET6, data[:16])
    if family == 3:
        return f"ID#{int.from_bytes(data[:4], 'big'):010}"
    return "?"


def _constant(data: bytes) -> tuple[Kind, str]:
    """A field that comes from no attribute."""

    def encode(record: object, name: str) -> bytes:
        return data

    return Kind(len(data), encode), ""


i8 = _integer(1, signed=True)
i16 = _integer(2, signed=True)
u8 = _integer(1)
u16 = _integer(2)
u32 = _integer(4)
u64 = _integer(8)
age = Kind(4, _encode_age, knows_none=True)
name256 = Kind(256, _encode_name)
float32 = Kind(4, _encode_float)
timespec = Kind(12, _encode_timespec)
address = Kind(20, _encode_address)
source_address = Kind(20, _encode_source_address)
"""As ``address``, but of a reference clock its ID stands where IPv4 would."""


class Count(NamedTuple):
    """The record that answers N_SOURCES."""

    sources: int


class SourceName(NamedTuple):
    """The record that answers NTP_SOURCE_NAME."""

    address: str
    name: str


Layout: TypeAlias = tuple[tuple[Kind, str], ...]
"""A reply's fields: how they are sent, and the attributes they come from."""


def _fields(*groups: tuple[Kind, str]) -> Layout:
    """Return the fields with these names, which are sent alike in each group."""
    return tuple((kind, name) for kind, names in groups for name in names.split())


def _attributes(layout: Layout) -> set[str]:
    return {name for _, name in layout if name}


class Argument:
    """What a request says besides its code: nothing."""

    size = 0

    def key(self, position: Any, record: Any) -> bytes:
        """Return it for a record, given its position in the list."""
        return b""

    def read(self, data: bytes) -> dict[str, Any]:
        """Return it as attributes of ``Request``."""
        return {}


class _Index(Argument):
    size = u32.size

    def key(self, position: Any, record: Any) -> bytes:
        number: int = position
        return number.to_bytes(self.size, "big")

    def read(self, data: bytes) -> dict[str, Any]:
        return {"index": int.from_bytes(data, "big")}


class _Address(Argument):
    size = address.size

    def key(self, position: Any, record: Any) -> bytes:
        return address.encode(record, "address")

    def read(self, data: bytes) -> dict[str, Any]:
        return {"address": _decode_address(data)}


NOTHING = Argument()
INDEX = _Index()
ADDRESS = _Address()


class Report(NamedTuple):
    """What is asked for with one request, and how it is answered."""

    request: str
    """The request's name in chrony's protocol."""
    code: int
    layouts: dict[int, Layout]
    """The layouts of the reply by its code, the newest first."""
    commands: tuple[str, ...]
    """chronyd's ``opencommands`` that open it to clients over UDP."""
    argument: Argument = NOTHING
    absent: int = INVALID
    """The status where there is no such record."""

    @property
    def newest(self) -> Layout:
        return next(iter(self.layouts.values()))

    @property
    def record_size(self) -> int:
        """How many bytes follow the header of the newest reply."""
        return sum(kind.size for kind, _ in self.newest)

    def encode(self, record: object) -> tuple[int, bytes]:
        """Encode a record in the layout that lacks what is None in it.

        Return the reply's code and what follows its header.

        Raises:
            ValueError: An attribute has a value that the protocol cannot say.
        """
        known = _attributes(self.newest)
        missing = {
            name
            for kind, name in self.newest
            if name and not kind.knows_none and getattr(record, name) is None
        }
        for reply, layout in self.layouts.items():
            if known - _attributes(layout) == missing:
                return reply, b"".join(
                    _encode_field(kind, record, name) for kind, name in layout
                )
        raise ValueError(
            f"{type(record).__name__}: no chronyd leaves out just "
            f"{', '.join(sorted(missing))}"
        )


def _encode_field(kind: Kind, record: object, name: str) -> bytes:
    try:
        return kind.encode(record, name)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{type(record).__name__}.{name}: {error}") from error


_LISTS = ("authdata", "ntpdata", "selectdata", "sources", "sourcestats")

_NTP_DATA = _fields(
    (address, "remote_address local_address"),
    (u16, "remote_port"),
    (u8, "leap_status version mode stratum"),
    (i8, "poll precision"),
    (float32, "root_delay root_dispersion"),
    (u32, "reference_id"),
    (timespec, "ref_time_ns"),
    (float32, "offset peer_delay peer_dispersion response_time jitter_asymmetry"),
    (u16, "flags"),
    (u8, "tx_timestamping rx_timestamping"),
    (u32, "total_tx total_rx total_valid_rx total_good_rx"),
)
_SERVER_STATS_2 = (
    "ntp_received nts_ke_accepted command_received ntp_dropped nts_ke_dropped "
    "command_dropped log_dropped ntp_authenticated"
)
_SERVER_STATS_3 = f"{_SERVER_STATS_2} ntp_interleaved timestamps_held timestamp_span"
_SERVER_STATS_4 = (
    f"{_SERVER_STATS_3} daemon_rx daemon_tx kernel_rx kernel_tx hardware_rx hardware_tx"
)

N_SOURCES = Report("N_SOURCES", 14, {2: _fields((u32, "sources"))}, _LISTS)
SOURCE_DATA = Report(
    "SOURCE_DATA",
    15,
    {
        3: _fields(
            (source_address, "address"),
            (i16, "poll"),
            (u16, "stratum state mode flags reachability"),
            (age, "last_sample_ago"),
            (float32, "orig_latest_meas latest_meas latest_meas_err"),
        )
    },
    ("sources",),
    INDEX,
    NO_SUCH_SOURCE,
)
TRACKING = Report(
    "TRACKING",
    33,
    {
        5: _fields(
            (u32, "reference_id"),
            (address, "reference_ip"),
            (u16, "stratum leap_status"),
            (timespec, "ref_time_ns"),
            (float32, "offset last_offset rms_offset frequency residual_freq skew"),
            (float32, "root_delay root_dispersion update_interval"),
        )
    },
    ("tracking",),
)
SOURCESTATS = Report(
    "SOURCESTATS",
    34,
    {
        6: _fields(
            (u32, "reference_id"),
            (address, "address"),
            (u32, "samples runs span"),
            (float32, "std_dev resid_freq skew offset offset_err"),
        )
    },
    ("sourcestats",),
    INDEX,
    NO_SUCH_SOURCE,
)
SOURCESTATS_ADDRESS = slice(REPLY_HEADER + 4, REPLY_HEADER + 24)
"""Where a source's address is in the reply; AUTH_DATA and NTP_DATA ask with it."""

RTCREPORT = Report(
    "RTCREPORT",
    35,
    {
        7: _fields(
            (timespec, "ref_time_ns"),
            (u16, "samples runs"),
            (u32, "span"),
            (float32, "offset freq_offset"),
        )
    },
    ("rtcdata",),
    absent=NO_RTC,
)
ACTIVITY = Report(
    "ACTIVITY",
    44,
    {12: _fields((u32, "online offline burst_online burst_offline unresolved"))},
    ("activity",),
)
SMOOTHING = Report(
    "SMOOTHING",
    51,
    {
        13: _fields(
            (u32, "flags"),
            (float32, "offset freq_offset wander last_update_ago remaining_time"),
        )
    },
    ("smoothing",),
    absent=NOT_ENABLED,
)
SERVER_STATS = Report(
    "SERVER_STATS",
    54,
    {
        25: (*_fields((u64, _SERVER_STATS_4)), _constant(b"\xff" * 32)),
        24: _fields((u32, _SERVER_STATS_3)),
        22: _fields((u32, _SERVER_STATS_2)),
        14: _fields(
            (u32, "ntp_received command_received ntp_dropped command_dropped"),
            (u32, "log_dropped"),
        ),
    },
    ("serverstats",),
)
NTP_DATA = Report(
    "NTP_DATA",
    57,
    {
        26: (
            *_NTP_DATA,
            *_fields((u32, "kernel_tx kernel_rx hardware_tx hardware_rx")),
            _constant(b"\xff" * 16),
        ),
        16: (*_NTP_DATA, _constant(b"\xff" * 12)),
    },
    ("ntpdata",),
    ADDRESS,
    NO_SUCH_SOURCE,
)
AUTH_DATA = Report(
    "AUTH_DATA",
    67,
    {
        20: (
            *_fields(
                (u16, "mode key_type"),
                (u32, "key_id"),
                (u16, "key_length ke_attempts"),
                (age, "last_ke_ago"),
                (u16, "cookies cookie_length nak"),
            ),
            _constant(b"\0" * 2),
        )
    },
    ("authdata",),
    ADDRESS,
    NO_SUCH_SOURCE,
)
SELECT_DATA = Report(
    "SELECT_DATA",
    69,
    {
        23: (
            *_fields(
                (u32, "reference_id"),
                (address, "address"),
                (u8, "state authentication leap_status"),
            ),
            _constant(b"\0"),
            *_fields(
                (u16, "configured_options effective_options"),
                (age, "last_sample_ago"),
                (float32, "score low_limit high_limit"),
            ),
        )
    },
    ("selectdata",),
    INDEX,
    NO_SUCH_SOURCE,
)
NTP_SOURCE_NAME = Report(
    "NTP_SOURCE_NAME",
    65,
    {19: _fields((name256, "name"))},
    ("sourcename",),
    ADDRESS,
    NO_SUCH_SOURCE,
)
MANUAL_LIST = Report("MANUAL_LIST", 41, {18: (_constant(b"\0" * 388),)}, ("manual",))
"""No times were entered by hand."""

CLIENT_ACCESSES = Report(
    "CLIENT_ACCESSES_BY_INDEX3",
    68,
    {21: (_constant(b"\0\0\0\x10" + b"\0" * 488),)},
    ("clients",),
)
"""No clients in a table of 16."""

REPORTS = (
    N_SOURCES,
    SOURCE_DATA,
    TRACKING,
    SOURCESTATS,
    RTCREPORT,
    ACTIVITY,
    SMOOTHING,
    SERVER_STATS,
    NTP_DATA,
    AUTH_DATA,
    SELECT_DATA,
)

CONTROL = frozenset(
    {*range(1, 10), 11, 13, *range(16, 27), *range(29, 32), 36, 37, 42, 43}
    | {*range(45, 51), 52, 53, 56, *range(62, 65), 66, *range(70, 76)}
)
"""Requests that change something: these are refused as not authorised."""

DEFAULT_OPEN_COMMANDS = frozenset(
    {"activity", "manual", "rtcdata", "smoothing", "sourcename"}
    | {"sources", "sourcestats", "tracking"}
)
"""What chronyd answers over UDP unless ``opencommands`` says something else."""

ALL_COMMANDS = frozenset({*DEFAULT_OPEN_COMMANDS, *_LISTS, "clients", "serverstats"})
"""All that ``opencommands`` can name."""


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
        name: What is asked for, as chrony's protocol calls it: "N_SOURCES",
            "SOURCE_DATA", "TRACKING", "SOURCESTATS", "RTCREPORT", "ACTIVITY",
            "SMOOTHING", "SERVER_STATS", "NTP_DATA", "AUTH_DATA", "SELECT_DATA",
            "NTP_SOURCE_NAME", "MANUAL_LIST" or "CLIENT_ACCESSES_BY_INDEX3"; the
            code in digits if it is none of these.
        code: The request's code (0 to 65535).
        index: Which source is asked for (0 to 4294967295), None where the
            request has no number of one.
        attempt: How often the client says that it has sent this before
            (0 to 65535). libchrony always says 0.
        sequence: The number that the reply must repeat (0 to 4294967295).
        data: The whole datagram.
        address: Which source is asked for in NTP_DATA, AUTH_DATA and
            NTP_SOURCE_NAME, else None.
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

    None for what chronyd ignores; it tells the clients of old versions nothing.
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
