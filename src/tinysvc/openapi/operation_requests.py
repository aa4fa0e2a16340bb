"""The request of an operation in OpenAPI: parameters, body and security."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from ..binding.annotations import hints_of, options
from ..binding.inputs import Input
from ..binding.item_streams import item_type
from ..binding.markers import ApiKey, Bearer
from ..binding.schemas import BINARY, Schema, Schemas, with_default
from ..core.form_data import UploadFile
from ..core.forms import MULTIPART, URLENCODED
from ..core.responses import JSON, NDJSON, OCTETS
from ..service.plan import Plan

NOT_DESCRIBED = frozenset({"accept", "content-type", "authorization", "host"})
"""Headers that are no parameters: OpenAPI describes them elsewhere, or they follow from the URL."""

METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def parameters_of(inputs: Iterable[Input], path: str, schemas: Schemas) -> list[dict[str, Any]]:
    """The parameters in path, query, headers and cookies, each once."""
    found = [_parameter(each, path, schemas) for each in inputs if _is_parameter(each)]
    return list({(each["in"], each["name"]): each for each in found}.values())


def is_credential(each: Input) -> bool:
    """Whether the input is a token or key, which `security` describes."""
    return isinstance(each.marker, (Bearer, ApiKey))


def _is_parameter(each: Input) -> bool:
    if each.place == "header" and each.field.lower() in NOT_DESCRIBED:
        return False
    return each.place in ("path", "query", "header", "cookie") and not is_credential(each)


def _parameter(each: Input, path: str, schemas: Schemas) -> dict[str, Any]:
    required = each.place == "path" or each.default is inspect.Parameter.empty
    schema = dict(schemas.of(each.annotation))
    parameter: dict[str, Any] = {"name": each.field, "in": each.place, "required": required}
    if f"{{{each.field}:path}}" in path:
        parameter["x-tinysvc"] = {"takes_slashes": True}  # OpenAPI has no such parameter
    if "description" in schema and "$ref" not in schema:
        parameter["description"] = schema.pop("description")
    return {**parameter, "schema": schema if required else with_default(schema, each.default)}


def body_of(plan: Plan, schemas: Schemas, method: str) -> dict[str, Any] | None:
    """The request body; None if the handler takes none. A handler that takes the request may read any body."""
    body = [each for each in plan.inputs if each.place in ("json", "bytes", "stream", "form", "whole form")]
    if not body:
        reads_request = plan.binder.takes_request and method in METHODS_WITH_BODY
        return {"content": {OCTETS: {"schema": BINARY}}, "required": False} if reads_request else None
    required = any(each.default is inspect.Parameter.empty and each.place != "bytes" for each in body)
    if body[0].place == "bytes":
        content: dict[str, Any] = {OCTETS: {"schema": BINARY}}
    elif body[0].place == "stream":
        content = {NDJSON: {"schema": schemas.of(item_type(body[0].annotation))}}
    elif body[0].place == "json":
        content = {JSON: {"schema": schemas.of(body[0].annotation)}}
    else:
        schema = schemas.of(body[0].annotation) if body[0].place == "whole form" else _form(body, schemas)
        content = {kind: {"schema": schema} for kind in ([MULTIPART] if _has_files(body) else [MULTIPART, URLENCODED])}
    if "example" in plan.route.about:
        content = {kind: {**media, "example": plan.route.about["example"]} for kind, media in content.items()}
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


def security_of(inputs: Iterable[Input]) -> list[dict[str, list[str]]]:
    """The alternatives of credentials: all of them, or only those without a default (possibly none)."""
    credentials = [each for each in inputs if is_credential(each)]
    required = [each for each in credentials if each.default is inspect.Parameter.empty]
    found: list[dict[str, list[str]]] = [{_scheme_name(each): [] for each in some} for some in (credentials, required)]
    return found[: 1 if credentials == required else 2] if credentials else []


def security_schemes(plans: Iterable[Plan]) -> dict[str, Any]:
    """The security schemes of all operations, by name."""
    schemes: dict[str, Any] = {}
    for each in [each for plan in plans for each in plan.inputs]:
        if isinstance(each.marker, Bearer):
            schemes[_scheme_name(each)] = {"type": "http", "scheme": "bearer"}
        elif isinstance(each.marker, ApiKey):
            schemes[_scheme_name(each)] = {"type": "apiKey", "in": each.marker.place, "name": each.field}
    return schemes


def _scheme_name(each: Input) -> str:
    return (each.marker.name if each.marker else None) or ("bearer" if isinstance(each.marker, Bearer) else each.field)
