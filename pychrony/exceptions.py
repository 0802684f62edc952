"""The errors of pychrony: all of them are :class:`ChronyError`."""

__all__ = [
    "ChronyAddressError",
    "ChronyConnectionError",
    "ChronyDataError",
    "ChronyError",
    "ChronyLibraryError",
    "ChronyPermissionError",
    "ChronyTimeoutError",
    "ChronyUsageError",
    "ClockUnboundError",
]


class ChronyError(Exception):
    """Base of every error that pychrony raises.

    Attributes:
        message: what happened, on which address, and what to do about it.
        error_code: libchrony's ``chrony_err`` (-1 if the socket could not be
            opened), or ``None`` if the error does not come from libchrony.
    """

    def __init__(self, message: str, error_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        if self.error_code is None:
            return self.message
        return f"{self.message} (error code: {self.error_code})"


class ChronyConnectionError(ChronyError):
    """chronyd could not be reached.

    The ``__cause__`` is the ``OSError``, if there is one.
    """


class ChronyTimeoutError(ChronyConnectionError, TimeoutError):
    """No reply within the timeout and all retries, or within the limit."""


class ChronyAddressError(ChronyConnectionError, ValueError):
    """The address is not valid. Nothing was opened or sent."""


class ChronyPermissionError(ChronyError):
    """The Unix socket may not be opened, or chronyd replied "Not authorized".

    The socket is open to root and to the user that chronyd runs as; membership
    in that user's group does not help. tracking, sources, sourcestats,
    activity, rtcdata and smoothing need no permission over the command port
    (UDP, by default on 127.0.0.1 and ::1).
    """


class ChronyDataError(ChronyError):
    """The reply of chronyd is not the report that was requested.

    It is unknown or truncated, has an unexpected status or a value outside its
    range, or the list of sources changed each time it was read.
    """


class ChronyLibraryError(ChronyError):
    """No usable libchrony on this system.

    The message lists each failed attempt to open it; the ``__cause__`` is the
    error of the first.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


class ChronyUsageError(ChronyError, RuntimeError):
    """The connection or clock cannot be used here or now.

    It is closed, was opened by the parent of this forked process, or is in
    the middle of a call that a signal handler interrupted.
    """


class ClockUnboundError(ChronyError):
    """Nothing bounds the error of the clock now.

    chronyd has not been read yet, or the last good reading is older than
    ``holdover``; the machine was suspended since; a leap second is being
    inserted or deleted; somebody else set the clock. The message says which, and
    the error behind it, if there is one, is the ``__cause__``.
    """
