"""The addresses of a command line, with its port and its IP version."""

from __future__ import annotations

import socket
from threading import Thread

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def complete(
    addresses: Sequence[str], port: int | None, version: int | None, seconds: float
) -> list[str]:
    """Return the addresses with ``port`` where they have none.

    With an IP ``version``, a host name becomes its first address of it.

    Raises:
        ValueError: an address is of the other version, or a name has none of it.
    """
    if port is None and version is None:
        return list(addresses)
    wanted = addresses or [_LOOPBACK[version or 4]]
    return [_complete(one, port, version, seconds) for one in wanted]


def _complete(text: str, port: int | None, version: int | None, seconds: float) -> str:
    if not text or text.startswith(("/", "unix")):
        return text
    scheme, separator, rest = text.rpartition("://")
    host, own_port = _split(rest)
    if version is not None:
        host = _of_version(host, version, seconds)
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


def _of_version(host: str, version: int, seconds: float) -> str:
    bare = host.partition("%")[0]
    for one, family in _FAMILIES.items():
        try:
            socket.inet_pton(family, bare)
        except (OSError, UnicodeError):
            continue
        if one != version:
            raise ValueError(f"{host} is no IPv{version} address, and -{version} given")
        return host
    found: list[str] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(
                host, None, _FAMILIES[version], socket.SOCK_DGRAM
            )
        except (OSError, UnicodeError):
            return
        found.extend(
            str(address[0])
            for family, *_, address in answers
            if family is _FAMILIES[version]
        )

    # The resolver has no timeout of its own, and may be left behind.
    thread = Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise ValueError(f"{host} has no IPv{version} address")
    return found[0]
