"""Turns the record that a session has received into its dataclass.

For each layout of a report, a plan to read it is made once, from libchrony's
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
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")
    # A field: its attribute, its index, and the functions to read and convert it.
    _Step: TypeAlias = tuple[str, int, Callable[[Any, int], Any], Callable[[Any], Any]]

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
    # How to make a record of each layout from a session, and the steps of that. A
    # layout is known by the number of fields, and in "sources" by the type of the
    # first one, too (an address or a reference ID).
    plans: dict[Any, tuple[Callable[..., T], list[_Step]]] = {}

    def decode(session: Any, **extra: Any) -> T:
        layout = number_of_fields(session)
        if record is Source:
            layout = layout, lib.chrony_get_field_type(session, 0)
        plan = plans.get(layout)
        if plan is None:
            plan = plans[layout] = _plan(lib, session, record)
        make, steps = plan
        try:
            return make(session, extra)
        except ValueError as reason:
            index = next(
                index
                for _, index, read, convert in steps
                if _refuses(convert, read(session, index))
            )
            name = _field_name(lib, session, index)
            raise ValueError(f"{name}: {reason}") from None

    return decode


def _refuses(convert: Callable[[Any], Any], value: Any) -> bool:
    try:
        convert(value)
    except ValueError:
        return True
    return False


_MAKE = """
def make(session, extra):
    values = {{{items}, **extra}}
{derived}
    record = new(record_type)
    set_attribute(record, "__dict__", values)
    return record
"""


def _maker(record: type, steps: list[_Step], absent: list[str]) -> Callable[..., Any]:
    """Return a function that makes a record.

    Its code is generated, like that of dataclasses. In a call of 36 us, a loop over
    the fields would take 2.2 us more, and the __init__ of a frozen dataclass, instead
    of filling its __dict__, another 2.1 us.
    """
    names: dict[str, Any] = {
        "new": object.__new__,
        "record_type": record,
        "set_attribute": object.__setattr__,
    }
    items = [f"{attribute!r}: None" for attribute in absent]
    for number, (attribute, index, read, convert) in enumerate(steps):
        names[f"read_{number}"] = read
        item = f"read_{number}(session, {index})"
        if convert is not _as_it_is:
            names[f"convert_{number}"] = convert
            item = f"convert_{number}({item})"
        items.append(f"{attribute!r}: {item}")
    derived = [field for field in fields(record) if "derived" in field.metadata]
    names |= {f"derive_{one.name}": one.metadata["derived"] for one in derived}
    source = _MAKE.format(
        items=", ".join(items),
        derived="\n".join(
            f"    values[{one.name!r}] = derive_{one.name}(values)" for one in derived
        ),
    )
    exec(source, names)
    make: Callable[..., Any] = names["make"]
    return make


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
        content = FieldContent(_content(lib, session, index))
        if content is FieldContent.NONE and name.startswith("reserved"):
            continue
        wanted = _GENERIC.get(kind)
        value = None
        if wanted is not None:
            read, convert = _reader(lib, session, index, wanted)
            value = convert(read(session, index))
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
    # Locked: for an address it formats the text, to see whether there is one.
    content: int = call_locked(lib.chrony_get_field_content, session, index)
    return content


def _field_name(lib: Any, session: Any, index: int) -> str:
    name: bytes = ffi.string(lib.chrony_get_field_name(session, index))
    return name.decode()


def _plan(
    lib: Any, session: Any, record: Any
) -> tuple[Callable[..., Any], list[_Step]]:
    indexes = {
        _field_name(lib, session, index): index
        for index in range(lib.chrony_get_record_number_fields(session))
    }
    steps: list[_Step] = []
    absent: list[str] = []
    for field in fields(record):
        if "names" not in field.metadata:  # an extra or derived field
            continue
        names, most = field.metadata["names"], field.metadata["most"]
        index = next((indexes[name] for name in names if name in indexes), None)
        wanted: Any = field.type
        if isinstance(wanted, UnionType):  # an older chronyd does not send it
            wanted, _ = wanted.__args__
            if index is None:
                absent.append(field.name)
                continue
        if index is None:
            raise ValueError(
                f"this libchrony has no field {' or '.join(map(repr, names))} in it, "
                f"only {', '.join(indexes)}"
            )
        read, convert = _reader(lib, session, index, wanted)
        if most:
            convert = _at_most(most, convert)
        elif field.metadata["age"]:
            convert = _age
        steps.append((field.name, index, read, convert))
    return _maker(record, steps, absent), steps


def _reader(lib: Any, session: Any, index: int, wanted: Any) -> tuple[Any, Any]:
    """Return the functions that read a field of libchrony and convert its value."""
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
        (lib.CHRONY_TYPE_UINTEGER, int): (lib.chrony_get_field_uinteger, _as_it_is),
        (lib.CHRONY_TYPE_UINTEGER, bool): (lib.chrony_get_field_uinteger, bool),
        (lib.CHRONY_TYPE_UINTEGER, str): (lib.chrony_get_field_uinteger, refid_name),
        (lib.CHRONY_TYPE_INTEGER, int): (lib.chrony_get_field_integer, _sign_extended),
        (lib.CHRONY_TYPE_FLOAT, float): (
            lib.chrony_get_field_float,
            _not_negative if measure else _as_it_is,
        ),
        (lib.CHRONY_TYPE_STRING, str): (_string_reader(lib), _as_it_is),
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
            # enum keeps every combination of flags that it has made. There are
            # 2**32, and the network chooses them: they would fill the memory.
            if issubclass(enum, Flag) and len(known) > 4096:
                known.pop(value, None)
        return found

    return member


def _at_most(most: int, convert: Callable[[int], int]) -> Callable[[int], int]:
    def check(value: int) -> int:
        value = convert(value)
        if value > most:
            raise ValueError(f"{value} is more than {most}")
        return value

    return check


def _age(value: int) -> int | None:
    return None if value == 0xFFFFFFFF else value


def _not_negative(value: float) -> float:
    if value < 0.0:
        raise ValueError(f"{value} is negative")
    return value


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


def _nanoseconds(time: Any) -> int:
    seconds, nanoseconds = time.tv_sec, time.tv_nsec
    if not isinstance(nanoseconds, int):
        nanoseconds = nanoseconds[sys.byteorder == "big"]
    if seconds >> 32 == 0x7FFFFFFF:  # TV_NOHIGHSEC: the sender has 32 bits only
        seconds &= 0xFFFFFFFF
    if seconds < 0 or not 0 <= nanoseconds < 10**9:
        raise ValueError(f"{seconds} s and {nanoseconds} ns is not a time")
    return int(seconds * 10**9 + nanoseconds)
