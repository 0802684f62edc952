"""What every connection is, whoever drives it: an address, patience, a session."""

from __future__ import annotations

import os

from ._reports import probe
from ._session import Session
from .exceptions import (
    ChronyConnectionError,
    ChronyError,
    ChronyPermissionError,
    ChronyTimeoutError,
    ChronyUsageError,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ._address import Target
    from ._conversation import Conversation
    from .models import Transport

    T = TypeVar("T")

_A_DAY = 86_400


def patience(timeout: float, retries: int) -> float:
    """Return the longest that one request with its resends can take [s].

    Raises:
        ValueError: that is nonsense.
    """
    if 0 <= retries < 99 and 0 < timeout <= _A_DAY:
        longest: float = timeout * (2.0 ** (retries + 1) - 1)
        if longest <= _A_DAY:
            return longest
    raise ValueError(
        f"timeout {timeout!r} s and {retries!r} retries: the timeout must be "
        "positive, the retries not negative, and all waits a day at most"
    )


def open_session(
    targets: list[Target], timeout: float, retries: int
) -> Conversation[Session]:
    """Open a session to the first target where a chronyd answers.

    UDP "connects" to nobody, so with several targets only an answer counts.
    They are asked in turn, each once with the first wait, then the silent ones
    again with the doubled wait, and so on.
    """
    if targets[0].is_name:
        from ._address import resolve

        targets = yield from resolve(targets[0], patience(timeout, retries))
    if len(targets) == 1:
        return Session(targets[0], timeout, retries)
    failures: dict[Target, ChronyError] = {}
    for attempt in range(retries + 1):
        for target in targets:
            if attempt and not isinstance(failures[target], ChronyTimeoutError):
                continue
            try:
                session = Session(target, timeout * 2**attempt, 0)
            except (ChronyConnectionError, ChronyPermissionError) as error:
                failures[target] = error
                continue
            try:
                yield from probe(session)
            except ChronyConnectionError as error:
                session.close()
                failures[target] = error
                continue
            except BaseException:
                session.close()
                raise
            session.timeout, session.retries = timeout, retries
            return session
    silent = any(isinstance(error, TimeoutError) for error in failures.values())
    kind = ChronyTimeoutError if silent else ChronyConnectionError
    raise kind(
        "no chronyd answered. "
        + "; ".join(error.message for error in failures.values())
    )


def nothing(_: Session) -> Conversation[None]:
    """Ask nothing: to open a session is enough."""
    yield from ()


class Endpoint:
    """Where a chronyd is, and the session with it while there is one."""

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 1.0,
        retries: int = 2,
    ) -> None:
        patience(timeout, retries)
        from . import _address

        wanted = _address.LOCAL if address is None else (address,)
        self._targets = [_address.parse(one) for one in wanted]
        self._timeout = timeout
        self._retries = retries
        self._session: Session | None = None
        self._connected: Target | None = None
        self._closed = False

    def __repr__(self) -> str:
        place = self._connected or " | ".join(map(str, self._targets))
        state = "closed" if self._closed else "open" if self._session else "not open"
        return f"<{type(self).__name__} {place} ({state})>"

    @property
    def address(self) -> str | None:
        """The address in use, as given or found; ``None`` while there is none."""
        return self._connected.text if self._connected else None

    @property
    def transport(self) -> Transport | None:
        """The transport in use; ``None`` while there is none."""
        return self._connected.transport if self._connected else None

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called; a ``with`` block opens it again."""
        return self._closed

    def _ask(self, question: Callable[[Session], Conversation[T]]) -> Conversation[T]:
        """Open a session if there is none, and ask; drop it if that fails."""
        if self._closed:
            raise ChronyUsageError(f"{self!r}: use it in a 'with' block or a new one")
        try:
            if self._session is None:
                self._session = yield from open_session(
                    self._targets, self._timeout, self._retries
                )
                self._connected = self._session.target
            return (yield from question(self._session))
        except BaseException:
            # libchrony may hold a pending request: no session survives an
            # error. The next call opens a new one.
            self._drop()
            raise

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _drop_if_inherited(self) -> None:
        if self._session is not None and self._session.pid != os.getpid():
            self._drop()

    def _check_process(self) -> int:
        """Return the number of this process, if it may use the connection."""
        pid = os.getpid()
        session = self._session
        if session is not None and session.pid != pid:
            raise ChronyUsageError(
                f"{self!r} was opened by process {session.pid}, this is its child "
                f"{pid}. Close it here, which the parent does not notice, or open "
                "another"
            )
        return pid
