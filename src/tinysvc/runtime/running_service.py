"""A service at work: what serves it, with its resources open and its workers ready.

The io/cpu fork is decided here, once a route, by building its handler:

    io     bind -> await the function -> encode                          on the loop, or in a thread for `def`
    cpu    request -> job -> [ bind -> function -> encode ] -> response  what stands in brackets happens in a worker
                                                                         of the route's pool

Around it stands what the route has asked for, and nothing else, from the outside:

    middleware, a body's limit, error handlers, a limit, a deadline, the request's resources, compression, a cache
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..core import forks
from ..core.ending import LoopBudget
from ..core.errors import (
    ConfigurationError,
    DeadlineExceeded,
    HTTPError,
    JobAbandoned,
    JobRefused,
    NoRoute,
    RemoteError,
    TinysvcError,
    UnencodableResult,
    WorkerDied,
    author_traceback,
    indented,
    notice,
)
from ..core.messages import LIVE, Handler, Middleware, Request, Response, problem_response
from ..core.settings import DEFAULT_POOL, Settings
from ..executor import ProcessPoolExecutor
from ..service.error_handlers import ErrorHandlers, answer_to, with_error_handlers
from ..service.plan import Wiring, credentials_of, max_body_size, takes, wiring_of
from ..service.resources import read_by
from ..service.router import Router, allow
from ..service.routes import Route
from ..service.service import Mounted, Service, url_of
from ..web.websocket import socket_handler, socket_parameter
from .background import Background, BackgroundTasks
from .checks import endpoint_of
from .cpu_calls import CpuCall, callable_here
from .cpu_endpoints import CpuProgram
from .cpu_handlers import cpu_handler
from .io_handlers import io_handler, told_of_disconnect
from .limits import Beginnings, IoLimit, limited_body, limited_time, with_kept_form
from .middleware import around
from .open_resources import Scope, open_once

if TYPE_CHECKING:
    from ..pool.external import ForeignPool
    from .caching import Results

log = logging.getLogger("tinysvc")

T = TypeVar("T")


@asynccontextmanager
async def at_work(
    service: Service, settings: Settings, extra: Mapping[str, Handler] | None = None
) -> AsyncIterator[RunningService]:
    """Open the resources, start the workers and serve, until the context ends; then close all in reverse.

    `extra` are handlers for GET on paths that the service itself leaves free. ConfigurationError for what is wrong
    with a handler; WorkerStartError if a worker cannot be made ready.
    """
    stack = AsyncExitStack()
    try:
        running = RunningService(service, settings)
        await running.open(stack, extra or {})
        yield running
    finally:
        # Without an error: what is behind a resource's `yield` runs, whatever has failed elsewhere.
        await stack.aclose()


class RunningService:
    """A service at work: a Handler, and what it has open."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.settings = settings
        self.router: Router[Handler] = Router()
        self.pools: list[ProcessPoolExecutor | ForeignPool] = []
        self._results: Results | None = None  # of routes with cache=
        self.calls: dict[Callable[..., Any], CpuCall] = {}
        self._paths: dict[Handler, str] = {}  # of routes, for the log
        self._places: dict[Callable[..., Any], list[Mounted]] = {}
        self._middleware_under: dict[str, tuple[Middleware, ...]] = {}  # prefix -> what is asked where no route is
        self._error_handlers_under: dict[str, ErrorHandlers] = {}  # prefix -> the same
        self._middleware_of: dict[Handler, tuple[Middleware, ...]] = {}
        self.beginnings = Beginnings()
        self._budget: LoopBudget | None = None  # of the drain
        self._io_limit = IoLimit(settings.max_io_requests) if settings.max_io_requests else None
        self.lost_resources: set[str] = set()  # names of those that have ended on their own
        self.background = BackgroundTasks(settings.max_background)

    async def open(self, stack: AsyncExitStack, extra: Mapping[str, Handler]) -> None:
        """Check all, start the pools, open the io resources: a mistake is said before anything is open."""
        stack.callback(self._end_budget)
        wirings = [wiring_of(each) for each in self.service.mounted()]
        _check_paths(wirings)
        handlers: dict[int, Handler] = {}
        for name, routes in _routes_by_pool(wirings, self.settings).items():
            handlers |= self._add_pool(name, routes)
        if self.settings.docs:
            from ..openapi.page import documentation  # only who shows it pays for the import

            told = documentation(self.service, wirings, self.settings)
            within = self.service.middleware  # who may not ask the service may not ask what it is
            extra = {**extra, **{path: self._within(within, handler) for path, handler in told.items()}}
        await self._start_pools(stack)
        stack.enter_context(callable_here(self.calls))
        opened: dict[Any, Any] = {}
        for wiring in wirings:
            self._places.setdefault(wiring.mounted.route.function, []).append(wiring.mounted)
            values = await open_once(stack, wiring.once, opened, self.lost_resources, self.seconds_left)
            is_cpu = wiring.mounted.route.kind == "cpu"
            handler = handlers[id(wiring)] if is_cpu else self._io_handler(wiring, values)
            self._add(wiring, self._scoped(wiring, handler, values))
        for path, handler in extra.items():
            if not self.router.has("GET", path):
                self.router.add(path, ("GET",), handler, handler)
        for each in self.service.services():
            if each.middleware:  # of two with one prefix it is the outer one's
                self._middleware_under.setdefault(each.prefix, each.middleware)
            if each.error_handlers:
                self._error_handlers_under.setdefault(each.prefix, each.error_handlers)

    def _io_handler(self, wiring: Wiring, resources: Mapping[str, Any]) -> Handler:
        route, binder, scoped = wiring.mounted.route, wiring.binder, bool(wiring.of_request)
        if socket := socket_parameter(wiring):
            return socket_handler(
                route.function,
                socket,
                lambda request: binder.bind(request, b"", request.resources if scoped else resources),
            )
        limit = max_body_size(wiring.mounted, self.settings)
        handler = io_handler(route.function, binder, resources, limit, scoped=scoped)
        if self.settings.compress:
            from ..web.compression import compressed  # only who compresses pays for the import

            handler = compressed(handler)
        if route.on_disconnect:
            handler = told_of_disconnect(handler, route.on_disconnect == "cancel")
        return handler

    def _scoped(self, wiring: Wiring, handler: Handler, once: Mapping[str, Any]) -> Handler:
        """What the route has asked for around its handler, within its error handlers."""
        route = wiring.mounted.route
        if is_live(wiring):
            handler = self.beginnings.around(handler, wiring.binder.stream_type)
        if route.cache:
            handler = self._cached(wiring, handler)
        if wiring.of_request:
            timeout = route.timeout if route.kind == "io" else None
            scope = Scope(
                wiring.of_request,
                wiring.binder,
                once,
                sent=route.kind == "cpu",
                timeout=timeout or None,
                apart=bool(wiring.mounted.middleware),
            )
            handler = scope.around(handler)
        if route.kind == "io" and route.timeout and not wiring.of_request:
            handler = limited_time(handler, route.timeout)
        if takes(Background, wiring):
            handler = self.background.around(handler)
        if route.kind == "cpu":
            return handler
        if route.limit:
            handler = IoLimit(route.limit, "this route").around(handler)
        return self._io_limit.around(handler) if self._io_limit else handler

    def _add(self, wiring: Wiring, handler: Handler) -> None:
        mounted = wiring.mounted
        if mounted.error_handlers:
            handler = with_error_handlers(handler, mounted.error_handlers, mounted.route.kind)
        if mounted.route.max_body_size is not None:
            handler = limited_body(handler, mounted.route.max_body_size)
        if mounted.middleware:
            handler = self._within(mounted.middleware, handler)
            if mounted.route.kind == "cpu" or wiring.binder.body_kind in ("bytes", "json"):
                handler = with_kept_form(handler)
        if not mounted.route.cache and (credentials := credentials_of(wiring)):
            from .caching import private_to  # only who takes credentials pays for the import

            handler = private_to(handler, credentials)
        if mounted.middleware:
            self._middleware_of[handler] = mounted.middleware
        self._paths[handler] = mounted.path
        self.router.add(mounted.path, mounted.route.methods, handler, mounted.route.function)

    def _add_pool(self, name: str, wirings: list[Wiring]) -> dict[int, Handler]:
        """A pool, not yet started, and the handlers of its routes: its workers know of these only."""
        pool = self._pool(name, CpuProgram([endpoint_of(each, self.settings) for each in wirings]))
        self.pools.append(pool)
        handlers = {}
        for number, wiring in enumerate(wirings):
            route, default_timeout = wiring.mounted.route, self.settings.cpu_timeout
            lane = pool.lane(route.limit) if route.limit else None
            handlers[id(wiring)] = cpu_handler(pool, number, route, wiring.mounted.path, default_timeout, lane)
            self.calls[route.function] = CpuCall(pool, number, route.timeout_or(default_timeout), lane)
        return handlers

    def _cached(self, wiring: Wiring, handler: Handler) -> Handler:
        from .caching import CachedRoute, Results  # only who caches pays for the import

        binder, route = wiring.binder, wiring.mounted.route
        assert route.cache is not None
        if binder.takes_request and not route.cache.headers:
            raise ConfigurationError.at(
                route.function,
                "has cache= and takes the Request, so that nobody can tell which of its headers matter; take them as "
                'parameters (Annotated[str, Header()]), or name them: cache=Cache(60, headers=["accept"])',
            )
        self._results = self._results or Results(self.settings.max_cache_size)
        vary, private = read_by(wiring.of_request, {*wiring.once, *wiring.of_request})
        return CachedRoute(
            handler, route, self._results, binder.headers, self.settings.compress, vary=vary, private=private
        )

    def _pool(self, name: str, program: CpuProgram) -> ProcessPoolExecutor | ForeignPool:
        executor = self.settings.pools.get(name)
        told = self.settings.pool(name)
        if isinstance(executor, Executor):
            from ..pool.external import ForeignPool  # only who brings an executor pays for the import

            return ForeignPool(executor, program, name=name, queue_size=told["queue_size"])
        if not self.settings.cpu_workers:
            from ..pool.in_process import InProcessPool  # only a server without workers pays for the import

            return InProcessPool(program, name=name, queue_size=told["queue_size"])
        max_result_size = self.settings.max_result_size
        return ProcessPoolExecutor(
            told.pop("workers"), **told, max_result_size=max_result_size, program=program, name=name
        )

    async def _start_pools(self, stack: AsyncExitStack) -> None:
        """All at the same time. If one fails, the others are closed and its error is the one that is raised."""
        stack.push_async_callback(self.drain, 0.1)
        try:
            async with asyncio.TaskGroup() as starting:
                for pool in self.pools:
                    starting.create_task(pool.start())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def is_ready(self) -> bool:
        """Whether every pool has all its workers, and every resource is open."""
        return not self.lost_resources and all(pool.ready >= pool.max_workers for pool in self.pools)

    def seconds_left(self) -> float:
        """Of `shutdown_timeout`, which begins with the drain, or with the first call where there was none."""
        if self._budget is None:
            self._budget = LoopBudget(self.settings.shutdown_timeout)
        return self._budget.left()

    def _end_budget(self) -> None:
        if self._budget is not None:
            self._budget.cancel()

    async def drain(self, timeout: float) -> None:
        """Let the background tasks, then the pools, finish what they have within `timeout` seconds; kill the rest."""
        budget = LoopBudget(timeout)
        await self.background.drain(timeout)
        await asyncio.gather(*(pool.aclose(budget.left()) for pool in self.pools))
        budget.cancel()

    async def handle(self, request: Request) -> Response:
        """The answer to a request. It raises only if the client has gone, or the connection's task is cancelled."""
        request.served_by = self
        try:
            handler, request.path_params = self.router.match(request.method, request.raw_path)
            return await handler(request)
        except NoRoute as error:
            middleware = self._middleware_without_route(error, request.raw_path)
            if not middleware:
                return self._answer_to(error, request)
            return await self._guarded(self._within(middleware, self._no_route), request)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: a handler must not end the server
            return self._answer_to(error, request)

    __call__ = handle  # a Handler; a bound method is called sooner than an object

    def route_of(self, request: Request) -> str:
        """Method and path pattern of its route, as in "GET /items/{name}"; empty if there is none."""
        try:
            handler, _ = self.router.match(request.method, request.raw_path)
            return f"{request.method} {self._paths[handler]}"
        except (NoRoute, KeyError):
            return ""

    def url_for(self, handler: Callable[..., Any], /, **parameters: Any) -> str:
        """For Request.url_for."""
        return url_of(handler, self._places.get(handler, ()), parameters)

    async def _guarded(self, handler: Handler, request: Request) -> Response:
        try:
            return await handler(request)
        except JobAbandoned:  # the client has disconnected: `handle` ends the connection, middleware may clean up
            raise
        except BaseException as error:
            return self._answer_to(error, request)

    def _within(self, middleware: tuple[Middleware, ...], handler: Handler) -> Handler:
        """`handler` with the middleware around it."""
        for each in reversed(middleware):
            handler = around(each, partial(self._guarded, handler))
        return handler

    def _middleware_without_route(self, error: NoRoute, path: str) -> tuple[Middleware, ...]:
        """That of the path's other methods; else of the service with the longest prefix that the path begins with."""
        if error.beside is not None:
            return self._middleware_of.get(error.beside, ())
        return _nearest(self._middleware_under, path) or ()

    async def _no_route(self, request: Request) -> Response:
        handler, _ = self.router.match(request.method, request.raw_path)
        return await handler(request)

    def _answer_to(self, error: BaseException, request: Request) -> Response:
        """What the client gets for what a handler has raised."""
        if forks.in_child:
            forks.end_of_child(error)
        if isinstance(error, NoRoute) and request.method != "OPTIONS":
            try:
                if response := answer_to(error, request, _nearest(self._error_handlers_under, request.raw_path) or {}):
                    return response
            except Exception as worse:
                return self._failed(request, worse)
        if isinstance(error, NoRoute) and request.method == "OPTIONS":
            if error.status == 405:
                return Response(b"", 204, error.headers)
            if request.raw_path == "*":
                return Response(b"", 204, [("allow", allow(("GET", "POST", "PUT", "PATCH", "DELETE")))])
        if isinstance(error, HTTPError):
            try:
                return problem_response(error, request)
            except ValueError as bad_header:
                return self._failed(request, bad_header)
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise error
            return self._failed(request, RuntimeError("the handler raised CancelledError; nobody had cancelled it"))
        return self._failed(request, error)

    def _failed(self, request: Request, error: BaseException) -> Response:
        """Log what the client must not know, and answer with what it may. ConnectionAbortedError if it has gone."""
        if isinstance(error, JobAbandoned):
            raise ConnectionAbortedError(str(error)) from None
        notice(error)
        level, text = _log_line(error)
        if text:
            words = "%s %s (request %s): %s"
            log.log(level, words, request.method, request.raw_path, request.id, indented(text))
        return problem_response(error if isinstance(error, TinysvcError) else TinysvcError(), request)


