"""The chronyds that ``/probe`` may read."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# The parser that the connection uses, so that both mean the same target.
from pychrony._address import Target, parse

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = re.compile(r"/\d+")


class Targets:
    """The chronyds that ``/probe`` may read.

    Args:
        entries: ``HOST``, ``HOST:PORT`` (323 by default) or ``HOST:*`` (any port),
            with ``[...]`` around IPv6 if a port follows. HOST is an IP address, a
            network (``192.0.2.0/24``), or a host name, which allows any address of
            that name. The name of a target is not resolved to see whether its
            address is in an allowed network.

    Raises:
        ValueError: an entry is none of these.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self.entries = tuple(entries)
        self._networks: list[tuple[IPv4Network | IPv6Network, int | None]] = []
        self._names: set[tuple[str, int | None]] = set()
        for entry in self.entries:
            self._add(entry)

    def _add(self, entry: str) -> None:
        text = entry.removesuffix(":*")
        prefix = _PREFIX.search(text)
        try:
            target = parse(_PREFIX.sub("", text, count=1))
            port = None if text != entry else target.port
            if target.is_name and not prefix:
                self._names.add((_name(target), port))
                return
            if prefix and text[: prefix.start()].lstrip("[") != target.host:
                raise ValueError("the prefix length stands behind the address")
            network = ip_network(target.host + (prefix[0] if prefix else ""))
            if isinstance(network, IPv6Network) and (
                network.network_address.ipv4_mapped or "%" in target.host
            ):
                raise ValueError("scopes and IPv4 in IPv6 are not supported")
            self._networks.append((network, port))
        except ValueError as error:
            raise ValueError(
                f"{entry!r} cannot be allowed: {error}. Give an IP address, a network "
                "like 192.0.2.0/24, or a host name, with or without :PORT or :*"
            ) from error

    def __contains__(self, target: Target) -> bool:
        if target.port is None:  # a Unix socket
            return False
        if target.is_name:
            name = _name(target)
            return not self._names.isdisjoint({(name, target.port), (name, None)})
        address = ip_address(target.host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            # That is where the packets go.
            address = address.ipv4_mapped
        return any(
            address in network and port in (None, target.port)
            for network, port in self._networks
        )


def _name(target: Target) -> str:
    return target.host.lower().removesuffix(".")
