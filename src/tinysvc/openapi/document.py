"""OpenAPI 3.1: what a service takes and answers, from the same signatures and types that bind its requests.

    title, description   the module's name and docstring
    an operation         each method of a route: docstring, parameters, body, answers; and what it may fail with
    x-tinysvc            where it runs: io or cpu, its pool, timeout, limit, batch and cache

All is made once, at start-up. What a handler raises by itself is for its author to say: `responses={404: "..."}`.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from http.client import responses as phrases
from typing import Any, NamedTuple, Union, get_args

import orjson

from ..binding.annotations import comes_as_json, hints_of, is_list_of_scalars, options, without_annotated
from ..binding.binder import Binder
from ..binding.inputs import Input
from ..binding.markers import ApiKey, Bearer
from ..binding.results import is_stream
from ..binding.schemas import ANYTHING, REF, Schema, Schemas, with_default
from ..core.forms import MULTIPART, URLENCODED, UploadFile
from ..core.responses import EVENTS, JSON, NDJSON, OCTETS, PROBLEM, TEXT, Response
from ..core.settings import Settings
from ..core.sse import EventStream
from ..service.plan import Wiring
from ..service.routes import Given, Route
from ..service.service import Service
from ..web.websocket_route import socket_parameter

log = logging.getLogger("tinysvc")

VERSION = "3.1.0"

PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Each place that did not fit.",
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
    "description": "Each of the events (HTML, 9.2).",
    "properties": {**{name: {"type": "string"} for name in ("event", "data", "id")}, "retry": {"type": "integer"}},
}

REASONS = {
    400: "The request is malformed.",
    401: "Who is asking has not been said, or is not known.",
    403: "The socket was refused.",
    413: "The body is too long.",
    415: "The body is of another type.",
    422: "Something does not fit: `errors` names every place.",
    426: "This path speaks WebSocket only.",
    503: "The service is busy, and says when to come again (`Retry-After`).",
    504: "The work took longer than its deadline, and was stopped.",
}


def document(service: Service, wirings: Iterable[Wiring], settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of a service, whose routes these are."""
    operations = [Operation(wiring, _inputs(wiring)) for wiring in wirings]
    schemas = Schemas(_types(operations))
    names = _operation_ids(operations)
    paths: dict[str, dict[str, Any]] = {}
    first: dict[str, str] = {}  # path without the names of its parameters -> with those of its first route
    for operation in operations:
        own = re.sub(r":path\}", "}", operation.wiring.mounted.path)
        path = first.setdefault(_PARAMETER.sub("{}", own), own)
        for method in operation.route.methods:
            described = _as_far_as_possible(operation, method, schemas, settings)
            _rename(
                described.get("parameters", ()),
                dict(zip(_PARAMETER.findall(own), _PARAMETER.findall(path), strict=True)),
            )
            paths.setdefault(path, {})[method.lower()] = {"operationId": names[id(operation), method], **described}
    return {
        "openapi": VERSION,
        "info": _info(service),
        "tags": _tags(operations),
        "paths": paths,
        "components": _components(operations, schemas),
    }


_PARAMETER = re.compile(r"\{(\w+)\}")


def _rename(parameters: Iterable[dict[str, Any]], names: Mapping[str, str]) -> None:
    """Paths that differ in the names of their parameters only are one path (OpenAPI 3.1, Paths Object)."""
    for each in parameters:
        if each["in"] == "path":
            each["name"] = names[each["name"]]


class Operation(NamedTuple):
    """A route with all that is taken from its requests, by its handler and by its resources."""

    wiring: Wiring
    inputs: list[Input]

    @property
    def route(self) -> Route:
        return self.wiring.mounted.route

    @property
    def returns(self) -> Any:
        """What the handler's annotation says; inspect.Parameter.empty if it says nothing. Of a batch, one of them."""
        found = hints_of(self.route.function).get("return", inspect.Parameter.empty)
        return (get_args(without_annotated(found)) or [Any])[0] if self.route.batch else found

    @property
    def tags(self) -> list[str]:
        return [self.wiring.mounted.name, *self.route.about.get("tags", ())]


def _inputs(wiring: Wiring) -> list[Input]:
    known = {*wiring.of_request, *wiring.once}
    binders = [
        Binder(resource.function, (), known)
        for resource in wiring.of_request.values()
        if not isinstance(resource.function, Given)
    ]
    return [each for binder in (wiring.binder, *binders) for each in binder.inputs]


def _info(service: Service) -> dict[str, str]:
    info = {"title": service.name or "tinysvc", "version": service.version}
    return {**info, "description": service.description} if service.description else info


