"""Routes and resources: the decorators that record them.

The decorators record and return the function untouched: it pickles by its name, and a test calls it as it is.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from ..core.errors import ConfigurationError
from ..core.responses import Middleware
from .router import PARAMETER, ROUTABLE_METHODS

F = TypeVar("F", bound=Callable[..., Any])

_RECORD = "__tinysvc__"


@dataclass(frozen=True)
class Batch:
    """Options of `cpu_route(..., batch=Batch())`: the handler takes lists, and returns one item for each request.

    A batch fills by itself while all workers are busy.

    Args:
        size: Requests in a batch, at most; 1 or more.
        wait: Seconds that an idle worker waits for further requests; 0 for no waiting.

    Example:
        ```python
        from tinysvc import Batch, cpu_route

        @cpu_route("/score", methods=["POST"], batch=Batch(size=64, wait=0.002))
        def score(items: list[list[float]]) -> list[float]:
            return [sum(values) for values in items]
        ```
    """

    size: int = 32
    wait: float = 0.005


@dataclass(frozen=True)
class Cache:
    """Options of `cpu_route(..., cache=Cache(60))`: the server keeps a result and reuses it for the same request.

    Equal requests that come while the first one runs wait for its result. A kept response says its `Age` (RFC 9111).

    Args:
        seconds: Time that a result is kept; more than 0.
        headers: Names of request headers that the result depends on, beside those that parameters are filled from.

    Example:
        ```python
        from tinysvc import Cache, cpu_route

        @cpu_route("/primes/{n}", cache=Cache(60, headers=["accept-language"]))
        def primes(n: int) -> list[int]:
            return [k for k in range(2, n) if all(k % d for d in range(2, k))]
        ```
    """

    seconds: float
    headers: Sequence[str] = ()


class About(TypedDict, total=False):
    """Options of a route that only document it (OpenAPI 3.1). All of them are optional.

    Attributes:
        summary: One line; by default the first line of the handler's docstring.
        tags: Groups that the documentation shows the route in.
        deprecated: Whether clients should stop using the route.
        responses: Further responses by status: a sentence or a type, as in `{404: "No such note.", 201: Note}`.
            A 2xx replaces the 200.
        example: A request body that the route accepts.

    Example:
        ```python
        from tinysvc import io_route
        from tinysvc.service.routes import About

        about = About(tags=["notes"], responses={404: "There is no such note."})

        @io_route("/notes/{number}", **about)
        async def note(number: int) -> str:
            return f"note {number}"
        ```
    """

    summary: str
    """One line; else the first one of the docstring."""
    tags: Sequence[str]
    """Groups in which it is shown."""
    deprecated: bool
    """Whether clients should no longer use it."""
    responses: Mapping[int, Any]
    """What else it answers: a sentence or a type, as in `{404: "There is no such note.", 201: Note}`.

    A 2xx stands in the place of 200.
    """
    example: Any
    """A body that it takes."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One decorated handler: where it is reached and how it runs."""

    path: str
    methods: tuple[str, ...]
    function: Callable[..., Any]
    kind: Literal["io", "cpu"]
    timeout: float | None = None
    """Seconds; None is the server's `cpu_timeout`, for an io route none; 0 is no deadline."""
    on_disconnect: Literal["cancel", "finish", None] = None
    """What happens to a running handler whose client has gone; None: cancel for GET and HEAD, finish for others."""
    max_body_size: int | None = None
    """Bytes; None is the server's."""
    pool: str = "default"
    limit: int | None = None
    """How many workers of its pool, or how many io requests at work, it may have at a time; None for any number."""
    batch: Batch | None = None
    cache: Cache | None = None
    middleware: tuple[Middleware, ...] = ()
    about: About = field(default_factory=About)
    parameters: tuple[str, ...] = field(init=False)

    def timeout_or(self, default: float) -> float | None:
        """Seconds; None for no deadline."""
        return (default if self.timeout is None else self.timeout) or None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", self._checked_parameters())
        for method in self.methods:
            if method not in ROUTABLE_METHODS:
                known = ", ".join(ROUTABLE_METHODS)
                raise ConfigurationError.at(self.function, f"methods takes {known}, not {method!r}")
        if not self.methods:
            raise ConfigurationError.at(self.function, 'methods is empty; name at least one, as in methods=["GET"]')

    def _checked_parameters(self) -> tuple[str, ...]:
        if re.search(r"[<>?#\s]|/:", self.path):
            remedy = "a parameter is written {name}, and the query is no part of the path"
            raise ConfigurationError.at(self.function, f"cannot read the path {self.path!r}: {remedy}")
        if not self.path.startswith("/"):
            raise ConfigurationError.at(self.function, f'the path {self.path!r} must begin with "/"')
        segments = self.path.split("/")
        names = []
        for position, segment in enumerate(segments):
            parameter = PARAMETER.fullmatch(segment)
            if parameter is None:
                if "{" in segment or "}" in segment:
                    remedy = "a parameter is a whole segment, {name}, or {name:path} at the end"
                    raise ConfigurationError.at(self.function, f"cannot read {segment!r} in {self.path!r}: {remedy}")
                continue
            if parameter[2] and position != len(segments) - 1:
                raise ConfigurationError.at(
                    self.function, f"{segment} takes all the rest; put it last in {self.path!r}"
                )
            names.append(parameter[1])
        if len(set(names)) < len(names):
            raise ConfigurationError.at(self.function, f"a parameter stands twice in {self.path!r}; rename one")
        return tuple(names)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A decorated function that opens something handlers ask for by its name."""

    name: str
    function: Callable[..., Any]
    kind: Literal["io", "cpu"]
    shared: bool = False
    """Opened once, before the workers are forked, and inherited by each."""
    of_request: bool = False
    """Opened for every request, even if it takes nothing of it: it stands in the place of one that does."""


@dataclass(frozen=True, eq=False)
class Given:
    """A resource that is there already, in the place of the function that opens one."""

    value: Any

    def __call__(self) -> Any:
        return self.value


def io_route(
    path: str,
    *,
    methods: Sequence[str] = ("GET",),
    timeout: float | None = None,
    on_disconnect: Literal["cancel", "finish", None] = None,
    max_body_size: int | None = None,
    limit: int | None = None,
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

    _check_called("io_route", path)

    def record(function: F) -> F:
        _check_options(function, on_disconnect, max_body_size, timeout, limit)
        if timeout and not inspect.iscoroutinefunction(function):
            raise ConfigurationError.at(
                function, "has a timeout, but only an async def can be stopped on the way; make it one, or a cpu_route"
            )
        route = Route(
            path=path,
            methods=_methods(function, methods),
            function=function,
            kind="io",
            timeout=timeout,
            on_disconnect=on_disconnect,
            max_body_size=max_body_size,
            limit=limit,
            middleware=checked_middleware(middleware, function),
            about=_checked_about(function, about),
        )
        _add(function, route)
        return function

    return record


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
    middleware: Iterable[Middleware] = (),
    **about: Unpack[About],
) -> Callable[[F], F]:
    """Serve `path` with a handler that computes: a plain `def`, run in a worker process.

    Path and parameters are those of `io_route`. See "The worker pool" for what ends a job.

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

    _check_called("cpu_route", path)

    def record(function: F) -> F:
        _check_options(function, on_disconnect, max_body_size, timeout, limit)
        _check_pool(function, pool)
        if batch is not None:
            _check_batch(function, batch)
        route = Route(
            path=path,
            methods=_methods(function, methods),
            function=function,
            kind="cpu",
            timeout=timeout,
            on_disconnect=on_disconnect,
            max_body_size=max_body_size,
            pool=pool,
            limit=limit,
            batch=batch,
            cache=_checked_cache(function, cache),
            middleware=checked_middleware(middleware, function),
            about=_checked_about(function, about),
        )
        _add(function, route)
        return function

    return record


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
    _add(function, _resource(function, "io"))
    return function


