"""durable_endpoints.py: one attempt of a durable job in a worker, and how its end is classified."""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson
import pytest

import durable_handlers as app
from tinysvc import HTTPError, Job, Request, Response, cpu_route
from tinysvc.core.call_errors import CallFailed
from tinysvc.core.requests import Peer
from tinysvc.pool.program import JobFunction, Reply
from tinysvc.pool.questions import asking
from tinysvc.runtime.cpu_endpoints import CpuProgram
from tinysvc.runtime.cpu_messages import AttemptFailure, DurableMessage, DurableReply, RequestMessage
from tinysvc.runtime.endpoint_parts import Durable, Endpoint
from tinysvc.runtime.job_messages import JobAnswer, ProgressReport

JOB = "ab" * 16


def missing(request: Request, error: Any) -> Response:
    return Response("gone", 410)


def mended(request: Request, error: Any) -> Response:
    return Response({"mended": True})


def broken(request: Request, error: Any) -> Response:
    raise OSError("of the error handler")


def call_fails() -> None:
    raise CallFailed("inference has failed")


def needs_user(user: str) -> str:
    return user


FUNCTIONS: list[tuple[Any, dict[str, Any]]] = [
    (app.train, {"resources": {"table": app.table, "weights": app.weights}, "shared": frozenset({"weights"})}),
    (app.of_user, {"path_parameters": ("user",)}),
    (app.fail, {"path_parameters": ("how",)}),
    (app.fail, {"path_parameters": ("how",), "error_handlers": {KeyError: missing, ValueError: mended}}),
    (app.fail, {"path_parameters": ("how",), "error_handlers": {ValueError: broken}}),
    (call_fails, {}),
    (needs_user, {"request_resources": frozenset({"user"})}),
    (app.plain, {}),
]


@pytest.fixture(scope="module")
def program() -> Iterator[JobFunction]:
    endpoints = [
        Endpoint(
            **{"function": function, "path_parameters": (), "resources": {}, **options},
            path=f"/{number}",
            durable=Durable(200_000),
        )
        for number, (function, options) in enumerate(FUNCTIONS)
    ]
    with CpuProgram(endpoints)() as run_job:
        yield run_job


class Asked:
    def __init__(self) -> None:
        self.questions: list[Any] = []

    def ask(self, question: Any, body: bytes) -> tuple[Any, bytes]:
        self.questions.append(question if isinstance(question, ProgressReport) else pickle.loads(body))
        return JobAnswer(), b""


@pytest.fixture
def asked() -> Iterator[Asked]:
    asked = Asked()
    token = asking.set(asked.ask)
    yield asked
    asking.reset(token)


def run(
    program: JobFunction,
    endpoint: int,
    body: bytes = b"",
    saved: bytes | None = None,
    resources: bytes | None = None,
    start_by: float | None = None,
    **path: str,
) -> Reply:
    headers = [(b"content-type", b"application/json"), (b"x-tag", b"blue")]
    request = RequestMessage(endpoint, "POST", "/", "", path, headers, Peer(None, None, "http"), "id-7", resources)
    message = DurableMessage(request, JOB, 2, len(body), saved is not None, start_by)
    return program(message, body + (saved or b""))


def failure_of(reply: Reply) -> AttemptFailure:
    assert reply.meta.failure is not None, reply
    failure: AttemptFailure = reply.meta.failure
    return failure


def test_result_is_the_response_of_the_handler(program: JobFunction, asked: Asked) -> None:
    reply = run(program, 0, b'{"epochs": 2}')
    assert reply.meta == DurableReply(200, "application/json", [])
    assert orjson.loads(bytes(reply.body)) == {"from": 0, "id": JOB, "attempt": 2, "rows": 3, "w": 7}  # type: ignore[arg-type]
    assert asked.questions == [ProgressReport(0.5, {"epoch": 0}), 1, 2, ProgressReport(1.0, {"epoch": 1})]


def test_attempt_goes_on_where_an_earlier_one_has_saved(program: JobFunction, asked: Asked) -> None:
    reply = run(program, 0, b'{"epochs": 2}', pickle.dumps(1))
    assert orjson.loads(bytes(reply.body))["from"] == 1  # type: ignore[arg-type]


def test_response_keeps_its_status_and_its_headers(program: JobFunction, asked: Asked) -> None:
    reply = run(program, 1, b"abc", user="7")
    assert reply.meta == DurableReply(201, "application/json", [("x-made", "yes")])
    assert reply.body == b'{"user":7,"size":3,"tag":"blue"}'


def test_handler_without_parameters_runs(program: JobFunction, asked: Asked) -> None:
    assert run(program, 7, b"ignored").body == b"done"


