"""HTTP/1.1 on asyncio streams: the shell around wire/.

A connection is one long-lived task that repeats: take a request from the buffer, call the handler, write the response.
`wire/connection.py` decides about the bytes: which request they are, and which bytes a response is. `wire/inbox.py`
holds the bytes that came too soon, `wire/bodies.py` reads bodies, `wire/sending.py` sends bigger responses.

Flow control, the task and the deadlines are here. No task, timer or lock is made for a request: once a second, a sweep
looks at the deadline that each connection carries. The meaning of that deadline is the connection's phase.

A client *disconnects* by an end of file, or by the loss of its connection. The disconnect is reported once, to
a handler that runs (phase HANDLER); in the other phases, the task finds it where it reads or writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable
from contextvars import Context, copy_context
from math import inf
from time import monotonic
from typing import Protocol, cast

from .core import forks, request_context
from .core.context_variables import differs_from
from .core.errors import ProtocolError, TinysvcError, UnencodableResult
from .core.requests import SAFE_METHODS, Peer, Request
from .core.responses import Handler, Response, add_request_id, close_content
from .core.settings import Settings
from .wire import connection as wire_states
from .wire.bodies import BodyMemory, BodyReader
from .wire.connection import ServerConnection
from .wire.inbox import Inbox
from .wire.sending import SEPARATE_WRITE, OutgoingStream, SharedState, send, unread_bytes

log = logging.getLogger("tinysvc.http")

LINGER = 2.0
"""Seconds we read on after a refusal: the client gets the response before the reset (cowboy: 1 s)."""

IDLE, HEAD, BODY, HANDLER, UNWATCHED, WRITE, LINGERING = range(7)
"""The phases of a connection, by the event that its task waits for; see `Connection.expire` for a passed deadline.
UNWATCHED is as HANDLER, but a disconnect is not reported (again): the handler has ended, or speaks another protocol."""


class ServerState(SharedState, BodyMemory, Protocol):
    """The state that all connections of a server share: `server/connections.py`."""

    loop: asyncio.AbstractEventLoop
    handler: Handler
    settings: Settings
    scheme: str
    context: Context  # the context variables that each request begins with
    now: float  # seconds, at the last sweep
    idle_until: float  # the deadline of a connection that becomes idle now
    refusals: Counter[int]  # messages that were not understood, and failures of tinysvc itself, by status
    takes_new: bool  # whether a connection that was accepted just before a drain may still bring its first request

    def add(self, connection: Connection) -> None: ...
    def discard(self, connection: Connection) -> None: ...


class UpgradedProtocol(Protocol):
    """The protocol of a connection that does not speak HTTP any more, beside being an asyncio.Protocol."""

    def expire(self) -> None: ...  # its deadline has passed
    def go_away(self) -> None: ...  # the server shuts down


class Connection:
    """One client. `serve` is its task; the other methods are its steps, and what the transport reports."""

    __slots__ = (
        "_unread", "body", "deadline", "disconnected", "handler", "inbox", "phase", "request", "server", "stream",
        "task", "transport", "upgraded", "wire", "write_paused", "writer",
    )  # fmt: skip

    wire_class = ServerConnection

    def __init__(self, server: ServerState) -> None:
        self.server = server
        self.wire = self.wire_class(server.settings)
        self.inbox = Inbox(self.wire, server.settings.max_pipelined)
        self.handler = server.handler
        self.phase = IDLE
        self.deadline = server.now + server.settings.first_byte_timeout
        self.request: Request | None = None  # from its head to the end of its response
        self.body: BodyReader | None = None  # the body of the request, unless it came whole
        self.stream: OutgoingStream | None = None
        self.upgraded: UpgradedProtocol | None = None
        self.write_paused = False
        self.disconnected = False  # the connection is lost: nothing can be written
        self._unread = 0  # bytes that the client had not read when the deadline for writing was set

    @property
    def settings(self) -> Settings:
        """The settings of the server."""
        return self.server.settings

    def begin(self, transport: asyncio.Transport, writer: asyncio.StreamWriter) -> None:
        """The transport is connected."""
        self.transport, self.writer = transport, writer
        name = transport.get_extra_info
        self.wire.peer = Peer(name("peername"), name("sockname"), self.server.scheme)
        self.inbox.transport = transport
        self.server.add(self)
        self._begin_task()

    def end(self) -> None:
        """The transport is closed."""
        self.disconnected = True
        self.server.discard(self)
        self.inbox.end()
        self.report_disconnect()

    def report_disconnect(self) -> None:
        """Stop the work for a disconnected client: the pool decides about a job; other safe handlers are cancelled."""
        request = self.request
        if request is None or self.phase != HANDLER:
            return
        self.ignore_disconnect()  # report it once: a lost connection after an end of file must not cancel the cleanup
        log.debug("499: %s disconnected while %r was handled", self.wire.peer.client, request)
        if request.on_disconnect is not None:
            request.on_disconnect()
        elif request.method in SAFE_METHODS or request.time_limit is not None:
            self.task.cancel()

    def ignore_disconnect(self) -> None:
        """Do not report a disconnect any more: the work for this request goes on."""
        self.phase = UNWATCHED

    # The life of the connection

    def _begin_task(self) -> None:
        """Serve in a new task, with a context of its own."""
        self.task = self.server.loop.create_task(self.serve(), context=self.server.context.copy())
        request_context.register_task(self.task, self)

    async def serve(self) -> None:
        """Feed, take, call, write, until a side closes; one place that recovers."""
        server, wire, inbox = self.server, self.wire, self.inbox
        initial, goes_on = server.context, False
        has_variables = len(initial) > 0
        try:
            while True:
                request = wire.next_request() if wire.buffer else None
                if request is None:
                    if not (wire.buffer or inbox.held or inbox.ended or server.draining):
                        inbox.waiter = server.loop.create_future()
                        if await inbox.waiter:
                            continue
                    elif await self._receive_head():
                        continue
                    break
                self.request = request
                if not wire.is_plain:
                    self._prepare(request)
                self.phase, self.deadline = HANDLER, inf
                if inbox.ended and not self.settings.half_close:  # the end has come with the request: report it, too
                    server.loop.call_soon(self.report_disconnect)  # when the handler has begun
                rest = self._respond(request, await self.handler(request))  # a variable would keep a big response alive
                if rest is not None and not await rest:
                    break
                # The next request must not see the variables that this one has set. Mostly there are none at all.
                if (has_variables or len(copy_context())) and differs_from(initial):
                    goes_on = True
                    break
        except (Exception, asyncio.CancelledError) as error:
            await self._recover(error)
        finally:
            if goes_on:
                self._begin_task()
            else:
                self._forget_body()
                self.close()
                del self.writer  # break the reference cycle

    async def _recover(self, error: BaseException) -> None:
        """Respond with the status that the error carries, if it has one; nothing has been written yet."""
        if isinstance(error, ProtocolError):
            await self._refuse(error)
        elif isinstance(error, TimeoutError):
            if self.phase == HEAD and self.wire.buffer:
                await self._refuse(ProtocolError(408, "The request head took too long to arrive."))
        elif isinstance(error, OSError):  # of the network: reset, timed out, unreachable
            log.debug("the connection with %s ended: %r", self.wire.peer.client, error)
        elif isinstance(error, UnencodableResult):  # of the response's headers
            log.error("%r: the response cannot be sent: %s", self.request, error)
            await self._refuse(TinysvcError())
        elif not isinstance(error, asyncio.CancelledError):  # that is a disconnect, or an abort: reported elsewhere
            log.error("%r failed; this is a bug in tinysvc", self, exc_info=error)
            await self._refuse(TinysvcError())

    def _prepare(self, request: Request) -> None:
        """Give the request the reader of its body, its time limit, and the offer to change protocols."""
        timeout = self.wire.take_timeout(request)
        if timeout is not None:
            request.time_limit = monotonic() + timeout
        if self.wire.body is not None:
            self.body = BodyReader(self, self.wire.body)
            request.receive_body_from(self.body)
        if self.wire.offers_upgrade:
            request.peer = request.peer._replace(upgrade=self)

    async def _receive_head(self) -> bool:
        """Wait for more bytes of a head. False when the client has disconnected, TimeoutError at the deadline."""
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

    # The body of a request

    async def receive_body(self, reader: BodyReader) -> bytes:
        """Wait for more bytes of a body; b"" at the end. TimeoutError at the deadline of the reader."""
        before = self.phase, self.deadline
        self.phase, self.deadline = BODY, reader.start_clock(self.server.now)
        try:
            return await self.inbox.read(self.server.loop)
        finally:
            reader.stop_clock(self.server.now)
            if self.phase == BODY:  # else the server aborts the connection
                self.phase, self.deadline = before

    def expect_more(self, reader: BodyReader) -> None:
        """Some of the body has come, and the task waits for more."""
        reader.stop_clock(self.server.now)
        self.deadline = reader.start_clock(self.server.now)

    def _forget_body(self) -> None:
        """The request has ended, and holds no memory any more."""
        if self.body is not None:
            self.body.release()
            self.body = None

    # Another protocol

    def switch(self, protocol: asyncio.BaseProtocol) -> asyncio.Protocol:
        """Let `protocol` have the bytes from now on. Returns the protocol that had them before."""
        transport = self.transport
        before = transport.get_protocol()
        if not self.disconnected:
            transport.pause_reading()  # uvloop chooses its way to read when reading begins
            transport.set_protocol(protocol)
            if not self.inbox.at_end:
                transport.resume_reading()
        return cast(asyncio.Protocol, before)

    def upgrade(self, protocol: UpgradedProtocol) -> bytes:
        """From now on `protocol` gets the events of the transport; returns the bytes that have come already.

        For the handler of a request, as long as it runs: when it has returned, the connection is closed.
        """
        self.upgraded = protocol
        self.wire.close_after(0)
        self.ignore_disconnect()
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
        if self.write_paused:
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
        if body is not None and not body.is_complete:
            if response.status >= 400 or not body.is_discardable():
                self.wire.close_after(0)
            body.begin_response()
        await send(self, request, response)
        return await self._finish()

    async def _finish(self) -> bool:
        """After the response."""
        if self.write_paused:
            await self.drain()
        self.request = None
        wire, body = self.wire, self.body
        is_unread = body is not None and not body.is_complete
        if body is not None:
            body.release()
            if wire.keep_alive and is_unread:
                await body.discard()
        if wire.end_response():
            self.body = None
            self.phase, self.deadline = IDLE, self.server.idle_until
            return True
        if is_unread or wire.buffer:
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
        self.server.refusals[error.status] += 1
        self._forget_body()
        if not self.disconnected:
            self.transport.write(self.wire.refusal(error, request, self.server.date_lines))
            await self._linger()

    async def _linger(self) -> None:
        """End our side and read on for a while: a reset would discard the response before the client has read it."""
        if self.disconnected:
            return
        self.phase, self.deadline = LINGERING, self.server.now + LINGER
        try:
            if self.transport.can_write_eof():  # not over TLS
                self.transport.write_eof()
            while await self.inbox.read(self.server.loop):
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
        self._unread = 0 if self.disconnected else unread_bytes(self.transport)

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        if self.phase == WRITE:
            unsent = 0 if self.disconnected else unread_bytes(self.transport)
            if unsent < self._unread:
                self._unread, self.deadline = unsent, now + self.settings.write_timeout
            else:
                self.transport.abort()
            return
        self.deadline = inf
        if self.upgraded is not None:
            self.upgraded.expire()
        elif self.stream is None or not self.stream.beat():
            self.inbox.interrupt()

    def current_request(self) -> Request | None:
        """The request whose handler, stream or cleanup runs."""
        return self.request

    def is_new(self) -> bool:
        """Whether the connection has not brought a request yet, and may."""
        return self.phase <= HEAD and self.server.takes_new

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
        phase = ("idle", "reading a head", "reading a body", "handling", "sending", "writing", "closing")[self.phase]
        return f"<Connection {self.wire.peer.client} {phase}, {self.wire.requests} requests>"


class TransportEvents(asyncio.StreamReaderProtocol):
    """The events of one transport, for its connection. asyncio's streams wait here while the client does not read."""

    def __init__(self, server: ServerState, connection_class: type[Connection] = Connection) -> None:
        self.reader = asyncio.StreamReader(loop=server.loop)  # reports the end to the writer; its buffer stays empty
        super().__init__(self.reader, loop=server.loop)
        self.connection = connection_class(server)
        self.data_received = self.connection.inbox.put  # type: ignore[method-assign]  # without a call between

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        made = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self.connection.begin(made, asyncio.StreamWriter(made, self, self.reader, self.connection.server.loop))

    def pause_writing(self) -> None:
        super().pause_writing()
        self.connection.write_paused = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.connection.write_paused = False

    def eof_received(self) -> bool | None:
        self.connection.inbox.end()
        if not self.connection.settings.half_close:
            self.connection.report_disconnect()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            exc.__traceback__ = None  # the reader keeps the exception, and so the frames in its traceback
        super().connection_lost(exc)
        self.connection.end()
