"""What the tests of ``python -m pychrony.watch`` share."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from html import unescape
from typing import Any

import pytest
from textual.pilot import Pilot

from pychrony import AsyncChronyConnection, SourceMode, SourceState
from pychrony.testing import ScriptedDaemon, make_source
from pychrony.watch._follow import follow
from pychrony.watch._screen import Host, LiveView


async def take(
    address: str,
    number: int,
    between: Callable[[int], object] = lambda _: None,
    *,
    timeout: float = 30.0,
) -> list[Any]:
    connection = AsyncChronyConnection(address, timeout=timeout, retries=0)
    found: list[Any] = []
    async with aclosing(follow(connection, 1e-3, number)) as readings:
        async for reading in readings:
            found.append(reading)
            between(len(found))
    assert connection.closed
    return found


def asked(daemon: ScriptedDaemon, name: str) -> int:
    return sum(request[0] == name for request in daemon.requests)


class View:
    """The live view on a screen that is not there."""

    def __init__(self, screen: LiveView, pilot: Pilot[None]) -> None:
        self.screen = screen
        self.press = pilot.press
        self._pilot = pilot
        self.resize = pilot.resize_terminal

    async def click(self, x: int, y: int) -> bool:
        return await self._pilot.click(offset=(x, y))

    def __str__(self) -> str:
        """What is on the screen."""
        picture = self.screen.export_screenshot()
        lines: dict[float, str] = {}
        for x, y, text in re.findall(
            r' x="([\d.]+)" y="([\d.]+)" textLength=[^>]*>(.*?)</text>', picture
        ):
            before = lines.get(float(y), "").ljust(round(float(x) / 12.2))
            lines[float(y)] = before + unescape(text)
        text = "\n".join(line.rstrip() for _, line in sorted(lines.items()))
        return text.replace("\xa0", " ")

    async def until(self, *texts: str, without: str = "\0") -> str:
        """Wait until the screen shows all of these."""
        shown = ""
        for _ in range(3000):
            shown = str(self)
            if all(text in shown for text in texts) and without not in shown:
                return shown
            await asyncio.sleep(0.01)
        pytest.fail(f"no {texts}, or {without!r}, in:\n{shown}")


def watch(
    addresses: str | list[str],
    test: Callable[[View], Coroutine[Any, Any, None]],
    size: tuple[int, int] = (110, 30),
    count: int | None = None,
    timeout: float = 0.5,
    interval: float = 0.05,
) -> int | None:
    """Run the test on a live view; return the exit status of that."""

    async def run() -> int | None:
        named = [addresses] if isinstance(addresses, str) else addresses
        connections = [
            AsyncChronyConnection(one, timeout=timeout, retries=0) for one in named
        ]
        screen = LiveView(list(map(Host, named, connections)), interval, count)
        async with screen.run_test(size=size) as pilot:
            await test(View(screen, pilot))
        assert all(connection.closed for connection in connections)
        return screen.return_code

    return asyncio.run(run())


SOURCES = [
    make_source(address="192.0.2.1"),
    make_source(address="192.0.2.2", state=SourceState.FALSETICKER),
    make_source(address="GPS", mode=SourceMode.REFCLOCK, state=SourceState.UNSELECTED),
]


class Terminal:
    """The command in a terminal of its own."""

    def __init__(
        self,
        *arguments: str,
        code: str = "",
        controlling: bool = False,
        **variables: Any,
    ) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(100, 30)
        self.before = termios.tcgetattr(self.slave)
        self.output = ""
        command = ["-c", code] if code else ["-m", "pychrony.watch"]
        control = ["setsid", "--ctty"] if controlling else []
        self.process = subprocess.Popen(
            [*control, sys.executable, *command, *arguments],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={
                **os.environ,
                "TERM": "xterm-256color",
                "LC_ALL": "C.UTF-8",
                **variables,
            },
            # Then setsid need not fork.
            start_new_session=not controlling,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """Close it: here are the only descriptors of it beside the command's."""
        for fd in {self.slave, self.master} - {-1}:
            os.close(fd)
        self.slave = self.master = -1

    def stall(self) -> None:
        """Read nothing until the terminal takes nothing more."""
        with open(f"/proc/{self.process.pid}/fd/2", "w") as terminal:
            poller = select.poll()
            poller.register(terminal, select.POLLOUT)
            while poller.poll(0):
                time.sleep(0.01)

    def resize(self, width: int, height: int) -> None:
        size = struct.pack("HHHH", height, width, 0, 0)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, size)

    def read(self) -> bool:
        """Read what there is; return whether there was something."""
        if not select.select([self.master], [], [], 0.05)[0]:
            return False
        self.output += os.read(self.master, 65536).decode(errors="replace")
        return True

    def until(self, text: str) -> None:
        while text not in self.output:
            assert self.read() or self.process.poll() is None, self.output

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def end(self) -> int:
        """Wait for the end, and return the status. All is as it was before."""
        while self.process.poll() is None or self.read():
            self.read()
        assert "Traceback" not in self.output
        assert termios.tcgetattr(self.slave) == self.before
        on, off = (self.output.count(f"\x1b[?1049{which}") for which in "hl")
        assert on == off
        return self.process.returncode


LINE = (
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ offset \+123us, error bound 3085us, stratum 2, "
    r"source 192\.168\.1\.100, 4 of 4 sources usable"
)


@contextmanager
def start(*arguments: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "pychrony.watch", *arguments],
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            # A buffered output fails in other places than an unbuffered one.
            "env": {**os.environ, "PYTHONUNBUFFERED": ""},
            "text": True,
            **streams,
        },
    ) as process:
        try:
            yield process
        finally:  # if the test has failed, it may not end by itself
            process.kill()


def run(*arguments: str, **streams: Any) -> tuple[int, str, str]:
    with start(*arguments, **streams) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, output or "", errors
