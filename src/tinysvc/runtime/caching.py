"""The cache of a cpu route: `@cpu_route(..., cache=60)`.

    request ──> key ──> a fresh response is stored?  ──> that response, with its Age
                        a computation is running?    ──> wait for it
                        else                         ──> the handler, in a task shared by all waiting requests

Two requests have the same key if route, method, path, query, body, the values of the resources of the request and the
relevant headers are equal: headers of the handler's parameters, and headers named in `Cache`. An error goes to all
waiting requests and is not stored. A response for one client (it sets a cookie, or its Cache-Control is private or
no-store) and a stream are neither stored nor shared. The size of the cache is limited in bytes; the least recently used
response is removed first.

`private_to` is about caches in front of the server.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from ..core.requests import SAFE_METHODS, Request
from ..core.responses import Handler, Response, add_vary, make_private
from ..pool.arena import BIG
from ..service.routes import Route
from ..wire.codings import choose_coding, offered_codings
from .limits import within_time

LARGEST_SHARE = 8
"""One response may use at most this fraction of the cache: otherwise a few big ones would remove all others."""

OVERHEAD = 1024
"""Bytes counted for a stored response besides its content: key, headers and objects."""


class StoredResponse(NamedTuple):
    """A stored response; `made` and `until` are times of `time.monotonic`."""

    status: int
    headers: list[tuple[str, str]]
    content_type: str | None
    content: bytes
    made: float
    until: float

    @property
    def size(self) -> int:
        return len(self.content) + OVERHEAD

    def response(self, now: float) -> Response:
        response = Response(self.content, self.status, (), self.content_type)
        response.headers = [*self.headers, ("age", str(int(now - self.made)))]
        return response


class ResponseCache:
    """The stored responses of all cached routes of a service: at most `max_size` bytes."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.size = 0
        self.hits = self.misses = 0  # requests that got a stored or running result, and those that started one
        self._stored: OrderedDict[Hashable, StoredResponse] = OrderedDict()  # the most recently used one at the end

    def get(self, key: Hashable, now: float) -> StoredResponse | None:
        stored = self._stored.get(key)
        if stored is None:
            return None
        if stored.until <= now:
            self._drop(key)
            return None
        self._stored.move_to_end(key)
        return stored

    def put(self, key: Hashable, stored: StoredResponse) -> None:
        if stored.size * LARGEST_SHARE > self.max_size:
            return
        if key in self._stored:
            self._drop(key)
        self._stored[key] = stored
        self.size += stored.size
        while self.size > self.max_size:
            self._drop(next(iter(self._stored)))

    def _drop(self, key: Hashable) -> None:
        self.size -= self._stored.pop(key).size

    def __len__(self) -> int:
        return len(self._stored)


Outcome = tuple[Response, StoredResponse | None]
"""The response for the request that started a computation, and the stored one for others, if they may have it."""


@dataclass(eq=False)
class Computation:
    """A running computation, and how many requests wait for it."""

    task: asyncio.Task[Outcome]
    waiting: int = 0