@overload
def cpu_resource(function: F) -> F: ...


@overload
def cpu_resource(*, shared: bool = False) -> Callable[[F], F]: ...


def cpu_resource(function: F | None = None, *, shared: bool = False) -> F | Callable[[F], F]:
    """Open something once in each worker, before its first job, for the cpu handlers that name it as a parameter.

    The function is a plain `def`. It returns the resource; or it yields the resource once and closes it after the
    `yield`. Its parameters are other such resources, by name.

    Args:
        function: The function; its name is the name of the resource.
        shared: Open the resource once, before the workers are forked. They share its memory until they write to it.
            This suits big data that is only read. Threads and connections do not survive the fork.

    Returns:
        The function, untouched; with `shared`, a decorator.

    Raises:
        ConfigurationError: `function` is not a function, or `shared` is not a bool.

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
        return partial(_record_cpu_resource, shared)
    return _record_cpu_resource(False, function)


def _record_cpu_resource(shared: bool, function: F) -> F:
    if type(shared) is not bool:
        raise ConfigurationError.at(function, f"shared must be True or False, not {shared!r}")
    _add(function, _resource(function, "cpu", shared))
    return function


def recorded(function: object) -> list[Route | Resource]:
    """What the decorators have recorded on `function`."""
    found = getattr(function, _RECORD, ())
    return list(found) if isinstance(found, list) else []


def _add(function: Callable[..., Any], record: Route | Resource) -> None:
    if not hasattr(function, "__code__"):
        raise ConfigurationError(f"{function!r} is not a function; decorate the function that handles the request")
    if not hasattr(function, _RECORD):
        setattr(function, _RECORD, [])
    getattr(function, _RECORD).append(record)
    _recorded_in.setdefault(function.__module__, []).append(function)


_recorded_in: dict[str, list[Callable[..., Any]]] = {}


def unreachable(module: types.ModuleType) -> list[Callable[..., Any]]:
    """Functions decorated at the module's top level, or in its classes, that no name in it leads to any more."""
    return [
        function
        for function in _recorded_in.get(module.__name__, [])
        if getattr(function, "__globals__", None) is vars(module)  # not of an earlier import of the same name
        and "<locals>" not in function.__qualname__
        and not any(value is function for value in vars(module).values())
    ]


