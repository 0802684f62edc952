"""How wide the help of a command is."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import Any

import pytest

from pychrony import __main__ as reports
from pychrony import library
from pychrony._cli import help_width
from pychrony.check import _cli as check
from pychrony.prometheus import _cli as prometheus
from pychrony.testing import __main__ as recorder
from pychrony.watch import _cli as watch


def width_on(stdout: int, other: int) -> int:
    """What :func:`help_width` returns; both ends are closed."""
    before = os.dup(1)
    try:
        os.dup2(stdout, 1)
        return help_width()
    finally:
        os.dup2(before, 1)
        for fd in (before, stdout, other):
            os.close(fd)


@pytest.mark.parametrize(
    ("columns", "width"),
    [("100", 98), ("0", 48), ("", 48), ("wide", 48)],
)
def test_help_is_as_wide_as_columns_says_or_the_terminal_is(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 50, 0, 0))
    assert width_on(terminal, master) == width


def test_help_without_a_terminal_has_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    read, write = os.pipe()
    assert width_on(write, read) == 78


@pytest.mark.parametrize(
    "command", [check, library, prometheus, recorder, reports, watch]
)
def test_help_fits_80_columns(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = command._parser().format_help()
    assert max(map(len, text.splitlines())) <= 80
