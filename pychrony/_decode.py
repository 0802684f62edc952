"""Turns the record that a session has received into its dataclass.

How to read a layout of a report is worked out once, from libchrony's
introspection and the table in ``models.py``, and kept as a plan.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from enum import Enum, Flag
from itertools import chain
from types import UnionType

from ._libchrony import ffi
from ._library import in_lock
from .models import FieldContent, FieldType, Value, refid_name

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")
    _Plan: TypeAlias = tuple[
        list[tuple[str, int, Callable[[Any, int], Any]]],
        list[tuple[str, int, Callable[[Any], Any]]],
        list[tuple[str, Callable[[dict[str, Any]], Any]]],
        dict[str, None],
    ]

# A layout is told by the report, its number of fields, and the type of its
# first field (an address or a reference ID in "sources"). Its plan: attribute,
# index and how to read it for each field; how to convert some of them; how to
# derive other attributes; those that it does not have.
_plans: dict[tuple[type, int, int], _Plan] = {}


def decode(record: type[T], lib: Any, session: Any, **given: Any) -> T:
    """Return the record that ``session`` has just received, with ``given`` in it.

    Raises:
        ValueError: a field is missing, has another type, or a value outside
            its range.
    """
    layout = (
        record,
        lib.chrony_get_record_number_fields(session),
        lib.chrony_get_field_type(session, 0),
    )
    plan = _plans.get(layout)
    if plan is None:
        plan = _plans[layout] = _plan(lib, session, record)
    steps, conversions, derived, absent = plan
    values: dict[str, Any] = {**given, **absent}
    for attribute, index, read in steps:
        values[attribute] = read(session, index)
    for attribute, index, convert in conversions:
        try:
            values[attribute] = convert(values[attribute])
        except ValueError as reason:
            raise ValueError(f"{_field_name(lib, session, index)}: {reason}") from None
    for attribute, function in derived:
        values[attribute] = function(values)
    # The generated __init__ of a frozen dataclass would cost more than all of
    # libchrony's own work for the record.
    instance = object.__new__(record)
    object.__setattr__(instance, "__dict__", values)
    return instance


# ntp_flags in libchrony's reports.h has these two the wrong way round.
_FLAG_NAMES = {("ntpdata", "flags"): {0x4: "testB", 0x2: "testC"}}


def decode_generic(
    report: str, lib: Any, session: Any, *, address: str | None = None
) -> dict[str, Value]:
    """Return the record that ``session`` has just received, field by field.

    Raises:
        ValueError: a field has a value outside its range.
    """
    record: dict[str, Value] = {}
    if address is not None:
        kind, content = FieldType.STRING, FieldContent.ADDRESS
        record["address"] = Value(address, kind, content, ())
    for index in range(lib.chrony_get_record_number_fields(session)):
        name = _field_name(lib, session, index)
        kind = FieldType(lib.chrony_get_field_type(session, index))
        content = FieldContent(_content(lib, session, index))
        if content is FieldContent.NONE and name.startswith("reserved"):
            continue
        wanted = _GENERIC.get(kind)
        value = None
        if wanted is not None:
            read, convert = _reader(lib, session, index, wanted)
            value = read(session, index)
            value = value if convert is None else convert(value)
        names = _constant_names(lib, session, index, content, value)
        override = _FLAG_NAMES.get((report, name), {})
        names = {bit: override.get(bit, constant) for bit, constant in names.items()}
        record[name] = Value(value, kind, content, tuple(names.values()))
    return record


# What each type of libchrony is in Python; a time is in nanoseconds.
_GENERIC = {
    FieldType.UINTEGER: int,
    FieldType.INTEGER: int,
    FieldType.FLOAT: float,
    FieldType.TIMESPEC: int,
    FieldType.STRING: str,
}


def _constant_names(
    lib: Any, session: Any, index: int, content: FieldContent, value: Any
) -> dict[int, str]:
    """Return the names that libchrony has for an enum or the flags that are set."""
    if not isinstance(value, int):
        constants = []
    elif content is FieldContent.ENUM:
        constants = [value]
    elif content is FieldContent.FLAGS:
        constants = [1 << bit for bit in range(64) if value >> bit & 1]
    else:
        constants = []
    names: dict[int, str] = {}
    for constant in constants:
        name = lib.chrony_get_field_constant_name(session, index, constant)
        if name:
            names[constant] = ffi.string(name).decode()
    return names


def _content(lib: Any, session: Any, index: int) -> int:
    # For an address it formats the text, to see whether there is one.
    contents = map(lib.chrony_get_field_content, (session,), (index,))
    content: int = in_lock(contents)
    return content


def _field_name(lib: Any, session: Any, index: int) -> str:
    name: bytes = ffi.string(lib.chrony_get_field_name(session, index))
    return name.decode()


def _plan(lib: Any, session: Any, record: Any) -> _Plan:
    indexes = {
        _field_name(lib, session, index): index
        for index in range(lib.chrony_get_record_number_fields(session))
    }
    steps: list[Any] = []
    conversions: list[Any] = []
    derived: list[Any] = []
    absent: dict[str, None] = {}
    for field in fields(record):
        if "given" in field.metadata:
            continue
        if "derived" in field.metadata:
            derived.append((field.name, field.metadata["derived"]))
            continue
        names, most = field.metadata["names"], field.metadata["most"]
        index = next((indexes[name] for name in names if name in indexes), None)
        wanted: Any = field.type
        if isinstance(wanted, UnionType):  # an older chronyd does not send it
            wanted, _ = wanted.__args__
            if index is None:
                absent[field.name] = None
                continue
        if index is None:
            raise ValueError(
                f"this libchrony has no field {' or '.join(map(repr, names))} in it, "
                f"only {', '.join(indexes)}"
            )
        read, convert = _reader(lib, session, index, wanted)
        steps.append((field.name, index, read))
        if most:
            convert = _at_most(most)
        if convert is not None:
            conversions.append((field.name, index, convert))
    return steps, conversions, derived, absent


def _reader(lib: Any, session: Any, index: int, wanted: Any) -> tuple[Any, Any]:
    """Return how to read a field of libchrony and how to convert what was read."""
    # The getters of libchrony return 0 for a field of another type (its
    # FP_NAN is an integer macro), so the type is checked here.
    kind = lib.chrony_get_field_type(session, index)
    if kind == lib.CHRONY_TYPE_UINTEGER and issubclass(wanted, Enum):
        return lib.chrony_get_field_uinteger, _member_of(wanted)
    content = _content(lib, session, index)
    measure = content in (
        lib.CHRONY_CONTENT_MEASURE_SECONDS,
        lib.CHRONY_CONTENT_MEASURE_PPM,
    )
    readers = {
        (lib.CHRONY_TYPE_UINTEGER, int): (lib.chrony_get_field_uinteger, None),
        (lib.CHRONY_TYPE_UINTEGER, bool): (lib.chrony_get_field_uinteger, bool),
        (lib.CHRONY_TYPE_UINTEGER, str): (lib.chrony_get_field_uinteger, refid_name),
        (lib.CHRONY_TYPE_INTEGER, int): (lib.chrony_get_field_integer, _sign_extended),
        (lib.CHRONY_TYPE_FLOAT, float): (
            lib.chrony_get_field_float,
            _not_negative if measure else None,
        ),
        (lib.CHRONY_TYPE_STRING, str): (_string_reader(lib), None),
        (lib.CHRONY_TYPE_TIMESPEC, int): (
            _timespec_reader(lib, ffi.sizeof("long"), _time_t_size),
            _nanoseconds,
        ),
    }
    if (kind, wanted) not in readers:
        raise ValueError(
            f"libchrony's field {_field_name(lib, session, index)!r} has type {kind}, "
            f"which does not make a {wanted.__name__}"
        )
    return readers[kind, wanted]


def _member_of(enum: type[Enum]) -> Callable[[int], Enum]:
    known = enum._value2member_map_  # a call of the enum costs five times as much

    def member(value: int) -> Enum:
        found = known.get(value)
        if found is None:
            found = enum(value)
            # enum keeps every combination of flags that it ever made; those of
            # 32 bits, which the network chooses, would fill the memory.
            if issubclass(enum, Flag) and len(known) > 4096:
                known.pop(value, None)
        return found

    return member


def _at_most(most: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if value > most:
            raise ValueError(f"{value} is more than {most}")
        return value

    return check


def _not_negative(value: float) -> float:
    if value < 0.0:
        raise ValueError(f"{value} is negative")
    return value


def _sign_extended(value: int) -> int:
    # get_field_integer in libchrony's message.c returns a 16-bit field without
    # its sign: poll -2 arrives as 65534.
    return ((value + 0x8000) & 0xFFFF) - 0x8000


def _string_reader(lib: Any) -> Callable[[Any, int], str]:
    get, string = lib.chrony_get_field_string, ffi.string

    def read(session: Any, index: int) -> str:
        # The text must be copied before anybody else calls libchrony, so it is
        # all one function of C. NULL is an unspecified address.
        texts = map(string, filter(None, map(get, (session,), (index,))))
        return str(in_lock(chain(texts, (b"",))), "ascii", "replace")

    return read


def _timespec_reader(lib: Any, long_size: int, time_t_size: Callable[[], int]) -> Any:
    if long_size == 8 or time_t_size() == 4:
        return lib.chrony_get_field_timespec
    kind = "struct timespec_time64(*)(chrony_session *, int)"
    return ffi.cast(kind, lib.chrony_get_field_timespec)


def _time_t_size() -> int:
    import sysconfig  # costs milliseconds, and only 32-bit systems need it

    return int(sysconfig.get_config_var("SIZEOF_TIME_T"))


def _nanoseconds(time: Any) -> int:
    seconds, nanoseconds = time.tv_sec, time.tv_nsec
    if not isinstance(nanoseconds, int):
        nanoseconds = nanoseconds[sys.byteorder == "big"]
    if seconds >> 32 == 0x7FFFFFFF:  # TV_NOHIGHSEC: the sender has 32 bits only
        seconds &= 0xFFFFFFFF
    if seconds < 0 or not 0 <= nanoseconds < 10**9:
        raise ValueError(f"{seconds} s and {nanoseconds} ns is not a time")
    return int(seconds * 10**9 + nanoseconds)