class CachedRoute:
    """`handler`, called once for requests with the same key."""

    def __init__(
        self,
        handler: Handler,
        route: Route,
        cache: ResponseCache,
        headers: Sequence[str],
        compresses: bool,
        *,
        vary: Sequence[str] = (),
        private: bool = False,
    ) -> None:
        assert route.cache is not None
        self._handler = handler
        self._seconds = route.cache.seconds
        self._cancels = route.on_disconnect == "cancel"
        self._cache = cache
        self._headers = tuple(sorted({name.lower() for name in (*headers, *route.cache.headers)}))
        self._compresses = compresses
        # Caches in front of the server do not know resources: Vary must name each header that a resource reads.
        self._vary = tuple(sorted({name.lower() for name in (*self._headers, *vary)}))
        self._private = private or "authorization" in self._vary
        self._running: dict[Hashable, Computation] = {}

    async def __call__(self, request: Request) -> Response:
        if not request.has_arrived and int(request.headers.get("content-length", BIG)) >= BIG:
            return await self._handler(request)  # a big body goes straight to its arena, without a key
        if request.time_limit is not None and not request.is_timed:
            return await within_time(self, request)  # the computation has no deadline of its own: others may share it
        body = await request.body()
        key = self._key(request, body)
        response = await self._result(key, request, body)
        if "authorization" in request.headers:  # RFC 9111, 3.5; some shared caches store such a response all the same
            make_private(response)
        return response

    async def _result(self, key: Hashable, request: Request, body: bytes) -> Response:
        now = time.monotonic()
        if stored := self._cache.get(key, now):
            self._cache.hits += 1
            return stored.response(now)
        computation = self._running.get(key)
        if computation is None:
            self._cache.misses += 1
            response, _ = await self._outcome(key, self._start(key, request, body), request)
            return response
        self._cache.hits += 1
        _, stored = await self._outcome(key, computation, request)
        return stored.response(time.monotonic()) if stored else await self._handler(request)

    def _key(self, request: Request, body: bytes) -> Hashable:
        given = tuple([tuple(request.headers.get_all(name)) for name in self._headers])
        coding = (
            choose_coding(request.headers.get("accept-encoding", ""), offered_codings()) if self._compresses else ""
        )
        content = body if len(body) <= 64 else blake2b(body).digest()
        return self, request.method, request.raw_path, request.raw_query, content, given, request.resources, coding

    def _start(self, key: Hashable, request: Request, body: bytes) -> Computation:
        """Start the handler with a copy of the request, which a disconnect of this client does not affect."""
        copied = Request(
            request.method,
            request.raw_path,
            request.raw_query,
            request.headers,
            body,
            request.path_params,
            request.peer,
            request.id,
            request.served_by,
        )
        copied.resources = request.resources
        computation = self._running[key] = Computation(asyncio.create_task(self._compute(key, copied)))
        computation.task.add_done_callback(lambda task: self._on_end(key, computation))
        return computation

    def _on_end(self, key: Hashable, computation: Computation) -> None:
        if self._running.get(key) is computation:
            del self._running[key]
        if not computation.task.cancelled():
            computation.task.exception()  # retrieve it, also if no request waits for it any more

    async def _outcome(self, key: Hashable, computation: Computation, request: Request) -> Outcome:
        """The outcome of a computation. It is cancelled when no request waits for it any more."""
        task = asyncio.current_task()
        if task is not None and (self._cancels or request.method in SAFE_METHODS or request.time_limit is not None):
            request.on_disconnect = task.cancel
        computation.waiting += 1
        try:
            return await asyncio.shield(computation.task)
        finally:
            computation.waiting -= 1
            if not computation.waiting and not computation.task.done():
                del self._running[key]  # the next request starts a new one
                computation.task.cancel()

    async def _compute(self, key: Hashable, request: Request) -> Outcome:
        response = await self._handler(request)
        content, now = response.content, time.monotonic()
        if self._vary:
            add_vary(response, *self._vary)
        shared = isinstance(content, (bytes, memoryview)) and _is_for_all(response)
        if shared and not any(name == "cache-control" for name, _ in response.headers):
            response.headers.append(("cache-control", f"max-age={self._seconds:.0f}"))
        if self._private or any(name == "set-cookie" for name, _ in response.headers):
            make_private(response)
        if not shared:
            return response, None
        assert isinstance(content, (bytes, memoryview))
        headers = [field for field in response.headers if field[0] != "server-timing"]  # the time of this job only
        stored = StoredResponse(
            response.status, headers, response.content_type, bytes(content), now, now + self._seconds
        )
        self._cache.put(self._entry_key(key, response), stored)
        return response, stored

    def _entry_key(self, key: Hashable, response: Response) -> Hashable:
        """The key under which the response to a request with this key is stored."""
        return key


def _is_for_all(response: Response) -> bool:
    return response.status < 400 and not any(
        name == "set-cookie" or (name == "cache-control" and ("private" in value or "no-store" in value))
        for name, value in ((name.lower(), value.lower()) for name, value in response.headers)
    )


def private_to(handler: Handler, credentials: Sequence[str]) -> Handler:
    """`handler`, which reads a token or a key from these headers: no shared cache may give its responses to others.

    A response without Cache-Control is not changed.
    """

    async def handle(request: Request) -> Response:
        response = await handler(request)
        if any(name.lower() == "cache-control" for name, _ in response.headers):
            response = copy(response)  # the author may return the same object again and again
            if any(name in request.headers for name in credentials):
                make_private(response)
            else:
                add_vary(response, *credentials)
        return response

    return handle
