"""websocket.py: frames of every kind, good and bad, as raw bytes; two libraries' clients; and what a handler sees.

The subjects are those of the Autobahn test suite: framing, pings, reserved bits, opcodes, fragmentation, UTF-8,
closing, limits and compression.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
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

from http_ends import Client, Server, get, logged, on_loop, serving
from tinysvc import ConfigurationError, HTTPError, Request, Response, Service, SocketClosed, WebSocket, io_route
from tinysvc.core.messages import Handler
from tinysvc.core.settings import KiB, MiB, Settings
from tinysvc.http import Connections
from tinysvc.runtime.running_service import at_work
from tinysvc.service.routes import cpu_route
from tinysvc.web import websocket

pytestmark = pytest.mark.usefixtures("quiet")

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
Frame = tuple[int, bytes]


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame, whatever is wrong with it."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
    head = bytes([fin << 7 | rsv << 4 | opcode]) + bytes([length[0] | masked << 7]) + length[1:]
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason)


KEY = ("Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
VERSION = "Sec-WebSocket-Version: 13"


class Socket:
    """A client that believes nothing."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.head = b""

    async def open(self, path: str = "/echo", *fields: str, behind: bytes = b"") -> None:
        self.client.send(get(path, *KEY, VERSION, *fields) + behind)
        self.head = await self.client.reader.readuntil(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), self.head
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in self.head  # RFC 6455, 1.3

    def send(self, *frames: bytes) -> None:
        self.client.send(b"".join(frames))

    async def frame(self) -> Frame:
        first, second = await self.client.reader.readexactly(2)
        assert not second & 0x80, "a server does not mask"
        assert first & 0xF0 == (0xC0 if b"permessage-deflate" in self.head and first & 15 < 8 else 0x80)
        size = second
        if size > 125:
            size = int.from_bytes(await self.client.reader.readexactly(2 if size == 126 else 8))
            assert size > 125
        return first & 0xF, await self.client.reader.readexactly(size)

    async def all(self) -> list[Frame]:
        """What comes until the server ends the connection."""
        found = []
        while True:
            try:
                found.append(await self.frame())
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return found

    async def closed(self) -> tuple[int | None, list[Frame]]:
        """The code that the server closes with, and what came before."""
        *before, (opcode, payload) = await self.all()
        assert opcode == CLOSE
        payload[2:].decode()
        return int.from_bytes(payload[:2]) if payload else None, before


@asynccontextmanager
async def served(*handlers: Any, **options: Any) -> AsyncIterator[Server]:
    settings = Settings(**options)
    async with at_work(Service(*handlers), settings) as running, serving(running.handle, **options) as server:
        yield server


@asynccontextmanager
async def socket(handler: Any = None, path: str = "/echo", *fields: str, **options: Any) -> AsyncIterator[Socket]:
    """An open socket with the handler."""
    async with served(handler or echo, **options) as server, server.client() as client:
        found = Socket(client)
        await found.open(path, *fields)
        yield found


@io_route("/echo")
async def echo(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


# Frames


SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536]


@pytest.mark.usefixtures("nothing_left")
@on_loop
async def test_however_a_socket_ends_nothing_is_left() -> None:
    async with served(echo, compress=True) as server:
        for end in (close(), frame(3), b"\xff", None, b""):
            async with server.client() as client:
                each = Socket(client)
                await each.open("/echo", DEFLATE)
                each.send(frame(TEXT, b"x"))
                await each.frame()
                if end is None:
                    client.reset()
                else:
                    each.send(end)
                    client.writer.write_eof()
                    await each.all()
        while server.connections.open or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES)
@on_loop
async def test_framing(opcode: int, size: int) -> None:
    payload = b"*" * size if opcode == TEXT else os.urandom(size)
    async with socket() as each:
        each.send(frame(opcode, payload))
        assert await each.frame() == (opcode, payload)


@on_loop
async def test_frames_may_come_byte_by_byte_and_many_at_once() -> None:
    data = frame(TEXT, b"one") + frame(PING, b"p") + frame(BINARY, b"\0" * 200) + frame(TEXT, "zwölf".encode())
    async with socket() as each:
        for i in range(len(data)):
            each.send(data[i : i + 1])
            await asyncio.sleep(0)
        found = [await each.frame() for _ in range(4)]
        assert sorted(found) == sorted([(TEXT, b"one"), (PONG, b"p"), (BINARY, b"\0" * 200), (TEXT, "zwölf".encode())])
        each.send(*[frame(TEXT, b"%d" % i) for i in range(100)])
        assert [await each.frame() for _ in range(100)] == [(TEXT, b"%d" % i) for i in range(100)]


