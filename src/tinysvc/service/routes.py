"""Routes and resources: the records that the decorators make, and where they are kept.

A record is an attribute of its function, which stays untouched: it pickles by its name, and a test can call it.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from ..core.errors import ConfigurationError
from ..core.responses import Middleware
from .job_options import JobOptions
from .router import PARAMETER, ROUTABLE_METHODS

_RECORD = "__tinysvc__"

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods whose repetition has no further effect (RFC 9110, 9.2.2)."""


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

    Equal requests that come while the first one runs wait for its result. A kept response has an `Age` (RFC 9111).

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
    tags: Sequence[str]
    deprecated: bool
    responses: Mapping[int, Any]
    example: Any


@dataclass(frozen=True, kw_only=True)
class Route:
    """A handler as its decorator declares it. Its path has no prefix yet."""

    path: str
    methods: tuple[str, ...]
    function: Callable[..., Any]
    kind: Literal["io", "cpu"]
    timeout: float | None = None
    """Seconds. None: the server's `cpu_timeout` for a cpu route, no deadline for an io route. 0: no deadline."""
    on_disconnect: Literal["cancel", "finish", None] = None
    """What happens to a running handler when its client disconnects. None: cancel GET and HEAD, finish others."""
    max_body_size: int | None = None
    """Bytes. None: the server's `max_body_size`."""
    pool: str = "default"
    limit: int | None = None
    """Workers of its pool, or running io requests, that the route may have at one time. None: no limit."""
    batch: Batch | None = None
    cache: Cache | None = None
    is_idempotent: bool | None = None
    """Whether a call may be repeated, as declared. None: by its methods."""
    hedge: float | None = None
    """Seconds after which a call without a response is sent to another replica, too."""
    middleware: tuple[Middleware, ...] = ()
    about: About = field(default_factory=About)
    durable: JobOptions | None = None
    """The options of a durable job; None for a route that responds with its result."""
    parameters: tuple[str, ...] = field(init=False)
    """The names in the path."""

    @property
    def idempotent(self) -> bool:
        """Whether a call may be sent again after an attempt that the callee may have started (RFC 9110, 9.2.2)."""
        return IDEMPOTENT_METHODS.issuperset(self.methods) if self.is_idempotent is None else self.is_idempotent

    def timeout_or(self, default: float) -> float | None:
        """The timeout in seconds, by default `default`; None for no deadline."""
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
            remedy = "write a parameter as {name}, and leave the query out of the path"
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
                    self.function, f"{segment} matches the whole rest of a path; put it at the end of {self.path!r}"
                )
            names.append(parameter[1])
        if len(set(names)) < len(names):
            raise ConfigurationError.at(self.function, f"{self.path!r} has two parameters of one name; rename one")
        return tuple(names)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A decorated function that opens a resource, which handlers take as a parameter of its name."""

    name: str
    function: Callable[..., Any]
    kind: Literal["io", "cpu"]
    shared: bool = False
    """Opened once, before the workers are forked; each worker inherits it."""
    per_request: bool = False
    """Opened for each request, even if it takes nothing from it: it overrides a resource that does."""
    check: Callable[[Any], object] | None = None
    """Called with the value when a cpu_resource has been opened; it refuses the value by False or an exception."""


@dataclass(frozen=True, eq=False)
class Given:
    """A resource that exists already, in place of the function that would open it."""

    value: Any

    def __call__(self) -> Any:
        return self.value


def recorded(function: object) -> list[Route | Resource]:
    """The routes and resources that decorators have recorded on `function`."""
    found = getattr(function, _RECORD, ())
    return list(found) if isinstance(found, list) else []


def route_of(function: object) -> Route | None:
    """The first route of a handler; None for any other object."""
    return next((record for record in recorded(function) if isinstance(record, Route)), None)


def call_method(route: Route, body_kind: str) -> str:
    """The method of calls: of several, one with a body where the handler reads one."""
    with_body = [method for method in route.methods if method not in ("GET", "HEAD")]
    return with_body[0] if with_body and (body_kind or "GET" not in route.methods) else route.methods[0]


def record(function: Callable[..., Any], declared: Route | Resource) -> None:
    """Record a route or resource on its function."""
    if not hasattr(function, "__code__"):
        raise ConfigurationError(f"{function!r} is not a function; decorate the function that handles the request")
    if not hasattr(function, _RECORD):
        setattr(function, _RECORD, [])
    getattr(function, _RECORD).append(declared)
    _recorded_in.setdefault(function.__module__, []).append(function)


_recorded_in: dict[str, list[Callable[..., Any]]] = {}


def unreachable(module: types.ModuleType) -> list[Callable[..., Any]]:
    """Functions decorated at the module's top level, or in its classes, that the module has no name for any more."""
    return [
        function
        for function in _recorded_in.get(module.__name__, [])
        if getattr(function, "__globals__", None) is vars(module)  # skips functions of an earlier import of the module
        and "<locals>" not in function.__qualname__
        and not any(value is function for value in vars(module).values())
    ]
