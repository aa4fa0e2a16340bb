"""One server process: it opens the service, listens, and drains at its end.

start    open the resources and the workers, then listen: the first client finds everything ready
drain    stop listening, let requests and jobs finish, then close everything in reverse order
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.encoding import json_bytes
from ..core.errors import ConfigurationError
from ..core.forks import detach_in_child, end_child
from ..core.optional_libraries import missing_library
from ..core.requests import Request
from ..core.responses import JSON, Handler, Response
from ..core.settings import Settings
from ..core.shutdown import MIN_STEP_TIME, awake_timeout
from ..core.systemd import watchdog_time
from ..openapi.page import to_docs
from ..runtime.durable_jobs import DurableJobs
from ..runtime.message_calls import CalleeMessages
from ..runtime.running_service import at_work
from ..service.routes import Route
from ..service.service import Service
from .connections import Connections
from .cpu_slice import request_slice
from .heartbeat import BEATS, Heartbeat
from .sockets import grpc_sockets, listener_url, listening_sockets, metrics_sockets
from .tls import Certificates, certificates
from .watchdog import names_of, watched

if TYPE_CHECKING:
    from ..dashboard.dashboard_pages import Dashboard
    from ..runtime.service_metrics import ServiceMetrics
    from ..telemetry.snapshots import Snapshot
    from .grpc_listener import GrpcListener
    from .metrics_endpoint import MetricsEndpoint
    from .server_process import SupervisorLink
    from .snapshot_exchange import SnapshotExchange

log = logging.getLogger("tinysvc")

CLEANUP = 1.0
"""Seconds of the shutdown_timeout, at most a tenth of it, in which aborted requests close their resources."""

REPORT_AFTER = 1.0
"""Seconds of draining after which the log reports what the drain waits for: a person who pressed Ctrl-C wonders."""


class MetricsPlace(NamedTuple):
    """Where the metrics of a process under a supervisor are served."""

    listeners: Sequence[socket.socket] = ()
    """Bound sockets, if they have a port of their own."""
    link: SupervisorLink | None = None
    """Leads to the metrics of the other processes, if there are any."""


class Server:
    """One server process for one service: `async with Server(...).listening() as url` serves until the block ends.

    Args:
        service: The service.
        settings: Its settings; `workers` must be 1.
        listeners: Bound sockets of the caller, who closes them. Without them the server binds its own.
        metrics: Where the metrics are served, if the caller has bound the sockets.
        grpc: Sockets of the caller that reserve the addresses of gRPC.

    Raises:
        ConfigurationError: `workers` is more than 1.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        listeners: Iterable[socket.socket] = (),
        metrics: MetricsPlace | None = None,
        grpc: Sequence[socket.socket] | None = None,
    ) -> None:
        if settings.workers > 1:
            raise ConfigurationError(
                f"workers is {settings.workers}, but a server inside another program is one process; "
                "python -m tinysvc and tinysvc.run() start several: use workers=1 here"
            )
        self.service = service
        self.settings = settings
        self.listeners = list(listeners)
        self.urls: list[str] = []
        self.metrics_listeners: Sequence[socket.socket] = ()
        self._listening: list[socket.socket] = []
        self._metrics_place = metrics
        self._grpc_sockets = grpc
        self._grpc: GrpcListener | None = None
        self._metrics: ServiceMetrics | None = None
        self._endpoint: MetricsEndpoint | None = None
        self._exchange: SnapshotExchange | None = None
        self._dashboard: Dashboard | None = None
        self.draining = False
        self._certificates: Certificates | None = None

    @property
    def url(self) -> str:
        """The first URL that the server listens on; empty until it listens."""
        return self.urls[0] if self.urls else ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve while the block runs, then drain; the value of the block is the URL."""
        async with AsyncExitStack() as stack:
            listeners = self.listeners or stack.enter_context(listening_sockets(self.settings, os.environ))
            self._certificates = certificates(self.settings)
            if self.settings.metrics or self.settings.dashboard:
                await self._begin_metrics(stack)
            grpc = self._grpc_listener(stack, listeners)
            at_work_here = at_work(
                self.service,
                self.settings,
                self._own_pages(),
                _durable_jobs,
                self._metrics,
                None if grpc is None else grpc.messages_of,
                _callee_messages,
            )
            self.running = await stack.enter_async_context(at_work_here)
            scheme = "https" if self._certificates else "http"
            connections = Connections(self._handler(), self.settings, scheme=scheme)
            if self._metrics is not None:
                from .metrics_endpoint import connection_metrics

                self._metrics.registry.add_source(partial(connection_metrics, connections))
            if self.settings.dashboard:
                await self._begin_dashboard(stack)
            self._connections = connections
            stack.push_async_callback(self._drain, connections)
            for listener in listeners:
                server = await self._listen(connections, listener)
                stack.push_async_callback(self._stop_listening, connections, listener, server)
            self._listening += listeners
            if grpc is not None:
                await grpc.start(self.running, self._metrics)
                self._grpc = grpc
                stack.callback(lambda: grpc.begin_drain(self.running.seconds_left()))
            self._loop = asyncio.get_running_loop()
            detach_in_child(self, Server._close_listeners_in_child)
            self.urls = [listener_url(listener, scheme) for listener in listeners]
            routes = ((f"{route.methods[0]} {path}", route.function) for path, route in self.service.all_routes())
            on_block = self._dashboard.own_process.note_block if self._dashboard is not None else None
            stack.enter_context(watched(asyncio.get_running_loop(), names_of(routes), on_block))
            if self.running.pools:
                request_slice()
            try:
                yield self.url
            finally:
                self._begin_end()
                if self._dashboard is not None:
                    self._dashboard.live.close()

    def _grpc_listener(self, stack: AsyncExitStack, listeners: Sequence[socket.socket]) -> GrpcListener | None:
        if not self.settings.grpc:
            return None
        from .grpc_listener import GrpcListener  # imported only where gRPC is served

        sockets = self._grpc_sockets
        if sockets is None:
            sockets = stack.enter_context(grpc_sockets(self.settings, listeners))
        return GrpcListener(self.settings, sockets)

    @property
    def grpc_addresses(self) -> list[str]:
        """The addresses where gRPC is served, as in "127.0.0.1:50051" or "unix:/run/grpc.sock"."""
        return [] if self._grpc is None else self._grpc.addresses

    @contextmanager
    def heartbeats(self, report: Callable[[], object]) -> Iterator[None]:
        """Call `report` at intervals while the block runs, if systemd watches this service and every pool is alive."""
        if not (seconds := watchdog_time()):
            yield
            return
        heartbeat = Heartbeat(seconds / BEATS, self.running.is_alive, report)
        try:
            yield
        finally:
            heartbeat.cancel()

    def _begin_end(self) -> None:
        """Be ready for no more work: `/readyz` is 503 from now on."""
        self.draining = True
        if self._grpc is not None:
            self._grpc.leave()
        if self.running.durable is not None:
            self.running.durable.pause()

    async def wait_for_balancers(self) -> None:
        """Serve for another `drain_delay` while `/readyz` is 503 and each connection closes after its next response.

        A balancer learns only after a while that this server ends, and sends requests until then.
        """
        if self.settings.drain_delay:
            self._begin_end()
            self._connections.leave()
            log.info("the drain begins in %g s, or at the next signal the process ends", self.settings.drain_delay)
            await asyncio.sleep(self.settings.drain_delay)

    async def _begin_metrics(self, stack: AsyncExitStack) -> None:
        """Begin to count and to serve it: metrics are there before the service is, and until it has ended."""
        from ..runtime.service_metrics import ServiceMetrics  # imported only where something is counted

        if self.settings.metrics and (missing := missing_library("prometheus_client")):
            raise ConfigurationError(f"metrics is {self.settings.metrics}, but {missing}")
        from .metrics_endpoint import MetricsEndpoint, own_port
        from .snapshot_exchange import SnapshotExchange

        place = self._metrics_place
        has_siblings = place is not None and place.link is not None
        self._metrics = ServiceMetrics(has_siblings=has_siblings)
        registry = self._metrics.registry
        if place is not None and place.link is not None:
            self._exchange = SnapshotExchange(place.link, registry)
            stack.callback(self._exchange.close)
        self._endpoint = MetricsEndpoint(registry, self._exchange)
        stack.callback(self._endpoint.close)
        listeners = place.listeners if place else stack.enter_context(metrics_sockets(self.settings))
        self._listening += listeners
        self.metrics_listeners = listeners
        await stack.enter_async_context(own_port(self._endpoint, self.settings, listeners))

    async def _begin_dashboard(self, stack: AsyncExitStack) -> None:
        from ..dashboard.dashboard_pages import Dashboard  # imported only where it is shown
        from .process_questions import ProcessQuestions

        assert self._metrics is not None
        assert self._endpoint is not None
        self._dashboard = dashboard = Dashboard(self.running, self._endpoint.read)
        if self._exchange is not None:
            assert self._metrics_place is not None
            assert self._metrics_place.link is not None
            self._exchange.questions = ProcessQuestions(self._metrics_place.link, dashboard.answer)
            dashboard.ask = self._exchange.questions.ask
        self._metrics.registry.add_source(dashboard.own_process.metrics)
        stack.push_async_callback(dashboard.live.aclose)
        self.running.add_pages(dashboard.pages())

    async def snapshot(self) -> Snapshot:
        """The metrics of all server processes. Only with `metrics`."""
        assert self._endpoint is not None
        return await self._endpoint.snapshot()

    def receive_snapshots(self, data: bytes) -> None:
        """Bytes from the supervisor."""
        if self._exchange is not None:
            self._exchange.receive(data)

    def _close_listeners_in_child(self) -> list[int]:
        """In a forked child: close the listening sockets, and let the loop end the child at once."""
        _replace_poll(self._loop)
        self._loop.call_soon(end_child)
        return [listener.fileno() for listener in self._listening]

    def _handler(self) -> Handler:
        settings, handler = self.settings, self.running.handler
        if not settings.proxy_headers and not settings.root_path:
            return handler
        from ..web.proxies import behind_proxies  # imported only where it is used

        return behind_proxies(handler, settings.proxy_headers, settings.root_path)

    async def _listen(self, connections: Connections, listener: socket.socket) -> asyncio.AbstractServer:
        loop, options = asyncio.get_running_loop(), self._tls_options()
        create: Callable[..., Any] = loop.create_server
        if listener.family == socket.AF_UNIX:
            create = loop.create_unix_server
            if sys.version_info >= (3, 13):
                options["cleanup_socket"] = False  # the code that has bound the socket removes its path
        try:
            server: asyncio.AbstractServer = await create(
                connections, sock=listener, backlog=self.settings.backlog, **options
            )
        except OSError as error:  # two sockets may bind one address as long as neither listens
            where = listener_url(listener, "http").removeprefix("http://")
            raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from None
        return server

    def _tls_options(self) -> dict[str, Any]:
        if self._certificates is None:
            return {}
        return {
            "ssl": self._certificates.context,
            "ssl_handshake_timeout": max(0.1, self.settings.header_timeout),  # 0 would be an error
            "ssl_shutdown_timeout": max(0.1, self.settings.write_timeout),  # it includes sending what is buffered
        }

    async def _stop_listening(
        self, connections: Connections, listener: socket.socket, server: asyncio.AbstractServer
    ) -> None:
        """Close a listening socket. Accept first the connections in its queue, which the kernel would reset.

        Their requests have perhaps been sent already, and a balancer does not repeat a POST.
        """
        accepted = []
        with suppress(OSError):  # the queue is empty
            while True:
                accepted.append(listener.accept()[0])
        server.close()
        for sock in accepted:
            sock.setblocking(False)
            with suppress(OSError):  # its client has disconnected
                await asyncio.get_running_loop().connect_accepted_socket(connections, sock, **self._tls_options())

    def reload_certificates(self) -> None:
        """Read the certificates again for new connections; keep the old ones if the new ones are not valid."""
        if self._certificates is None:
            log.info("SIGHUP reloads the certificates; this server has none")
            return
        try:
            self._certificates.reload()
            if self._grpc is not None:
                self._grpc.reload_certificates()
        except ConfigurationError as error:
            log.error("the new certificates are not valid, the old ones stay in use: %s", error)
        else:
            log.info("the certificates were reloaded")

    async def _drain(self, connections: Connections) -> None:
        timeout, loop = self.running.seconds_left(), asyncio.get_running_loop()
        self.running.unstarted_streams.drain()
        report = loop.call_later(REPORT_AFTER, self._report_draining, connections)
        within = timeout - min(CLEANUP, timeout / 10)
        grpc = None if self._grpc is None else asyncio.create_task(self._grpc.drain(within))
        if not await connections.drain(within):
            log.warning(
                "%d connections were closed before their requests ended, after %g s of draining",
                len(connections.open),
                timeout,
            )
        if grpc is not None and (unfinished := await grpc):
            log.warning("%d RPCs were ended before they had finished, after %g s of draining", unfinished, timeout)
        report.cancel()
        aborted = connections.abort()
        if aborted:  # resources of requests close before resources of the server
            with suppress(TimeoutError):
                async with awake_timeout(max(MIN_STEP_TIME, self.running.seconds_left())):
                    await asyncio.wait(aborted)
        await self.running.drain(self.running.seconds_left())
        await asyncio.sleep(0)  # let the cancelled connections' tasks end

    def _report_draining(self, connections: Connections) -> None:
        log.info(
            "draining: waiting for the requests of %d connections, for at most %g s or until the next signal",
            *(len(connections.open), self.settings.shutdown_timeout),
        )

    def _own_pages(self) -> dict[str, Handler]:
        """Handlers of the server, by path; a route of the service takes precedence."""

        async def livez(request: Request) -> Response:
            return Response(b'{"status":"alive"}', content_type=JSON)

        async def readyz(request: Request) -> Response:
            pools = {
                pool.name: {"workers": pool.max_workers, "ready": pool.ready, "queued": pool.waiting}
                | ({"warnings": pool.warnings} if pool.warnings else {})
                for pool in self.running.pools
            }
            ready = not self.draining and self.running.is_ready()
            content: dict[str, Any] = {
                "status": "draining" if self.draining else "ready" if ready else "not ready",
                "pools": pools,
            }
            if self.running.lost_resources:
                content["lost_resources"] = sorted(self.running.lost_resources)
            if self.running.swaps is not None:
                content["artifacts"] = self.running.swaps.status()  # trouble with them: the old versions serve
            if self.running.durable is not None and (problem := self.running.durable.problem):
                content["jobs"] = {"problem": problem}  # other requests go on, so the server stays ready
            return Response(json_bytes(content), 200 if ready else 503, content_type=JSON)

        pages: dict[str, Handler] = {"/livez": livez, "/readyz": readyz}
        if self._endpoint is not None:
            from .metrics_endpoint import page_of

            pages |= page_of(self._endpoint, self.settings)
        if self.settings.docs and sum(not service.is_part_of_module for service, *_ in self.service.mounts()) > 1:
            pages["/"] = to_docs
        return pages


def _durable_jobs(service: Service, settings: Settings) -> DurableJobs:
    """The durable jobs of a service with a job route."""
    from ..jobs.opening import new_owner, store_of  # imported only where there is a job route
    from ..jobs.service_jobs import ServiceJobs

    return ServiceJobs(service, settings, store_of(settings.jobs), new_owner())


def _callee_messages(function: Callable[..., Any], route: Route) -> CalleeMessages:
    """How a handler of another service is called over gRPC."""
    from ..grpc.rpc_callee import callee_messages  # imported only where a service has an address of gRPC

    return callee_messages(function, route)


def _replace_poll(loop: asyncio.AbstractEventLoop) -> None:
    """Replace the epoll set of the loop by an empty one: a forked child shares the set of its parent."""
    if not hasattr(select, "epoll"):
        return  # kqueue is not inherited
    selector = getattr(loop, "_selector", None)
    find = getattr(loop, "_get_backend_id", None) or getattr(selector, "fileno", None)
    if find is not None and (descriptor := find()) >= 0:
        with select.epoll() as own:
            os.dup2(own.fileno(), descriptor, inheritable=False)