@on_loop
async def test_others_have_their_turn_while_many_frames_come() -> None:
    turns = 0

    @io_route("/turns")
    async def count_turns(socket: WebSocket) -> None:
        nonlocal turns
        await socket.accept()
        receiving = asyncio.ensure_future(socket.receive())
        while not receiving.done():
            turns += 1
            await asyncio.sleep(0)
        await socket.send(receiving.result())

    count = 100_000
    data = frame(BINARY, b"0", fin=False) + frame(CONT, b"x", fin=False) * count + frame(CONT, b"1")
    async with socket(count_turns, "/turns") as each:
        each.send(data)
        assert await each.frame() == (BINARY, b"0" + b"x" * count + b"1")
    assert turns > count // (websocket.TURN // 7 + websocket.MANY_FRAMES)


@on_loop
async def test_frames_may_come_with_the_handshake() -> None:
    async with served(echo) as server, server.client() as client:
        each = Socket(client)
        await each.open(behind=frame(TEXT, b"early") + frame(PING, b"x"))
        assert sorted([await each.frame(), await each.frame()]) == [(TEXT, b"early"), (PONG, b"x")]


A = frame(TEXT, b"a", fin=False)
ECHOED = [(TEXT, b"ab")]
GOOD: dict[str, tuple[bytes, list[Frame]]] = {
    "ping": (frame(PING), [(PONG, b"")]),
    "ping-with-payload": (frame(PING, bytes(range(125))), [(PONG, bytes(range(125)))]),
    "pong-unasked": (frame(PONG, b"x") + frame(PING, b"y"), [(PONG, b"y")]),
    "ten-pings": (b"".join(frame(PING, b"%d" % i) for i in range(10)), [(PONG, b"%d" % i) for i in range(10)]),
    "two-fragments": (A + frame(CONT, b"b"), ECHOED),
    "empty-fragments": (frame(TEXT, fin=False) + frame(CONT, fin=False) + frame(CONT), [(TEXT, b"")]),
    "ping-between": (A + frame(PING, b"p") + frame(CONT, b"b"), [(PONG, b"p"), *ECHOED]),
    "utf8": (frame(TEXT, "κόσμε \U0001f600 \ufffe\x00".encode()), [(TEXT, "κόσμε \U0001f600 \ufffe\x00".encode())]),
    "utf8-cut": (frame(TEXT, b"\xce", fin=False) + frame(CONT, b"\xba"), [(TEXT, b"\xce\xba")]),
    "utf8-highest": (frame(TEXT, b"\xf4\x8f\xbf\xbf"), [(TEXT, b"\xf4\x8f\xbf\xbf")]),
    "byte-fragments": (
        frame(BINARY, b"0", fin=False) + b"".join(frame(CONT, b"x", fin=False) for _ in range(300)) + frame(CONT),
        [(BINARY, b"0" + b"x" * 300)],
    ),
}


@pytest.mark.parametrize("case", GOOD)
@on_loop
async def test_what_is_allowed_is_answered(case: str) -> None:
    sent, expected = GOOD[case]
    async with socket() as each:
        each.send(sent)
        assert [await each.frame() for _ in expected] == expected
        each.send(close())
        assert await each.closed() == (1000, [])


