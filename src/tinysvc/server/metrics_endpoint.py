"""Serves the metrics: a page of the service, or a port of their own.

    scrape ──> snapshot (on the loop, < 1 ms) ──> of the other processes, too (snapshot_exchange.py)
           <── text <── merged and written in a thread <──┘

The thread is the endpoint's own: blocking handlers may hold all threads of the service, just when metrics are needed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from ..core.requests import Request
from ..core.responses import TEXT, Response
from ..core.settings import METRICS_PLACE, Settings
from ..service.router import ROUTABLE_METHODS
from ..telemetry.instruments import OTHER, Registry, metric_of
from ..telemetry.snapshots import Metric, Snapshot, merge
from .connections import Connections
from .snapshot_exchange import SnapshotExchange
from .sockets import METRICS_PATH

if TYPE_CHECKING:
    from ..core.responses import Handler

T = TypeVar("T")


class MetricsEndpoint:
    """The handler of a scrape.

    Args:
        registry: The metrics of this process.
        exchange: Gets those of the other server processes; None if there is none.
    """

    def __init__(self, registry: Registry, exchange: SnapshotExchange | None = None) -> None:
        self._registry = registry
        self._exchange = exchange
        self._thread = ThreadPoolExecutor(1, "tinysvc-metrics")

    async def handle(self, request: Request) -> Response:
        from ..telemetry.exposition import expose  # needs prometheus-client

        accept = request.headers.get("accept", "")
        content, content_type = await self.read(lambda snapshot: expose(snapshot, accept))
        return Response(content, content_type=content_type)

    async def snapshot(self) -> Snapshot:
        """The metrics of all server processes."""
        return await self.read(lambda snapshot: snapshot)

    async def read(self, use: Callable[[Snapshot], T]) -> T:
        """Collect the metrics of all server processes, and give them to `use` in the thread."""
        own = self._registry.snapshot() if self._exchange is None else []
        every = [] if self._exchange is None else await self._exchange.gather()

        def work() -> T:
            return use(merge(every) if every else self._registry.complete(own))

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def handle_alone(self, request: Request) -> Response:
        """As `handle`, for a port that serves nothing else."""
        if request.raw_path not in (METRICS_PATH, "/"):
            return Response(b"the metrics are at %b\n" % METRICS_PATH.encode(), 404, content_type=TEXT)
        if request.method not in ("GET", "HEAD"):
            return Response(b"", 405, [("allow", "GET, HEAD")])
        return await self.handle(request)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def page_of(endpoint: MetricsEndpoint, settings: Settings) -> dict[str, Handler]:
    """The page of the service, if `metrics` is a path."""
    place = METRICS_PLACE.fullmatch(settings.metrics)
    return {place["path"]: endpoint.handle} if place and place["path"] else {}


@asynccontextmanager
async def own_port(
    endpoint: MetricsEndpoint, settings: Settings, listeners: Iterable[socket.socket]
) -> AsyncIterator[None]:
    """Serve the metrics on `listeners` while the block runs."""
    loop = asyncio.get_running_loop()
    connections = Connections(endpoint.handle_alone, replace(settings, access_log=False))
    servers: list[asyncio.AbstractServer] = []
    try:
        for listener in listeners:
            create = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
            servers.append(await create(connections, sock=listener))
        yield
    finally:
        for server in servers:
            server.close()
        await connections.drain(0.1)
        if aborted := connections.abort():
            await asyncio.wait(aborted, timeout=1)


def connection_metrics(connections: Connections) -> Iterable[Metric]:
    """What the connections of a server do now. They know it anyway, so it costs a request nothing."""
    found = list(connections.open)
    methods = [
        connection.request.method if connection.request.method in ROUTABLE_METHODS else OTHER
        for connection in found
        if connection.request is not None
    ]
    active = [([method], methods.count(method)) for method in sorted(set(methods)) or ["GET"]]
    streams = sum(connection.stream is not None for connection in found)
    sockets = sum(connection.upgraded is not None for connection in found)
    refused = [([str(status)], number) for status, number in connections.refusals.items()]
    return (
        metric_of(
            "gauge",
            "http.server.active_requests",
            "Requests whose response has not ended, streams and WebSockets included.",
            active,
            ["http.request.method"],
        ),
        metric_of("gauge", "tinysvc.connections", "Open connections of clients.", [((), len(found))]),
        metric_of("gauge", "tinysvc.streams", "Responses that are streams and have not ended.", [((), streams)]),
        metric_of("gauge", "tinysvc.websockets", "Open WebSockets.", [((), sockets)]),
        metric_of(
            "counter",
            "tinysvc.refusals",
            "Messages that were refused before a route was found, and connections over the limit.",
            refused,
            ["http.response.status_code"],
        ),
    )
