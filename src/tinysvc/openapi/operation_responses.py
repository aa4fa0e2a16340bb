"""The responses of an operation in OpenAPI: its results, the framework's errors, and the option `responses`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from http.client import responses as phrases
from typing import Any, Union, get_args

from ..binding.annotations import comes_as_json, is_list_of_scalars, options, without_annotated
from ..binding.inputs import Input
from ..binding.results import is_stream
from ..binding.schemas import ANYTHING, BINARY, REF, Schema, Schemas
from ..core.responses import EVENTS, JSON, NDJSON, OCTETS, PROBLEM, TEXT, Response
from ..core.settings import Settings
from ..core.sse import EventStream
from ..service.plan import Plan
from ..web.websocket_route import socket_parameter
from .operation import execution, result_type
from .operation_requests import is_credential

PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Each invalid value of the request.",
            "items": {
                "type": "object",
                "properties": {"place": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["place", "detail"],
            },
        },
    },
    "required": ["type", "title", "status"],
}

EVENT_SCHEMA: Schema = {
    "type": "object",
    "title": "Event",
    "description": "One event of the stream (HTML, 9.2).",
    "properties": {**{name: {"type": "string"} for name in ("event", "data", "id")}, "retry": {"type": "integer"}},
}

DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "Credentials are missing or invalid.",
    403: "The WebSocket was refused.",
    413: "The request body is too large.",
    415: "The request body has an unsupported content type.",
    422: "The request has missing or invalid values: `errors` lists each of them.",
    426: "This path accepts WebSocket connections only.",
    503: "The service is overloaded: try again after the time in `Retry-After`.",
    504: "The request exceeded its deadline and was stopped.",
}


def responses_of(plan: Plan, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    """The responses by status, in order."""
    declared = dict(plan.route.about.get("responses", {}))
    found = {status: problem(DESCRIPTIONS[status], schemas) for status in _error_statuses(plan, settings)}
    if socket_parameter(plan):
        found[101] = {"description": "The WebSocket is open."}
    elif not any(status < 300 for status in declared):
        found |= results_of(plan, schemas)
    for status, declaration in declared.items():
        found[int(status)] = _declared(status, declaration, found.get(status, {}), plan, schemas)
    return {str(status): found[status] for status in sorted(found)}


def _declared(
    status: int, declaration: Any, default: Mapping[str, Any], plan: Plan, schemas: Schemas
) -> dict[str, Any]:
    """A response of the option `responses`: a sentence, the type of the body, or None.

    A type is added to the content of the `default` response of that status.
    """
    if declaration in (None, type(None)):
        return {"description": phrases.get(status, str(status))}
    if not isinstance(declaration, str):
        content = {**default.get("content", {}), JSON: {"schema": schemas.of(declaration)}}
        return {"description": default.get("description") or phrases.get(status, str(status)), "content": content}
    if status >= 400:
        return problem(declaration, schemas)
    content = _content(plan, schemas) if status < 300 and status != 204 else {}
    return {"description": declaration, **({"content": content} if content else {})}


def results_of(plan: Plan, schemas: Schemas) -> dict[int, Any]:
    """The responses for the types that the handler returns."""
    found: dict[int, Any] = {}
    if type(None) in options(result_type(plan.route)):
        found[204] = {"description": "Success, without a response body."}
    if content := _content(plan, schemas):
        found[200] = {"description": "Success.", "content": content}
    return found


def _result_types(plan: Plan) -> list[Any]:
    return [kind for kind in options(result_type(plan.route)) if kind is not type(None)]


def _content(plan: Plan, schemas: Schemas) -> dict[str, Any]:
    kinds = _result_types(plan)
    found: dict[str, list[Schema]] = {}
    for media, schema in [_media(kind, plan, schemas) for kind in kinds]:
        found.setdefault(media, []).append(schema)
    if list(found) == [JSON] and len(kinds) > 1 and (whole := schemas.of(_union(kinds))):
        return {JSON: {"schema": whole}}  # the same schema as of a body, with the discriminator of the union
    return {media: {"schema": each[0] if len(each) == 1 else {"anyOf": each}} for media, each in found.items()}


_MEDIA: dict[Any, str] = {str: TEXT, bytes: OCTETS, bytearray: OCTETS, memoryview: OCTETS}


def _media(kind: Any, plan: Plan, schemas: Schemas) -> tuple[str, Schema]:
    """The content type and the schema of a result."""
    kind = without_annotated(kind)
    if isinstance(kind, type) and issubclass(kind, EventStream):
        return _without_parameters(EVENTS), _items(EVENTS, EVENT_SCHEMA)
    if is_stream(kind):
        media = _without_parameters(plan.binder.stream_type) or "*/*"
        return media, _stream(plan, schemas)
    if kind in (inspect.Parameter.empty, Any, object):
        return "*/*", ANYTHING
    if isinstance(kind, type) and issubclass(kind, Response):
        return "*/*", BINARY  # only the handler knows the content type: generated clients take the bytes
    if kind in _MEDIA:
        return _without_parameters(_MEDIA[kind]), {"type": "string"} if kind is str else BINARY
    return JSON, schemas.of(kind)


def _stream(plan: Plan, schemas: Schemas) -> Schema:
    """The schema of a stream, with that of one item if its content type has items."""
    media = _without_parameters(plan.binder.stream_type)
    if media == NDJSON:
        return _items(NDJSON, schemas.of(_line_type(plan)))
    if media == _without_parameters(EVENTS):
        return _items(EVENTS, EVENT_SCHEMA)
    return BINARY if media == OCTETS else {"type": "string"}


def _items(media_type: str, item: Schema) -> Schema:
    """A text whose items have a schema (JSON Schema 2020-12, contentSchema): generated clients take the text."""
    return {"type": "string", "contentMediaType": _without_parameters(media_type), "contentSchema": item}


def _line_type(plan: Plan) -> Any:
    """The type of one line of a stream of JSON lines."""
    is_lines = plan.binder.stream_type == NDJSON
    return get_args(without_annotated(result_type(plan.route)))[0] if is_lines else Any


def _without_parameters(media_type: str) -> str:
    return media_type.partition(";")[0]


def problem(description: str, schemas: Schemas) -> dict[str, Any]:
    reference = {"$ref": REF.format(name=problem_name(schemas))}
    return {"description": description, "content": {PROBLEM: {"schema": reference}}}


def problem_name(schemas: Schemas) -> str:
    """The name of PROBLEM_SCHEMA in the document: another one if the service has its own type `Problem`."""
    return "tinysvc.Problem" if "Problem" in schemas.components else "Problem"


def _error_statuses(plan: Plan, settings: Settings) -> Iterator[int]:
    """The statuses of the errors that the framework itself may respond with."""
    inputs, route = plan.inputs, plan.route
    places = {each.place for each in inputs}
    if places:
        yield 400
    if any(map(is_credential, inputs)):
        yield 401
    if places & {"json", "bytes", "form", "whole form"}:
        yield 413
    if places & {"json", "form", "whole form"}:
        yield 415
    if any(map(_can_be_invalid, inputs)):
        yield 422
    if socket_parameter(plan):
        yield from (400, 403, 426)
    if route.kind == "cpu" or route.limit or settings.max_io_requests:
        yield 503
    if "timeout" in execution(plan.route, settings):
        yield 504


def _can_be_invalid(each: Input) -> bool:
    if each.place == "bytes" or is_credential(each):
        return False
    texts = each.annotation is str or (is_list_of_scalars(each.annotation) and get_args(each.annotation) == (str,))
    can_be_missing = each.place != "path" and each.default is inspect.Parameter.empty
    return can_be_missing or not texts or comes_as_json(each.annotation)


def types_of(plan: Plan) -> Iterator[Any]:
    """The types of the operation that may need a schema."""
    for each in plan.inputs:
        yield each.annotation
    yield from options(result_type(plan.route))
    if len(kinds := _result_types(plan)) > 1:
        yield _union(kinds)
    yield _line_type(plan)
    declared: Mapping[int, Any] = plan.route.about.get("responses", {})
    yield from (each for each in declared.values() if not isinstance(each, str))


def _union(kinds: Iterable[Any]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007 - the number of types varies
