"""Parses the address of a chronyd as a user writes it, and resolves host names.

libchrony's own parser (open_inet_socket in socket.c) knows neither names nor
scopes, rejects ``[::1]``, and reads ``:99999`` and ``:abc`` as other ports, so
everything but a Unix path is parsed and resolved here.
"""

from __future__ import annotations

import _thread
import os
import re
import socket
import sys

# socket.socketpair() passes bare descriptors around; if a signal handler raised an
# exception meanwhile, they would stay open.
from _socket import socketpair
from errno import EMFILE, ENFILE
from select import POLLIN
from time import monotonic

from ._advice import CLOSE_SOME
from .enums import Transport
from .exceptions import ChronyAddressError, ChronyConnectionError, ChronyTimeoutError

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from ._waiting import RequestGenerator

PORT = 323

# The addresses of a chronyd on this machine, in chronyc's order.
LOCAL = ("/run/chrony/chronyd.sock", f"127.0.0.1:{PORT}", f"[::1]:{PORT}")

# Compiled when they are used: that takes a millisecond.
_SCOPE = r"[^%\s/]{1,15}"  # an interface, or its number
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"


class Target:
    """One address at which a chronyd may be.

    Attributes:
        text: the address as the user wrote it.
        family: AF_UNIX, AF_INET, AF_INET6, or AF_UNSPEC for a name.
        host: Unix path, IP address (with its scope), or host name.
        port: UDP port; ``None`` for a Unix path.
    """

    # No dataclass: to make that takes a hundredth of the CPU time of a check.
    def __init__(self, text: str, family: int, host: str, port: int | None) -> None:
        self.text = text
        self.family = family
        self.host = host
        self.port = port

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.host, self.port))

    def __str__(self) -> str:
        return self.text if self.host in self.text else f"{self.text} ({self.host})"

    @property
    def is_name(self) -> bool:
        """Whether it has to be resolved first."""
        return self.family == socket.AF_UNSPEC

    @property
    def transport(self) -> Transport:
        return Transport.COMMAND_PORT if self.port else Transport.UNIX_SOCKET

    def socket_address(self) -> tuple[Any, ...]:
        """Return the argument of ``socket.connect``.

        Raises:
            OSError: the scope names no network interface.
        """
        if self.family != socket.AF_INET6:
            return self.host, self.port
        host, _, scope = self.host.partition("%")
        if not scope:
            index = 0
        elif _is_number(scope):
            index = int(scope)
        else:
            index = socket.if_nametoindex(scope)
        return host, self.port, 0, index


def parse(address: str | os.PathLike[str]) -> Target:
    """Return the target that ``address`` means, without looking up any name.

    Raises:
        ChronyAddressError: it is not an address of a chronyd.
    """
    text = os.fspath(address)
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"an address is a str, not {type(text).__name__}: {text!r}")
    # The most frequent kind in query_many(), in a third of the time of _parse_any().
    host, colon, port = text.partition(":")
    if _is_ip(socket.AF_INET, host) and (_is_port(port) or not colon):
        return Target(text, socket.AF_INET, host, int(port or PORT))
    return _parse_any(text)


def _parse_any(text: str) -> Target:
    if not text or "\0" in text:
        raise _nonsense(text, "it contains a NUL" if text else "it is empty")
    place, is_path = _without_scheme(text)
    if is_path:
        _check_path(text)
        return Target(text, socket.AF_UNIX, place, None)
    host, port = _split(text, place)
    return Target(text, _family(text, host), host, port)


def _without_scheme(text: str) -> tuple[str, bool]:
    """Return the address without the scheme of a URL, and whether it is a path."""
    scheme, separator, rest = text.partition("://")
    if text[0] == "/" or not separator:
        return text, text[0] == "/"
    if scheme in ("unix", "unixgram") and rest[:1] == "/":
        return rest, True
    if scheme == "udp" and rest:
        return rest, False
    raise _nonsense(
        text,
        f"URLs are unix://{LOCAL[0]}, unixgram://{LOCAL[0]} and udp://HOST[:PORT]",
    )


