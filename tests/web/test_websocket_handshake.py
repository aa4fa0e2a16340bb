"""websocket_handshake.py: invalid handshakes, origins, subprotocols and extensions."""

from __future__ import annotations

import logging

import pytest

from http_ends import get, on_loop
from tinysvc import WebSocket, io_route
from websocket_ends import (
    CLOSE,
    DEFLATE,
    KEY,
    TEXT,
    VERSION,
    RawSocket,
    echo,
    frame,
    open_socket,
    served,
)

pytestmark = pytest.mark.usefixtures("quiet")

UPGRADE, CONNECTION, SECRET = KEY
NOT_A_SOCKET = "This path accepts WebSocket connections only"


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ((), 426, NOT_A_SOCKET),
        ((UPGRADE, SECRET, VERSION), 426, NOT_A_SOCKET),
        ((CONNECTION, SECRET, VERSION), 426, NOT_A_SOCKET),
        (("Upgrade: h2c", CONNECTION, SECRET, VERSION), 426, NOT_A_SOCKET),
        ((UPGRADE, CONNECTION, VERSION), 400, "missing Sec-WebSocket-Key"),
        ((UPGRADE, CONNECTION, "Sec-WebSocket-Key: short", VERSION), 400, "Sec-WebSocket-Key"),
        ((UPGRADE, CONNECTION, SECRET, SECRET, VERSION), 400, "Sec-WebSocket-Key"),
        ((UPGRADE, CONNECTION, SECRET), 400, "missing Sec-WebSocket-Version"),
        ((UPGRADE, CONNECTION, SECRET, "Sec-WebSocket-Version: 8"), 426, "supports version 13"),
        ((*KEY, VERSION, "Origin: http://evil.example"), 403, "A page of this origin may not open"),
        ((*KEY, VERSION, "Origin: http://x:81"), 403, "A page of this origin may not open"),
        ((*KEY, VERSION, "Origin: null"), 403, "A page of this origin may not open"),
        ((*KEY, VERSION, "Origin: http://[::1"), 403, "A page of this origin may not open"),
    ],
)
@on_loop
async def test_invalid_handshake_gets_an_http_response(fields: tuple[str, ...], status: int, detail: str) -> None:
    async with served(echo) as server, server.client() as client:
        for _ in range(2):  # the connection stays open
            response = await client.ask(get("/echo", *fields))
            assert (response.status, detail in response.body.decode()) == (status, True), response
            if status == 426:
                assert (response.fields["upgrade"], response.fields["connection"]) == ("websocket", "upgrade")


@on_loop
async def test_http_1_0_or_a_body_gets_426() -> None:
    async with served(echo) as server:
        for change in (("HTTP/1.1", "HTTP/1.0"), ("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi")):
            async with server.client() as client:
                client.send(get("/echo", *KEY, VERSION).decode().replace(*change).encode())
                assert (await client.response()).status == 426


@on_loop
async def test_content_length_of_zero_is_no_body() -> None:
    async with open_socket(echo, "/echo", "Content-Length: 0") as peer:
        peer.send(frame(TEXT, b"a"))
        assert await peer.frame() == (TEXT, b"a")


@on_loop
async def test_head_does_not_switch_protocols() -> None:
    async with served(echo) as server, server.client() as client:
        client.send(get("/echo", *KEY, VERSION, method="HEAD") + get("/echo"))
        assert [(await client.response(head=True)).status, (await client.response()).status] == [426, 426]


@on_loop
async def test_other_routes_ignore_the_upgrade_header() -> None:
    @io_route("/plain")
    async def plain() -> str:
        return "plain"

    async with served(plain) as server, server.client() as client:
        for _ in range(2):
            assert (await client.ask(get("/plain", *KEY, VERSION))).body == b"plain"


@pytest.mark.parametrize(
    "origin",
    ["http://x", "https://x", "http://x:80", "https://x:443", "https://app.example", "https://App.example:443", None],
)
@on_loop
async def test_allowed_origins(origin: str | None) -> None:
    @io_route("/mine")
    async def mine(socket: WebSocket) -> None:
        await socket.accept(origins=["https://app.example"], headers=[("set-cookie", "a=b")])

    async with open_socket(mine, "/mine", *([f"Origin: {origin}"] if origin else [])) as peer:
        assert b"\r\nset-cookie: a=b\r\n" in peer.head
        assert await peer.frame() == (CLOSE, b"\x03\xe8")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("chat.v1", "chat.v1"), ("other, chat.v1 , chat.v2", "chat.v2"), ("other", None), (None, None)],
)
@on_loop
async def test_first_supported_subprotocol_is_chosen(offered: str | None, chosen: str | None) -> None:
    @io_route("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept(subprotocols=["chat.v2", "chat.v1"])
        await socket.send(socket.subprotocol)

    fields = [f"Sec-WebSocket-Protocol: {offered}"] if offered else []
    async with served(chat) as server, server.client() as client:
        if chosen:
            peer = RawSocket(client)
            await peer.open("/chat", *fields)
            assert f"\r\nsec-websocket-protocol: {chosen}\r\n".encode() in peer.head
            assert await peer.frame() == (TEXT, chosen.encode())
        else:
            response = await client.ask(get("/chat", *KEY, VERSION, *fields))
            assert response.status == 403
            assert b"one of these subprotocols: chat.v2, chat.v1" in response.body


@on_loop
async def test_each_message_is_compressed_by_itself() -> None:
    async with open_socket(echo, "/echo", DEFLATE, compress=True) as peer:
        assert b"server_no_context_takeover" in peer.head
        assert b"client_no_context_takeover" in peer.head


def test_library_logs_warnings_only() -> None:
    assert not logging.getLogger("tinysvc.websocket.frames").isEnabledFor(logging.INFO)
