"""Where pychrony runs: at the exit, in other interpreters, greenlets, and zip files."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import _cffi_backend
import pytest
from helpers import many_sources, python, short_directory

import pychrony
from pychrony import AsyncChronyConnection, ChronyUsageError, async_query_many
from pychrony.testing import ScriptedDaemon, faults


def run(code: str, *arguments: str, **options: Any) -> str:
    """What code prints in an interpreter of its own, which must not fail."""
    return python(code, *arguments, **options).stdout


@pytest.fixture
def both() -> Iterator[tuple[str, str]]:
    """Addresses of two daemons, over UDP and a Unix socket, of twenty sources."""
    # Late enough to be read with many requests in flight elsewhere.
    late = faults.only("N_SOURCES", faults.delayed(0.02))
    sources = many_sources(20)
    with (
        short_directory() as directory,
        ScriptedDaemon(address="127.0.0.1:0", sources=sources, misbehave=late) as udp,
        ScriptedDaemon(address=f"{directory}/chronyd.sock", sources=sources) as unix,
    ):
        yield udp.address, unix.address


# --- imports -----------------------------------------------------------------

NOTHING_NEW = """
import sys, pychrony
pychrony.get_tracking
before = set(sys.modules)
udp, unix = sys.argv[1:]
for address in (udp, unix, udp.replace("127.0.0.1", "localhost")):
    with pychrony.ChronyConnection(address) as connection:
        connection.get_tracking(), connection.get_sources()
        connection.get_report("activity")
    list(pychrony.query_many([address]))
try:
    pychrony.get_tracking("/nowhere.sock")
except pychrony.ChronyError:
    pass
print(*set(sys.modules) - before)
"""


def test_no_call_imports_anything(both: tuple[str, str]) -> None:
    """Before CPython 3.13 an import of a daemon thread can crash the exit."""
    assert run(NOTHING_NEW, *both).split() == []


SLOW_IMPORTS = """
import sys, threading, time

class Slow:  # every import lets the other threads run
    def find_spec(self, name, path=None, target=None):
        if name.startswith("pychrony."):
            threads.append(threading.get_ident())
            time.sleep(0.01)

import pychrony
threads = []
sys.meta_path.insert(0, Slow())
"""

IMPORT_IN_THREADS = (
    SLOW_IMPORTS
    + """
start = threading.Barrier(6)

def use():
    start.wait()
    pychrony.get_tracking

users = [threading.Thread(target=use) for _ in range(6)]
for user in users: user.start()
for user in users: user.join()
print(len(set(threads)))
"""
)


def test_one_thread_imports_for_all() -> None:
    assert run(IMPORT_IN_THREADS) == "1\n"


IMPORT_AND_FORK = (
    SLOW_IMPORTS
    + """
import os, signal
threading.Thread(target=lambda: pychrony.get_tracking).start()
while not threads:
    time.sleep(0.001)
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    pychrony.get_tracking
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
)


def test_fork_while_another_thread_imports() -> None:
    assert run(IMPORT_AND_FORK, options=("-W", "ignore")) == "0\n"


COSTLY = """asyncio ctypes cffi pycparser importlib.metadata socket typing platform
sysconfig dataclasses enum pychrony.bounded"""


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import pychrony", COSTLY),
        ("import pychrony; pychrony.get_tracking", "asyncio prometheus_client textual"),
        ("import pychrony; pychrony.BoundedClock", "asyncio"),
        ("import pychrony.testing", "pytest"),
        ("import pychrony.check.__main__", "argparse asyncio dataclasses"),
        ("import pychrony.prometheus", "argparse asyncio dataclasses"),
    ],
)
def test_what_is_not_used_is_not_imported(code: str, unwanted: str) -> None:
    code = f"import sys; before = {{*sys.modules}}; {code}\n"
    loaded = run(f"{code}print(*{{*sys.modules}} - before)").split()
    assert "pychrony" in loaded
    assert not {*loaded}.intersection(unwanted.split())


# --- other interpreters of the process ---------------------------------------

SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
if sys.version_info >= (3, 13):
    other = interpreters.create("legacy")
    run = interpreters.exec
else:
    other = interpreters.create(isolated=False)
    run = interpreters.run_string
