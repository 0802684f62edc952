"""Read the state of chronyd, the NTP daemon, through libchrony.

    >>> import pychrony
    >>> tracking = pychrony.get_tracking()
    >>> print(tracking.offset, tracking.error_bound, tracking.is_synchronized())

One-shot functions are here, :class:`ChronyConnection` reads many reports over
one connection, and ``python -m pychrony.check`` is the command. Everything
only reads: pychrony changes nothing in chronyd.
"""

import os

from ._library import library_path
from .connection import ChronyConnection
from .exceptions import (
    ChronyAddressError,
    ChronyConnectionError,
    ChronyDataError,
    ChronyError,
    ChronyLibraryError,
    ChronyPermissionError,
    ChronyTimeoutError,
    ChronyUsageError,
)
from .models import (
    LeapStatus,
    RTCData,
    Source,
    SourceMode,
    SourceState,
    SourceStats,
    TrackingStatus,
    Transport,
)

__all__ = [
    "ChronyAddressError",
    "ChronyConnection",
    "ChronyConnectionError",
    "ChronyDataError",
    "ChronyError",
    "ChronyLibraryError",
    "ChronyPermissionError",
    "ChronyTimeoutError",
    "ChronyUsageError",
    "LeapStatus",
    "RTCData",
    "Source",
    "SourceMode",
    "SourceState",
    "SourceStats",
    "TrackingStatus",
    "Transport",
    "__version__",
    "get_rtc_data",
    "get_source_stats",
    "get_sources",
    "get_tracking",
    "library_path",
]

__version__: str


def get_tracking(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> TrackingStatus:
    """Read the state of the clock, see :meth:`ChronyConnection.get_tracking`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_tracking()


def get_sources(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> list[Source]:
    """Read the sources, see :meth:`ChronyConnection.get_sources`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_sources()


def get_source_stats(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> list[SourceStats]:
    """Read their statistics, see :meth:`ChronyConnection.get_source_stats`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_source_stats()


def get_rtc_data(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> RTCData | None:
    """Read the real-time clock, see :meth:`ChronyConnection.get_rtc_data`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_rtc_data()


def __getattr__(name: str) -> str:
    # importlib.metadata costs more than the rest of pychrony to import.
    if name == "__version__":
        from importlib.metadata import version

        return version("pychrony")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
