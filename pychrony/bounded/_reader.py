"""The thread that reads chronyd for a bounded clock."""

from __future__ import annotations

import atexit
import os
import warnings
from contextlib import suppress
from threading import Lock, Thread, current_thread
from weakref import WeakSet, finalize

from pychrony.exceptions import ChronyError, ChronyLibraryError, ChronyPermissionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pychrony.connection import ChronyConnection

    from ._bounds import Bounds

# For one reading [s]: chronyd is on this machine.
TIMEOUT, RETRIES, LIMIT = 0.3, 1, 1.0

# For the end of the interpreter, and for forked children.
running: WeakSet[Reader] = WeakSet()


class Reader:
    """Reads chronyd every ``interval`` seconds in a daemon thread.

    The thread refers to the reader and not to the BoundedClock, so the clock can be
    garbage-collected while the thread runs.
    """

    def __init__(
        self, bounds: Bounds, connection: ChronyConnection, interval: float
    ) -> None:
        self.bounds = bounds
        self.connection = connection
        self._interval = interval
        # Released to stop the thread. A finalizer may do that at any bytecode; with
        # an Event it could deadlock.
        self._running = Lock()
        self._running.acquire()
        self._thread = Thread(target=self._run, name="pychrony.bounded", daemon=True)

    def start(self) -> None:
        """Read once here, then start the thread."""
        self.read()
        if isinstance(self.bounds.failure, (ChronyLibraryError, ChronyPermissionError)):
            raise self.bounds.failure  # waiting does not help
        running.add(self)
        try:
            self._thread.start()
        except RuntimeError as reason:
            raise ChronyError(
                f"cannot start the thread that reads chronyd: {reason}. How many may "
                "this process have (ulimit -u)?"
            ) from reason

    def read(self) -> None:
        """Read once, and keep the error if there is one."""
        try:
            self.bounds.read()
            failure = None
        except ChronyError as error:
            failure = error.with_traceback(None)
        except Exception as error:  # so that the thread goes on
            failure = ChronyError(f"chronyd could not be read: {error!r}")
            failure.__cause__ = error.with_traceback(None)
        self.bounds.failure = failure
        with self.bounds.changed:
            self.bounds.changed.notify_all()

    def _run(self) -> None:
        try:
            while not self._running.acquire(timeout=self._interval):
                self.read()
        finally:
            self.bounds.end("the thread that reads chronyd has ended: make a new clock")
            self.connection.close()
            with self.bounds.changed:
                self.bounds.changed.notify_all()

    def stop(self) -> None:
        """Let the thread end; it closes the connection."""
        with suppress(RuntimeError):  # it was released before
            self._running.release()

    def join(self) -> None:
        if self._thread is not current_thread() and self._thread.is_alive():
            self._thread.join(5 * LIMIT)

    def abandon(self, name: str) -> None:
        """Stop, as the clock was garbage-collected while it was open."""
        warnings.warn(f"unclosed {name}", ResourceWarning, stacklevel=2)
        self.stop()


def _at_exit() -> None:
    # Before 3.13, a daemon thread that imports while the interpreter exits can
    # crash it.
    for reader in list(running):
        reader.stop()
        reader.join()


def _in_child() -> None:
    for reader in list(running):
        reader.bounds.end(
            "the bounded clock was opened by the parent of this process, and is not "
            "read here. Close it, which the parent does not notice, and open another"
        )


# weakref registers one atexit function for all finalizers when the first is made. It
# must run after ours, so it must be registered before ours.
finalize(running, list)
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