def is_live(wiring: Wiring) -> bool:
    """Whether it answers with a stream that may have no end, or with one whose first item decides that."""
    function, stream_type = wiring.mounted.route.function, wiring.binder.stream_type
    generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    return stream_type in LIVE or (generates and not stream_type)


def _nearest(by_prefix: Mapping[str, T], path: str) -> T | None:
    """What stands under the longest prefix that the path begins with."""
    prefixes = [prefix for prefix in by_prefix if path == prefix or path.startswith(prefix + "/")]
    return by_prefix[max(prefixes, key=len)] if prefixes else None


def _log_line(error: BaseException) -> tuple[int, str]:
    """The level and the words for an error in the log; no words for what only says that there is much to do."""
    if isinstance(error, (RemoteError, UnencodableResult, ConfigurationError)):
        return logging.ERROR, str(error)
    if isinstance(error, (WorkerDied, JobRefused, DeadlineExceeded)):
        return logging.ERROR, f"{error.status}, {error}"
    if not isinstance(error, TinysvcError):
        return logging.ERROR, f"the handler failed\n{author_traceback(error)}"
    return logging.DEBUG, ""


def _check_paths(wirings: list[Wiring]) -> None:
    """ConfigurationError if two routes have one path and method."""
    table: Router[Callable[..., Any]] = Router()
    for wiring in wirings:
        route = wiring.mounted.route
        table.add(wiring.mounted.path, route.methods, route.function, route.function)


# Which routes run in which pool


def _routes_by_pool(wirings: list[Wiring], settings: Settings) -> dict[str, list[Wiring]]:
    """The cpu routes of each pool that has any. ConfigurationError for a route in a pool that nobody has configured."""
    known = {DEFAULT_POOL: None, **settings.pools}
    routes: dict[str, list[Wiring]] = {}
    for wiring in wirings:
        route = wiring.mounted.route
        if route.kind == "cpu":
            _check_pool(route, known)
            routes.setdefault(route.pool, []).append(wiring)
    if unused := ", ".join(name for name in settings.pools if name not in routes):
        log.warning("no cpu route is in these pools, so that nothing is started for them: %s", unused)
    return routes


def _check_pool(route: Route, known: Mapping[str, object]) -> None:
    if route.pool not in known:
        remedy = f'name one of these, or add Service(pools={{"{route.pool}": Pool(...)}}) or --pools {route.pool}'
        raise ConfigurationError.at(
            route.function, f"there is no pool {route.pool!r}; there is: {', '.join(known)}; {remedy}"
        )
