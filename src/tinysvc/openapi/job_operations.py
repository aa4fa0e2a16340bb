"""The operations of a job route in OpenAPI: one for each verb of `service/job_verbs.py`.

Submitting a job has the parameters and the body of the handler. The other operations have those of the route's path
and of the resources of its requests, which guard them, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ..binding.schemas import Schema, Schemas
from ..core.responses import EVENTS, JSON
from ..core.settings import Settings
from ..service.job_document import JOB_STATES, JobDocument, JobPage
from ..service.job_verbs import DEFAULT_LIMIT, JOB_ID, MAX_AFTER, MAX_KEY, MAX_LIMIT, MAX_PRIORITY, Verb, VerbName
from ..service.plan import Plan
from .operation import execution, tags_of
from .operation_requests import body_of, is_credential, parameters_of, security_of
from .operation_responses import problem, responses_of, results_of

JOB_TYPES: tuple[type, ...] = (JobDocument, JobPage)
"""The types of these operations that need a schema."""

SUMMARIES: dict[VerbName, str] = {
    "list": "List the jobs.",
    "status": "State and progress of a job.",
    "result": "The result of a job.",
    "cancel": "Cancel a job.",
    "retry": "Start a failed job again.",
}
"""A sentence for each operation but the one whose words are the author's."""

DETAILS: dict[VerbName, str] = {
    "list": "The newest jobs come first.",
    "status": (
        "With `Accept: text/event-stream` each change of the job is an event, until its end. `Last-Event-ID` resumes "
        "the stream."
    ),
    "result": "The response of the handler, as it was stored.",
    "cancel": "A running job is stopped: the response comes when its process is dead. A failed job is dismissed.",
    "retry": "The job has all its attempts again.",
}

ERRORS: dict[VerbName, dict[int, str]] = {
    "submit": {
        422: (
            "The request has missing or invalid values: `errors` lists each of them. Or its `Idempotency-Key` was used "
            "for another request."
        ),
        507: "The disk of the store is full. The job was not accepted.",
    },
    "list": {422: "The state, the limit or the cursor is invalid."},
    "status": {},
    "result": {
        404: "There is no such job, or it has not ended yet: `state` says which.",
        410: "The job was cancelled, or deleted after its time to be kept.",
    },
    "cancel": {409: "The job had succeeded before."},
    "retry": {409: "The job has not failed."},
}
"""The errors of each operation, beside those that are the same for all."""

OF_ONE_JOB: dict[int, str] = {404: "There is no such job.", 410: "The job was deleted after its time to be kept."}
OF_ALL: dict[int, str] = {
    400: "The request, or one of its headers, is malformed.",
    503: "The store of jobs is not available: try again after the time in `Retry-After`.",
}


