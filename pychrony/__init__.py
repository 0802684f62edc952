"""Read the state of chronyd, the NTP daemon, through libchrony.

    >>> import pychrony
    >>> tracking = pychrony.get_tracking()
    >>> print(tracking.offset, tracking.error_bound, tracking.is_synchronized())

Each ``get_*`` function reads one report; :class:`ChronyConnection` reads many over
one connection, and ``python -m pychrony.check`` is the command. pychrony is
read-only: it never changes anything in chronyd.

The import opens libchrony and loads little else. The other modules are imported
when one of their names is first used.
"""

import os
from importlib import import_module
from threading import RLock

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


# Imported in this order until the name is found: asyncio takes longer to import than
# all the rest.
_MODULES = (
    ("exceptions", "enums", "models", "connection", "fleet"),
    ("bounded",),
    ("aio",),
)

# One thread imports, and the others wait for this lock instead of the import locks:
# CPython before 3.13 frees one of those at exit, and crashes if daemon threads still
# wait for it (python/cpython#118523).
_lock = RLock()

# A forked child must not inherit a half-imported module: it lacks the thread that
# imports it.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name in __all__:
        with _lock:
            groups = iter(_MODULES)
            while name not in globals():
                for module in next(groups):
                    home = import_module(f"{__name__}.{module}")
                    globals().update(
                        (each, getattr(home, each)) for each in home.__all__
                    )
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    try:
        return str(import_module("importlib.metadata").version(__name__))
    except ImportError:  # no metadata: in a zip file, or frozen
        return "0+unknown"


def __dir__() -> list[str]:
    return __all__
