"""One replica of a service, over gRPC: each exchange is an RPC on a channel that all calls share.

The response is an `Incoming` as over HTTP, with the status that HTTP would have: attempts, retries, hedges, balancing
and the breaker work as they do there. The deadline is that of the RPC; a cancelled call cancels it.
"""

from __future__ import annotations

import asyncio
import math
import re
from base64 import b64decode
from binascii import Error as BadBase64
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from time import monotonic
from typing import Any

from grpc import StatusCode, aio

from ..core.call_errors import CallFailed, CallTimeout
from ..core.headers import Headers
from ..core.responses import close_content
from .address import Address
from .call_connection import too_large
from .messages import Incoming, Outgoing
from .replica import AT_DEADLINE, AnyReplica, Shared
from .replica_connections import Endpoint
from .retries import AttemptFailed, Failure, is_blamed
from .rpc_channel import RpcChannel
from .rpc_statuses import details_in, response_of

_VALUE = re.compile(r"[\x20-\x7e]*")

_NO_HEADERS = Headers()

SILENCE = 5.0
"""Seconds without any response after which a late call counts as a failure of the replica. Over HTTP a server that is
alive says at the deadline that it is; an RPC ends at its deadline, so a slow handler looks like a silent replica."""


MAX_CALLS = 900
"""Calls of one connection at a time; further ones wait here. Servers of grpcio count a stream for a moment longer than
its client does, and refuse streams beyond their limit: that of tinysvc is 1,000."""


class RpcReplica(AnyReplica):
    """One replica of a service, over gRPC."""

    connections: RpcChannel

    def __init__(self, address: Address, endpoint: Endpoint, shared: Shared) -> None:
        super().__init__(address, endpoint)
        self._shared = shared
        self.connections = RpcChannel(address, endpoint, shared.settings, self._keep, self)
        self._heard = -math.inf  # when a response came, or a connection was made
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()  # calls beyond MAX_CALLS

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._shared.senders.add(task)
        task.add_done_callback(self._shared.senders.discard)

    async def exchange(self, request: Outgoing, now: float, deadline: float | None) -> Incoming:
        is_probe = self.breaker.pauses > 0 and self.breaker.begin()
        self.in_flight += 1
        try:
            if not self.connections.is_ready(now):
                await self.connections.connect(deadline)
                now = self._heard = monotonic()
            if self.in_flight - len(self._waiting) > MAX_CALLS:
                await self._wait_for_turn(deadline)
                now = monotonic()
                if not self.connections.is_ready(now):  # it was lost meanwhile, or closed for good
                    await self.connections.connect(deadline)
                    now = self._heard = monotonic()
            seconds = None if deadline is None else deadline - now
            if seconds is not None and seconds <= 0.0:
                raise TimeoutError
            incoming = await self._sent(request, seconds)
        except BaseException as error:
            self.end()
            if isinstance(error, AttemptFailed):
                if is_blamed(error.failure) and not self.connections.closing:
                    self._count_failure(is_probe, error.failure, error.detail)
            elif _is_too_late(error, deadline) and monotonic() - self._heard > SILENCE:
                self._count_failure(is_probe, None, f"No response came for {SILENCE:g} s.")
            if is_probe:
                self.breaker.end_probe()
            raise
        self._heard = monotonic()
        if self.breaker.failures or is_probe:
            self._count_response(is_probe)
        return incoming

    async def _wait_for_turn(self, deadline: float | None) -> None:
        """Wait until fewer calls run. TimeoutError at the deadline."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - monotonic())):
                await waiter
        finally:
            self._waiting.pop(waiter, None)

    async def _sent(self, request: Outgoing, seconds: float | None) -> Incoming:
        """Start the RPC, and wait for its response, or for the beginning of a stream."""
        body = request.body
        source = None if isinstance(body, bytes) else RequestMessages(body, self._shared.settings.max_body_size)
        begin = self.connections.method(request.target, source is not None, request.streams)
        metadata = metadata_of(request.headers)
        call = begin(body if source is None else aiter(source), timeout=seconds, metadata=metadata)
        try:
            if request.streams:
                stream = RpcStream(self, call, source)
                await stream.begin()
                return stream
            content = await call
        except aio.AioRpcError as error:
            incoming = self._failed(error, seconds)
        except asyncio.CancelledError:
            call.cancel()
            _raise_fault(source)
            if not _is_cancelled():
                raise AttemptFailed(Failure.NO_RESPONSE, f"The RPC has failed: {_CLOSED}") from None
            raise
        else:
            incoming = RpcReply(200, _NO_HEADERS, self.name, content)
        self.end()
        return incoming

    def _failed(self, error: aio.AioRpcError, seconds: float | None) -> Incoming:
        """The error response that the status of an RPC stands for.

        Raises:
            AttemptFailed: The server has sent no status.
            TimeoutError: The deadline has passed.
        """
        code, message, metadata = error.code(), error.details() or "", error.trailing_metadata()
        if details_in(metadata) is None:
            if code is StatusCode.DEADLINE_EXCEEDED and seconds is not None:
                raise TimeoutError
            if code is StatusCode.UNAVAILABLE:
                raise AttemptFailed(
                    _unavailable(message), f"The RPC has failed: {message or 'the connection was lost'}."
                )
            if code is StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in message:
                most = self._shared.settings.max_result_size
                raise CallFailed(f"The response is longer than {most} bytes.", replica=self.name, answered=200)
        status, headers, body = response_of(code.name, message, metadata)
        return RpcReply(status, headers, self.name, body, code.name)

    def end(self) -> None:
        """An exchange has ended."""
        self.in_flight -= 1
        while self._waiting and self.in_flight - len(self._waiting) < MAX_CALLS:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():  # else it is cancelled
                waiter.set_result(None)
        self.connections.end_call()


_CLOSED = "its connection was closed here"

_NOT_CONNECTED = "failed to connect to all addresses"
_TOO_LARGE = "CLIENT: Received message larger than max"
_REFUSED = "RST_STREAM with error code 7"
"""Parts of messages of grpcio. If it words them otherwise, a call is repeated less often, and errors say less."""


def _unavailable(message: str) -> Failure:
    """How far a request has come whose RPC grpcio itself has ended with UNAVAILABLE."""
    if message.startswith(_NOT_CONNECTED):
        return Failure.NOT_SENT
    return Failure.NOT_STARTED if _REFUSED in message else Failure.NO_RESPONSE


def _is_cancelled() -> bool:
    """Whether the task is cancelled. Otherwise a channel that was closed has cancelled its calls."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _is_too_late(error: BaseException, deadline: float | None) -> bool:
    """Whether the deadline has ended the exchange."""
    if isinstance(error, asyncio.CancelledError):
        return deadline is not None and monotonic() >= deadline - AT_DEADLINE
    return isinstance(error, TimeoutError)