def job_operation(plan: Plan, verb: Verb, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    """The operation of one verb."""
    about = plan.route.about
    is_submit = verb.name == "submit"
    inputs = plan.inputs if is_submit else plan.guard_inputs
    summary, _, rest = (inspect.getdoc(plan.route.function) or "").partition("\n")
    parts = {
        "summary": about.get("summary", summary) if is_submit else SUMMARIES[verb.name],
        "description": _submit_details(about, summary, rest) if is_submit else DETAILS[verb.name],
        "tags": [tag for tag in tags_of(plan) if tag],
        "deprecated": about.get("deprecated", False),
        "parameters": _distinct([*parameters_of(inputs, plan.path, schemas), *_own_parameters(verb)]),
        "requestBody": body_of(plan, schemas, verb.method) if is_submit else None,
        "security": security_of(inputs),
    }
    return {
        **{name: part for name, part in parts.items() if part},
        "responses": _responses(plan, verb, schemas, settings),
        "x-tinysvc": {**execution(plan.route, settings), "job": verb.name},
    }


def _submit_details(about: Any, summary: str, rest: str) -> str:
    own = rest.strip() if "summary" not in about else f"{summary}\n{rest}".strip()
    return f"{own}\n\nThe job is stored before the response, and runs at least once.".strip()


WAIT = "`wait=10`: respond with the result if the job ends within 10 seconds (RFC 7240)."


def _distinct(parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each once: a handler may read a header that tinysvc reads, too."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for each in parameters:
        found.setdefault((each["in"], each["name"].lower() if each["in"] == "header" else each["name"]), each)
    return list(found.values())


def _own_parameters(verb: Verb) -> list[dict[str, Any]]:
    """The parameters that tinysvc itself reads."""
    if verb.name == "submit":
        return [
            _header("Idempotency-Key", "A second request with the same key gets the job of the first.", _text(MAX_KEY)),
            _header("Prefer", WAIT),
            _header(
                "Job-After", "Seconds until the job may start.", {"type": "number", "minimum": 0, "maximum": MAX_AFTER}
            ),
            _header(
                "Job-Priority",
                "Of the jobs that are due, the highest priority starts first.",
                _number(-MAX_PRIORITY, MAX_PRIORITY, 0),
            ),
        ]
    if verb.name == "list":
        return [
            _parameter("state", "query", "Only jobs in this state.", {"type": "string", "enum": list(JOB_STATES)}),
            _parameter("limit", "query", "Jobs on the page.", _number(1, MAX_LIMIT, DEFAULT_LIMIT)),
            _parameter("cursor", "query", "The page after this one: taken from `next`.", {"type": "string"}),
        ]
    job = {"name": JOB_ID, "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
    if verb.name == "status":
        return [job, _header("Last-Event-ID", "The last event that the client has.")]
    return [job, _header("Prefer", WAIT)] if verb.name == "result" else [job]


def _number(least: int, most: int, default: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


def _text(longest: int) -> Schema:
    return {"type": "string", "maxLength": longest}


def _header(name: str, description: str, schema: Schema | None = None) -> dict[str, Any]:
    return _parameter(name, "header", description, schema or {"type": "string"})


def _parameter(name: str, place: str, description: str, schema: Schema) -> dict[str, Any]:
    described = {"description": description} if description else {}
    return {"name": name, "in": place, "required": False, **described, "schema": schema}


def _responses(plan: Plan, verb: Verb, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    errors = {**OF_ALL, **(OF_ONE_JOB if JOB_ID in verb.suffix else {}), **ERRORS[verb.name]}
    found = {str(status): problem(text, schemas) for status, text in errors.items()}
    if verb.name == "submit":
        own = responses_of(plan, schemas, settings)
        declared = {status: own[status] for status in map(str, plan.route.about.get("responses", ()))}
        own.pop("504", None)  # the timeout is that of an attempt
        failed = problem("The job has failed: this is its error. Only with `Prefer: wait`.", schemas)
        return {**dict(sorted({**own, **found, **declared, **_accepted(own, schemas)}.items())), "default": failed}
    if any(map(is_credential, plan.guard_inputs)):
        found["401"] = problem("Credentials are missing or invalid.", schemas)
    if verb.name == "result":
        results = results_of(plan, schemas)
        failed = problem("The job has failed: this is its own error.", schemas)
        return {
            **{str(status): each for status, each in results.items()},
            **dict(sorted(found.items())),
            "default": failed,
        }
    return dict(sorted({**found, **dict(_answers(verb, schemas))}.items()))


def _accepted(own: dict[str, Any], schemas: Schemas) -> dict[str, Any]:
    """The job; or the result of the handler, if the client waits for it."""
    accepted = {"description": "The job is stored.", "headers": LOCATION, "content": _json(JobDocument, schemas)}
    waited = {
        status: {**each, "description": f"{each['description']} Only with `Prefer: wait`: the result of the job."}
        for status, each in own.items()
        if status.startswith("2")
    }
    return {**waited, "202": accepted}


def _answers(verb: Verb, schemas: Schemas) -> Iterator[tuple[str, Any]]:
    """The responses that are no errors."""
    if verb.name == "list":
        link = {"Link": {"description": "The next page (RFC 8288).", "schema": {"type": "string"}}}
        yield "200", {"description": "A page of jobs.", "headers": link, "content": _json(JobPage, schemas)}
    elif verb.name == "status":
        tag = {"ETag": {"description": "The version of the job.", "schema": {"type": "string"}}}
        event = {"type": "string", "contentMediaType": EVENTS_TYPE, "contentSchema": schemas.of(JobDocument)}
        content = {**_json(JobDocument, schemas), EVENTS_TYPE: {"schema": event}}
        yield "200", {"description": "The job.", "headers": tag, "content": content}
        yield "204", {"description": "The job has ended, and the client has its last event."}
        yield "304", {"description": "The job has not changed (`If-None-Match`)."}
    elif verb.name == "cancel":
        yield (
            "200",
            {"description": "The job is cancelled. It does not run any more.", "content": _json(JobDocument, schemas)},
        )
    else:
        yield "202", {"description": "It starts again.", "headers": LOCATION, "content": _json(JobDocument, schemas)}


LOCATION = {
    "Location": {"description": "Path of the job.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to ask for the job.", "schema": {"type": "integer"}},
}
EVENTS_TYPE = EVENTS.partition(";")[0]


def _json(kind: type, schemas: Schemas) -> dict[str, Any]:
    return {JSON: {"schema": schemas.of(kind)}}
