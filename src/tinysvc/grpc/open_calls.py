"""The RPCs that run: each with its request, and all of them with what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Protocol

from msgspec import Struct

import grpc

from ..core.request_context import owner_by_task
from ..core.shutdown import DRAINED
from ..runtime.message_routes import MessageRoute
from .rpc_requests import Metadata, RpcRequest
from .silent_calls import SilentCalls

QUIET = 0.02
"""Seconds without a new call after which a drain may begin: a call that has arrived is taken within much less, also on
a busy machine."""

AT_DEADLINE = 0.02
"""Seconds before its deadline in which a cancelled call counts as late: the client's clock started first, and its own
cancellation, at its deadline, arrives before the deadline here."""

LONGEST_HOLD = 0.25
"""Seconds, at most, in which replies are held at the beginning of a drain."""

Context = Any
"""grpcio's context of an RPC (grpc.aio.ServicerContext)."""


class CalledMethod(Protocol):
    """The method of an RPC."""

    name: str
    """As in "/inference.Inference/Predict"."""
    route: MessageRoute
    calls: OpenCalls

    def request_of(self, call: OpenCall) -> RpcRequest:
        """A request for an RPC."""


class OpenCall(Struct, eq=False):
    """An RPC that runs. Its request is made when it is asked for: a handler of messages alone needs none."""

    method: CalledMethod
    message: Any
    context: Context
    """None: the RPC has ended."""
    metadata: Metadata
    time_limit: float | None = None
    """Point in time (`time.monotonic`) of the client's deadline."""
    begun: float = 0.0
    """Point in time (`time.perf_counter`), for `OpenCalls.on_end`."""
    address: str = ""
    """The client, as grpcio names it, if it is needed at the end: after a deadline, grpcio often does not know it."""
    status: grpc.StatusCode = grpc.StatusCode.OK
    is_ended: bool = False
    """The server shuts down, and has cancelled it."""
    made_request: RpcRequest | None = None

    @property
    def request(self) -> RpcRequest:
        """Its request."""
        if self.made_request is None:
            self.made_request = self.method.request_of(self)
        return self.made_request

    def current_request(self) -> RpcRequest:
        """The request that its task works for."""
        return self.request

    def is_at_deadline(self) -> bool:
        """Whether the client's deadline has passed, by the client's clock."""
        return self.time_limit is not None and self.time_limit - AT_DEADLINE <= monotonic()


class OpenCalls:
    """The RPCs that run, and the bytes of their messages. Those that run are in `owner_by_task`.

    Args:
        scheme: "https" with TLS, else "http".
        silent: Those whose message has not arrived.
        max_bytes: Of the messages of all running RPCs.
    """

    def __init__(self, scheme: str, silent: SilentCalls, max_bytes: int) -> None:
        self.scheme = scheme
        self.silent = silent
        self.max_bytes = max_bytes
        self.loop = asyncio.get_running_loop()  # to find it again takes a system call in Python 3.11
        self.message_bytes = 0
        self.finishing: set[asyncio.Task[Any]] = set()  # tasks that go on after a disconnect
        self.begun = 0  # calls since the start
        self.ended = 0
        self.gate: asyncio.Event | None = None  # replies wait for it: see `hold_replies`
        self.on_end: list[Callable[[OpenCall], None]] = []  # metrics and the access log

    @property
    def running(self) -> int:
        """How many run."""
        return self.begun - self.ended

    @asynccontextmanager
    async def hold_replies(self) -> AsyncIterator[None]:
        """Hold the replies of calls while the block runs, which begins when no new call has come for a moment.

        grpcio takes one call after the other. At its shutdown it cancels those that have arrived and are not yet taken,
        and their clients do not repeat them. A client that waits for a reply sends no further call.
        """
        self.gate = asyncio.Event()
        try:
            begun, end = -1, monotonic() + LONGEST_HOLD
            while begun != self.begun and monotonic() < end:
                begun = self.begun
                await asyncio.sleep(QUIET)
            yield
        finally:
            self.gate.set()
            self.gate = None

    def end_all(self) -> None:
        """Cancel all RPCs, as the server shuts down: their clients get UNAVAILABLE and may go elsewhere."""
        for task, owner in list(owner_by_task.items()):
            if isinstance(owner, OpenCall) and owner.method.calls is self and task not in self.finishing:
                owner.is_ended = True
                task.cancel(DRAINED)
