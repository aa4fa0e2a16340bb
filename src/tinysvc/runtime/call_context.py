"""What a call takes along from the code that makes it: the deadline, the request's id and trace, and a count of hops.

A call reads all this when it is made, not when it is awaited: `gather(call(a), call(b))` runs each call in a task of
its own, which works for no request.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple

from ..core.budget import current_deadline, current_request
from ..core.call_errors import CallRefused
from ..core.request_context import current_owner, request_id
from ..core.requests import Request
from ..core.trace_context import trace_headers

HOPS = "x-call-hops"
"""Header with the number of services that a request has passed."""

MAX_HOPS = 16
"""More services in a row are a circle: a deep system has five or six. CDN-Loop (RFC 8586) has the same purpose."""

GRACE = 1.0
"""Seconds beyond the callee's own timeout: its response, which says more, comes first."""

LONGEST = 30 * 24 * 3600.0
"""Seconds for a call without any limit. It has a deadline all the same: a callee stops the work of a caller that has
given a time and disconnects."""


def time_for(timeout: float | None, call_timeout: float) -> float:
    """The seconds for a call of a handler where the caller has no deadline.

    Args:
        timeout: The timeout of the handler's route; None if it declares none, 0 for no limit.
        call_timeout: The setting.
    """
    if timeout is None:
        return call_timeout or LONGEST
    return timeout + GRACE if timeout else LONGEST


class CallContext(NamedTuple):
    """The circumstances of one call."""

    deadline: float
    """In seconds of `time.monotonic`."""
    own_id: str
    """The request id that the calling code has set itself, or ""."""
    request: Request | None
    """The request that the calling code works for."""
    hops: int
    """Services that have called each other so far, with this call."""
    pools: frozenset[object] = frozenset()
    """Pools with a worker that waits for this call."""

    def check_pool(self, pool: object, handler: str) -> None:
        """CallRefused if the call needs a worker of a pool that waits for it: it could wait for itself."""
        if pool is not None and pool in self.pools:
            raise CallRefused(
                f"The call of {handler} needs a worker of the pool {getattr(pool, 'name', pool)!r}, and another one "
                "of its workers waits for it: the call could wait for itself. Give one of the two routes another pool"
            )

    @property
    def request_id(self) -> str:
        """The id of the request, which the callee gets."""
        return self.own_id or ("" if self.request is None else self.request.id)

    def headers(self, forwarded: Iterable[str] = ()) -> list[tuple[str, str]]:
        """The headers of a call: the trace, the request's id, the hops, and `forwarded` headers of the request."""
        found = [(HOPS, str(self.hops))]
        if identity := self.request_id:
            found.append(("x-request-id", identity))
        given = None if self.request is None else self.request.headers
        found += trace_headers(given)
        if given is not None and forwarded:
            found += [(name, given[name]) for name in forwarded if name in given]
        return found


calling: ContextVar[CallContext | None] = ContextVar("tinysvc_calling", default=None)
"""The call that the running code answers, where that runs in this process."""


def call_context(default: float) -> CallContext:
    """The context of a call that is made now.

    Args:
        default: Seconds for the call, if the calling code has no deadline.

    Raises:
        CallRefused: The call would be the 17th hop.
    """
    deadline = current_deadline()
    if deadline is None:
        deadline = monotonic() + default
    inner = calling.get()
    pools: frozenset[object] = frozenset()
    if inner is not None:
        request, hops, pools = inner.request, inner.hops, inner.pools
    else:
        owner = current_owner()
        request = owner.current_request() if owner is not None else current_request()
        hops = 0 if request is None else hops_of(request)
    if hops >= MAX_HOPS:
        raise CallRefused(f"The request has passed {hops} services: do they call each other in a circle?")
    return CallContext(deadline, request_id.own(), request, hops + 1, pools)


def hops_of(request: Request) -> int:
    """The number of services that a request has passed, as its sender counts them."""
    text = request.headers.get(HOPS, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0
