"""rpc_statuses.py: the status of an RPC as the error response that HTTP would have brought."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.client.rpc_statuses import details_in, problem_of, response_of
from tinysvc.core.errors import BindingError, HTTPError, TinysvcError
from tinysvc.core.requests import Request
from tinysvc.core.responses import problem_response
from tinysvc.grpc.rpc_errors import code_of, status_of


def sent(error: TinysvcError) -> tuple[str, str, bytes | None]:
    """The status that a server sends for an error: the name of its code, its message and its details."""
    response = problem_response(error, Request("POST", "/"))
    status = status_of(response)
    return status.code.name, status.message, details_in(status.metadata)


def test_status_of_a_tinysvc_server_says_all_that_http_says() -> None:
    error = HTTPError(409, "It has moved.", headers=[("retry-after", "7"), ("www-authenticate", "Bearer")])
    status, problem, headers = problem_of(*sent(error))
    assert (status, problem["detail"], problem["status"]) == (409, "It has moved.", 409)
    assert headers == {"retry-after": "7", "www-authenticate": "Bearer"}


def test_further_members_of_the_problem_document_travel() -> None:
    class Moved(HTTPError):
        def problem(self) -> dict[str, object]:
            return {**super().problem(), "to": ["a", 1]}

    assert problem_of(*sent(Moved(409, "no")))[1]["to"] == ["a", 1]


def test_places_of_wrong_arguments_travel() -> None:
    _, problem, _ = problem_of(*sent(BindingError([("point.x", "is no number"), ("by", "is missing")])))
    assert problem["errors"] == [
        {"place": "point.x", "detail": "is no number"},
        {"place": "by", "detail": "is missing"},
    ]


@pytest.mark.parametrize(
    ("code", "status"), [("NOT_FOUND", 404), ("UNAVAILABLE", 503), ("INTERNAL", 500), ("DATA_LOSS", 500), ("NEW", 500)]
)
def test_code_alone_says_the_status(code: str, status: int) -> None:
    assert problem_of(code, "why", None) == (status, {"detail": "why", "status": status}, {})


@pytest.mark.parametrize("status", [401, 403, 404, 409, 412, 422, 500, 501, 503, 504])
def test_codes_and_statuses_are_inverse(status: int) -> None:
    assert problem_of(code_of(status, {}).name, "", None)[0] == status


def test_response_has_the_problem_as_its_body_and_the_metadata_as_headers() -> None:
    status, headers, body = response_of("NOT_FOUND", "no", [("x-own", "1"), ("trace-bin", b"\0\1")])
    assert (status, json.loads(body)) == (404, {"detail": "no", "status": 404})
    assert (headers["content-type"], headers["x-own"], headers["trace-bin"]) == (
        "application/problem+json",
        "1",
        "AAE=",
    )
    assert int(headers["content-length"]) == len(body)


@given(st.binary(max_size=60))
def test_any_details_of_a_server_are_read_as_far_as_they_can_be(details: bytes) -> None:
    assert problem_of("ABORTED", "no", details)[0] == 409


@given(st.data())
def test_cut_or_changed_details_are_no_error(data: st.DataObject) -> None:
    code, message, details = sent(BindingError([("a", "b")]))
    assert details is not None
    place = data.draw(st.integers(0, len(details) - 1))
    changed = details[:place] + data.draw(st.binary(max_size=2)) + details[place + 1 :]
    assert problem_of(code, message, changed)[0] >= 400
    assert problem_of(code, message, details[:place])[0] == 422
