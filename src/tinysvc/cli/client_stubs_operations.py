"""Functions of a module that `--client` prints: from the operations of an OpenAPI document to signatures and calls."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.forms import MULTIPART, URLENCODED
from ..core.responses import EVENTS, JSON, NDJSON, OCTETS
from ..openapi.operation_responses import DESCRIPTIONS
from ..service.routes import IDEMPOTENT_METHODS
from .client_stubs_names import RESERVED_IN_CLASSES, Names, class_name, literal, snake
from .client_stubs_types import ANY, BYTES, NULL, TEXT, Kind, Types, default_code, union

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
EVENT = Kind("Event", ("event",))
STREAMS = (EVENTS.partition(";")[0], NDJSON, "application/jsonl", "application/json-seq")
FILE = "bytes | UploadFile"


@dataclass
class Parameter:
    """A parameter of a function, and its place in the request."""

    name: str
    place: str
    """path, query, headers, cookies, form, json, body or bearer: the argument of Remote.call that takes it."""
    wire_name: str
    annotation: str
    default: str | None
    description: str = ""


@dataclass
class Function:
    """A function of the module."""

    name: str
    method: str
    path: str
    summary: str
    description: str
    parameters: list[Parameter] = field(default_factory=list)
    result: Kind = NULL
    is_stream: bool = False
    raises: list[tuple[str, str]] = field(default_factory=list)
    """Status and description of each error of the operation's own."""
    options: dict[str, str] = field(default_factory=dict)
    """Further arguments of the call, as Python code."""
    is_deprecated: bool = False