def _family(text: str, host: str) -> int:
    if ":" in host:
        bare, percent, scope = host.partition("%")
        if not _is_ip(socket.AF_INET6, bare) or (
            percent and not re.fullmatch(_SCOPE, scope)
        ):
            raise _nonsense(text, f"{host!r} is not an IPv6 address")
        return socket.AF_INET6
    if _is_ip(socket.AF_INET, host):
        return socket.AF_INET
    labels = host.removesuffix(".").split(".")
    if _is_number(labels[-1]):
        raise _nonsense(text, f"{host!r} is not an IPv4 address")
    if len(host) > 253 or not all(re.fullmatch(_LABEL, one) for one in labels):
        reason = f"{host!r} is neither an IP address nor a host name"
        if "/" in host:
            reason += ", and a path begins with /"
        raise _nonsense(text, reason)
    return socket.AF_UNSPEC


def _split(text: str, place: str) -> tuple[str, int]:
    """Return the host and the port of a UDP address."""
    if place[0] == "[":
        host, bracket, rest = place[1:].partition("]")
        if not bracket or ":" not in host or (rest and rest[0] != ":"):
            raise _nonsense(text, "brackets go around an IPv6 address, as in [::1]:323")
        port = rest[1:] if rest else None
    elif place.count(":") == 1:
        host, _, port = place.partition(":")
    else:
        host, port = place, None
    if port is None:
        return host, PORT
    if not _is_port(port):
        raise _nonsense(text, f"{port!r} is not a port, 1 to 65535")
    return host, int(port)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _is_port(text: str) -> bool:
    return _is_number(text) and len(text) <= 5 and 1 <= int(text) <= 65535


def _check_path(text: str) -> None:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        reason = "it has a lone surrogate"
        if encoding != "utf-8":
            reason = (
                f"file names have the encoding {encoding} here, which lacks one of its "
                "characters (PYTHONUTF8=1 selects UTF-8)"
            )
        raise _nonsense(text, reason) from None


def _is_ip(family: int, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):  # the latter where it has a NUL, or is not ASCII
        return False
    return True


def _nonsense(text: str, reason: str) -> ChronyAddressError:
    return ChronyAddressError(
        f"{text!r} is not an address of a chronyd: {reason}. Give the path of its "
        "Unix socket, or an IP address or host name, with or without :port"
    )


def resolve(target: Target, timeout: float) -> RequestGenerator[list[Target]]:
    """Return the IP addresses of a host name, in the resolver's order.

    Raises:
        ChronyConnectionError: the name has no address.
        ChronyTimeoutError: it was not resolved within ``timeout`` seconds.
    """
    found: list[Any] = []
    # As bytes: for a str, Python would import a codec.
    host = target.host.encode()

    def look_up() -> None:  # pragma: no cover - coverage traces no bare thread
        try:
            found.append(socket.getaddrinfo(host, target.port, type=socket.SOCK_DGRAM))
        except OSError as reason:
            found.append(_cause(reason))
        finally:
            done.close()

    # getaddrinfo() has no timeout. So it runs in a thread, which is abandoned at the
    # deadline and ends when the system's resolver gives up. Thread.start() does not
    # survive an exception of a signal handler, so this is a bare thread.
    try:
        waiting, done = socketpair()
        try:
            try:
                _thread.start_new_thread(look_up, ())
            except BaseException:
                done.close()
                raise
            yield waiting.fileno(), POLLIN, monotonic() + timeout
        finally:
            waiting.close()
    except (OSError, RuntimeError) as reason:
        raise _unresolved(target, reason) from reason
    if not found:
        raise ChronyTimeoutError(
            f"{target}: the name was not resolved within {timeout:g} s. Check the "
            "resolver of this machine, or give an IP address"
        )
    if isinstance(found[0], OSError):
        raise _unresolved(target, found[0]) from found[0]
    return [
        Target(
            target.text,
            family,
            f"{host}%{rest[1]}" if rest and rest[1] else host,
            port,
        )
        for family, _, _, _, (host, port, *rest) in found[0]
    ]


def _cause(reason: OSError) -> OSError:  # pragma: no cover - runs in that thread
    """Return the real cause if descriptors are exhausted: resolvers hide that."""
    try:
        socket.socket().close()
    except OSError as cause:
        return cause
    return reason


def _unresolved(
    target: Target, reason: OSError | RuntimeError
) -> ChronyConnectionError:
    if isinstance(reason, socket.gaierror):
        text = (
            f"{reason.strerror}. Check the name, or give an IP address (a path begins "
            "with /)"
        )
    else:
        text = f"the name cannot be resolved: {reason}. "
        too_many = isinstance(reason, OSError) and reason.errno in (EMFILE, ENFILE)
        text += CLOSE_SOME if too_many else "Give an IP address"
    return ChronyConnectionError(f"{target}: {text}")
