"""The OpenAPI 3.1 document of a service, from the signatures and types that also bind its requests.

    title, description   the module's name and docstring
    an operation         each method of a route: docstring, parameters, body, responses, errors of the framework
    x-tinysvc            kind (io, cpu or job), pool, timeout, limit, batch and cache of the route

A job route has an operation for each of its verbs (job_operations.py).

The document is made once, at start-up. The errors that a handler raises are declared by its author:
`responses={404: "..."}`.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from ..binding.schemas import Schemas
from ..core.settings import Settings
from ..service.job_verbs import VERBS, Verb
from ..service.plan import Plan
from ..service.service import Service
from .job_operations import JOB_TYPES, job_operation
from .operation import execution, tags_of
from .operation_requests import body_of, parameters_of, security_of, security_schemes
from .operation_responses import PROBLEM_SCHEMA, problem_name, responses_of, types_of

log = logging.getLogger("tinysvc")

VERSION = "3.1.0"


def document(service: Service, plans: Iterable[Plan], settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of a service with these routes."""
    plans = list(plans)
    schemas = Schemas([each for plan in plans for each in types_of(plan)] + _job_types(plans))
    paths: dict[str, dict[str, Any]] = {}
    first_paths: dict[str, str] = {}  # path without the names of its parameters -> path of the first such route
    operations = [each for plan in plans for each in _served(plan)]
    for each, name in zip(operations, _operation_ids(operations), strict=True):
        own = re.sub(r":path\}", "}", each.path)
        path = first_paths.setdefault(_PARAMETER.sub("{}", own), own)
        described = _operation_or_fallback(each, schemas, settings)
        _rename(
            described.get("parameters", ()),
            dict(zip(_PARAMETER.findall(own), _PARAMETER.findall(path), strict=True)),
        )
        paths.setdefault(path, {})[each.method.lower()] = {"operationId": name, **described}
    return {
        "openapi": VERSION,
        "info": _info(service),
        "tags": _tags(plans),
        "paths": paths,
        "components": _components(plans, schemas),
    }


class Served(NamedTuple):
    """A method at a path, with the route that serves it."""

    plan: Plan
    method: str
    path: str
    verb: Verb | None = None
    """Of a job route."""


def _served(plan: Plan) -> list[Served]:
    if plan.route.durable:
        return [Served(plan, verb.method, verb.path(plan.path), verb) for verb in VERBS]
    return [Served(plan, method, plan.path) for method in plan.route.methods]


def _job_types(plans: Iterable[Plan]) -> list[Any]:
    return list(JOB_TYPES) if any(plan.route.durable for plan in plans) else []


_PARAMETER = re.compile(r"\{(\w+)\}")


def _rename(parameters: Iterable[dict[str, Any]], names: Mapping[str, str]) -> None:
    """Paths that differ only in the names of their parameters are one path (OpenAPI 3.1, Paths Object)."""
    for each in parameters:
        if each["in"] == "path":
            each["name"] = names[each["name"]]


def _info(service: Service) -> dict[str, str]:
    info = {"title": service.name or "tinysvc", "version": service.version}
    return {**info, "description": service.description} if service.description else info


def _tags(plans: list[Plan]) -> list[dict[str, str]]:
    """A tag for each service, described by its module's docstring; then the tags of the option `tags`."""
    services = {each.mount.name: each.mount.service for each in plans}
    names = dict.fromkeys([*services, *[tag for each in plans for tag in tags_of(each)]])
    described = {name: service.description for name, service in services.items() if service.description}
    return [{"name": name, **({"description": described[name]} if name in described else {})} for name in names if name]


def _operation_ids(operations: list[Served]) -> list[str]:
    """For each operation its id: the handler's name, made unique with service, method and path if needed."""
    candidates: list[list[str]] = []
    for each in operations:
        function, service = each.plan.route.function.__name__, re.sub(r"\W+", "_", each.plan.mount.name)
        if each.verb is not None and each.verb.name != "submit":
            function = f"{function}_{each.verb.name}"
        path = re.sub(r"\W+", "_", each.path).strip("_")
        full = f"{service}_{function}" if service else function
        candidates.append([function, full, f"{full}_{each.method.lower()}", f"{full}_{each.method.lower()}_{path}"])
    counts = [Counter(names[level] for names in candidates) for level in range(4)]

    def chosen(names: list[str]) -> str:
        return next(name for name, count in zip(names, counts, strict=True) if count[name] == 1 or name is names[-1])

    return [chosen(names) for names in candidates]


def _operation(plan: Plan, method: str, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    about = plan.route.about
    summary, _, rest = (inspect.getdoc(plan.route.function) or "").partition("\n")
    parts = {
        "summary": about.get("summary", summary),
        "description": rest.strip() if "summary" not in about else f"{summary}\n{rest}".strip(),
        "tags": [tag for tag in tags_of(plan) if tag],
        "deprecated": about.get("deprecated", False),
        "parameters": parameters_of(plan.inputs, plan.path, schemas),
        "requestBody": body_of(plan, schemas, method),
        "security": security_of(plan.inputs),
    }
    return {
        **{name: part for name, part in parts.items() if part},
        "responses": responses_of(plan, schemas, settings),
        "x-tinysvc": execution(plan.route, settings),
    }


def _operation_or_fallback(served: Served, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    """The operation; if it cannot be described or encoded, only its path: the document must not stop a service."""
    plan, method, path, verb = served
    try:
        described = (
            job_operation(plan, verb, schemas, settings) if verb else _operation(plan, method, schemas, settings)
        )
        as_json(described)
    except Exception as error:
        log.warning("OpenAPI: %s %s is described by its path only: %s: %s", method, path, type(error).__name__, error)
        names = _PARAMETER.findall(path.replace(":path}", "}"))
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        described = {
            **({"parameters": parameters} if parameters else {}),
            "responses": {"200": {"description": "Success."}},
            "x-tinysvc": execution(plan.route, settings),
        }
    return described


def as_json(value: Any, *, indent: bool = False) -> bytes:
    """`value` as JSON. Examples and defaults that JSON has no type for become strings."""
    try:
        option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
        return orjson.dumps(value, default=str, option=option)
    except TypeError:  # for example an integer of more than 64 bits
        return json.dumps(value, default=str, indent=2 if indent else None).encode()


def _components(plans: list[Plan], schemas: Schemas) -> dict[str, Any]:
    found = {"schemas": {problem_name(schemas): PROBLEM_SCHEMA, **schemas.components}}
    schemes = security_schemes(plans)
    return {**found, "securitySchemes": schemes} if schemes else found
