"""HTTP/1.1 without a socket: each wire case in five cuts, the states, and the bytes of responses."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_ends import PLACES, cut, get, post, post_chunked
from tinysvc.core.errors import ProtocolError, UnencodableResult
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.core.settings import Settings
from tinysvc.wire.connection import BODY, CLOSED, DONE, HEAD, IDLE, ServerConnection, has_no_body
from wire_cases import EDITS, LIMITS, STREAMS, Case, edited, for_each_case, thorough

DATE = b"date: now\r\n\r\n"


class Seen(NamedTuple):
    """A request that was taken whole, or the refusal of one."""

    status: int
    method: str = ""
    target: str = ""
    body: bytes = b""


def fed(pieces: Iterable[bytes], **options: object) -> list[Seen]:
    """The requests in the pieces, each responded to with 200, up to the first refusal or close."""
    wire = ServerConnection(Settings(**{**LIMITS, **options}))
    seen: list[Seen] = []
    request: Request | None = None
    body = bytearray()
    for piece in pieces:
        wire.receive(piece)
        try:
            while wire.incoming != CLOSED:
                if request is None:
                    request, body = wire.next_request(), bytearray()
                    if request is None:
                        break
                if wire.body is not None:
                    data, wire.buffer = wire.buffer, b""
                    took = _take_all(wire, data)
                    body += took
                    if wire.body is not None:
                        break
                whole = bytes(body) or body_of(request)
                seen.append(Seen(200, request.method, f"{request.raw_path}?{request.raw_query}", whole))
                wire.head(request, Response(b""), b"", DATE)
                request = None
                if not wire.end_response():
                    return seen
        except ProtocolError as error:
            assert wire.incoming == CLOSED
            return [*seen, Seen(error.status)]
    return seen


def body_of(request: Request) -> bytes:
    """The body that came whole with its head."""
    body = request._body
    assert isinstance(body, bytes)
    return body


def _take_all(wire: ServerConnection, data: bytes) -> bytes:
    if wire.body is not None and wire.body.length is not None and wire.body.length > wire.body.max_size:
        wire.incoming = CLOSED
        raise ProtocolError(413, "The shell refuses a body that is declared too long.")
    taken = wire.take_piece(data)
    while wire.body is not None and wire.body.has_more:
        taken += wire.take_piece(b"")
    return taken


def whole(data: bytes) -> list[bytes]:
    return [data]


def by_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def by_pairs(data: bytes) -> list[bytes]:
    return [data[i : i + 2] for i in range(0, len(data), 2)]


def at_random(data: bytes) -> list[bytes]:
    return cut(data, sorted(random.Random(len(data)).choices(range(len(data) + 1), k=5)))


UNREAD = (b"/unread", b"/careless", b"/streamed")
"""Targets whose bodies the application of the wire cases treats in its own way; here each body is read."""


@for_each_case
def test_cuts_do_not_matter(case: Case) -> None:
    """Five cuts: whole, bytes, pairs, random pieces, and with a request behind. The verdict is the case's own."""
    expected = fed(whole(case.sent))
    statuses = [200 if status < 400 else status for status in case.statuses]
    if "eof" in case.words:  # the end of file, which the shell reports, is part of the verdict
        statuses = statuses[: len(expected)]
    assert [each.status for each in expected] == statuses or any(target in case.sent for target in UNREAD)
    for each in (by_bytes, by_pairs, at_random):
        assert fed(each(case.sent)) == expected, each.__name__
    longer = case.sent + get("/behind")
    seen = fed(whole(longer))
    if "eof" in case.words:  # the request is incomplete, and goes on with these bytes
        assert fed(by_pairs(longer)) == seen
    else:
        assert seen[: len(expected)] == expected
        assert [each.target for each in seen[len(expected) :]] == ([] if case.closes else ["/behind?"])


