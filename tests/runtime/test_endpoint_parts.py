"""endpoint_parts.py: the request that a message is about, and the response of an error, as all endpoints make them."""

from __future__ import annotations

import orjson
import pytest

from tinysvc import HTTPError, Request, Response
from tinysvc.core.call_errors import CallFailed
from tinysvc.core.requests import Peer
from tinysvc.runtime.cpu_messages import RequestMessage
from tinysvc.runtime.endpoint_parts import error_response_of, request_of


def message(*headers: tuple[bytes, bytes]) -> RequestMessage:
    peer = Peer(["127.0.0.1", 1], None, "http")
    return RequestMessage(0, "PUT", "/a%20b", "c=d", {"x": "1"}, list(headers), peer, "id-1", b"pickle")


def test_request_has_all_that_the_message_says() -> None:
    request = request_of(message((b"x-a", b"b")), b"body", False)
    assert (request.method, request.path, request.query, request.id) == ("PUT", "/a b", {"c": ["d"]}, "id-1")
    assert (request.path_params, request.client, request.resources) == ({"x": "1"}, ("127.0.0.1", 1), b"pickle")


@pytest.mark.parametrize(("compresses", "tag"), [(True, '"t"'), (False, 'W/"t"')])
def test_tag_of_a_compressed_response_is_strong_again(compresses: bool, tag: str) -> None:
    request = request_of(message((b"if-match", b'W/"t"')), b"", compresses)
    assert request.headers["if-match"] == tag


def test_errors_that_a_client_may_know_have_a_response(caplog: pytest.LogCaptureFixture) -> None:
    request = Request("GET", "/", id="id-1")
    found = error_response_of(HTTPError(404, "no"), request, {})
    assert found is not None
    assert (found.status, orjson.loads(found.content)["detail"]) == (404, "no")
    failed = error_response_of(CallFailed("inference has failed"), request, {})
    assert failed is not None
    assert failed.status == 502
    assert "inference has failed" in caplog.text
    assert error_response_of(ValueError("secret"), request, {}) is None


def test_error_handler_of_the_author_comes_first() -> None:
    def teapot(request: Request, error: Exception) -> Response:
        return Response("tea", 418)

    found = error_response_of(ValueError(), Request("GET", "/"), {ValueError: teapot})
    assert found is not None
    assert found.status == 418
