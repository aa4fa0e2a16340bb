"""The server's side of a cpu route: request -> job in a pool, or in a batch -> response.

    request ──> body: bytes, or an arena where it is big ──> submit_job ──> reply ──> Response, with Server-Timing

The worker's side is cpu_endpoints.py. What a disconnect does to the job is decided here: see docs/pool.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from ..core.errors import DeadlineExceeded, DeadlineInQueue, PoolError
from ..core.requests import SAFE_METHODS, Request
from ..core.responses import MESSAGE, Handler, Response
from ..pool.arena import BIG, Arena, Arenas
from ..pool.state import Job
from .batching import Batcher
from .cpu_messages import RequestMessage, ResponseHead
from .limits import budget_exhausted, within_time

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool
    from ..pool.state import Lane
    from ..service.routes import Route
    from .traced_jobs import TracedJobs

KNOWN_TIMES = 1000
"""Texts of durations that are kept: about 100 KB, and enough for jobs of up to 100 ms."""


def cpu_handler(
    pool: ProcessPoolExecutor | ExternalPool,
    number: int,
    route: Route,
    default_timeout: float,
    lane: Lane | None,
    tracing: TracedJobs | None = None,
) -> Handler:
    """The handler of a cpu route.

    Args:
        pool: The pool of the route.
        number: The position of the route's endpoint in the program of the pool's workers.
        route: The route.
        default_timeout: Seconds, for a route without `timeout`.
        lane: Limits how many workers the route may use at a time.
        tracing: Records its jobs; None: they are not recorded.
    """
    timeout = route.timeout_or(default_timeout)
    batched = route.batch is not None
    submit = Batcher(pool, number, route.batch, lane).submit_job if route.batch else pool.submit_job
    if tracing is not None:
        submit = tracing.around(submit)
    on_disconnect = route.on_disconnect

    async def handle(request: Request) -> Response:
        limit = timeout
        if request.time_limit is not None:
            if batched and not request.is_timed:
                return await within_time(handle, request)  # a batch has requests with other deadlines, too
            limit = min(request.time_limit - monotonic(), inf if timeout is None else timeout)
            if limit <= 0:
                raise budget_exhausted(request, "before the job was queued", server_timing(None))
        body: bytes | Arena | None = request.body_at_once()
        if body is None and (batched or request.has_arrived):
            body = await request.body()
        elif body is None:
            body = await body_for_worker(request, pool.arenas)
        method, path, query = request.method, request.raw_path, request.raw_query
        peer = request.peer
        message = RequestMessage(
            number,
            method,
            path,
            query,
            request.path_params,
            request.headers.raw,
            peer if peer.upgrade is None else peer._replace(upgrade=None),
            request.id,
            request.resources,
            None if limit is None else monotonic() + limit,
        )
        key = (number, method, path, query, body) if type(body) is bytes else None
        stops = on_disconnect == "cancel" or (not on_disconnect and method in SAFE_METHODS)
        if request.time_limit is not None:
            stops = on_disconnect != "finish"  # a client that gives a time waits for the response
        job: Job | None = None
        try:
            job = submit(Job(message, body, timeout if batched else limit, lane, key, stops))
            request.on_disconnect = job.abandon
            reply = await job.future
        except asyncio.CancelledError:
            assert job is not None
            job.pool.abandon(job, even_running=True)
            raise
        except PoolError as error:
            if isinstance(body, Arena):
                body.close()
            if limit is not timeout and isinstance(error, (DeadlineInQueue, DeadlineExceeded)):
                when = "while the job waited" if isinstance(error, DeadlineInQueue) else "while the job ran"
                raise budget_exhausted(request, when, server_timing(job)) from None
            error.headers = [*error.headers, ("server-timing", server_timing(job))]
            error.never_started = error.status == 503 and (job is None or not job.ran)
            raise
        head: ResponseHead = reply.meta
        response = Response(reply.body, head.status, head.headers, head.content_type)
        if head.content_type != MESSAGE:  # browsers read it; a client of messages would pay for what it cannot read
            list.append(
                response.headers, ("server-timing", server_timing(job))
            )  # our own value needs no check; this is a hot path
        return response

    return handle


def server_timing(job: Job | None) -> str:
    """The value of Server-Timing (W3C): milliseconds that the job waited and ran; None: it was refused."""
    if job is None:
        return "queue;dur=0.0"
    started = job.started or job.settled
    waited, ran = int((started - job.admitted) * 1e4 + 0.5), int((job.settled - started) * 1e4 + 0.5)
    return f"queue;dur={_milliseconds[waited]}, run;dur={_milliseconds[ran]}"


class _Milliseconds(dict[int, str]):
    """Tenths of a millisecond as text. To format a float takes much longer than to find its text."""

    def __missing__(self, tenths: int) -> str:
        text = f"{tenths / 10:.1f}"
        if len(self) < KNOWN_TIMES:
            self[tenths] = text
        return text


_milliseconds = _Milliseconds()


async def body_for_worker(request: Request, arenas: Arenas) -> bytes | Arena:
    """The body of a job. A big one is written to an arena as it arrives, and is never in memory as a whole."""
    pieces: list[bytes] = []
    size = 0
    stream = request.stream(kept=True)
    async for piece in stream:
        pieces.append(piece)
        size += len(piece)
        if size >= BIG:
            return await _in_arena(arenas.take(), pieces, stream)
    body = b"".join(pieces)
    request.keep_body(body)
    return body


async def _in_arena(arena: Arena, pieces: list[bytes], rest: AsyncIterator[bytes]) -> Arena:
    try:
        for piece in pieces:
            arena.write(piece)
        async for piece in rest:
            arena.write(piece)
    except BaseException:
        arena.close()
        raise
    return arena