_OPTIONS = [
    *("methods", "timeout", "on_disconnect", "max_body_size", "limit", "middleware"),
    *("pool", "batch", "cache"),
    *About.__annotations__,
]


def _methods(function: Callable[..., Any], methods: Sequence[str]) -> tuple[str, ...]:
    methods = [methods] if isinstance(methods, str) else methods
    if not isinstance(methods, (list, tuple, set, frozenset)) or not all(isinstance(m, str) for m in methods):
        raise ConfigurationError.at(function, f'methods takes a list of names, as in ["GET"], not {methods!r}')
    return tuple(method.upper() for method in methods)


def _check_options(
    function: Callable[..., Any], on_disconnect: object, max_body_size: object, timeout: object, limit: object
) -> None:
    if on_disconnect not in (None, "cancel", "finish"):
        raise ConfigurationError.at(function, f'on_disconnect takes "cancel" or "finish", not {on_disconnect!r}')
    if max_body_size is not None and (type(max_body_size) is not int or max_body_size < 0):
        raise ConfigurationError.at(
            function, f"max_body_size must be a whole number of bytes, 0 or more, not {max_body_size!r}"
        )
    if timeout is not None and not _is_number(timeout):
        raise ConfigurationError.at(function, f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
    if limit is not None and not _is_count(limit):
        raise ConfigurationError.at(function, f"limit must be a whole number, 1 or more, not {limit!r}")


def _check_pool(function: Callable[..., Any], pool: object) -> None:
    if not isinstance(pool, str) or not pool:
        raise ConfigurationError.at(function, f'pool takes the name of a pool, as in pool="training", not {pool!r}')


def checked_middleware(middleware: object, function: Callable[..., Any] | None = None) -> tuple[Middleware, ...]:
    """That of a service, or of the route of a function. ConfigurationError for what is no list of functions."""
    found = tuple(middleware) if isinstance(middleware, Iterable) else (middleware,)
    if not isinstance(middleware, Iterable) or not all(map(takes_two, found)):
        sentence = f"middleware takes a list of functions, as in async def m(request, call_next), not {middleware!r}"
        raise ConfigurationError.at(function, sentence) if function else ConfigurationError(sentence)
    return found


def takes_two(function: object) -> bool:
    """Whether it can be called with two arguments, as middleware and error handlers are; a class makes something."""
    if not callable(function) or isinstance(function, type):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # it is written in C, and does not say
        pass
    return True


def _checked_about(function: Callable[..., Any], about: About) -> About:
    for name in about:
        if name not in About.__annotations__:
            known = difflib.get_close_matches(name, _OPTIONS, 1)
            remedy = f"did you mean {known[0]}?" if known else f"it knows {', '.join(_OPTIONS)}"
            raise ConfigurationError.at(function, f"{name!r} is no option of a route; {remedy}")
    for status, what in about.get("responses", {}).items():
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ConfigurationError.at(function, f"responses takes statuses from 200 to 599, not {status!r}")
        if isinstance(what, Mapping):
            remedy = 'as in {404: "There is none.", 201: Item}'
            raise ConfigurationError.at(function, f"responses takes a sentence or a type, {remedy}, not {what!r}")
    if isinstance(about.get("tags"), str):
        raise ConfigurationError.at(function, f'tags is a list of names, as in ["users"], not {about["tags"]!r}')
    return about


def _check_batch(function: Callable[..., Any], batch: object) -> None:
    if not isinstance(batch, Batch):
        raise ConfigurationError.at(function, f"batch takes a Batch, as in batch=Batch(size=32), not {batch!r}")
    if not _is_count(batch.size):
        raise ConfigurationError.at(function, f"the size of a batch is a whole number, 1 or more, not {batch.size!r}")
    if not _is_number(batch.wait):
        raise ConfigurationError.at(
            function, f"the wait of a batch is a number of seconds, 0 or more, not {batch.wait!r}"
        )
    if inspect.isgeneratorfunction(function):
        raise ConfigurationError.at(function, "streams, but a batch is answered whole; return a list, or drop batch=")


def _checked_cache(function: Callable[..., Any], cache: object) -> Cache | None:
    """As a Cache, where it is only a number of seconds."""
    found = cache if isinstance(cache, Cache) or cache is None else Cache(cache)  # type: ignore[arg-type]
    if found is None:
        return None
    if not _is_number(found.seconds) or isinstance(found.seconds, bool) or not found.seconds > 0:
        raise ConfigurationError.at(function, f"cache takes a number of seconds above 0, or a Cache, not {cache!r}")
    if isinstance(found.headers, str) or not all(isinstance(name, str) for name in found.headers):
        raise ConfigurationError.at(
            function, f'the headers of a cache are a list of names, as in ["accept-language"], not {found.headers!r}'
        )
    if inspect.isgeneratorfunction(function):
        raise ConfigurationError.at(function, "streams, but only a whole answer is kept; return one, or drop cache=")
    return found


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and value >= 0


def _check_called(decorator: str, path: object) -> None:
    if not isinstance(path, str):
        sentence = f'write @{decorator}("/path"), with the path that it serves, not {path!r}'
        raise ConfigurationError.at(path, sentence) if callable(path) else ConfigurationError(sentence)


def _resource(function: Callable[..., Any], kind: Literal["io", "cpu"], shared: bool = False) -> Resource:
    if not hasattr(function, "__code__"):
        raise ConfigurationError(f"{function!r} is not a function; decorate the function that opens the resource")
    if kind == "cpu" and function.__code__.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise ConfigurationError.at(
            function, "is async, but a cpu_resource is opened in a worker, where no loop runs; make it a plain def"
        )
    return Resource(name=function.__name__, function=function, kind=kind, shared=shared)
