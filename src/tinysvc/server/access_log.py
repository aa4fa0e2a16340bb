"""The access log: a line for each request, when its response is written. Only with `access_log`.

    INFO tinysvc.access: 10.0.0.7 GET /items/3 200, 17 bytes, 1.2 ms [GET /items/{name}, request 8f2c-1]

The lines come from a subclass of Connection, which the server uses only with this option: without it, a request costs
nothing more. The status is the one that was sent. Two have a meaning of their own:

    499   the connection ended before there was a response: the client disconnected, or the server was shut down
    101   the connection speaks WebSocket; the line comes at its end, and has its whole duration

`aborted` says that the response was cut off. The path is logged without its query, which may hold secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from time import monotonic
from typing import Any

from ..core.errors import TinysvcError
from ..core.log_records import SOURCE, RecordSource
from ..core.requests import Request
from ..core.responses import FileContent, Response
from ..core.trace_context import trace_of
from ..core.tracebacks import one_line
from ..http import Connection, ServerState
from ..wire.connection import ServerConnection, has_no_body

log = logging.getLogger("tinysvc.access")

DISCONNECTED, SWITCHED = 499, 101
"""The statuses that no response has; the first one is nginx's."""


class CountingWire(ServerConnection):
    """Counts the bytes of streams."""

    __slots__ = ("streamed",)

    streamed: int

    def count(self, size: int) -> None:
        super().count(size)
        self.streamed += size


class LoggedConnection(Connection):
    """A connection that logs each request when its response is written."""

    __slots__ = ("_began", "_response")

    wire_class = CountingWire
    wire: CountingWire

    def __init__(self, server: ServerState) -> None:
        super().__init__(server)
        self.handler = self._handle
        self._began = 0.0  # of the request that is not logged yet; 0: none
        self._response: Response | None = None  # of that request

    async def _handle(self, request: Request) -> Response:
        self._began, self.wire.streamed = monotonic(), 0
        return await self.server.handler(request)

    def _respond(self, request: Request, response: Response) -> Awaitable[bool] | None:
        self._response = response
        rest = super()._respond(request, response)
        if rest is None:
            self._log(request, response.status)
        return rest

    async def _respond_with_more(self, request: Request, response: Response) -> bool:
        goes_on = await super()._respond_with_more(request, response)
        if self.upgraded is not None:
            self._log(request, SWITCHED)
        elif self._response is not None:
            self._log(request, DISCONNECTED)
        return goes_on

    async def _finish(self) -> bool:
        if self.request is not None and self._response is not None:
            self._log(self.request, self._response.status)
        return await super()._finish()

    async def _recover(self, error: BaseException) -> None:
        request = self.request
        await super()._recover(error)
        if request is not None and self._began:
            sent, unsent = self._response, DISCONNECTED if self.upgraded is None else SWITCHED
            self._log(request, unsent if sent is None else sent.status, is_aborted=sent is not None)

    async def _refuse(self, error: TinysvcError) -> None:
        if not self.disconnected:
            self._log(self.request, error.status)
        await super()._refuse(error)

    def _log(self, request: Request | None, status: int, *, is_aborted: bool = False) -> None:
        duration = monotonic() - self._began if self._began else 0.0
        response, self._response, self._began = self._response, None, 0.0
        if not log.isEnabledFor(logging.INFO):
            return
        fields: dict[str, Any] = {"status": status, "duration": round(duration, 6)}
        if request is not None:
            fields = {"method": request.method, "path": one_line(request.raw_path), **fields}
        if not is_aborted or self.wire.streamed:
            fields["bytes"] = self._size(request, response, status)
        if is_aborted:
            fields["aborted"] = True
        peer = self.wire.peer if request is None else request.peer
        fields["client"] = peer.client[0] if isinstance(peer.client, (tuple, list)) else "unix"
        _write(fields, request)

    def _size(self, request: Request | None, response: Response | None, status: int) -> int:
        """Bytes of the body, without the framing of a stream."""
        if response is None or status in (DISCONNECTED, SWITCHED):
            return 0
        if request is None or request.method == "HEAD" or has_no_body(status):
            return 0
        content = response.content
        if isinstance(content, FileContent):
            return content.size
        if isinstance(content, memoryview):
            return content.nbytes
        return len(content) if isinstance(content, bytes) else self.wire.streamed


def _write(fields: dict[str, Any], request: Request | None) -> None:
    source = RecordSource(extra=fields)
    what = "-"
    if request is not None:
        what = f"{fields['method']} {fields['path']}"
        source.request_id, trace = request.id, trace_of(request.headers.raw)
        source.route = request.served_by.route_of(request) if request.served_by is not None else ""
        if trace is not None:
            source.trace_id, source.span_id = trace.trace_id, trace.span_id
    source.message = f"{what} {fields['status']}"
    size = f", {fields['bytes']} bytes" if "bytes" in fields else ""
    aborted = ", aborted" if "aborted" in fields else ""
    place = f" [{place}]" if (place := source.place()) else ""
    text = f"{fields['client']} {source.message}{size}, {fields['duration'] * 1000:.1f} ms{aborted}{place}"
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, text, (), None, extra={**fields, SOURCE: source})
    log.handle(record)
