"""The addresses of a command line, with its port and its IP version."""

from __future__ import annotations

import socket
from threading import Thread
from time import monotonic

from pychrony import ChronyConnectionError, ChronyTimeoutError

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def complete(text: str, port: int | None, version: int | None, end: float) -> str:
    """Return an address with ``port``, if it has none.

    With an IP ``version``, a host name becomes its first address of it, which is
    looked up until ``end``, by the monotonic clock.

    Raises:
        ValueError: the address is of the other version.
        ChronyConnectionError: the name has no address of the version.
        ChronyTimeoutError: that is not known in time.
    """
    if not text or text.startswith(("/", "unix")) or port is version is None:
        return text
    scheme, separator, rest = text.rpartition("://")
    host, own_port = _split(rest)
    if version is not None:
        host = _of_version(host, version, end)
    number = own_port or (port and str(port))
    bare = host if ":" not in host or not number else f"[{host}]"
    return f"{scheme}{separator}{bare}:{number}" if number else bare


def _split(text: str) -> tuple[str, str]:
    """Return the host without brackets, and its port, empty where it has none."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, ""


def _of_version(host: str, version: int, end: float) -> str:
    bare = host.partition("%")[0]
    for one, family in _FAMILIES.items():
        try:
            socket.inet_pton(family, bare)
        except (OSError, UnicodeError):
            continue
        if one != version:
            raise ValueError(f"{host} is no IPv{version} address, and -{version} given")
        return host
    found: list[list[str]] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(
                host, None, _FAMILIES[version], socket.SOCK_DGRAM
            )
        except (OSError, UnicodeError):
            answers = []
        found.append(
            [
                str(address[0])
                for family, *_, address in answers
                if family is _FAMILIES[version]
            ]
        )

    # The resolver has no timeout of its own, and may be left behind.
    thread = Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(max(0.0, end - monotonic()))
    if not found:
        raise ChronyTimeoutError(
            f"{host}: the name was not resolved in time. Check the resolver of this "
            "machine, or give an IP address"
        )
    if not found[0]:
        raise ChronyConnectionError(
            f"{host}: no IPv{version} address is known. Check the name, or give an IP "
            "address"
        )
    return found[0][0]
