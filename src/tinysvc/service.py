"""Service: routes, resources and pools put together. The only place where routing, binding and executor meet.

    Service        what the author declared: checked, not yet running
    RunningService what serves it: resources open, workers ready; a Handler

The io/cpu fork is decided here, once a route, by building its handler:

    io     bind -> await the function -> encode                          on the loop, or in a thread for `def`
    cpu    request -> job -> [ bind -> function -> encode ] -> response  what stands in brackets happens in a worker
                                                                         of the route's pool
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .adapter import cpu_handler, timeout_of
from .annotations import signature_of
from .binding import Binder, is_packed, open_resource
from .calls import CpuCall, callable_here
from .codings import unpack_body
from .endpoints import CpuProgram, Endpoint
from .errors import (
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
)
from .executor import ProcessPoolExecutor
from .forms import parse_form
from .limits import IoLimit, limited_body
from .messages import FileContent, Handler, Middleware, Request, Response, problem_response
from .results import begin_stream, encode_result
from .router import Router, allow
from .routing import Resource, Route, recorded, unreachable
from .settings import DEFAULT_POOL, Pool, Settings, read_pools
from .websocket import WebSocket, missing_library, socket_handler

if TYPE_CHECKING:
    from .caching import Results
    from .foreign import ForeignPool

log = logging.getLogger("tinysvc")


class Mounted(NamedTuple):
    """One route where it finally stands."""

    path: str
    route: Route
    service: Service
    middleware: tuple[Middleware, ...] = ()
    """From the outermost to the innermost."""


class Service:
    """What is served: `parts` are decorated functions, modules that hold some, and other services.

    `prefix` stands before every path of it, as in "/notes". `pools` are those that its cpu routes name, as in
    `{"training": Pool(workers=1)}`; any `concurrent.futures.Executor` may stand in a pool's place. `middleware` stands
    around all that it answers, the first outermost: see messages.Middleware. `options` are fields
    of Settings, weaker than variables and flags. ConfigurationError for a part that holds nothing to serve, and for two
    resources, or two different pools, of one name.
    """

    is_part_of_module = False
    """Whether a module that holds one at its top level serves it with its own routes, as it does static files."""

    def __init__(
        self,
        *parts: object,
        prefix: str = "",
        name: str = "",
        pools: Mapping[str, Pool | Executor] | None = None,
        middleware: Iterable[Middleware] = (),
        **options: Any,
    ) -> None:
        if prefix and (not prefix.startswith("/") or prefix.endswith("/") or "{" in prefix):
            raise ConfigurationError(f'prefix must begin with "/", not end with it, and hold no {{}}, not {prefix!r}')
        self.prefix = prefix
        self.name = name
        self.pools = read_pools(pools or {})
        self.middleware = tuple(middleware)
        for each in self.middleware:
            if not callable(each):
                raise ConfigurationError(
                    f"middleware takes functions, as in async def m(request, call_next), not {each!r}"
                )
        self.options = {**options, "pools": self.pools}
        self.routes: list[Route] = []
        self.resources: dict[str, Resource] = {}
        self.mounts: list[Service] = []
        for part in parts:
            self._add(part)

    def _add(self, part: object) -> None:
        if isinstance(part, Service):
            self._add_mount(part)
        elif isinstance(part, types.ModuleType):
            self._add_module(part)
        elif callable(part) and recorded(part):
            for record in recorded(part):
                _check_on_top(part, record)
                self._add_record(record)
        else:
            raise ConfigurationError(
                f"a service is made of decorated functions, modules and services; {part!r} is none of them"
            )

    def _add_mount(self, mount: Service) -> None:
        """Pools serve all routes that name them, wherever they stand; other options are the outermost service's."""
        for name, pool in mount.pools.items():
            if self.pools.setdefault(name, pool) != pool:
                raise ConfigurationError(
                    f"the pool {name} is configured twice, as {self.pools[name]!r} and as {pool!r}; "
                    "configure it once, or give one of the two another name"
                )
        if unused := {name: value for name, value in mount.options.items() if name != "pools"}:
            log.warning("the options %r of a service inside another are not used", unused)
        self.mounts.append(mount)

    def _add_module(self, module: types.ModuleType) -> None:
        """The module's own routes, and the resources it defines or imports."""
        for function in unreachable(module):
            raise ConfigurationError.at(
                function,
                f"no name in the module {module.__name__} leads to this, so that it would not be served; "
                "give every handler a name of its own, at the module's top level, with the tinysvc decorator on top",
            )
        imported: list[str] = []
        for value in list(vars(module).values()):
            if isinstance(value, Service) and value.is_part_of_module:
                self._add(value)
            for record in recorded(value) if isinstance(value, types.FunctionType) else ():
                if isinstance(record, Resource) or value.__module__ == module.__name__:
                    _check_on_top(value, record)
                    self._add_record(record)
                else:
                    imported.append(value.__name__)
        if not self.routes and not self.mounts:
            hint = f"; it imports {', '.join(imported)}: name them in a Service(...)" if imported else ""
            name = f"{module.__name__} ({getattr(module, '__file__', 'no file')})"
            raise ConfigurationError(f"the module {name} has no function with @io_route or @cpu_route{hint}")

    def _add_record(self, record: Route | Resource) -> None:
        if isinstance(record, Route):
            if record not in self.routes:
                self.routes.append(record)
            return
        known = self.resources.setdefault(record.name, record)
        if known.function is not record.function:
            raise ConfigurationError.at(record.function, f"there is another resource {record.name}; rename one")

    def mounted(self) -> Iterator[Mounted]:
        """Every route of this service and of those under it, with its whole path."""
        for service, prefix, middleware in self.services():
            for route in service.routes:
                path = prefix + route.path
                path = path.rstrip("/") or "/" if prefix and route.path == "/" else path
                yield Mounted(path, route, service, middleware)

    def services(
        self, prefix: str = "", middleware: tuple[Middleware, ...] = ()
    ) -> Iterator[tuple[Service, str, tuple[Middleware, ...]]]:
        """This one and all under it, with the prefix and the middleware that each finally has."""
        prefix, middleware = prefix + self.prefix, middleware + self.middleware
        yield self, prefix, middleware
        for mount in self.mounts:
            yield from mount.services(prefix, middleware)

    @asynccontextmanager
    async def running(
        self, settings: Settings, extra: Mapping[str, Handler] | None = None
    ) -> AsyncIterator[RunningService]:
        """Open the resources, start the workers and serve, until the context ends; then close all in reverse.

        `extra` are handlers for GET on paths that the service itself leaves free. ConfigurationError for what is wrong
        with a handler; WorkerStartError if a worker cannot be made ready.
        """
        async with AsyncExitStack() as stack:
            running = RunningService(self, settings)
            await running.open(stack, extra or {})
            yield running


