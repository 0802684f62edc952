"""``python -m pychrony.watch``: what it shows, its keys, and every way that it ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing, contextmanager, redirect_stdout
from html import unescape
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chronyd import Chronyd
from provision import Parts
from textual.pilot import Pilot

from pychrony import (
    AsyncChronyConnection,
    ChronyConnectionError,
    LeapStatus,
    SelectState,
    SourceMode,
    SourceState,
)
from pychrony.testing import (
    ALL_COMMANDS,
    ScriptedDaemon,
    faults,
    make_select_data,
    make_source,
    make_tracking,
)
from pychrony.watch import main
from pychrony.watch._follow import Reading, _states, follow
from pychrony.watch._graph import Point, draw, scale, shown
from pychrony.watch._screen import _REASONS, LiveView
from pychrony.watch._terminal import Output

UNSYNCHRONISED: Any = {
    "reference_id": 0,
    "reference_ip": "",
    "stratum": 0,
    "leap_status": LeapStatus.UNSYNC,
}
LOCAL: Any = {"reference_id": 0x7F7F0101, "reference_ip": "", "stratum": 10}

# --- the graph --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offsets", "limit"),
    [
        ([], 1e-9),
        ([0.0], 1e-9),
        ([3e-6], 5e-6),
        ([-3e-6], 5e-6),
        ([1e-3], 1e-3),
        ([1.01e-3], 2e-3),
        ([0.7], 1.0),
        ([123.0], 200.0),
        # An outlier leaves the picture, but not while it is the newest.
        ([9.0, *[3e-6] * 9], 5e-6),
        ([*[3e-6] * 9, 9.0], 10.0),
    ],
)
def test_scale(offsets: list[float], limit: float) -> None:
    points = [Point(0.0, offset) for offset in offsets]
    assert scale([*points, Point(0.0)], bounded=True) == pytest.approx(limit)


def test_scale_fits_the_bound_or_the_offset() -> None:
    points = [Point(0.0, 3e-6, 3e-3)]
    assert scale(points, bounded=True) == pytest.approx(5e-3)
    assert scale(points, bounded=False) == pytest.approx(5e-6)


def drawn(points: Iterable[Point], width: int, height: int, limit: float) -> list[str]:
    lines = draw(list(points), width, height, limit)
    return ["".join(run.text for run in line) for line in lines]


def test_offset_is_a_line() -> None:
    points = [Point(0.0, value) for value in (1, 0.5, 0, -0.5, -1, -1)]
    assert drawn(points, 3, 3, 1.0) == ["⢹⡀ ", "┈⢧┈", " ⠈⣇"]


def test_one_point_is_at_the_right() -> None:
    assert drawn([Point(0.0, 1.0)], 3, 3, 1.0) == ["  ⠈", "┈┈┈", "   "]


def test_bound_is_a_band() -> None:
    lines = draw([Point(0.0, 0.0, 0.7)] * 2, 2, 5, 1.0)
    assert [[(run.ink, run.inside) for run in line] for line in lines] == [
        [("", False), ("bound", False)],
        [("", False), ("", True)],
        [("zero", False), ("offset", True)],
        [("", False), ("", True)],
        [("", False), ("bound", False)],
    ]


def test_bound_outside_of_the_picture() -> None:
    lines = draw([Point(0.0, 0.0, 50.0), Point(0.0, 0.0, 90.0)], 1, 3, 1.0)
    assert [[(run.ink, run.inside) for run in line] for line in lines] == [
        [("", True)],
        [("offset", True)],
        [("", True)],
    ]


def test_gap_is_not_bridged() -> None:
    gap = [Point(0.0, 1.0, 1.0), Point(0.0), Point(0.0), Point(0.0, -1.0, 1.0)]
    assert drawn(gap, 2, 3, 1.0) == ["⠁⠈", "┈┈", "⡀⢀"]


def test_only_what_there_is_room_for() -> None:
    points = [Point(float(number)) for number in range(5)]
    assert [point.time for point in shown(points, 2)] == [1, 2, 3, 4]
    assert shown(points, 9) == points


# --- the readings -----------------------------------------------------------------


async def take(
    address: str, number: int, between: Callable[[int], object] = lambda _: None
) -> list[Any]:
    connection = AsyncChronyConnection(address, timeout=0.05, retries=0)
    found: list[Any] = []
    async with aclosing(follow(connection, 1e-3, number)) as readings:
        async for reading in readings:
            found.append(reading)
            between(len(found))
    assert connection.closed
    return found


def asked(daemon: ScriptedDaemon, name: str) -> int:
    return sum(request[0] == name for request in daemon.requests)


def test_reasons_where_permitted() -> None:
    select = [make_select_data(state=SelectState.FALSETICKER)]
    with ScriptedDaemon(select_data=select, open_commands=ALL_COMMANDS) as daemon:
        first, second = asyncio.run(take(daemon.address, 2))
    assert isinstance(first, Reading)
    assert first.selection == second.selection == [SelectState.FALSETICKER]
    assert asked(daemon, "SELECT_DATA") == 2


def test_reasons_are_not_asked_for_again_where_they_are_denied() -> None:
    with ScriptedDaemon() as daemon:
        found = asyncio.run(take(daemon.address, 3))
    assert [reading.selection for reading in found] == [None, None, None]
    assert asked(daemon, "SELECT_DATA") == 1
    assert asked(daemon, "TRACKING") == 3


def test_chronyd_comes_back_and_permits_more() -> None:
    def change(number: int) -> None:
        if number == 1:
            daemon.misbehave = faults.silent
        else:
            daemon.misbehave = None
            daemon.open_commands = ALL_COMMANDS

    with ScriptedDaemon() as daemon:
        first, lost, last = asyncio.run(take(daemon.address, 3, change))
    assert first.selection is None
    assert isinstance(lost, ChronyConnectionError)
    assert len(last.selection) == 1


@pytest.mark.parametrize(
    ("sources", "selected", "match"),
    [
        (["192.0.2.1"], ["192.0.2.1"], True),
        (["192.0.2.1"], ["192.0.2.2"], False),
        (["192.0.2.1", "192.0.2.2"], ["192.0.2.1"], False),
        (["192.0.2.1", "GPS"], ["192.0.2.1", ""], True),
    ],
)
def test_reasons_of_other_sources_are_not_shown(
    sources: list[str], selected: list[str], match: bool
) -> None:
    states = _states(
        [make_source(address=address) for address in sources],
        [make_select_data(address=address) for address in selected],
    )
    assert states == ([SelectState.BEST] * len(selected) if match else [])


# --- the screen -------------------------------------------------------------------


class View:
    """The live view on a screen that is not there."""

    def __init__(self, screen: LiveView, pilot: Pilot[None]) -> None:
        self.screen = screen
        self.press = pilot.press
        self.resize = pilot.resize_terminal

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
        for _ in range(400):
            shown = str(self)
            if all(text in shown for text in texts) and without not in shown:
                return shown
            await asyncio.sleep(0.01)
        pytest.fail(f"no {texts}, or {without!r}, in:\n{shown}")


def watch(
    address: str,
    test: Callable[[View], Coroutine[Any, Any, None]],
    size: tuple[int, int] = (110, 30),
    count: int | None = None,
    timeout: float = 0.05,
) -> int | None:
    """Run the test on a live view; return the exit status of that."""

    async def run() -> int | None:
        connection = AsyncChronyConnection(address, timeout=timeout, retries=0)
        screen = LiveView(connection, follow(connection, 0.05, count))
        async with screen.run_test(size=size) as pilot:
            await test(View(screen, pilot))
        assert connection.closed
        return screen.return_code

    return asyncio.run(run())


SOURCES = [
    make_source(address="192.0.2.1"),
    make_source(address="192.0.2.2", state=SourceState.FALSETICKER),
    make_source(address="GPS", mode=SourceMode.REFCLOCK, state=SourceState.UNSELECTED),
]


def test_what_it_shows() -> None:
    tracking = make_tracking(
        offset=-0.000012,
        root_delay=0.001,
        root_dispersion=0.000524,
        reference_ip="192.0.2.1",
        stratum=3,
        frequency=-1.5,
        skew=0.0625,
    )

    async def test(view: View) -> None:
        shown = await view.until(f"{daemon.address} (UDP)", "s ago", "now")
        assert "offset -12us   error bound 1036us   stratum 3" in shown
        assert "source 192.0.2.1   leap Normal\n" in shown
        assert "frequency -1.500 ppm   skew 0.062 ppm   read at " in shown
        assert re.search(r"^ +\+2000us$", shown, flags=re.M)
        assert re.search(r"^ +0 [^ ]", shown, flags=re.M)
        assert re.search(r"^ +-2000us$", shown, flags=re.M)
        assert re.search(r"\^\* +192\.0\.2\.1 .* \+/- .* selected", shown)
        assert re.search(r"\^x +192\.0\.2\.2 .* disagrees with the majority", shown)
        assert re.search(r"#\+ +GPS .* combined", shown)

    with ScriptedDaemon(
        tracking=tracking, sources=SOURCES, open_commands=ALL_COMMANDS
    ) as daemon:
        watch(daemon.address, test)


def test_unix_socket(parts: Parts) -> None:
    async def test(view: View) -> None:
        await view.until(f"{daemon.socket} (Unix socket)", "not synchronised")
        await view.until("no error bound", "^?", "too few measurements")

    with Chronyd(parts, "server 127.0.0.1 port 9 offline") as daemon:
        watch(daemon.socket, test)


def test_no_right_to_the_reasons() -> None:
    async def test(view: View) -> None:
        shown = await view.until("No reasons of the selection")
        assert "Selection" not in shown
        assert "^*" in shown

    with ScriptedDaemon() as daemon:
        watch(daemon.address, test)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (UNSYNCHRONISED, "not synchronised   leap Not synchronised"),
        (LOCAL, "local mode   leap Normal"),
    ],
)
def test_clock_without_a_source(changes: Any, text: str) -> None:
    async def test(view: View) -> None:
        await view.until("no error bound", text)

    with ScriptedDaemon(tracking=make_tracking(**changes)) as daemon:
        watch(daemon.address, test, size=(160, 30))


def test_narrow_screen() -> None:
    async def test(view: View) -> None:
        await view.until(" Selection")
        await view.resize(90, 24)
        shown = await view.until("disagrees", without=" Selection")
        assert re.search(r"   stratum 2\n source 127\.0\.0\.1   leap Normal   ", shown)
        # The reasons that the glyphs do not give are below.
        assert "combined" not in shown
        assert re.search(r"\^x .*\+/-.*\n +disagrees with the majority\n", shown)
        for size in ((40, 10), (9, 4), (1, 1)):
            await view.resize(*size)
            await view.press("l")
        await view.resize(120, 30)
        await view.until(" Selection")

    with ScriptedDaemon(sources=SOURCES, open_commands=ALL_COMMANDS) as daemon:
        watch(daemon.address, test)


def test_long_address_is_not_cut() -> None:
    address = "2001:db8:1111:2222:3333:4444:5555:6666"

    async def test(view: View) -> None:
        await view.until(address)
        await view.resize(80, 24)
        parts = address[:16], address[16:32], address[32:]
        await view.until(*parts, without=address)

    with ScriptedDaemon(sources=[make_source(address=address)]) as daemon:
        watch(daemon.address, test)


def test_keys() -> None:
    async def test(view: View) -> None:
        await view.until("2000us", "error bound 1024us")
        await view.press("z")
        await view.until("+20us")
        await view.press("z")
        await view.until("+2000us")
        await view.press("l")
        await view.until("# reference clock", "power of 2 [s]", "xxxx[yyyy]")
        await view.press("l")
        await view.until(without="# reference clock")
        dark = view.screen.current_theme.dark
        await view.press("t")
        assert view.screen.current_theme.dark != dark
        await view.press("t")
        assert view.screen.current_theme.dark == dark
        await view.press("q")

    tracking = make_tracking(offset=12e-6, root_delay=2e-3, root_dispersion=12e-6)
    with ScriptedDaemon(tracking=tracking) as daemon:
        assert watch(daemon.address, test) == 0


def test_pause_stops_the_picture_and_not_the_readings() -> None:
    async def test(view: View) -> None:
        await view.until("stratum 3")
        await view.press("p")
        before = await view.until("PAUSED")
        daemon.tracking = make_tracking(stratum=4)
        daemon.requests.clear()
        while asked(daemon, "TRACKING") < 5:
            await asyncio.sleep(0.01)
        assert str(view) == before
        await view.press("p")
        await view.until("stratum 4", without="PAUSED")

    with ScriptedDaemon(tracking=make_tracking(stratum=3)) as daemon:
        watch(daemon.address, test)


def test_pause_before_the_first_reading() -> None:
    async def test(view: View) -> None:
        await view.until("asking chronyd")
        await view.press("p")
        await view.until("PAUSED", "asking chronyd")
        await view.press("p")
        await view.until("asking chronyd", without="PAUSED")

    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        watch(daemon.address, test, timeout=60.0)


def test_chronyd_goes_and_comes_back() -> None:
    async def test(view: View) -> None:
        await view.until("LOST: ", "Connection refused. Is chronyd running")
        daemon.start()
        await view.until("stratum 2", "^*", without="LOST")
        daemon.stop()
        # What was read last stays, and is marked.
        await view.until("LOST: ", "stratum 2", "^*")
        assert view.screen.query_one("#sources").has_class("old")
        daemon.start()
        await view.until(without="LOST")
        assert not view.screen.query_one("#sources").has_class("old")
        points = [point.offset is None for point in view.screen._points]
        changes = [one for one, other in pairwise(points) if one != other]
        assert changes == [True, False, True]

    with ScriptedDaemon() as daemon:
        daemon.stop()
        watch(daemon.address, test)


def test_keys_work_while_chronyd_is_silent() -> None:
    async def run() -> int | None:
        connection = AsyncChronyConnection(daemon.address, timeout=1000)
        screen = LiveView(connection, follow(connection, 1.0))
        async with screen.run_test() as pilot:
            view = View(screen, pilot)
            await view.until("asking chronyd")
            while not daemon.requests:
                await asyncio.sleep(0.01)
            await view.press("l")
            await view.until("# reference clock")
            await view.press("q")
        assert connection.closed
        return screen.return_code

    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        assert asyncio.run(run()) == 0


@pytest.mark.parametrize("status", [0, 1])
def test_end_of_the_readings(status: int) -> None:
    async def test(view: View) -> None:
        while view.screen.return_code is None:
            await asyncio.sleep(0.01)

    with ScriptedDaemon(misbehave=faults.silent if status else None) as daemon:
        assert watch(daemon.address, test, count=2) == status


def test_every_state_has_a_reason_that_fits() -> None:
    assert set(_REASONS) == set(SelectState)
    assert max(map(len, _REASONS.values())) <= 27


# --- the command in a terminal ----------------------------------------------------


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


def by_key(key: str) -> Callable[[Terminal], None]:
    return lambda terminal: terminal.press(key)


def by_signal(number: int) -> Callable[[Terminal], None]:
    return lambda terminal: terminal.process.send_signal(number)


@pytest.mark.parametrize(
    ("leave", "status"),
    [
        pytest.param(by_key("q"), 0, id="q"),
        pytest.param(by_key("\x1b[27u"), 0, id="escape"),
        pytest.param(by_key("\x11"), 0, id="ctrl-q"),
        pytest.param(by_key("\x03"), 130, id="ctrl-c"),
        pytest.param(by_signal(signal.SIGINT), 130, id="SIGINT"),
        pytest.param(by_signal(signal.SIGTERM), 143, id="SIGTERM"),
        pytest.param(by_signal(signal.SIGHUP), 129, id="SIGHUP"),
    ],
)
def test_ends_in_a_terminal(leave: Callable[[Terminal], None], status: int) -> None:
    with ScriptedDaemon() as daemon, Terminal(daemon.address) as terminal:
        terminal.until("error bound")
        leave(terminal)
        assert terminal.end() == status
        assert "\x1b[?1049h" in terminal.output


def test_resize_in_a_terminal() -> None:
    with ScriptedDaemon() as daemon, Terminal(daemon.address) as terminal:
        terminal.until("error bound")
        terminal.output = ""
        terminal.resize(90, 20)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.until("error bound")
        terminal.press("q")
        while terminal.process.poll() is None:
            terminal.read()
    assert terminal.process.returncode == 0


def test_terminal_is_closed() -> None:
    """No signal tells of it where the terminal does not control the session."""
    with ScriptedDaemon() as daemon, Terminal(daemon.address) as terminal:
        terminal.until("error bound")
        terminal.hang_up()
        assert terminal.process.wait() == 128 + signal.SIGHUP


def test_controlling_terminal_is_closed() -> None:
    """As where an ssh session ends: the kernel sends SIGHUP, too."""
    with ScriptedDaemon() as daemon:
        with Terminal(daemon.address, controlling=True) as terminal:
            terminal.until("error bound")
            terminal.hang_up()
            assert terminal.process.wait() == 128 + signal.SIGHUP


def hang_up(terminal: Terminal) -> None:
    terminal.hang_up()


@pytest.mark.parametrize(
    ("leave", "status"),
    [
        pytest.param(by_signal(signal.SIGTERM), 143, id="SIGTERM"),
        pytest.param(by_signal(signal.SIGHUP), 129, id="SIGHUP"),
        pytest.param(hang_up, 129, id="closed"),
    ],
)
def test_terminal_takes_nothing_more(
    leave: Callable[[Terminal], None], status: int
) -> None:
    with ScriptedDaemon() as daemon, Terminal(daemon.address, "-i.01") as terminal:
        terminal.until("error bound")
        terminal.stall()
        leave(terminal)
        assert terminal.process.wait() == status


def test_client_socket_is_removed_when_the_terminal_takes_nothing(parts: Parts) -> None:
    with Chronyd(parts) as daemon, Terminal(daemon.socket, "-i.01") as terminal:
        before = set(os.listdir(daemon.directory))
        terminal.until("error bound")
        terminal.stall()
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait() == 143
        assert set(os.listdir(daemon.directory)) <= before


OVERDUE = """
import sys
from pychrony.watch import _terminal, main
_terminal._STALLED = 1e9
_terminal._OVERDUE = 0.01
sys.exit(main(sys.argv[1:]))
"""


def test_end_that_is_overdue_restores_the_terminal() -> None:
    with ScriptedDaemon() as daemon:
        with Terminal(daemon.address, "-i.01", code=OVERDUE) as terminal:
            terminal.until("error bound")
            terminal.stall()
            terminal.process.send_signal(signal.SIGTERM)
            assert terminal.process.wait() == 143
            assert termios.tcgetattr(terminal.slave) == terminal.before


AFTERWARDS = """
import os, signal, sys, time
from pychrony.watch import main
main(sys.argv[1:])
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_signal_after_the_view() -> None:
    with ScriptedDaemon() as daemon:
        with Terminal(daemon.address, "-n1", code=AFTERWARDS) as terminal:
            while terminal.process.poll() is None:
                terminal.read()
            assert terminal.process.returncode == 143


