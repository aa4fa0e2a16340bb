"""HTTP/1.1 on asyncio streams: bytes -> Request, Response -> bytes.

The theory. A connection is one long-lived task that repeats: take a request from the buffer, call the handler, write
the response. Two rules make it predictable.

1. *How the bytes were cut does not matter.* A request head is judged once it has arrived up to its empty line, and
   never further. Only what no more bytes could mend is refused sooner, by its first fault, and a head that arrives in
   one piece is asked the same questions in the same order (`_check_beginning`). So a limit holds for one segment as for
   a hundred, and what stands behind a bad message is never parsed.
2. *A refusal ends the connection.* ProtocolError is answered once; then we stop writing, read what is still under way
   (so that the client sees the answer, not a reset) and close.

What a head may say is heads.py's to judge. A client repeats its header block from request to request, so the last block
of a connection is kept: the same bytes mean the same fields and are not parsed again.

No task, timer or lock is made for a request. `Connections` looks once a second at the deadline that each connection
carries, and renews the `Date` header.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextvars import copy_context
from copy import copy
from email.utils import formatdate
from fcntl import ioctl
from math import inf
from termios import TIOCOUTQ
from typing import Any, Protocol, cast

from .core import forks, request_context
from .core.context_variables import differs_from
from .core.errors import HTTPError, JobAbandoned, ProtocolError, TinysvcError, UnencodableResult
from .core.requests import SAFE_METHODS, Peer, Request
from .core.responses import (
    ENDLESS_TYPES,
    EVENTS,
    FileContent,
    Handler,
    Response,
    add_request_id,
    close_content,
    make_private,
    problem_response,
)
from .core.settings import KiB, Settings
from .core.shutdown import CUT_OFF, DRAINED, STALL_THRESHOLD, awake_timeout
from .core.tracebacks import author_traceback, indented, observe_error
from .wire.bodies import COPY_SIZE, READ_SIZE, BodyReader
from .wire.heads import (
    CACHED_LENGTHS,
    FORBIDDEN_IN_HEAD,
    LENGTH_LINES,
    MAX_CACHED_LINE,
    USUAL_FIRST_LINES,
    Framing,
    RequestLine,
    field_lines,
    head_lines,
    parse_any_request_line,
    parse_fields,
    parse_usual_request_line,
)
from .wire.sendfile import FileCutShort, send_file

log = logging.getLogger("tinysvc.http")

PIECE_OVERHEAD = 128
"""What a held piece counts beyond its bytes, as an object does: else a thousand small ones would cost too much."""

SEPARATE_WRITE = 64 * KiB
"""A body longer than this is written beside its head, not copied behind it."""

USUAL_BLOCK, USUAL_FIELDS = 2 * KiB, 32
"""Bytes and fields of a header block that is kept for the next request; a browser sends half as much."""

MAX_TURNED_AWAY = 16
"""Connections over the limit, beside a tenth of it, that get their 503; who comes on top of them is just cut off."""

SWEEP = 1.0
"""Seconds between two looks at all deadlines. One timer for all costs less than one for every request."""

HEARTBEAT = 15.0
"""Seconds after which a silent stream of events gets a comment, as the standard advises (WHATWG HTML, 9.2.7)."""

LINGER = 2.0
"""Seconds we read on after a refusal, so that the client gets the answer before the reset (cowboy: 1 s)."""

ON_ITS_WAY = 0.25
"""Seconds in which a connection that was accepted just before the server drains may bring its first request."""

_RETRY = [("retry-after", "1")]
_OVERLOADED = HTTPError(503, "The server has too many open connections.", headers=_RETRY)
_DRAINING = HTTPError(503, "The server is shutting down.", headers=_RETRY)

IDLE, HEAD, BODY, HANDLER, WRITE, LINGERING = range(6)
"""The phases of a connection; `Connection.expire` says what a passed deadline means in each."""


class Upgraded(Protocol):
    """What a connection becomes that changes protocols, beside being an asyncio.Protocol."""

    def expire(self) -> None:
        """The time is over that it was given."""

    def go_away(self) -> None:
        """The server is shutting down."""


class Connection(asyncio.StreamReaderProtocol):
    """One client. `serve` is its task; the rest are its steps."""

    __slots__ = (  # looked up faster than in a dict, and smaller
        "_checked", "_forgiven", "_heartbeat", "_held", "_held_size", "_known_block", "_known_framing", "_left",
        "_longest_line", "_streams", "_unsent", "_waiter", "body", "body_memory", "buffer", "connections", "deadline",
        "ended", "ends_stream", "gone", "handler", "keep_alive", "minor", "out_of_time", "peer", "phase", "reader",
        "request", "requests", "settings", "task", "transport", "upgraded", "write_paused", "writer",
    )  # fmt: skip

    def __init__(self, connections: Connections) -> None:
        self.reader = asyncio.StreamReader(loop=connections.loop)  # tells the writer of the end; the bytes are ours
        super().__init__(self.reader, loop=connections.loop)
        self.connections = connections
        self.settings = connections.settings
        self.handler = connections.handler
        self.buffer = b""  # received, not yet taken
        self.phase = IDLE
        self.deadline = connections.now + self.settings.first_byte_timeout
        self.write_paused = False
        self.requests = 0
        self.ended = False  # no more bytes come, or are wanted
        self.out_of_time = False
        self._streams = False  # events or lines, which may have no end
        self.ends_stream = False  # as the server drains
        self.body_memory = 0  # bytes of the request's body that count as held
        self.upgraded: Upgraded | None = None  # what the connection has become, if not HTTP any more
        self._waiter: asyncio.Future[bool] | None = None  # of the task, while it waits for bytes
        self._held: list[bytes] = []  # what came while the task did not wait, or much of it at once
        self._held_size = 0  # and what it counts
        self._checked = 0  # bytes of an incomplete head that have been looked at
        self._forgiven = 0  # the request before which an empty line was skipped
        self._known_block = b""
        self._known_framing: Framing | None = None  # what the block means
        self._longest_line = -1  # bytes that may stand before the block and are not too many
        self._unsent = 0
        self._heartbeat = b""  # what is sent while a stream has nothing to say

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self.writer = asyncio.StreamWriter(self.transport, self, self.reader, self.connections.loop)
        self.peer = Peer(
            transport.get_extra_info("peername"), transport.get_extra_info("sockname"), self.connections.scheme
        )
        self.request: Request | None = None
        self._left: Request | None = None  # one whose handler runs on behind a disconnect, or talks by WebSocket
        self.body: BodyReader | None = None  # what is left of the request's body
        self.gone = False
        self.connections.add(self)
        self._begin_task()

    def data_received(self, data: bytes) -> None:
        """To the task, if it waits for bytes; else, and if it is much, it is held, and the client held back."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or len(data) > READ_SIZE:
            self._hold(data)
        else:
            self.buffer = self.buffer + data if self.buffer else data
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_paused = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_paused = False

    def eof_received(self) -> bool | None:
        self._end()
        if not self.settings.half_close:
            self._client_left()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            exc.__traceback__ = None  # as the reader keeps it, and with it what was being received
        super().connection_lost(exc)
        self.gone = True
        self.connections.discard(self)
        self._end()
        self._client_left()

    def _end(self) -> None:
        self.ended = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(False)

    def _interrupt(self) -> None:
        """Whatever the task waits for from the client, it waits no longer: TimeoutError."""
        self.ended = True
        if self._waiter is None:
            self.out_of_time = True
        else:
            self.fail(TimeoutError())

    def _client_left(self) -> None:
        """Stop the work nobody waits for: a job's fate is its pool's to decide; other safe handlers are cancelled."""
        request = self.request
        if request is None or self.phase != HANDLER:
            return
        self._left = request
        self.request = None  # said once: the loss that follows an end of file must not cancel what cleans up
        log.debug("499: %s left while %r was handled", self.peer.client, request)
        if request.on_disconnect is not None:
            request.on_disconnect()
        elif request.method in SAFE_METHODS:
            self.task.cancel()

    # The life of the connection

    def _begin_task(self) -> None:
        """Serve in a new task, with a context of its own."""
        connections = self.connections
        self.task = connections.loop.create_task(self.serve(), context=connections.context.copy())
        request_context.register_task(self.task, self)

    async def serve(self) -> None:
        """Take, call, write, until someone closes; one place that recovers."""
        context, goes_on = self.connections.context, False
        has_variables = len(context) > 0
        try:
            while True:
                request = self.take_request() if self.buffer else None
                if request is None:
                    if not await self.receive_head():
                        break
                    continue
                self.phase, self.deadline = HANDLER, inf
                rest = self.respond(request, await self.handler(request))  # no name for what may be big
                if rest is not None and not await rest:
                    break
                # The next request must not see the variables that this one has set. Mostly there are none at all.
                if (has_variables or len(copy_context())) and differs_from(context):
                    goes_on = True
                    break
        except ProtocolError as error:
            await self.refuse(error)
        except TimeoutError:
            if self.phase == HEAD and self.buffer:
                await self.refuse(ProtocolError(408, "The request head took too long to arrive."))
        except OSError as error:  # the network's: reset, timed out, unreachable
            log.debug("the connection with %s ended: %r", self.peer.client, error)
        except asyncio.CancelledError:
            pass  # the client left, or the server cut us off; whoever did it has said so
        except UnencodableResult as error:  # of the response's headers: nothing has been written yet
            log.error("%r: the answer cannot be sent: %s", self.request, error)
            await self.refuse(TinysvcError())
        except Exception:  # of the handler: nothing has been written yet
            log.exception("%r failed; this is a bug in tinysvc", self)
            await self.refuse(TinysvcError())
        finally:
            if goes_on:
                self._begin_task()
            else:
                self._give_back_memory()
                self.close()
                del self.writer  # which knows us: so nothing of us waits for the garbage collector

    def receive_head(self) -> Awaitable[bool]:
        """Wait for more bytes of a head. False when the client has gone, TimeoutError when its time has."""
        if self.buffer or self._held or self.ended or self.connections.draining:
            return self._receive_what_is_there()
        waiter: asyncio.Future[bool] = self.connections.loop.create_future()
        self._waiter = waiter
        return waiter

    async def _receive_what_is_there(self) -> bool:
        if self.gone or (self.connections.draining and not (self.buffer or self.is_new())):
            return False
        if self.buffer or self._held:
            await asyncio.sleep(0)  # who pipelines finds the next bytes there already; others want a turn too
        if self._held:
            data = self._take_held()
            self.buffer += data[:READ_SIZE]
            self._hold(data[READ_SIZE:])
            return True
        self._check_time()
        if self.ended:
            return False
        self._waiter = self.connections.loop.create_future()
        return await self._waiter

    def _check_time(self) -> None:
        """TimeoutError if the deadline has passed while the task did not wait for bytes."""
        if self.out_of_time:
            self.out_of_time = False
            raise TimeoutError

    async def read(self) -> bytes:
        """What has come, else what comes next; b"" at the end. TimeoutError when the deadline passes."""
        self._check_time()
        if not (self.has_bytes() or self.gone or self.reader.at_eof()):
            self._waiter = self.connections.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data, self.buffer = self.buffer or self._take_held(), b""
        return data

    def _hold(self, data: bytes) -> None:
        """Keep `data` until the task asks for more."""
        if data:
            self._held.append(data)
            self._held_size += len(data) + PIECE_OVERHEAD
            if self._held_size > self.settings.max_pipelined and not self.gone:
                self.transport.pause_reading()

    def _take_held(self) -> bytes:
        data = b"".join(self._held)  # one piece, as is usual, is not copied
        paused = self._held_size > self.settings.max_pipelined
        self._held.clear()
        self._held_size = 0
        if paused and not self.gone:
            self.transport.resume_reading()
        return data

    def has_bytes(self) -> bool:
        """Whether anything has come that was not taken."""
        return bool(self.buffer or self._held)

    def switch(self, protocol: asyncio.BaseProtocol | None) -> None:
        """Let `protocol` have what comes; None: the connection itself again."""
        if not self.gone:
            self.transport.pause_reading()  # uvloop chooses its way to read when it begins
            self.transport.set_protocol(protocol or self)
            if not self.reader.at_eof():
                self.transport.resume_reading()

    def expect_more(self, reader: BodyReader) -> None:
        """Some of the body has come, and more is waited for."""
        reader.stop_clock(self.connections.now)
        self.deadline = reader.start_clock(self.connections.now)

    def fail(self, error: Exception) -> None:
        """Whatever the task waits for, it gets `error`."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def put_back(self, data: bytes) -> None:
        """What stood behind a body is looked at next."""
        self.buffer = data[:READ_SIZE]
        if len(data) > READ_SIZE:
            self._hold(data[READ_SIZE:] + self._take_held())

    def check_room(self, size: int) -> None:
        """ProtocolError 503 if the server cannot hold `size` more bytes of bodies."""
        if size > 0 and self.connections.body_memory + size > self.settings.max_body_memory:
            raise ProtocolError(503, "The server holds as many request bodies as it may.", headers=_RETRY)

    def count_body(self, size: int) -> None:
        """So many bytes more are held for the request, until it ends."""
        self.check_room(size)
        self.body_memory += size
        self.connections.body_memory += size

    def _give_back_memory(self) -> None:
        self.connections.body_memory -= self.body_memory
        self.body_memory = 0

    async def receive_body(self, reader: BodyReader) -> bytes:
        """Wait for more bytes of a body. ProtocolError 400 or 408 when they do not come."""
        phase = self.phase, self.deadline
        self.phase, self.deadline = BODY, reader.start_clock(self.connections.now)
        try:
            data = await self.read()
        except TimeoutError:
            raise ProtocolError(408, "The request body took too long to arrive.") from None
        finally:
            reader.stop_clock(self.connections.now)
            self.phase, self.deadline = phase
        if not data:
            raise ProtocolError(400, "The request body was cut short.")
        return data

    def take_request(self) -> Request | None:
        """The next request in the buffer; None if its head is not complete. ProtocolError if it is refused."""
        line, _, rest = self.buffer.partition(b"\r\n")
        block = self._known_block
        framing = self._known_framing
        if (
            framing is not None
            and len(line) <= self._longest_line
            and (rest == block or rest.startswith(block))
            and (start := parse_usual_request_line(line)) is not None
        ):
            self.buffer = rest[len(block) :] if len(rest) > len(block) else b""
            self._checked = 0
        else:
            judged = self._judge_head()
            if judged is None:
                return None
            start, framing = judged
        method, path, query, self.minor, _ = start
        self.keep_alive = framing.keep_alive
        self.requests += 1
        body = self._body_of(framing) if framing.has_body else b""
        self.request = request = Request(method, path, query, framing.headers, body, None, self.peer)
        if framing.upgrade:
            request.upgrade = self
        return request

    def _judge_head(self) -> tuple[RequestLine, Framing] | None:
        """What the head in the buffer says; None if it is not complete."""
        buffer = self.buffer
        if buffer.startswith(b"\r\n") and self._forgiven <= self.requests:
            self._forgiven = self.requests + 1  # one empty line before a request is forgiven (RFC 9112, 2.2)
            buffer = self.buffer = buffer[2:]
        end = buffer.find(b"\r\n\r\n", self._checked) + 4
        if end < 4:
            if buffer:
                self._wait_for_rest(buffer)
            return None
        head = buffer[:end]
        self._check_beginning(head)
        start = parse_any_request_line(head)
        *_, minor, authority = start
        framing = parse_fields(head, minor, self.settings)
        if authority and framing.host and framing.host.lower() != authority.lower():
            raise ProtocolError(400, "The request target and the Host header name different hosts.")
        if minor == b"1":
            self._remember(head[head.find(b"\n") + 1 :], framing)
        self.buffer = buffer[end:]
        self._checked = 0
        return start, framing

    def _remember(self, block: bytes, framing: Framing) -> None:
        """What the usual block means. A long one is parsed each time, rather than held by ten thousand idle clients."""
        if len(block) <= USUAL_BLOCK and len(framing.headers.raw) <= USUAL_FIELDS:
            self._known_block, self._known_framing = block, framing
            self._longest_line = min(MAX_CACHED_LINE, self.connections.short_head - len(block))
        else:
            self._known_block, self._known_framing = b"", None

    def _wait_for_rest(self, buffer: bytes) -> None:
        """The beginning of a head is there: its time runs, and what is wrong with it already is said now."""
        if self.phase == IDLE:
            self.phase, self.deadline = HEAD, self.connections.now + self.settings.header_timeout
        self._check_beginning(buffer)
        self._checked = max(0, len(buffer) - 3)

    def _check_beginning(self, head: bytes) -> None:
        """Refuse a head, whole or not, for the first fault that no more bytes could mend: 400, 414, 431, 501 or 505.

        `_checked` bytes of it were in order before.
        """
        seen, settings = self._checked, self.settings
        end = settings.max_request_line + 2
        line_end = head.find(b"\n", 0, end) + 1
        if not line_end:
            self._check_characters(head, seen, end)
            if len(head) >= end:
                raise ProtocolError(414, f"The request line is longer than {settings.max_request_line} bytes.")
            return
        if seen < line_end:
            parse_any_request_line(head)
        end = line_end + settings.max_header_size
        self._check_characters(head, seen, end)
        if len(head) > end:
            raise ProtocolError(431, f"The header block is longer than {settings.max_header_size} bytes.")

    def _check_characters(self, head: bytes, start: int, end: int) -> None:
        if FORBIDDEN_IN_HEAD.search(head, start, end):
            raise ProtocolError(400, "The request head holds a control character, or a line end that is not CR LF.")

    def _body_of(self, framing: Framing) -> bytes | BodyReader:
        """The body if it has arrived whole, as small ones do; else a reader for it."""
        length = framing.content_length
        if length and length <= len(self.buffer) and length <= self.settings.max_body_size:
            body, self.buffer = self.buffer[:length], self.buffer[length:]
            return body
        self.body = BodyReader(self, framing)
        return self.body

    # Another protocol

    def upgrade(self, protocol: Upgraded) -> bytes:
        """From now on `protocol` is told by the transport; what has come already is returned. For the handler of a
        request, as long as it runs: when it has answered, the connection is closed."""
        self.upgraded, self.keep_alive = protocol, False
        self._left, self.request = self.request, None
        rest, self.buffer = self.buffer + self._take_held(), b""
        self.switch(cast(asyncio.Protocol, protocol))
        return rest

    def expect_within(self, seconds: float) -> None:
        """Unless something else is said before, `expire` is called after so many seconds, or a little later."""
        self.deadline = self.connections.now + seconds

    # Answers

    def respond(self, request: Request, response: Response) -> Awaitable[bool] | None:
        """Write the response. None if that was all, as it mostly is; else wait for the rest of the work.

        The rest says whether the connection can take another request.
        """
        content = response.content
        usual = (
            response.status == 200
            and type(content) is bytes
            and len(content) < SEPARATE_WRITE
            and self.keep_alive
            and self.minor == b"1"
            and self.body is None
            and self.requests < self.settings.max_requests
            and request.method != "HEAD"
            and not self.gone
        )
        if not usual:
            return self._respond(request, response)
        # What `_write_whole` does, in one step: each further call on this path is a measurable part of the whole.
        connections, size = self.connections, len(content)
        first_lines = USUAL_FIRST_LINES.get(response.content_type) or head_lines(200, response.content_type)
        length_line = LENGTH_LINES[size] if size < CACHED_LENGTHS else b"content-length: %d\r\n" % size
        own_lines = _own_lines(request, response) if response.headers else b""
        self.transport.write(b"".join((first_lines, length_line, own_lines, connections.last_lines, content)))
        if self.write_paused or self.body_memory:
            return self._finish()
        self.request = None
        self.phase, self.deadline = IDLE, connections.idle_until
        return None

    async def _respond(self, request: Request, response: Response) -> bool:
        if forks.in_child:
            forks.end_child()
        if self.gone or self.upgraded is not None:
            await close_content(response.content)
            return False
        if response.status >= 500:
            add_request_id(response, request)
        body = self.body
        if self.requests >= self.settings.max_requests or (
            body is not None and (response.status >= 400 or not body.is_discardable())
        ):
            self.keep_alive = False
        if body is not None:
            body.begin_response()
        content = response.content
        if isinstance(content, (bytes, memoryview)):
            rest = self._write_whole(request, response, content)
            if rest:
                await self._write_slices(rest)
        elif isinstance(content, FileContent):
            await self._write_file(request, response, content)
        else:
            await self._write_stream(request, response, content)
        return await self._finish()

    async def _finish(self) -> bool:
        """Behind the response."""
        if self.write_paused:
            await self.drain()
        self._give_back_memory()
        self.request = None
        body = self.body
        if self.keep_alive and (body is None or await body.discard()):
            self.phase, self.deadline = IDLE, self.connections.idle_until
            return True
        if body is not None or self.buffer:
            await self.linger()
        return False

    def _write_whole(self, request: Request, response: Response, content: bytes | memoryview) -> memoryview | None:
        """The head, and the body if it is small. Returns the body if it is still to be written."""
        if response.status == 204 or response.status == 304:  # never a body (RFC 9110, 6.4.1)
            self.transport.write(self._head(request, response, b""))
            return None
        if type(content) is memoryview:
            content = content.cast("B")
        size = len(content)
        head = self._head(request, response, b"content-length: %d\r\n" % size)
        if request.method == "HEAD":
            self.transport.write(head)
            return None
        if size < SEPARATE_WRITE:
            self.transport.write(head + content)
            return None
        self.transport.write(head)
        return memoryview(content)

    def _head(self, request: Request, response: Response, framing: bytes) -> bytes:
        """Status line and header block, up to and with the empty line."""
        if response.headers or not self.keep_alive or self.minor == b"0":
            framing += self._more_lines(request, response)
        return head_lines(response.status, response.content_type) + framing + self.connections.last_lines

    def _more_lines(self, request: Request, response: Response) -> bytes:
        """The response's own headers, and what the connection has to say."""
        lines = _own_lines(request, response)
        if not self.keep_alive:
            lines += b"connection: close\r\n"
        elif self.minor == b"0":
            lines += b"connection: keep-alive\r\n"
        elif response.status == 426:  # RFC 9110, 7.8
            lines += b"connection: upgrade\r\n"
        return lines

    async def _write_slices(self, content: memoryview) -> None:
        """A big body, as fast as the client reads it: the transport never has more than a slice, nor a copy of one."""
        self.request = None  # the work is done; a client that says no more is still there to read
        for piece in _slices(content):
            if self.gone:
                raise ConnectionResetError("the client left in the middle of an answer")
            self.transport.write(piece)
            if self.write_paused:
                await self.drain()
            else:
                await asyncio.sleep(0)

    async def _write_file(self, request: Request, response: Response, content: FileContent) -> None:
        never_a_body = response.status == 204 or response.status == 304
        try:
            self.transport.write(
                self._head(request, response, b"" if never_a_body else b"content-length: %d\r\n" % content.size)
            )
            if not never_a_body and request.method != "HEAD":
                self.request = None  # as above
                await send_file(self, content)
        except FileCutShort as error:
            observe_error(error)
            log.error("%r (%s): the answer was cut off: %s", request, request.id, error)
            self.transport.abort()
            raise ConnectionAbortedError("the file failed") from error
        finally:
            content.file.close()

    async def _write_stream(self, request: Request, response: Response, content: AsyncIterator[bytes]) -> None:
        """As long as it said; else chunked, or until the connection's end on HTTP/1.0. What fails is cut off."""
        never_a_body = response.status == 204 or response.status == 304
        left = _declared_length(response, never_a_body)
        chunked = left is None and self.minor == b"1" and not never_a_body  # RFC 9112, 6.1
        self.keep_alive = self.keep_alive and (chunked or never_a_body or left is not None)
        live = left is None and response.content_type in ENDLESS_TYPES
        try:
            self.transport.write(self._head(request, response, b"transfer-encoding: chunked\r\n" if chunked else b""))
            if never_a_body or request.method == "HEAD":
                return
            if response.content_type == EVENTS and left is None:
                self._heartbeat = b"3\r\n:\n\n\r\n" if chunked else b":\n\n"
                self.expect_within(HEARTBEAT)
            self._streams = live
            async for piece in content:
                # A closing transport takes no bytes and never pauses: a stream that does not wait would hold the loop.
                if self.gone or self.transport.is_closing():
                    raise ConnectionResetError("the client left in the middle of a stream")
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        raise UnencodableResult(f"the stream is {-left} bytes, or more, longer than its content-length")
                part: Any
                for part in (piece,) if len(piece) <= COPY_SIZE else _slices(piece):
                    if part:
                        self.transport.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                        if self.write_paused:
                            await self.drain()
                if self._heartbeat:
                    self.expect_within(HEARTBEAT)
                if live and self.connections.draining:
                    break
            if self.gone:  # nothing is wrong with the stream, and a write would fail
                raise ConnectionResetError("the client disconnected before the end of a stream")
            if left:
                raise UnencodableResult(f"the stream is {left} bytes shorter than its content-length")
            self._write_end(content, chunked)
        except asyncio.CancelledError:
            if not self.ends_stream or self.transport.is_closing():
                self.transport.abort()
                raise
            self.task.uncancel()
            self._write_end(content, chunked)
        except ConnectionError:
            self.transport.abort()
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # no handler ends the server
            if not isinstance(error, (ProtocolError, JobAbandoned)):  # the client's: its body was bad, or it has gone
                observe_error(error)
                text = indented(author_traceback(error))
                words = "%r (%s): the stream failed half-way and was cut off: %s"
                log.error(words, request, request.id, text)
            self.transport.abort()
            raise ConnectionAbortedError("the stream failed") from error
        finally:
            self._streams, self._heartbeat, self.deadline = False, b"", inf
            await close_content(content)

    def _write_end(self, content: Any, chunked: bool) -> None:
        """The end of a stream; of a compressed one that a drain ends, also what its coding still holds."""
        if tail := content.tail() if hasattr(content, "tail") else b"":
            self.transport.write(b"%x\r\n%b\r\n" % (len(tail), tail) if chunked else tail)
        if chunked:
            self.transport.write(b"0\r\n\r\n")

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""
        before = self.phase, self.deadline
        self.phase, self.deadline = WRITE, self.connections.now + self.settings.write_timeout
        self._unsent = self._unread()
        try:
            await self.writer.drain()
        except OSError as error:
            error.__traceback__ = None  # as the reader keeps the error, and with it all that is being sent
            raise ConnectionResetError(str(error)) from None
        self.phase, self.deadline = before

    async def refuse(self, error: TinysvcError) -> None:
        """Answer a message that was not understood, and close."""
        request, self.request = self.request, None
        self.keep_alive, self.minor = False, b"1"
        self._give_back_memory()
        if not self.gone:
            asked = request or Request("GET", "/")
            response = problem_response(error, asked)
            head = self._head(asked, response, b"content-length: %d\r\n" % len(response.content))
            self.transport.write(head if request and request.method == "HEAD" else head + response.content)
            await self.linger()

    async def linger(self) -> None:
        """Say that we are done and read on a while: a reset would take the answer from the client's hands."""
        if self.gone:
            return
        self.phase, self.deadline = LINGERING, self.connections.now + LINGER
        try:
            if self.transport.can_write_eof():  # not over TLS
                self.transport.write_eof()
            while await self.read():
                pass
        except (OSError, RuntimeError):
            pass  # reset, out of time, or closing already: all is said

    def close(self) -> None:
        """Close once what was written is out; the sweep cuts off a client that does not read it."""
        self.phase, self.deadline = WRITE, self.connections.now + self.settings.write_timeout
        self._unsent = self._unread()
        self.transport.close()

    def _unread(self) -> int:
        """Bytes of our answers that the client's side has not got: here, and in the kernel's buffer, which is big."""
        if self.gone:
            return 0
        size = self.transport.get_write_buffer_size()
        try:
            waiting = ioctl(self.transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
        except (OSError, AttributeError):  # no socket that can say so, or none any more, as over TLS
            return size
        return size + int.from_bytes(waiting, sys.byteorder)

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        if self.phase == WRITE:
            unsent = self._unread()
            if unsent < self._unsent:
                self._unsent, self.deadline = unsent, now + self.settings.write_timeout
            else:
                self.transport.abort()
            return
        self.deadline = inf
        if self.upgraded is not None:
            self.upgraded.expire()
        elif self._heartbeat:
            self.transport.write(self._heartbeat)
            self.expect_within(HEARTBEAT)
        else:
            self._interrupt()

    def refuse_all(self, error: HTTPError) -> None:
        """Answer the next request, if there is one, with `error`, and close behind it."""

        async def refuse(request: Request) -> Response:
            return problem_response(error, request)

        self.handler = refuse
        self.requests = self.settings.max_requests

    def current_request(self) -> Request | None:
        """The request whose handler, stream or cleanup runs."""
        return self.request or self._left

    def is_new(self) -> bool:
        """Whether it has not brought a request yet, and may."""
        return self.request is None and self.phase <= HEAD and self.connections.hears_new

    def end_stream(self) -> None:
        """Close a stream of events or lines in order: the generator, then the response."""
        if self._streams and not self.ends_stream:
            self.ends_stream = True
            self.task.cancel(DRAINED)

    def give_up(self) -> None:
        """The request is cut off: connection_lost must not cancel the cleanup."""
        self._left, self.request = self.request or self._left, None

    def answer_one(self) -> None:
        """Close behind the next answer."""
        self.requests = self.settings.max_requests - 1

    def end_when_idle(self) -> bool:
        """Leave at once if nothing of a request has come and no answer is under way. True if so."""
        if self.upgraded is not None:
            self.upgraded.go_away()
        waits = self.phase <= HEAD and self._waiter is not None and not self._waiter.done() and not self.buffer
        if not waits and self.phase != LINGERING:
            return False
        self.phase = LINGERING
        self._interrupt()
        return True

    def __repr__(self) -> str:
        phase = ("idle", "reading a head", "reading a body", "handling", "writing", "closing")[self.phase]
        return f"<Connection {self.peer.client} {phase}, {self.requests} requests>"


def _own_lines(request: Request, response: Response) -> bytes:
    """The response's own header lines. A shared cache may not keep what sets a cookie, or is for an Authorization."""
    lines = field_lines(response.headers)
    if b"ache-" not in lines or not _MAY_BE_KEPT.search(lines):
        return lines
    if _SETS_COOKIE.search(lines) or "authorization" in request.headers:
        response = copy(response)  # the author may answer with one and the same again and again
        make_private(response)
        lines = field_lines(response.headers)
    return lines


_MAY_BE_KEPT = re.compile(rb"(?im)^cache-control:[^\r]*\b(?:public|max-age|s-maxage)\b")
_SETS_COOKIE = re.compile(rb"(?im)^set-cookie:")


def _declared_length(response: Response, never_a_body: bool) -> int | None:
    """What a stream says of its length, if it does. Where there is never a body, nobody is told."""
    declared = [value for name, value in response.headers if name == "content-length"]
    if declared and never_a_body:
        response.headers = [field for field in response.headers if field[0] != "content-length"]
    return int(declared[0]) if declared else None


def _slices(content: bytes | memoryview) -> Iterator[memoryview]:
    view = memoryview(content)
    return (view[start : start + COPY_SIZE] for start in range(0, len(view), COPY_SIZE))


class Connections:
    """All open connections of a server, and what they share. It is the protocol factory of its sockets.

    Its sweep over their deadlines runs from the beginning to `abort`.
    """

    def __init__(self, handler: Handler, settings: Settings, *, scheme: str = "http") -> None:
        self.handler = handler
        self.settings = settings
        self.scheme = scheme
        self.loop = asyncio.get_running_loop()
        self.context = copy_context()  # that each request begins with
        self.draining = False
        self.hears_new = True  # who was accepted is heard, also for a moment of draining
        self._nobody_is_idle = False  # was found in this second
        self.open: dict[Connection, None] = {}  # in order of arrival
        self.short_head = min(settings.max_request_line, settings.max_header_size)  # too short to be too long
        self.body_memory = 0  # bytes of bodies that all requests hold, but for what comes whole with its head
        self._empty = asyncio.Event()
        self.now = self._swept = self.loop.time()
        forks.detach_in_child(self, Connections._left_to_the_parent)
        self._sweep()

    def __call__(self) -> Connection:
        return Connection(self)

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(SWEEP, self._sweep)
        passed, self._swept = self.loop.time() - self._swept, self.loop.time()
        self.now += min(passed, SWEEP + STALL_THRESHOLD)  # what clients sent while the process was stopped is not late
        self.idle_until = self.now + self.settings.keep_alive_timeout
        self.last_lines = b"date: %b\r\n\r\n" % formatdate(time.time(), usegmt=True).encode()
        self._nobody_is_idle = False
        late = self.now - SWEEP  # deadlines are counted from the last sweep: none is early, some are two sweeps late
        for connection in [c for c in self.open if c.deadline < late]:
            connection.expire(self.now)

    def add(self, connection: Connection) -> None:
        self.open[connection] = None
        most = self.settings.max_connections
        if len(self.open) <= most:
            return
        if len(self.open) > most + most // 10 + MAX_TURNED_AWAY:
            connection.transport.abort()
            return
        self._nobody_is_idle = self._nobody_is_idle or not any(
            other.phase == IDLE and other.end_when_idle() for other in self.open
        )
        if self._nobody_is_idle:  # and for the rest of this second nobody is looked for: there may be thousands
            connection.refuse_all(_OVERLOADED)
            connection.deadline = self.now + LINGER  # for its request, so that waiting to be refused is no attack

    def _left_to_the_parent(self) -> list[int]:
        """In a forked child: nothing is answered there."""
        for connection in self.open:
            connection.gone = True
        sockets = [connection.transport.get_extra_info("socket") for connection in self.open]
        return [sock.fileno() for sock in sockets if sock is not None]

    def discard(self, connection: Connection) -> None:
        self.open.pop(connection, None)
        if not self.open:
            self._empty.set()

    async def drain(self, timeout: float) -> bool:
        """Let requests under way finish, take no new ones. False if some were still there after `timeout` seconds."""
        self.draining = True
        for connection in list(self.open):
            connection.end_stream()
            if connection.requests == 0 and not connection.buffer and connection.is_new():
                connection.answer_one()
            else:
                connection.refuse_all(_DRAINING)
                connection.end_when_idle()
        waiting = self.loop.call_later(ON_ITS_WAY, self._end_new)
        try:
            if self.open:
                self._empty.clear()
                async with awake_timeout(timeout):
                    await self._empty.wait()
        except TimeoutError:
            return False
        finally:
            waiting.cancel()
        return True

    def _end_new(self) -> None:
        self.hears_new = False
        for connection in list(self.open):
            connection.end_stream()
            connection.end_when_idle()

    def abort(self) -> list[asyncio.Task[None]]:
        """Cut off every connection and stop the sweep. The tasks of the connections, which clean up."""
        self._timer.cancel()
        tasks = [connection.task for connection in self.open]
        for connection in list(self.open):
            connection.give_up()
            connection.task.cancel(CUT_OFF)
            connection.transport.abort()
        return tasks
