"""All open connections of a server: their number, their deadlines, and their end when the server drains."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextvars import copy_context
from email.utils import formatdate

from ..core import forks
from ..core.errors import HTTPError, ProtocolError
from ..core.requests import Request
from ..core.responses import Handler, Response, problem_response
from ..core.settings import Settings
from ..core.shutdown import CUT_OFF, STALL_THRESHOLD, awake_timeout
from ..http import BODY, HANDLER, IDLE, LINGER, Connection, TransportEvents
from ..wire.bodies import RETRY
from ..wire.connection import IDLE as NOT_BEGUN

MAX_TURNED_AWAY = 16
"""Connections over the limit, beside a tenth of it, that get their 503; further connections are closed without one."""

SWEEP = 1.0
"""Seconds between two looks at all deadlines. One timer for all costs less than one for every request."""

ON_ITS_WAY = 0.25
"""Seconds in which a connection that was accepted just before the server drains may bring its first request."""

_OVERLOADED = HTTPError(503, "The server has too many open connections.", headers=RETRY)
_OVERLOADED.never_started = True


class Connections:
    """All open connections of a server, and the state that they share. It is the protocol factory of its sockets.

    Its sweep over their deadlines runs from the beginning to `abort`.
    """

    def __init__(self, handler: Handler, settings: Settings, *, scheme: str = "http") -> None:
        self.handler = handler
        self.settings = settings
        self.scheme = scheme
        self._connection_class = _connection_class(settings)
        self.loop = asyncio.get_running_loop()
        self.context = copy_context()  # that each request begins with
        self.draining = False
        self._leaves = False
        self.takes_new = True  # also for a moment of draining
        self._none_is_idle = False  # no idle connection was found in this second
        self.open: dict[Connection, None] = {}  # in order of arrival
        self.body_memory = 0  # bytes of bodies that all requests hold, but for those that came whole with their heads
        self.refusals: Counter[int] = Counter()  # by status: of messages, and of connections over the limit
        self._empty = asyncio.Event()
        self.now = self._swept = self.loop.time()
        forks.detach_in_child(self, Connections._detach_in_child)
        self._sweep()

    def __call__(self) -> TransportEvents:
        return TransportEvents(self, self._connection_class)

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(SWEEP, self._sweep)
        passed, self._swept = self.loop.time() - self._swept, self.loop.time()
        self.now += min(passed, SWEEP + STALL_THRESHOLD)  # bytes that came while the process was stopped are not late
        self.idle_until = self.now + self.settings.keep_alive_timeout
        self.date_lines = b"date: %b\r\n\r\n" % formatdate(time.time(), usegmt=True).encode()
        self._none_is_idle = False
        late = self.now - SWEEP  # deadlines are counted from the last sweep: none is early, some are two sweeps late
        for connection in [c for c in self.open if c.deadline < late]:
            connection.expire(self.now)

    def add(self, connection: Connection) -> None:
        self.open[connection] = None
        if self._leaves:
            connection.wire.close_after(1)
        most = self.settings.max_connections
        if len(self.open) <= most:
            return
        if len(self.open) > most + most // 10 + MAX_TURNED_AWAY:
            self.refusals[_OVERLOADED.status] += 1
            connection.transport.abort()
            return
        self._none_is_idle = self._none_is_idle or not any(
            other.phase == IDLE and other.end_when_idle() for other in self.open
        )
        if self._none_is_idle:  # do not look again in this second: there may be thousands
            self.refusals[_OVERLOADED.status] += 1
            _refuse_all(connection, _OVERLOADED)
            connection.deadline = self.now + LINGER  # a client that sends no request must not keep its connection

    def _detach_in_child(self) -> list[int]:
        """In a forked child: it sends no response. Returns the descriptors of the sockets."""
        for connection in self.open:
            connection.disconnected = True
        sockets = [connection.transport.get_extra_info("socket") for connection in self.open]
        return [sock.fileno() for sock in sockets if sock is not None]

    def discard(self, connection: Connection) -> None:
        self.open.pop(connection, None)
        if not self.open:
            self._empty.set()

    def leave(self) -> None:
        """Close each connection after its next response, which says so: its client then connects to another replica.

        A connection that is used again and again would otherwise be closed by the drain, perhaps just when its client
        sends a request.
        """
        self._leaves = True
        for connection in self.open:
            in_handler = connection.phase in (BODY, HANDLER) and connection.wire.outgoing == NOT_BEGUN
            connection.wire.close_after(0 if in_handler and not connection.wire.buffer else 1)

    async def drain(self, timeout: float) -> bool:
        """Let requests under way finish, take no new ones. False if some were still there after `timeout` seconds."""
        self.draining = True
        for connection in list(self.open):
            if connection.stream is not None:
                connection.stream.end()
            if connection.wire.requests == 0 and not connection.wire.buffer and connection.is_new():
                connection.wire.close_after(1)
            else:
                _refuse_all(connection, _draining())
                is_of_service = connection.wire.timeout is not None  # its last request had a time limit
                if is_of_service and connection.phase == IDLE and connection.inbox.is_awaited():
                    # Respond to its next request before it comes: one that crosses this can be sent elsewhere, and
                    # could not be if the connection closed without a word. A client without a request discards the
                    # response (RFC 9112, 6.3).
                    connection.inbox.fail(_draining())
                else:
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
        self.takes_new = False
        for connection in list(self.open):
            if connection.stream is not None:
                connection.stream.end()
            connection.end_when_idle()

    def abort(self) -> list[asyncio.Task[None]]:
        """Cut off every connection and stop the sweep. The tasks of the connections, which clean up."""
        self._timer.cancel()
        tasks = [connection.task for connection in self.open]
        for connection in list(self.open):
            connection.ignore_disconnect()
            connection.task.cancel(CUT_OFF)
            connection.transport.abort()
        return tasks


def _connection_class(settings: Settings) -> type[Connection]:
    if not settings.access_log:
        return Connection
    from .access_log import LoggedConnection  # imported only where it is used

    return LoggedConnection


def _draining() -> ProtocolError:
    error = ProtocolError(503, "The server is shutting down.", headers=RETRY)
    error.never_started = True
    return error


def _refuse_all(connection: Connection, error: HTTPError) -> None:
    """Respond to the next request, if there is one, with `error`, and close after it."""

    async def refuse(request: Request) -> Response:
        return problem_response(error, request)

    connection.handler = refuse
    connection.wire.close_after(0)
