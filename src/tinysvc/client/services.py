"""Calls to other services: the replicas of each, and the state that all calls share.

    send ──> Attempts ──> Replicas.choose ──> Replica.exchange ──> CallConnection ──> wire/client_connection.py
               │  retries.py, retry_budget.py    │  balancing.py      │  breaker.py; over gRPC rpc_replica.py
               └─ hedging.py                     └─ lookup.py         └─ replica_connections.py, deadlines.py

No task, timer or lock is made for a call that finds an idle connection: one timer serves all deadlines, and another
closes idle connections, as long as there are any.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from ..core.errors import ConfigurationError
from ..core.settings import Settings
from .address import Address
from .attempts import Attempts
from .call_connection import IDLE_LIMIT, too_large
from .client_tls import client_context
from .deadlines import Deadlines
from .hedging import first_response
from .messages import Incoming, Outgoing
from .replica import AnyReplica, Shared
from .replicas import Replicas

SWEEP = 1.0
"""Seconds between two looks for connections that are idle for too long."""


class CallEnd(NamedTuple):
    """How a call has ended, or that its response has begun."""

    service: str
    request: Outgoing
    seconds: float
    """Until the head of the response, or the failure."""
    attempts: int
    """Requests that were sent."""
    result: Incoming | BaseException


class Services:
    """The services that can be called. `on_end` is called with each end of a call, if it is set.

    Args:
        addresses: The addresses of each service.
        settings: Limits of heads and bodies.
        tls: Context for https; None: a default one, with the system's authorities.
    """

    def __init__(
        self, addresses: Mapping[str, Sequence[Address]], settings: Settings, *, tls: ssl.SSLContext | None = None
    ) -> None:
        if tls is None and any(each.scheme == "https" for replicas in addresses.values() for each in replicas):
            tls = client_context()
        self.addresses = addresses
        self.on_end: Callable[[CallEnd], None] | None = None
        self._settings = settings
        self._tls = tls
        self._replicas: dict[str, Replicas] = {}
        self._shared: Shared | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def send(
        self, service: str, request: Outgoing, *, deadline: float | None, idempotent: bool, hedge: float | None = None
    ) -> Incoming:
        """Send a request to a replica of the service, and wait for the head of the response.

        Args:
            service: Name of the service.
            request: The request. `Host`, `Content-Length` and `Request-Timeout` are added.
            deadline: End of the budget, in seconds of `time.monotonic`, for all attempts and the body of the response;
                None for no end.
            idempotent: Whether the request may be sent again after an attempt that the callee may have started.
            hedge: Seconds after which an idempotent request goes to another replica, too, if there is no response.

        Returns:
            The response, with any status.

        Raises:
            CallUnavailable: No replica can be called.
            CallTimeout: The budget is used up.
            CallFailed: No attempt has a response.
            HTTPError: 413: the body of the request is too large.
            ConfigurationError: There is no such service.
        """
        replicas = self._replicas.get(service) or self._opened(service)
        now = monotonic()
        body = request.body
        if isinstance(body, bytes) and len(body) > self._settings.max_body_size:
            raise too_large(len(body), self._settings.max_body_size)
        if now >= replicas.renew_at or not replicas.every:
            await replicas.renew(now, deadline)
            now = monotonic()
        replicas.budget.deposit(now)
        if self._sweeping is None:
            self._sweep_later()
        attempts = Attempts(replicas, request, deadline, idempotent)
        response = attempts.response(now)
        if hedge is not None and idempotent and request.can_repeat:
            response = first_response(response, hedge, attempts.hedge)
        if self.on_end is None:
            return await response
        return await self._observed(service, request, response, attempts, now)

    async def _observed(
        self, service: str, request: Outgoing, response: Coroutine[Any, Any, Incoming], attempts: Attempts, begin: float
    ) -> Incoming:
        result: Incoming | BaseException
        try:
            result = await response
        except BaseException as error:
            result = error
        if self.on_end is not None:
            self.on_end(CallEnd(service, request, monotonic() - begin, attempts.sent, result))
        if isinstance(result, BaseException):
            try:
                raise result
            finally:
                del result  # break the reference cycle with this frame
        return result

    def replicas(self) -> Iterator[tuple[str, AnyReplica]]:
        """The replicas that are known now, with the names of their services."""
        for service, replicas in self._replicas.items():
            for replica in replicas.every:
                yield service, replica

    def _opened(self, service: str) -> Replicas:
        addresses = self.addresses.get(service)
        if addresses is None:
            known = ", ".join(sorted(self.addresses)) or "none"
            raise ConfigurationError(
                f"the setting services has no address of {service!r}, only of {known}; add {service}=http://host:port"
            )
        if self._shared is None:
            self._shared = Shared(self._settings, self._tls, Deadlines(), set())
        replicas = self._replicas[service] = Replicas(service, addresses, self._shared)
        return replicas

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        """Close connections that are idle for too long. The last sweep is the one that finds no connection."""
        before, self._sweeping = monotonic() - IDLE_LIMIT, None
        for replicas in self._replicas.values():
            if replicas.close_idle(before) and self._sweeping is None:
                self._sweep_later()

    async def aclose(self) -> None:
        """Close all connections. Calls under way fail."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for replicas in self._replicas.values():
            await replicas.aclose()
        if self._shared is not None:
            self._shared.deadlines.cancel()
            if self._shared.senders:
                await asyncio.wait(self._shared.senders)
        self._replicas.clear()
