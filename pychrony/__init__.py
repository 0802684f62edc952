"""Read the state of chronyd, the NTP daemon, through libchrony.

    >>> import pychrony
    >>> tracking = pychrony.get_tracking()
    >>> print(tracking.offset, tracking.error_bound, tracking.is_synchronized())

One-shot functions are here, :class:`ChronyConnection` reads many reports over
one connection, and ``python -m pychrony.check`` is the command. Everything
only reads: pychrony changes nothing in chronyd.
"""

import os

from ._library import library_path, reports
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
    Activity,
    AuthData,
    AuthMode,
    FieldContent,
    FieldType,
    KeyType,
    LeapStatus,
    NTPData,
    NTPFlag,
    NTPMode,
    RTCData,
    SelectData,
    SelectOption,
    SelectState,
    ServerStats,
    Smoothing,
    SmoothingFlag,
    Source,
    SourceMode,
    SourceState,
    SourceStats,
    Timestamping,
    TrackingStatus,
    Transport,
    Value,
)

__all__ = [
    "Activity",
    "AuthData",
    "AuthMode",
    "ChronyAddressError",
    "ChronyConnection",
    "ChronyConnectionError",
    "ChronyDataError",
    "ChronyError",
    "ChronyLibraryError",
    "ChronyPermissionError",
    "ChronyTimeoutError",
    "ChronyUsageError",
    "FieldContent",
    "FieldType",
    "KeyType",
    "LeapStatus",
    "NTPData",
    "NTPFlag",
    "NTPMode",
    "RTCData",
    "SelectData",
    "SelectOption",
    "SelectState",
    "ServerStats",
    "Smoothing",
    "SmoothingFlag",
    "Source",
    "SourceMode",
    "SourceState",
    "SourceStats",
    "Timestamping",
    "TrackingStatus",
    "Transport",
    "Value",
    "__version__",
    "get_activity",
    "get_auth_data",
    "get_ntp_data",
    "get_report",
    "get_rtc_data",
    "get_select_data",
    "get_server_stats",
    "get_smoothing",
    "get_source_stats",
    "get_sources",
    "get_tracking",
    "library_path",
    "reports",
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


def get_select_data(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> list[SelectData]:
    """Read the selection, see :meth:`ChronyConnection.get_select_data`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_select_data()


def get_activity(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> Activity:
    """Read the states of the sources, see :meth:`ChronyConnection.get_activity`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_activity()


def get_auth_data(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> list[AuthData]:
    """Read the authentication, see :meth:`ChronyConnection.get_auth_data`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_auth_data()


def get_ntp_data(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> list[NTPData]:
    """Read the last packets, see :meth:`ChronyConnection.get_ntp_data`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_ntp_data()


def get_server_stats(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> ServerStats:
    """Read what chronyd served, see :meth:`ChronyConnection.get_server_stats`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_server_stats()


def get_smoothing(
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> Smoothing | None:
    """Read the time smoothing, see :meth:`ChronyConnection.get_smoothing`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_smoothing()


def get_report(
    name: str,
    address: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 1.0,
    retries: int = 2,
) -> list[dict[str, Value]]:
    """Read any report, see :meth:`ChronyConnection.get_report`."""
    with ChronyConnection(address, timeout=timeout, retries=retries) as connection:
        return connection.get_report(name)


def __getattr__(name: str) -> str:
    # importlib.metadata costs more than the rest of pychrony to import.
    if name == "__version__":
        from importlib.metadata import version

        return version("pychrony")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