@thorough
@given(stream=STREAMS, edits=EDITS, places=PLACES)
def test_cuts_of_damaged_streams_do_not_matter(
    stream: bytes, edits: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    stream = edited(stream, edits)
    assert fed(cut(stream, places)) == fed(whole(stream))


@thorough
@given(pieces=st.lists(st.binary(max_size=80), max_size=8))
def test_any_bytes_are_requests_or_one_refusal(pieces: list[bytes]) -> None:
    seen = fed(pieces)
    assert all(each.status == 200 for each in seen[:-1])


# States


def connection(sent: bytes, **options: object) -> ServerConnection:
    wire = ServerConnection(Settings(**options))  # type: ignore[arg-type]
    wire.receive(sent)
    return wire


def taken(wire: ServerConnection) -> Request:
    request = wire.next_request()
    assert request is not None
    return request


def test_request_goes_through_its_states() -> None:
    wire = connection(b"POST / HTTP/1.1\r\n")
    assert wire.incoming == IDLE
    assert wire.next_request() is None
    assert wire.incoming == HEAD
    wire.receive(b"Host: x\r\nContent-Length: 3\r\n\r\na")
    taken(wire)
    assert wire.incoming == BODY
    assert repr(wire) == "<ServerConnection: request in its body, response idle>"
    data, wire.buffer = wire.buffer + b"bcGET", b""
    assert wire.take_piece(data) == b"abc"
    assert wire.incoming == DONE
    assert wire.buffer == b"GET"


def test_both_messages_are_done_before_the_next_request() -> None:
    wire = connection(get() + get("/next"))
    wire.head(taken(wire), Response(b""), b"content-length: 0\r\n", DATE)
    assert (wire.incoming, wire.outgoing) == (DONE, BODY)
    assert wire.end_response()
    assert (wire.incoming, wire.outgoing) == (IDLE, IDLE)
    assert taken(wire).raw_path == "/next"


def test_response_before_the_end_of_its_request_closes() -> None:
    wire = connection(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
    wire.head(taken(wire), Response(b""), b"", DATE)
    assert not wire.end_response()
    assert wire.incoming == wire.outgoing == CLOSED


def test_last_request_is_counted() -> None:
    wire = connection(get() * 3, max_requests=2)
    taken(wire)
    assert wire.is_plain
    assert wire.end_response()
    last = taken(wire)
    assert not wire.is_plain
    assert b"connection: close\r\n" in wire.head(last, Response(b""), b"", DATE)
    assert not wire.end_response()


def test_close_after_counts_from_now() -> None:
    wire = connection(get() * 3)
    taken(wire)
    wire.close_after(1)
    assert wire.keep_alive
    assert wire.end_response()
    taken(wire)
    assert not wire.keep_alive
    wire.close_after(0)
    assert not wire.end_response()


@pytest.mark.parametrize("sent", [b"GET /\0 HTTP/1.1\r\n\r\n", post_chunked(b"abc").replace(b"3\r\n", b"z\r\n")])
def test_closed_connection_takes_no_request(sent: bytes) -> None:
    wire = connection(get())
    request = taken(wire)
    wire.plain_response(request, Response(b""), DATE)
    wire.receive(sent)
    step = (lambda: wire.take_piece(wire.buffer)) if b"POST" in sent and wire.next_request() else wire.next_request
    with pytest.raises(ProtocolError):
        step()
    wire.buffer = get()  # the usual head, which is not parsed again
    assert wire.next_request() is None
    assert wire.incoming == CLOSED


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_refusal_is_the_last_response(method: str) -> None:
    wire = connection(get("/", method=method) + get())
    sent = wire.refusal(ProtocolError(400, "No."), taken(wire), DATE)
    assert sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close\r\n" in sent
    assert sent.endswith(DATE) == (method == "HEAD")
    assert not wire.end_response()
    assert wire.next_request() is None


def test_repeated_header_block_is_not_parsed_again() -> None:
    wire = connection(get() + get("/other"))
    first = taken(wire)
    wire.end_response()
    assert taken(wire).headers is first.headers


def test_long_header_block_is_not_kept() -> None:
    long = get("/", *(f"X-{number}: {'a' * 100}" for number in range(30)))
    wire = connection(get() + long + long)
    for _ in range(2):
        first = taken(wire)
        wire.end_response()
    assert taken(wire).headers is not first.headers


def test_offer_to_change_protocols_is_not_plain() -> None:
    wire = connection(get("/", "Connection: upgrade", "Upgrade: websocket"))
    taken(wire)
    assert wire.offers_upgrade
    assert not wire.is_plain


@pytest.mark.parametrize(("more", "plain"), [([], True), (["Connection: close"], False)])
def test_request_with_a_timeout_may_be_plain_when_it_was_taken(more: list[str], plain: bool) -> None:
    wire = connection(get("/", "Request-Timeout: 2s", *more))
    request = taken(wire)
    assert not wire.is_plain
    assert wire.take_timeout(request) == 2
    assert wire.is_plain == plain
    wire = connection(get("/", "Connection: close"))
    assert wire.take_timeout(taken(wire)) is None
    assert not wire.is_plain


def test_whole_body_comes_with_its_request() -> None:
    wire = connection(post(b"hello") + get())
    assert body_of(taken(wire)) == b"hello"
    assert wire.body is None
    assert wire.is_plain


def test_limit_holds_for_a_chunked_body() -> None:
    wire = connection(post_chunked(b"abc"))
    taken(wire)
    assert wire.body is not None
    assert wire.body.left < 1
    assert wire.body.held == 0
    wire.body.limit(2)
    data, wire.buffer = wire.buffer, b""
    with pytest.raises(ProtocolError, match="longer than 2 bytes"):
        wire.take_piece(data)
    assert wire.incoming == CLOSED


def test_limit_of_a_body_whose_length_is_declared() -> None:
    wire = connection(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
    taken(wire)
    assert wire.body is not None
    wire.body.limit(2)
    assert (wire.body.length, wire.body.max_size, wire.body.left) == (3, 2, 3)


# Responses


def responding(method: str = "GET", version: str = "1.1", **options: object) -> tuple[ServerConnection, Request]:
    wire = connection(f"{method} / HTTP/{version}\r\nHost: x\r\n\r\n".encode(), **options)
    return wire, taken(wire)


def test_plain_response_is_the_general_one() -> None:
    wire, request = responding()
    response = Response(b"{}", content_type="application/json", headers=[("x-a", "b")])
    plain = wire.plain_response(request, response, DATE)
    assert plain == wire.head(request, response, b"content-length: 2\r\n", DATE) + b"{}"
    long = Response(b"a" * 5000)
    assert b"content-length: 5000\r\n" in wire.plain_response(request, long, DATE)


def test_response_to_http_1_0_declares_keep_alive() -> None:
    wire = connection(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"connection: keep-alive\r\n" in wire.head(taken(wire), Response(b""), b"", DATE)


def test_response_426_has_an_upgrade_header() -> None:
    wire, request = responding()
    assert b"connection: upgrade\r\n" in wire.head(
        request, Response(b"", 426, headers={"upgrade": "websocket"}), b"", DATE
    )


def test_stream_of_unknown_length_is_chunked() -> None:
    wire, request = responding()
    assert b"transfer-encoding: chunked\r\n" in wire.begin_stream(request, Response(b""), DATE)
    assert not wire.has_declared_length
    wire.count(3)
    assert wire.piece(b"abc") == b"3\r\nabc\r\n"
    assert wire.end_of_stream() == b"0\r\n\r\n"
    assert wire.end_response()


def test_stream_of_unknown_length_ends_an_http_1_0_connection() -> None:
    wire = connection(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    head = wire.begin_stream(taken(wire), Response(b""), DATE)
    assert b"chunked" not in head
    assert wire.piece(b"abc") == b"abc"
    assert wire.end_of_stream() == b""
    assert not wire.end_response()


async def nothing() -> AsyncIterator[bytes]:
    return
    yield


def test_declared_length_is_kept() -> None:
    wire, request = responding()
    wire.begin_stream(request, Response(nothing(), headers={"content-length": "3"}), DATE)
    assert wire.has_declared_length
    wire.count(2)
    with pytest.raises(UnencodableResult, match="1 bytes shorter"):
        wire.end_of_stream()
    with pytest.raises(UnencodableResult, match="1 bytes, or more, longer"):
        wire.count(2)


def test_declared_length_of_no_body_is_left_out() -> None:
    wire, request = responding()
    head = wire.begin_stream(request, Response(nothing(), 304, headers={"content-length": "3"}), DATE)
    assert b"content-length" not in head
    assert wire.end_response()


@pytest.mark.parametrize(("status", "expected"), [(200, False), (204, True), (304, True)])
def test_statuses_without_a_body(status: int, expected: bool) -> None:
    assert has_no_body(status) is expected


@pytest.mark.parametrize(
    ("headers", "authorization", "private"),
    [
        ([("cache-control", "max-age=60"), ("set-cookie", "a=b")], "", True),
        ([("cache-control", "public")], "Authorization: Bearer x", True),
        ([("cache-control", "max-age=60")], "", False),
        ([("cache-control", "no-store"), ("set-cookie", "a=b")], "", False),
    ],
)
def test_shared_caches_keep_nothing_of_one_client(
    headers: list[tuple[str, str]], authorization: str, private: bool
) -> None:
    wire = connection(get("/", *([authorization] if authorization else [])))
    response = Response(b"", headers=headers)
    head = wire.plain_response(taken(wire), response, DATE)
    assert (b"private" in head) is private
    assert response.headers == headers