BAD: dict[str, tuple[bytes, int]] = {
    **{f"reserved-bits-{rsv}": (frame(TEXT, b"x", rsv=rsv), 1002) for rsv in range(1, 8)},
    **{f"reserved-bits-{rsv}-in-a-ping": (frame(PING, b"x", rsv=rsv), 1002) for rsv in (1, 2, 4)},
    "reserved-bits-in-a-close": (frame(CLOSE, rsv=4), 1002),
    **{f"opcode-{opcode}": (frame(opcode, b"x"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "unmasked": (frame(TEXT, b"x", masked=False), 1002),
    "ping-too-long": (frame(PING, b"x" * 126), 1002),
    "ping-in-fragments": (frame(PING, b"x", fin=False), 1002),
    "pong-in-fragments": (frame(PONG, b"x", fin=False), 1002),
    "close-in-fragments": (frame(CLOSE, fin=False), 1002),
    "nothing-to-continue": (frame(CONT, b"x"), 1002),
    "nothing-to-continue-unfinished": (frame(CONT, b"x", fin=False), 1002),
    "text-within-a-text": (A + frame(TEXT, b"b"), 1002),
    "binary-within-a-text": (A + frame(BINARY, b"b"), 1002),
    "continued-after-its-end": (A + frame(CONT, b"b") + frame(CONT, b"c"), 1002),
    "close-within-a-message": (A + close(), 1002),
    "utf8-bad-byte": (frame(TEXT, b"\xff"), 1007),
    "utf8-cut-at-the-end": (frame(TEXT, b"abc\xce"), 1007),
    "utf8-overlong": (frame(TEXT, b"\xc0\xaf"), 1007),
    "utf8-surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "utf8-too-high": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "utf8-bad-in-a-fragment": (frame(TEXT, b"ab\xff", fin=False) + frame(CONT, b"c"), 1007),
    "close-of-one-byte": (frame(CLOSE, b"\x03"), 1002),
    "close-too-long": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "close-reason-no-utf8": (close(1000, b"\xce"), 1007),
    "length-of-eight-bytes-huge": (b"\x82\xff" + b"\xff" * 8 + b"mask", 1009),
    "too-long": (frame(BINARY, bytes(MiB + 1)), 1009),
    "too-long-in-fragments": (frame(BINARY, bytes(MiB), fin=False) + frame(CONT, b"x"), 1009),
    **{f"close-{code}": (close(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000)},
}


@pytest.mark.parametrize("case", BAD)
@on_loop
async def test_what_is_not_allowed_closes(case: str) -> None:
    sent, expected = BAD[case]
    async with socket() as each:
        each.send(frame(TEXT, b"before"), sent, frame(TEXT, b"behind"), frame(PING, b"behind"))
        code, before = await each.closed()
        assert code == expected
        echoed = [f for f in before if f[0] == TEXT]
        assert all(payload in (b"before", b"ab") for _, payload in echoed)


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 3999, 4000, 4999, None]
)
@on_loop
async def test_closing(code: int | None) -> None:
    seen: list[int] = []

    @io_route("/echo")
    async def handler(socket: WebSocket) -> None:
        with pytest.raises(SocketClosed) as caught:
            await socket.receive()
        assert caught.value.code == socket.close_code
        assert str(caught.value) == f"the socket was closed with {socket.close_code}" + (": bye" if code else "")
        seen.append(socket.close_code)

    async with socket(handler) as each:
        each.send(close(code, b"bye"), frame(TEXT, b"behind"), frame(PING), close(1000))
        assert await each.closed() == (code, [])
    assert seen == [1005 if code is None else code]


# Limits


@on_loop
async def test_a_message_may_be_as_long_as_the_limit_says() -> None:
    async with socket(max_message_size=1000) as each:
        for sent in (frame(BINARY, bytes(1000)), frame(BINARY, bytes(600), fin=False) + frame(CONT, bytes(400))):
            each.send(sent)
            assert await each.frame() == (BINARY, bytes(1000))
        each.send(frame(BINARY, bytes(1001)))
        assert (await each.closed())[0] == 1009


@on_loop
async def test_a_handler_that_does_not_receive_holds_its_client_back() -> None:
    taken = asyncio.Event()

    @io_route("/slow")
    async def slow(socket: WebSocket) -> None:
        await socket.accept()
        await taken.wait()
        async for message in socket:
            await socket.send(str(len(message)))

    async with served(slow, max_message_size=4 * KiB) as server, server.client() as client:
        each = Socket(client)
        await each.open("/slow")
        message, count = frame(BINARY, bytes(4 * KiB)), 8000
        each.send(message * count)
        protocol: Any = server.only.upgraded
        while not protocol._flow_paused:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert protocol._size < websocket.MAX_QUEUED_SIZE + 512 * KiB  # what uvloop reads at once, on top
        taken.set()
        for _ in range(count):
            assert await each.frame() == (TEXT, b"4096")
        each.send(close())
        assert await each.closed() == (1000, [])


@on_loop
async def test_a_client_that_does_not_read_holds_its_handler_back_and_is_not_read_itself() -> None:
    sent = 0

    @io_route("/pours")
    async def pours(socket: WebSocket) -> None:
        nonlocal sent
        while True:
            await socket.send(bytes(64 * KiB))
            sent += 1

    async with served(pours, write_timeout=0.3, ping_interval=0.1) as server, server.client() as client:
        await Socket(client).open("/pours")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = server.only
        while not connection.write_paused:
            await asyncio.sleep(0.001)
        assert connection.upgraded._flow_paused  # type: ignore[union-attr]
        while server.connections.open:  # it is cut off, as it takes nothing
            await asyncio.sleep(0.01)
        assert sent < 200  # what the kernel holds for it


@on_loop
async def test_a_client_that_does_not_answer_pings_is_cut_off() -> None:
    ended: list[int] = []

    @io_route("/echo")
    async def handler(socket: WebSocket) -> None:
        async for _ in socket:
            pass
        ended.append(socket.close_code)

    async with socket(handler, ping_interval=0.1, ping_timeout=0.1) as each:
        for _ in range(3):
            assert await each.frame() == (PING, b"")
            each.send(frame(PONG))
        assert await each.frame() == (PING, b"")
        assert await each.all() == []
    assert ended == [1006]


@on_loop
async def test_without_an_interval_there_are_no_pings() -> None:
    async with socket(ping_interval=0) as each:
        await asyncio.sleep(0.3)
        each.send(close())
        assert await each.closed() == (1000, [])


# The end


@on_loop
async def test_a_handler_that_returns_says_good_bye() -> None:
    @io_route("/once")
    async def once(socket: WebSocket) -> None:
        await socket.send(await socket.receive_text())

    async with socket(once, "/once") as each:
        each.send(frame(TEXT, b"x"))
        assert await each.frame() == (TEXT, b"x")
        assert await each.frame() == (CLOSE, b"\x03\xe8")
        each.send(close())
        assert await each.all() == []


@on_loop
async def test_a_client_that_does_not_say_good_bye_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "GRACE", 0.1)

    @io_route("/once")
    async def once(socket: WebSocket) -> None:
        await socket.close(4001, "enough")
        await socket.close()  # twice is harmless
        with pytest.raises(SocketClosed, match="4001: enough"):
            await socket.send("x")

    async with socket(once, "/once") as each:
        assert await each.all() == [(CLOSE, struct.pack("!H", 4001) + b"enough")]


@pytest.mark.parametrize("way", ["closes", "vanishes", "resets"])
@on_loop
async def test_a_handler_that_does_not_notice_is_cancelled(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(websocket, "GRACE", 0.05)
    ends: list[str] = []
    running, ended = asyncio.Event(), asyncio.Event()

    @io_route("/deaf")
    async def deaf(socket: WebSocket) -> None:
        await socket.accept()
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append(f"cancelled, {socket.close_code}")
            raise
        finally:
            ended.set()

    async with served(deaf) as server, server.client() as client:
        each = Socket(client)
        await each.open("/deaf")
        await running.wait()
        if way == "closes":
            each.send(close())
            assert await each.closed() == (1000, [])
        elif way == "vanishes":
            client.writer.close()
        else:
            client.reset()
        await ended.wait()
    assert ends == ["cancelled, 1000" if way == "closes" else "cancelled, 1006"]


@on_loop
async def test_what_was_sent_before_the_close_is_still_received() -> None:
    received: list[str | bytes] = []

    @io_route("/late")
    async def late(socket: WebSocket) -> None:
        await socket.accept()
        while not socket.close_code:
            await asyncio.sleep(0)
        received.extend([message async for message in socket])

    async with socket(late, "/late") as each:
        each.send(frame(TEXT, b"one"), frame(BINARY, b"two"), close())
        assert await each.closed() == (1000, [])
    assert received == ["one", b"two"]


@on_loop
async def test_a_draining_server_goes_away() -> None:
    async with served(echo) as server, server.client() as client:
        each = Socket(client)
        await each.open()
        draining = asyncio.ensure_future(server.connections.drain(5))
        assert await each.frame() == (CLOSE, b"\x03\xe9")
        each.send(close(1001))
        assert await each.all() == []
        assert await draining


@pytest.mark.parametrize(
    ("error", "frame_payload", "line"),
    [
        (RuntimeError("secret"), b"\x03\xf3", "RuntimeError: secret"),
        (SystemExit("secret"), b"\x03\xf3", "SystemExit: secret"),
        (HTTPError(409, "taken" * 100), b"\x03\xf0" + (b"taken" * 25)[:123], ""),
        (TimeoutError("too slow"), b"\x03\xf3", "TimeoutError: too slow"),
        (SocketClosed(1000), b"\x03\xe8", ""),
    ],
)
def test_a_handler_that_fails(
    error: Exception, frame_payload: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    @io_route("/fails")
    async def fails(socket: WebSocket) -> None:
        await socket.accept()
        raise error

    @on_loop
    async def ask() -> None:
        async with socket(fails, "/fails") as each:
            assert await each.frame() == (CLOSE, frame_payload)
            each.send(close())
            assert await each.all() == []

    ask()
    messages = logged(caplog)
    assert len(messages) == (1 if line else 0)
    assert all(line in message and "GET /fails" in message for message in messages)


# Before it is open

UPGRADE, CONNECTION, SECRET = KEY


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ((), 426, "This path speaks WebSocket"),
        ((UPGRADE, SECRET, VERSION), 426, "This path speaks WebSocket"),
        ((CONNECTION, SECRET, VERSION), 426, "This path speaks WebSocket"),
        (("Upgrade: h2c", CONNECTION, SECRET, VERSION), 426, "This path speaks WebSocket"),
        ((UPGRADE, CONNECTION, VERSION), 400, "missing Sec-WebSocket-Key"),
        ((UPGRADE, CONNECTION, "Sec-WebSocket-Key: short", VERSION), 400, "Sec-WebSocket-Key"),
        ((UPGRADE, CONNECTION, SECRET, SECRET, VERSION), 400, "Sec-WebSocket-Key"),
        ((UPGRADE, CONNECTION, SECRET), 400, "missing Sec-WebSocket-Version"),
        ((UPGRADE, CONNECTION, SECRET, "Sec-WebSocket-Version: 8"), 426, "that is spoken here is 13"),
        ((*KEY, VERSION, "Origin: http://evil.example"), 403, "This page may not open"),
        ((*KEY, VERSION, "Origin: http://x:81"), 403, "This page may not open"),
        ((*KEY, VERSION, "Origin: null"), 403, "This page may not open"),
        ((*KEY, VERSION, "Origin: http://[::1"), 403, "This page may not open"),
    ],
)
@on_loop
async def test_a_handshake_that_is_wrong_is_answered(fields: tuple[str, ...], status: int, detail: str) -> None:
    async with served(echo) as server, server.client() as client:
        for _ in range(2):  # and the connection goes on
            answer = await client.ask(get("/echo", *fields))
            assert (answer.status, detail in answer.body.decode()) == (status, True), answer
            if status == 426:
                assert (answer.fields["upgrade"], answer.fields["connection"]) == ("websocket", "upgrade")


@on_loop
async def test_an_old_client_or_a_body_gets_no_socket() -> None:
    async with served(echo) as server:
        for change in (("HTTP/1.1", "HTTP/1.0"), ("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi")):
            async with server.client() as client:
                client.send(get("/echo", *KEY, VERSION).decode().replace(*change).encode())
                assert (await client.answer()).status == 426


@on_loop
async def test_a_content_length_of_zero_is_no_body() -> None:
    async with socket(echo, "/echo", "Content-Length: 0") as each:
        each.send(frame(TEXT, b"a"))
        assert await each.frame() == (TEXT, b"a")


@on_loop
async def test_head_does_not_switch_protocols() -> None:
    async with served(echo) as server, server.client() as client:
        client.send(get("/echo", *KEY, VERSION, method="HEAD") + get("/echo"))
        assert [(await client.answer(head=True)).status, (await client.answer()).status] == [426, 426]


@on_loop
async def test_elsewhere_an_offer_to_upgrade_is_ignored() -> None:
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
async def test_origins_that_may(origin: str | None) -> None:
    @io_route("/mine")
    async def mine(socket: WebSocket) -> None:
        await socket.accept(origins=["https://app.example"], headers=[("set-cookie", "a=b")])

    async with socket(mine, "/mine", *([f"Origin: {origin}"] if origin else [])) as each:
        assert b"\r\nset-cookie: a=b\r\n" in each.head
        assert await each.frame() == (CLOSE, b"\x03\xe8")


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [("chat.v1", "chat.v1"), ("other, chat.v1 , chat.v2", "chat.v2"), ("other", None), (None, None)],
)
@on_loop
async def test_subprotocols(offered: str | None, agreed: str | None) -> None:
    @io_route("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept(subprotocols=["chat.v2", "chat.v1"])
        await socket.send(socket.subprotocol)

    fields = [f"Sec-WebSocket-Protocol: {offered}"] if offered else []
    async with served(chat) as server, server.client() as client:
        if agreed:
            each = Socket(client)
            await each.open("/chat", *fields)
            assert f"\r\nsec-websocket-protocol: {agreed}\r\n".encode() in each.head
            assert await each.frame() == (TEXT, agreed.encode())
        else:
            answer = await client.ask(get("/chat", *KEY, VERSION, *fields))
            assert answer.status == 403
            assert b"one of these subprotocols: chat.v2, chat.v1" in answer.body


@on_loop
async def test_a_handler_can_refuse() -> None:
    @io_route("/private/{name}")
    async def private(socket: WebSocket, name: str, token: str = "") -> None:
        if token != "t":
            raise HTTPError(401, f"who are you, {name}?")
        if name == "nobody":
            return
        await socket.send(name)

    async with served(private) as server, server.client() as client:
        assert (await client.ask(get("/private/ada", *KEY, VERSION))).status == 401
        assert (await client.ask(get("/private/nobody?token=t", *KEY, VERSION))).status == 403
        each = Socket(client)
        await each.open("/private/ada?token=t")
        assert await each.frame() == (TEXT, b"ada")


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_where_a_socket_cannot_be_is_said_at_start_up(method: str) -> None:
    if method == "POST":

        @io_route("/x", methods=["POST"])
        async def handler(socket: WebSocket) -> None: ...
    else:

        @io_route("/x")
        def handler(socket: WebSocket) -> None: ...  # type: ignore[misc]

    async def start() -> None:
        async with at_work(Service(handler), Settings()):
            pass

    with pytest.raises(ConfigurationError, match=r"handler .*takes a WebSocket.*make it async def, for GET only"):
        asyncio.run(start())


# What a handler can do


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
async def test_json_is_typed(opcode: int) -> None:
    async with socket(moves, "/moves") as each:
        each.send(frame(opcode, b'{"x": 1, "y": 2}'))
        assert await each.frame() == (TEXT, b'{"x":2,"y":1}')
        each.send(frame(opcode, b'{"x": 1, "y": "2"}'))
        opcode, payload = await each.frame()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xef")
        assert payload[2:] == b"the message is not what was expected: $.y: Expected `int`, got `str`"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@on_loop
async def test_json_is_read_as_a_body_is(opcode: int) -> None:
    pydantic = pytest.importorskip("pydantic")
    model: Any = pydantic.create_model("model", x=(int, ...), y=(int, 0))

    @io_route("/models")
    async def models(socket: WebSocket) -> None:
        while True:
            await socket.send_json([await socket.receive_json(model), await socket.receive_json(list[model])])

    async with socket(models, "/models") as each:
        each.send(frame(opcode, b'\xef\xbb\xbf{"x": 1}'))
        each.send(frame(opcode, b'[{"x": 2}]'))
        assert await each.frame() == (TEXT, b'[{"x":1,"y":0},[{"x":2,"y":0}]]')
        each.send(frame(opcode, b'{"x": "a", "y": "b"}'))
        opcode, payload = await each.frame()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xef")
        assert b"$.x: Input should be a valid integer" in payload


@pytest.mark.parametrize("sent", [b'{"x": {"%s": 1}}' % (b"x" * 500), b"[" * 100_000, b'"\xff"', b"", b"NaN"])
@on_loop
async def test_what_is_no_json_closes(sent: bytes) -> None:
    async with socket(moves, "/moves") as each:
        each.send(frame(BINARY, sent))
        _, payload = await each.frame()
        assert payload[:2] == b"\x03\xef"


@pytest.mark.parametrize(("kind", "other"), [("text", BINARY), ("bytes", TEXT)])
@on_loop
async def test_text_or_bytes_can_be_insisted_on(kind: str, other: int) -> None:
    @io_route("/kind")
    async def strict(socket: WebSocket) -> None:
        while True:
            await socket.send(await (socket.receive_text() if kind == "text" else socket.receive_bytes()))

    async with socket(strict, "/kind") as each:
        each.send(frame(3 - other, b"x"))
        assert await each.frame() == (3 - other, b"x")
        each.send(frame(other, b"x"))
        _, payload = await each.frame()
        assert payload[:2] == b"\x03\xeb"
        assert b"was expected, but the message is" in payload


@on_loop
async def test_mistakes_are_named() -> None:
    said: list[str] = []

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
            said.append(str(caught.value))
        assert repr(socket).endswith("open>")

    async with socket(mistakes, "/mistakes") as each:
        assert await each.frame() == (CLOSE, b"\x03\xe8")
    assert said == [
        "the socket was accepted already; accept it before the first receive or send",
        "a message is text or bytes, not 1; send_json(...) sends any other value",
        "a message is text or bytes, not {'a': 1}; send_json(...) sends any other value",
        "a close frame takes 1000 to 1003, 1007 to 1014 or 3000 to 4999, not 1005",
        "the reason of a close frame has at most 123 bytes, not 124",
        "somebody waits for this socket's next message already; let one task receive",
    ]


@on_loop
async def test_middleware_stands_around_a_socket() -> None:
    async def guarded(request: Request, call_next: Handler) -> Response:
        if "token" not in request.query:
            raise HTTPError(401, "no token")
        return await call_next(request)

    async with (
        at_work(Service(echo, middleware=[guarded]), Settings()) as running,
        serving(running.handle) as server,
        server.client() as client,
    ):
        assert (await client.ask(get("/echo", *KEY, VERSION))).status == 401
        each = Socket(client)
        await each.open("/echo?token=1")
        each.send(frame(TEXT, b"x"))
        assert await each.frame() == (TEXT, b"x")


# Clients of other makers, and compression


@pytest.mark.parametrize("compress", [False, True])
@on_loop
async def test_the_client_of_websockets(compress: bool) -> None:
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
async def test_the_client_of_wsproto(extension: dict[str, Any] | None) -> None:
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
async def test_over_tls() -> None:
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


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xf2\x48\xcd\xc9\xc9\x07\x00", None),  # "Hello", RFC 7692, 7.2.3.1
        (b"\x00", None),
        (b"\xff\xff\xff", 1002),
        (b"bomb", 1009),
    ],
)
@on_loop
async def test_messages_that_are_compressed(payload: bytes, code: int | None) -> None:
    if payload == b"bomb":
        packer = zlib.compressobj(wbits=-15)
        payload = packer.compress(bytes(50 * MiB)) + packer.flush(zlib.Z_SYNC_FLUSH)[:-4]
        assert len(payload) < MiB
    async with socket(echo, "/echo", DEFLATE, compress=True) as each:
        assert b"\r\nsec-websocket-extensions: permessage-deflate" in each.head
        each.send(frame(TEXT, payload, rsv=4))
        if code is None:
            packed_opcode, packed = await each.frame()
            assert packed_opcode == TEXT
            unpacked = zlib.decompressobj(-15).decompress(packed + b"\0\0\xff\xff")
            assert unpacked == (b"" if payload == b"\0" else b"Hello")
        else:
            assert (await each.closed())[0] == code


