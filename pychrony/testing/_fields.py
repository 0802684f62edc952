"""How an attribute of a record is sent in chronyd's monitoring protocol.

Numbers are big-endian and nothing is aligned.
"""

from __future__ import annotations

import math
import operator
import socket
import struct
from collections.abc import Callable
from enum import Enum
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeAlias

from pychrony import Source, SourceMode


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
        number = operator.index(value.value if isinstance(value, Enum) else value)
        if not low <= number < high:
            raise ValueError(f"{number} is not in {low} to {high - 1}")
        return number.to_bytes(size, "big", signed=signed)

    return Kind(size, encode)


def _encode_age(record: Any, name: str) -> bytes:
    """Encode an age in seconds; None for never."""
    return b"\xff" * 4 if getattr(record, name) is None else u32.encode(record, name)


def _encode_name(record: Any, name: str) -> bytes:
    data = getattr(record, name).encode()
    if len(data) > 255 or b"\0" in data:
        raise ValueError("a name has at most 255 bytes, and none of them is 0")
    return struct.pack("!256s", data)


_LARGEST_FLOAT = math.ldexp((1 << 24) - 1, 38)


def _encode_float(record: Any, name: str) -> bytes:
    """Encode a number as coefficient * 2 ** (exponent - 25).

    The exponent has 7 bits, the coefficient 25, both in two's complement. Like in
    chronyd, NaN becomes 0, and a number that is too large the largest one.
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


def decode_address(data: bytes) -> str:
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


def constant(data: bytes) -> tuple[Kind, str]:
    """Return a field with a constant value."""

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

Layout: TypeAlias = tuple[tuple[Kind, str], ...]
"""A reply's fields: how they are sent, and the attributes they come from."""


def fields(*groups: tuple[Kind, str]) -> Layout:
    """Return the fields with these names, which are sent alike in each group."""
    return tuple((kind, name) for kind, names in groups for name in names.split())


def attributes(layout: Layout) -> set[str]:
    return {name for _, name in layout if name}
