"""What several test files use."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest

import pychrony
from pychrony import SourceMode, _address
from pychrony._base import timeouts_of
from pychrony._session import Session
from pychrony.testing import Request, ScriptedDaemon, faults, make_source

T = TypeVar("T")
Runner = Callable[[Coroutine[Any, Any, T]], T]
Results = Iterator[tuple[Any, Any]]
Ask = Callable[..., Results]

QUICK: Any = {"timeout": 0.1, "retries": 1}

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop
}
try:
    import uvloop
except ImportError:  # not for every Python
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop
    # The first one opens a pipe for the whole process.
    uvloop.new_event_loop().close()


# As root of a user, mount and network namespace of its own; a shell script follows.
UNSHARE = ("unshare", "--map-root-user", "--mount", "--net", "sh", "-ec")


def _namespaces() -> bool:
    command = [*UNSHARE, "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = 65534
in_namespaces = pytest.mark.skipif(not _namespaces(), reason="no user namespaces here")


@contextmanager
def short_directory() -> Iterator[str]:
    """A directory whose path is short enough for a socket in it; none may be left."""
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as directory:
        yield directory
        assert os.listdir(directory) == []


@contextmanager
def on_alarm(
    handler: Callable[[int, FrameType | None], Any], first: float, every: float = 0.0
) -> Iterator[None]:
    """Run ``handler`` as signal handler, soon and perhaps again and again."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, first, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def unix_daemon() -> Iterator[tuple[str, socket.socket]]:
    """A Unix socket to answer by hand, and its path."""
    with (
        short_directory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon,
    ):
        path = f"{directory}/chronyd.sock"
        daemon.bind(path)
        daemon.setblocking(False)
        try:
            yield path, daemon
        finally:
            os.unlink(path)


def fill_queue(path: str) -> None:
    """Send to a Unix socket until no more datagram fits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                client.sendto(b"", path)


@contextmanager
def hung_daemon() -> Iterator[str]:
    """The path of a Unix socket that nobody reads, and whose queue is full."""
    with unix_daemon() as (path, _):
        fill_queue(path)
        yield path


def answer_all(script: ScriptedDaemon, daemon: socket.socket) -> int:
    """Answer what has arrived as a scripted daemon would; say how many that was."""
    number = 0
    with suppress(BlockingIOError):
        while True:
            request, peer = daemon.recvfrom(1000)
            number += 1
            for reply in script._answer(request):
                assert isinstance(reply, bytes)
                daemon.sendto(reply, peer)
    return number


@contextmanager
def connected(
    **options: Any,
) -> Iterator[tuple[ScriptedDaemon, pychrony.ChronyConnection]]:
    """A scripted daemon and an open connection to it; the options are of both."""
    waits = {
        name: options.pop(name)
        for name in ("timeout", "retries", "limit")
        if name in options
    }
    with (
        ScriptedDaemon(**options) as daemon,
        pychrony.ChronyConnection(daemon.address, **waits) as connection,
    ):
        yield daemon, connection


def run_python(
    *arguments: str,
    stdout: Any = subprocess.PIPE,
    lines: str | None = None,
    cwd: Path | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run an interpreter of its own, given lines; an empty variable is unset."""
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in environment.items() if value},
        cwd=cwd,
        input=lines,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        check=False,
        timeout=60,
    )


def python(
    code: str,
    *arguments: str,
    options: Sequence[str] = (),
    status: int = 0,
    **others: Any,
) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, which must end with this status."""
    result = run_python(*options, "-c", code, *arguments, **others)
    assert result.returncode == status, result.stderr
    return result


def on_full_disk(*command: str) -> tuple[int, str]:
    """The status of a module of the package, and what it says to stderr."""
    with open("/dev/full", "w") as full:
        result = run_python("-m", *command, stdout=full)
    return result.returncode, result.stderr


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def limit_of_descriptors_restored() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def limit_descriptors(number: int) -> None:
    """Let this process open none of this number or above."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


@contextmanager
def descriptors_left(number: int) -> Iterator[list[int]]:
    """Leave so many to this process; what is yielded takes the others."""
    taken: list[int] = []
    with limit_of_descriptors_restored():
        spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(number)]
        # A few more than are open, which tests close again.
        limit_descriptors(max(map(int, os.listdir("/proc/self/fd"))) + 4)
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
            for fd in spare:
                os.close(fd)
            yield taken
        finally:
            for fd in taken:
                os.close(fd)


def seeing(action: Callable[[Request], object]) -> faults.Fault:
    """A fault that harms nothing, and tells of each request."""

    def fault(request: Request, reply: bytes) -> Iterable[bytes]:
        action(request)
        return (reply,)

    return fault


def many_sources(number: int) -> list[pychrony.Source]:
    """So many, each with an address of its own."""
    return [
        make_source(address=f"192.0.{2 + index // 250}.{index % 250 + 1}")
        for index in range(number)
    ]


MANY = "ABCDEFGHIJKLMNOPQRST"


def sources_of(letters: str) -> list[pychrony.Source]:
    """A source for each letter; ``#`` is a reference clock."""
    return [
        make_source(address="GPS", mode=SourceMode.REFCLOCK)
        if letter == "#"
        else make_source(address=f"192.0.2.{ord(letter)}")
        for letter in letters
    ]


def letters_of(sources: list[pychrony.Source]) -> str:
    return "".join(
        "#" if one.address == "GPS" else chr(int(one.address.rpartition(".")[2]))
        for one in sources
    )


def places(daemons: Iterable[ScriptedDaemon]) -> list[str]:
    return [daemon.address for daemon in daemons]


def resident() -> int:
    """Memory of this process in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child; its failure is ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork
        pid = os.fork()
    if pid == 0:
        status = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)  # a child that hangs is a failure, too
        try:
            work()
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert status == 0


traces_every_instruction = pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="its opcode events are incomplete"
)


class Interrupt(BaseException):
    pass


def interrupted_at(number: int, work: Callable[[], object]) -> bool:
    """Run ``work`` up to an instruction; return whether it has so many."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        # From Python 3.11 on no signal handler runs in the middle of that one.
        if event == "opcode" and frame.f_code.co_name != "_deinit":
            count += 1
            if count == number:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@contextmanager
def by_hand(address: str, timeout: float, retries: int) -> Iterator[Session]:
    session = Session(_address.parse(address), timeouts_of(timeout, retries))
    try:
        yield session
    finally:
        session.close()


def in_threads(number: int, work: Callable[[int], None]) -> None:
    """Run ``work`` in threads, all at once, and raise what it raised."""
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


async def steps(number: int) -> None:
    """Let the loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


@asynccontextmanager
async def ticking() -> AsyncIterator[Callable[[], int]]:
    """Count the rounds of the loop meanwhile."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticker = asyncio.create_task(tick())
    yield lambda: ticks
    ticker.cancel()
    await asyncio.wait([ticker])


async def cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def on_each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an ordinary test of a coroutine: the fixture ``run`` runs it."""

    @functools.wraps(test)
    def wrapped(run: Runner[None], **fixtures: Any) -> None:
        run(test(**fixtures))

    signature = inspect.signature(test)
    run = inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [*signature.parameters.values(), run]
    vars(wrapped)["__signature__"] = signature.replace(parameters=parameters)
    return wrapped
