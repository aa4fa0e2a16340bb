"""websocket.py: the methods of WebSocket, and the clients of two libraries."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
import wsproto
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Origin
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.events import Request as Handshake
from wsproto.extensions import PerMessageDeflate

from http_ends import on_loop
from tinysvc import Service, WebSocket, io_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work
from tinysvc.server.connections import Connections
from websocket_ends import (
    BINARY,
    CLOSE,
    TEXT,
    echo,
    frame,
    open_socket,
    served,
)

pytestmark = pytest.mark.usefixtures("quiet")


@dataclass
class Move:
    x: int
    y: int


@io_route("/moves")
async def moves(socket: WebSocket) -> None:
    while True:
        move = await socket.receive_json(Move)
        await socket.send_json(Move(move.y, move.x))


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@on_loop
async def test_receive_json_checks_the_type(opcode: int) -> None:
    async with open_socket(moves, "/moves") as peer:
        peer.send(frame(opcode, b'{"x": 1, "y": 2}'))
        assert await peer.frame() == (TEXT, b'{"x":2,"y":1}')
        peer.send(frame(opcode, b'{"x": 1, "y": "2"}'))
        opcode, payload = await peer.frame()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xef")
        assert payload[2:] == b"invalid message: $.y: Expected `int`, got `str`"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@on_loop
async def test_receive_json_takes_pydantic_models(opcode: int) -> None:
    pydantic = pytest.importorskip("pydantic")
    model: Any = pydantic.create_model("model", x=(int, ...), y=(int, 0))

    @io_route("/models")
    async def models(socket: WebSocket) -> None:
        while True:
            await socket.send_json([await socket.receive_json(model), await socket.receive_json(list[model])])

    async with open_socket(models, "/models") as peer:
        peer.send(frame(opcode, b'\xef\xbb\xbf{"x": 1}'))
        peer.send(frame(opcode, b'[{"x": 2}]'))
        assert await peer.frame() == (TEXT, b'[{"x":1,"y":0},[{"x":2,"y":0}]]')
        peer.send(frame(opcode, b'{"x": "a", "y": "b"}'))
        opcode, payload = await peer.frame()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xef")
        assert b"$.x: Input should be a valid integer" in payload


@pytest.mark.parametrize("sent", [b'{"x": {"%s": 1}}' % (b"x" * 500), b"[" * 100_000, b'"\xff"', b"", b"NaN"])
@on_loop
async def test_invalid_json_closes_with_1007(sent: bytes) -> None:
    async with open_socket(moves, "/moves") as peer:
        peer.send(frame(BINARY, sent))
        _, payload = await peer.frame()
        assert payload[:2] == b"\x03\xef"


@pytest.mark.parametrize(("kind", "other"), [("text", BINARY), ("bytes", TEXT)])
@on_loop
async def test_message_of_the_other_kind_closes_with_1003(kind: str, other: int) -> None:
    @io_route("/kind")
    async def strict(socket: WebSocket) -> None:
        while True:
            await socket.send(await (socket.receive_text() if kind == "text" else socket.receive_bytes()))

    async with open_socket(strict, "/kind") as peer:
        peer.send(frame(3 - other, b"x"))
        assert await peer.frame() == (3 - other, b"x")
        peer.send(frame(other, b"x"))
        _, payload = await peer.frame()
        assert payload[:2] == b"\x03\xeb"
        assert payload[2:].startswith(b"expected a ")


@on_loop
async def test_wrong_calls_have_clear_errors() -> None:
    errors: list[str] = []

    @io_route("/mistakes")
    async def mistakes(socket: WebSocket) -> None:
        await socket.accept()
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            socket.accept,
            lambda: socket.send(1),  # type: ignore[arg-type]
            lambda: socket.send({"a": 1}),  # type: ignore[arg-type]
            lambda: socket.close(1005),
            lambda: socket.close(1000, "x" * 124),
            lambda: asyncio.wait_for(asyncio.gather(socket.receive(), socket.receive()), 5),
        ]
        for call in calls:
            with pytest.raises((RuntimeError, TypeError, ValueError)) as caught:
                await call()
            errors.append(str(caught.value))
        assert repr(socket).endswith("open>")

    async with open_socket(mistakes, "/mistakes") as peer:
        assert await peer.frame() == (CLOSE, b"\x03\xe8")
    assert errors == [
        "the WebSocket is accepted already; call accept() before the first receive or send",
        "send() takes str or bytes, not 1; use send_json() for any other value",
        "send() takes str or bytes, not {'a': 1}; use send_json() for any other value",
        "the code of a close frame is 1000 to 1003, 1007 to 1014 or 3000 to 4999, not 1005",
        "the reason of a close frame has at most 123 bytes, not 124",
        "another task is already waiting in receive(); let one task receive the messages",
    ]


# Clients of other libraries


@pytest.mark.parametrize("compress", [False, True])
@on_loop
async def test_client_of_the_websockets_library(compress: bool) -> None:
    async with served(echo, compress=compress) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/echo") as client:
            assert bool(client.protocol.extensions) == compress
            for message in ("", "text", "zwölf", b"", b"bytes", "x" * 300_000, os.urandom(300_000)):
                await client.send(message)
                assert await client.recv() == message
            await client.send(iter(["in ", "", "pieces"]))
            assert await client.recv() == "in pieces"
            await (await client.ping(b"here?"))
        assert client.close_code == 1000


OFFERS: list[dict[str, Any] | None] = [
    None,
    {"client_no_context_takeover": True},
    {"server_max_window_bits": 9},
]


@pytest.mark.parametrize("extension", OFFERS)
@on_loop
async def test_client_of_the_wsproto_library(extension: dict[str, Any] | None) -> None:
    async with served(echo, compress=True) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        offers = [PerMessageDeflate(**extension)] if extension else []
        writer.write(client.send(Handshake("x", "/echo", extensions=list(offers))))
        events: list[Any] = []

        async def event() -> Any:
            while not events:
                client.receive_data(await reader.read(65536) or None)
                events.extend(client.events())
            return events.pop(0)

        accepted = await event()
        assert isinstance(accepted, AcceptConnection)
        assert bool(accepted.extensions) == bool(extension)
        for data in ("text", "x" * 100_000):
            writer.write(client.send(TextMessage(data)))
            received = ""
            while not isinstance(got := await event(), TextMessage) or not got.message_finished:
                received += got.data
            assert received + got.data == data
        writer.write(client.send(BytesMessage(b"1", message_finished=False)) + client.send(Ping(b"p")))
        assert (await event()).payload == b"p"
        writer.write(client.send(BytesMessage(b"2")))
        assert bytes((await event()).data) == b"12"
        assert isinstance(Pong(), Pong)
        writer.write(client.send(CloseConnection(1001, "bye")))
        closed = await event()
        assert (closed.code, closed.reason) == (1001, "bye")
        writer.close()


@on_loop
async def test_socket_over_tls() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with at_work(Service(echo), Settings()) as running:
        connections = Connections(running.handle, Settings(), scheme="https")
        listener = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0, ssl=context)
        port = listener.sockets[0].getsockname()[1]
        async with connect(
            f"wss://localhost:{port}/echo", ssl=trusting, origin=Origin(f"https://localhost:{port}")
        ) as it:
            for message in ("text", os.urandom(300_000)):
                await it.send(message)
                assert await it.recv() == message
        assert it.close_code == 1000
        async with connect(f"wss://localhost:{port}/echo", ssl=trusting) as it:
            it.transport.write(frame(3))
            with pytest.raises(ConnectionClosedError):
                await it.recv()
            assert it.close_code == 1002
        listener.close()
        while connections.open:
            await asyncio.sleep(0.01)
        connections.abort()