def test_output_leaves_out_what_is_not_taken() -> None:
    # A socket cannot be opened again, as a terminal of another user cannot.
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        output = Output(writer.fileno())
        assert output.fileno() == writer.fileno()
        output.write("\N{WHITE SQUARE}")
        output.flush()
        assert reader.recv(9).decode() == "\N{WHITE SQUARE}"
        output.give_up(0.1)
        output.write("x" * 10_000_000)
        assert reader.recv(9) == b"x" * 9
        output.write("left out")
        reader.close()
        output.write("nobody reads it")


@pytest.mark.parametrize(
    "variables",
    [
        {"TERM": "dumb"},
        {"TERM": "linux"},
        {"TERM": ""},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_terminal_that_cannot_show_it(variables: dict[str, str]) -> None:
    with ScriptedDaemon() as daemon:
        with Terminal(daemon.address, "-n", "1", **variables) as terminal:
            assert terminal.end() == 0
    assert re.fullmatch(LINE + "\r\n", terminal.output)


def test_locale_c_of_a_terminal_with_utf8() -> None:
    with ScriptedDaemon() as daemon:
        with Terminal(daemon.address, LC_ALL="C") as terminal:
            terminal.until("error bound")
            terminal.press("q")
            assert terminal.end() == 0


def test_without_textual() -> None:
    code = """
import sys
sys.modules["textual"] = None
from pychrony.watch import main
sys.exit(main(sys.argv[1:]))
"""
    with ScriptedDaemon() as daemon:
        with Terminal(daemon.address, code=code) as terminal:
            assert terminal.end() == 1
        (line,) = terminal.output.splitlines()
        assert "pip install 'pychrony[watch]'" in line
        with Terminal(daemon.address, "--plain", "-n", "1", code=code) as terminal:
            assert terminal.end() == 0
        assert re.fullmatch(LINE + "\r\n", terminal.output)


# --- lines ------------------------------------------------------------------------

LINE = (
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ offset \+123us, error bound 3085us, stratum 2, "
    r"source 127\.0\.0\.1, 1 of 1 sources usable"
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


def test_lines() -> None:
    with ScriptedDaemon() as daemon:
        status, output, errors = run(daemon.address, "-n", "3", "-i", "0.01")
    assert (status, errors) == (0, "")
    assert re.fullmatch(f"({LINE}\n){{3}}", output)


def test_lines_of_a_clock_without_a_source() -> None:
    with ScriptedDaemon(tracking=make_tracking(**UNSYNCHRONISED)) as daemon:
        _, output, _ = run(daemon.address, "--count=1")
    assert ", no error bound, stratum 0, not synchronised, 1 of 1" in output


def test_lines_while_chronyd_comes_back() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        with start(daemon.address, "-i", "0.01") as process:
            assert process.stdout is not None
            assert " lost: " in process.stdout.readline()
            daemon.start()
            while " lost: " in (line := process.stdout.readline()):
                pass
            assert re.fullmatch(LINE + "\n", line)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "")


def test_last_reading_failed() -> None:
    with ScriptedDaemon() as daemon:
        daemon.stop()
        status, output, errors = run(daemon.address, "-n", "2", "-i", "0.01")
    assert (status, errors) == (1, "")
    assert output.count(" lost: ") == 2


def test_line_is_there_at_once() -> None:
    with ScriptedDaemon() as daemon, start(daemon.address, "-i", "999") as process:
        assert process.stdout is not None
        assert re.fullmatch(LINE + "\n", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_broken_pipe() -> None:
    with ScriptedDaemon() as daemon:
        with start(daemon.address, "-i", "0.01") as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait() == 0


def test_full_disk() -> None:
    with ScriptedDaemon() as daemon, open("/dev/full", "w") as full:
        status, _, errors = run(daemon.address, stdout=full)
    assert status == 1
    assert errors.startswith("cannot write: ")
    assert len(errors.splitlines()) == 1


def test_output_that_is_no_file() -> None:
    with ScriptedDaemon() as daemon, redirect_stdout(StringIO()) as output:
        assert main([daemon.address, "-n", "1"]) == 0
    assert re.fullmatch(LINE + "\n", output.getvalue())


# --- what cannot be watched at all ------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["127.0.0.1:x"], "'127.0.0.1:x'"),
        (["-i", "0"], "'0' is not a positive number"),
        (["-i", "soon"], "'soon' is not a positive number"),
        (["-n", "0"], "argument -n/--count: 0 is less than 1"),
        (["-n", "-1"], "-n"),
        (["-t", "1e9"], "timeout 1000000000.0 s"),
        (["-r", "-1"], "'-1' is not a natural number"),
        (["a", "b"], "unrecognized arguments: b"),
    ],
)
def test_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    output, errors = capsys.readouterr()
    (line,) = errors.splitlines()
    assert output == ""
    assert line.startswith("python -m pychrony.watch: ")
    assert message in line
    assert line.endswith("See --help")


def test_no_libchrony() -> None:
    environment = {**os.environ, "PYCHRONY_LIBCHRONY": "/nowhere/libchrony.so"}
    status, output, errors = run(env=environment)
    assert (status, output) == (1, "")
    (line,) = errors.splitlines()
    assert "/nowhere/libchrony.so" in line


def test_import_of_pychrony_needs_no_textual() -> None:
    code = (
        "import sys, pychrony; pychrony.get_tracking; print('textual' in sys.modules)"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output == "False\n"


# --- the real thing ---------------------------------------------------------------


def test_real_chronyd_restarts(parts: Parts) -> None:
    with Chronyd(parts, "local stratum 5") as daemon:
        with start(daemon.socket, "-i", "0.01") as process:
            assert process.stdout is not None
            assert "stratum 5, local mode, 0 of 0" in process.stdout.readline()
            daemon.kill()
            while " lost: " not in process.stdout.readline():
                pass
            daemon.restart()
            while "stratum 5, local mode" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "")
        assert not list(Path(daemon.directory).glob("libchrony*"))
