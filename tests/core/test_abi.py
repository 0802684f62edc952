"""The declarations of ``_cdef.py`` against the ABI of the libchrony that is loaded.

ABI mode has no compiler that would notice a wrong declaration, but the debug
information of the library (DWARF) has what its own compiler saw. Both sides are
written down in the same words, and the words compared. ``const`` is left out:
cffi does not keep it, and no ABI depends on it.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from cffi import FFI
from elftools.dwarf.die import DIE
from elftools.elf.elffile import ELFFile

import pychrony
from pychrony import _decode
from pychrony._cdef import CDEF

LIBRARY = pychrony.library_path()

if _decode._time_t_size() > FFI().sizeof("long"):
    pytest.skip(
        "struct timespec_time64 stands for struct timespec here",
        allow_module_level=True,
    )

# What is declared or there: names and their description, in words.
Abi: TypeAlias = dict[str, str]


def signature(result: str, parameters: list[str]) -> str:
    return f"{result} ({', '.join(parameters)})"


def enumeration(size: int, enumerators: dict[str, int]) -> str:
    by_value = sorted(enumerators.items(), key=lambda item: item[1])
    return f"{size} bytes: {by_value}"


def structure(size: int, fields: list[tuple[int, str, str]]) -> str:
    return f"{size} bytes: {sorted(fields)}"


# Declared: what cffi understood.


@lru_cache(maxsize=1)
def understood(cdef: str) -> tuple[FFI, Any]:
    ffi = FFI()
    ffi.cdef(cdef)
    return ffi, ffi.dlopen(LIBRARY)


def declared_functions(cdef: str) -> set[str]:
    _, library = understood(cdef)
    return {name for name in dir(library) if name.startswith("chrony_")}


def declared(cdef: str) -> Abi:
    ffi, library = understood(cdef)
    abi: Abi = {}
    for name in declared_functions(cdef):
        function = ffi.typeof(getattr(library, name))
        words = [in_words(ffi, one, abi) for one in function.args]
        words += ["..."] if function.ellipsis else []
        abi[name] = signature(in_words(ffi, function.result, abi), words)
    return abi


def in_words(ffi: FFI, ctype: Any, abi: Abi) -> str:
    """Name a type; what a name alone does not say goes into ``abi``."""
    name: str = ctype.cname.removeprefix("enum ").removeprefix("struct ")
    if ctype.kind == "pointer":
        return f"pointer to {in_words(ffi, ctype.item, abi)}"
    if ctype.kind == "enum":
        abi[name] = enumeration(ffi.sizeof(ctype), ctype.relements)
    elif ctype.kind == "struct" and ctype.fields is not None:
        fields = [
            (field.offset, label, in_words(ffi, field.type, abi))
            for label, field in ctype.fields
        ]
        abi[name] = structure(ffi.sizeof(ctype), fields)
    elif ctype.kind == "primitive":
        size = ffi.sizeof(ctype)
        if name in ("_Bool", "char", "float", "double"):
            kind = {"_Bool": "boolean", "char": "character"}.get(name, "float")
        else:
            negative = int(ffi.cast(ctype, -1)) < 0
            kind = "signed" if negative else "unsigned"
        return f"{kind} of {size} bytes"
    return name


# There: what the compiler of the library wrote down.

BASE_TYPES = {  # DW_ATE_*; plain char is signed or not, as the processor likes
    0x02: "boolean",
    0x04: "float",
    0x05: "signed",
    0x06: "character",
    0x07: "unsigned",
    0x08: "character",
}


@cache
def debug_information(path: str | Path) -> Abi:
    """Return what is exported; skip the test where the library does not say."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        if not elf.has_dwarf_info(strict=True):
            pytest.skip(f"{path} has no debug information, only symbols to compare")
        abi: Abi = {}
        for unit in elf.get_dwarf_info().iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                describe_function(die, abi)
    return abi


