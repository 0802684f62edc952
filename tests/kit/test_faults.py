"""The faults of a scripted daemon."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from typing import Any

import pytest
from kit_helpers import (
    ask,
    assert_same,
    connected,
    header,
    read_tracking,
    request,
    udp_client,
)

import pychrony
from pychrony import ChronyTimeoutError
from pychrony.testing import (
    ALL_COMMANDS,
    Request,
    ScriptedDaemon,
    faults,
    make_auth_data,
    make_source,
)
from pychrony.testing.faults import Datagram


def test_faults_send_what_they_say() -> None:
    with ScriptedDaemon() as daemon:
        (correct,) = ask(daemon, request())
        for fault, wanted in [
            (faults.silent, []),
            (faults.duplicated, [correct, correct]),
            (faults.truncated(50), [correct[:50]]),
            (faults.wrong_sequence, [correct[:16] + b"\1\2\3\5" + correct[20:]]),
            (faults.overwritten(0, b"abc"), [correct[:28] + b"abc" + correct[31:]]),
            (faults.overwritten(75, b"abc"), [correct[:103] + b"abc"]),
            (faults.status(2), [header(33, 1, 2)]),
            (faults.version(9), [b"\x09" + header(33, 1, 18)[1:]]),
            (faults.count(7), [correct]),
        ]:
            daemon.misbehave = faults.only("TRACKING", fault)
            assert ask(daemon, request()) == wanted
        daemon.misbehave = faults.only("TRACKING", faults.garbage)
        (reply,) = ask(daemon, request())
        assert bytes(byte ^ 0xFF for byte in reply) == correct


def test_sequence_numbers_wrap() -> None:
    asked = Request("TRACKING", 33, None, 0, 0xFFFFFFFF, b"")
    (reply,) = faults.wrong_sequence(asked, bytes(28))
    assert reply == bytes(28)


def test_fault_of_the_count() -> None:
    for count in (0, 3, 100_000_000, 0xFFFFFFFE, 0xFFFFFFFF):
        with ScriptedDaemon(misbehave=faults.count(count)) as daemon:
            (reply,) = ask(daemon, request(14, 32))
            assert reply == header(14, 2, 0) + struct.pack("!I", count)
            assert_same(read_tracking(daemon), daemon.tracking)


def test_delayed_replies_do_not_hold_up_others() -> None:
    fault = faults.only("TRACKING", faults.delayed(0.2))
    with ScriptedDaemon(misbehave=fault) as daemon, udp_client(daemon) as client:
        start = time.monotonic()
        client.send(request())
        client.send(request())
        client.send(request(14, 32))
        arrived = [(client.recv(2000)[5], time.monotonic() - start) for _ in range(3)]
    assert [code for code, _ in arrived] == [14, 33, 33]
    assert 0.2 <= arrived[1][1] <= arrived[2][1]


def test_replies_leave_in_the_order_of_their_delays() -> None:
    def hook(request: Request, reply: bytes) -> list[Datagram]:
        return [(0.06, b"3"), (0, b"1"), (0.03, b"2")]

    with ScriptedDaemon(misbehave=hook) as daemon, udp_client(daemon) as client:
        client.send(request())
        assert [client.recv(9) for _ in range(3)] == [b"1", b"2", b"3"]


def test_fault_of_dropping_each_nth_reply() -> None:
    with ScriptedDaemon(misbehave=faults.dropping(3)) as daemon:
        with udp_client(daemon) as client:
            for n in range(9):
                client.send(request(attempt=n))
            for _ in range(6):
                client.recv(2000)
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(2000)
        daemon.misbehave = faults.dropping(1)
        with pytest.raises(ChronyTimeoutError):
            read_tracking(daemon, 0.1)


def test_fault_of_the_first_replies() -> None:
    fault = faults.first(2, faults.silent)
    with connected(misbehave=fault, timeout=0.3, retries=2) as (daemon, connection):
        assert_same(connection.get_tracking(), daemon.tracking)
        assert daemon.requests == [("TRACKING", None)] * 3


def test_fault_of_one_request_only() -> None:
    sources = [make_source(address=f"192.0.2.{n}") for n in range(3)]
    fault = faults.only("SOURCE_DATA", faults.status(2), index=1)
    with connected(sources=sources, misbehave=fault) as (daemon, connection):
        assert len(connection.get_source_stats()) == 3
        with pytest.raises(pychrony.ChronyPermissionError):
            connection.get_sources()
        replies = ask(daemon, *(request(15, 76, index=n) for n in range(3)))
        assert [reply[9] for reply in replies] == [0, 2, 0]


def test_fault_of_one_address_only() -> None:
    records = [make_auth_data(address=one) for one in ("::1", "::2")]
    fault = faults.only("AUTH_DATA", faults.status(1), address="::2")
    arguments = [bytes(15) + bytes((n, 0, 2, 0, 0)) for n in (1, 2)]
    with ScriptedDaemon(
        auth_data=records, misbehave=fault, open_commands=ALL_COMMANDS
    ) as daemon:
        replies = ask(
            daemon,
            *(
                request(code, 172, argument=argument)
                for code in (57, 67)
                for argument in arguments
            ),
        )
    assert [reply[9] for reply in replies] == [0, 0, 0, 1]
    assert daemon.requests[:4] == [
        *(("NTP_DATA", one) for one in ("::1", "::2")),
        *(("AUTH_DATA", one) for one in ("::1", "::2")),
    ]


def test_chain_adds_delays_up() -> None:
    fault = faults.chain(faults.delayed(0.1), faults.duplicated, faults.delayed(0.15))
    assert list(fault(Request("TRACKING", 33, None, 0, 0, b""), b"x")) == [
        (0.25, b"x"),
        (0.25, b"x"),
    ]
    silent = faults.chain(faults.duplicated, faults.silent, faults.delayed(1))
    assert not list(silent(Request("TRACKING", 33, None, 0, 0, b""), b"x"))


def test_hook_is_given_the_request() -> None:
    seen: list[Request] = []

    def hook(request: Request, reply: bytes) -> Iterable[bytes]:
        seen.append(request)
        yield reply

    with ScriptedDaemon(misbehave=hook) as daemon:
        tracking, source = request(attempt=5), request(15, 76, index=4)
        ask(daemon, tracking, source)
    assert seen[:2] == [
        Request("TRACKING", 33, None, 5, 0x01020304, tracking),
        Request("SOURCE_DATA", 15, 4, 0, 0x01020304, source),
    ]


class HookError(Exception):
    pass


def broken(request: Request, reply: bytes) -> list[bytes]:
    raise HookError


def lazily_broken(request: Request, reply: bytes) -> Iterable[bytes]:
    yield reply
    raise HookError


def test_an_error_of_a_hook_is_raised_at_the_end(any_address: str) -> None:
    daemon = ScriptedDaemon(address=any_address, misbehave=broken)
    with pytest.raises(HookError) as caught:
        with daemon:
            read_tracking(daemon, 0.1)
    assert isinstance(caught.value.__context__, pychrony.ChronyConnectionError)

    daemon.misbehave = None
    with daemon:
        assert_same(read_tracking(daemon), daemon.tracking)

    daemon.misbehave = lazily_broken
    daemon.start()
    assert_same(read_tracking(daemon), daemon.tracking)
    with pytest.raises(HookError):
        daemon.stop()


@pytest.mark.parametrize("nonsense", [b"reply", ["reply"], [("soon", b"")], [None]])
def test_a_hook_that_returns_nonsense_is_told(nonsense: Any) -> None:
    def hook(request: Request, reply: bytes) -> Any:
        return nonsense

    with pytest.raises(TypeError, match="a fault returns a list of bytes"):
        with ScriptedDaemon(misbehave=hook) as daemon:
            with pytest.raises(pychrony.ChronyConnectionError):
                read_tracking(daemon, 0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: faults.status(65536),
        lambda: faults.version(256),
        lambda: faults.count(-1),
    ],
)
def test_impossible_faults_are_refused_at_once(make: Any) -> None:
    with pytest.raises((ValueError, OverflowError, struct.error)):
        make()
