"""Turns the record that a session has received into its dataclass.

For each layout of a report, a function that reads it is made once, from libchrony's
introspection and the dataclasses in ``models.py``.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from enum import Enum, Flag
from functools import partial
from types import UnionType

from ._libchrony import ffi
from ._library import call_locked, load, read_text
from .enums import FieldContent, FieldType
from .models import Source, Value, refid_name

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypeVar

    T = TypeVar("T")

_decoders: dict[type, Callable[..., Any]] = {}


def decoder(record: type[T]) -> Callable[..., T]:
    """Return what makes a record of this type.

    It takes a session that has just received one, and the extra fields. It raises
    ValueError where a field is missing, has another type, or a value outside its
    range.
    """
    return _decoders.get(record) or _decoders.setdefault(record, _new_decoder(record))


def _new_decoder(record: type[T]) -> Callable[..., T]:
    lib = load()
    number_of_fields = lib.chrony_get_record_number_fields
    # The function that makes a record of each layout. A layout is known by the number
    # of fields, and in "sources" by the type of the first one, too (an address or a
    # reference ID).
    makers: dict[Any, Callable[..., T]] = {}

    def decode(session: Any, **extra: Any) -> T:
        layout = number_of_fields(session)
        if record is Source:
            layout = layout, lib.chrony_get_field_type(session, 0)
        make = makers.get(layout)
        if make is None:
            make = makers[layout] = _new_maker(lib, session, record)
        return make(session, extra)

    return decode


_MAKE = """
def make(session, extra):
    values = {{{items}, **extra}}
    {statements}
    record = new(record_type)
    set_attribute(record, "__dict__", values)
    return record
"""


def _new_maker(lib: Any, session: Any, record: Any) -> Callable[..., Any]:
    """Return a function that makes a record of the layout that was received.

    Its code is generated, like that of dataclasses. In a call of 36 us, a loop over
    the fields would take 2.2 us more, and the __init__ of a frozen dataclass, instead
    of filling its __dict__, another 2.1 us.
    """
    indexes = {
        _field_name(lib, session, index): index
        for index in range(lib.chrony_get_record_number_fields(session))
    }
    names: dict[str, Any] = {
        "new": object.__new__,
        "record_type": record,
        "set_attribute": object.__setattr__,
        "refuse": _refuse,
    }
    items: list[str] = []
    statements: list[str] = []
    for number, field in enumerate(fields(record)):
        value = f"values[{field.name!r}]"
        if "derived" in field.metadata:
            names[f"derive_{number}"] = field.metadata["derived"]
            statements.append(f"{value} = derive_{number}(values)")
        if "names" not in field.metadata:
            continue  # it is derived, or an extra field
        name = next((one for one in field.metadata["names"] if one in indexes), "")
        wanted: Any = field.type
        if isinstance(wanted, UnionType):  # an older chronyd does not send it
            wanted, _ = wanted.__args__
            if not name:
                items.append(f"{field.name!r}: None")
                continue
        if not name:
            raise ValueError(
                "this libchrony has no field "
                f"{' or '.join(map(repr, field.metadata['names']))} in it, only "
                f"{', '.join(indexes)}"
            )
        index = indexes[name]
        read, convert = _reader(lib, session, index, name, wanted)
        if field.metadata["age"]:
            convert = _age
        names |= {f"read_{number}": read, f"convert_{number}": convert}
        item = f"read_{number}(session, {index})"
        if convert is not _as_it_is:
            item = f"convert_{number}({item})"
        items.append(f"{field.name!r}: {item}")
        content = _content(lib, session, index)
        statements.append(_check(value, name, content, field.metadata["most"]))
    source = _MAKE.format(items=", ".join(items), statements="\n    ".join(statements))
    exec(source, names)
    make: Callable[..., Any] = names["make"]
    return make


_NOT_NEGATIVE = (FieldContent.MEASURE_SECONDS, FieldContent.MEASURE_PPM)


def _check(value: str, name: str, content: FieldContent, most: int | None) -> str:
    """Return a statement that refuses a value outside its range, or an empty one."""
    if most is not None:
        return f"if {value} > {most}: refuse({name!r}, {value}, 'more than {most}')"
    if content in _NOT_NEGATIVE:
        return f"if {value} < 0.0: refuse({name!r}, {value}, 'negative')"
    return ""


def _refuse(name: str, value: float, what: str) -> NoReturn:
    raise ValueError(f"{name}: {value} is {what}")


def _as_it_is(value: T) -> T:
    return value


# ntp_flags in libchrony's reports.h swaps the names of these two.
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
        content = _content(lib, session, index)
        if content is FieldContent.NONE and name.startswith("reserved"):
            continue
        wanted = _GENERIC.get(kind)
        value = None
        if wanted is not None:
            read, convert = _reader(lib, session, index, name, wanted)
            value = convert(read(session, index))
            if kind is FieldType.FLOAT and content in _NOT_NEGATIVE and value < 0.0:
                _refuse(name, value, "negative")
        names = _constant_names(lib, session, index, content, value)
        override = _FLAG_NAMES.get((report, name), {})
        names = {bit: override.get(bit, constant) for bit, constant in names.items()}
        record[name] = Value(value, kind, content, tuple(names.values()))
    return record


# The Python type for each type of libchrony; a time is in nanoseconds.
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
    """Return libchrony's names for the value of an enum, or for the flags set."""
    constants: list[int] = []
    if isinstance(value, int) and content is FieldContent.ENUM:
        constants = [value]
    elif isinstance(value, int) and content is FieldContent.FLAGS:
        constants = [1 << bit for bit in range(64) if value >> bit & 1]
    names: dict[int, str] = {}
    for constant in constants:
        name = lib.chrony_get_field_constant_name(session, index, constant)
        if name:
            names[constant] = ffi.string(name).decode()
    return names


