"""Binding: a handler's signature -> the arguments that a request fills it with.

`Binder(function, ...)` reads the signature once, at start-up, and refuses what cannot be served. A request then costs
one small function per parameter. The rules are the table `PLACES` in places.py.

msgspec converts the values, and its error messages reach the client.

In a batch each parameter is a list, annotated `list[T]`, with one value for each request, bound as T by these rules;
only resources are not lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, get_args, get_origin

from ..core.errors import BindingError, ConfigurationError
from ..core.optional_libraries import missing_library
from ..core.requests import Request
from .annotations import Unresolved, hints_of, made_by_service, signature_of, unresolved_at
from .inputs import Body, Fault, Get, Input
from .markers import MARKERS, ApiKey, Bearer, marker_in
from .places import BodyKind, Parameter, is_request, place_of
from .results import stream_type_of

_BEFORE_BODY = frozenset({"path", "query", "header", "cookie"})
"""Places that are known before the body has come."""


class Binder:
    """Fills the parameters of one function.

    Args:
        function: A handler, or the function of a resource that is opened for each request.
        path_parameters: The names in the route's path.
        resources: The names of the resources; `bind` takes their values.
        batched: Whether `bind` makes one request's share of a batch: an item for each list.
        has_body: False for routes of GET and HEAD only: lists of texts or numbers then come from the query.

    Raises:
        ConfigurationError: The signature cannot be served.

    `inputs` says where each parameter comes from, in the order of the signature. `body_kind` is how `bind` reads the
    body; "" for not at all. `stream_type` is the content type of the stream that the function yields, as far as its
    annotation shows it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        path_parameters: Collection[str] = (),
        resources: Collection[str] = (),
        *,
        batched: bool = False,
        has_body: bool = True,
    ) -> None:
        self.function = function
        self.body_kind: BodyKind = ""
        self.resources: list[str] = []
        self.inputs: list[Input] = []
        self._gets: list[tuple[str, Get]] = []
        self._before_body: list[tuple[Input, Get]] = []
        self._body_parameter = ""
        self.stream_type = stream_type_of(hints_of(function).get("return"))
        parameters = self.parameters = signature_of(function)
        for name in path_parameters:
            if name not in parameters:
                raise ConfigurationError.at(
                    function, f"the path has {{{name}}}, but the function has no parameter {name}; add it or rename one"
                )
        for name, parameter in parameters.items():
            in_path = name in path_parameters
            is_named = name in resources or made_by_service(parameter.annotation) is not None
            is_resource = is_named and not in_path and marker_in(parameter.annotation) is None
            annotation = self._annotation_of(parameter, in_path, batched and not is_resource)
            marker = marker_in(annotation)
            self._fill(Parameter(function, name, annotation, parameter.default, marker, in_path, is_resource, has_body))
        if batched and not self._gets:
            raise ConfigurationError.at(
                function,
                "has batch=, but no parameter is a list, so the number of requests in a batch is unknown; "
                "take a list, as in requests: list[Request]",
            )

    def _annotation_of(self, parameter: inspect.Parameter, in_path: bool, batched: bool) -> Any:
        """The annotation of the value that one request fills."""
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigurationError.at(
                self.function,
                f"the parameter {parameter} cannot be filled by its name; replace it by parameters with names",
            )
        if batched:
            return self._item_of_batch(parameter)
        return str if in_path and parameter.annotation is parameter.empty else parameter.annotation

    def _item_of_batch(self, parameter: inspect.Parameter) -> Any:
        """The annotation of an item of the list."""
        if isinstance(parameter.annotation, Unresolved):
            raise unresolved_at(self.function, parameter.name, parameter.annotation)
        items = get_args(parameter.annotation)
        if get_origin(parameter.annotation) is not list or parameter.default is not parameter.empty:
            name = parameter.name
            raise ConfigurationError.at(
                self.function,
                f"with batch= a parameter is a list with a value for each request, and has no default; annotate it as "
                f"{name}: list[...] with an optional type inside, or declare a resource {name}",
            )
        return items[0]

    @property
    def takes_request(self) -> bool:
        """Whether a parameter is the request itself."""
        return any(each.place == "request" for each in self.inputs)

    @property
    def headers(self) -> list[str]:
        """The headers that parameters are filled from."""
        places = [(each.place, each.field) for each in self.inputs if each.place in ("header", "cookie")]
        return [field if place == "header" else "cookie" for place, field in places]

    def bind(self, request: Request, body: Body, resources: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name. BindingError with every fault; HTTPError 400 or 415 for a body that is not JSON."""
        arguments: dict[str, Any] = {}
        faults: list[tuple[str, str]] = []
        for name, get in self._gets:
            try:
                arguments[name] = get(request, body)
            except Fault as fault:
                faults += fault.faults
        if faults:
            raise BindingError(faults)
        for name in self.resources:
            arguments[name] = resources[name]
        return arguments

    def _fill(self, parameter: Parameter) -> None:
        """Find the place of a parameter, and how its value is read there."""
        name, place = parameter.name, place_of(parameter)
        if place.travels:
            self._check_parameter(name, parameter.annotation, parameter.default)
        if place.body_kind:
            self._claim_body(name, place.body_kind)
        filled, get = place.make(parameter)
        self.inputs.append(filled)
        if get is None:
            self.resources.append(name)
            return
        self._gets.append((name, get))
        if filled.place in _BEFORE_BODY:
            self._before_body.append((filled, get))

    def _check_parameter(self, name: str, annotation: Any, default: Any) -> None:
        if isinstance(annotation, Unresolved):
            raise unresolved_at(self.function, name, annotation)
        if annotation is inspect.Parameter.empty:
            usual = {"job": "Job", "request": "Request"}.get(name, "str")
            raise ConfigurationError.at(
                self.function,
                f"nothing fills the parameter {name}: it is not in the path, no resource has its name, and it has no "
                f"annotation; annotate it, as in {name}: {usual}, or declare a resource {name}",
            )
        if isinstance(default, MARKERS) or default in MARKERS:
            marker_name = getattr(default, "__name__", type(default).__name__)
            remedy = f"{name}: Annotated[str, {marker_name}()]"
            raise ConfigurationError.at(self.function, f"{name} has {default!r} as its default; write it as {remedy}")

    def _claim_body(self, name: str, kind: BodyKind) -> None:
        if self._body_parameter and not kind == self.body_kind == "form":
            raise ConfigurationError.at(
                self.function,
                f"both {self._body_parameter} and {name} take the body; "
                "put them into one dataclass, or annotate one of them with Annotated[..., Query()]",
            )
        if kind == "form" and (missing := missing_library("multipart")):
            raise ConfigurationError.at(self.function, missing)
        self._body_parameter, self.body_kind = name, kind


class HeadCheck:
    """Checks the parameters of several functions that need no body, before any of the functions is called."""

    def __init__(self, binders: Iterable[Binder]) -> None:
        taken = [each for binder in binders for each in binder._before_body]
        taken.sort(key=lambda each: not isinstance(each[0].marker, (Bearer, ApiKey)))
        self._gets = [get for _, get in taken]

    def __call__(self, request: Request) -> None:
        """BindingError with every fault. HTTPError 401 comes first: without a token a client learns nothing else."""
        faults: list[tuple[str, str]] = []
        for get in self._gets:
            try:
                get(request, b"")
            except Fault as fault:
                faults += fault.faults
        if faults:
            raise BindingError(list(dict.fromkeys(faults)))  # two functions may read one value


def fills_resource(parameter: inspect.Parameter) -> bool:
    """Whether the request fills this parameter of a resource without a marker."""
    annotation = parameter.annotation
    return is_request(parameter.name, annotation) or getattr(annotation, "for_resources", False)
