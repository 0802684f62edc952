"""How wide the help of a command is."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

import pytest

from pychrony._cli import help_width


def width_on_terminal(columns: int) -> int:
    """What :func:`help_width` returns where stdout is a terminal of so many."""
    master, terminal = os.openpty()
    before = os.dup(1)
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        os.dup2(terminal, 1)
        return help_width()
    finally:
        os.dup2(before, 1)
        for fd in (before, master, terminal):
            os.close(fd)


@pytest.mark.parametrize(
    ("columns", "width"),
    [("100", 98), ("0", 48), ("", 48), ("wide", 48)],
)
def test_help_is_as_wide_as_columns_says_or_the_terminal_is(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert width_on_terminal(50) == width


def test_help_without_a_terminal_has_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    read, write = os.pipe()
    before = os.dup(1)
    try:
        os.dup2(write, 1)
        assert help_width() == 78
    finally:
        os.dup2(before, 1)
        for fd in (before, read, write):
            os.close(fd)
