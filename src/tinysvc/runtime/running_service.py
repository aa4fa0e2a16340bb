"""A service at work: its resources are open, its workers run, and it handles requests.

Whether a route is io or cpu is decided here, once a route, when its handler is built:

    io     bind -> await the function -> encode                          on the loop, or in a thread for `def`
    cpu    request -> job -> [ bind -> function -> encode ] -> response  the brackets are the work of a worker

route_handlers.py puts the options of the route around the handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigurationError, NoRoute
from ..core.optional_libraries import missing_library
from ..core.requests import Request
from ..core.responses import Handler, Middleware, Response
from ..core.settings import Settings
from ..core.shutdown import LoopCountdown
from ..executor import ProcessPoolExecutor
from ..service.error_handlers import ErrorHandlers
from ..service.plan import Plan, plans_of
from ..service.router import Router
from ..service.routes import Route
from ..service.service import Service, build_url
from ..web.websocket_route import socket_parameter
from .background import BackgroundTasks
from .call_checks import called_handlers
from .call_targets import CallTable, callable_from_here
from .checks import check_paths, endpoint_of
from .cpu_calls import CpuCall, callable_here
from .cpu_endpoints import CpuProgram
from .cpu_handlers import cpu_handler
from .durable_jobs import DurableJobs, DurablePlace
from .error_responses import error_response, of_longest_prefix
from .message_calls import FindMessages
from .message_routes import MessageRoutes, MessagesOf
from .middleware import guarded
from .open_resources import open_once
from .open_services import open_services
from .pools import create_pool, routes_by_pool
from .route_handlers import RouteHandlers
from .waiting_calls import answers_of

if TYPE_CHECKING:
    from ..pool.external import ExternalPool
    from .caching import ResponseCache
    from .candidates import Candidates
    from .model_swaps import ModelSwaps
    from .page_guard import PageGuard
    from .served_artifacts import ServedArtifacts
    from .service_metrics import ServiceMetrics
    from .tracing import Tracing


@asynccontextmanager
async def at_work(
    service: Service,
    settings: Settings,
    extra: Mapping[str, Handler] | None = None,
    make_durable: Callable[[Service, Settings], DurableJobs] | None = None,
    metrics: ServiceMetrics | None = None,
    messages_of: MessagesOf | None = None,
    find_messages: FindMessages | None = None,
) -> AsyncIterator[RunningService]:
    """Open the resources, start the workers and serve until the context ends; then close all in reverse order.

    Args:
        service: The service.
        settings: The server's settings.
        extra: Handlers for GET, by path, where the service itself has no route.
        make_durable: Makes the durable jobs of a service that has a job route.
        metrics: Counts what the service does.
        messages_of: Finds the routes that are served by messages, too.
        find_messages: Finds how handlers are called over gRPC.

    Raises:
        ConfigurationError: A handler or a pool is declared wrongly, or the store of durable jobs must not be used.
        ResourceFailed: An io resource cannot be opened.
        WorkerStartError: A worker cannot start.
    """
    stack = AsyncExitStack()
    try:
        running = RunningService(service, settings, make_durable, metrics, messages_of, find_messages)
        await running.open(stack, extra or {})
        yield running
    finally:
        # Without an error: the code behind a resource's `yield` runs, whatever has failed elsewhere.
        await stack.aclose()


class RunningService:
    """A service at work, as a Handler."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        make_durable: Callable[[Service, Settings], DurableJobs] | None = None,
        metrics: ServiceMetrics | None = None,
        messages_of: MessagesOf | None = None,
        find_messages: FindMessages | None = None,
    ) -> None:
        self.service = service
        self.settings = settings
        self.durable: DurableJobs | None = None  # of a service with a job route
        self._make_durable = make_durable
        self._find_messages = find_messages
        self.metrics = metrics
        self.tracing: Tracing | None = None
        self.messages = MessageRoutes(messages_of)
        self._places: dict[Plan, DurablePlace] = {}  # of the job routes
        self._inherited: list[int] = []  # descriptors that the workers inherit
        self.router: Router[Handler] = Router()
        self.pools: list[ProcessPoolExecutor | ExternalPool] = []
        self.calls: dict[Callable[..., Any], CpuCall] = {}
        self.durable_pools: dict[Callable[..., Any], object] = {}  # those of job routes
        self.plans: list[Plan] = []
        self.plans_of_pool: dict[str, list[Plan]] = {}  # the endpoints of its workers
        self.page_guard: PageGuard | None = None
        self.artifacts: ServedArtifacts | None = None  # of a service whose resources take some
        self.swaps: ModelSwaps | None = None
        self.candidates: Candidates | None = None  # of a service whose resources try some
        self.on_error: Callable[[BaseException, Request, int], None] | None = None  # for statuses from 500 on
        self.lost_resources: set[str] = set()  # names of resources that ended before the server
        self.is_broken = False  # the store of durable jobs has closed itself: the server must start again
        self.on_broken: Callable[[], None] = _do_nothing
        self.background = BackgroundTasks(settings.max_background)
        self._handlers = RouteHandlers(settings, self.background, self.respond_to_error)
        self.unstarted_streams = self._handlers.unstarted_streams
        self._path_of: dict[Handler, str] = {}  # of routes, for the log
        self._routes_of: dict[Callable[..., Any], list[tuple[str, Route]]] = {}  # with whole paths, for url_for
        self._middleware_of: dict[Handler, tuple[Middleware, ...]] = {}
        self._middleware_under: dict[str, tuple[Middleware, ...]] = {}  # prefix -> for requests without a route
        self._error_handlers_under: dict[str, ErrorHandlers] = {}  # prefix -> the same
        self._countdown: LoopCountdown | None = None  # of the drain

    async def open(self, stack: AsyncExitStack, extra: Mapping[str, Handler]) -> None:
        """Check all routes, start the pools, open the io resources: mistakes are found before anything is open."""
        stack.callback(self._end_countdown)
        if self.settings.traces:
            self._open_tracing(stack)
        self.plans = plans = list(plans_of(self.service))
        check_paths(plans)
        if any(plan.artifacts for plan in plans):
            await self._open_artifacts(stack)
        if any(plan.artifacts or plan.made_by_service for plan in plans):
            from .store_check import check_store  # imported only where the store is used

            await check_store(self.settings)
        self.messages.find(plans)
        handlers: dict[Plan, Handler] = {}
        for name, routes in routes_by_pool(plans, self.settings).items():
            handlers |= self._add_pool(name, routes)
        pages: dict[str, Handler] = {}
        if self.settings.docs:
            from ..openapi.page import documentation  # imported only where it is shown

            pages = documentation(self.service, plans, self.settings)
        services = open_services(stack, self.settings)
        recorder = None if self.tracing is None else self.tracing.queue
        calls = CallTable(self, services, plans, recorder, self._find_messages)
        stack.enter_context(callable_here(self.calls))
        stack.enter_context(callable_from_here(calls))
        calls.check(called_handlers(plans))
        if self._places:
            self.durable = await self._open_durable(stack)
            handlers |= {place.plan: self.durable.post(place) for place in self._places.values()}
            pages |= self.durable.pages()
        if self.metrics is not None:
            self.metrics.start(stack, self, services)
        await self._start_pools(stack)
        if self.swaps is not None:
            self.swaps.start()
            stack.push_async_callback(self.swaps.aclose)
        for pool in self.pools:
            durable = self.durable.answer if self.durable else None
            pool.answer = answers_of(calls, pool, self.settings.max_result_size, durable)
        opened: dict[Any, Any] = {}
        for plan in plans:
            self._routes_of.setdefault(plan.route.function, []).append((plan.path, plan.route))
            values = await self._open_once(stack, plan, opened)
            calls.mount(plan.route.function, values)
            is_cpu = plan.route.kind == "cpu"
            handler = handlers[plan] if is_cpu else self._handlers.io_handler(plan, values)
            self._add(plan, plan.path, plan.route.methods, self._handlers.with_options(plan, handler, values))
            self.messages.add(plan, self._handlers, values)
            if plan in self._places:
                self._add_verbs(self._places[plan], values)
        middleware = self.service.middleware  # the pages are behind the service's middleware, too
        self._add_pages({**extra, **{path: self._handlers.within(middleware, page) for path, page in pages.items()}})
        self._add_mounts()
        if self.settings.dashboard_guard:
            await self._open_page_guard(stack, opened)
        if self.durable is not None:
            self.durable.start(self._break)

    def _open_tracing(self, stack: AsyncExitStack) -> None:
        """Begin to record traces: before everything else is open, and until all is closed."""
        if missing := missing_library("opentelemetry"):
            raise ConfigurationError(f"traces is {self.settings.traces}, but {missing}")
        from .tracing import open_tracing  # imported only with traces

        opened = open_tracing(self.settings, self.service.name or "tinysvc")
        self.tracing = opened.tracing
        if self.metrics is not None:
            self.metrics.registry.add_source(self.tracing.metrics)
        stack.push_async_callback(lambda: opened.aclose(self.seconds_left()))

    async def _open_artifacts(self, stack: AsyncExitStack) -> None:
        """Fetch the artifacts of the cpu resources: the pools start with them."""
        from .model_swaps import ModelSwaps
        from .served_artifacts import ServedArtifacts, wanted_by  # imported only where a resource takes an artifact

        self.artifacts = ServedArtifacts(self.settings, wanted_by(self.plans))
        await self.artifacts.open(stack)
        self._handlers.artifacts = self.artifacts
        self.swaps = ModelSwaps(self.artifacts, self.settings.models_interval)
        if any(plan.candidate for plan in self.plans):
            from .candidates import Candidates

            self.candidates = Candidates(self.served, None if self.metrics is None else self.metrics.registry)

    def served(self, reference: str) -> int | None:
        """The version that this process serves of an artifact, as in "churn@production"; None for one that it lacks."""
        return None if self.artifacts is None else self.artifacts.served(reference)

    def _add(self, plan: Plan, path: str, methods: Sequence[str], handler: Handler) -> None:
        handler = self._handlers.outermost(plan, handler)
        if self.metrics is not None:
            is_socket = bool(socket_parameter(plan))
            handler = self.metrics.requests.around(
                handler, methods[0], path, self.respond_to_error, is_socket=is_socket
            )
        if plan.middleware:
            self._middleware_of[handler] = plan.middleware
        self._path_of[handler] = path
        self.router.add(path, methods, handler, plan.route.function)

    def _add_verbs(self, place: DurablePlace, values: Mapping[str, Any]) -> None:
        assert self.durable is not None
        for path, methods, handler in self.durable.verbs(place, values):
            self._add(place.plan, path, methods, self._handlers.with_background(place.plan, handler))

    def _add_pages(self, pages: Mapping[str, Handler]) -> None:
        """Serve each page whose path no route has."""
        for path, handler in pages.items():
            if not self.router.has("GET", path):
                self.router.add(path, ("GET",), handler, handler)

    def add_pages(self, pages: Mapping[tuple[str, str], Handler]) -> None:
        """Serve pages by method and path behind the service's middleware, where no route has their path."""
        for (method, path), page in pages.items():
            if not self.router.has(method, path):
                handler = self._handlers.within(self.service.middleware, page)
                self.router.add(path, (method,), handler, handler)

    async def _open_once(self, stack: AsyncExitStack, plan: Plan, opened: dict[Any, Any]) -> dict[str, Any]:
        """The values of the route's resources that are open for the whole server, and those that the service makes."""
        made = {name: kind.of_service(self.settings, self.served) for name, kind in plan.made_by_service.items()}
        return await open_once(stack, plan.server_resources, opened, self.lost_resources, self.seconds_left, made)

    async def _open_page_guard(self, stack: AsyncExitStack, opened: dict[Any, Any]) -> None:
        from .page_guard import PageGuard, guard_plan  # imported only where it is used

        plan = guard_plan(self.service, self.settings.dashboard_guard, "dashboard_guard")
        values = await self._open_once(stack, plan, opened)
        self.page_guard = PageGuard(plan, values)

    def _add_mounts(self) -> None:
        """Note what responds to requests without a route."""
        for each in self.service.mounts():
            if each.middleware:  # of two services with one prefix, the outer one's
                self._middleware_under.setdefault(each.prefix, each.middleware)
            if each.error_handlers:
                self._error_handlers_under.setdefault(each.prefix, each.error_handlers)

    def _add_pool(self, name: str, plans: list[Plan]) -> dict[Plan, Handler]:
        """A pool, not yet started, and the handlers of its cpu routes: its workers know only the routes of the pool."""
        endpoints = self.messages.beside(plans, [endpoint_of(each, self.settings) for each in plans])
        self.plans_of_pool[name] = [*plans, *(plan for plan in plans if self.messages.number_of(plan) is not None)]
        if self.candidates is not None:
            self.candidates.add_endpoints(endpoints, self.plans_of_pool[name])
        has_artifacts = any(endpoint.artifacts for endpoint in endpoints)
        program = self.swaps.program_of(endpoints) if self.swaps and has_artifacts else CpuProgram(endpoints)
        shared = None if self.metrics is None else self.metrics.shared
        pool = create_pool(name, program, self.settings, self._inherited, shared)
        self.pools.append(pool)
        if self.swaps is not None and has_artifacts:
            self.swaps.add(pool, endpoints, plans)
        tracing = None
        if self.tracing is not None:
            from .traced_jobs import TracedJobs  # imported only with traces

            paths = [each.path for each in endpoints]
            tracing = TracedJobs(self.tracing.queue, name, paths, has_artifacts=has_artifacts)
            if isinstance(pool, ProcessPoolExecutor):
                pool.take_reports(self.tracing.reports_of(name))
        shares_pool = any(plan.route.durable is None for plan in plans)
        handlers = {}
        for number, plan in enumerate(plans):
            route, default_timeout = plan.route, self.settings.cpu_timeout
            lane = pool.lane(route.limit) if route.limit else None
            if route.durable is not None:
                self._places[plan] = DurablePlace(plan, pool, number, lane, shares_pool, tracing)
                self.durable_pools[route.function] = pool
                continue
            make: Callable[[int], Handler] = partial(
                cpu_handler, pool, route=route, default_timeout=default_timeout, lane=lane, tracing=tracing
            )
            if self.candidates is not None and plan.candidate is not None:
                make = self.candidates.around(plan, make, pool, route.timeout_or(default_timeout))
            handlers[plan] = make(number)
            if (second := self.messages.number_of(plan)) is not None:
                self.messages.jobs[plan] = make(second)
            self.calls[route.function] = CpuCall(pool, number, route.timeout_or(default_timeout), lane, tracing)
        return handlers

    async def _open_durable(self, stack: AsyncExitStack) -> DurableJobs:
        if self._make_durable is None:
            place = next(iter(self._places.values()))
            raise ConfigurationError.at(place.plan.route.function, "has @job_route, which only a Server can serve")
        durable = self._make_durable(self.service, self.settings)
        self._inherited += await durable.open(stack, list(self._places.values()))
        return durable

    async def _start_pools(self, stack: AsyncExitStack) -> None:
        """Start all pools at the same time. If one fails, close the others and raise its error."""
        stack.push_async_callback(self.drain, 0.1)
        try:
            async with asyncio.TaskGroup() as starting:
                for pool in self.pools:
                    starting.create_task(pool.start())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    @property
    def response_cache(self) -> ResponseCache | None:
        """The cache that all routes with cache= share; None if there is none."""
        return self._handlers.response_cache

    def durable_routes(self) -> list[str]:
        """The path patterns of the job routes."""
        return [plan.path for plan in self._places]

    def is_ready(self) -> bool:
        """Whether every pool has all its workers, and every resource and the store of durable jobs is open."""
        is_open = not self.lost_resources and not self.is_broken
        unloaded = () if self.swaps is None else self.swaps.unloaded  # by a swap: their jobs wait
        return is_open and all(pool.ready >= pool.max_workers or pool.name in unloaded for pool in self.pools)

    def is_alive(self) -> bool:
        """Whether every pool has a worker, or is about to have some."""
        unloaded = () if self.swaps is None else self.swaps.unloaded
        return all(pool.ready or pool.name in unloaded for pool in self.pools)

    def _break(self) -> None:
        self.is_broken = True
        self.on_broken()

    def seconds_left(self) -> float:
        """Seconds left of `shutdown_timeout`, counted from the first call, which is when the drain begins."""
        if self._countdown is None:
            self._countdown = LoopCountdown(self.settings.shutdown_timeout)
        return self._countdown.left()

    def _end_countdown(self) -> None:
        if self._countdown is not None:
            self._countdown.cancel()

    async def drain(self, timeout: float) -> None:
        """Let the background tasks, then the jobs of the pools, finish within `timeout` seconds; kill the rest."""
        countdown = LoopCountdown(timeout)
        if self.swaps is not None:
            await self.swaps.aclose()
        if self.candidates is not None:
            await self.candidates.aclose()
        await self.background.drain(timeout)
        durable = [] if self.durable is None else [self.durable.drain(countdown.left())]
        await asyncio.gather(*durable, *(pool.aclose(countdown.left()) for pool in self.pools))
        countdown.cancel()

    async def handle(self, request: Request) -> Response:
        """The response to a request. Raises only if the client has disconnected or the request's task is cancelled."""
        request.served_by = self
        try:
            handler, request.path_params = self.router.match(request.method, request.raw_path)
            return await handler(request)
        except NoRoute as error:
            response = await self._response_without_route(error, request)
            if self.metrics is not None:
                self.metrics.requests.count_without_route(request, response)
            return response
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: a handler must not end the server
            return self.respond_to_error(error, request)

    @property
    def handler(self) -> Handler:
        """Handles a request of a client. Unlike `handle`, it records the request, if traces are on."""
        return self.handle if self.tracing is None else self.tracing.around(self)

    __call__ = handle  # a Handler; a bound method is called sooner than an object

    def respond_to_error(self, error: BaseException, request: Request) -> Response:
        """The response to an error. Raises CancelledError or ConnectionAbortedError if no client waits for one."""
        response = error_response(error, request, self._error_handlers_under)
        if self.on_error is not None and response.status >= 500:
            self.on_error(error, request, response.status)
        return response

    def route_of(self, request: Request) -> str:
        """Method and path pattern of its route, as in "GET /items/{name}"; empty if there is none."""
        try:
            handler, _ = self.router.match(request.method, request.raw_path)
            return f"{request.method} {self._path_of[handler]}"
        except (NoRoute, KeyError):
            return ""

    def url_for(self, handler: Callable[..., Any], /, **parameters: Any) -> str:
        """For Request.url_for."""
        return build_url(handler, self._routes_of.get(handler, ()), parameters)

    def _middleware_without_route(self, error: NoRoute, path: str) -> tuple[Middleware, ...]:
        """That of the path's other methods; else of the service with the longest prefix that the path begins with."""
        if error.beside is not None:
            return self._middleware_of.get(error.beside, ())
        return of_longest_prefix(self._middleware_under, path) or ()

    async def _response_without_route(self, error: NoRoute, request: Request) -> Response:
        middleware = self._middleware_without_route(error, request.raw_path)
        if not middleware:
            return self.respond_to_error(error, request)
        return await guarded(self._handlers.within(middleware, self._no_route), self.respond_to_error, request)

    async def _no_route(self, request: Request) -> Response:
        handler, _ = self.router.match(request.method, request.raw_path)
        return await handler(request)


def _do_nothing() -> None:
    pass
