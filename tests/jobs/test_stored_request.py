"""stored_request.py: the parts of a request that are kept on the disk."""

from __future__ import annotations

from typing import Annotated

import pytest

from tinysvc import Header, Request
from tinysvc.binding.binder import Binder
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Peer
from tinysvc.jobs.stored_request import RequestStorage, StoredRequest, decode_request, digest_of, encode_request

SENT = [
    (b"host", b"shop.example"),
    (b"authorization", b"Bearer secret"),
    (b"content-type", b"application/json"),
    (b"x-team", b"blue"),
    (b"traceparent", b"00-1-2-00"),
    (b"accept-encoding", b"gzip"),
    (b"prefer", b"wait=10"),
]


def handler(count: int, team: Annotated[str, Header("X-Team")]) -> None: ...


def handler_of_request(request: Request) -> None: ...


def kept(function: object, request: Request) -> StoredRequest:
    return decode_request(RequestStorage(Binder(function)).encoded(request))  # type: ignore[arg-type]


def test_stored_request_is_the_sent_one() -> None:
    peer = Peer(("127.0.0.1", 4711), ("127.0.0.1", 80), "https", "", "/api")
    request = Request("POST", "/a%20b", "count=1", Headers(SENT), b"{}", {"user": "a b"}, peer, "id-7")
    request.resources = b"pickle"
    found = kept(handler, request)
    assert (found.method, found.path, found.query, found.path_params) == ("POST", "/a%20b", "count=1", {"user": "a b"})
    assert (found.id, found.resources) == ("id-7", b"pickle")
    assert found.peer == Peer(["127.0.0.1", 4711], ["127.0.0.1", 80], "https", "shop.example", "/api")


def test_only_headers_that_the_handler_reads_are_stored() -> None:
    request = Request("POST", "/", headers=Headers(SENT))
    assert {name for name, _ in kept(handler, request).headers} == {b"content-type", b"x-team", b"traceparent"}


def test_handler_of_the_request_has_all_headers_but_those_of_the_response() -> None:
    names = {name for name, _ in kept(handler_of_request, Request("POST", "/", headers=Headers(SENT))).headers}
    assert names == {b"host", b"authorization", b"content-type", b"x-team", b"traceparent"}


def test_digest_depends_on_each_part_of_the_request() -> None:
    requests = [
        (Request("POST", "/a"), b""),
        (Request("POST", "/a"), b"1"),
        (Request("POST", "/a", "q=1"), b""),
        (Request("POST", "/b"), b""),
        (Request("POST", "/a", headers=Headers([(b"content-type", b"text/csv")])), b""),
    ]
    assert len({digest_of(*each) for each in requests}) == len(requests)
    assert digest_of(*requests[0]) == digest_of(Request("POST", "/a", id="other"), b"")


def test_record_that_is_no_request_is_a_value_error() -> None:
    assert decode_request(encode_request(StoredRequest(method="POST", path="/"))).peer.scheme == "http"
    with pytest.raises(ValueError, match="method"):
        decode_request(b"\x80")