class Operations:
    """Describes the operations of a document."""

    def __init__(self, document: Mapping[str, Any], types: Types, names: Names) -> None:
        self._document = document
        self._types = types
        self._names = names
        self.left_out: dict[str, str] = {}
        """The operations without a function, each with the reason."""

    def functions(self) -> Iterator[Function]:
        """A function for each operation, in the order of the document."""
        for path, item in self._document.get("paths", {}).items():
            item = self._types.resolve(item)
            for method in METHODS:
                if method not in item:
                    continue
                operation = _of_a_job(item[method])
                if "101" in operation.get("responses", {}):
                    self.left_out[f"{method.upper()} {path}"] = "it is a WebSocket"
                    continue
                yield self._function(path, method, operation, item.get("parameters", []))

    def _function(self, path: str, method: str, operation: Mapping[str, Any], shared: list[Any]) -> Function:
        id_ = operation.get("operationId") or f"{method}_{path}"
        made = Function(
            self._names.new(snake(id_)),
            method.upper(),
            path,
            operation.get("summary", "").strip(),
            operation.get("description", "").strip(),
            is_deprecated=operation.get("deprecated") is True,
        )
        own = Names(RESERVED_IN_CLASSES)
        found = [self._types.resolve(each) for each in [*shared, *operation.get("parameters", [])]]
        by_place = {(each["in"], each["name"]): each for each in found}
        for each in by_place.values():
            made.parameters.append(self._parameter(each, made, own))
        if "requestBody" in operation:
            self._add_body(self._types.resolve(operation["requestBody"]), made, own)
        self._add_credentials(operation.get("security", self._document.get("security", [])), made, own)
        self._add_results(operation, made)
        made.options |= _options(operation.get("x-tinysvc", {}), made.method)
        return made

    def _parameter(self, each: Mapping[str, Any], made: Function, names: Names) -> Parameter:
        schema, place = each.get("schema"), each["in"]
        if schema is None:  # described by a content type
            schema = {
                key: value for media in each.get("content", {}).values() for key, value in media["schema"].items()
            }
        if place == "path" and each.get("x-tinysvc", {}).get("takes_slashes"):
            made.path = made.path.replace(f"{{{each['name']}}}", f"{{{each['name']}:path}}")
        name = names.new(snake(each["name"]), snake(f"{each['name']}_{place}"))
        argument = {"header": "headers", "cookie": "cookies"}.get(place, place)
        is_required = place == "path" or each.get("required", False)
        return self._value(name, argument, each["name"], schema, is_required, made, each.get("description", ""))

    def _value(
        self,
        name: str,
        place: str,
        wire_name: str,
        schema: Any,
        is_required: bool,
        made: Function,
        description: str = "",
    ) -> Parameter:
        kind = self._types.of(schema, class_name(made.name) + class_name(name))
        text = _as_argument(kind)
        found = schema if isinstance(schema, Mapping) else {}
        if is_required:
            return Parameter(name, place, wire_name, text, None, description or found.get("description", ""))
        default = default_code(found["default"], kind) if "default" in found else None
        if default == "[]":
            default = "()"
        if default is None or default == "{}":
            is_sent = place == "json" and "null" not in kind.parts  # None is null there, and left out elsewhere
            default, no_value = ("msgspec.UNSET", "msgspec.UnsetType") if is_sent else ("None", "None")
            text = text if "null" in kind.parts or kind == ANY else f"{text} | {no_value}"
        return Parameter(name, place, wire_name, text, default, description or found.get("description", ""))

    def _add_body(self, body: Mapping[str, Any], made: Function, names: Names) -> None:
        content = {_without_parameters(media): each for media, each in body.get("content", {}).items()}
        is_required, description = body.get("required", False), body.get("description", "")
        chosen = next((media for media in content if is_json(media)), None)
        if chosen:
            schema = content[chosen].get("schema", {})
            parameter = self._value(names.new("body"), "json", "", schema, is_required, made, description)
            made.parameters.append(parameter)
        elif MULTIPART in content or URLENCODED in content:
            self._add_form(content, made, names)
        elif content:
            media = next(iter(content))
            made.parameters.append(
                Parameter(names.new("body"), "body", "", "bytes", None if is_required else 'b""', description)
            )
            if media not in (OCTETS, "*/*"):
                made.options["content_type"] = literal(media)

    def _add_form(self, content: Mapping[str, Any], made: Function, names: Names) -> None:
        media = next(each for each in (MULTIPART, URLENCODED) if each in content)
        schema = self._types.merged(content[media].get("schema", {}))
        has_files = False
        for wire_name, each in schema.get("properties", {}).items():
            is_required = wire_name in schema.get("required", ())
            name = names.new(snake(wire_name))
            if annotation := self._file(each):
                has_files = True
                made.parameters.append(
                    Parameter(
                        name, "form", wire_name, annotation if is_required else f"{annotation} | None",
                        None if is_required else "None", self._types.resolve(each).get("description", ""),
                    )
                )  # fmt: skip
            else:
                made.parameters.append(self._value(name, "form", wire_name, each, is_required, made))
        if has_files or URLENCODED not in content:
            made.options["multipart"] = "True"

    def _file(self, schema: Any) -> str:
        """The annotation of a file, or of several, in a form; "" for any other value."""
        found = self._types.resolve(schema)
        if not isinstance(found, Mapping):
            return ""
        if found.get("type") == "array":
            return f"Sequence[{FILE}]" if self._file(found.get("items", {})) else ""
        if options := found.get("anyOf", found.get("oneOf")):
            return next(filter(None, map(self._file, options)), "")
        is_raw = found.get("contentMediaType") == OCTETS and "contentEncoding" not in found
        return FILE if found.get("type") == "string" and (found.get("format") == "binary" or is_raw) else ""

    def _add_credentials(self, security: list[Mapping[str, Any]], made: Function, names: Names) -> None:
        """The credentials of the first alternative; with an empty alternative they are optional."""
        chosen = next((each for each in security if each), {})
        schemes = self._document.get("components", {}).get("securitySchemes", {})
        for scheme_name in chosen:
            scheme = self._types.resolve(schemes.get(scheme_name, {}))
            is_optional = any(scheme_name not in each for each in security)
            annotation, default = ("str | None", "None") if is_optional else ("str", None)
            kind = scheme.get("type")
            if kind == "apiKey":
                place = {"header": "headers", "cookie": "cookies"}.get(scheme["in"], scheme["in"])
                parameter = Parameter(names.new(snake(scheme["name"])), place, scheme["name"], annotation, default)
            elif kind == "http" and scheme.get("scheme", "").lower() != "bearer":
                parameter = Parameter(names.new("authorization"), "headers", "authorization", annotation, default)
            elif kind in ("http", "oauth2", "openIdConnect"):
                parameter = Parameter(names.new("bearer"), "bearer", "", annotation, default)
            else:
                continue  # a certificate belongs to the connection
            parameter.description = scheme.get("description", "")
            made.parameters.append(parameter)

    def _add_results(self, operation: Mapping[str, Any], made: Function) -> None:
        responses, kinds, items = operation.get("responses", {}), list[Kind](), list[Kind]()
        for status, response in responses.items():
            response = self._types.resolve(response)
            if status.startswith("2"):
                content = response.get("content", {})
                kinds += self._kinds_of(content, class_name(made.name) + "Result") if content else [NULL]
                items += self._items_of(content, class_name(made.name) + "Item")
            elif status.startswith(("4", "5")) and response.get("description") not in DESCRIPTIONS.values():
                made.raises.append((status, response.get("description", "")))
        if not items and operation.get("x-tinysvc", {}).get("stream"):
            items = [each for each in kinds if each != NULL]
        made.is_stream = bool(items)
        made.result = union(items or kinds) if kinds or items else (ANY if "default" in responses else NULL)

    def _kinds_of(self, content: Mapping[str, Any], hint: str) -> Iterator[Kind]:
        """The type of the result for each content type of a response that is no stream of items."""
        for media, each in content.items():
            name, schema = _without_parameters(media), each.get("schema", {})
            if is_json(name):
                yield self._types.of(schema, hint)
            elif name.startswith("text/"):
                yield TEXT
            elif name not in STREAMS:
                yield ANY if name == "*/*" and not schema else BYTES

    def _items_of(self, content: Mapping[str, Any], hint: str) -> Iterator[Kind]:
        """The type of an item for each content type that is a stream of items."""
        for media, each in content.items():
            name, schema = _without_parameters(media), each.get("schema", {})
            if name == STREAMS[0]:
                yield EVENT
            elif name in STREAMS:
                yield self._types.of(each.get("itemSchema") or schema.get("contentSchema", {}), hint)


