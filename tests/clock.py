"""A reference clock for the tests."""

from __future__ import annotations

import socket
import struct
import time


class Clock:
    """A reference clock for chronyd's driver SOCK, as gpsd would be."""

    MAGIC = 0x534F434B

    def __init__(self, path: str) -> None:
        self.path = path

    def tick(self, offset: float, leap: int = 0) -> None:
        """Send one sample: our clock is ``offset`` seconds behind."""
        seconds, fraction = divmod(time.time(), 1)
        microseconds = int(fraction * 1e6)
        sample = struct.pack(
            *("@lldiiii", int(seconds), microseconds, offset, 0, leap, 0, self.MAGIC)
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(sample, self.path)