def _tags(operations: list[Operation]) -> list[dict[str, str]]:
    """Each service with what its module says of itself, then the authors' own."""
    services = {each.wiring.mounted.name: each.wiring.mounted.service for each in operations}
    names = dict.fromkeys([*services, *[tag for each in operations for tag in each.tags]])
    described = {name: service.description for name, service in services.items() if service.description}
    return [{"name": name, **({"description": described[name]} if name in described else {})} for name in names if name]


def _operation_ids(operations: list[Operation]) -> dict[tuple[int, str], str]:
    """The handler's name, with its service's and the method's where that is not enough."""
    made: dict[tuple[int, str], list[str]] = {}
    for each in operations:
        function, service = each.route.function.__name__, re.sub(r"\W+", "_", each.wiring.mounted.name)
        path = re.sub(r"\W+", "_", each.wiring.mounted.path).strip("_")
        for method in each.route.methods:
            full = f"{service}_{function}" if service else function
            made[id(each), method] = [function, full, f"{full}_{method.lower()}", f"{full}_{method.lower()}_{path}"]
    counts = [Counter(names[level] for names in made.values()) for level in range(4)]
    return {
        key: next(name for name, count in zip(names, counts, strict=True) if count[name] == 1 or name is names[-1])
        for key, names in made.items()
    }


