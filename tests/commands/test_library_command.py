"""``python -m pychrony.library``: says which libchrony is used, and installs one."""

from __future__ import annotations

import ensurepip
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cffi
import pytest
from helpers import UNSHARE, in_namespaces, on_full_disk

import pychrony
from pychrony import _library, _wheel, library

LIBRARY = Path(pychrony.library_path()).read_bytes()
DIGEST = hashlib.sha256(LIBRARY).hexdigest()
PACKAGE = Path(pychrony.__file__).parent
# Where an environment without packages finds pychrony and cffi.
PACKAGES = os.pathsep.join(
    dict.fromkeys(str(Path(path).parents[1]) for path in (PACKAGE / "x", cffi.__file__))
)

pytestmark = [
    pytest.mark.skipif(
        DIGEST not in _wheel.DIGESTS.values(), reason="libchrony is a package here"
    ),
    # To make an environment with pip takes a minute where others work, too.
    pytest.mark.timeout(900),
]


class Environment:
    """A virtual environment without libchrony."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.library = directory / "lib" / _library.SONAME
        self.python = str(directory / "bin" / "python")
        command = [sys.executable, "-m", "venv", *options, str(directory)]
        subprocess.run(command, check=True)
        (self.site,) = self.library.parent.glob("python*/site-packages")
        # Where coverage measures, it measures here, too.
        for path in Path(sysconfig.get_path("purelib")).glob("*coverage*.pth"):
            shutil.copy(path, self.site)

    def start(
        self, *arguments: str, first: Sequence[str] = (), **variables: str
    ) -> subprocess.Popen[str]:
        """Start the Python; an empty variable is unset."""
        environment = {
            **os.environ,
            "PYTHONPATH": PACKAGES,
            "PIP_CONFIG_FILE": os.devnull,
            "PYCHRONY_LIBCHRONY": "",
            **variables,
        }
        return subprocess.Popen(
            [*first, self.python, *arguments],
            env={name: value for name, value in environment.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **options) as process:
            output, errors = process.communicate()
        return subprocess.CompletedProcess((), process.returncode, output, errors)

    def command(self, *arguments: str, **variables: str) -> tuple[int, str, list[str]]:
        """The exit status, the output, and the lines of errors."""
        result = self.run("-m", "pychrony.library", *arguments, **variables)
        return result.returncode, result.stdout, result.stderr.splitlines()

    def left(self) -> list[str]:
        """What is in the directory of libraries but Python's own."""
        names = os.listdir(self.library.parent)
        return [name for name in names if not name.startswith("python")]


@pytest.fixture
def bare(tmp_path: Path) -> Environment:
    """One without pip, as uv makes them."""
    return Environment(tmp_path / "environment", "--without-pip")


