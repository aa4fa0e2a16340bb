"""HTTP/1.1 on asyncio streams: the shell around wire/.

A connection is one long-lived task that repeats: take a request from the buffer, call the handler, write the response.
`wire/connection.py` decides about the bytes: which request they are, and which bytes a response is. `wire/inbox.py`
holds the bytes that came too soon, `wire/bodies.py` reads bodies, `wire/sending.py` sends bigger responses.

Flow control, the task and the deadlines are here. No task, timer or lock is made for a request: once a second, a sweep
looks at the deadline that each connection carries. The meaning of that deadline is the connection's phase.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextvars import Context, copy_context
from math import inf
from typing import Protocol, cast

from .core import forks, request_context
from .core.context_variables import differs_from
from .core.errors import HTTPError, ProtocolError, TinysvcError, UnencodableResult
from .core.requests import SAFE_METHODS, Peer, Request
from .core.responses import Handler, Response, add_request_id, close_content, problem_response
from .core.settings import Settings
from .wire import connection as wire_states
from .wire.bodies import BodyReader
from .wire.connection import ServerConnection
from .wire.inbox import Inbox
from .wire.sending import SEPARATE_WRITE, OutgoingStream, SharedState, send, unread_bytes

log = logging.getLogger("tinysvc.http")

LINGER = 2.0
"""Seconds we read on after a refusal: the client gets the response before the reset (cowboy: 1 s)."""

IDLE, HEAD, BODY, HANDLER, WRITE, LINGERING = range(6)
"""The phases of a connection, by the event that its task waits for; see `Connection.expire` for a passed deadline."""

RETRY = [("retry-after", "1")]


class ServerState(SharedState, Protocol):
    """The state that all connections of a server share: `server/connections.py`."""

    loop: asyncio.AbstractEventLoop
    handler: Handler
    settings: Settings
    scheme: str
    context: Context
    """The context variables that each request begins with."""
    now: float
    """Seconds, at the last sweep."""
    idle_until: float
    """The deadline of a connection that becomes idle now."""
    body_memory: int
    """Bytes of bodies that all requests hold, but for those that came whole with their heads."""
    takes_new: bool
    """Whether a connection that was accepted just before a drain may still bring its first request."""

    def add(self, connection: Connection) -> None: ...
    def discard(self, connection: Connection) -> None: ...


class UpgradedProtocol(Protocol):
    """The protocol of a connection that does not speak HTTP any more, beside being an asyncio.Protocol."""

    def expire(self) -> None:
        """Its deadline has passed."""

    def go_away(self) -> None:
        """The server shuts down."""


class Connection(asyncio.StreamReaderProtocol):
    """One client. `serve` is its task; the other methods are its steps, and the events of its transport."""

    def __init__(self, server: ServerState) -> None:
        self.reader = asyncio.StreamReader(loop=server.loop)  # reports the end to the writer; its buffer stays empty
        super().__init__(self.reader, loop=server.loop)
        self.server = server
        self.settings = server.settings
        self.wire = ServerConnection(server.settings)
        self.inbox = Inbox(self.wire, server.settings.max_pipelined)
        self.data_received = self.inbox.put  # type: ignore[method-assign]  # without a call between
        self.handler = server.handler
        self.phase = IDLE
        self.deadline = server.now + self.settings.first_byte_timeout
        self.request: Request | None = None  # the request whose handler runs
        self.disconnected_request: Request | None = None  # its handler still runs after a disconnect, or on a WebSocket
        self.body: BodyReader | None = None  # the body of the request, unless it came whole
        self.body_memory = 0  # bytes of that body that count as held
        self.stream: OutgoingStream | None = None
        self.upgraded: UpgradedProtocol | None = None
        self.write_paused = False
        self.disconnected = False
        self._unsent = 0  # when the deadline for writing was set

    # Events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        server = self.server
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self.writer = asyncio.StreamWriter(self.transport, self, self.reader, server.loop)
        self.peer = Peer(transport.get_extra_info("peername"), transport.get_extra_info("sockname"), server.scheme)
        self.wire.peer, self.inbox.transport = self.peer, self.transport
        server.add(self)
        self._begin_task()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_paused = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_paused = False

    def eof_received(self) -> bool | None:
        self.inbox.end()
        if not self.settings.half_close:
            self._end_work()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            exc.__traceback__ = None  # the reader keeps the exception, and so the frames in its traceback
        super().connection_lost(exc)
        self.disconnected = True
        self.server.discard(self)
        self.inbox.end()
        self._end_work()

    def _end_work(self) -> None:
        """Stop the work for a disconnected client: the pool decides about a job; other safe handlers are cancelled."""
        request = self.request
        if request is None or self.phase != HANDLER:
            return
        self.disconnect_request()  # report a disconnect once: connection_lost after EOF must not cancel the cleanup
        log.debug("499: %s disconnected while %r was handled", self.peer.client, request)
        if request.on_disconnect is not None:
            request.on_disconnect()
        elif request.method in SAFE_METHODS:
            self.task.cancel()

    # The life of the connection

    def _begin_task(self) -> None:
        """Serve in a new task, with a context of its own."""
        self.task = self.server.loop.create_task(self.serve(), context=self.server.context.copy())
        request_context.register_task(self.task, self)

    async def serve(self) -> None:
        """Feed, take, call, write, until a side closes; one place that recovers."""
        initial, goes_on, wire = self.server.context, False, self.wire
        has_variables = len(initial) > 0
        try:
            while True:
                request = wire.next_request() if wire.buffer else None
                if request is None:
                    if not await self._receive_head():
                        break
                    continue
                self.request = request
                if not wire.is_plain:
                    self._prepare(request)
                self.phase, self.deadline = HANDLER, inf
                rest = self._respond(request, await self.handler(request))  # a variable would keep a big response alive
                if rest is not None and not await rest:
                    break
                # The next request must not see the variables that this one has set. Mostly there are none at all.
                if (has_variables or len(copy_context())) and differs_from(initial):
                    goes_on = True
                    break
        except ProtocolError as error:
            await self._refuse(error)
        except TimeoutError:
            if self.phase == HEAD and wire.buffer:
                await self._refuse(ProtocolError(408, "The request head took too long to arrive."))
        except OSError as error:  # of the network: reset, timed out, unreachable
            log.debug("the connection with %s ended: %r", self.peer.client, error)
        except asyncio.CancelledError:
            pass  # the client has disconnected, or the server aborts the connection: reported elsewhere
        except UnencodableResult as error:  # of the response's headers: nothing has been written yet
            log.error("%r: the response cannot be sent: %s", self.request, error)
            await self._refuse(TinysvcError())
        except Exception:  # of the handler: nothing has been written yet
            log.exception("%r failed; this is a bug in tinysvc", self)
            await self._refuse(TinysvcError())
        finally:
            if goes_on:
                self._begin_task()
            else:
                self._free_memory()
                self.close()
                del self.writer  # break the reference cycle

    def _prepare(self, request: Request) -> None:
        """Give the request the reader of its body, and the offer to change protocols."""
        if self.wire.body is not None:
            self.body = BodyReader(self, self.wire.body)
            request.receive_body_from(self.body)
        if self.wire.offers_upgrade:
            request.upgrade = self

    def _receive_head(self) -> Awaitable[bool]:
        """Wait for more bytes of a head. False when the client has disconnected, TimeoutError at the deadline."""
        inbox = self.inbox
        if self.wire.buffer or inbox.held or inbox.ended or self.server.draining:
            return self._receive_next()
        inbox.waiter = self.server.loop.create_future()
        return inbox.waiter

    async def _receive_next(self) -> bool:
        inbox = self.inbox
        if self.phase == IDLE and self.wire.incoming == wire_states.HEAD:  # a head has begun, and its time limit runs
            self.phase, self.deadline = HEAD, self.server.now + self.settings.header_timeout
        if self.disconnected or (self.server.draining and not (self.wire.buffer or self.is_new())):
            return False
        if inbox.has_bytes:
            await asyncio.sleep(0)  # pipelined bytes are already buffered: yield to other tasks once
        if inbox.fill_buffer():
            return True
        inbox.check_time()
        if inbox.ended:
            return False
        inbox.waiter = self.server.loop.create_future()
        return await inbox.waiter

    async def read(self) -> bytes:
        """The bytes that have come, else those that come next; b"" at the end. TimeoutError at the deadline."""
        return await self.inbox.read(self.server.loop, self.disconnected or self.reader.at_eof())

    # The body of a request

    async def receive_body(self, reader: BodyReader) -> bytes:
        """Wait for more bytes of a body. ProtocolError 400 or 408 when they do not come."""
        phase = self.phase, self.deadline
        self.phase, self.deadline = BODY, reader.start_clock(self.server.now)
        try:
            data = await self.read()
        except TimeoutError:
            raise ProtocolError(408, "The request body took too long to arrive.") from None
        finally:
            reader.stop_clock(self.server.now)
            self.phase, self.deadline = phase
        if not data:
            raise ProtocolError(400, "The request body was cut short.")
        return data

    def expect_more(self, reader: BodyReader) -> None:
        """Some of the body has come, and the task waits for more."""
        reader.stop_clock(self.server.now)
        self.deadline = reader.start_clock(self.server.now)

    def check_room(self, size: int) -> None:
        """ProtocolError 503 if the server cannot hold `size` more bytes of bodies."""
        if size > 0 and self.server.body_memory + size > self.settings.max_body_memory:
            raise ProtocolError(503, "The server holds as many request bodies as it may.", headers=RETRY)

    def count_body(self, size: int) -> None:
        """The request holds `size` bytes more, until it ends."""
        self.check_room(size)
        self.body_memory += size
        self.server.body_memory += size

    def _free_memory(self) -> None:
        self.server.body_memory -= self.body_memory
        self.body_memory = 0

    # Another protocol

    def switch(self, protocol: asyncio.BaseProtocol | None) -> None:
        """Let `protocol` have the bytes from now on; None: the connection itself again."""
        if not self.disconnected:
            self.transport.pause_reading()  # uvloop chooses its way to read when reading begins
            self.transport.set_protocol(protocol or self)
            if not self.reader.at_eof():
                self.transport.resume_reading()

    def upgrade(self, protocol: UpgradedProtocol) -> bytes:
        """From now on `protocol` gets the events of the transport; returns the bytes that have come already.

        For the handler of a request, as long as it runs: when it has returned, the connection is closed.
        """
        self.upgraded = protocol
        self.wire.close_after(0)
        self.disconnect_request()
        rest = self.inbox.take_all()
        self.switch(cast(asyncio.Protocol, protocol))
        return rest

    def expect_within(self, seconds: float) -> None:
        """Call `expire` after so many seconds, or a little later, unless another deadline is set before."""
        self.deadline = self.server.now + seconds

    # Responses

    def _respond(self, request: Request, response: Response) -> Awaitable[bool] | None:
        """Write the response. None if that was all, as it mostly is; else the rest of the work is to be awaited.

        The rest returns whether the connection can take another request.
        """
        wire, content = self.wire, response.content
        if not (
            wire.is_plain
            and response.status == 200
            and type(content) is bytes
            and len(content) < SEPARATE_WRITE
            and not self.disconnected
        ):
            return self._respond_with_more(request, response)
        self.transport.write(wire.plain_response(request, response, self.server.date_lines))
        if self.write_paused or self.body_memory:
            return self._finish()
        self.request = None
        self.phase, self.deadline = IDLE, self.server.idle_until
        return None

    async def _respond_with_more(self, request: Request, response: Response) -> bool:
        if forks.in_child:
            forks.end_child()
        if self.disconnected or self.upgraded is not None:
            await close_content(response.content)
            return False
        if response.status >= 500:
            add_request_id(response, request)
        body = self.body
        if body is not None:
            if response.status >= 400 or not body.is_discardable():
                self.wire.close_after(0)
            body.begin_response()
        await send(self, request, response)
        return await self._finish()

    async def _finish(self) -> bool:
        """After the response."""
        if self.write_paused:
            await self.drain()
        self._free_memory()
        self.request = None
        wire, body = self.wire, self.body
        if wire.keep_alive and body is not None:
            await body.discard()
        if wire.end_response():
            self.phase, self.deadline = IDLE, self.server.idle_until
            return True
        if body is not None or wire.buffer:
            await self._linger()
        return False

    async def drain(self) -> None:
        """Wait until the client has read enough of the written bytes."""
        before = self.phase, self.deadline
        self._expect_reading()
        try:
            await self.writer.drain()
        except OSError as error:
            error.__traceback__ = None  # the reader keeps the exception, and so the response in its traceback
            raise ConnectionResetError(str(error)) from None
        self.phase, self.deadline = before

    async def _refuse(self, error: TinysvcError) -> None:
        """Respond to a message that was not understood, and close."""
        request, self.request = self.request, None
        wire = self.wire
        wire.close_after(0)
        wire.minor = b"1"
        self._free_memory()
        if not self.disconnected:
            asked = request or Request("GET", "/")
            response = problem_response(error, asked)
            head = wire.head(asked, response, b"content-length: %d\r\n" % len(response.content), self.server.date_lines)
            self.transport.write(head if asked.method == "HEAD" else head + response.content)
            await self._linger()

    async def _linger(self) -> None:
        """End our side and read on for a while: a reset would discard the response before the client has read it."""
        if self.disconnected:
            return
        self.phase, self.deadline = LINGERING, self.server.now + LINGER
        try:
            if self.transport.can_write_eof():  # not over TLS
                self.transport.write_eof()
            while await self.read():
                pass
        except (OSError, RuntimeError):
            pass  # reset, out of time, or closing already

    def close(self) -> None:
        """Close when all bytes are sent; the sweep aborts the connection of a client that does not read them."""
        self._expect_reading()
        self.transport.close()

    # Deadlines, and the server's end

    def _expect_reading(self) -> None:
        """The client has `write_timeout` seconds to read something."""
        self.phase, self.deadline = WRITE, self.server.now + self.settings.write_timeout
        self._unsent = 0 if self.disconnected else unread_bytes(self.transport)

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        if self.phase == WRITE:
            unsent = 0 if self.disconnected else unread_bytes(self.transport)
            if unsent < self._unsent:
                self._unsent, self.deadline = unsent, now + self.settings.write_timeout
            else:
                self.transport.abort()
            return
        self.deadline = inf
        if self.upgraded is not None:
            self.upgraded.expire()
        elif self.stream is None or not self.stream.beat():
            self.inbox.interrupt()

    def refuse_all(self, error: HTTPError) -> None:
        """Respond to the next request, if there is one, with `error`, and close after it."""

        async def refuse(request: Request) -> Response:
            return problem_response(error, request)

        self.handler = refuse
        self.wire.close_after(0)

    def current_request(self) -> Request | None:
        """The request whose handler, stream or cleanup runs."""
        return self.request or self.disconnected_request

    def is_new(self) -> bool:
        """Whether the connection has not brought a request yet, and may."""
        return self.request is None and self.phase <= HEAD and self.server.takes_new

    def disconnect_request(self) -> None:
        """No event of the transport stops its handler from now on: connection_lost must not cancel the cleanup."""
        self.disconnected_request, self.request = self.request or self.disconnected_request, None

    def end_when_idle(self) -> bool:
        """Close at once if nothing of a request has come and no response is under way. True if so."""
        if self.upgraded is not None:
            self.upgraded.go_away()
        if self.phase != LINGERING and not (self.phase <= HEAD and self.inbox.is_awaited()):
            return False
        self.phase = LINGERING
        self.inbox.interrupt()
        return True

    def __repr__(self) -> str:
        phase = ("idle", "reading a head", "reading a body", "handling", "writing", "closing")[self.phase]
        return f"<Connection {self.peer.client} {phase}, {self.wire.requests} requests>"
