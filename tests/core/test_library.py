"""The binding: generated, verified, opened at import, and cheap to import."""

from __future__ import annotations

import _thread
import os
import platform
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import python

import pychrony
from pychrony import ChronyLibraryError, _cdef, _library, _wheel

LIBRARY = pychrony.library_path()


def refusal(library: str, address: str | None = None, **variables: Any) -> str:
    """What the first use says where this libchrony cannot be used."""
    code = USE.format(address=address)
    return python(code, status=9, PYCHRONY_LIBCHRONY=library, **variables).stdout


def test_generated_module_is_current(tmp_path: Path) -> None:
    committed = Path(_cdef.__file__).with_name("_libchrony.py")
    generated = tmp_path / "_libchrony.py"
    command = [sys.executable, "-m", "pychrony._cdef", str(generated)]
    subprocess.run(command, check=True, capture_output=True)
    assert committed.read_text() == generated.read_text(), "run nox -s generate"


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert pychrony.__version__ == version("pychrony")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pychrony.nonsense


def test_all_is_all_there() -> None:
    for name in pychrony.__all__:
        assert name == "__version__" or getattr(pychrony, name).__module__.startswith(
            "pychrony."
        )
    assert dir(pychrony) == sorted(pychrony.__all__)
    modules = [
        import_module(f"pychrony.{name}")
        for names in pychrony._MODULES
        for name in names
    ]
    public = {"__version__", "library_path", "reports"}
    assert public.union(*(module.__all__ for module in modules)) == set(
        pychrony.__all__
    )


USE = """
import pychrony
print(pychrony.get_tracking)
try:
    pychrony.get_tracking({address!r})
except pychrony.ChronyLibraryError as error:
    assert error.error_code is None and error.__cause__ is not None
    print(error)
    raise SystemExit(9)
"""


@pytest.mark.parametrize("address", [None, "127.0.0.1", "/nowhere/chronyd.sock"])
def test_without_libchrony_the_first_use_says_how_to_get_it(
    address: str | None, tmp_path: Path
) -> None:
    missing = str(tmp_path / "libchrony.so.0")
    function, message = refusal(missing, address).splitlines()
    assert function.startswith("<function get_tracking")
    assert missing in message
    assert "cannot open shared object file" in message
    assert "correct or unset PYCHRONY_LIBCHRONY" in message


def test_library_that_can_never_be_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "libchrony.so.0"
    os.mkfifo(fifo)
    for nonsense, reason in (
        (str(fifo), f"{fifo}: cannot open shared object file: not a file."),
        (str(tmp_path), f"{tmp_path}: cannot open shared object file: not a file."),
        ("/tmp/\udcff.so", "no such file."),
        ("\udcff.so", ""),
    ):
        assert reason in refusal(nonsense)


@pytest.mark.parametrize("empty", ["", "os.environ['PYCHRONY_LIBCHRONY'] = ''"])
def test_without_the_variable_the_soname_is_tried(empty: str) -> None:
    code = f"import os; {empty}\nimport pychrony._library as l\n"
    code += "print(l.name, l.SONAME); print(l.how_to_get())"
    said = python(code, PYCHRONY_LIBCHRONY="").stdout
    assert said == f"libchrony.so.0 libchrony.so.0\n{_library.how_to_get()}\n"