class RunningService:
    """A service at work: a Handler, and what it has open."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.settings = settings
        self.router: Router[Handler] = Router()
        self.pools: list[ProcessPoolExecutor | ForeignPool] = []
        self._results: Results | None = None  # of routes with cache=
        self.calls: dict[Callable[..., Any], CpuCall] = {}
        self._middleware_under: dict[str, tuple[Middleware, ...]] = {}  # prefix -> what is asked where no route is
        self._middleware_of: dict[Handler, tuple[Middleware, ...]] = {}
        self._io_limit = IoLimit(settings.max_io_requests) if settings.max_io_requests else None

    async def open(self, stack: AsyncExitStack, extra: Mapping[str, Handler]) -> None:
        """Check all, start the pools, open the io resources: a mistake is said before anything is open."""
        mounted = list(self.service.mounted())
        binders = [binder_of(each) for each in mounted]
        for name, routes in _routes_by_pool(mounted, self.settings).items():
            self._add_pool(name, routes)
        await self._start_pools(stack)
        stack.enter_context(callable_here(self.calls))
        opened: dict[Callable[..., Any], Any] = {}
        for each, binder in zip(mounted, binders, strict=True):
            if each.route.kind == "io":
                functions = {name: each.service.resources[name].function for name in binder.resources}
                for function in functions.values():
                    if function not in opened:
                        opened[function] = await _open_io_resource(stack, function)
                values = {name: opened[function] for name, function in functions.items()}
                self._add(each, self._io_handler_of(each, binder, values))
        for path, handler in extra.items():
            if not self.router.has("GET", path):
                self.router.add(path, ("GET",), handler, handler)
        for _, prefix, middleware in self.service.services():
            if middleware:
                self._middleware_under.setdefault(prefix, middleware)  # of two with one prefix it is the outer one's

    def _io_handler_of(self, mounted: Mounted, binder: Binder, resources: Mapping[str, Any]) -> Handler:
        route = mounted.route
        if socket := _socket_parameter(route, binder):
            return socket_handler(route.function, socket, lambda request: binder.bind(request, b"", resources))
        handler = _io_handler(route.function, binder, resources, _max_body_size(mounted, self.settings))
        if self.settings.compress:
            from .compression import compressed  # only who compresses pays for the import

            handler = compressed(handler)
        if route.on_disconnect:
            handler = _told_of_disconnect(handler, route.on_disconnect == "cancel")
        return self._io_limit.around(handler) if self._io_limit else handler

    def _add(self, mounted: Mounted, handler: Handler) -> None:
        if mounted.route.max_body_size is not None:
            handler = limited_body(handler, mounted.route.max_body_size)
        if mounted.middleware:
            handler = self._within(mounted.middleware, handler)
            self._middleware_of[handler] = mounted.middleware
        self.router.add(mounted.path, mounted.route.methods, handler, mounted.route.function)

    def _add_pool(self, name: str, routes: list[Mounted]) -> None:
        """A pool, not yet started, and the handlers of its routes: its workers know of these only."""
        pool = self._pool(name, CpuProgram([_endpoint(each, self.settings) for each in routes]))
        self.pools.append(pool)
        for number, each in enumerate(routes):
            lane = pool.lane(each.route.limit) if each.route.limit else None
            default_timeout = self.settings.cpu_timeout
            handler = cpu_handler(pool, number, each.route, default_timeout, lane)
            self._add(each, self._cached(each, handler) if each.route.cache else handler)
            self.calls[each.route.function] = CpuCall(pool, number, timeout_of(each.route, default_timeout), lane)

    def _cached(self, mounted: Mounted, handler: Handler) -> Handler:
        from .caching import CachedRoute, Results  # only who caches pays for the import

        binder = binder_of(mounted)
        assert mounted.route.cache is not None
        if binder.takes_request and not mounted.route.cache.headers:
            raise ConfigurationError.at(
                mounted.route.function,
                "has cache= and takes the Request, so that nobody can tell which of its headers matter; take them as "
                'parameters (Annotated[str, Header()]), or name them: cache=Cache(60, headers=["accept"])',
            )
        self._results = self._results or Results(self.settings.max_cache_size)
        return CachedRoute(handler, mounted.route, self._results, binder.headers, self.settings.compress)

    def _pool(self, name: str, program: CpuProgram) -> ProcessPoolExecutor | ForeignPool:
        executor = self.settings.pools.get(name)
        told = self.settings.pool(name)
        if isinstance(executor, Executor):
            from .foreign import ForeignPool  # only who brings an executor pays for the import

            return ForeignPool(executor, program, name=name, queue_size=told["queue_size"])
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
        """Whether every pool has all its workers."""
        return all(pool.ready >= pool.max_workers for pool in self.pools)

    async def drain(self, timeout: float) -> None:
        """Let the pools finish what runs and waits, for `timeout` seconds, then kill it."""
        await asyncio.gather(*(pool.aclose(timeout) for pool in self.pools))

    async def handle(self, request: Request) -> Response:
        """The answer to a request. It raises only if the client has gone, or the connection's task is cancelled."""
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

    async def _guarded(self, handler: Handler, request: Request) -> Response:
        try:
            return await handler(request)
        except BaseException as error:
            return self._answer_to(error, request)

    def _within(self, middleware: tuple[Middleware, ...], handler: Handler) -> Handler:
        """`handler` with the middleware around it."""
        for each in reversed(middleware):
            handler = _around(each, partial(self._guarded, handler))
        return handler

    def _middleware_without_route(self, error: NoRoute, path: str) -> tuple[Middleware, ...]:
        """That of the path's other methods; else of the service with the longest prefix that the path begins with."""
        if error.beside is not None:
            return self._middleware_of.get(error.beside, ())
        prefixes = [p for p in self._middleware_under if path == p or path.startswith(p + "/")]
        return self._middleware_under[max(prefixes, key=len)] if prefixes else ()

    async def _no_route(self, request: Request) -> Response:
        handler, _ = self.router.match(request.method, request.raw_path)
        return await handler(request)

    def _answer_to(self, error: BaseException, request: Request) -> Response:
        """What the client gets for what a handler has raised."""
        if isinstance(error, NoRoute) and request.method == "OPTIONS":
            if error.status == 405:
                return Response(b"", 204, error.headers)
            if request.raw_path == "*":
                return Response(b"", 204, [("allow", allow(("GET", "POST", "PUT", "PATCH", "DELETE")))])
        if isinstance(error, HTTPError):
            try:
                return problem_response(error)
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
        level, text = _log_line(error)
        if text:
            log.log(level, "%s %s (request %s): %s", request.method, request.raw_path, request.id, indented(text))
        return problem_response(error if isinstance(error, TinysvcError) else TinysvcError())


