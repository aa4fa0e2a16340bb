"""Results of cpu routes that are kept: `@cpu_route(..., cache=60)`.

    request ──> key ──> kept and fresh?  ──> that, with its Age
                        under way?       ──> wait for it
                        else             ──> the handler, in a task that belongs to all who wait for it

Two requests are the same when route, method, path, query, body, the values of the request's own resources and the
headers that matter are: those that parameters of the handler are filled from, and those that `Cache` names. What fails
is told to all who wait for it and never kept. A result that is for one client (it sets a cookie, or its Cache-Control
says private or no-store), or that streams, is neither kept nor shared. What is kept has a bound in bytes; what was not
asked for the longest goes first.

Caches in front of the server get their word here, too: see `private_to`.
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

LARGEST_SHARE = 8
"""A result may take one such part of the cache: else a few big ones drive everything else out."""

OVERHEAD = 1024
"""Bytes that a kept result counts beside its content: key, headers and objects."""


class Kept(NamedTuple):
    """A response that is kept, and until when, by the clock of `time.monotonic`."""

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


class Results:
    """What is kept of all cached routes of a service: at most `max_size` bytes."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.size = 0
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()  # the last used one at the end

    def get(self, key: Hashable, now: float) -> Kept | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def put(self, key: Hashable, kept: Kept) -> None:
        if kept.size * LARGEST_SHARE > self.max_size:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = kept
        self.size += kept.size
        while self.size > self.max_size:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        self.size -= self._kept.pop(key).size

    def __len__(self) -> int:
        return len(self._kept)


Landed = tuple[Response, Kept | None]
"""What came of a computation: for who began it, and, if it is for all, for the others."""


@dataclass(eq=False)
class Flight:
    """A computation under way, and how many wait for it."""

    task: asyncio.Task[Landed]
    waiting: int = 0


class CachedRoute:
    """`handler`, asked once for what is the same."""

    def __init__(
        self,
        handler: Handler,
        route: Route,
        results: Results,
        headers: Sequence[str],
        packs: bool,
        *,
        vary: Sequence[str] = (),
        private: bool = False,
    ) -> None:
        assert route.cache is not None
        self._handler = handler
        self._seconds = route.cache.seconds
        self._cancels = route.on_disconnect == "cancel"
        self._results = results
        self._headers = tuple(sorted({name.lower() for name in (*headers, *route.cache.headers)}))
        self._packs = packs
        # Caches in front of this one know nothing of resources: they must see each header that a resource reads.
        self._vary = tuple(sorted({name.lower() for name in (*self._headers, *vary)}))
        self._private = private or "authorization" in self._vary
        self._flights: dict[Hashable, Flight] = {}

    async def __call__(self, request: Request) -> Response:
        if not request.has_arrived and int(request.headers.get("content-length", BIG)) >= BIG:
            return await self._handler(request)  # a big body goes straight to its arena, and not into a key
        body = await request.body()
        key = self._key(request, body)
        response = await self._result(key, request, body)
        if "authorization" in request.headers:  # RFC 9111, 3.5; some shared caches keep such an answer all the same
            make_private(response)
        return response

    async def _result(self, key: Hashable, request: Request, body: bytes) -> Response:
        now = time.monotonic()
        if kept := self._results.get(key, now):
            return kept.response(now)
        flight = self._flights.get(key)
        if flight is None:
            response, _ = await self._landed(key, self._start(key, request, body), request)
            return response
        _, kept = await self._landed(key, flight, request)
        return kept.response(time.monotonic()) if kept else await self._handler(request)

    def _key(self, request: Request, body: bytes) -> Hashable:
        given = tuple([tuple(request.headers.get_all(name)) for name in self._headers])
        coding = choose_coding(request.headers.get("accept-encoding", ""), offered_codings()) if self._packs else ""
        content = body if len(body) <= 64 else blake2b(body).digest()
        return self, request.method, request.raw_path, request.raw_query, content, given, request.resources, coding

    def _start(self, key: Hashable, request: Request, body: bytes) -> Flight:
        """The request's twin is asked for, so that nothing happens to it when this client leaves."""
        twin = Request(
            request.method,
            request.raw_path,
            request.raw_query,
            request.headers,
            body,
            request.path_params,
            request.peer,
            request.id,
        )
        twin.resources = request.resources
        flight = self._flights[key] = Flight(asyncio.create_task(self._compute(key, twin)))
        flight.task.add_done_callback(lambda task: self._over(key, flight))
        return flight

    def _over(self, key: Hashable, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.task.cancelled():
            flight.task.exception()  # also if nobody waits for it any more

    async def _landed(self, key: Hashable, flight: Flight, request: Request) -> Landed:
        """What comes of it. When nobody waits for it any more it is stopped."""
        task = asyncio.current_task()
        if task is not None and (self._cancels or request.method in SAFE_METHODS):
            request.on_disconnect = task.cancel
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                del self._flights[key]  # who comes now begins anew
                flight.task.cancel()

    async def _compute(self, key: Hashable, request: Request) -> Landed:
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
        headers = [field for field in response.headers if field[0] != "server-timing"]  # that was of this once
        kept = Kept(response.status, headers, response.content_type, bytes(content), now, now + self._seconds)
        self._results.put(key, kept)
        return response, kept


def _is_for_all(response: Response) -> bool:
    return response.status < 400 and not any(
        name == "set-cookie" or (name == "cache-control" and ("private" in value or "no-store" in value))
        for name, value in ((name.lower(), value.lower()) for name, value in response.headers)
    )


def private_to(handler: Handler, credentials: Sequence[str]) -> Handler:
    """`handler`, whose answers no shared cache gives to others: it takes a token or a key from these headers.

    An answer without Cache-Control stays as it is.
    """

    async def handle(request: Request) -> Response:
        response = await handler(request)
        if any(name.lower() == "cache-control" for name, _ in response.headers):
            response = copy(response)  # the author may answer with one and the same again and again
            if any(name in request.headers for name in credentials):
                make_private(response)
            else:
                add_vary(response, *credentials)
        return response

    return handle
