"""job_operations.py: each verb of a job route is an operation, and the document is valid."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from openapi_spec_validator import validate

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


def test_submitting_takes_what_the_handler_takes() -> None:
    assert parameters("submit") == [
        *("path user", "query depth"),
        *("header Idempotency-Key", "header Prefer", "header Job-After", "header Job-Priority"),
    ]
    submit = of("submit")
    assert submit["requestBody"]["required"]
    assert submit["summary"] == "Fit a model."
    assert submit["description"].startswith("It takes an hour.\n\nThe job is stored before the response")
    assert submit["tags"][-1] == "models"


def test_other_verbs_take_the_path_and_what_guards_the_route() -> None:
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
        ("list", "200 401 422 503"),
        ("status", "200 204 304 401 404 410 503"),
        ("result", "200 401 404 410 503 default"),
        ("cancel", "200 401 404 409 410 503"),
        ("retry", "202 401 404 409 410 503"),
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
