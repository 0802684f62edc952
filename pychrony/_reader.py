"""Reads reports of one chronyd, with a time limit for all of them."""

from __future__ import annotations

from time import monotonic

import pychrony

from ._cli import timeout_within

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# The method of a connection that reads each report.
METHODS = {
    "tracking": "get_tracking",
    "sources": "get_sources",
    "sourcestats": "get_source_stats",
    "selectdata": "get_select_data",
    "activity": "get_activity",
    "authdata": "get_auth_data",
    "ntpdata": "get_ntp_data",
    "serverstats": "get_server_stats",
    "rtcdata": "get_rtc_data",
    "smoothing": "get_smoothing",
}

# The number of addresses that are tried if none is given.
_LOCAL_ADDRESSES = 3

# A connection limits each call, not all of them. After this share of the time, the next
# call gets a new connection with the time that is left.
_RENEWED = 0.02


class Reader:
    """Reads reports of one chronyd until the time is over.

    ``address`` is ``None`` or empty for the chronyd of this machine.
    """

    def __init__(self, address: str | None, seconds: float, retries: int) -> None:
        self._given = address or None
        self._seconds = seconds
        self._retries = retries
        self._end = monotonic() + seconds
        self._connect(seconds)

    def _connect(self, left: float) -> None:
        address = self.address
        timeout = timeout_within(
            left, self._retries, 1 if address else _LOCAL_ADDRESSES
        )
        self._renew_at = monotonic() + _RENEWED * self._seconds
        self.connection = pychrony.ChronyConnection(
            address, timeout=timeout, retries=self._retries, limit=left
        )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    @property
    def address(self) -> str | None:
        """The address at which chronyd replied, or the address given."""
        if hasattr(self, "connection") and self.connection.address:
            self._given = self.connection.address
        return self._given

    @property
    def left(self) -> float:
        """The time that is left [s]; negative if it is over."""
        return self._end - monotonic()

    def read(self, report: str) -> Any:
        """Read a report with the method of the connection."""
        if monotonic() > self._renew_at:
            self.connection.close()
            self._connect(max(self.left, 0.01))
        return getattr(self.connection, METHODS[report])()