def describe_function(die: DIE, abi: Abi) -> None:
    flags = die.attributes
    if die.tag != "DW_TAG_subprogram" or "DW_AT_external" not in flags:
        return
    # A declaration is what another file of the library believes.
    if "DW_AT_declaration" in flags or not name_of(die).startswith("chrony_"):
        return
    parameters = []
    for child in die.iter_children():
        if child.tag == "DW_TAG_formal_parameter":
            parameters.append(in_words_of_dwarf(type_of(child), abi))
        elif child.tag == "DW_TAG_unspecified_parameters":
            parameters.append("...")
    abi[name_of(die)] = signature(in_words_of_dwarf(type_of(die), abi), parameters)


def name_of(die: DIE) -> str:
    name = die.attributes.get("DW_AT_name")
    return name.value.decode() if name else ""


def type_of(die: DIE) -> DIE | None:
    if "DW_AT_type" not in die.attributes:
        return None
    found: DIE = die.get_DIE_from_attribute("DW_AT_type")
    return found


def in_words_of_dwarf(die: DIE | None, abi: Abi) -> str:
    """Name a type as ``in_words`` does."""
    if die is None:
        return "void"
    if die.tag in ("DW_TAG_const_type", "DW_TAG_volatile_type"):
        return in_words_of_dwarf(type_of(die), abi)
    if die.tag == "DW_TAG_pointer_type":
        return f"pointer to {in_words_of_dwarf(type_of(die), abi)}"
    name = name_of(die)
    if die.tag == "DW_TAG_typedef":
        target = type_of(die)
        if target is None or target.tag not in AGGREGATES:
            return in_words_of_dwarf(target, abi)
        die = target  # in C, a typedef is the only name of many of them
    if die.tag == "DW_TAG_base_type":
        kind = BASE_TYPES[die.attributes["DW_AT_encoding"].value]
        return f"{kind} of {size_of(die)} bytes"
    if die.tag == "DW_TAG_enumeration_type":
        abi[name] = enumeration(
            size_of(die),
            {
                name_of(one): one.attributes["DW_AT_const_value"].value
                for one in die.iter_children()
            },
        )
    elif die.tag == "DW_TAG_structure_type" and name not in OPAQUE:
        fields = [
            (
                one.attributes["DW_AT_data_member_location"].value,
                name_of(one),
                in_words_of_dwarf(type_of(one), abi),
            )
            for one in die.iter_children()
        ]
        abi[name] = structure(size_of(die), fields)
    return name


def size_of(die: DIE) -> int:
    size: int = die.attributes["DW_AT_byte_size"].value
    return size


AGGREGATES = ("DW_TAG_enumeration_type", "DW_TAG_structure_type")

# The library knows what is in a session; its header tells nobody.
OPAQUE = ("chrony_session",)


# The comparison.


def differences(cdef: str) -> list[str]:
    wanted, real = declared(cdef), debug_information(LIBRARY)
    return [
        f"{name}: declared {wanted.get(name)}, in libchrony {real.get(name)}"
        for name in sorted({*wanted, *real})
        if wanted.get(name) != real.get(name)
    ]


def exported(path: str | Path) -> set[str]:
    with open(path, "rb") as file:
        symbols: Any = ELFFile(file).get_section_by_name(".dynsym")
        return {
            symbol.name
            for symbol in symbols.iter_symbols()
            if symbol["st_shndx"] != "SHN_UNDEF" and symbol.name.startswith("chrony_")
        }


def undeclared_or_missing(cdef: str, path: str | Path) -> set[str]:
    return declared_functions(cdef) ^ exported(path)


def test_functions_enums_and_structs_are_those_of_libchrony() -> None:
    assert differences(CDEF) == []


def test_functions_are_those_that_libchrony_exports() -> None:
    assert undeclared_or_missing(CDEF, LIBRARY) == set()


def test_everything_is_compared() -> None:
    compared = {*declared(CDEF)}
    assert compared >= exported(LIBRARY)
    assert compared - exported(LIBRARY) == {
        *("chrony_err", "chrony_field_type", "chrony_field_content", "timespec")
    }