@on_loop
async def test_a_window_of_its_own_for_each_message() -> None:
    async with socket(echo, "/echo", DEFLATE, compress=True) as each:
        assert b"server_no_context_takeover" in each.head
        assert b"client_no_context_takeover" in each.head


def test_without_the_library_it_is_said_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "websockets.server", None)

    async def start() -> None:
        async with at_work(Service(echo), Settings()):
            pass

    with pytest.raises(ConfigurationError, match=r"echo .*pip install 'tinysvc\[websocket\]'"):
        asyncio.run(start())


def test_a_socket_in_a_worker_is_refused() -> None:
    async def start() -> None:
        async with at_work(Service(in_worker), Settings()):
            pass

    with pytest.raises(ConfigurationError, match=r"in_worker.*WebSocket.*@io_route"):
        asyncio.run(start())


@cpu_route("/worker")
def in_worker(socket: WebSocket) -> None: ...


def test_the_library_is_quiet() -> None:
    assert not logging.getLogger("tinysvc.websocket.frames").isEnabledFor(logging.INFO)


@on_loop
async def test_send_raises_as_soon_as_the_transport_closes() -> None:
    raised = asyncio.Event()

    @io_route("/lost")
    async def lost(socket: WebSocket) -> None:
        await socket.accept()
        assert socket._protocol is not None
        socket._protocol.transport.abort()  # connection_lost has no turn before the next send
        with pytest.raises(SocketClosed, match="1006"):
            await socket.send("message")
        raised.set()

    async with socket(lost, "/lost"):
        await raised.wait()