def metadata_of(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str | bytes], ...]:
    """Headers as metadata. ValueError for a value that none can hold."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        name = name.lower()
        if name.endswith("-bin"):
            try:
                found.append((name, b64decode(value + "=" * (-len(value) % 4), validate=True)))
            except BadBase64:
                raise ValueError(f"the header {name} goes over gRPC as bytes, so it must be base64") from None
        elif _VALUE.fullmatch(value):
            found.append((name, value))
        else:
            raise ValueError(f"the header {name} goes over gRPC as printable ASCII, not as {value!r:.100}")
    return tuple(found)


class RequestMessages:
    """The messages of a request that streams. It keeps the error of its iterator, which grpcio drops.

    Args:
        begin: Returns the iterator.
        most: Bytes that a message may have.
    """

    def __init__(self, begin: Callable[[], AsyncIterator[bytes]], most: int) -> None:
        self.fault: Exception | None = None
        self._begin = begin
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        messages = self._begin()
        try:
            async for message in messages:
                if len(message) > self._most:
                    raise too_large(len(message), self._most)
                yield message
        except Exception as error:
            self.fault = error
            raise
        finally:
            await close_content(messages)


def _raise_fault(source: RequestMessages | None) -> None:
    """Raise the error of the iterator that has cancelled the call, if one has."""
    if source is not None and source.fault is not None:
        raise source.fault from None


class RpcReply(Incoming):
    """The response of a call: a message, or an error response in place of a status."""

    __slots__ = ("rpc_code",)

    def __init__(self, status: int, headers: Headers, replica: str, content: bytes | None, code: str = "OK") -> None:
        super().__init__(status, headers, replica, content)
        self.rpc_code = code


class RpcStream(RpcReply):
    """The response of a call that streams: each piece is a message, and may be empty."""

    __slots__ = ("_call", "_first", "_owner", "_source_messages", "_when_ended")

    def __init__(self, owner: RpcReplica, call: Any, source: RequestMessages | None) -> None:
        super().__init__(200, _NO_HEADERS, owner.name, None, "CANCELLED")  # until the stream has another end
        self._when_ended: Callable[[], object] | None = None
        self._owner = owner
        self._call = call
        self._first: Any = None
        self._source_messages = source

    async def begin(self) -> None:
        """Wait until the handler has begun. AioRpcError if it has failed."""
        if not await self._call.initial_metadata() or self._call.done():
            self._first = await self._call.read()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call = self._call
        if call is None:
            return
        try:
            message, self._first = self._first, None
            if message is None:
                message = await call.read()
            while message is not aio.EOF:
                yield message
                message = await call.read()
            self.rpc_code = "OK"
        except aio.AioRpcError as error:
            self.rpc_code = error.code().name
            raise self._cut_short(error) from None
        except asyncio.CancelledError:
            _raise_fault(self._source_messages)
            if not _is_cancelled():
                raise CallFailed(f"The stream is not whole: {_CLOSED}", answered=200, **self._facts()) from None
            raise
        finally:
            self.discard()

    def _cut_short(self, error: aio.AioRpcError) -> CallFailed:
        """The error of a stream whose status says that it is not whole."""
        facts = self._facts()
        if error.code() is StatusCode.DEADLINE_EXCEEDED:
            return CallTimeout("The budget of the call is used up; its response is not whole.", answered=200, **facts)
        text = f"The stream is not whole: {error.code().name}, {error.details() or 'the connection was lost'}"
        return CallFailed(text, answered=200, **facts)

    def _facts(self) -> dict[str, Any]:
        return {"service": self.service, "replica": self.replica, "attempts": self.attempts}

    def when_ended(self, function: Callable[[], object]) -> None:
        """Call the function when the stream ends."""
        self._when_ended = function

    def discard(self) -> None:
        """Do what `aclose` does, which needs no waiting."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()  # nothing happens if it has ended
            self._owner.end()
            if self._when_ended is not None:
                self._when_ended()
