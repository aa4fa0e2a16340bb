"""websocket_protocol.py: frames, limits and closing, as raw bytes.

The subjects are those of the Autobahn test suite: framing, pings, reserved bits, opcodes, fragmentation, UTF-8,
closing, limits and compression.
"""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from typing import Any

import pytest

from http_ends import on_loop
from tinysvc import SocketClosed, WebSocket, io_route
from tinysvc.core.units import KiB, MiB
from tinysvc.web import websocket_protocol
from websocket_ends import (
    BINARY,
    CLOSE,
    CONT,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    Frame,
    RawSocket,
    close,
    echo,
    frame,
    open_socket,
    served,
)

pytestmark = pytest.mark.usefixtures("quiet")

SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536]
FIRST_FRAGMENT = frame(TEXT, b"a", fin=False)
ECHOED = [(TEXT, b"ab")]
VALID: dict[str, tuple[bytes, list[Frame]]] = {
    "ping": (frame(PING), [(PONG, b"")]),
    "ping-with-payload": (frame(PING, bytes(range(125))), [(PONG, bytes(range(125)))]),
    "unsolicited-pong": (frame(PONG, b"x") + frame(PING, b"y"), [(PONG, b"y")]),
    "ten-pings": (b"".join(frame(PING, b"%d" % i) for i in range(10)), [(PONG, b"%d" % i) for i in range(10)]),
    "two-fragments": (FIRST_FRAGMENT + frame(CONT, b"b"), ECHOED),
    "empty-fragments": (frame(TEXT, fin=False) + frame(CONT, fin=False) + frame(CONT), [(TEXT, b"")]),
    "ping-between": (FIRST_FRAGMENT + frame(PING, b"p") + frame(CONT, b"b"), [(PONG, b"p"), *ECHOED]),
    "utf8": (frame(TEXT, "κόσμε \U0001f600 \ufffe\x00".encode()), [(TEXT, "κόσμε \U0001f600 \ufffe\x00".encode())]),
    "utf8-split": (frame(TEXT, b"\xce", fin=False) + frame(CONT, b"\xba"), [(TEXT, b"\xce\xba")]),
    "utf8-highest": (frame(TEXT, b"\xf4\x8f\xbf\xbf"), [(TEXT, b"\xf4\x8f\xbf\xbf")]),
    "byte-fragments": (
        frame(BINARY, b"0", fin=False) + b"".join(frame(CONT, b"x", fin=False) for _ in range(300)) + frame(CONT),
        [(BINARY, b"0" + b"x" * 300)],
    ),
}
INVALID: dict[str, tuple[bytes, int]] = {
    **{f"reserved-bits-{rsv}": (frame(TEXT, b"x", rsv=rsv), 1002) for rsv in range(1, 8)},
    **{f"reserved-bits-{rsv}-in-a-ping": (frame(PING, b"x", rsv=rsv), 1002) for rsv in (1, 2, 4)},
    "reserved-bits-in-a-close": (frame(CLOSE, rsv=4), 1002),
    **{f"opcode-{opcode}": (frame(opcode, b"x"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "unmasked": (frame(TEXT, b"x", masked=False), 1002),
    "ping-too-long": (frame(PING, b"x" * 126), 1002),
    "ping-in-fragments": (frame(PING, b"x", fin=False), 1002),
    "pong-in-fragments": (frame(PONG, b"x", fin=False), 1002),
    "close-in-fragments": (frame(CLOSE, fin=False), 1002),
    "continuation-without-a-message": (frame(CONT, b"x"), 1002),
    "unfinished-continuation-without-a-message": (frame(CONT, b"x", fin=False), 1002),
    "text-within-a-text": (FIRST_FRAGMENT + frame(TEXT, b"b"), 1002),
    "binary-within-a-text": (FIRST_FRAGMENT + frame(BINARY, b"b"), 1002),
    "continuation-after-the-end": (FIRST_FRAGMENT + frame(CONT, b"b") + frame(CONT, b"c"), 1002),
    "close-within-a-message": (FIRST_FRAGMENT + close(), 1002),
    "utf8-bad-byte": (frame(TEXT, b"\xff"), 1007),
    "utf8-truncated": (frame(TEXT, b"abc\xce"), 1007),
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


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES)
@on_loop
async def test_messages_of_all_sizes_are_echoed(opcode: int, size: int) -> None:
    payload = b"*" * size if opcode == TEXT else os.urandom(size)
    async with open_socket() as peer:
        peer.send(frame(opcode, payload))
        assert await peer.frame() == (opcode, payload)


@on_loop
async def test_frames_arrive_byte_by_byte_or_many_at_once() -> None:
    data = frame(TEXT, b"one") + frame(PING, b"p") + frame(BINARY, b"\0" * 200) + frame(TEXT, "zwölf".encode())
    async with open_socket() as peer:
        for i in range(len(data)):
            peer.send(data[i : i + 1])
            await asyncio.sleep(0)
        found = [await peer.frame() for _ in range(4)]
        assert sorted(found) == sorted([(TEXT, b"one"), (PONG, b"p"), (BINARY, b"\0" * 200), (TEXT, "zwölf".encode())])
        peer.send(*[frame(TEXT, b"%d" % i) for i in range(100)])
        assert [await peer.frame() for _ in range(100)] == [(TEXT, b"%d" % i) for i in range(100)]


@on_loop
async def test_many_frames_do_not_block_the_event_loop() -> None:
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
    async with open_socket(count_turns, "/turns") as peer:
        peer.send(data)
        assert await peer.frame() == (BINARY, b"0" + b"x" * count + b"1")
    assert turns > count // (websocket_protocol.PARSE_SIZE // 7 + websocket_protocol.MAX_FRAMES)


@on_loop
async def test_frames_behind_the_handshake_are_received() -> None:
    async with served(echo) as server, server.client() as client:
        peer = RawSocket(client)
        await peer.open(behind=frame(TEXT, b"early") + frame(PING, b"x"))
        assert sorted([await peer.frame(), await peer.frame()]) == [(TEXT, b"early"), (PONG, b"x")]


@pytest.mark.parametrize("case", VALID)
@on_loop
async def test_valid_frames_are_handled(case: str) -> None:
    sent, expected = VALID[case]
    async with open_socket() as peer:
        peer.send(sent)
        assert [await peer.frame() for _ in expected] == expected
        peer.send(close())
        assert await peer.closed() == (1000, [])


@pytest.mark.parametrize("case", INVALID)
@on_loop
async def test_invalid_frames_close_the_socket(case: str) -> None:
    sent, expected = INVALID[case]
    async with open_socket() as peer:
        peer.send(frame(TEXT, b"before"), sent, frame(TEXT, b"behind"), frame(PING, b"behind"))
        code, before = await peer.closed()
        assert code == expected
        echoed = [f for f in before if f[0] == TEXT]
        assert all(payload in (b"before", b"ab") for _, payload in echoed)


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 3999, 4000, 4999, None]
)
@on_loop
async def test_client_close_code_is_echoed(code: int | None) -> None:
    seen: list[int] = []

    @io_route("/echo")
    async def handler(socket: WebSocket) -> None:
        with pytest.raises(SocketClosed) as caught:
            await socket.receive()
        assert caught.value.code == socket.close_code
        reason = ": bye" if code else ""
        assert str(caught.value) == f"the WebSocket was closed with code {socket.close_code}{reason}"
        seen.append(socket.close_code)

    async with open_socket(handler) as peer:
        peer.send(close(code, b"bye"), frame(TEXT, b"behind"), frame(PING), close(1000))
        assert await peer.closed() == (code, [])
    assert seen == [1005 if code is None else code]


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
async def test_compressed_messages(payload: bytes, code: int | None) -> None:
    if payload == b"bomb":
        compressor = zlib.compressobj(wbits=-15)
        payload = compressor.compress(bytes(50 * MiB)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
        assert len(payload) < MiB
    async with open_socket(echo, "/echo", DEFLATE, compress=True) as peer:
        assert b"\r\nsec-websocket-extensions: permessage-deflate" in peer.head
        peer.send(frame(TEXT, payload, rsv=4))
        if code is None:
            opcode, compressed = await peer.frame()
            assert opcode == TEXT
            message = zlib.decompressobj(-15).decompress(compressed + b"\0\0\xff\xff")
            assert message == (b"" if payload == b"\0" else b"Hello")
        else:
            assert (await peer.closed())[0] == code


# Limits


@on_loop
async def test_message_over_the_limit_closes_with_1009() -> None:
    async with open_socket(max_message_size=1000) as peer:
        for sent in (frame(BINARY, bytes(1000)), frame(BINARY, bytes(600), fin=False) + frame(CONT, bytes(400))):
            peer.send(sent)
            assert await peer.frame() == (BINARY, bytes(1000))
        peer.send(frame(BINARY, bytes(1001)))
        assert (await peer.closed())[0] == 1009


@on_loop
async def test_slow_handler_pauses_reading() -> None:
    taken = asyncio.Event()

    @io_route("/slow")
    async def slow(socket: WebSocket) -> None:
        await socket.accept()
        await taken.wait()
        async for message in socket:
            await socket.send(str(len(message)))

    async with served(slow, max_message_size=4 * KiB) as server, server.client() as client:
        peer = RawSocket(client)
        await peer.open("/slow")
        message, count = frame(BINARY, bytes(4 * KiB)), 8000
        peer.send(message * count)
        protocol: Any = server.only.upgraded
        while not protocol._flow_paused:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (
            protocol._size < websocket_protocol.MAX_QUEUED_SIZE + 512 * KiB
        )  # plus the bytes that uvloop reads at once
        taken.set()
        for _ in range(count):
            assert await peer.frame() == (TEXT, b"4096")
        peer.send(close())
        assert await peer.closed() == (1000, [])


@on_loop
async def test_slow_client_pauses_sending_and_reading() -> None:
    sent = 0

    @io_route("/many")
    async def send_many(socket: WebSocket) -> None:
        nonlocal sent
        while True:
            await socket.send(bytes(64 * KiB))
            sent += 1

    async with served(send_many, write_timeout=0.3, ping_interval=0.1) as server, server.client() as client:
        await RawSocket(client).open("/many")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = server.only
        while not connection.write_paused:
            await asyncio.sleep(0.001)
        assert connection.upgraded._flow_paused  # type: ignore[union-attr]
        while server.connections.open:  # disconnected after write_timeout
            await asyncio.sleep(0.01)
        assert sent < 200  # the kernel's buffers hold these messages


@on_loop
async def test_client_without_pongs_is_disconnected() -> None:
    ended: list[int] = []

    @io_route("/echo")
    async def handler(socket: WebSocket) -> None:
        async for _ in socket:
            pass
        ended.append(socket.close_code)

    async with open_socket(handler, ping_interval=0.1, ping_timeout=0.1) as peer:
        for _ in range(3):
            assert await peer.frame() == (PING, b"")
            peer.send(frame(PONG))
        assert await peer.frame() == (PING, b"")
        assert await peer.all() == []
    assert ended == [1006]


@on_loop
async def test_ping_interval_of_zero_sends_no_pings() -> None:
    async with open_socket(ping_interval=0) as peer:
        await asyncio.sleep(0.3)
        peer.send(close())
        assert await peer.closed() == (1000, [])


# Closing


@on_loop
async def test_connection_ends_without_the_clients_close_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_protocol, "GRACE", 0.1)

    @io_route("/once")
    async def once(socket: WebSocket) -> None:
        await socket.close(4001, "enough")
        await socket.close()  # a second call does nothing
        with pytest.raises(SocketClosed, match="4001: enough"):
            await socket.send("x")

    async with open_socket(once, "/once") as peer:
        assert await peer.all() == [(CLOSE, struct.pack("!H", 4001) + b"enough")]


@pytest.mark.parametrize("way", ["close-frame", "end-of-file", "reset"])
@on_loop
async def test_handler_is_cancelled_some_time_after_the_disconnect(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(websocket_protocol, "GRACE", 0.05)
    ends: list[str] = []
    running, ended = asyncio.Event(), asyncio.Event()

    @io_route("/waits")
    async def waits(socket: WebSocket) -> None:
        await socket.accept()
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append(f"cancelled, {socket.close_code}")
            raise
        finally:
            ended.set()

    async with served(waits) as server, server.client() as client:
        peer = RawSocket(client)
        await peer.open("/waits")
        await running.wait()
        if way == "close-frame":
            peer.send(close())
            assert await peer.closed() == (1000, [])
        elif way == "end-of-file":
            client.writer.close()
        else:
            client.reset()
        await ended.wait()
    assert ends == ["cancelled, 1000" if way == "close-frame" else "cancelled, 1006"]


@on_loop
async def test_messages_before_the_close_are_received() -> None:
    received: list[str | bytes] = []

    @io_route("/late")
    async def late(socket: WebSocket) -> None:
        await socket.accept()
        while not socket.close_code:
            await asyncio.sleep(0)
        received.extend([message async for message in socket])

    async with open_socket(late, "/late") as peer:
        peer.send(frame(TEXT, b"one"), frame(BINARY, b"two"), close())
        assert await peer.closed() == (1000, [])
    assert received == ["one", b"two"]


@on_loop
async def test_draining_server_closes_with_1001() -> None:
    async with served(echo) as server, server.client() as client:
        peer = RawSocket(client)
        await peer.open()
        draining = asyncio.ensure_future(server.connections.drain(5))
        assert await peer.frame() == (CLOSE, b"\x03\xe9")
        peer.send(close(1001))
        assert await peer.all() == []
        assert await draining


@on_loop
async def test_send_raises_once_the_transport_is_closing() -> None:
    raised = asyncio.Event()

    @io_route("/lost")
    async def lost(socket: WebSocket) -> None:
        await socket.accept()
        assert socket._protocol is not None
        socket._protocol.transport.abort()  # send() comes before connection_lost
        with pytest.raises(SocketClosed, match="1006"):
            await socket.send("message")
        raised.set()

    async with open_socket(lost, "/lost"):
        await raised.wait()


@pytest.mark.usefixtures("nothing_left")
@on_loop
async def test_closed_sockets_leave_nothing_behind() -> None:
    async with served(echo, compress=True) as server:
        for end in (close(), frame(3), b"\xff", None, b""):
            async with server.client() as client:
                peer = RawSocket(client)
                await peer.open("/echo", DEFLATE)
                peer.send(frame(TEXT, b"x"))
                await peer.frame()
                if end is None:
                    client.reset()
                else:
                    peer.send(end)
                    client.writer.write_eof()
                    await peer.all()
        while server.connections.open or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
