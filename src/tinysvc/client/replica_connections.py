"""The connections to one replica.

A call holds a slot, which is a connection or the right to make one, until `give_back` or `discard`. A free slot goes to
the call that has waited longest. Each slot is given back exactly once, whatever ends the call.
"""

from __future__ import annotations

import asyncio
import resource
import select
import socket
import ssl
from collections import deque
from time import monotonic
from typing import Any, NamedTuple

from ..core.forks import detach_in_child
from ..core.settings import Settings
from .address import Address
from .call_connection import CallConnection, Owner
from .retries import AttemptFailed, Failure

CONNECT_TIMEOUT = 2.0
"""Seconds to connect, and at most half of the time that is left: a lost SYN is sent again after one second."""

FAIR_TIME = 0.1
"""Seconds to connect from which a replica is blamed for a budget that ends before: a handshake across continents."""

PEEK_AFTER = 0.02
"""Seconds after which an idle connection is asked whether it was closed; before, the event loop knows."""


def _most_connections() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1000 if descriptors == resource.RLIM_INFINITY else max(16, min(1000, descriptors // 4))


MAX_CONNECTIONS = _most_connections()
"""Connections to one replica; further calls wait for one. A quarter of the descriptors: the server needs most."""


CLOSED = "The service shuts down, and calls no other any more."


class Endpoint(NamedTuple):
    """A resolved address: the family of its socket, and the target of `connect`."""

    family: int
    target: Any


class ReplicaConnections:
    """The connections to one endpoint, idle ones and those that carry a call."""

    def __init__(
        self, address: Address, endpoint: Endpoint, settings: Settings, tls: ssl.SSLContext | None, owner: Owner
    ) -> None:
        self.address = address
        self.endpoint = endpoint
        self.open: set[CallConnection] = set()
        self.closing = False
        self._is_aborted = False
        self._settings = settings
        self._tls = tls if address.scheme == "https" else None
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._idle: list[CallConnection] = []  # used last in, first out: the others may grow old
        self._slots = 0  # that are taken, by connections and by calls that connect
        self._waiting: deque[asyncio.Future[CallConnection | None]] = deque()
        detach_in_child(self, ReplicaConnections._descriptors)

    def _descriptors(self) -> list[int]:
        """A forked child must not keep the connections open: the callee would not see that they are closed."""
        return [connection.descriptor() for connection in self.open]

    def take_idle(self, now: float) -> CallConnection | None:
        """A connection that can be used at once."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            age = now - connection.idle_since
            if age < connection.idle_limit and connection.is_usable() and (age < PEEK_AFTER or _is_open(connection)):
                return connection
            self.discard(connection)
        return None

    async def take(self, deadline: float | None) -> CallConnection:
        """A new connection, or one that another call has given back. `deadline`: of the call.

        Raises:
            AttemptFailed: There is no connection.
            TimeoutError: The deadline has passed.
        """
        if self._is_aborted:
            raise AttemptFailed(Failure.REFUSED, CLOSED)
        if self._slots >= MAX_CONNECTIONS or self._waiting:
            async with asyncio.timeout(None if deadline is None else deadline - monotonic()):
                connection = await self._wait_for_slot()
            if connection is not None:
                return connection
        else:
            self._slots += 1
        try:
            connection = await self._connect(deadline)
        except BaseException:
            self._free(None)
            raise
        self.open.add(connection)
        if self._is_aborted:
            self.discard(connection)
            raise AttemptFailed(Failure.REFUSED, CLOSED)
        return connection

    async def _wait_for_slot(self) -> CallConnection | None:
        waiter: asyncio.Future[CallConnection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._free(waiter.result())  # it was given a slot in the same turn in which it was cancelled
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    async def _connect(self, deadline: float | None) -> CallConnection:
        limit = CONNECT_TIMEOUT if deadline is None else min(CONNECT_TIMEOUT, (deadline - monotonic()) / 2)
        if limit <= 0.0:
            raise TimeoutError
        try:
            async with asyncio.timeout(limit) as timer:
                return await self._connected()
        except TimeoutError as error:
            if not timer.expired():  # it comes from the kernel
                raise AttemptFailed(Failure.NOT_SENT, f"A connection was not made: {error}.") from None
            failure = Failure.NO_TIME if limit < FAIR_TIME else Failure.SLOW_CONNECT
            if limit == CONNECT_TIMEOUT:
                failure = Failure.NOT_SENT
            raise AttemptFailed(failure, f"A connection was not made within {limit:.2g} s.") from None
        except ssl.SSLError as error:
            raise AttemptFailed(Failure.NOT_SENT, f"The TLS handshake failed: {error}.") from None
        except OSError as error:
            refused = isinstance(error, (ConnectionRefusedError, FileNotFoundError))
            failure = Failure.REFUSED if refused else Failure.NOT_SENT
            raise AttemptFailed(failure, f"A connection was not made: {error.strerror or error}.") from None

    async def _connected(self) -> CallConnection:
        loop, address = self._loop, self.address
        connection = CallConnection(self._owner, address.authority, self._settings, loop)
        if address.scheme == "unix":
            await loop.create_unix_connection(lambda: connection, address.path)
            return connection
        sock = socket.socket(self.endpoint.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, self.endpoint.target)
            host = address.host if self._tls else None
            await loop.create_connection(lambda: connection, sock=sock, ssl=self._tls, server_hostname=host)
        except BaseException:
            sock.close()
            raise
        return connection

    def give_back(self, connection: CallConnection, now: float) -> None:
        """The connection can be used again."""
        connection.idle_since = now
        if self.closing:
            self.discard(connection)
        elif self._waiting:
            self._free(connection)
        else:
            self._idle.append(connection)

    def discard(self, connection: CallConnection) -> None:
        """Close the connection, and free its slot."""
        if connection in self.open:
            self.open.discard(connection)
            connection.close()
            self._free(None)

    def lose(self, connection: CallConnection) -> None:
        """The other side has closed the connection. A call that uses it finds out by itself."""
        if connection in self._idle:
            self._idle.remove(connection)
            self.discard(connection)

    def _free(self, connection: CallConnection | None) -> None:
        """Give a connection, or the right to make one, to the call that has waited longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if connection is None:
            self._slots -= 1
        else:
            self.give_back(connection, connection.idle_since)

    def close_idle(self, before: float) -> None:
        """Close the connections that are idle since before this time."""
        while self._idle and self._idle[0].idle_since <= before:
            self.discard(self._idle.pop(0))

    def close(self) -> None:
        """Close idle connections now, and the others when their calls end."""
        self.closing = True
        self.close_idle(monotonic())

    def abort(self) -> None:
        """Close all connections, for good; calls that use one fail."""
        self.closing = self._is_aborted = True
        for connection in list(self.open):
            connection.close()


def _is_open(connection: CallConnection) -> bool:
    """Whether nothing has come on the connection, not even its end: the event loop may not have looked yet."""
    try:
        poller = select.poll()
        poller.register(connection.descriptor(), select.POLLIN)
        return not poller.poll(0)
    except (OSError, ValueError):
        return False
