"""WebSocket (RFC 6455): a handler that takes a `WebSocket` talks to its client for as long as both like.

    @io_route("/chat/{room}")
    async def chat(socket: WebSocket, room: str) -> None:
        async for message in socket:                    # ends when the client goes
            await socket.send(message)

The grammar of frames, the handshake and permessage-deflate are the `websockets` library's, which does no I/O here. This
module is what stands around it:

    bytes ──> SocketProtocol.data_received ──> frames ──> messages ──> queue ──> await socket.receive()
    bytes <── transport.write <── frames <── await socket.send(message)

A message wakes its handler directly: no task, timer or lock for each. What the handler has not taken yet is bounded;
then the client is not read any further. Its time (pings, closing) is looked at by the connections' one sweep.

A socket is *open* until a close frame is sent or received, or the connection is lost; from then on `receive` and `send`
raise SocketClosed. A handler that still runs some seconds after that is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from ..binding.annotations import without_annotated
from ..binding.binder import json_value
from ..core.encoding import json_bytes
from ..core.errors import ConfigurationError, HTTPError, TinysvcError, author_traceback, indented, notice
from ..core.messages import Failed, Handler, Request, Response
from ..core.settings import KiB, Settings
from ..service.plan import Wiring

log = logging.getLogger("tinysvc.websocket")

MAX_QUEUED = 16
"""Messages that may wait for the handler; then the client is not read. As the websockets library has it."""

MAX_QUEUED_SIZE = 64 * KiB
"""Bytes of them; one message may be longer."""

TURN, MANY_FRAMES = 16 * KiB, 200
"""Bytes that are looked at in one step, and frames in one turn of the loop: some 15 ms of them at most."""

GRACE = 10.0
"""Seconds that the client has for its part of the closing handshake, and a handler whose client has gone to end."""

LINGER = 2.0
"""Seconds that a client which has broken the rules is read on, so that it gets our close frame."""

MAX_REASON = 123
"""Bytes of UTF-8 in the reason of a close frame (RFC 6455, 5.5)."""

NORMAL, GOING_AWAY, UNSUPPORTED, LOST, INVALID_DATA, POLICY, INTERNAL = 1000, 1001, 1003, 1006, 1007, 1008, 1011


class SocketClosed(TinysvcError):
    """The socket is closed, or was lost: `code` is that of the close frame (RFC 6455, 7.4), 1006 if none came."""

    status = 499

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the socket was closed with {self.code}" + (f": {self.reason}" if self.reason else "")


class Upgraded(Protocol):
    """The connection that a socket lives on."""

    settings: Settings
    transport: asyncio.Transport
    write_paused: bool
    gone: bool
    task: asyncio.Task[None]

    def upgrade(self, protocol: SocketProtocol) -> bytes: ...
    def expect_within(self, seconds: float) -> None: ...
    async def drain(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class WebSocket:
    """One client's socket, for a handler's parameter of this type.

    It is accepted by `accept`, or by the first `receive` or `send`. To refuse it, raise HTTPError before that. Messages
    are str for text and bytes for binary. `async for` gives them until the socket is closed. `request` is the request
    that asked for it; `subprotocol` is what was agreed on, or "".
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.subprotocol = ""
        self._handshake = _check_handshake(request)
        self._protocol: SocketProtocol | None = None

    @classmethod
    def of_request(cls, request: Request) -> WebSocket:
        """HTTPError 426 for a request that asks for no WebSocket, 400 for one that asks wrongly."""
        return cls(request)

    @property
    def accepted(self) -> bool:
        return self._protocol is not None

    @property
    def close_code(self) -> int:
        """Of the close frame that came, or was sent first; 1006 if the client left without; 0 while it is open."""
        return self._protocol.code if self._protocol else 0

    async def accept(
        self,
        *,
        subprotocols: Sequence[str] = (),
        origins: Iterable[str] = (),
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Begin. HTTPError 403 for a page of another origin, and for `subprotocols` of which the client knows none.

        The first of `subprotocols` that the client offers is agreed on. A browser tells where its page comes from:
        that must be this very host, or one of `origins`, as in "https://app.example"; "*" allows all. `headers` go
        with the handshake's response.
        """
        if self._protocol is not None:
            raise RuntimeError("the socket was accepted already; accept it before the first receive or send")
        request = self.request
        _check_origin(request, frozenset(origins))
        self.subprotocol = _agreed(request, subprotocols)
        handshake = self._handshake
        lines = handshake.answer(self.subprotocol, Response(b"", headers=headers).headers)
        connection: Upgraded = request.upgrade
        self._protocol = SocketProtocol(connection, handshake.frames)
        self._protocol.begin(lines)

    async def _opened(self) -> SocketProtocol:
        if self._protocol is None:
            await self.accept()
        assert self._protocol is not None
        return self._protocol

    async def receive(self) -> str | bytes:
        """The next message. SocketClosed when there is none any more."""
        return await (self._protocol or await self._opened()).receive()

    async def receive_text(self) -> str:
        """The next message, which must be text: else the socket is closed with 1003."""
        return await self._received(str)  # type: ignore[return-value]

    async def receive_bytes(self) -> bytes:
        """The next message, which must be binary: else the socket is closed with 1003."""
        return await self._received(bytes)  # type: ignore[return-value]

    async def _received(self, kind: type) -> str | bytes:
        message = await self.receive()
        if type(message) is not kind:
            expected, came = ("text", "binary") if kind is str else ("binary", "text")
            await self._refuse(UNSUPPORTED, f"{expected} was expected, but the message is {came}")
        return message

    async def receive_json(self, type: Any = Any) -> Any:  # noqa: A002 - as in msgspec
        """The next message, text or binary, decoded as JSON of this type: else the socket is closed with 1007."""
        message = await self.receive()
        try:
            return json_value(message, type)
        except ValueError as error:
            return await self._refuse(INVALID_DATA, f"the message is not what was expected: {error}")

    async def _refuse(self, code: int, reason: str) -> NoReturn:
        reason = _shortened(reason)
        await self.close(code, reason)
        raise SocketClosed(code, reason)

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send text or bytes, as fast as the client reads. SocketClosed when there is nobody any more."""
        await (self._protocol or await self._opened()).send(message)

    async def send_json(self, value: Any) -> None:
        """Send `value` as JSON, in a text message: what a handler could return."""
        await (self._protocol or await self._opened()).send(json_bytes(value), text=True)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say good-bye, and wait until the client has said so too, or some seconds are over. Twice is harmless."""
        protocol = await self._opened()
        protocol.close(code, reason)
        await protocol.lost()

    async def end(self, code: int, reason: str) -> None:
        """Close behind the handler. From now on nothing cancels its task."""
        await self.close(code, reason)
        assert self._protocol is not None
        self._protocol.handler_ended = True

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await (self._protocol or await self._opened()).receive()
        except SocketClosed:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        state = "not accepted" if not self._protocol else f"closed {self.close_code}" if self.close_code else "open"
        return f"<WebSocket {self.request.raw_path} {self.request.client} {state}>"


# The handshake


class Handshake:
    """What is agreed on before the first frame."""

    def __init__(self, accept_key: str, extensions: str | None, frames: Any) -> None:
        self._accept_key = accept_key
        self._extensions = extensions
        self.frames = frames

    def answer(self, subprotocol: str, headers: Iterable[tuple[str, str]]) -> bytes:
        """The response that switches protocols."""
        lines = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", self._accept_key)]
        if self._extensions:
            lines.append(("sec-websocket-extensions", self._extensions))
        if subprotocol:
            lines.append(("sec-websocket-protocol", subprotocol))
        text = "".join(f"{name}: {value}\r\n" for name, value in [*lines, *headers])
        return f"HTTP/1.1 101 Switching Protocols\r\n{text}\r\n".encode("latin-1")


def _check_handshake(request: Request) -> Handshake:
    """HTTPError 426 or 400 for a request that is none (RFC 6455, 4.2.1)."""
    from websockets.datastructures import Headers
    from websockets.exceptions import InvalidHandshake, InvalidUpgrade
    from websockets.http11 import Request as HandshakeRequest
    from websockets.protocol import Protocol as Frames
    from websockets.protocol import Side
    from websockets.server import ServerProtocol

    fields = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw])
    connection: Upgraded | None = getattr(request, "upgrade", None)
    protocol = ServerProtocol(extensions=_extensions(connection), logger=_library)
    try:
        if connection is None or request.method != "GET":  # RFC 6455, 4.1
            raise InvalidUpgrade("Connection")
        accept_key, extensions, _ = protocol.process_request(HandshakeRequest(request.raw_path, fields))
    except InvalidUpgrade:
        text = "This path speaks WebSocket: ask for it with 'Connection: Upgrade' and 'Upgrade: websocket'."
        raise HTTPError(426, text, headers=[("upgrade", "websocket")]) from None
    except InvalidHandshake as error:
        if request.headers.get("sec-websocket-version", "13") != "13":
            version = [("upgrade", "websocket"), ("sec-websocket-version", "13")]  # RFC 6455, 4.4
            raise HTTPError(426, "The version of WebSocket that is spoken here is 13.", headers=version) from None
        raise HTTPError(400, f"The WebSocket handshake is wrong: {error}.") from None
    frames = Frames(Side.SERVER, max_size=connection.settings.max_message_size, logger=_library)
    frames.extensions = protocol.extensions
    return Handshake(accept_key, extensions, frames)


_library = logging.getLogger("tinysvc.websocket.frames")
_library.setLevel(logging.WARNING)  # it has a line for each socket that ends


def _extensions(connection: Upgraded | None) -> list[Any]:
    """permessage-deflate (RFC 7692), where answers are compressed too. Each message by itself: a window that is kept
    for each client would cost 300 KiB."""
    if connection is None or not connection.settings.compress:
        return []
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    return [ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)]


def _check_origin(request: Request, allowed: frozenset[str]) -> None:
    """Browsers let any page open a socket to anybody, with that one's cookies; so it is for us to look."""
    origin = request.headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    scheme, _, host = origin.lower().partition("://")
    own, came = _without_default_port(scheme, request.host.lower()), _without_default_port(scheme, host)
    if came != own and f"{scheme}://{came}" not in {_normal_origin(each) for each in allowed}:
        raise HTTPError(403, "This page may not open a WebSocket here.")


def _normal_origin(origin: str) -> str:
    scheme, mark, host = origin.lower().partition("://")
    return scheme + mark + _without_default_port(scheme, host)


def _without_default_port(scheme: str, host: str) -> str:
    """The host, without the port that its scheme has anyway: most browsers leave that out, others write it."""
    name, _, port = host.rpartition(":")
    return name if name and port in ("", _DEFAULT_PORTS.get(scheme)) else host


_DEFAULT_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443"}


def _agreed(request: Request, subprotocols: Sequence[str]) -> str:
    if not subprotocols:
        return ""
    offered = [name.strip() for name in request.headers.get("sec-websocket-protocol", "").split(",")]
    for name in subprotocols:
        if name in offered:
            return name
    raise HTTPError(403, f"The WebSocket must speak one of these subprotocols: {', '.join(subprotocols)}.")


# The connection, from its bytes to its messages


class SocketProtocol(asyncio.Protocol):
    """What the transport tells once it is upgraded; and all that a WebSocket does with it."""

    __slots__ = (
        "_ended", "_flow_paused", "_kind", "_loop", "_lost", "_messages", "_parts", "_pinged", "_rest", "_size",
        "_waiter", "code", "connection", "frames", "handler_ended", "reason", "transport",
    )  # fmt: skip

    def __init__(self, connection: Upgraded, frames: Any) -> None:
        self.connection = connection
        self.frames = frames
        self.transport = connection.transport
        self._loop = asyncio.get_running_loop()
        self.code = 0  # of the close frame; 0 while the socket is open
        self.reason = ""
        self._messages: deque[str | bytes] = deque()  # that the handler has not taken
        self._size = 0  # of them
        self._parts: bytearray | None = None  # of a message that has not come whole
        self._kind = 0  # its opcode
        self._waiter: asyncio.Future[None] | None = None  # of the handler, while it waits for a message
        self._lost: asyncio.Future[None] | None = None  # of who waits for the connection to end
        self._ended = False
        self._rest = b""  # has come, and is looked at in the loop's next turn
        self._flow_paused = False
        self._pinged = False  # and the client has said nothing since
        self.handler_ended = False

    def begin(self, response: bytes) -> None:
        if self.connection.gone:
            self.code = LOST
            return
        self.transport.write(response)
        rest = self.connection.upgrade(self)
        self._wait_for_ping()
        if rest:
            self.data_received(rest)

    def _wait_for_ping(self) -> None:
        if interval := self.connection.settings.ping_interval:
            self.connection.expect_within(interval)

    # What the transport tells

    def data_received(self, data: bytes) -> None:
        self._pinged = False
        if len(data) <= TURN and not self._rest:
            self._feed(data)
        else:
            self._rest += data
            self._feed_rest()

    def _feed_rest(self) -> None:
        """As much as is no long work: a megabyte of frames of one byte would hold the loop for a second."""
        rest, frames = self._rest, 0
        position = 0
        while position < len(rest) and frames < MANY_FRAMES:
            frames += self._feed(rest[position : position + TURN])
            position += TURN
        self._rest = rest[position:]
        self._regulate()
        if self._rest:
            self._loop.call_soon(self._feed_rest)

    def _feed(self, data: bytes) -> int:
        """How many frames there were in it."""
        frames = self.frames
        frames.receive_data(data)
        events = frames.events_received()
        for frame in events:
            if not self.code:
                self._take(frame)
        if frames.writes:
            self._write()
        if frames.close_sent is not None and not self.code:
            self._end(frames.close_rcvd or frames.close_sent)
        return len(events)

    def eof_received(self) -> bool:
        self._rest = b""
        self.frames.receive_eof()
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest = b""
        self.connection.connection_lost(exc)
        self._leave()
        if self._lost is not None:
            if not self._lost.done():
                self._lost.set_result(None)
        else:
            self._loop.call_later(GRACE, self._cancel_handler)  # if it does not notice

    def _cancel_handler(self) -> None:
        if not self.handler_ended:  # what closes its resources is not cancelled
            self.connection.task.cancel()

    def pause_writing(self) -> None:
        self.connection.pause_writing()
        self._regulate()  # who does not read our pongs is not read either

    def resume_writing(self) -> None:
        self.connection.resume_writing()
        self._regulate()

    # Messages

    def _take(self, frame: Any) -> None:
        opcode, data = frame.opcode, frame.data
        if opcode > 2:  # control frames are answered by the library
            return
        if opcode:
            if frame.fin:
                self._deliver(opcode, data)
                return
            self._kind, self._parts = opcode, bytearray(data)
        elif self._parts is not None:
            self._parts += data
            if frame.fin:
                parts, self._parts = self._parts, None
                self._deliver(self._kind, parts)

    def _deliver(self, opcode: int, data: bytes | bytearray) -> None:
        if opcode == 1:
            try:
                message: str | bytes = str(data, "utf-8")
            except UnicodeDecodeError as error:
                self._fail(INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        else:
            message = bytes(data)
        self._messages.append(message)
        self._size += len(message)
        if self._size > MAX_QUEUED_SIZE or len(self._messages) > MAX_QUEUED:
            self._regulate()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self) -> str | bytes:
        messages = self._messages
        while not messages:
            if self.code:
                raise SocketClosed(self.code, self.reason)
            if self._waiter is not None:
                raise RuntimeError("somebody waits for this socket's next message already; let one task receive")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = messages.popleft()
        self._size -= len(message)
        if self._flow_paused:
            self._regulate()
        return message

    def _regulate(self) -> None:
        """Read the client, or do not, by what waits for the handler, for the client and for us."""
        full = bool(
            self._size > MAX_QUEUED_SIZE
            or len(self._messages) > MAX_QUEUED
            or self.connection.write_paused
            or self._rest
        )
        if full != self._flow_paused and not self.connection.gone:
            self._flow_paused = full
            if full:
                self.transport.pause_reading()
            elif not self._ended:
                self.transport.resume_reading()

    async def send(self, message: str | bytes | bytearray | memoryview, *, text: bool = False) -> None:
        if self.transport.is_closing():  # it never pauses: a handler that only sends would hold the loop
            self._leave()
        if self.code:
            raise SocketClosed(self.code, self.reason)
        frames = self.frames
        if isinstance(message, str):
            frames.send_text(message.encode())
        elif isinstance(message, (bytes, bytearray, memoryview)):
            (frames.send_text if text else frames.send_binary)(message)
        else:
            raise TypeError(f"a message is text or bytes, not {message!r}; send_json(...) sends any other value")
        self._write()
        if self.connection.write_paused:
            await self._drained()

    async def _drained(self) -> None:
        try:
            await self.connection.drain()
        except ConnectionError:
            self._leave()
            raise SocketClosed(self.code, self.reason) from None
        finally:
            self._wait_for_ping()

    def _write(self) -> None:
        for data in self.frames.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self._finish()

    # The end

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, unless one was sent. ValueError for a code that may not be sent, or a long reason."""
        from websockets.exceptions import ProtocolError

        if len(reason.encode()) > MAX_REASON:
            raise ValueError(f"the reason of a close frame has at most {MAX_REASON} bytes, not {len(reason.encode())}")
        if self.code:
            return
        self._messages.clear()  # so that the client's close frame is read
        self._size = 0
        self._regulate()
        try:
            self.frames.send_close(code, reason)
        except ProtocolError:
            text = f"a close frame takes 1000 to 1003, 1007 to 1014 or 3000 to 4999, not {code!r}"
            raise ValueError(text) from None
        self._write()
        self._end(self.frames.close_sent)

    def _fail(self, code: int, reason: str) -> None:
        self.frames.fail(code, _shortened(reason))
        self._write()
        self._end(self.frames.close_sent)

    def _end(self, close: Any) -> None:
        """The socket is closed from now on; the connection has some time to follow."""
        self.code, self.reason = close.code, close.reason
        self.connection.expect_within(LINGER if self._ended else GRACE)
        self._wake()

    def _leave(self) -> None:
        """The client has gone, with its good-bye or without."""
        if not self.code:
            self.code = LOST
            self.connection.expect_within(GRACE)
        self._wake()

    def _finish(self) -> None:
        """All is said: the client is to close the connection, as it gets the end of ours."""
        self._ended = True
        if self.connection.gone:
            return
        if self.frames.close_rcvd is not None or not self.transport.can_write_eof():  # both have said it, or TLS
            self.transport.close()
            return
        self.transport.write_eof()
        if self._flow_paused:
            self.transport.resume_reading()  # a reset would take the close frame from the client's hands

    async def lost(self) -> None:
        """Wait until the connection has ended; the sweep sees to it that it does."""
        if not self.connection.gone:
            if self._lost is None:
                self._lost = self._loop.create_future()
            await asyncio.shield(self._lost)

    # What the connection's sweep and the server's end ask for

    def expire(self) -> None:
        """The time is over that was given last."""
        if self.code or (self._pinged and not self._flow_paused):
            log.debug("%s: cut off, as it did not answer in time", self.transport.get_extra_info("peername"))
            self.transport.abort()
        else:
            self._pinged = True
            self.frames.send_ping(b"")
            self._write()
            self.connection.expect_within(self.connection.settings.ping_timeout)

    def go_away(self) -> None:
        """The server is shutting down."""
        if not self.code:
            self.close(GOING_AWAY, "")


# The route


def missing_library() -> str:
    """Why no socket can be served here; "" if one can."""
    try:
        import websockets.server  # noqa: F401
    except ImportError as error:
        return f"WebSocket needs the websockets library ({error}); pip install 'tinysvc[websocket]'"
    return ""


def socket_parameter(wiring: Wiring) -> str:
    """The name of the parameter that takes the WebSocket; "" if there is none."""
    route, binder = wiring.mounted.route, wiring.binder
    sockets = [name for name, each in binder.parameters.items() if without_annotated(each.annotation) is WebSocket]
    name = sockets[0] if sockets else ""
    if name and (route.methods != ("GET",) or not inspect.iscoroutinefunction(route.function) or binder.body_kind):
        raise ConfigurationError.at(
            route.function, "takes a WebSocket, which begins with a GET without a body: make it async def, for GET only"
        )
    if name and route.timeout:
        raise ConfigurationError.at(route.function, "takes a WebSocket, which is open for long; leave out timeout")
    if name and (missing := missing_library()):
        raise ConfigurationError.at(route.function, missing)
    return name


def socket_handler(function: Callable[..., Any], name: str, bind: Callable[[Request], Mapping[str, Any]]) -> Handler:
    """What answers a route whose handler takes the socket as the parameter `name`."""

    async def handle(request: Request) -> Response:
        arguments = bind(request)
        socket: WebSocket = arguments[name]
        response, code, reason = Response(b"", 204), NORMAL, ""  # to nobody: the connection knows that it is over
        try:
            await function(**arguments)
        except SocketClosed:
            pass
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if not socket.accepted:
                raise
            response, (code, reason) = Failed(error), _farewell(request, error)
        if not socket.accepted:
            raise HTTPError(403, "The WebSocket was not accepted.")
        await socket.end(code, reason)
        return response

    return handle


def _shortened(reason: str) -> str:
    """As much of it as a close frame holds."""
    return reason.encode()[:MAX_REASON].decode(errors="ignore")


def _farewell(request: Request, error: BaseException) -> tuple[int, str]:
    """Code and reason of the close frame for what a handler has raised; what the client must not know is logged."""
    if isinstance(error, HTTPError):
        return POLICY, _shortened(error.detail)
    notice(error)
    text = str(error) if isinstance(error, TinysvcError) else f"the handler failed\n{author_traceback(error)}"
    words = "%s %s (request %s): %s"
    log.error(words, request.method, request.raw_path, request.id, indented(text))
    return INTERNAL, ""
