"""rpc_errors.py: the status of an error response, as clients with google.rpc's own classes read it."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

import grpc
from tinysvc import HTTPError, QueueFull, Request, Response
from tinysvc.core.call_errors import BudgetExhausted
from tinysvc.core.errors import BindingError, TinysvcError
from tinysvc.core.responses import PROBLEM, problem_response
from tinysvc.grpc.rpc_errors import MAX_FAULTS, MAX_MESSAGE, PUSHBACK, RpcStatus, status_of

Code = grpc.StatusCode
REQUEST = Request("POST", "/", id="id-7")


def status_for(error: TinysvcError) -> RpcStatus:
    return status_of(problem_response(error, REQUEST))


def details_of(status: RpcStatus) -> Status:
    value = dict(status.metadata)["grpc-status-details-bin"]
    assert isinstance(value, bytes)
    return Status.FromString(value)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.INVALID_ARGUMENT),
        (401, Code.UNAUTHENTICATED),
        (403, Code.PERMISSION_DENIED),
        (404, Code.NOT_FOUND),
        (409, Code.ABORTED),
        (412, Code.FAILED_PRECONDITION),
        (413, Code.RESOURCE_EXHAUSTED),
        (418, Code.FAILED_PRECONDITION),
        (422, Code.INVALID_ARGUMENT),
        (429, Code.UNAVAILABLE),
        (499, Code.CANCELLED),
        (500, Code.INTERNAL),
        (502, Code.UNAVAILABLE),
        (503, Code.UNAVAILABLE),
        (504, Code.DEADLINE_EXCEEDED),
        (507, Code.RESOURCE_EXHAUSTED),
        (599, Code.INTERNAL),
    ],
)
def test_code_of_each_status(status: int, code: grpc.StatusCode) -> None:
    assert status_for(HTTPError(status, "because")).code is code


def test_every_error_status_has_an_error_code() -> None:
    for status in HTTPStatus:
        if status >= 400:
            assert status_for(HTTPError(status)).code is not Code.OK


@pytest.mark.parametrize("chosen", ["ALREADY_EXISTS", "already_exists", "6"])
def test_error_chooses_its_code(chosen: str) -> None:
    status = status_for(HTTPError(409, "It exists.", headers=[("grpc-status", chosen)]))
    assert status.code is Code.ALREADY_EXISTS
    assert "grpc-status" not in dict(status.metadata)


@pytest.mark.parametrize("chosen", ["OK", "0", "nonsense"])
def test_error_cannot_choose_success(chosen: str) -> None:
    assert status_for(HTTPError(409, headers=[("grpc-status", chosen)])).code is Code.ABORTED


def test_faults_of_a_message_are_a_bad_request() -> None:
    details = details_of(status_for(BindingError([("item.count", "not a number"), ("name", "missing")])))
    assert (details.code, details.message) == (3, "item.count: not a number; name: missing")
    found = BadRequest()
    assert details.details[1].Unpack(found)
    assert [(each.field, each.description) for each in found.field_violations] == [
        ("item.count", "not a number"),
        ("name", "missing"),
    ]


def test_error_info_has_kind_status_and_request_id() -> None:
    info = ErrorInfo()
    assert details_of(status_for(BudgetExhausted("used up"))).details[0].Unpack(info)
    assert (info.reason, info.domain) == ("budget-exhausted", "tinysvc")
    assert dict(info.metadata) == {"status": "504", "request_id": "id-7"}


def test_retry_after_is_pushback() -> None:
    error = QueueFull("12 jobs wait already", retry_after=3)
    error.never_started = True
    status = status_for(error)
    assert (status.code, dict(status.metadata)[PUSHBACK]) == (Code.UNAVAILABLE, "3000")
    info, retry = ErrorInfo(), RetryInfo()
    details = details_of(status)
    assert details.details[0].Unpack(info)
    assert info.metadata["started"] == "false"
    assert details.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 3


def test_malformed_retry_after_is_no_pushback() -> None:
    for value in ("soon", "-1", "9" * 30):
        status = status_of(Response("", 503, {"retry-after": value}))
        assert PUSHBACK not in dict(status.metadata)


def test_details_of_internal_errors_stay_in_the_log() -> None:
    assert status_for(TinysvcError("secret")).message == "Internal Server Error"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response(b"wrong host", 421, content_type="text/plain; charset=utf-8"), "wrong host"),
        (Response(b'{"fields": []}', 400, content_type="application/json"), '{"fields": []}'),
        (Response(b"<p>no</p>", 400, content_type="text/html"), "HTTP status 400"),
        (Response(b"[1]", 400, content_type=PROBLEM), "HTTP status 400"),
        (Response(b"{", 400, content_type=PROBLEM), "HTTP status 400"),
        (Response(b"\xff", 400, content_type="text/plain"), "HTTP status 400"),
        (Response(iter(()), 400), "HTTP status 400"),
    ],
)
def test_message_of_an_authors_response(response: Response, message: str) -> None:
    assert status_of(response).message == message


@pytest.mark.parametrize("letter", ["f", "ü", "模", "\ud800"])
def test_status_fits_into_the_metadata_that_clients_take(letter: str) -> None:
    """8 KiB by default. The message is percent-encoded, and the details are base64."""
    status = status_of(problem_response(BindingError([(letter * 1000, letter * 5000)] * 100), REQUEST))
    details = details_of(status)
    found = BadRequest()
    assert details.details[1].Unpack(found)
    assert len(found.field_violations) == MAX_FAULTS
    assert len(quote(status.message)) <= MAX_MESSAGE
    assert len(quote(status.message)) + len(details.SerializeToString()) * 4 / 3 < 7000
