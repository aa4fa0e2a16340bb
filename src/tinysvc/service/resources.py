"""Resources: what handlers ask for by name, opened in the order of need and closed in reverse.

    once          a cpu_resource in each worker, before its first request; an io_resource when the server starts
    of a request  an io_resource that takes something of the request, or asks for one that does: opened for every
                  request whose handler needs it, closed when that is answered, after the last piece of a stream

A cpu handler is given the resources of its request by value: they are opened on the event loop and sent to the worker.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

from ..binding.annotations import Unresolved, signature_of, unresolved_at
from ..binding.binder import Binder, fills_resource
from ..binding.markers import Form, marker_in
from ..core.errors import ConfigurationError
from .routes import Given, Resource

log = logging.getLogger("tinysvc")

Resources = Mapping[str, Resource]


def in_order(names: Iterable[str], resources: Resources) -> dict[str, Resource]:
    """These resources and all that they need, each behind what it needs.

    ConfigurationError for a circle, a parameter that nothing fills, and a shared one that needs one that is not.
    """
    ordered: dict[str, Resource] = {}

    def add(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circle = " -> ".join((*way[way.index(name) :], name))
            raise ConfigurationError.at(resources[name].function, f"these resources need each other: {circle}; cut one")
        if name not in ordered:
            for need in needs_of(resources[name], resources):
                add(need, (*way, name))
            ordered[name] = resources[name]

    for name in names:
        add(name, ())
    return ordered


def names_per_request(ordered: Resources) -> set[str]:
    """Which of them are opened for every request. `ordered` is as `in_order` returns it."""
    found: set[str] = set()
    for name, resource in ordered.items():
        needs = needs_of(resource, ordered)
        takes_more = len(needs) < len(inspect.signature(resource.function).parameters)
        if resource.per_request or takes_more or any(each in found for each in needs):
            found.add(name)
    return found


def needs_of(resource: Resource, resources: Resources) -> list[str]:
    """The resources that it asks for by name. ConfigurationError for a parameter that nothing fills."""
    if isinstance(resource.function, Given) or not inspect.signature(resource.function).parameters:
        return []  # whose annotation of what it returns nobody needs
    needs = []
    for name, parameter in signature_of(resource.function).items():
        other = resources.get(name)
        if resource.kind == "io" and marker_in(parameter.annotation) is not None:
            _check_no_body(resource, parameter)
        elif other is not None and other.kind == resource.kind:
            _check_shared(resource, other)
            needs.append(name)
        elif resource.kind == "cpu" or not fills_resource(parameter):
            if isinstance(parameter.annotation, Unresolved):
                raise unresolved_at(resource.function, name, parameter.annotation)
            raise ConfigurationError.at(
                resource.function, f"nothing fills its parameter {parameter}: {_remedy(resource, other)}"
            )
    return needs


def _remedy(resource: Resource, other: Resource | None) -> str:
    if resource.kind == "io" and other is not None:
        return "that is a cpu_resource, which is opened in the workers; make it an io_resource, or ask for it there"
    if resource.kind == "cpu":
        return "a cpu_resource is opened once in each worker and can ask for other cpu_resources only"
    return (
        "there is no io_resource of this name; declare one, or take something of the request: request, "
        "or a parameter annotated with Header(), Cookie(), Query(), Bearer() or ApiKey()"
    )


def read_by(resources: Resources, known: Set[str]) -> tuple[list[str], bool]:
    """The headers that the resources of a request read, and whether they may read more, as with the Request."""
    binders = binders_of(resources, known)
    return [name for each in binders for name in each.headers], any(each.takes_request for each in binders)


def binders_of(resources: Resources, known: Set[str]) -> list[Binder]:
    """Those of the resources of a request that are functions."""
    return [Binder(each.function, (), known) for each in resources.values() if not isinstance(each.function, Given)]


def _check_shared(resource: Resource, other: Resource) -> None:
    if resource.shared and not other.shared:
        raise ConfigurationError.at(
            resource.function,
            f"is shared, and so opened before the workers are there; {other.name}, which it asks for, is opened in "
            f"each of them: make that @cpu_resource(shared=True) too",
        )


def _check_no_body(resource: Resource, parameter: inspect.Parameter) -> None:
    if isinstance(marker_in(parameter.annotation), Form):
        raise ConfigurationError.at(
            resource.function, f"{parameter} is of the body, which is the handler's; take the form in the handler"
        )


# How a resource is opened


def open_resource(stack: ExitStack | AsyncExitStack, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The value of a resource: the result of a plain function, or the item of a generator, which `stack` ends.

    The code behind the `yield` sees no error: it runs whatever else has failed.
    """
    if not inspect.isgeneratorfunction(function):
        return function(**arguments)
    context = contextmanager(function)(**arguments)
    value = context.__enter__()
    stack.callback(context.__exit__, None, None, None)
    return value


def resource_key(
    function: Callable[..., Any], keys: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The key of a resource, and the arguments of its function.

    Resources with the same function and the same arguments have the same key, and are opened once. `keys` and `values`
    belong to the resources that were opened before, by name.
    """
    needs = inspect.signature(function).parameters
    return (function, *[keys[name] for name in needs]), {name: values[name] for name in needs}