@pytest.fixture(scope="module")
def with_pip(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One with the pip that Python brings, which takes long to install as usual."""
    directory = tmp_path_factory.mktemp("with-pip") / "environment"
    environment = Environment(directory, "--without-pip")
    places = [Path(ensurepip.__file__).parent / "_bundled"]
    places.append(Path("/usr/share/python-wheels"))  # of distributions
    (wheel,) = [path for place in places for path in place.glob("pip-*.whl")][:1]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(environment.site)
    return environment


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    """A directory with the wheel, as far as it is read here."""
    return make_wheel(tmp_path / "wheelhouse", LIBRARY).parent


def make_wheel(directory: Path, content: bytes, tag: str = "") -> Path:
    directory.mkdir(exist_ok=True)
    name = f"pychrony-2.0.3-cp312-cp312-{tag or _wheel.tag()}.whl"
    info = "pychrony-2.0.3.dist-info"
    with zipfile.ZipFile(directory / name, "w") as wheel:
        wheel.writestr("pychrony.libs/", "")
        wheel.writestr("pychrony.libs/libchrony-0123.so.0.0.1", content)
        metadata = "Metadata-Version: 2.1\nName: pychrony\nVersion: 2.0.3\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr(f"{info}/RECORD", "")
    return directory / name


def alone(packages: Path) -> Path:
    """Make a directory with what pychrony needs: beside it, there may be a pip."""
    packages.mkdir()
    for name in ("cffi", "_cffi_backend", "pycparser", "coverage"):
        for path in Path(cffi.__file__).parents[1].glob(f"{name}*"):
            (packages / path.name).symlink_to(path)
    return packages


def test_without_any_it_says_how_to_get_one(bare: Environment) -> None:
    status, output, (first, last) = bare.command()
    assert (status, output) == (1, "")
    assert first.startswith("no usable libchrony. Tried libchrony.so.0: cannot open")
    assert f"Tried {bare.library}: cannot open shared object file: no such" in first
    assert last == f"To get it: {bare.python} -m pychrony.library install"


def test_install_from_a_wheelhouse_and_uninstall(
    bare: Environment, wheelhouse: Path
) -> None:
    status, output, errors = bare.command("install", str(wheelhouse))
    assert (status, errors) == (0, [])
    assert output == f"installed {bare.library}\n{_wheel.ORIGIN}\n"
    assert bare.library.stat().st_mode & 0o777 == 0o644
    for isolated in ((), ("-I",)):
        if isolated:
            # It finds the packages without a variable.
            packages = PACKAGES.replace(":", "\n")
            bare.site.joinpath("packages.pth").write_text(packages)
        code = "import pychrony; print(pychrony.library_path())"
        assert bare.run(*isolated, "-c", code).stdout == f"{bare.library}\n"
    status, output, errors = bare.command()
    assert (status, errors) == (0, [])
    assert output.splitlines() == [
        f"libchrony: {bare.library}",
        "found:     in this environment",
        f"SHA-256:   {DIGEST}",
        f"verified:  by SHA-256: that of pychrony==2.0.3 for {_wheel.tag()}",
        f"reports:   {' '.join(pychrony.reports())}",
    ]
    again: tuple[int, str, list[str]]
    again = (0, f"libchrony is there already: {bare.library}\n", [])
    assert bare.command("install") == again
    assert bare.command("uninstall") == (0, f"removed {bare.library}\n", [])
    status, output, errors = bare.command("uninstall")
    assert (status, errors) == (0, [])
    assert output == f"nothing to remove: there is no {bare.library}\n"
    assert bare.left() == []


def test_install_from_a_file(bare: Environment, wheelhouse: Path) -> None:
    (wheel,) = wheelhouse.iterdir()
    assert bare.command("install", str(wheel))[0] == 0
    assert bare.command("uninstall")[0] == 0
    own = wheelhouse / "libchrony.so.0"
    own.write_bytes(LIBRARY)
    assert bare.command("install", str(own))[0] == 0


def test_what_is_no_wheel_with_the_library(bare: Environment, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    bad = make_wheel(tmp_path / "bad", LIBRARY[:-1])
    none = tmp_path / "none.whl"
    with zipfile.ZipFile(none, "w") as wheel:
        wheel.writestr("other", "")
    half = tmp_path / "half.whl"
    half.write_bytes(bad.read_bytes()[:5000])
    damaged = tmp_path / "damaged.whl"
    damaged.write_bytes(bad.read_bytes().replace(LIBRARY[4000:4100], bytes(100)))
    for path, said in (
        ("/nowhere", "/nowhere: No such file or directory"),
        (str(empty), f"{empty}: no wheel of pychrony==2.0.3 is in it"),
        (str(bad), f"{bad}: the libchrony in it is not that of pychrony==2.0.3 (SHA"),
        (str(none), f"{none}: the libchrony in it is not that of"),
        (str(half), f"{half}: the libchrony in it is not that of"),
        (str(damaged), f"{damaged}: Bad CRC-32 for file"),
    ):
        status, output, (line,) = bare.command("install", path)
        assert (status, output) == (1, "")
        assert line.startswith(said)
        assert bare.left() == []


def test_library_for_another_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "wheels", LIBRARY)
    mine = _wheel.tag()
    other = next(tag for tag in _wheel.DIGESTS if tag != mine)
    monkeypatch.setattr(_wheel, "_tag", lambda: other)
    with pytest.raises(_wheel.WheelError) as caught:
        _wheel.read(str(wheel))
    assert f"it is for {mine}, this Python needs {other}" in str(caught.value)


def test_broken_library_is_replaced(bare: Environment, wheelhouse: Path) -> None:
    bare.library.write_bytes(LIBRARY[: len(LIBRARY) // 2])
    status, _, errors = bare.command()
    assert status == 1
    assert f"Tried {bare.library}: cut off: it has " in errors[0]
    status, _, (line,) = bare.command("uninstall")
    assert status == 1
    assert line == (
        f"{bare.library} is damaged or was not installed by this command. To remove "
        f"it: rm {bare.library}"
    )
    assert bare.command("install", str(wheelhouse))[0] == 0
    assert bare.library.read_bytes() == LIBRARY
    assert bare.left() == [_library.SONAME]


def test_variable_that_names_another(bare: Environment, wheelhouse: Path) -> None:
    missing = str(wheelhouse / "missing.so")
    variable = {"PYCHRONY_LIBCHRONY": missing}
    status, output, (line,) = bare.command("install", str(wheelhouse), **variable)
    assert (status, output) == (1, "")
    assert line.endswith("correct or unset PYCHRONY_LIBCHRONY, which names it")
    assert bare.left() == []


def test_pip_downloads_it(with_pip: Environment, wheelhouse: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheelhouse)}
    status, output, (said,) = with_pip.command("install", **offline)
    assert status == 0
    assert said == f"downloading pychrony==2.0.3 for {_wheel.tag()} with pip"
    assert output.startswith(f"installed {with_pip.library}\n")
    assert with_pip.command("uninstall")[0] == 0


def test_environment_without_pip_makes_a_temporary_one(
    bare: Environment, wheelhouse: Path, tmp_path: Path
) -> None:
    packages = alone(tmp_path / "packages")
    (packages / "pychrony").symlink_to(PACKAGE)
    status, _, errors = bare.command(
        "install",
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(wheelhouse),
        PYTHONPATH=str(packages),
    )
    assert status == 0, errors
    assert errors[0] == "this environment has no pip: making a temporary one"
    assert bare.library.read_bytes() == LIBRARY
    assert bare.left() == [_library.SONAME]


@pytest.fixture
def refusing_proxy() -> Iterator[str]:
    """One that answers every request with 403."""

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
                )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def told_by_pip(environment: Environment, **variables: str) -> str:
    status, output, (_, line) = environment.command("install", **variables)
    assert (status, output) == (1, "")
    assert line.startswith("pip cannot download pychrony==2.0.3: ")
    assert "Fetch the wheel where that works, with: pip download --no-deps" in line
    assert line.endswith(f"{environment.python} -m pychrony.library install WHEEL")
    assert environment.left() == []
    return line


def test_pip_without_a_network(with_pip: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    index = f"http://127.0.0.1:{closed}/simple"
    line = told_by_pip(with_pip, PIP_INDEX_URL=index)
    assert "no connection to its index (" in line
    assert "Connection refused" in line


def test_proxy_that_refuses(with_pip: Environment, refusing_proxy: str) -> None:
    variables = {"PIP_INDEX_URL": "https://index.invalid/simple"}
    line = told_by_pip(with_pip, PIP_PROXY=refusing_proxy, **variables)
    assert "no connection to its index (" in line
    assert "403 Forbidden" in line


def test_index_without_it(with_pip: Environment, tmp_path: Path) -> None:
    line = told_by_pip(with_pip, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert "No matching distribution found for pychrony==2.0.3" in line


def test_environment_that_cannot_have_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(_wheel.WheelError) as caught:
        _wheel.download(lambda _: None)
    assert "/bin/false has no pip, and cannot make one (on Debian and Ubuntu: apt" in (
        str(caught.value)
    )


def test_download_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wheel, "_DOWNLOAD_LIMIT", 0.2)
    status, output = _wheel._run(["sleep", "60"], "/tmp")
    assert (status, _wheel._cause(output)) == (1, "no answer in 0 s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_download_that_is_ended_leaves_nothing(
    number: int, with_pip: Environment, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        with with_pip.start(
            *("-m", "pychrony.library", "install"),
            PIP_INDEX_URL=index,
            TMPDIR=str(tmp_path),
        ) as process:
            connection, _ = silent.accept()  # by pip
            process.send_signal(number)
            process.communicate()
            connection.close()
    assert process.returncode == 128 + number
    assert os.listdir(tmp_path) == []
    assert with_pip.left() == []


def test_directory_in_the_place_of_the_library(
    bare: Environment, wheelhouse: Path
) -> None:
    bare.library.mkdir()
    status, output, (line,) = bare.command("install", str(wheelhouse))
    assert (status, output) == (1, "")
    assert line.startswith(f"{bare.library}: not installed: ")
    assert bare.left() == [_library.SONAME]


@pytest.mark.parametrize(
    ("machine", "glibc", "bits", "tag"),
    [
        ("armv7l", "glibc 2.36", 2**31 - 1, "manylinux_2_28_armv7l_32bit"),
        ("aarch64", "glibc 2.36", 2**31 - 1, "manylinux_2_28_aarch64_32bit"),
        ("riscv64", "glibc 2.36", 2**63 - 1, "manylinux_2_28_riscv64"),
        ("x86_64", None, 2**63 - 1, "musllinux_1_2_x86_64"),
        ("aarch64", "glibc 2.36", 2**63 - 1, "manylinux_2_28_aarch64"),
    ],
)
def test_wheel_of_each_platform(
    machine: str,
    glibc: str | None,
    bits: int,
    tag: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = os.uname_result(("Linux", "host", "6", "1", machine))

    def confstr(_: str) -> str:
        if glibc is None:  # as with musl
            raise ValueError("unrecognized configuration name")
        return glibc

    monkeypatch.setattr(os, "uname", lambda: names)
    monkeypatch.setattr(os, "confstr", confstr)
    monkeypatch.setattr(sys, "maxsize", bits)
    if tag in _wheel.DIGESTS:
        assert _wheel.tag() == tag
        return
    with pytest.raises(_wheel.WheelError) as caught:
        _wheel.tag()
    assert f"({tag}): build it: git clone https://" in str(caught.value)


def test_python_of_the_system_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_library, "is_usable", lambda: False)
    monkeypatch.delenv("PYCHRONY_LIBCHRONY")
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert library.main(["install"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is the Python of the system" in line
    assert line.endswith("DIR/bin/python -m pychrony.library install")


def test_environment_that_nobody_may_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_library, "is_usable", lambda: False)
    monkeypatch.delenv("PYCHRONY_LIBCHRONY")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert library.main(["install"]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/lib: no such directory\n"
    (tmp_path / "lib").mkdir()
    assert library.main(["install"]) == 1
    command = f"sudo {sys.executable} -m pychrony.library install"
    assert capsys.readouterr().err == f"{tmp_path}/lib: not permitted: {command}\n"


@in_namespaces
def test_read_only_environment(bare: Environment, wheelhouse: Path) -> None:
    root = bare.library.parents[1]
    script = f"mount --bind {root} {root}; mount -o remount,bind,ro {root}; "
    command = ("-m", "pychrony.library", "install", str(wheelhouse))
    result = bare.run(*command, first=(*UNSHARE, f'{script} exec "$0" "$@"'))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{bare.library.parent}: it is on a read-only file system")


def test_zipapp_names_itself(bare: Environment, wheelhouse: Path) -> None:
    """What is inside is found by the command that the message names."""
    archive = wheelhouse / "app.pyz"
    with zipfile.ZipFile(archive, "w") as app:
        for path in PACKAGE.glob("*.py"):
            app.write(path, f"pychrony/{path.name}")
        code = "import pychrony; print(pychrony.reports()[0])"
        app.writestr("__main__.py", code)
    packages = alone(wheelhouse / "packages")
    here = {"PYTHONPATH": str(packages)}
    told = bare.run(str(archive), **here).stderr.splitlines()[-1]
    command = f"PYTHONPATH={archive} {bare.python} -m pychrony.library install"
    assert told == f"To get it: {command}"
    both = f"{archive}{os.pathsep}{packages}"
    assert bare.command("install", str(wheelhouse), PYTHONPATH=both)[0] == 0
    assert bare.run(str(archive), **here).stdout == "tracking\n"


def test_new_file_that_cannot_be_opened_is_not_left(tmp_path: Path) -> None:
    target = tmp_path / "libchrony.so.0"
    target.write_text("old")
    with pytest.raises(OSError, match="not a shared library"):
        _wheel.store(b"new", str(target), _library.open_library)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == [target.name]


def test_which_is_used(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert library.main([]) == 0
    assert "found:     PYCHRONY_LIBCHRONY names it\n" in capsys.readouterr().out
    monkeypatch.delenv("PYCHRONY_LIBCHRONY")
    monkeypatch.setattr(_library, "name", _library.SONAME)
    monkeypatch.setattr(_wheel, "DIGESTS", {})
    assert library.main([]) == 0
    output = capsys.readouterr().out
    assert "found:     by the system\n" in output
    assert "verified:  by its functions and error codes\n" in output
    monkeypatch.setattr(_library, "library_path", lambda: str(tmp_path / "gone"))
    assert library.main([]) == 0
    assert "SHA-256:   unknown (No such file or directory)" in capsys.readouterr().out


def test_output_that_cannot_be_written() -> None:
    said = "output: No space left on device\n"
    assert on_full_disk("pychrony.library") == (1, said)


def test_usage_error_of_library(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        library.main(["remove"])
    assert "invalid choice: 'remove'" in capsys.readouterr().err
