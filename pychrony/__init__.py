"""Read the state of chronyd, the NTP daemon, through libchrony.

    >>> import pychrony
    >>> tracking = pychrony.get_tracking()
    >>> print(tracking.offset, tracking.error_bound, tracking.is_synchronized())

One-shot functions are here, :class:`ChronyConnection` reads many reports over
one connection, and ``python -m pychrony.check`` is the command. Everything
only reads: pychrony changes nothing in chronyd.

The import opens libchrony and nothing else; the rest is imported when it is
first named here.
"""

from importlib import import_module

from ._library import library_path, reports

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from .aio import *
    from .bounded import *
    from .connection import *
    from .enums import *
    from .exceptions import *
    from .fleet import *
    from .models import *

__all__ = [
    "Activity",
    "AsyncChronyConnection",
    "AuthData",
    "AuthMode",
    "BoundStatus",
    "BoundedClock",
    "BoundedTime",
    "ChronyAddressError",
    "ChronyConnection",
    "ChronyConnectionError",
    "ChronyDataError",
    "ChronyError",
    "ChronyLibraryError",
    "ChronyPermissionError",
    "ChronyTimeoutError",
    "ChronyUsageError",
    "ClockUnboundError",
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
    "async_query_many",
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
    "query_many",
    "reports",
]

__version__: str


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version(__name__)
    if name in __all__:
        rooms = (
            "exceptions",
            "enums",
            "models",
            "connection",
            "fleet",
            "bounded",
            "aio",
        )
        modules = (import_module(f"{__name__}.{room}") for room in rooms)
        home = next(module for module in modules if name in module.__all__)
        return globals().setdefault(name, getattr(home, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
