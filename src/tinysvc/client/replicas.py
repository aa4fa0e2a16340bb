"""The replicas of one service: their names are resolved again and again, and a call gets one of them.

Each IP address behind a name is a replica of its own. A name is resolved again after RENEWAL, and soon after a replica
has failed. An address that is gone gets no new calls; its calls finish, then its connections close. If a lookup fails,
the known addresses stay.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Collection, Sequence
from time import monotonic

from .address import Address
from .balancing import choose
from .lookup import known_endpoint, look_up
from .replica import AnyReplica, Replica, Shared
from .replica_connections import Endpoint
from .retry_budget import RetryBudget

log = logging.getLogger("tinysvc.client")

RENEWAL = 20.0
"""Seconds after which a name is resolved again: with the time of the lookup, a change is known within 30 seconds."""

RENEWAL_ON_FAILURE = 1.0
"""Seconds between two lookups while a replica, or the lookup, fails."""


class Replicas:
    """The replicas of one service."""

    def __init__(self, service: str, addresses: Sequence[Address], shared: Shared) -> None:
        self.service = service
        self.budget = RetryBudget()
        self.every: list[AnyReplica] = []
        self.renew_at = math.inf
        self.fault = ""  # of the last lookup
        self._shared = shared
        self._by_address: dict[Address, list[AnyReplica]] = {}
        self._replaced: list[AnyReplica] = []  # whose calls are not at their end
        self._names: list[Address] = []
        self._looked_up = -math.inf
        self._lookup: asyncio.Task[None] | None = None
        for address in addresses:
            endpoint = known_endpoint(address)
            if endpoint is None:
                self._names.append(address)
                self.renew_at = -math.inf
            self._replace(address, [] if endpoint is None else [endpoint])

    # Names

    async def renew(self, now: float, deadline: float | None) -> None:
        """Resolve the names in the background; wait for that only if no replica is known."""
        if self._lookup is None and now >= self.renew_at:
            self._looked_up, self.renew_at = now, now + RENEWAL
            self._lookup = asyncio.get_running_loop().create_task(self._look_up_all())
        if not self.every and self._lookup is not None:
            await asyncio.wait([self._lookup], timeout=None if deadline is None else deadline - now)

    def renew_soon(self, now: float) -> None:
        """A replica has failed: its name may mean another address by now."""
        if self._names:
            self.renew_at = min(self.renew_at, max(now, self._looked_up + RENEWAL_ON_FAILURE))

    async def _look_up_all(self) -> None:
        try:
            await asyncio.gather(*map(self._look_up, self._names))
        finally:
            self._lookup = None

    async def _look_up(self, address: Address) -> None:
        try:
            endpoints = await look_up(address)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            self.fault = f"the name {address.host} was not resolved: {error or 'no response'}"
            log.warning("%s: %s", self.service, self.fault)
            self.renew_soon(monotonic())
        else:
            self._replace(address, endpoints)

    def _replace(self, address: Address, endpoints: Sequence[Endpoint]) -> None:
        """From now on `address` means these endpoints."""
        before = {replica.endpoint: replica for replica in self._by_address.get(address, ())}
        now = [before.pop(each) if each in before else self._replica(address, each) for each in endpoints]
        self._by_address[address] = now
        self.every = [replica for replicas in self._by_address.values() for replica in replicas]
        for replaced in before.values():
            replaced.connections.close()
        self._replaced = [each for each in (*self._replaced, *before.values()) if each.in_flight]

    def _replica(self, address: Address, endpoint: Endpoint) -> AnyReplica:
        if address.is_rpc:
            from .rpc_replica import RpcReplica  # imported only where gRPC is spoken

            return RpcReplica(address, endpoint, self._shared)
        return Replica(address, endpoint, self._shared)

    # Calls

    def choose(self, now: float, tried: Collection[AnyReplica] = ()) -> AnyReplica | None:
        """A replica that may get a call and is not in `tried`; None if there is none."""
        every = self.every
        for replica in every:
            if replica.breaker.pauses or tried:
                every = [each for each in every if each not in tried and each.breaker.allows(now)]
                break
        return choose(every, random.random) if every else None

    def pause(self, now: float) -> float:
        """Seconds until a replica may be tried again, if all are avoided."""
        ends = [replica.breaker.until - now for replica in self.every]
        return max(0.0, min(ends, default=RENEWAL_ON_FAILURE))

    # The end

    def close_idle(self, before: float) -> bool:
        """Close connections that are idle since before this time. Whether any connection is left."""
        for replica in self.every:
            replica.connections.close_idle(before)
        return any(replica.connections.open for replica in self.every)

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.wait([self._lookup])
        for replica in (*self.every, *self._replaced):
            replica.connections.abort()
