"""``python -m pychrony.watch`` in a terminal, and every way that it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import termios
from collections.abc import Callable
from typing import Any

import pytest
from chronyd import Chronyd
from provision import Parts
from watching import LINE, Terminal

from pychrony.testing import ScriptedDaemon
from pychrony.watch._terminal import Output


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
def test_live_view_ends(leave: Callable[[Terminal], None], status: int) -> None:
    with ScriptedDaemon() as daemon, Terminal(daemon.address) as terminal:
        terminal.until("error bound")
        leave(terminal)
        assert terminal.end() == status
        assert "\x1b[?1049h" in terminal.output


def test_keys_that_are_not_utf8_are_ignored() -> None:
    with ScriptedDaemon() as daemon, Terminal(daemon.address) as terminal:
        terminal.until("error bound")
        os.write(terminal.master, b"\xe9\xff\x80")
        while "interval of the" not in terminal.output:
            terminal.press("l")  # one may be read together with the noise
            terminal.read()
        terminal.press("q")
        assert terminal.end() == 0


def test_live_view_is_resized() -> None:
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


def test_live_view_whose_terminal_is_closed() -> None:
    """No signal tells of it where the terminal does not control the session."""
    with ScriptedDaemon() as daemon, Terminal(daemon.address) as terminal:
        terminal.until("error bound")
        terminal.hang_up()
        assert terminal.process.wait() == 128 + signal.SIGHUP


def test_live_view_whose_controlling_terminal_is_closed() -> None:
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
def test_live_view_whose_terminal_takes_nothing(
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


def test_output_to_what_is_ready_for_less_than_the_text() -> None:
    counter = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        os.eventfd_write(counter, 2**64 - 3)  # there is room for 1
        output = Output(counter)
        output.give_up(0.1)
        output.write("8 bytes!")
        assert os.eventfd_read(counter) == 2**64 - 3
    finally:
        os.close(counter)


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
def test_terminal_that_cannot_show_it(variables: dict[str, Any]) -> None:
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


def test_live_view_without_textual() -> None:
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