def test_without_debug_information_symbols_are_still_compared(tmp_path: Path) -> None:
    # What strip removes is still there, but by a name that nobody looks for.
    original = Path(LIBRARY).read_bytes()
    stripped = tmp_path / "libchrony.so.0"
    stripped.write_bytes(original.replace(b".debug_", b".strip_"))
    with pytest.raises(pytest.skip.Exception, match="has no debug information"):
        debug_information(stripped)
    assert undeclared_or_missing(CDEF, stripped) == set()
    missing = original.replace(b"\0chrony_get_fd\0", b"\0chrony_get_df\0")
    stripped.write_bytes(missing.replace(b".debug_", b".strip_"))
    assert undeclared_or_missing(CDEF, stripped) == {"chrony_get_fd", "chrony_get_df"}


# Each change by hand must be seen.

SESSION = "struct chrony_session_t"
CHANGES = {
    "parameter": ("chrony_get_fd(chrony_session *s)", "chrony_get_fd(int s)"),
    "parameter added": (
        "chrony_close_socket(int fd",
        "chrony_close_socket(int fd, int",
    ),
    "parameter dropped": (", int fd);", ");"),
    "parameters open": (
        "chrony_close_socket(int fd",
        "chrony_close_socket(int fd, ...",
    ),
    "pointer level": ("chrony_session **s", "chrony_session *s"),
    "sign": ("uint64_t chrony_get_field_uint", "int64_t chrony_get_field_uint"),
    "width": ("uint64_t value", "uint32_t value"),
    "precision": ("double chrony", "float chrony"),
    "bool as int": ("bool chrony", "int chrony"),
    "text as bytes": ("const char *address", "const uint8_t *address"),
    "result dropped": ("int chrony_open_socket", "void chrony_open_socket"),
    "result added": ("void chrony_deinit", "int chrony_deinit"),
    "pointer to a struct": ("struct timespec chrony", "struct timespec *chrony"),
    "one enum for another": ("chrony_field_type chrony", "chrony_field_content chrony"),
    "function renamed": ("chrony_get_fd(", "chrony_fetch_fd("),
    "function dropped": ("int chrony_get_fd(chrony_session *s);", ""),
    "function added": (
        "void chrony_close_socket(int fd);",
        "void chrony_close_socket(int fd); void chrony_nonsense(void);",
    ),
    "order of enumerators": (
        "CHRONY_OLD_SERVER,\n    CHRONY_NEW_SERVER",
        "CHRONY_NEW_SERVER,\n    CHRONY_OLD_SERVER",
    ),
    "value of an enumerator": ("CHRONY_DISABLED,", "CHRONY_DISABLED = 11,"),
    "enumerator renamed": ("CHRONY_TYPE_FLOAT", "CHRONY_TYPE_DOUBLE"),
    "enumerator added": ("CHRONY_TYPE_STRING,", "CHRONY_TYPE_STRING, CHRONY_TYPE_X,"),
    "enum of another size": (
        "CHRONY_OK = 0",
        "CHRONY_BIG = 0x100000000, CHRONY_OK = 0",
    ),
    "type of a field": ("long tv_nsec;", "int tv_nsec;"),
    "order of fields": (
        "long tv_sec;\n    long tv_nsec;",
        "long tv_nsec;\n    long tv_sec;",
    ),
    "field dropped": ("    long tv_nsec;\n", ""),
    "field added": ("long tv_nsec;", "long tv_nsec; long tv_psec;"),
    "session told": (f"typedef {SESSION} ", f"typedef {SESSION} {{ int fd; }} "),
}
# Every enumerator dropped.
CHANGES |= {
    f"{name} dropped": (line, "")
    for line, name in re.findall(r"(    (CHRONY_\w+)(?: = 0)?,\n)", CDEF)
}


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES)
def test_a_change_by_hand_is_seen(old: str, new: str) -> None:
    """By one of the two comparisons."""
    assert old in CDEF
    changed = CDEF.replace(old, new, 1)
    assert undeclared_or_missing(changed, LIBRARY) or differences(changed)
