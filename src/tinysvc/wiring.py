"""What each route needs, found and checked before anything runs: a mistake is said at start-up, with its remedy."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any, NamedTuple, get_args

from .annotations import hints_of, signature_of, without_annotated
from .background import Background
from .binding import Binder, Input, is_stream
from .endpoints import Endpoint
from .errors import ConfigurationError
from .places import ApiKey, Bearer, marker_in
from .resources import binders_of, in_order, of_request
from .routing import Given, Resource, Route, recorded
from .service import Mounted
from .settings import Settings
from .websocket import WebSocket, missing_library


class Wiring(NamedTuple):
    """A route with all that it needs; resources in the order of need."""

    mounted: Mounted
    binder: Binder
    worker: dict[str, Resource]
    """cpu resources."""
    once: dict[str, Resource]
    """io resources that the server opens once."""
    of_request: dict[str, Resource]
    """io resources that are opened for every request."""


def wiring_of(mounted: Mounted) -> Wiring:
    """ConfigurationError if the handler cannot be served."""
    route, resources = mounted.route, mounted.service.resources
    named = [
        name
        for name, parameter in signature_of(route.function).items()
        if name not in route.parameters and marker_in(parameter.annotation) is None
    ]
    _check_none_forgotten(mounted, named)
    asked = [name for name in named if name in resources]
    own = in_order([name for name in asked if resources[name].kind == route.kind], resources)
    others = in_order([name for name in asked if resources[name].kind == "io" != route.kind], resources)
    sent = of_request(others)
    for name in asked:
        if name not in own and name not in sent:
            raise _on_the_other_side(mounted, name)
    _check_can_finish(route)
    binder = Binder(
        route.function, route.parameters, asked, batched=route.batch is not None, has_body=has_body(route.methods)
    )
    on_loop = own if route.kind == "io" else in_order([name for name in asked if name in sent], resources)
    each = of_request(on_loop)
    return Wiring(
        mounted,
        binder,
        own if route.kind == "cpu" else {},
        {name: resource for name, resource in on_loop.items() if name not in each},
        {name: resource for name, resource in on_loop.items() if name in each},
    )


def takes(kind: type, wiring: Wiring) -> bool:
    """Whether the handler, or a resource of its requests, has a parameter of this type."""
    functions = [wiring.mounted.route.function, *(each.function for each in wiring.of_request.values())]
    return any(_has_parameter(function, kind) for function in functions if not isinstance(function, Given))


def _has_parameter(function: Callable[..., Any], kind: type) -> bool:
    return any(kind in (each.annotation, *get_args(each.annotation)) for each in signature_of(function).values())


def credentials_of(wiring: Wiring) -> list[str]:
    """The headers in which the handler, or a resource of its requests, takes a token or a key."""
    binders = [wiring.binder, *binders_of(wiring.of_request, {*wiring.once, *wiring.of_request})]
    inputs = [each for binder in binders for each in binder.inputs if each.place in ("header", "cookie")]
    names = ["cookie" if each.place == "cookie" else each.field.lower() for each in inputs if _is_credential(each)]
    return list(dict.fromkeys(names))


def _is_credential(taken: Input) -> bool:
    return isinstance(taken.marker, (Bearer, ApiKey)) or taken.field.lower() == "authorization"


def _check_can_finish(route: Route) -> None:
    """A stream cannot finish without its client: a disconnect closes it at its next piece."""
    function = route.function
    makes_stream = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if route.on_disconnect == "finish" and (makes_stream or is_stream(hints_of(function).get("return"))):
        raise ConfigurationError.at(
            function,
            'has on_disconnect="finish", but it streams, and a stream is closed when its client disconnects; leave '
            "on_disconnect out, and do what must be finished in a task: background: Background",
        )


def _check_none_forgotten(mounted: Mounted, names: list[str]) -> None:
    """Else the client would fill what its module has as a resource: `user: User` from the body, say."""
    function = mounted.route.function
    for name in names:
        if name in mounted.service.resources:
            continue
        for each in recorded(function.__globals__.get(name)):
            if isinstance(each, Resource):
                remedy = f"name it too, as in Service({function.__name__}, {name}), or rename one of the two"
                if each.name != name:
                    remedy = f"call the parameter {each.name}, as the resource is called"
                raise ConfigurationError.at(
                    function,
                    f"its parameter {name} is a resource of its module, but none of this service by that name, so that "
                    f"the client would fill it; {remedy}",
                )


def _on_the_other_side(mounted: Mounted, name: str) -> ConfigurationError:
    route, kind = mounted.route, mounted.service.resources[name].kind
    where = "on the event loop" if route.kind == "io" else "in a worker process"
    return ConfigurationError.at(
        route.function,
        f"{name} comes from @{kind}_resource, but this handler runs {where}; use @{route.kind}_resource for it, "
        "or rename the parameter, if it is the client's",
    )


def socket_parameter(wiring: Wiring) -> str:
    """The name of the parameter that takes the WebSocket; "" if there is none."""
    route, binder = wiring.mounted.route, wiring.binder
    sockets = [name for name, each in binder.parameters.items() if without_annotated(each.annotation) is WebSocket]
    name = sockets[0] if sockets else ""
    if name and (route.methods != ("GET",) or not inspect.iscoroutinefunction(route.function) or binder.body_kind):
        raise ConfigurationError.at(
            route.function, "takes a WebSocket, which begins with a GET without a body: make it async def, for GET only"
        )
    if name and route.timeout:
        raise ConfigurationError.at(route.function, "takes a WebSocket, which is open for long; leave out timeout")
    if name and (missing := missing_library()):
        raise ConfigurationError.at(route.function, missing)
    return name


def endpoint_of(wiring: Wiring, settings: Settings) -> Endpoint:
    """A cpu route as its workers need it. ConfigurationError for what they cannot import, or that needs the loop."""
    mounted, route = wiring.mounted, wiring.mounted.route
    function = route.function
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError.at(
            function, "is async, but @cpu_route runs it in a worker, where nothing else waits; make it a plain def"
        )
    if _has_parameter(function, WebSocket):
        raise ConfigurationError.at(
            function, "takes a WebSocket, which lives on the event loop; use @io_route, and await cpu(...) in it"
        )
    if _has_parameter(function, Background):
        raise ConfigurationError.at(
            function,
            "takes Background, but @cpu_route runs it in a worker, and the tasks run on the event loop of the server; "
            "take it in an @io_route, and await cpu(...) in it, or in an @io_resource of the request",
        )
    resources = {name: resource.function for name, resource in wiring.worker.items()}
    in_thread = not settings.cpu_workers and not isinstance(settings.pools.get(route.pool), Executor)
    for needed in () if in_thread else (function, *resources.values(), *mounted.error_handlers.values()):
        _check_picklable(needed) if isinstance(needed, Given) else _check_importable(needed)
    return Endpoint(
        function,
        route.parameters,
        resources,
        frozenset(name for name, resource in wiring.worker.items() if resource.shared),
        route.batch,
        mounted.path,
        settings.compress,
        max_body_size(mounted, settings),
        frozenset(wiring.of_request.keys() & wiring.binder.resources),
        dict(mounted.error_handlers),
        has_body(route.methods),
    )


def has_body(methods: Iterable[str]) -> bool:
    """Whether a request with one of these methods may have a body that means something (RFC 9110, 9.3.1)."""
    return any(method not in ("GET", "HEAD") for method in methods)


def max_body_size(mounted: Mounted, settings: Settings) -> int:
    size = mounted.route.max_body_size
    return settings.max_body_size if size is None else size


def _check_picklable(given: Given) -> None:
    try:
        pickle.dumps(given)
    except Exception as error:
        raise ConfigurationError(
            f"what overrides a cpu_resource, {given.value!r}, cannot be sent to a worker: {error}; "
            "give a function at a module's top level, which opens it there"
        ) from None


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


def check(mounted: Mounted) -> None:
    """ConfigurationError for what can be known to be wrong with a route before anything is open."""
    wiring = wiring_of(mounted)
    if mounted.route.kind == "cpu":
        endpoint_of(wiring, Settings())
    else:
        socket_parameter(wiring)