def _content(lib: Any, session: Any, index: int) -> FieldContent:
    # Locked: for an address it formats the text, to see whether there is one.
    return FieldContent(call_locked(lib.chrony_get_field_content, session, index))


def _field_name(lib: Any, session: Any, index: int) -> str:
    name: bytes = ffi.string(lib.chrony_get_field_name(session, index))
    return name.decode()


def _reader(
    lib: Any, session: Any, index: int, name: str, wanted: Any
) -> tuple[Any, Any]:
    """Return the functions that read a field of libchrony and convert its value.

    The latter raises ValueError, with the name of the field, for a value that means
    nothing.
    """
    # The getters of libchrony return 0 for a field of another type (its
    # FP_NAN is an integer macro), so the type is checked here.
    kind = lib.chrony_get_field_type(session, index)
    if kind == lib.CHRONY_TYPE_UINTEGER and issubclass(wanted, Enum):
        return lib.chrony_get_field_uinteger, _member_of(wanted)
    readers = {
        (lib.CHRONY_TYPE_UINTEGER, int): (lib.chrony_get_field_uinteger, _as_it_is),
        (lib.CHRONY_TYPE_UINTEGER, bool): (lib.chrony_get_field_uinteger, bool),
        (lib.CHRONY_TYPE_UINTEGER, str): (lib.chrony_get_field_uinteger, refid_name),
        (lib.CHRONY_TYPE_INTEGER, int): (lib.chrony_get_field_integer, _sign_extended),
        (lib.CHRONY_TYPE_FLOAT, float): (lib.chrony_get_field_float, _as_it_is),
        (lib.CHRONY_TYPE_STRING, str): (_string_reader(lib), _as_it_is),
        (lib.CHRONY_TYPE_TIMESPEC, int): (
            _timespec_reader(lib, ffi.sizeof("long"), _time_t_size),
            _nanoseconds(name),
        ),
    }
    if (kind, wanted) not in readers:
        raise ValueError(
            f"libchrony's field {name!r} has type {kind}, which does not make a "
            f"{wanted.__name__}"
        )
    return readers[kind, wanted]


def _member_of(enum: type[Enum]) -> Callable[[int], Enum]:
    known = enum._value2member_map_  # a call of the enum costs five times as much

    def member(value: int) -> Enum:
        found = known.get(value)
        if found is None:
            found = enum(value)
            # enum keeps every combination of flags that it has made. There are
            # 2**32, and the network chooses them: they would fill the memory.
            if issubclass(enum, Flag) and len(known) > 4096:
                known.pop(value, None)
        return found

    return member


def _age(value: int) -> int | None:
    return None if value == 0xFFFFFFFF else value


def _sign_extended(value: int) -> int:
    # get_field_integer in libchrony's message.c returns a 16-bit field without
    # its sign: poll -2 arrives as 65534.
    return ((value + 0x8000) & 0xFFFF) - 0x8000


def _string_reader(lib: Any) -> Callable[[Any, int], str]:
    return partial(read_text, lib.chrony_get_field_string)


def _timespec_reader(lib: Any, long_size: int, time_t_size: Callable[[], int]) -> Any:
    if long_size == 8 or time_t_size() == 4:
        return lib.chrony_get_field_timespec
    kind = "struct timespec_time64(*)(chrony_session *, int)"
    return ffi.cast(kind, lib.chrony_get_field_timespec)


def _time_t_size() -> int:
    import sysconfig  # costs milliseconds, and only 32-bit systems need it

    return int(sysconfig.get_config_var("SIZEOF_TIME_T"))


def _nanoseconds(name: str) -> Callable[[Any], int]:
    def convert(time: Any) -> int:
        seconds, nanoseconds = time.tv_sec, time.tv_nsec
        if not isinstance(nanoseconds, int):
            nanoseconds = nanoseconds[sys.byteorder == "big"]
        if seconds >> 32 == 0x7FFFFFFF:  # TV_NOHIGHSEC: the sender has 32 bits only
            seconds &= 0xFFFFFFFF
        if seconds < 0 or not 0 <= nanoseconds < 10**9:
            raise ValueError(f"{name}: {seconds} s and {nanoseconds} ns is not a time")
        total: int = seconds * 10**9 + nanoseconds
        return total

    return convert
