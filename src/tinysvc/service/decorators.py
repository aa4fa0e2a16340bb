"""The decorators for handlers and resources. They record on the function and return it untouched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, Unpack, overload

from ..core.errors import ConfigurationError
from ..core.responses import Middleware
from .route_options import (
    check_batch,
    check_called,
    check_options,
    check_pool,
    checked_about,
    checked_cache,
    checked_hedge,
    checked_methods,
    checked_middleware,
)
from .routes import About, Batch, Cache, Resource, Route, record

F = TypeVar("F", bound=Callable[..., Any])


def io_route(
    path: str,
    *,
    methods: Sequence[str] = ("GET",),
    timeout: float | None = None,
    on_disconnect: Literal["cancel", "finish", None] = None,
    max_body_size: int | None = None,
    limit: int | None = None,
    idempotent: bool | None = None,
    hedge: float | None = None,
    middleware: Iterable[Middleware] = (),
    **about: Unpack[About],
) -> Callable[[F], F]:
    """Serve `path` with a handler that waits for I/O: `async def` runs on the event loop, `def` in a thread.

    `{name}` in the path is one segment, and `{name:path}` at its end is the whole rest. The other parameters of the
    handler are filled from the query, the body and the service's resources.

    Args:
        path: Path of the route, as in "/items/{name}".
        methods: HTTP methods. GET serves HEAD, too.
        timeout: Seconds until an `async def` handler is cancelled and the client gets a 504. None: no deadline.
        on_disconnect: "cancel" or "finish": what happens to a running handler when its client disconnects.
            None: cancel GET and HEAD, finish other methods.
        max_body_size: Longest request body in bytes, else 413. None: the server's `max_body_size`.
        limit: Requests that run at one time; further ones get a 503. None: no limit.
        idempotent: Whether a call of the handler by another service may be sent again after it has failed half-way.
            None: if all methods are GET, HEAD, OPTIONS, PUT or DELETE.
        hedge: Seconds after which such a call is sent to a second replica, too. The first response counts, the other
            request is cancelled. None: never.
        middleware: Middleware around this route, the first outermost. The service's middleware stands around it.
        **about: Documentation of the route, see `About`.

    Returns:
        A decorator. It records the route and returns the function untouched.

    Raises:
        ConfigurationError: The path or an option is wrong. The message names the function, its file and line.

    Example:
        ```python
        from tinysvc import io_route

        @io_route("/hello/{name}")
        async def hello(name: str, punctuation: str = "!") -> dict:
            return {"message": f"hello {name}{punctuation}"}
        ```
    """
    check_called("io_route", path)

    def decorate(function: F) -> F:
        check_options(function, on_disconnect, max_body_size, timeout, limit)
        if timeout and not inspect.iscoroutinefunction(function):
            raise ConfigurationError.at(
                function, "has a timeout, but only an async def can be cancelled; make it async def, or use @cpu_route"
            )
        route = Route(
            path=path,
            methods=checked_methods(function, methods),
            function=function,
            kind="io",
            timeout=timeout,
            on_disconnect=on_disconnect,
            max_body_size=max_body_size,
            limit=limit,
            is_idempotent=idempotent,
            hedge=checked_hedge(function, hedge, methods, idempotent),
            middleware=checked_middleware(middleware, function),
            about=checked_about(function, about),
        )
        record(function, route)
        return function

    return decorate


def cpu_route(
    path: str,
    *,
    methods: Sequence[str] = ("GET",),
    timeout: float | None = None,
    on_disconnect: Literal["cancel", "finish", None] = None,
    max_body_size: int | None = None,
    pool: str = "default",
    limit: int | None = None,
    batch: Batch | None = None,
    cache: float | Cache | None = None,
    idempotent: bool | None = None,
    hedge: float | None = None,
    middleware: Iterable[Middleware] = (),
    **about: Unpack[About],
) -> Callable[[F], F]:
    """Serve `path` with a handler that computes: a plain `def`, run in a worker process.

    Path and parameters are those of `io_route`. See "The worker pool" for the ends of a job.

    Args:
        path: Path of the route, as in "/items/{name}".
        methods: HTTP methods. GET serves HEAD, too.
        timeout: Seconds from the request to the deadline. Then a waiting job is dropped (503) and a running one is
            killed (504). None: the server's `cpu_timeout` (30 s). 0: no deadline.
        on_disconnect: "cancel" or "finish": what happens to a running job when its client disconnects.
            None: cancel GET and HEAD, finish other methods.
        max_body_size: Longest request body in bytes, else 413. None: the server's `max_body_size`.
        pool: Name of the pool that runs the job.
        limit: Workers of the pool that the route may hold at one time. None: all.
        batch: Call the handler with the lists of a batch.
        cache: Seconds that a result is kept for the same request, or a `Cache`. None: no cache.
        idempotent: Whether a call of the handler by another service may be sent again after it has failed half-way.
            None: if all methods are GET, HEAD, OPTIONS, PUT or DELETE.
        hedge: Seconds after which such a call is sent to a second replica, too. The first response counts, the other
            request is cancelled. None: never.
        middleware: Middleware around this route, the first outermost. The service's middleware stands around it.
        **about: Documentation of the route, see `About`.

    Returns:
        A decorator. It records the route and returns the function untouched.

    Raises:
        ConfigurationError: The path or an option is wrong. The message names the function, its file and line.

    Example:
        ```python
        from tinysvc import cpu_route

        @cpu_route("/sum", methods=["POST"], timeout=2.0)
        def total(values: list[float]) -> float:
            return sum(values)
        ```
    """
    check_called("cpu_route", path)

    def decorate(function: F) -> F:
        check_options(function, on_disconnect, max_body_size, timeout, limit)
        check_pool(function, pool)
        if batch is not None:
            check_batch(function, batch)
        route = Route(
            path=path,
            methods=checked_methods(function, methods),
            function=function,
            kind="cpu",
            timeout=timeout,
            on_disconnect=on_disconnect,
            max_body_size=max_body_size,
            pool=pool,
            limit=limit,
            batch=batch,
            cache=checked_cache(function, cache),
            is_idempotent=idempotent,
            hedge=checked_hedge(function, hedge, methods, idempotent),
            middleware=checked_middleware(middleware, function),
            about=checked_about(function, about),
        )
        record(function, route)
        return function

    return decorate


def io_resource(function: F) -> F:
    """Open something once, at the start of the server, for the io handlers that name it as a parameter.

    The function returns the resource; or it yields the resource once and closes it after the `yield`. Its parameters
    are other resources, by name. A function that takes a part of the request (`Request`, `Header()`, `Bearer()`, ...),
    or a resource that does, is called for each request instead. A cpu handler may take such a resource, too.

    Args:
        function: A `def` or `async def`; its name is the name of the resource.

    Returns:
        The function, untouched.

    Raises:
        ConfigurationError: `function` is not a function.

    Example:
        ```python
        from collections.abc import Iterator

        from tinysvc import io_resource, io_route

        @io_resource
        def visitors() -> Iterator[list[str]]:
            names: list[str] = []
            yield names
            names.clear()

        @io_route("/visit/{name}")
        async def visit(name: str, visitors: list[str]) -> int:
            visitors.append(name)
            return len(visitors)
        ```
    """
    record(function, _resource(function, "io"))
    return function


@overload
def cpu_resource(function: F) -> F: ...


@overload
def cpu_resource(*, shared: bool = False, check: Callable[[Any], object] | None = None) -> Callable[[F], F]: ...


def cpu_resource(
    function: F | None = None, *, shared: bool = False, check: Callable[[Any], object] | None = None
) -> F | Callable[[F], F]:
    """Open something once in each worker, before its first job, for the cpu handlers that name it as a parameter.

    The function is a plain `def`. It returns the resource; or it yields the resource once and closes it after the
    `yield`. Its parameters are other such resources, by name, and artifacts: `Annotated[Path, Artifact(...)]`.

    Args:
        function: The function; its name is the name of the resource.
        shared: Open the resource once, before the workers are forked. They share its memory until they write to it.
            This suits big data that is only read. Threads and connections do not survive the fork.
        check: Function that gets the opened resource. If it returns False, or raises, the resource cannot be used: the
            server does not start, and a new version of an artifact does not replace the old one.

    Returns:
        The function, untouched; with `shared` or `check`, a decorator.

    Raises:
        ConfigurationError: `function` is not a function, `shared` is not a bool, or `check` cannot be called.

    Example:
        ```python
        from tinysvc import cpu_resource, cpu_route

        @cpu_resource(shared=True)
        def squares() -> list[int]:
            return [n * n for n in range(1000)]

        @cpu_route("/square/{n}")
        def square(n: int, squares: list[int]) -> int:
            return squares[n]
        ```
    """
    if function is None:
        return partial(_record_cpu_resource, shared, check)
    return _record_cpu_resource(False, None, function)


def _record_cpu_resource(shared: bool, check: Callable[[Any], object] | None, function: F) -> F:
    if type(shared) is not bool:
        raise ConfigurationError.at(function, f"shared must be True or False, not {shared!r}")
    if check is not None and (not callable(check) or inspect.iscoroutinefunction(check)):
        raise ConfigurationError.at(
            function, f"check takes a plain function of the opened resource, which returns a bool, not {check!r}"
        )
    record(function, _resource(function, "cpu", shared, check))
    return function


def _resource(
    function: Callable[..., Any],
    kind: Literal["io", "cpu"],
    shared: bool = False,
    check: Callable[[Any], object] | None = None,
) -> Resource:
    if not hasattr(function, "__code__"):
        raise ConfigurationError(f"{function!r} is not a function; decorate the function that opens the resource")
    if kind == "cpu" and function.__code__.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise ConfigurationError.at(
            function, "is async, but a cpu_resource is opened in a worker, which has no event loop; make it a plain def"
        )
    return Resource(name=function.__name__, function=function, kind=kind, shared=shared, check=check)
