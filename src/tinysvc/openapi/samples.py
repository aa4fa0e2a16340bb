"""Valid sample requests to a service, made from its OpenAPI document: from examples and defaults, else from schemas."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from ..core.responses import EVENTS, JSON, NDJSON, OCTETS

Schema = Mapping[str, Any]

TEXTS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "partial-time": "12:00:00",
    "decimal": "1.5",
    "duration": "PT1M",
    "email": "ada@example.org",
    "uri": "https://example.org/",
    "uuid": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
}
BYTES = bytes(1024)
"""The body of a route that takes any bytes."""

STREAMS = (EVENTS.partition(";")[0], NDJSON)


class SampleRequest(NamedTuple):
    """A valid request to a route."""

    route: str  # method and path, as in "POST /predict/{model}"
    kind: str  # "io" or "cpu"; never "job"
    method: str
    target: str  # path and query, encoded
    headers: dict[str, str]
    body: bytes | None


class NoSample(Exception):
    """No valid request can be made; the message is the reason."""


def samples(document: Mapping[str, Any]) -> tuple[list[SampleRequest], dict[str, str]]:
    """A request for each operation; and for each route without one, the reason."""
    made, left_out = [], {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            route = f"{method.upper()} {path}"
            try:
                made.append(_sample(route, path, operation, document))
            except NoSample as reason:
                left_out[route] = str(reason)
    return made, left_out


def _sample(route: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> SampleRequest:
    if operation.get("security"):
        raise NoSample("it needs credentials")
    if "job" in operation["x-tinysvc"]:
        raise NoSample("it serves durable jobs, which would be kept")
    responses = operation["responses"]
    if "101" in responses:
        raise NoSample("it is a WebSocket")
    if any(kind in STREAMS for each in responses.values() for kind in each.get("content", ())):
        raise NoSample("its response is a stream")
    query, headers = [], {}
    for parameter in operation.get("parameters", ()):
        if not parameter["required"]:
            continue
        name, value = parameter["name"], value_of(parameter["schema"], document)
        if parameter["in"] == "path":
            path = re.sub(rf"\{{{re.escape(name)}\}}", quote(_text(value), safe=""), path)
        elif parameter["in"] == "query":
            query += [(name, _text(each)) for each in (value if isinstance(value, list) else [value])]
        elif parameter["in"] == "header":
            headers[name] = _text(value)
        else:
            raise NoSample(f"it needs the cookie {name}")
    body = None
    if "requestBody" in operation:
        kind, body = _body(operation["requestBody"]["content"], document)
        headers["content-type"] = kind
    method = route.partition(" ")[0]
    target = f"{path}?{urlencode(query)}" if query else path
    return SampleRequest(route, operation["x-tinysvc"]["kind"], method, target, headers, body)


def _body(content: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, bytes]:
    kind, media = next(iter(content.items()))
    if kind == JSON:
        value = media["example"] if "example" in media else value_of(media["schema"], document)
        return kind, json.dumps(value).encode()
    if kind == OCTETS:
        return kind, BYTES
    raise NoSample(f"its request body is a form ({kind})")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def value_of(schema: Schema, document: Mapping[str, Any], parents: tuple[str, ...] = ()) -> Any:
    """A value that is valid for the schema (JSON Schema 2020-12).

    Raises:
        NoSample: If the schema requires itself, so that no finite value is valid.
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in parents:
            raise NoSample(f"{name} requires itself")
        schema, parents = document["components"]["schemas"][name], (*parents, name)
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("example", "default", "const"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _first_finite(choices, document, parents)
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = kinds if isinstance(kinds, str) else next(iter(kinds))
    if kind == "object":
        required = schema.get("required", ())
        fields = {name: each for name, each in schema.get("properties", {}).items() if name in required}
        return {name: value_of(each, document, parents) for name, each in fields.items()}
    if kind == "array":
        if "prefixItems" in schema:
            return [value_of(each, document, parents) for each in schema["prefixItems"]]
        try:
            return [value_of(schema.get("items") or {}, document, parents)] * schema.get("minItems", 1)
        except NoSample:
            return []
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "string":
        text = TEXTS.get(schema.get("format", ""), "text")
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    return {"boolean": True, "null": None}[kind]


def _first_finite(choices: list[Schema], document: Mapping[str, Any], parents: tuple[str, ...]) -> Any:
    for choice in sorted(choices, key=lambda choice: choice.get("type") == "null"):
        try:
            return value_of(choice, document, parents)
        except NoSample as error:
            reason = error
    raise reason


def _number(schema: Schema) -> float:
    """1, or the nearest number within the bounds."""
    lowest = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + 1)
    highest = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - 1)
    number: float = min(max(1, lowest), highest) if lowest <= highest else (lowest + highest) / 2
    step = schema.get("multipleOf")
    return math.ceil(number / step) * step if step else number