def test_without_the_variable_the_advice_is_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "libchrony.so.0").write_text("found first, but no library")
    first, last = refusal("", LD_LIBRARY_PATH=str(tmp_path)).splitlines()[-2:]
    assert "Tried libchrony.so.0: " in first
    assert f"Tried {_library.in_prefix()}: " in first
    assert last == f"To get it: {_library.how_to_get()}"


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ({"ID": "fedora"}, "dnf install libchrony"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install epel-release"),
        ({"ID": "debian"}, f"{sys.executable} -m pychrony.library install"),
        ({}, f"{sys.executable} -m pychrony.library install"),
    ],
)
def test_advice_fits_the_distribution(
    release: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    monkeypatch.setattr(_wheel, "own_environment", lambda: "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert _library.how_to_get().startswith(expected)


def test_other_interpreters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version of CPython tells in another way which this is, or does not."""
    monkeypatch.setattr(_thread, "_is_main_interpreter", lambda: False, raising=False)
    assert not _library._in_main_interpreter()
    monkeypatch.delattr(_thread, "_is_main_interpreter")
    numbers = SimpleNamespace(get_current=lambda: 1, get_main=lambda: 0)
    monkeypatch.setitem(sys.modules, "_xxsubinterpreters", numbers)
    assert not _library._in_main_interpreter()
    monkeypatch.setitem(sys.modules, "_xxsubinterpreters", None)
    assert _library._in_main_interpreter()
    monkeypatch.setattr(_library, "_lib", None)
    monkeypatch.setattr(_library, "name", "")
    with pytest.raises(ChronyLibraryError, match="in the main interpreter of a proc"):
        _library.load()


def test_advice_without_os_release(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    assert _library.how_to_get().endswith(" -m pychrony.library install")


def test_advice_in_the_python_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", dict)
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert _library.how_to_get().startswith("python3 -m venv DIR && ")


def test_advice_where_no_wheel_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", dict)
    monkeypatch.setattr(_wheel, "_tag", lambda: "manylinux_2_28_armv7l")
    advice = _library.how_to_get()
    assert "no published libchrony for this platform (manylinux_2_28_armv7l)" in advice
    assert "build it: git clone " in advice


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"chrony_get_field_index\0", b"chrony_get_field_outdex"[:22] + b"\0", "index"),
        (b"to send request\0", b"to make request\0", "CHRONY_SEND_FAILED means"),
        (b"to receive resp", b"to await a resp", "CHRONY_RECV_FAILED means"),
        (b"Not authorized\0", b"Not a problem!\0", "CHRONY_UNAUTHORIZED means"),
        (b"Disabled\0", b"Ignored!\0", "CHRONY_DISABLED means"),
        (b"cted status\0", b"cted result\0", "CHRONY_UNEXPECTED_STATUS means"),
        (b"(too old)\0", b"(too far)\0", "CHRONY_OLD_SERVER means"),
        (b"(too new)\0", b"(too far)\0", "CHRONY_NEW_SERVER means"),
        (b"id response\0", b"id question\0", "CHRONY_INVALID_RESPONSE means"),
    ],
)
def test_another_abi_is_refused(
    old: bytes, new: bytes, reason: str, tmp_path: Path
) -> None:
    original = Path(LIBRARY).read_bytes()
    assert old in original
    assert len(old) == len(new)
    copy = tmp_path / "libchrony.so.0"
    copy.write_bytes(original.replace(old, new))
    said = refusal(str(copy))
    assert reason in said
    assert f"Tried {copy}: " in said


CUT = """
import sys, pychrony._library as l
for path in sys.argv[1:]:
    try:
        l.open_library(path)
        print("whole")
    except OSError as reason:
        print(reason)
"""


def test_library_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """To open it would end the process with SIGBUS."""
    whole = Path(LIBRARY).read_bytes()
    sizes = [0, 3, 63, 64, *range(100, len(whole), len(whole) // 60), len(whole)]
    copies = [tmp_path / f"{size:07}.so" for size in sizes]
    for size, copy in zip(sizes, copies):
        copy.write_bytes(whole[:size])
    told = python(CUT, *map(str, copies)).stdout.splitlines()
    assert told[:3] == ["not a shared library"] * 3
    assert told[-1] == "whole"
    assert any(one.startswith("cut off: it has ") for one in told)
    first = told.index("whole")
    assert set(told[first:]) == {"whole"}
    cut = f"Tried {copies[9]}: cut off: it has {sizes[9]} bytes, and needs"
    assert cut in refusal(str(copies[9]))


def test_library_for_another_machine_is_refused(tmp_path: Path) -> None:
    """A foreign word size or byte order is read as it says, and dlopen refuses it."""
    for name, offset, value in (("class", 4, 1), ("order", 5, 2), ("machine", 18, 8)):
        foreign = bytearray(Path(LIBRARY).read_bytes())
        foreign[offset] = value
        copy = tmp_path / f"{name}.so"
        copy.write_bytes(foreign)
        assert f"Tried {copy}: " in refusal(str(copy))


def test_another_library_is_refused() -> None:
    import _cffi_backend

    said = refusal(str(_cffi_backend.__file__))
    assert "undefined symbol: chrony_" in said


@pytest.mark.parametrize(
    ("variable", "file", "told"),
    [("", "libchrony.so.0", "{}/libchrony.so.0"), ("clock.so", "clock.so", "clock.so")],
    ids=["by its soname", "as it was asked for"],
)
def test_path_of_the_library_that_was_found(
    variable: str, file: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_bytes(Path(LIBRARY).read_bytes())
    said = python(
        "import pychrony; print(pychrony.library_path())",
        PYCHRONY_LIBCHRONY=variable,
        LD_LIBRARY_PATH=str(tmp_path),
    ).stdout
    assert said == f"{told.format(tmp_path)}\n"
