"""Resources, which handlers take by name: which ones a route needs, and in which order they are opened.

    once         a cpu_resource in each worker, before its first job; an io_resource when the server starts
    per request  an io_resource that takes a part of the request, or another such resource: opened for each request
                 whose handler needs it, closed after its response, for a stream after the last chunk

Each resource is opened after the resources that it needs, and closed before them. A cpu handler takes the resources of
its request by value: they are opened on the event loop and sent to the worker.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

from ..binding.annotations import Unresolved, made_by_service, signature_of, unresolved_at
from ..binding.binder import Binder, fills_resource
from ..binding.markers import Form, marker_in
from ..core.errors import ConfigurationError
from .artifact_parameters import artifacts_of, check_artifact
from .routes import Given, Resource

log = logging.getLogger("tinysvc")

Resources = Mapping[str, Resource]


def in_order(names: Iterable[str], resources: Resources) -> dict[str, Resource]:
    """These resources and all resources that they need, in the order in which they are opened.

    ConfigurationError for a cycle, for a parameter that nothing fills, and for a shared resource that needs one that
    is not shared.
    """
    ordered: dict[str, Resource] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            cycle = " -> ".join((*path[path.index(name) :], name))
            raise ConfigurationError.at(
                resources[name].function, f"these resources need each other: {cycle}; remove one of these parameters"
            )
        if name not in ordered:
            for need in needs_of(resources[name], resources):
                add(need, (*path, name))
            ordered[name] = resources[name]

    for name in names:
        add(name, ())
    return ordered


def names_per_request(ordered: Resources) -> set[str]:
    """The names of the resources that are opened for each request. `ordered` is a result of `in_order`."""
    found: set[str] = set()
    for name, resource in ordered.items():
        needs = needs_of(resource, ordered)
        takes = inspect.signature(resource.function).parameters.keys()
        filled = made_parameters(resource.function).keys() | artifacts_of(resource.function).keys()
        takes_more = bool(takes - needs - filled)
        if resource.per_request or takes_more or any(each in found for each in needs):
            found.add(name)
    return found


def needs_of(resource: Resource, resources: Resources) -> list[str]:
    """The names of the resources that it takes. ConfigurationError for a parameter that nothing fills."""
    if isinstance(resource.function, Given) or not inspect.signature(resource.function).parameters:
        return []  # its return annotation need not be resolvable
    needs = []
    for name, parameter in signature_of(resource.function).items():
        other = resources.get(name)
        if check_artifact(resource, parameter):
            continue
        if resource.kind == "io" and marker_in(parameter.annotation) is not None:
            _check_no_body(resource, parameter)
        elif other is not None and other.kind == resource.kind:
            _check_shared(resource, other)
            needs.append(name)
        elif made_by_service(parameter.annotation) is not None:
            _check_not_shared(resource, parameter)
        elif resource.kind == "cpu" or not fills_resource(parameter):
            if isinstance(parameter.annotation, Unresolved):
                raise unresolved_at(resource.function, name, parameter.annotation)
            raise ConfigurationError.at(
                resource.function, f"nothing fills its parameter {parameter}: {_remedy(resource, other)}"
            )
    return needs


def made_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters that the service fills once, and the classes of their values."""
    if isinstance(function, Given) or not inspect.signature(function).parameters:
        return {}
    found = {name: made_by_service(each.annotation) for name, each in signature_of(function).items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def _remedy(resource: Resource, other: Resource | None) -> str:
    if resource.kind == "io" and other is not None:
        return "that is a cpu_resource, opened in the workers; make it an io_resource, or this one a cpu_resource"
    if resource.kind == "cpu":
        return "a cpu_resource is opened once in each worker and takes other cpu_resources and artifacts only"
    return (
        "there is no io_resource of this name; declare one, or take a part of the request: request, "
        "or a parameter annotated with Header(), Cookie(), Query(), Bearer() or ApiKey()"
    )


def read_by(resources: Resources, known: Set[str]) -> tuple[list[str], bool]:
    """The headers that the resources of a request read, and whether one takes the Request and may read others."""
    binders = binders_of(resources, known)
    return [name for each in binders for name in each.headers], any(each.takes_request for each in binders)


def binders_of(resources: Resources, known: Set[str]) -> list[Binder]:
    """The binders of the resources of a request. Given resources need none."""
    return [Binder(each.function, (), known) for each in resources.values() if not isinstance(each.function, Given)]


def _check_shared(resource: Resource, other: Resource) -> None:
    if resource.shared and not other.shared:
        raise ConfigurationError.at(
            resource.function,
            f"is shared, so it is opened before the workers start, but it takes {other.name}, which is opened in each "
            f"worker; make {other.name} a @cpu_resource(shared=True), too",
        )


def _check_not_shared(resource: Resource, parameter: inspect.Parameter) -> None:
    if resource.shared:
        raise ConfigurationError.at(
            resource.function,
            f"is shared, so it is opened before the workers are forked, and {parameter} may start threads, which do "
            "not survive that; leave out shared=True, or take the files of a version by Annotated[Path, Artifact(...)]",
        )


def _check_no_body(resource: Resource, parameter: inspect.Parameter) -> None:
    if isinstance(marker_in(parameter.annotation), Form):
        raise ConfigurationError.at(
            resource.function,
            f"{parameter} takes the body, which only the handler may read; take the form in the handler",
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
