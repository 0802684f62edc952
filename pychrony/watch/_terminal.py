"""The terminal of the live view: what is written to it, and how the view ends.

Textual writes in a thread, through a queue of 30 entries. Its thread ends with the
first error, or blocks while the terminal accepts no output; then the queue fills, and
the whole program blocks. So the thread writes to an :class:`Output`, which always
returns.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import termios
import threading
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import App

# A terminal that accepts no output is given up this long after leaving began [s].
_STALLED = 0.4

# The process ends at the latest this long after leaving began [s].
_OVERDUE = 0.8

_POLL = 50  # milliseconds

# Resets what Textual has set: the keyboard protocol, the mouse, the alternate screen,
# line wrap and the cursor.
_RESET = (
    "\x1b[?2004l\x1b[?7h\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?2048l"
    "\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"
)


class Output:
    """A text file for the terminal, which never fails and never blocks for ever."""

    def __init__(self, fd: int) -> None:
        self._fd = _non_blocking(fd)
        self._until = float("inf")

    def give_up(self, after: float) -> None:
        """After a time [s], discard what the terminal does not accept at once."""
        self._until = min(self._until, monotonic() + after)

    def write(self, text: str) -> None:
        """Write the text, as far as the terminal accepts it."""
        # One for each call: at the end two threads may write, and a poll object cannot
        # be used by two.
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        data = text.encode(errors="replace")
        while data:
            late = monotonic() >= self._until
            taken = 0
            if poller.poll(0 if late else _POLL):
                try:
                    taken = os.write(self._fd, data)
                except BlockingIOError:  # it takes less than this at once
                    sleep(0 if late else _POLL / 1000)
                except OSError:  # the terminal is gone
                    return
            if late and not taken:
                return
            data = data[taken:]

    def flush(self) -> None:
        """Do nothing: everything is written at once."""

    def fileno(self) -> int:
        return self._fd


def _non_blocking(fd: int) -> int:
    # O_NONBLOCK on the descriptor itself would also affect the shell. Another user's
    # terminal, as after su, cannot be opened again: then a write may block, until
    # _OVERDUE ends the process.
    with suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return fd


class TerminalDriver(LinuxDriver):
    """Textual's driver for a terminal, with an output that always returns."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)  # pyright: ignore[reportUnknownMemberType]
        self.output = Output(sys.stderr.fileno())
        self._file: Any = self.output

    def run_input_thread(self) -> None:
        """Read keys until the end, or until the terminal is gone."""
        with suppress(OSError):
            while True:
                try:
                    super().run_input_thread()
                except UnicodeDecodeError:  # a key or a paste that is not UTF-8
                    continue
                return

    def restore(self) -> None:
        """Restore the terminal, from any thread, without waiting for it."""
        # A process in the background would be stopped here.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        before = self.attrs_before or []  # empty if it was gone at the start
        with suppress(termios.error, TypeError):
            termios.tcsetattr(self.fileno, termios.TCSANOW, before)
        self.output.give_up(0)
        self.output.write(_RESET)


def end_with_terminal(driver: TerminalDriver, leave: Callable[[int], object]) -> None:
    """End by ``leave(SIGNAL)``: on SIGINT, SIGTERM, SIGHUP, or without a terminal.

    To be called in the event loop of the main thread. If ``leave`` has not ended the
    process within a second, it is ended.
    """
    loop = asyncio.get_running_loop()
    overdue: list[threading.Thread] = []

    def begin(number: int, _: object = None) -> None:
        driver.output.give_up(_STALLED)
        if not overdue:
            end = threading.Thread(target=_end, args=(driver, number), daemon=True)
            overdue.append(end)
            end.start()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(leave, number)

    # Not by the loop, which may be blocked by the terminal.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, begin)

    # The kernel sends SIGHUP only to the session of the terminal. A poll without events
    # reports the hang-up in any case.
    hangup = select.epoll()
    for fd in {driver.fileno, driver.output.fileno()}:
        hangup.register(fd, 0)

    def gone() -> None:
        loop.remove_reader(hangup)
        begin(signal.SIGHUP)

    loop.add_reader(hangup, gone)


def _end(driver: TerminalDriver, number: int) -> None:
    """End the process if it has not ended in time."""
    sleep(_OVERDUE)
    try:
        driver.restore()
    finally:
        os._exit(128 + number)
