"""A call to a handler of this process, as a request without a connection: the same route, middleware and limits.

The request runs in a task of its own, as a request of a connection does. A caller that gives up is a disconnect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Protocol

from ..binding.outgoing import OutgoingRequest
from ..core.call_errors import CallFailed, CallTimeout
from ..core.errors import HTTPError
from ..core.headers import Headers
from ..core.request_context import register_task
from ..core.requests import Peer, Request
from ..core.responses import OCTETS, FileContent, Response, close_content
from ..core.settings import Settings
from ..core.threads import in_thread
from ..core.tracebacks import author_traceback, indented, observe_error
from .call_context import CallContext, calling

log = logging.getLogger("tinysvc.calls")

CHUNK = 256 * 1024
"""Bytes of a file that are read at a time."""


class Serving(Protocol):
    """A running service."""

    settings: Settings

    async def handle(self, request: Request) -> Response: ...


_running: set[asyncio.Task[None]] = set()
"""Also those whose caller has given up."""


class LocalExchange:
    """Sends requests to the routes of `running`."""

    def __init__(self, running: Serving, service: str) -> None:
        self._running = running
        self._service = service

    async def __call__(self, sent: OutgoingRequest, context: CallContext) -> LocalIncoming:
        """The response, as soon as its head is known."""
        if context.deadline <= monotonic():
            raise CallTimeout("The budget of the call is used up.", service=self._service)
        path, _, query = sent.target.partition("?")
        limit = self._running.settings.max_body_size
        if isinstance(sent.body, bytes) and len(sent.body) > limit:
            raise HTTPError(413, f"The body has {len(sent.body)} bytes; at most {limit} are allowed.")
        lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.headers]
        body = sent.body if isinstance(sent.body, bytes) else sent.body()
        peer = Peer(None, None, "http")
        request = Request(sent.method, path, query, Headers(lines), body, None, peer, context.request_id)
        request.time_limit = context.deadline
        incoming = LocalIncoming(self._running, request, self._service, context)
        await incoming.begin()
        return incoming


class LocalIncoming:
    """The response to such a request: the same interface as `client.messages.Incoming`."""

    def __init__(self, running: Serving, request: Request, service: str, context: CallContext) -> None:
        self.status = 0
        self.headers = Headers()
        self.replica = ""
        self.attempts = 1
        self.content: bytes | None = None
        self._running = running
        self._request = request
        self._calling = context._replace(request=request)
        self._service = service
        self._head = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)  # None: the end
        self._failed = False
        self._task = asyncio.create_task(self._run())
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    def current_request(self) -> Request:
        """The request that the task works for."""
        return self._request

    async def begin(self) -> None:
        """Wait for the head of the response."""
        try:
            async with self._until_deadline():
                await asyncio.shield(self._head)
        except BaseException:
            self.disconnect()
            raise

    @asynccontextmanager
    async def _until_deadline(self) -> AsyncIterator[None]:
        """CallTimeout at the deadline: the caller gives up, even if the handler cannot be stopped."""
        deadline = self._request.time_limit
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - monotonic())) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise CallTimeout("The budget of the call is used up.", service=self._service) from None

    def disconnect(self) -> None:
        """The caller has given up: what happens to the handler is what its route says."""
        if self._head.done() or self._request.on_disconnect is None:
            self._task.cancel()
        else:
            self._request.on_disconnect()

    async def _run(self) -> None:
        register_task(asyncio.current_task(), self)  # type: ignore[arg-type]
        calling.set(self._calling)
        try:
            response = await self._running.handle(self._request)
        except BaseException as error:  # the caller has given up, or the pool has dropped the job
            if not self._head.done():
                self._head.set_exception(CallFailed(f"The call was cut off: {error!r}.", service=self._service))
                self._head.exception()  # the caller may have given up
            if not isinstance(error, (Exception, asyncio.CancelledError)):
                raise
            return
        try:
            await self._pass_on(response)
        finally:
            await close_content(response.content)

    async def _pass_on(self, response: Response) -> None:
        content = response.content
        lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers]
        content_type = response.content_type or (OCTETS if content else "")
        if content_type:
            lines.append((b"content-type", content_type.encode("latin-1")))
        self.status, self.headers = response.status, Headers(lines)
        if isinstance(content, (bytes, memoryview)):
            self.content = bytes(content)
            self._set_head()
            return
        self._set_head()
        try:
            async for piece in _file_pieces(content) if isinstance(content, FileContent) else content:
                await self._pieces.put(bytes(piece))
        except Exception as error:
            self._failed = True
            observe_error(error)
            text = indented(author_traceback(error))
            log.error("%r (%s): the stream failed half-way: %s", self._request, self._request.id, text)
        await self._pieces.put(None)

    def _set_head(self) -> None:
        if not self._head.done():
            self._head.set_result(None)

    async def body(self, limit: int) -> bytes:
        """The whole body. CallFailed if it is longer than `limit`, or if the handler has failed in the middle."""
        if self.content is None:
            pieces, size = [], 0
            async for piece in self:
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    break
            self.content = b"".join(pieces)
        if len(self.content) > limit:
            self.discard()
            raise CallFailed(
                f"The body of the response is longer than {limit} bytes.", service=self._service, answered=self.status
            )
        return self.content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of the body as they come."""
        if self.content is not None:
            if self.content:
                yield self.content
            return
        try:
            while True:
                async with self._until_deadline():
                    piece = await self._pieces.get()
                if piece is None:
                    break
                yield piece
        finally:
            self.discard()
        if self._failed:
            raise CallFailed("The response was cut short.", service=self._service, answered=self.status)

    async def aclose(self) -> None:
        """Discard the rest of the body."""
        self.discard()

    def discard(self) -> None:
        """Do what `aclose` does."""
        if not self._task.done() and self.content is None:
            self._task.cancel()


async def _file_pieces(content: FileContent) -> AsyncIterator[bytes]:
    content.file.seek(content.offset)
    left = content.size
    while left > 0 and (piece := await in_thread(partial(content.file.read, min(left, CHUNK)))):
        left -= len(piece)
        yield piece
    if left:
        raise EOFError(f"the file is {left} bytes shorter than declared")
