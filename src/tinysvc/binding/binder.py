"""Binding: a handler's signature -> the arguments that a request fills it with.

`Binder(function, ...)` reads the signature once, at start-up, and refuses what cannot be served. A request then costs
one small function per parameter. The rules, the first that applies:

    annotated `Request`, or named `request`      the request
    annotated with a class with `of_request`     what `of_request(request)` returns, as for WebSocket
    named in the path                            that segment, converted to its annotation
    named like a resource, without a marker      the resource
    Annotated[T, Query() | Header() | Cookie()]  that place; also Bearer() and ApiKey(), with a 401 if it is missing
    `UploadFile`, or a list of them              the files of a form
    Annotated[T, Form()]                         a field of a form; the whole form if T is a dataclass or the like
    annotated `bytes` or `memoryview`            the raw body; as a memoryview it is never copied
    a dataclass, Struct, TypedDict, attrs or     the body, as JSON (or MessagePack by its Content-Type)
    pydantic class, dict, list, tuple, set
    any other type that a text can be read as    the query; for GET and HEAD also a list of such types

msgspec converts the values, and its error messages reach the client.

In a batch each parameter is a list, annotated `list[T]`, with one value for each request, bound as T by these rules;
only resources are not lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from ..core.errors import BindingError, ConfigurationError
from ..core.form_data import UploadFile
from ..core.multipart_reader import missing_library
from ..core.requests import Request
from .annotations import (
    Unresolved,
    comes_as_json,
    hints_of,
    holds_model,
    is_list_of_scalars,
    options,
    signature_of,
    unresolved_at,
    without_annotated,
)
from .form_bodies import uploaded_files, whole_form
from .inputs import Body, Fault, Get, Input
from .json_bodies import decoders_of, json_body
from .markers import MARKERS, ApiKey, Bearer, Form, Path, Query, marker_in
from .readable_types import check_readable, unreadable
from .results import stream_type_of
from .text_values import text_value

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

    `body_kind` is how `bind` reads the body; "" for not at all. `stream_type` is the content type of the stream that
    the function yields, as far as its annotation shows it.
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
        self.body_kind: Literal["", "bytes", "json", "form"] = ""
        self.resources: list[str] = []
        self.takes_request = False
        self._has_body = has_body
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
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise ConfigurationError.at(
                    function,
                    f"the parameter {parameter} cannot be filled by its name; replace it by parameters with names",
                )
            if name in resources and name not in path_parameters and marker_in(parameter.annotation) is None:
                self.resources.append(name)
            else:
                filled = self._item_of_batch(parameter) if batched else parameter
                get = self._get(name, filled, name in path_parameters)
                self._gets.append((name, get))
                if self.inputs and self.inputs[-1].parameter == name and self.inputs[-1].place in _BEFORE_BODY:
                    self._before_body.append((self.inputs[-1], get))
        if batched and not self._gets:
            raise ConfigurationError.at(
                function,
                "has batch=, but no parameter is a list, so the number of requests in a batch is unknown; "
                "take a list, as in requests: list[Request]",
            )

    def _item_of_batch(self, parameter: inspect.Parameter) -> inspect.Parameter:
        """The parameter as one request of the batch fills it."""
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
        return parameter.replace(annotation=items[0])

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

    def _get(self, name: str, parameter: inspect.Parameter, in_path: bool) -> Get:
        """The function that fills a parameter, by the rules of this module's docstring."""
        annotation, default = parameter.annotation, parameter.default
        if is_request(parameter) and not in_path:
            self.takes_request = True
            return lambda request, body: request
        if isinstance(annotation, Unresolved):
            raise unresolved_at(self.function, name, annotation)
        if of_request := getattr(without_annotated(annotation), "of_request", None):
            return lambda request, body: of_request(request)
        if annotation is parameter.empty and in_path:
            annotation = str
        self._check_parameter(name, annotation, default)
        if in_path:
            return self._takes(text_value(self.function, name, annotation, parameter.empty, Path()))
        marker = marker_in(annotation)
        if isinstance(marker, Form) and comes_as_json(annotation) and not is_list_of_scalars(annotation):
            self._claim_body(name, "form")
            return self._takes(whole_form(self.function, name, annotation, default))
        if UploadFile in (taken := options(annotation)) or list[UploadFile] in taken:
            field = marker.name if isinstance(marker, Form) and marker.name else name
            self._claim_body(name, "form")
            return self._takes(uploaded_files(name, field, annotation, default))
        if marker is not None:
            if isinstance(marker, Form):
                self._claim_body(name, "form")
            return self._takes(text_value(self.function, name, annotation, default, marker))
        for kind in _RAW:
            if kind in options(annotation):
                self._claim_body(name, "bytes")
                return self._takes((Input(name, "bytes", "", annotation, default), _raw_body(kind, default)))
        if comes_as_json(annotation) and (self._has_body or not is_list_of_scalars(annotation)):
            self._claim_body(name, "json")
            return self._takes((Input(name, "json", "", annotation, default), self._json(name, annotation, default)))
        return self._takes(text_value(self.function, name, annotation, default, Query()))

    def _takes(self, made: tuple[Input, Get]) -> Get:
        self.inputs.append(made[0])
        return made[1]

    def _check_parameter(self, name: str, annotation: Any, default: Any) -> None:
        if annotation is inspect.Parameter.empty:
            raise ConfigurationError.at(
                self.function,
                f"nothing fills the parameter {name}: it is not in the path, no resource has its name, and it has no "
                f"annotation; annotate it, as in {name}: str, or declare a resource {name}",
            )
        if isinstance(default, MARKERS) or default in MARKERS:
            marker_name = getattr(default, "__name__", type(default).__name__)
            remedy = f"{name}: Annotated[str, {marker_name}()]"
            raise ConfigurationError.at(self.function, f"{name} has {default!r} as its default; write it as {remedy}")

    def _claim_body(self, name: str, kind: Literal["bytes", "json", "form"]) -> None:
        if self._body_parameter and not kind == self.body_kind == "form":
            raise ConfigurationError.at(
                self.function,
                f"both {self._body_parameter} and {name} take the body; "
                "put them into one dataclass, or annotate one of them with Annotated[..., Query()]",
            )
        if kind == "form" and (missing := missing_library()):
            raise ConfigurationError.at(self.function, missing)
        self._body_parameter, self.body_kind = name, kind

    def _json(self, name: str, annotation: Any, default: Any) -> Get:
        if not holds_model(annotation):
            check_readable(self.function, name, annotation)
        try:
            decoders = decoders_of(annotation)
        except Exception as error:
            raise unreadable(self.function, name, annotation, error) from None
        return json_body(annotation, default, decoders)


_RAW: tuple[type[Body], ...] = (bytes, memoryview)


def _raw_body(kind: type[Body], default: Any) -> Get:
    """The body as it came; `bytes` are a copy of a body that came in an arena."""
    return lambda request, body: kind(body) if body or default is inspect.Parameter.empty else default


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


def is_request(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is the request itself: by its annotation or, without one, by its name."""
    annotation = without_annotated(parameter.annotation)
    if isinstance(annotation, Unresolved) and annotation.text.rpartition(".")[2] == "Request":
        annotation = parameter.empty
    return annotation is Request or (annotation is parameter.empty and parameter.name == "request")


def fills_resource(parameter: inspect.Parameter) -> bool:
    """Whether the request fills this parameter of a resource without a marker."""
    return is_request(parameter) or getattr(parameter.annotation, "for_resources", False)