def test_values_of_request_resources_are_those_of_the_stored_request(program: JobFunction, asked: Asked) -> None:
    assert run(program, 6, resources=pickle.dumps({"user": "Ada"})).body == b"Ada"


@pytest.mark.parametrize(
    ("run_it", "words"),
    [
        (partial(run, endpoint=0, body=b'{"epochs": "many"}'), r"\$\.epochs"),
        (partial(run, endpoint=0, body=b"{"), "JSON"),
        (partial(run, endpoint=1, user="x"), "user"),
        (partial(run, endpoint=6), "its resource user is new"),
        (partial(run, endpoint=6, resources=b"no pickle"), "unpickl|pickle|load key"),
    ],
    ids=["type", "body", "path", "resource", "class of a resource"],
)
def test_request_of_an_older_version_no_longer_fits(
    program: JobFunction, asked: Asked, run_it: Any, words: str
) -> None:
    failure = failure_of(run_it(program))
    assert (failure.cause, failure.is_final, failure.counts) == ("arguments-no-longer-fit", True, False)
    assert failure.problem["type"] == "urn:tinysvc:arguments-no-longer-fit"
    assert re.search(words, failure.detail)
    assert "detail" not in failure.problem


@pytest.mark.parametrize(
    ("how", "cause", "is_final", "status", "detail"),
    [
        ("value", "error", False, 500, "ValueError: no luck"),
        ("404", "error", True, 404, "tinysvc.core.errors.HTTPError: "),
        ("503", "error", False, 503, "tinysvc.core.errors.HTTPError: "),
        ("huge", "unencodable", True, 500, "the result has 300000 bytes; max_result_size is 200000"),
        ("object", "unencodable", True, 500, "object"),
        ("iterator", "unencodable", True, 500, "stored as a whole"),
        ("file", "unencodable", True, 500, "stored as a whole"),
        ("header", "unencodable", True, 500, "x-a"),
        ("key", "error", False, 500, "KeyError: 'id-7'"),
    ],
)
def test_end_of_an_attempt_says_whether_another_one_makes_sense(
    program: JobFunction, asked: Asked, how: str, cause: str, is_final: bool, status: int, detail: str
) -> None:
    failure = failure_of(run(program, 2, how=how))
    assert (failure.cause, failure.is_final, failure.counts) == (cause, is_final, True)
    assert failure.problem["status"] == status
    assert detail in failure.detail
    assert "no luck" not in str(failure.problem)


def test_problem_of_an_http_error_is_that_of_the_job(program: JobFunction, asked: Asked) -> None:
    failure = failure_of(run(program, 2, how="404"))
    assert failure.problem == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "That is why."}
    assert failure.error is None  # nothing for the log


def test_traceback_of_an_error_travels_for_the_log(program: JobFunction, asked: Asked) -> None:
    error = failure_of(run(program, 2, how="value")).error
    assert error is not None
    assert "no luck" in error.traceback


def test_unreadable_save_fails_the_job(program: JobFunction, asked: Asked) -> None:
    failure = failure_of(run(program, 2, saved=pickle.dumps(app.Gone()), how="saved"))
    assert (failure.cause, failure.is_final, failure.counts) == ("saved-unreadable", True, False)
    assert "old_models" in failure.detail


def test_attempt_does_not_start_when_its_lease_is_over(program: JobFunction, asked: Asked) -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    failure = failure_of(run(program, 7, start_by=now))
    assert (failure.cause, failure.is_final, failure.counts) == ("not-started", False, False)
    assert run(program, 7, start_by=now + 60).body == b"done"


def test_memory_error_ends_the_worker(program: JobFunction, asked: Asked) -> None:
    with pytest.raises(MemoryError):
        run(program, 2, how="memory")


def test_error_handlers_make_the_response_of_an_error(program: JobFunction, asked: Asked) -> None:
    failure = failure_of(run(program, 3, how="key"))
    assert (failure.is_final, failure.problem["status"], failure.problem["title"]) == (True, 410, "Gone")
    assert run(program, 3, how="value").body == b'{"mended":true}'
    failure = failure_of(run(program, 4, how="value"))
    assert (failure.is_final, failure.detail) == (False, "OSError: of the error handler")


def test_failed_call_may_be_repeated(program: JobFunction, asked: Asked) -> None:
    failure = failure_of(run(program, 5))
    assert (failure.cause, failure.is_final, failure.problem["status"]) == ("error", False, 502)


def test_job_of_another_request_is_unchanged() -> None:
    @cpu_route("/")
    def handler(job: Job) -> str:
        return job.id

    assert handler(Job(id="x")) == "x"
    with pytest.raises(HTTPError):
        app.fail("404", Job(), Request("POST", "/"))