def _log_line(error: BaseException) -> tuple[int, str]:
    """The level and the words for an error in the log; no words for what only says that there is much to do."""
    if isinstance(error, (RemoteError, UnencodableResult)):
        return logging.ERROR, str(error)
    if isinstance(error, (WorkerDied, JobRefused, DeadlineExceeded)):
        return logging.ERROR, f"{error.status}, {error}"
    if not isinstance(error, TinysvcError):
        return logging.ERROR, f"the handler failed\n{author_traceback(error)}"
    return logging.DEBUG, ""


def _around(middleware: Middleware, call_next: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        response = await middleware(request, call_next)
        if not isinstance(response, Response):
            name = getattr(middleware, "__qualname__", type(middleware).__qualname__)
            raise TypeError(f"the middleware {name} returned {response!r}; return a Response, as call_next does")
        return response

    return handle


# Handlers on the loop


def _io_handler(
    function: Callable[..., Any], binder: Binder, resources: Mapping[str, Any], max_body_size: int
) -> Handler:
    """Bind, call, encode; what a handler has no need of is decided here, not at every request."""
    bind, needs_body, typed = binder.bind, bool(binder.body_kind), binder.body_kind == "json"
    binds, stream_type = bool(binder.parameters), binder.stream_type

    async def with_form(request: Request) -> Mapping[str, Any]:
        if is_packed(request):
            header, body = request.headers["content-encoding"], await request.body()
            whole = await _in_thread(partial(unpack_body, header, body, max_body_size))
            request.form_data = await _in_thread(partial(parse_form, request.headers.get("content-type", ""), whole))
        else:
            await request.form()
        return bind(request, b"", resources)

    async def with_body(request: Request) -> Mapping[str, Any]:
        body = await request.body() if needs_body else b""
        if typed and is_packed(request):
            body = await _in_thread(partial(unpack_body, request.headers["content-encoding"], body, max_body_size))
        return bind(request, body, resources)

    arguments_of = with_form if binder.body_kind == "form" else with_body
    if inspect.iscoroutinefunction(function):

        async def handle(request: Request) -> Response:
            response = encode_result(await (function(**await arguments_of(request)) if binds else function()))
            return response if type(response.content) is bytes else await _begin_stream(response, stream_type)

        return handle
    is_stream = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)

    async def handle_plain(request: Request) -> Response:
        call = partial(function, **await arguments_of(request) if binds else {})
        response = encode_result(call() if is_stream else await _in_thread(call))
        return response if type(response.content) is bytes else await _begin_stream(response, stream_type)

    return handle_plain


