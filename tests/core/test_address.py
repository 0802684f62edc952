"""What counts as an address, and what it means."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from helpers import (
    descriptors,
    descriptors_left,
    interrupted_at,
    python,
    short_directory,
    traces_every_instruction,
)

from pychrony import (
    ChronyAddressError,
    ChronyConnection,
    ChronyConnectionError,
    ChronyTimeoutError,
    Transport,
    get_tracking,
)
from pychrony._address import LOCAL, Target, _parse_any, parse, resolve
from pychrony._waiting import Waiter
from pychrony.testing import ScriptedDaemon, faults, make_tracking

UNIX, V4, V6 = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6
NAME = socket.AF_UNSPEC


@pytest.mark.parametrize(
    ("address", "family", "host", "port"),
    [
        ("/run/chrony/chronyd.sock", UNIX, "/run/chrony/chronyd.sock", None),
        (Path("/run/chronyd.sock"), UNIX, "/run/chronyd.sock", None),
        ("192.0.2.7", V4, "192.0.2.7", 323),
        ("192.0.2.7:1323", V4, "192.0.2.7", 1323),
        ("::1", V6, "::1", 323),
        ("[::1]", V6, "::1", 323),
        ("[::1]:1323", V6, "::1", 1323),
        ("2001:db8::1:323", V6, "2001:db8::1:323", 323),
        ("fe80::1%eth0", V6, "fe80::1%eth0", 323),
        ("[fe80::1%eth0]:99", V6, "fe80::1%eth0", 99),
        ("fe80::1%" + "i" * 15, V6, "fe80::1%" + "i" * 15, 323),
        ("a." * 126 + "a", NAME, "a." * 126 + "a", 323),
        ("::ffff:192.0.2.7", V6, "::ffff:192.0.2.7", 323),
        ("localhost", NAME, "localhost", 323),
        ("ntp1.example:65535", NAME, "ntp1.example", 65535),
        ("ntp1.example.", NAME, "ntp1.example.", 323),
        ("1.ntp.example", NAME, "1.ntp.example", 323),
        ("a_b-c.example:1", NAME, "a_b-c.example", 1),
    ],
)
def test_address_is_parsed(
    address: str | Path, family: int, host: str, port: int | None
) -> None:
    target = parse(address)
    assert target == Target(str(address), family, host, port)
    assert str(target) == str(address)
    assert target.is_name == (family == NAME)
    assert (target.transport is Transport.UNIX_SOCKET) == (family == UNIX)


def test_local_addresses() -> None:
    assert LOCAL == ("/run/chrony/chronyd.sock", "127.0.0.1:323", "[::1]:323")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/chrony/chronyd.sock", "/run/chrony/chronyd.sock"),
        ("unixgram:///run/chrony/chronyd.sock", "/run/chrony/chronyd.sock"),
        ("udp://192.0.2.7", "192.0.2.7"),
        ("udp://192.0.2.7:1323", "192.0.2.7:1323"),
        ("udp://[::1]:1323", "[::1]:1323"),
        ("udp://fe80::1%eth0", "fe80::1%eth0"),
        ("udp://ntp1.example:99", "ntp1.example:99"),
        ("/run/a://b", "/run/a://b"),
    ],
)
def test_url_is_the_address_in_it(url: str, address: str) -> None:
    """As Telegraf, chrony_exporter and OpenTelemetry write addresses."""
    meant = parse(address)
    assert parse(url) == Target(url, meant.family, meant.host, meant.port)
    assert url in repr(ChronyConnection(url))


@pytest.mark.parametrize("scheme", ["unix", "unixgram"])
def test_url_of_a_socket_is_read(scheme: str) -> None:
    with (
        short_directory() as directory,
        ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon,
        ChronyConnection(f"{scheme}://{daemon.address}") as connection,
    ):
        assert connection.get_tracking().stratum == 2
        assert connection.transport is Transport.UNIX_SOCKET


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "empty"),
        ("/run/\0", "NUL"),
        ("127.0.0.1:99999", "'99999' is not a port"),
        ("127.0.0.1:65536", "is not a port"),
        ("127.0.0.1:" + "1" * 5000, "is not a port"),
        ("127.0.0.1:0", "is not a port"),
        ("127.0.0.1:0000099999", "is not a port"),
        ("127.0.0.1:000323", "is not a port"),
        ("/tmp/\ud800", "lone surrogate"),
        ("fe80::1%" + "7" * 5000, "not an IPv6 address"),
        ("fe80::1%" + "7" * 16, "not an IPv6 address"),
        ("fe80::1%a%b", "not an IPv6 address"),
        ("fe80::1%a/b", "not an IPv6 address"),
        ("::1%\t", "not an IPv6 address"),
        ("./chronyd.sock", "a path begins with /"),
        ("unix://run/chrony/chronyd.sock", "URLs are unix:///run/chrony/chronyd.sock"),
        ("unixgram://", "URLs are unix://"),
        ("udp://", "URLs are unix://"),
        ("udp:///run/chronyd.sock", "neither an IP address nor a host name"),
        ("udp://127.0.0.1:0", "'0' is not a port"),
        ("http://127.0.0.1", "URLs are unix://"),
        ("UDP://127.0.0.1", "URLs are unix://"),
        ("://", "URLs are unix://"),
        ("127.0.0.1:-1", "is not a port"),
        ("127.0.0.1:abc", "'abc' is not a port"),
        ("127.0.0.1:", "'' is not a port"),
        ("127.0.0.1:٣٢٣", "is not a port"),
        ("[::1]:", "'' is not a port"),
        ("[::1", "brackets"),
        ("[::1]323", "brackets"),
        ("[127.0.0.1]", "brackets"),
        ("::1::2", "not an IPv6 address"),
        ("::1%", "not an IPv6 address"),
        ("12345::", "not an IPv6 address"),
        ("256.0.0.1", "not an IPv4 address"),
        ("127.1", "not an IPv4 address"),
        ("01.2.3.4", "not an IPv4 address"),
        ("1.2.3.4.5", "not an IPv4 address"),
        ("1.2.3.\u0664", "neither"),
        ("1.2.3.4\n", "neither"),
        ("12", "not an IPv4 address"),
        ("run/chronyd.sock", "neither an IP address nor a host name"),
        ("ntp.12", "not an IPv4 address"),
        ("ntp 1.example", "nor a host name. Give"),
        ("-ntp.example", "neither"),
        ("ntp-.example", "neither"),
        ("ntp..example", "neither"),
        (".", "neither"),
        ("ü.example", "neither"),
        ("\udcff.example", "neither"),
        ("a" * 64 + ".example", "neither"),
        ("a." * 130 + "example", "neither"),
        ("a." * 126 + "ab", "neither"),
    ],
)
def test_text_that_is_no_address(address: str, reason: str) -> None:
    with pytest.raises(ChronyAddressError, match="is not an address") as caught:
        ChronyConnection(address)
    assert reason in str(caught.value)
    assert isinstance(caught.value, (ValueError, ChronyConnectionError))


@pytest.mark.parametrize(
    ("address", "reason"),
    [(b"/run/chronyd.sock", "a str, not bytes"), (323, "os.PathLike object, not int")],
)
def test_address_of_a_wrong_type(address: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        ChronyConnection(address)


def test_link_local_address_without_its_interface() -> None:
    with pytest.raises(ChronyConnectionError, match=r"as in fe80::1%eth0"):
        get_tracking("fe80::1")


def test_scope_is_a_number_or_an_interface() -> None:
    assert parse("fe80::1%7").socket_address() == ("fe80::1", 323, 0, 7)
    interface = socket.if_nametoindex("lo")
    assert parse("fe80::1%lo").socket_address()[3] == interface


@pytest.mark.parametrize(
    "scope",
    [
        *("nothere9", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT SEVEN}"),
        "7\N{SUPERSCRIPT TWO}",
    ],
)
def test_scope_that_is_not_the_name_of_an_interface(scope: str) -> None:
    """The second has isdigit(), and int() takes the third."""
    with pytest.raises(ChronyConnectionError) as caught:
        get_tracking(f"fe80::1%{scope}")
    assert isinstance(caught.value.__cause__, OSError)


IN_ASCII = """
import pychrony, sys
assert sys.getfilesystemencoding() == "ascii"
try:
    pychrony.ChronyConnection("/run/\\xfc.sock")
