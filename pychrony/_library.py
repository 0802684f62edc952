"""Finds, opens and verifies libchrony, once, when pychrony is imported.

An error is kept and raised on first use, so that a program can import pychrony
without libchrony if it reads no clock.
"""

from __future__ import annotations

import _thread
import os
import sys
from importlib import import_module
from threading import RLock

from ._libchrony import ffi
from .exceptions import ChronyLibraryError

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

SONAME = "libchrony.so.0"
VARIABLE = "PYCHRONY_LIBCHRONY"

# libchrony formats every address into one static buffer of the process
# (get_field_string in message.c), and cffi lets other threads run during a
# call. So this lock is held around every call that may write to the buffer and
# around the copy of its text, never around a wait. It is reentrant: a signal
# handler or a finalizer of the thread that holds it may read another clock.
lock = RLock()

# A thread that does not exist in a forked child must not hold the lock there.
os.register_at_fork(
    before=lock.acquire,
    after_in_parent=lock.release,
    after_in_child=lock.release,
)

# The number of calls that may have written to the buffer. Only a thread that has the
# lock changes it. It tells read_text() whether such a handler made a call meanwhile.
_writes = 0


def call_locked(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function of libchrony that may write to its buffer."""
    global _writes  # noqa: PLW0603 - one count for libchrony's one buffer
    with lock:
        _writes += 1
        return function(*arguments)


def read_text(function: Callable[..., Any], session: Any, index: int) -> str:
    """Copy the text that a function of libchrony returns; NULL is an empty text."""
    global _writes  # noqa: PLW0603 - one count for libchrony's one buffer
    with lock:
        while True:
            _writes += 1
            before = _writes
            pointer = function(session, index)
            text = ffi.string(pointer) if pointer else b""
            if _writes == before:
                return text.decode("ascii", "replace")


# In ABI mode no compiler compares the declared chrony_err with the real one. So a word
# is looked for in libchrony's text of each error that pychrony handles. The enumerator
# names have these words, too, if libchrony should return those.
_ERROR_WORDS = {
    "CHRONY_SEND_FAILED": "send",
    "CHRONY_RECV_FAILED": "rec",
    "CHRONY_UNAUTHORIZED": "authorized",
    "CHRONY_DISABLED": "disabled",
    "CHRONY_UNEXPECTED_STATUS": "status",
    "CHRONY_OLD_SERVER": "old",
    "CHRONY_NEW_SERVER": "new",
    "CHRONY_INVALID_RESPONSE": "response",
}

_GET_IT = {
    "fedora": "dnf install libchrony",
    "rhel": "dnf install epel-release && dnf install libchrony",
}


def how_to_get() -> str:
    """Return one line that says how to get libchrony for this interpreter."""
    import platform

    from . import _wheel

    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    for distribution in [release.get("ID", ""), *release.get("ID_LIKE", "").split()]:
        if distribution in _GET_IT:
            return _GET_IT[distribution]
    try:
        _wheel.tag()
    except _wheel.WheelError as reason:
        return str(reason)
    return _wheel.own_environment() or _wheel.command()


def _verify(lib: Any) -> None:
    for name in dir(lib):
        getattr(lib, name)  # ffi.error where the symbol is missing
    for name, word in _ERROR_WORDS.items():
        text = ffi.string(lib.chrony_get_error_string(getattr(lib, name)))
        if word not in text.decode("ascii", "replace").lower():
            raise ffi.error(f"its {name} means {text!r}: another ABI")


def _check_file(path: str) -> None:
    """Raise an OSError for a file on which dlopen would hang or crash.

    If a library is truncated, its missing pages end the process with SIGBUS. A
    complete library that is not libchrony is rejected later: by dlopen, or by its
    symbols.
    """
    if not os.path.isfile(path):  # opening a FIFO would wait for its other end
        what = "not a file" if os.path.exists(path) else "no such file"
        raise FileNotFoundError(f"cannot open shared object file: {what}")
    with open(path, "rb", buffering=0) as file:
        header = file.read(64)
        if len(header) < 64 or header[:4] != b"\x7fELF":
            raise OSError("not a shared library")
        order: Any = "little" if header[5] == 1 else "big"

        def number(data: bytes, offset: int, size: int) -> int:
            return int.from_bytes(data[offset : offset + size], order)

        # The offset of the program header table, the size and number of its entries,
        # and the position of a segment's offset and size in an entry: elf(5).
        if header[4] == 2:
            table, sizes, word, begin, length = number(header, 32, 8), 54, 8, 8, 32
        else:
            table, sizes, word, begin, length = number(header, 28, 4), 42, 4, 4, 16
        size = number(header, sizes, 2)
        entries = os.pread(file.fileno(), size * number(header, sizes + 2, 2), table)
        end = os.fstat(file.fileno()).st_size
        for entry in range(0, len(entries) - word, size or 1):
            last = number(entries, entry + begin, word)
            last += number(entries, entry + length, word)
            if last > end:
                raise OSError(f"cut off: it has {end} bytes, and needs {last}")


def open_library(name: str) -> Any:
    """Return the library of this name or path.

    Raises:
        OSError, ValueError, ffi.error: it is not there, or not a usable libchrony.
    """
    if "/" in name:
        _check_file(name)
    lib = ffi.dlopen(name)
    _verify(lib)
    return lib


def in_prefix() -> str:
    """Return the path where ``pychrony.library install`` and conda put libchrony."""
    return f"{sys.prefix}/lib/{SONAME}"


def _open() -> tuple[Any, str, list[tuple[str, Exception]]]:
    """Return the library or None, its name, and the failed attempts with reasons."""
    named = os.environ.get(VARIABLE)
    tried: list[tuple[str, Exception]] = []
    for name in (named,) if named else (SONAME, in_prefix()):
        try:
            return open_library(name), name, tried
        except (OSError, ValueError, ffi.error) as reason:
            tried.append((name, reason))
    return None, tried[0][0], tried


def _in_main_interpreter() -> bool:
    is_main: Any = getattr(_thread, "_is_main_interpreter", None)  # CPython 3.12
    if is_main is not None:
        return bool(is_main())
    try:
        interpreters = import_module("_xxsubinterpreters")
    except ImportError:
        return True
    return bool(interpreters.get_current() == interpreters.get_main())


_lib, name, _tried = _open() if _in_main_interpreter() else (None, "", [])


def is_usable() -> bool:
    """Return whether there is a usable libchrony."""
    return _lib is not None


def load() -> Any:
    """Return libchrony.

    Raises:
        ChronyLibraryError: there is no usable one.
    """
    if _lib is None:
        if not name:
            raise ChronyLibraryError(
                "pychrony works in the main interpreter of a process only: others "
                "would share the one buffer that libchrony has for addresses, and "
                "read each other's. With mod_wsgi, set WSGIApplicationGroup %{GLOBAL}"
            )
        reasons: list[str] = []
        for tried, reason in _tried:
            text = str(reason).removeprefix(f"cannot load library '{tried}': ")
            reasons.append(f"Tried {tried}: {text.removeprefix(f'{tried}: ')}.")
        if os.environ.get(VARIABLE):
            advice = f" To get it: correct or unset {VARIABLE}, which names it"
        else:
            advice = f"\nTo get it: {how_to_get()}"
        text = f"no usable libchrony. {' '.join(reasons)}{advice}"
        raise ChronyLibraryError(text) from _tried[0][1]
    return _lib


def reports() -> list[str]:
    """Return the names of the reports that this libchrony knows.

    Raises:
        ChronyLibraryError: there is no usable one.
    """
    lib = load()
    return [
        ffi.string(lib.chrony_get_report_name(index)).decode()
        for index in range(lib.chrony_get_number_supported_reports())
    ]


def library_path() -> str:
    """Return the file that libchrony was loaded from, or its name if unknown.

    Raises:
        ChronyLibraryError: there is no usable one.
    """
    from contextlib import suppress

    load()
    if "/" not in name:
        with (
            suppress(OSError),
            open("/proc/self/maps", encoding="utf-8", errors="replace") as maps,
        ):
            for line in maps:
                file = line.rstrip("\n").partition("/")[2]
                if file.rpartition("/")[2].startswith("libchrony"):
                    return f"/{file}"
    return name
