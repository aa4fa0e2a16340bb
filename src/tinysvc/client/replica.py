"""One replica of a service: its calls in flight, and its health as their results show it.

`Replica` calls it over HTTP, and rpc_replica.py over gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from abc import ABC, abstractmethod
from collections.abc import Collection
from time import monotonic
from typing import Any, NamedTuple, Protocol

from ..core.budget import format_timeout
from ..core.call_errors import CallFailed, CallTimeout
from ..core.settings import Settings
from .address import Address
from .breaker import REFUSED_PAUSE, Breaker
from .call_connection import CallConnection
from .deadlines import Deadlines
from .messages import Incoming, Outgoing
from .replica_connections import Endpoint, ReplicaConnections
from .retries import AttemptFailed, Failure, is_blamed, is_certain

log = logging.getLogger("tinysvc.client")

AT_DEADLINE = 0.01
"""Seconds before a deadline from which a cancellation or a timeout counts as the deadline: the limit of the handler
that calls ends at the same moment, and its timer may be the faster one; and uvloop rounds timers to milliseconds."""

RESPONSE_GRACE = 0.05
"""Seconds after a deadline in which a response, although it is discarded, still shows that the replica is alive."""


class Shared(NamedTuple):
    """State that the replicas of all services share."""

    settings: Settings
    tls: ssl.SSLContext | None
    deadlines: Deadlines
    senders: set[asyncio.Task[None]]


class Connections(Protocol):
    """The connections to a replica."""

    @property
    def open(self) -> Collection[object]:
        """All of them."""

    def close_idle(self, before: float) -> None:
        """Close those that are idle since before this time."""

    def close(self) -> None:
        """Close idle ones now, and the others when their calls end."""

    def abort(self) -> None:
        """Close all, for good; calls that use one fail."""


class AnyReplica(ABC):
    """One replica of a service, whatever its protocol."""

    connections: Connections

    def __init__(self, address: Address, endpoint: Endpoint) -> None:
        self.name = str(address)
        self.endpoint = endpoint
        self.breaker = Breaker()
        self.in_flight = 0

    @abstractmethod
    async def exchange(self, request: Outgoing, now: float, deadline: float | None) -> Incoming:
        """Send the request, and wait for the head of its response.

        Raises:
            AttemptFailed: There is no response.
            TimeoutError: The deadline has passed.
        """

    # Health

    def _count_response(self, is_probe: bool) -> None:
        if self.breaker.pauses:
            log.info("%s responds again", self.name)
        self.breaker.succeed()
        if is_probe:
            self.breaker.end_probe()

    def _count_failure(self, is_probe: bool, failure: Failure | None, why: str) -> None:
        at_once, is_known = failure is not None and is_certain(failure), self.breaker.pauses > 0
        refused = failure is Failure.REFUSED
        opens = self.breaker.fail(
            monotonic(), random.random(), is_probe=is_probe, at_once=at_once, pause=REFUSED_PAUSE if refused else None
        )
        if opens and not is_known:
            log.warning("%s is avoided until it responds: %s", self.name, why)

    def __repr__(self) -> str:
        number = len(self.connections.open)
        return f"<{type(self).__name__} {self.name}, {self.in_flight} calls, {number} connections>"


class Replica(AnyReplica):
    """One replica of a service, over HTTP."""

    connections: ReplicaConnections

    def __init__(self, address: Address, endpoint: Endpoint, shared: Shared) -> None:
        super().__init__(address, endpoint)
        self.connections = ReplicaConnections(address, endpoint, shared.settings, shared.tls, self)
        self._prefix = address.prefix
        self._deadlines = shared.deadlines
        self._senders = shared.senders

    async def exchange(self, request: Outgoing, now: float, deadline: float | None) -> Incoming:
        is_probe = self.breaker.pauses > 0 and self.breaker.begin()
        self.in_flight += 1
        connection = self.connections.take_idle(now)
        try:
            if connection is None:
                connection = await self.connections.take(deadline)
                now = monotonic()
            connection.is_probe = is_probe
            headers = request.headers
            if deadline is not None:
                if deadline <= now:
                    raise TimeoutError
                headers = [*headers, ("request-timeout", format_timeout(deadline - now))]
                self._deadlines.add(connection, deadline)
            connection.begin(request, headers, self._prefix)
            if connection.sender is not None:
                self._keep(connection.sender)
            head = await connection.receive_head()
            if connection.sender is not None and head.status >= 400:
                connection.sender.cancel()
            content = head.content
        except BaseException as error:
            self._end_badly(connection, error, is_probe, deadline)
            raise
        if self.breaker.failures or is_probe:
            self._count_response(is_probe)
        if connection.wire.body is None:
            self.end(connection)
            return Incoming(head.status, head.headers, self.name, content)
        return Incoming(head.status, head.headers, self.name, None, ResponseBody(self, connection, head.status))

    def _keep(self, sender: asyncio.Task[None]) -> None:
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    # The end of an exchange: each calls `end` or `cut_off` once

    def end(self, connection: CallConnection) -> None:
        """The response was received to its end."""
        self._deadlines.discard(connection)
        self.in_flight -= 1
        if connection.end_exchange():
            self.connections.give_back(connection, monotonic())
        else:
            self.connections.discard(connection)

    def cut_off(self, connection: CallConnection) -> None:
        """Discard the exchange, and its connection: the callee sees a disconnect."""
        self._deadlines.discard(connection)
        self.in_flight -= 1
        self.connections.discard(connection)

    def _end_badly(
        self, connection: CallConnection | None, error: BaseException, is_probe: bool, deadline: float | None
    ) -> None:
        """No head came: count it for or against the replica, and end the connection."""
        if isinstance(error, AttemptFailed) and is_blamed(error.failure) and not self.connections.closing:
            self._count_failure(is_probe, error.failure, error.detail)
        if connection is None:
            self.in_flight -= 1
        elif isinstance(error, asyncio.CancelledError) and connection.is_whole():
            self.end(connection)
        elif _is_too_late(error, connection, deadline) and not connection.has_response():
            connection.interrupt()
            self._deadlines.add(connection, monotonic() + RESPONSE_GRACE)
            return  # `on_deadline` goes on
        else:
            self.cut_off(connection)
        if is_probe:
            self.breaker.end_probe()

    # Events of connections

    def on_deadline(self, connection: CallConnection) -> None:
        if not connection.expired:
            connection.interrupt()
            return
        if not connection.has_response():  # RESPONSE_GRACE is over
            self._count_failure(connection.is_probe, None, "The response did not come in time.")
        self.cut_off(connection)
        if connection.is_probe:
            self.breaker.end_probe()

    def lose(self, connection: CallConnection) -> None:
        self.connections.lose(connection)


def _is_too_late(error: BaseException, connection: CallConnection, deadline: float | None) -> bool:
    """Whether the deadline has ended the exchange."""
    if isinstance(error, asyncio.CancelledError):
        return deadline is not None and monotonic() >= deadline - AT_DEADLINE
    return connection.expired and isinstance(error, TimeoutError)


class ResponseBody:
    """The body of a response that did not come whole with its head."""

    def __init__(self, replica: Replica, connection: CallConnection, status: int) -> None:
        self._replica = replica
        self._connection: CallConnection | None = connection
        self._status = status

    async def receive_piece(self) -> bytes:
        """The next bytes; b"" at the end. CallFailed if the body is cut short, CallTimeout at the deadline."""
        connection = self._connection
        if connection is None:
            return b""
        facts: dict[str, Any] = {"replica": self._replica.name, "answered": self._status}
        try:
            piece = await connection.receive_piece()
        except AttemptFailed as error:
            self.close()
            raise CallFailed(error.detail, **facts) from None
        except TimeoutError:
            self.close()
            raise CallTimeout("The budget of the call is used up; its response is not whole.", **facts) from None
        except BaseException:
            self.close()
            raise
        if connection.wire.body is None:
            self._connection = None
            self._replica.end(connection)
        return piece

    def close(self) -> None:
        """Discard the rest, and the connection with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._replica.cut_off(connection)
