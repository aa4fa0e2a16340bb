"""The places that fill the parameters of a function: one table, `PLACES`. The first that takes a parameter fills it.

To add a place: one entry of the table, with the function that says which parameters it takes, and the function that
makes their `Input` and their `Get`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from ..core.errors import ConfigurationError
from ..core.form_data import UploadFile
from ..core.requests import Request
from .annotations import Unresolved, comes_as_json, holds_model, is_list_of_scalars, options, without_annotated
from .form_bodies import uploaded_files, whole_form
from .inputs import Body, Get, Input
from .item_streams import is_item_stream, item_stream
from .json_bodies import decoders_of, json_body
from .markers import Form, Marker, Path, Query
from .readable_types import check_readable, unreadable
from .text_values import text_value

BodyKind = Literal["", "bytes", "json", "form", "stream"]
"""How the body is read; "" for not at all, "stream" for item by item."""


class Parameter(NamedTuple):
    """One parameter of a function, as the places see it."""

    function: Callable[..., Any]
    name: str
    annotation: Any
    default: Any
    marker: Marker | None
    """The marker in the annotation."""
    in_path: bool
    """The path of the route names it."""
    is_resource: bool
    """A resource has its name, or the service fills it by its type; it has no marker, and is not in the path."""
    has_body: bool
    """A method of the route has a body (RFC 9110, 9.3.1)."""


class Place(NamedTuple):
    """One rule of binding."""

    parameters: str
    """The parameters that it takes, in words."""
    value: str
    """The value that fills them, in words."""
    takes: Callable[[Parameter], bool]
    make: Callable[[Parameter], tuple[Input, Get | None]]
    """ConfigurationError if the annotation does not fit the place. `Get` is None where `Binder.bind` has the value."""
    body_kind: BodyKind = ""
    travels: bool = True
    """Whether the client sends the value; False: the server has it."""


# Parameters that the server fills


def is_request(name: str, annotation: Any) -> bool:
    """Whether a parameter is the request itself: by its annotation or, without one, by its name."""
    annotation = without_annotated(annotation)
    if isinstance(annotation, Unresolved) and annotation.text.rpartition(".")[2] == "Request":
        annotation = inspect.Parameter.empty
    return annotation is Request or (annotation is inspect.Parameter.empty and name == "request")


def _takes_request(parameter: Parameter) -> bool:
    return is_request(parameter.name, parameter.annotation)


def _request(parameter: Parameter) -> tuple[Input, Get]:
    return _own_input(parameter, "request"), lambda request, body: request


def _resource(parameter: Parameter) -> tuple[Input, None]:
    return _own_input(parameter, "resource"), None


def _is_made_of_request(parameter: Parameter) -> bool:
    return hasattr(without_annotated(parameter.annotation), "of_request")


def _of_request(parameter: Parameter) -> tuple[Input, Get]:
    of_request = without_annotated(parameter.annotation).of_request
    return _own_input(parameter, "of_request"), lambda request, body: of_request(request)


def _own_input(parameter: Parameter, place: str) -> Input:
    return Input(parameter.name, place, "", parameter.annotation, parameter.default, travels=False)


# Texts


def _is_in_path(parameter: Parameter) -> bool:
    return parameter.in_path


def _path(parameter: Parameter) -> tuple[Input, Get]:
    required = inspect.Parameter.empty
    return text_value(parameter.function, parameter.name, parameter.annotation, required, Path())


def _has_marker(parameter: Parameter) -> bool:
    return parameter.marker is not None


def _marked(parameter: Parameter) -> tuple[Input, Get]:
    function, name, annotation, default, marker, *_ = parameter
    assert marker is not None
    return text_value(function, name, annotation, default, marker)


def _takes_rest(parameter: Parameter) -> bool:
    return True


def _query(parameter: Parameter) -> tuple[Input, Get]:
    return text_value(parameter.function, parameter.name, parameter.annotation, parameter.default, Query())


# Forms


def _has_form_marker(parameter: Parameter) -> bool:
    return isinstance(parameter.marker, Form)


def _is_whole_form(parameter: Parameter) -> bool:
    annotation = parameter.annotation
    return _has_form_marker(parameter) and comes_as_json(annotation) and not is_list_of_scalars(annotation)


def _whole_form(parameter: Parameter) -> tuple[Input, Get]:
    return whole_form(parameter.function, parameter.name, parameter.annotation, parameter.default)


def _is_upload(parameter: Parameter) -> bool:
    found = options(parameter.annotation)
    return UploadFile in found or list[UploadFile] in found


def _upload(parameter: Parameter) -> tuple[Input, Get]:
    name, marker = parameter.name, parameter.marker
    field = marker.name if isinstance(marker, Form) and marker.name else name
    return uploaded_files(name, field, parameter.annotation, parameter.default)


# Bodies

_RAW: tuple[type[Body], ...] = (bytes, memoryview)


def _is_raw_body(parameter: Parameter) -> bool:
    return any(kind in options(parameter.annotation) for kind in _RAW)


def _raw_body(parameter: Parameter) -> tuple[Input, Get]:
    """The body as it came; `bytes` are a copy of a body that came in an arena."""
    default = parameter.default
    kind = next(each for each in _RAW if each in options(parameter.annotation))

    def get(request: Request, body: Body) -> Any:
        return kind(body) if body or default is inspect.Parameter.empty else default

    return Input(parameter.name, "bytes", "", parameter.annotation, default), get


def _is_json_body(parameter: Parameter) -> bool:
    annotation = parameter.annotation
    return comes_as_json(annotation) and (parameter.has_body or not is_list_of_scalars(annotation))


def _json_body(parameter: Parameter) -> tuple[Input, Get]:
    function, name, annotation, default, *_ = parameter
    if not holds_model(annotation):
        check_readable(function, name, annotation)
    try:
        decoders = decoders_of(annotation)
    except Exception as error:
        raise unreadable(function, name, annotation, error) from None
    return Input(name, "json", "", annotation, default), json_body(annotation, default, decoders)


def _is_item_stream(parameter: Parameter) -> bool:
    return is_item_stream(parameter.annotation)


def _item_stream(parameter: Parameter) -> tuple[Input, Get]:
    function, name, annotation, default, *_ = parameter
    if not parameter.has_body:
        raise ConfigurationError.at(
            function, f'its parameter {name} is a stream of requests, which need a body; give it methods=["POST"]'
        )
    if default is not inspect.Parameter.empty:
        raise ConfigurationError.at(function, f"its parameter {name} is a stream, which has no default; remove it")
    return Input(name, "stream", "", annotation, default), item_stream(function, name, annotation)


PLACES = (
    Place("named in the path", "that segment, converted to its annotation", _is_in_path, _path),
    Place(
        "named like a resource, without a marker, or annotated `Models`",
        "the resource, or the store of models",
        lambda parameter: parameter.is_resource,
        _resource,
        travels=False,
    ),
    Place("annotated `Request`, or named `request`", "the request", _takes_request, _request, travels=False),
    Place(
        "annotated with a class with `of_request`",
        "the result of `of_request(request)`, as for WebSocket",
        _is_made_of_request,
        _of_request,
        travels=False,
    ),
    Place(
        "`Annotated[T, Form()]`, with T a dataclass, Struct, TypedDict or attrs class",
        "the whole form",
        _is_whole_form,
        _whole_form,
        "form",
    ),
    Place("`UploadFile`, or a list of them", "the files of a field of a form", _is_upload, _upload, "form"),
    Place("any other `Annotated[T, Form()]`", "a field of a form", _has_form_marker, _marked, "form"),
    Place(
        "`Annotated[T, Query() | Header() | Cookie() | Bearer() | ApiKey()]`",
        "the value there; a missing token or key is a 401",
        _has_marker,
        _marked,
    ),
    Place(
        "annotated `bytes` or `memoryview`",
        "the raw body; as a memoryview it is never copied",
        _is_raw_body,
        _raw_body,
        "bytes",
    ),
    Place(
        "annotated `AsyncIterator[T]`, of an `async def` handler",
        "the lines of the body as they arrive, each as T (NDJSON)",
        _is_item_stream,
        _item_stream,
        "stream",
    ),
    Place(
        "a dataclass, Struct, TypedDict, attrs or pydantic class, dict, list, tuple or set",
        "the body, as JSON, or MessagePack by its Content-Type; for GET and HEAD no lists of texts or numbers",
        _is_json_body,
        _json_body,
        "json",
    ),
    Place("any other type that a text can be read as", "the query", _takes_rest, _query),
)
"""Which parameter is filled from which place: the first rule that takes it."""


def place_of(parameter: Parameter) -> Place:
    """The place that fills a parameter."""
    return next(each for each in PLACES if each.takes(parameter))