def _of_a_job(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """An operation of a job route as its function uses it: it waits for nothing, and follows no stream of changes.

    Submitting a job then has one result, which is the job. The timeout of the route is that of an attempt.
    """
    extension = operation.get("x-tinysvc", {})
    verb = extension.get("job")
    if verb is None:
        return operation
    left_out = {"submit": ("prefer",), "status": ("last-event-id",)}.get(verb, ())
    parameters = [each for each in operation.get("parameters", ()) if each.get("name", "").lower() not in left_out]
    responses = dict(operation.get("responses", {}))
    if verb == "submit":
        responses = {status: each for status, each in responses.items() if status == "202" or status[0] != "2"}
    elif verb == "status":
        responses.pop("204", None)
        responses["200"] = {**responses["200"], "content": {JSON: responses["200"]["content"][JSON]}}
    options = {name: value for name, value in extension.items() if name != "timeout"}
    return {**operation, "parameters": parameters, "responses": responses, "x-tinysvc": options}


def _without_parameters(media: str) -> str:
    return media.partition(";")[0].strip().lower()


def is_json(media: str) -> bool:
    """Whether a content type without parameters is JSON."""
    return media == JSON or media.endswith("+json")


def _as_argument(kind: Kind) -> str:
    """The annotation of a parameter: any sequence for a list, so that its default can be a tuple."""
    return re.sub(r"^list\[", "Sequence[", kind.text)


def _options(extension: Mapping[str, Any], method: str) -> dict[str, str]:
    """The options of the route that the call keeps: whether it is idempotent only if its method does not say so."""
    found: dict[str, str] = {}
    if extension.get("idempotent") is (method not in IDEMPOTENT_METHODS):
        found["idempotent"] = str(extension["idempotent"])
    for name in ("hedge", "timeout"):
        value = extension.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[name] = literal(value)
    return found


def arguments(function: Function) -> list[tuple[str, str | list[str]]]:
    """The arguments of the call behind method, path and result: (name, code, or the items of a dict)."""
    found: list[tuple[str, str | list[str]]] = []
    for place in ("path", "query", "headers", "cookies", "form"):
        items = [f"{literal(each.wire_name)}: {each.name}" for each in function.parameters if each.place == place]
        if items:
            found.append((place, items))
    found += [(each.place, each.name) for each in function.parameters if each.place in ("json", "body", "bearer")]
    return [*found, *function.options.items()]