def _operation(operation: Operation, method: str, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    route, about = operation.route, operation.route.about
    summary, _, rest = (inspect.getdoc(route.function) or "").partition("\n")
    path = operation.wiring.mounted.path
    parameters = [_parameter(each, path, schemas) for each in operation.inputs if _is_parameter(each)]
    parts = {
        "summary": about.get("summary", summary),
        "description": rest.strip() if "summary" not in about else f"{summary}\n{rest}".strip(),
        "tags": [tag for tag in operation.tags if tag],
        "deprecated": about.get("deprecated", False),
        "parameters": list({(each["in"], each["name"]): each for each in parameters}.values()),
        "requestBody": _body(operation, schemas),
        "security": _security(operation.inputs),
    }
    return {
        **{name: part for name, part in parts.items() if part},
        "responses": _responses(operation, schemas, settings),
        "x-tinysvc": _where(route, settings),
    }


def _as_far_as_possible(operation: Operation, method: str, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    """What cannot be described, or not be said in JSON, is described less: the document never stops a service."""
    try:
        described = _operation(operation, method, schemas, settings)
        as_json(described)
    except Exception as error:
        path = operation.wiring.mounted.path
        log.warning("OpenAPI: %s %s is described by its path alone: %s: %s", method, path, type(error).__name__, error)
        names = _PARAMETER.findall(path.replace(":path}", "}"))
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        described = {
            **({"parameters": parameters} if parameters else {}),
            "responses": {"200": {"description": "The answer."}},
            "x-tinysvc": _where(operation.route, settings),
        }
    return described


def as_json(value: Any, *, indent: bool = False) -> bytes:
    """`value` as JSON, in which an author's examples and defaults that JSON does not know become texts."""
    try:
        option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
        return orjson.dumps(value, default=str, option=option)
    except TypeError:  # an integer of more than 64 bits, for one
        return json.dumps(value, default=str, indent=2 if indent else None).encode()


def _where(route: Route, settings: Settings) -> dict[str, Any]:
    where: dict[str, Any] = {"kind": route.kind}
    if route.kind == "cpu":
        where["pool"] = route.pool
    timeout = route.timeout_or(settings.cpu_timeout) if route.kind == "cpu" else route.timeout
    facts = {
        "timeout": timeout,
        "limit": route.limit,
        "batch": route.batch and {"size": route.batch.size, "wait": route.batch.wait},
        "cache": route.cache and route.cache.seconds,
    }
    return where | {name: fact for name, fact in facts.items() if fact}


# What goes in


NOT_DESCRIBED = frozenset({"accept", "content-type", "authorization", "host"})
"""Headers that OpenAPI has other places for, or that follow from the address."""


def _is_parameter(each: Input) -> bool:
    if each.place == "header" and each.field.lower() in NOT_DESCRIBED:
        return False
    return each.place in ("path", "query", "header", "cookie") and not isinstance(each.marker, (Bearer, ApiKey))


def _parameter(each: Input, path: str, schemas: Schemas) -> dict[str, Any]:
    required = each.place == "path" or each.default is inspect.Parameter.empty
    schema = dict(schemas.of(each.annotation))
    parameter: dict[str, Any] = {"name": each.field, "in": each.place, "required": required}
    if f"{{{each.field}:path}}" in path:
        parameter["x-tinysvc"] = {"takes_slashes": True}  # of which OpenAPI knows nothing
    if "description" in schema and "$ref" not in schema:
        parameter["description"] = schema.pop("description")
    return {**parameter, "schema": schema if required else with_default(schema, each.default)}


def _body(operation: Operation, schemas: Schemas) -> dict[str, Any] | None:
    body = [each for each in operation.inputs if each.place in ("json", "bytes", "form", "whole form")]
    if not body:
        return None
    required = any(each.default is inspect.Parameter.empty and each.place != "bytes" for each in body)
    if body[0].place == "bytes":
        content: dict[str, Any] = {OCTETS: {"schema": ANYTHING}}
    elif body[0].place == "json":
        content = {JSON: {"schema": schemas.of(body[0].annotation)}}
    else:
        schema = schemas.of(body[0].annotation) if body[0].place == "whole form" else _form(body, schemas)
        content = {kind: {"schema": schema} for kind in ([MULTIPART] if _has_files(body) else [MULTIPART, URLENCODED])}
    if "example" in operation.route.about:
        content = {kind: {**media, "example": operation.route.about["example"]} for kind, media in content.items()}
    return {"content": content, "required": required}


def _form(fields: list[Input], schemas: Schemas) -> Schema:
    required = [each.field for each in fields if each.default is inspect.Parameter.empty]
    properties = {each.field: with_default(schemas.of(each.annotation), each.default) for each in fields}
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _has_files(body: list[Input]) -> bool:
    hints = [
        hint
        for each in body
        for hint in (hints_of(each.annotation).values() if each.place == "whole form" else [each.annotation])
    ]
    return any({UploadFile, list[UploadFile]} & set(options(hint)) for hint in hints)


def _security(inputs: Iterable[Input]) -> list[dict[str, list[str]]]:
    """All of them together; or only those without a default, which may be none."""
    asked = [each for each in inputs if isinstance(each.marker, (Bearer, ApiKey))]
    needed = [each for each in asked if each.default is inspect.Parameter.empty]
    ways: list[dict[str, list[str]]] = [{_scheme_name(each): [] for each in some} for some in (asked, needed)]
    return ways[: 1 if asked == needed else 2] if asked else []


def _scheme_name(each: Input) -> str:
    return (each.marker.name if each.marker else None) or ("bearer" if isinstance(each.marker, Bearer) else each.field)


def _components(operations: list[Operation], schemas: Schemas) -> dict[str, Any]:
    schemes: dict[str, Any] = {}
    for each in [each for operation in operations for each in operation.inputs]:
        if isinstance(each.marker, Bearer):
            schemes[_scheme_name(each)] = {"type": "http", "scheme": "bearer"}
        elif isinstance(each.marker, ApiKey):
            schemes[_scheme_name(each)] = {"type": "apiKey", "in": each.marker.place, "name": each.field}
    found = {"schemas": {_problem_name(schemas): PROBLEM_SCHEMA, **schemas.components}}
    return {**found, "securitySchemes": schemes} if schemes else found


# What comes out


def _responses(operation: Operation, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    own = dict(operation.route.about.get("responses", {}))
    found = {status: _problem(REASONS[status], schemas) for status in _failures(operation, settings)}
    if socket_parameter(operation.wiring):
        found[101] = {"description": "A WebSocket is open."}
    elif not any(status < 300 for status in own):
        found |= _results(operation, schemas)
    for status, what in own.items():
        found[int(status)] = _own_response(status, what, found.get(status, {}), operation, schemas)
    return {str(status): found[status] for status in sorted(found)}


def _own_response(
    status: int, what: Any, ours: Mapping[str, Any], operation: Operation, schemas: Schemas
) -> dict[str, Any]:
    """What the author says of a status, a sentence or the type of the answer; the problem of ours stays beside it."""
    if what in (None, type(None)):
        return {"description": phrases.get(status, str(status))}
    if not isinstance(what, str):
        content = {**ours.get("content", {}), JSON: {"schema": schemas.of(what)}}
        return {"description": ours.get("description") or phrases.get(status, str(status)), "content": content}
    if status >= 400:
        return _problem(what, schemas)
    content = _content(operation, schemas) if status < 300 and status != 204 else {}
    return {"description": what, **({"content": content} if content else {})}


def _results(operation: Operation, schemas: Schemas) -> dict[int, Any]:
    kinds = options(operation.returns)
    found: dict[int, Any] = {}
    if type(None) in kinds:
        found[204] = {"description": "Done; there is nothing to say."}
    if content := _content(operation, schemas):
        found[200] = {"description": "The answer.", "content": content}
    return found


def _content(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    kinds = [kind for kind in options(operation.returns) if kind is not type(None)]
    found: dict[str, list[Schema]] = {}
    for media, schema in [_media(kind, operation, schemas) for kind in kinds]:
        found.setdefault(media, []).append(schema)
    if list(found) == [JSON] and len(kinds) > 1 and (whole := schemas.of(_union(kinds))):
        return {JSON: {"schema": whole}}  # as a body of this type, with what tells its members apart
    return {media: {"schema": each[0] if len(each) == 1 else {"anyOf": each}} for media, each in found.items()}


_MEDIA: dict[Any, str] = {str: TEXT, bytes: OCTETS, bytearray: OCTETS, memoryview: OCTETS}


def _media(kind: Any, operation: Operation, schemas: Schemas) -> tuple[str, Schema]:
    """The content type of a result, and the schema of what is in it; of a stream of events, of each."""
    kind = without_annotated(kind)
    if isinstance(kind, type) and issubclass(kind, EventStream):
        return _bare(EVENTS), EVENT_SCHEMA
    if is_stream(kind):
        media = _bare(operation.wiring.binder.stream_type) or "*/*"
        return media, EVENT_SCHEMA if media == _bare(EVENTS) else _text(operation, schemas)
    if kind in (inspect.Parameter.empty, Any, object) or (isinstance(kind, type) and issubclass(kind, Response)):
        return "*/*", ANYTHING
    if kind in _MEDIA:
        return _bare(_MEDIA[kind]), {"type": "string"} if kind is str else ANYTHING
    return JSON, schemas.of(kind)


def _text(operation: Operation, schemas: Schemas) -> Schema:
    """Of a stream; where it is one of JSON lines, `contentSchema` says what each of them is."""
    text: Schema = {"type": "string"}
    if operation.wiring.binder.stream_type != NDJSON:
        return text
    return {**text, "contentMediaType": NDJSON, "contentSchema": schemas.of(_item(operation))}


def _item(operation: Operation) -> Any:
    """What a line of the stream is."""
    is_lines = operation.wiring.binder.stream_type == NDJSON
    return get_args(without_annotated(operation.returns))[0] if is_lines else Any


def _bare(media_type: str) -> str:
    return media_type.partition(";")[0]


def _problem(description: str, schemas: Schemas) -> dict[str, Any]:
    reference = {"$ref": REF.format(name=_problem_name(schemas))}
    return {"description": description, "content": {PROBLEM: {"schema": reference}}}


def _problem_name(schemas: Schemas) -> str:
    """Ours yields to an author's."""
    return "tinysvc.Problem" if "Problem" in schemas.components else "Problem"


def _failures(operation: Operation, settings: Settings) -> Iterator[int]:
    """The statuses that it may be answered with before the handler is called, or in its place."""
    inputs, route = operation.inputs, operation.route
    places = {each.place for each in inputs}
    if places:
        yield 400
    if any(isinstance(each.marker, (Bearer, ApiKey)) for each in inputs):
        yield 401
    if places & {"json", "bytes", "form", "whole form"}:
        yield 413
    if places & {"json", "form", "whole form"}:
        yield 415
    if any(map(_can_be_wrong, inputs)):
        yield 422
    if socket_parameter(operation.wiring):
        yield from (400, 403, 426)
    if route.kind == "cpu" or route.limit or settings.max_io_requests:
        yield 503
    if "timeout" in _where(route, settings):
        yield 504


def _can_be_wrong(each: Input) -> bool:
    if each.place == "bytes" or isinstance(each.marker, (Bearer, ApiKey)):
        return False
    texts = each.annotation is str or (is_list_of_scalars(each.annotation) and get_args(each.annotation) == (str,))
    can_be_missing = each.place != "path" and each.default is inspect.Parameter.empty
    return can_be_missing or not texts or comes_as_json(each.annotation)


def _types(operations: Iterable[Operation]) -> Iterator[Any]:
    """All that may have a schema."""
    for operation in operations:
        for each in operation.inputs:
            yield each.annotation
        yield from options(operation.returns)
        if len(kinds := [kind for kind in options(operation.returns) if kind is not type(None)]) > 1:
            yield _union(kinds)
        yield _item(operation)
        own: Mapping[int, Any] = operation.route.about.get("responses", {})
        yield from (what for what in own.values() if not isinstance(what, str))


def _union(kinds: Iterable[Any]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007 - of as many as there are
