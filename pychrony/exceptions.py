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
        error_code: libchrony's ``chrony_err`` (-1 where its
            ``chrony_open_socket`` failed), or ``None`` where libchrony was
            not the one to complain.
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
    """chronyd could not be reached: nobody there, refused, or unreachable.

    The ``OSError`` behind it, if there is one, is its ``__cause__``.
    """


class ChronyTimeoutError(ChronyConnectionError, TimeoutError):
    """No answer within the deadline, after all resends."""


class ChronyAddressError(ChronyConnectionError, ValueError):
    """The address is not one of a chronyd: nothing was opened or sent."""


class ChronyPermissionError(ChronyError):
    """The Unix socket may not be opened, or chronyd said "Not authorized".

    The socket is open to root and to the user that chronyd runs as; membership
    in that user's group does not help. tracking, sources, sourcestats,
    activity, rtcdata and smoothing need no right at all over the command port
    (UDP, by default on 127.0.0.1 and ::1).
    """


class ChronyDataError(ChronyError):
    """chronyd answered with something that is not the report asked for.

    An unknown or truncated reply, an unexpected status, a value outside its
    range, or a list of sources that kept changing while it was read.
    """


class ChronyLibraryError(ChronyError):
    """No usable libchrony on this system.

    Each failed attempt to open it is in the message and in the ``__cause__``
    chain.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


class ChronyUsageError(ChronyError, RuntimeError):
    """The connection cannot be used here and now.

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