def _told_of_disconnect(handler: Handler, cancels: bool) -> Handler:
    """A handler whose route says what happens when its client leaves."""

    async def handle(request: Request) -> Response:
        task = asyncio.current_task()
        request.on_disconnect = task.cancel if cancels and task is not None else lambda: None
        return await handler(request)

    return handle


async def _in_thread(function: Callable[[], Any]) -> Any:
    from anyio.to_thread import run_sync  # only services with `def` handlers pay for the import

    return await run_sync(function)


async def _begin_stream(response: Response, stream_type: str) -> Response:
    """What is not bytes: a view of many, or a file, as it is; or an iterator whose first item is fetched."""
    items = response.content
    if type(items) is memoryview or type(items) is FileContent:
        return response
    if isinstance(items, Iterator):
        items = _iterate_in_thread(items)
    return await begin_stream(response, items, stream_type)


async def _iterate_in_thread(items: Iterator[Any]) -> AsyncIterator[Any]:
    end = object()
    try:
        while (item := await _in_thread(partial(next, items, end))) is not end:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


class ResourceFailed(TinysvcError):
    """An io_resource raised while it was opened; the message ends with the author's part of the traceback."""


async def _open_io_resource(stack: AsyncExitStack, function: Callable[..., Any]) -> Any:
    try:
        if inspect.isasyncgenfunction(function):
            return await stack.enter_async_context(asynccontextmanager(function)())
        value = open_resource(stack, function)
        return await value if inspect.isawaitable(value) else value
    except Exception as error:
        raise ResourceFailed(f"the resource {function.__name__} cannot be opened:\n{author_traceback(error)}") from None


