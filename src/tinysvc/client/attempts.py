"""One call: its attempts, one after the other, until one has a response."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from time import monotonic
from typing import Any, NoReturn

import orjson

from ..core.call_errors import CallFailed, CallTimeout, CallUnavailable
from .messages import Incoming, Outgoing
from .replica import AT_DEADLINE, AnyReplica
from .replicas import Replicas
from .retries import MAX_ATTEMPTS, REPEATED_STATUS, AttemptFailed, Failure, may_repeat, was_not_sent

MAX_PROBLEM = 16 * 1024
"""Bytes of a problem document that are read to see whether the job was started."""


class Attempts:
    """The attempts of one call. With a hedge, two loops of `response` share them."""

    __slots__ = ("_deadline", "_idempotent", "_replicas", "_request", "sent", "tried")

    def __init__(self, replicas: Replicas, request: Outgoing, deadline: float | None, idempotent: bool) -> None:
        self._replicas = replicas
        self._request = request
        self._deadline = deadline
        self._idempotent = idempotent and request.can_repeat
        self.sent = 0  # requests
        self.tried: list[AnyReplica] = []

    async def response(self, now: float) -> Incoming:
        """The first response. A 503 is one, too, if the call may not be repeated.

        Raises:
            CallFailed: No attempt has a response.
        """
        failed: AttemptFailed | None = None
        while True:
            if self._deadline is not None and self._deadline <= now:
                raise self._too_late(None)
            replica = self._next_replica(now, failed)
            self.tried.append(replica)
            self.sent += 1
            try:
                incoming = await replica.exchange(self._request, now, self._deadline)
            except AttemptFailed as error:
                failed = error
                now = monotonic()
                self._go_on(replica, failed, now)
            except CallFailed as error:
                error.service, error.attempts = self._replicas.service, self.sent
                raise
            except TimeoutError:
                if self._deadline is None or monotonic() < self._deadline - AT_DEADLINE:
                    raise  # the iterator of the request's body has raised it
                raise self._too_late(replica) from None
            else:
                incoming.service, incoming.attempts = self._replicas.service, self.sent
                if incoming.status != REPEATED_STATUS or not await self._may_go_elsewhere(incoming):
                    return incoming
                failed, now = AttemptFailed(Failure.NOT_STARTED, Failure.NOT_STARTED.value), monotonic()

    def hedge(self) -> Coroutine[Any, Any, Incoming] | None:
        """A further attempt beside the first, at another replica; None if it may not be made."""
        now = monotonic()
        if self.sent >= MAX_ATTEMPTS or self._replicas.choose(now, self.tried) is None:
            return None
        return self.response(now) if self._replicas.budget.withdraw(now) else None

    def _next_replica(self, now: float, failed: AttemptFailed | None) -> AnyReplica:
        replicas = self._replicas
        replica = replicas.choose(now, self.tried)
        if replica is None and failed is not None and not was_not_sent(failed.failure):
            replica = replicas.choose(now)  # there is no other
        if replica is not None:
            return replica
        if failed is not None:
            self._fail(self.tried[-1], failed)
        if not replicas.every and not replicas.fault:  # the first lookup has not ended in time
            raise self._too_late(None)
        pause = math.ceil(replicas.pause(now)) or 1
        reason = replicas.fault if not replicas.every else "all replicas are avoided after failures"
        raise CallUnavailable(f"The service cannot be called: {reason}.", retry_after=pause, service=replicas.service)

    def _go_on(self, replica: AnyReplica, failed: AttemptFailed, now: float) -> None:
        """Return if another attempt follows; else raise the error of the call."""
        replicas, failure = self._replicas, failed.failure
        if was_not_sent(failure):
            self.sent -= 1
            replicas.renew_soon(now)
        elif failure is Failure.IDLE_RACE:
            replica.connections.close_idle(now)  # the next connection must be a new one
        if not may_repeat(failure, idempotent=self._idempotent) or self.sent >= MAX_ATTEMPTS:
            self._fail(replica, failed)
        if not was_not_sent(failure) and not replicas.budget.withdraw(now):
            self._fail(replica, failed)

    async def _may_go_elsewhere(self, incoming: Incoming) -> bool:
        """Whether a 503 leads to another attempt: its job was never started, and there is a replica and time for it."""
        if self.sent >= MAX_ATTEMPTS or not self._request.can_repeat or not await _was_not_started(incoming):
            return False
        now = monotonic()
        pause = 0.0
        if self._replicas.choose(now, self.tried) is None:
            pause = _retry_after(incoming)
            if self._deadline is None or now + pause >= self._deadline:
                return False
        if not self._replicas.budget.withdraw(now):
            return False
        if pause:
            await asyncio.sleep(pause)
        return True

    def _too_late(self, replica: AnyReplica | None) -> CallTimeout:
        if replica is None:
            message = "The budget of the call was used up before it was sent."
        else:
            message = "The budget of the call is used up, and no response has come."
        return CallTimeout(message, **self._facts(replica))

    def _fail(self, replica: AnyReplica, failed: AttemptFailed) -> NoReturn:
        if was_not_sent(failed.failure):
            raise CallUnavailable(failed.detail, **self._facts(replica)) from None
        raise CallFailed(failed.detail, **self._facts(replica)) from None

    def _facts(self, replica: AnyReplica | None) -> dict[str, Any]:
        name = "" if replica is None else replica.name
        return {"service": self._replicas.service, "replica": name, "attempts": self.sent}


async def _was_not_started(incoming: Incoming) -> bool:
    """Whether the response's problem document says `"started": false`."""
    headers = incoming.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/problem+json":
        return False
    length = headers.get("content-length", "")
    if not (length.isdecimal() and int(length) <= MAX_PROBLEM):
        return False
    try:
        problem = orjson.loads(await incoming.body(MAX_PROBLEM))
    except orjson.JSONDecodeError:
        return False
    return isinstance(problem, dict) and problem.get("started") is False


def _retry_after(incoming: Incoming) -> float:
    """The seconds of Retry-After; endless without it, or with a date."""
    text = incoming.headers.get("retry-after", "")
    return float(text) if text.isdecimal() and len(text) < 10 else math.inf