failed = run(other, '''
import sys
sys.path[:] = %r
import pychrony
for use in (pychrony.get_tracking, pychrony.reports, pychrony.library_path):
    try:
        use()
    except pychrony.ChronyLibraryError as error:
        print(error, flush=True)
''' % (sys.path,))
assert not failed, failed
import os, pychrony
print(pychrony.reports()[0], flush=True)
os._exit(0)  # cffi alone crashes the exit of CPython 3.12 after this
"""


@pytest.mark.skipif(
    sys.implementation.name != "cpython"
    or not (find_spec("_interpreters") or find_spec("_xxsubinterpreters")),
    reason="no other interpreters",
)
def test_only_the_main_interpreter_reads() -> None:
    """The others have the same buffer of libchrony, but a lock of their own."""
    *refusals, report = run(SUBINTERPRETER).splitlines()
    assert len(refusals) == 3
    for refusal in refusals:
        assert "main interpreter of a process only" in refusal
        assert "WSGIApplicationGroup %{GLOBAL}" in refusal
    assert report == "tracking"


# --- greenlets ---------------------------------------------------------------

PATCHES = {
    "gevent": "from gevent import monkey, sleep, spawn; monkey.patch_all()",
    "eventlet": "from eventlet import monkey_patch, sleep, spawn; monkey_patch()",
}

IN_GREENLETS = """
import sys
import pychrony

udp, unix, silent = sys.argv[1:]
ticks = 0

def tick():
    global ticks
    while True:
        sleep(0.005)
        ticks += 1

spawn(tick)
for address in (udp, unix, udp.replace("127.0.0.1", "localhost")):
    with pychrony.ChronyConnection(address, timeout=20) as connection:
        print(connection.get_tracking().stratum, len(connection.get_sources()))
ticks = 0
try:
    pychrony.get_tracking(silent, timeout=0.2, retries=0)
except pychrony.ChronyTimeoutError:
    print("others ran:", ticks > 0)
try:
    print(list(pychrony.query_many([udp, udp])))
except pychrony.ChronyError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("patch", PATCHES)
def test_process_patched_by(patch: str, both: tuple[str, str]) -> None:
    if not find_spec(patch):
        pytest.skip(f"{patch} is not installed")
    with ScriptedDaemon(misbehave=faults.silent) as silent:
        code = f"{PATCHES[patch]}\n{IN_GREENLETS}"
        said = run(code, *both, silent.address, options=("-W", "ignore")).splitlines()
    assert said[:4] == ["2 20", "2 20", "2 20", "others ran: True"]
    assert said[4].startswith("ChronyConnectionError cannot wait for several answers")
    assert f"{patch} removed epoll. Read each in a greenlet of its own" in said[4]


# --- systems that lack something ---------------------------------------------

WITHOUT = """
import select, sys
for name in ("epoll", "EPOLLIN", "EPOLLONESHOT", *sys.argv[3:]):
    delattr(select, name)
import pychrony
udp, unix = sys.argv[1:3]
for address in (udp, unix):
    with pychrony.ChronyConnection(address, timeout=20) as connection:
        print(connection.get_tracking().stratum, len(connection.get_sources()))
try:
    pychrony.get_tracking("127.0.0.1:9", timeout=0.01)
    print(list(pychrony.query_many([udp, udp])))
except pychrony.ChronyConnectionError as error:
    pass
try:
    print(list(pychrony.query_many([udp, udp])))
except pychrony.ChronyConnectionError as error:
    print(error)
"""


@pytest.mark.parametrize("also", [[], ["poll"]])
def test_without_epoll(also: list[str], both: tuple[str, str]) -> None:
    *read, error = run(WITHOUT, *both, *also).splitlines()
    assert read == ["2 20"] * 2
    assert "this system has no epoll. Read one after the other" in error


def test_without_metadata_in_a_zip_file(tmp_path: Path) -> None:
    package = Path(pychrony.__file__).parent
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.rglob("*.py"):
            file.write(path, f"pychrony/{path.relative_to(package)}")
    backend = Path(_cffi_backend.__file__)
    (tmp_path / backend.name).symlink_to(backend)
    with ScriptedDaemon() as daemon:
        code = (
            "import sys; from pychrony import __version__, check\n"
            "print(__version__)\n"
            "check.main(['--self', sys.argv[1]])\n"
            "check.main(['-V'])\n"
        )
        said = run(
            code,
            daemon.address,
            options=("-S",),
            cwd=tmp_path,
            PYTHONPATH=f"{archive}{os.pathsep}{tmp_path}",
        )
    assert said.startswith("0+unknown\n")
    assert f"cffi                {_cffi_backend.__version__}" in said
    assert "sources" in said
    assert said.splitlines()[-1].startswith("pychrony 0+unknown, libchrony ")


def test_version_without_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pychrony, "__name__", "pychrony_of_no_distribution")
    assert pychrony.__version__ == "0+unknown"


def test_without_an_event_loop_of_asyncio() -> None:
    """As in trio, where the first step of a coroutine finds none."""
    connection = AsyncChronyConnection("127.0.0.1:9")
    call = connection.get_tracking()
    with pytest.raises(ChronyUsageError, match=r"asyncio.*trio\.to_thread"):
        call.send(None)
    results = async_query_many(["127.0.0.1:9"])
    step = results.__anext__()
    with pytest.raises(ChronyUsageError, match=r"asyncio.*trio\.to_thread"):
        step.send(None)