except pychrony.ChronyAddressError as error:
    print(ascii(error.message))
"""


def test_path_that_the_locale_lacks() -> None:
    locale: Any = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": ""}
    said = python(IN_ASCII, options=["-X", "utf8=0"], **locale).stdout
    assert "encoding ascii here, which lacks one of its characters" in said
    assert "PYTHONUTF8=1" in said


def resolver(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, str, int]) -> None:
    """Let every name have these addresses; no test asks a real resolver."""

    def getaddrinfo(_: str, port: int, **wanted: Any) -> list[Any]:
        return [  # without a type there would be three of each
            (family, wanted["type"], 17, "", (address, port or used)[:2])
            for family, address, used in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_name_with_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon(tracking=make_tracking(stratum=5)) as daemon:
        port = daemon.address.rpartition(":")[2]
        resolver(monkeypatch, (V4, "127.0.0.1", 0))
        with ChronyConnection(f"clock.invalid:{port}") as connection:
            assert connection.get_tracking().stratum == 5
            assert connection.address == f"clock.invalid:{port}"
            assert connection.transport is Transport.COMMAND_PORT


def test_name_with_a_dead_address_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon(address="127.0.0.1:0") as daemon:
        port = daemon.address.rpartition(":")[2]
        resolver(monkeypatch, (V4, "127.0.0.3", 0), (V4, "127.0.0.1", 0))
        assert get_tracking(f"clock.invalid:{port}").stratum == 2


def test_silent_name_tells_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        port = daemon.address.rpartition(":")[2]
        resolver(monkeypatch, (V4, "127.0.0.1", 0))
        with pytest.raises(ChronyTimeoutError, match=r"clock.invalid:\d+ \(127.0.0.1"):
            get_tracking(f"clock.invalid:{port}", timeout=0.05, retries=0)


def test_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(
        ChronyConnectionError, match=r"service not known\. Check the name"
    ) as caught:
        get_tracking("clock.invalid")
    assert isinstance(caught.value.__cause__, socket.gaierror)


def test_resolver_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    released = Event()

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        released.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        # It may take as long as the waits for chronyd together.
        with pytest.raises(ChronyTimeoutError, match=r"not resolved within 0\.15 s"):
            get_tracking("clock.invalid", timeout=0.05, retries=1)
    finally:
        released.set()


def test_resolver_without_a_thread_to_run_in() -> None:
    usual = threading.stack_size(1 << 46)  # more than there are addresses
    try:
        with pytest.raises(ChronyConnectionError, match="Give an IP address") as caught:
            get_tracking("clock.invalid")
    finally:
        threading.stack_size(usual)
    assert isinstance(caught.value.__cause__, RuntimeError)


@traces_every_instruction
@pytest.mark.interrupts
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interruption_at_every_instruction_of_a_lookup_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver(monkeypatch, (V4, "127.0.0.1", 323))
    target = parse("clock.invalid")

    def look_up() -> None:
        (found,) = Waiter().drive(resolve(target, 20))
        assert found.host == "127.0.0.1"

    look_up()
    before = descriptors()
    number = 0
    while interrupted_at(number := number + 1, look_up):
        deadline = time.monotonic() + 20
        while descriptors() != before:  # until its thread has ended
            assert time.monotonic() < deadline, number
            time.sleep(0.001)
    assert number > 100


def test_resolver_without_descriptors() -> None:
    """With few left, those for the thread are there, but none for the resolver."""
    with descriptors_left(0) as taken:
        for _ in range(3):
            with pytest.raises(ChronyConnectionError, match="raise the lim") as caught:
                get_tracking("localhost:9", timeout=20, retries=0)
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.EMFILE
            assert "Too many open files" in caught.value.message
            os.close(taken.pop())


HANGING_RESOLVER = """
import socket, threading, pychrony
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
try:
    pychrony.get_tracking("clock.invalid", timeout=0.05, retries=0)
except pychrony.ChronyTimeoutError:
    print("late")
"""


def test_resolver_does_not_hold_up_the_exit() -> None:
    assert python(HANGING_RESOLVER).stdout == "late\n"


def test_resolved_address_keeps_its_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (V6, socket.SOCK_DGRAM, 17, "", ("fe80::1", 99, 0, 7)),
        (V6, socket.SOCK_DGRAM, 17, "", ("2001:db8::1", 99, 0, 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    first, second = Waiter().drive(resolve(parse("clock.invalid:99"), 20))
    assert first.socket_address() == ("fe80::1", 99, 0, 7)
    assert second.socket_address() == ("2001:db8::1", 99, 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        *("192.0.2.1", "0.0.0.0", "255.255.255.255", "192.0.2.1:9", "192.0.2.1:9999"),
        *("192.0.2.1:65535", "1.2.3.4:323"),
    ],
)
def test_plain_ipv4_is_parsed_as_any_other(text: str) -> None:
    assert parse(text) == _parse_any(text)
