"""Requests that fit a service, made of its OpenAPI document: its examples and defaults, else what its schemas allow."""

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
"""The body where any bytes will do."""

STREAMS = (EVENTS.partition(";")[0], NDJSON)


class Sample(NamedTuple):
    """One request, and the route it is for."""

    route: str  # as in "POST /predict/{model}"
    kind: str  # "io" or "cpu"
    method: str
    target: str  # path and query, encoded
    headers: dict[str, str]
    body: bytes | None


class NoSample(Exception):
    """No request can be made up; the message says why."""


def samples(document: Mapping[str, Any]) -> tuple[list[Sample], dict[str, str]]:
    """A request for each operation; and where none can be made, the route with the reason."""
    made, left_out = [], {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            route = f"{method.upper()} {path}"
            try:
                made.append(_sample(route, path, operation, document))
            except NoSample as reason:
                left_out[route] = str(reason)
    return made, left_out


def _sample(route: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> Sample:
    if operation.get("security"):
        raise NoSample("it asks who is there")
    answers = operation["responses"]
    if "101" in answers:
        raise NoSample("it is a WebSocket")
    if any(kind in STREAMS for answer in answers.values() for kind in answer.get("content", ())):
        raise NoSample("it is a stream")
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
    return Sample(route, operation["x-tinysvc"]["kind"], method, target, headers, body)


def _body(content: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, bytes]:
    kind, media = next(iter(content.items()))
    if kind == JSON:
        value = media["example"] if "example" in media else value_of(media["schema"], document)
        return kind, json.dumps(value).encode()
    if kind == OCTETS:
        return kind, BYTES
    raise NoSample(f"its body is a form ({kind})")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def value_of(schema: Schema, document: Mapping[str, Any], above: tuple[str, ...] = ()) -> Any:
    """A value that fits the schema (JSON Schema 2020-12); NoSample where one would hold itself without end."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in above:
            raise NoSample(f"{name} holds itself")
        schema, above = document["components"]["schemas"][name], (*above, name)
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("example", "default", "const"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _first_that_ends(choices, document, above)
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = kinds if isinstance(kinds, str) else next(iter(kinds))
    if kind == "object":
        wanted = schema.get("required", ())
        fields = {name: each for name, each in schema.get("properties", {}).items() if name in wanted}
        return {name: value_of(each, document, above) for name, each in fields.items()}
    if kind == "array":
        if "prefixItems" in schema:
            return [value_of(each, document, above) for each in schema["prefixItems"]]
        try:
            return [value_of(schema.get("items") or {}, document, above)] * schema.get("minItems", 1)
        except NoSample:
            return []
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "string":
        text = TEXTS.get(schema.get("format", ""), "text")
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    return {"boolean": True, "null": None}[kind]


def _first_that_ends(choices: list[Schema], document: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    for choice in sorted(choices, key=lambda choice: choice.get("type") == "null"):
        try:
            return value_of(choice, document, above)
        except NoSample as reason:
            why = reason
    raise why


def _number(schema: Schema) -> float:
    """1, or the nearest number that the bounds allow."""
    lowest = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + 1)
    highest = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - 1)
    number: float = min(max(1, lowest), highest) if lowest <= highest else (lowest + highest) / 2
    step = schema.get("multipleOf")
    return math.ceil(number / step) * step if step else number
