"""The scrapes of the exporter: of its own chronyd and of targets."""

from __future__ import annotations

import asyncio
import socket
from time import monotonic
from typing import TYPE_CHECKING

import pychrony

from . import _metrics
from ._poller import Poller
from ._reading import Plan, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    K = TypeVar("K")
    V = TypeVar("V")

# After this number of scrapes without a reply, a target gets one request in each scrape
# until it replies.
_SILENT = 2

# At most this many addresses are remembered; the oldest are forgotten.
_REMEMBERED = 65_536

# Maximum time that a scrape waits for names [s]; then it uses the addresses.
_NAMES_WAIT = 1.0

# How long a name, or the lack of one, is kept [s].
_NAME_TIME, _NO_NAME_TIME = 3600.0, 60.0


class Scraper:
    """Reads chronyds, and remembers those that do not reply.

    Args:
        address: of the chronyd of the exporter itself.
        timeout, retries, reports: as for :class:`Collector`.
        names: looks up names; ``None`` for no names.
        poller: runs the request generators.
    """

    def __init__(
        self,
        address: str | None,
        *,
        timeout: float,
        retries: int,
        reports: Sequence[str],
        names: Names | None = None,
        poller: Poller,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._retries = retries
        self._reports = reports
        self._names = names
        self._poller = poller
        self._silent: dict[str | None, int] = {}

    async def read(self, target: str | None, budget: float | None) -> Reading:
        """Read a target, or the exporter's own chronyd, within a number of seconds."""
        given_up = self._silent.get(target, 0) >= _SILENT
        plan = Plan(
            target or self._address,
            timeout=self._timeout,
            retries=0 if given_up else self._retries,
            reports=self._reports,
            budget=budget,
        )
        reading = await self._poller.run(plan.requests())
        silent = self._silent.pop(target, 0)  # other scrapes may have ended meanwhile
        if reading.silent:
            _remember(self._silent, target, silent + 1)
        return reading

    async def names(self, reading: Reading) -> Mapping[str, str]:
        """Return the names of the addresses in a reading."""
        if self._names is None:
            return _metrics.NO_NAMES
        addresses: set[str] = set()
        for name, found in reading.found.items():
            report = _metrics.REPORTS[name]
            if report.source:
                addresses.update(
                    record.address
                    for record in found
                    if getattr(record, "mode", None) is not pychrony.SourceMode.REFCLOCK
                )
            elif name == "tracking":
                addresses.add(found.reference_ip)
        return await self._names.of(one for one in addresses if one)


class Names:
    """The names of addresses, by reverse DNS, kept for an hour.

    Args:
        lookup: returns the name of an address, or raises an ``OSError``.
    """

    def __init__(self, lookup: Callable[[str], str] | None = None) -> None:
        self._lookup = lookup or _lookup
        self._known: dict[str, tuple[str, float]] = {}
        self._pending: dict[str, asyncio.Task[None]] = {}
        # That import takes milliseconds, and few look names up.
        from concurrent.futures import ThreadPoolExecutor

        self._threads = ThreadPoolExecutor(8, thread_name_prefix="names")

    async def of(self, addresses: Iterable[str]) -> Mapping[str, str]:
        """Return the names of the addresses that have one."""
        now = monotonic()
        addresses = set(addresses)
        waiting: list[asyncio.Task[None]] = []
        for address in addresses:
            if self._known.get(address, ("", 0.0))[1] < now:
                if address not in self._pending:
                    task = asyncio.create_task(self._find(address))
                    self._pending[address] = task
                waiting.append(self._pending[address])
        if waiting:
            # Unfinished look-ups continue; the next scrape has their names.
            await asyncio.wait(waiting, timeout=_NAMES_WAIT)
        return {one: self._known[one][0] for one in addresses if one in self._known}

    async def _find(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            name = await loop.run_in_executor(self._threads, self._lookup, address)
            end = monotonic() + _NAME_TIME
        except (OSError, UnicodeError):
            name, end = address, monotonic() + _NO_NAME_TIME
        finally:
            del self._pending[address]
        self._known.pop(address, None)
        _remember(self._known, address, (name.removesuffix("."), end))


def _lookup(address: str) -> str:
    return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    while len(memory) >= _REMEMBERED:
        del memory[next(iter(memory))]
    memory[key] = value
