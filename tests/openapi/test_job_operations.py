"""job_operations.py: each verb of a job route is an operation, and the document is valid."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from job_services import JobService, header, job_service
from openapi_cases import described, operation
from tinysvc import Bearer, Header, Retry, io_resource, job_route
from tinysvc.binding.schemas import REF
from tinysvc.service.job_verbs import VERB, VERBS


@io_resource
def caller(token: Annotated[str, Bearer()]) -> str:
    return token


@job_route(
    "/users/{user}/trainings",
    pool="training",
    timeout=600,
    retry=Retry(attempts=2, wait=5),
    keep="1d",
    tags=["models"],
    responses={409: "The user trains already.", 503: "No time today."},
)
def train(user: int, rates: list[float], caller: str, depth: int = 3) -> dict[str, float]:
    """Fit a model.

    It takes an hour.
    """
    return {"rate": max(rates)}


@job_route("/cleanups", every="0 3 * * *", zone="Europe/Berlin")
def cleanup(idempotency_key: Annotated[str, Header()] = "") -> None: ...


def of(verb: str, *parts: Any) -> dict[str, Any]:
    """The operation of `train`, or of the first of the parts."""
    parts = parts or (train, caller)
    path = "/users/{user}/trainings" if parts[0] is train else "/cleanups"
    chosen = VERB[verb]  # type: ignore[index]
    return operation(*parts, path=chosen.path(path), method=chosen.method.lower())


def parameters(verb: str) -> list[str]:
    return [f"{each['in']} {each['name']}" for each in of(verb)["parameters"]]


def test_each_verb_is_an_operation_of_a_valid_document() -> None:
    found = described(train, cleanup, caller)
    validate(json.loads(json.dumps(found)))
    ids = [each["operationId"] for path in found["paths"].values() for each in path.values()]
    assert ids[:6] == ["train", "train_list", "train_status", "train_cancel", "train_result", "train_retry"]
    assert len(set(ids)) == 2 * len(VERBS)
    assert {"JobDocument", "JobPage", "AttemptDocument", "JobLinks"} <= set(found["components"]["schemas"])


def test_service_without_a_job_route_has_no_types_of_jobs() -> None:
    assert set(described(caller)["components"]["schemas"]) == {"Problem"}


def test_submit_has_the_parameters_of_the_handler() -> None:
    assert parameters("submit") == [
        *("path user", "query depth"),
        *("header Idempotency-Key", "header Prefer", "header Job-After", "header Job-Priority"),
    ]
    submit = of("submit")
    assert submit["requestBody"]["required"]
    assert submit["summary"] == "Fit a model."
    assert submit["description"].startswith("It takes an hour.\n\nThe job is stored before the response")
    assert submit["tags"][-1] == "models"


def test_other_verbs_take_the_path_and_the_guards_of_the_route() -> None:
    assert parameters("list") == ["path user", "query state", "query limit", "query cursor"]
    assert parameters("status") == ["path user", "path job_id", "header Last-Event-ID"]
    assert parameters("result") == ["path user", "path job_id", "header Prefer"]
    assert parameters("cancel") == parameters("retry") == ["path user", "path job_id"]
    for verb in VERBS:
        found = of(verb.name)
        assert found["security"] == [{"bearer": []}]
        assert "401" in found["responses"]
        assert ("requestBody" in found) is (verb.name == "submit")


def test_header_that_the_handler_reads_is_described_once() -> None:
    names = [each["name"].lower() for each in of("submit", cleanup)["parameters"]]
    assert names == ["idempotency-key", "prefer", "job-after", "job-priority"]


@pytest.mark.parametrize(
    ("verb", "statuses"),
    [
        ("submit", "200 202 400 401 409 413 415 422 503 507 default"),
        ("list", "200 400 401 422 503"),
        ("status", "200 204 304 400 401 404 410 503"),
        ("result", "200 400 401 404 410 503 default"),
        ("cancel", "200 400 401 404 409 410 503"),
        ("retry", "202 400 401 404 409 410 503"),
    ],
)
def test_statuses_of_each_verb(verb: str, statuses: str) -> None:
    assert " ".join(of(verb)["responses"]) == statuses


def test_content_of_each_response() -> None:
    document = {"schema": {"$ref": REF.format(name="JobDocument")}}
    assert of("submit")["responses"]["202"]["content"] == {"application/json": document}
    assert set(of("submit")["responses"]["202"]["headers"]) == {"Location", "Retry-After"}
    status = of("status")["responses"]["200"]["content"]
    assert status["application/json"] == document
    assert status["text/event-stream"]["schema"]["contentSchema"] == document["schema"]
    result = of("result")["responses"]["200"]["content"]["application/json"]["schema"]
    assert result["additionalProperties"]["type"] == "number"
    assert of("submit")["responses"]["200"]["content"]["application/json"]["schema"] == result
    assert "Only with `Prefer: wait`" in of("submit")["responses"]["200"]["description"]
    assert of("list")["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("JobPage")


def test_errors_that_the_author_declares_are_kept() -> None:
    assert of("submit")["responses"]["503"]["description"] == "No time today."
    assert of("cancel")["responses"]["503"]["description"].startswith("The store of jobs")


def test_result_of_a_handler_that_returns_none() -> None:
    assert "204" in of("submit", cleanup)["responses"]
    assert "204" in of("result", cleanup)["responses"]


def test_options_of_the_job_are_in_the_extension() -> None:
    assert of("cancel")["x-tinysvc"] == {
        "kind": "job",
        "job": "cancel",
        "pool": "training",
        "timeout": 600,
        "retry": {"attempts": 2, "wait": 5},
        "keep": 86400,
    }
    scheduled = of("submit", cleanup)["x-tinysvc"]
    assert (scheduled["every"], scheduled["zone"]) == ("0 3 * * *", "Europe/Berlin")


# Real responses are those of the document


@job_route("/sums", max_waiting=2)
def add(a: int, b: int = 1) -> dict[str, int]:
    return {"sum": a + b}


class Checked:
    """Sends requests to a service, and compares each response with the document."""

    def __init__(self, service: JobService) -> None:
        self._service = service
        self._document = described(add)
        self.seen: set[tuple[str, int]] = set()

    async def send(self, verb: str, job: str = "", query: str = "", **headers: str) -> dict[str, Any]:
        chosen = VERB[verb]  # type: ignore[index]
        path = chosen.path("/sums")
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self._service.send(chosen.method, path.replace("{job_id}", job) + query, headers=lines)
        operation = self._document["paths"][path][chosen.method.lower()]
        found = operation["responses"].get(str(response.status), operation["responses"].get("default"))
        assert found is not None, (verb, response.status, response.content)
        assert not response.content or response.content_type in found["content"]
        assert set(found.get("headers", ())) - {"Link"} <= {name.title() for name, _ in response.headers} | {"ETag"}
        self.seen.add((verb, response.status))
        if not response.content:
            return {}
        content: dict[str, Any] = json.loads(response.content)
        schema = {**found["content"][response.content_type]["schema"], "components": self._document["components"]}
        OAS31Validator(schema).validate(content)
        return content


@pytest.mark.asyncio
async def test_responses_are_those_of_the_document() -> None:
    async with job_service(add) as service:
        checked = Checked(service)
        job = (await checked.send("submit", query="?a=1", idempotency_key="k", job_priority="3", job_after="0"))["id"]
        await checked.send("submit", query="?a=x")
        await checked.send("submit", query="?a=2", idempotency_key="k")
        await checked.send("submit", query="?a=1", job_after="soon")
        await checked.send("submit", query="?a=1")
        await checked.send("submit", query="?a=1")
        for query in ("", "?state=queued&limit=1", "?limit=0"):
            await checked.send("list", query=query)
        for verb in ("status", "result", "retry"):
            await checked.send(verb, job)
            await checked.send(verb, "0" * 32)
        await service.fail({"type": "urn:x", "title": "No luck", "status": 500})
        await checked.send("result", job)
        await checked.send("retry", job)
        await service.succeed(b'{"sum":2}')
        await checked.send("result", job)
        await checked.send("submit", query="?a=1", idempotency_key="k", prefer="wait=5")
        await checked.send("cancel", job)
        other = (await checked.send("list", query="?state=queued"))["jobs"][0]["id"]
        await checked.send("cancel", other)
        await checked.send("result", other)
        await checked.send("status", other, accept="text/event-stream", last_event_id="999999")
        tag = header(await service.send("GET", f"/sums/{other}"), "etag")
        await checked.send("status", other, if_none_match=tag)
    statuses = {
        "submit": {200, 202, 400, 422, 503},
        "list": {200, 422},
        "status": {200, 204, 304, 404},
        "result": {200, 404, 410, 500},
        "cancel": {200, 409},
        "retry": {202, 404, 409},
    }
    assert checked.seen == {(verb, status) for verb, each in statuses.items() for status in each}