def _socket_parameter(route: Route, binder: Binder) -> str:
    """The name of the parameter that takes the WebSocket; "" if there is none."""
    name = next((name for name, each in binder.parameters.items() if each.annotation is WebSocket), "")
    if name and (route.methods != ("GET",) or not inspect.iscoroutinefunction(route.function) or binder.body_kind):
        raise ConfigurationError.at(
            route.function, "takes a WebSocket, which begins with a GET without a body: make it async def, for GET only"
        )
    if name and (missing := missing_library()):
        raise ConfigurationError.at(route.function, missing)
    return name


# Which routes run in which pool


def _routes_by_pool(mounted: list[Mounted], settings: Settings) -> dict[str, list[Mounted]]:
    """The cpu routes of each pool that has any. ConfigurationError for a route in a pool that nobody has configured."""
    known = {DEFAULT_POOL: None, **settings.pools}
    routes: dict[str, list[Mounted]] = {}
    for each in mounted:
        if each.route.kind == "cpu":
            _check_pool(each.route, known)
            routes.setdefault(each.route.pool, []).append(each)
    if unused := ", ".join(name for name in settings.pools if name not in routes):
        log.warning("no cpu route is in these pools, so that nothing is started for them: %s", unused)
    return routes


def _check_pool(route: Route, known: Mapping[str, object]) -> None:
    if route.pool not in known:
        remedy = f'name one of these, or add Service(pools={{"{route.pool}": Pool(...)}}) or --pools {route.pool}'
        raise ConfigurationError.at(
            route.function, f"there is no pool {route.pool!r}; there is: {', '.join(known)}; {remedy}"
        )


# What is wrong with a handler is said at start-up


def binder_of(mounted: Mounted) -> Binder:
    """The binder of a route where it stands. ConfigurationError if its handler cannot be served."""
    route, resources = mounted.route, mounted.service.resources
    names = [name for name, resource in resources.items() if resource.kind == route.kind]
    other = {name for name, resource in resources.items() if resource.kind != route.kind}
    for name, parameter in inspect.signature(route.function).parameters.items():
        if name in other and parameter.annotation is parameter.empty and name not in route.parameters:
            where = "on the event loop" if route.kind == "io" else "in a worker process"
            raise ConfigurationError.at(
                route.function,
                f"{name} comes from @{resources[name].kind}_resource, but this handler runs {where}; "
                f"use @{route.kind}_resource for it",
            )
    return Binder(route.function, route.parameters, names, batched=route.batch is not None)


def _endpoint(mounted: Mounted, settings: Settings) -> Endpoint:
    function, resources = mounted.route.function, mounted.service.resources
    used = {
        name: resources[name]
        for name in inspect.signature(function).parameters
        if name in resources and resources[name].kind == "cpu" and name not in mounted.route.parameters
    }
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError.at(
            function, "is async, but @cpu_route runs it in a worker, where nothing else waits; make it a plain def"
        )
    if any(each.annotation is WebSocket for each in signature_of(function).values()):
        raise ConfigurationError.at(
            function, "takes a WebSocket, which lives on the event loop; use @io_route, and await cpu(...) in it"
        )
    functions = {name: resource.function for name, resource in used.items()}
    for needed in (function, *functions.values()):
        _check_importable(needed)
    shared = frozenset(name for name, resource in used.items() if resource.shared)
    return Endpoint(
        function,
        mounted.route.parameters,
        functions,
        shared,
        mounted.route.batch,
        mounted.path,
        settings.compress,
        _max_body_size(mounted, settings),
    )


def _max_body_size(mounted: Mounted, settings: Settings) -> int:
    size = mounted.route.max_body_size
    return settings.max_body_size if size is None else size


def _check_on_top(part: object, record: Route | Resource) -> None:
    """A decorator above ours that copies attributes, as functools.wraps does, would be skipped: say so."""
    if record.function is not part:
        raise ConfigurationError.at(
            record.function,
            "another decorator stands above the tinysvc one and would be skipped; put the tinysvc decorator on top",
        )


def _check_importable(function: Callable[..., Any]) -> None:
    """A worker gets a function by its module and name, as pickle has it."""
    name = function.__qualname__
    if "<lambda>" in name or "<locals>" in name:
        kind = "a lambda" if "<lambda>" in name else "defined inside another function"
        raise ConfigurationError.at(
            function, f"is {kind}, so that a worker cannot import it; define it with def at the module's top level"
        )
    found: Any = sys.modules.get(function.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise ConfigurationError.at(
            function,
            f"{function.__module__}.{name} is not this function, so that a worker would import another one; "
            "put the tinysvc decorator on top of the others, and give every handler a name of its own",
        )
