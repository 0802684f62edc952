"""The HTTP server: what clients may do to it."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import TypeVar

import pytest
from exporter import CERTIFICATE, Exporter, everything

from pychrony.prometheus import _http, _web, _workers
from pychrony.prometheus._http import Request, Response, Server, text

T = TypeVar("T")

GET = b"GET / HTTP/1.1\r\n\r\n"


async def hello(request: Request) -> Response:
    return text(200, f"{request.method} {request.path} {request.query}")


def play(
    scene: Callable[[Server, int], Awaitable[T]],
    answer: Callable[[Request], Awaitable[Response]] = hello,
    *,
    limit: int = 100,
    secure: bool = False,
    refused: Callable[[int], object] = id,
) -> T:
    """Run a scene with a server on a port of this machine."""
    context = _web.tls_context(str(CERTIFICATE), None, None) if secure else None

    async def run() -> T:
        listening = _workers.listen(("127.0.0.1", 0))
        with closing(listening):
            async with Server(
                [listening], answer, limit=limit, context=context, refused=refused
            ) as server:
                return await scene(server, listening.getsockname()[1])

    return asyncio.run(run())


def sending(*sent: bytes) -> Callable[[Server, int], Awaitable[bytes]]:
    """A scene in which a client sends pieces, and gets an answer."""
    return lambda _, port: exchange(port, *sent)


async def exchange(port: int, *sent: bytes, eof: bool = False) -> bytes:
    """Send pieces, and return all that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in sent:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    if eof:
        writer.write_eof()
    received = await reader.read()
    writer.close()
    return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ((GET,), 200),
        ((b"GET /a?b=c HTTP/1.0\r\nHost: x\r\n\r\n",), 200),
        ((GET[:5], GET[5:-1], GET[-1:]), 200),
        ((GET + b"more",), 200),
        ((b"GET /\r\n\r\n",), 400),
        ((b"GET / HTTP/2\r\n\r\n",), 400),
        ((b"\x00\xff\r\n\r\n",), 400),
        ((b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",), 400),
        ((b"x" * 20_000,), 431),
    ],
)
def test_status_of_requests(sent: tuple[bytes, ...], status: int) -> None:
    refused: list[int] = []
    received = play(sending(*sent), refused=refused.append)
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert refused == [status] * (status != 200)


def test_what_a_request_is() -> None:
    received = play(sending(b"GET /a%20b?c=d?e HTTP/1.1\r\n\r\n"))
    assert received.endswith(b"\r\n\r\nGET /a b c=d?e\n")


def test_answer_to_head() -> None:
    received = play(sending(b"HEAD / HTTP/1.1\r\n\r\n"))
    assert b"Content-Length: 8\r\n" in received
    assert received.endswith(b"Connection: close\r\n\r\n")


def test_client_that_has_said_all() -> None:
    """It has shut down its side, and waits for the answer."""

    async def slow(_: Request) -> Response:
        await asyncio.sleep(0.05)
        return text(200, "late")

    async def scene(_: Server, port: int) -> bytes:
        return await exchange(port, GET, eof=True)

    assert play(scene, slow).endswith(b"late\n")


def test_client_that_says_nothing_and_ends() -> None:
    async def scene(server: Server, port: int) -> tuple[bytes, int]:
        received = await exchange(port, GET[:3], eof=True)
        return received, len(server.clients)

    assert play(scene) == (b"", 0)


def test_client_that_goes_away_ends_its_scrape() -> None:
    ended = asyncio.Event()

    async def forever(_: Request) -> Response:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        raise AssertionError

    async def scene(_: Server, port: int) -> bool:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await asyncio.sleep(0.05)
        connection: socket.socket = writer.get_extra_info("socket")
        linger = b"\1\0\0\0\0\0\0\0"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        return await asyncio.wait_for(ended.wait(), 30)

    assert play(scene, forever)


def test_end_while_a_scrape_waits() -> None:
    async def forever(_: Request) -> Response:
        await asyncio.sleep(3600)
        raise AssertionError

    async def scene(server: Server, port: int) -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        while not server.clients:
            await asyncio.sleep(0.01)
        writer.close()

    play(scene, forever)


@pytest.mark.parametrize("secure", [False, True])
def test_idle_client(monkeypatch: pytest.MonkeyPatch, secure: bool) -> None:
    """It gets nothing, whether it sends nothing or a little now and then."""
    monkeypatch.setattr(_http, "_REQUEST_TIME", 0.1)

    async def scene(_: Server, port: int) -> bytes:
        received = await exchange(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            # Where the connection was reset, there is an error and no end.
            while not (reader.at_eof() or reader.exception()):
                writer.write(b"G")
                await asyncio.wait([asyncio.create_task(reader.read())], timeout=0.02)
        except ConnectionError:
            pass
        writer.close()
        return received

    assert play(scene, secure=secure) == b""


def test_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "_ANSWER_TIME", 0.1)

    async def much(_: Request) -> Response:
        return Response(200, bytes(50_000_000))

    async def scene(server: Server, port: int) -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(GET)
        await asyncio.sleep(0.05)
        while server.clients:
            await asyncio.sleep(0.01)
        writer.close()

    play(scene, much)


def test_too_many_clients() -> None:
    async def scene(_: Server, port: int) -> tuple[bytes, bytes]:
        _reader, idle = await asyncio.open_connection("127.0.0.1", port)
        first = await exchange(port, GET)
        idle.close()
        await idle.wait_closed()
        await asyncio.sleep(0.05)
        return first, await exchange(port, GET)

    refused: list[int] = []
    first, second = play(scene, limit=1, refused=refused.append)
    assert first.startswith(b"HTTP/1.1 503 ")
    assert b"LimitNOFILE" in first
    assert second.startswith(b"HTTP/1.1 200 ")
    assert refused == [503]


def test_what_follows_a_request_is_ignored() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.1)
        return await hello(request)

    assert play(sending(GET, b"more"), slow).startswith(b"HTTP/1.1 200 ")


def test_error_of_the_exporter(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: Request) -> Response:
        raise ZeroDivisionError

    refused: list[int] = []
    received = play(sending(GET), broken, refused=refused.append)
    assert received.startswith(b"HTTP/1.1 500 ")
    assert refused == [500]
    assert "ZeroDivisionError" in caplog.text


def test_answer_is_compressed_where_wanted() -> None:
    with everything() as daemon, Exporter("--address", daemon.address) as exporter:
        with exporter.connect() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n")
            with client.makefile("rb") as file:
                head, _, body = file.read().partition(b"\r\n\r\n")
        assert b"\r\nContent-Encoding: gzip\r\n" in head
        assert b"chrony_up 1.0\n" in gzip.decompress(body)


def test_errors_that_belong_to_no_request(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio repeats that no descriptor is left a thousand times."""
    loop = asyncio.new_event_loop()
    _http._report(loop, {"message": "m", "exception": OSError(errno.EMFILE, "none")})
    assert not caplog.text
    _http._report(loop, {"message": "something else", "exception": OSError()})
    loop.close()
    assert "something else" in caplog.text


def test_socket_of_several_workers_never_blocks() -> None:
    """Or one could wait in accept() for a connection that another has taken."""

    async def serve() -> None:
        with _workers.listen(("127.0.0.1", 0)) as shared:
            async with Server([shared], hello, limit=9):
                with shared.dup():  # as another worker does
                    assert not os.get_blocking(shared.fileno())

    asyncio.run(serve())
