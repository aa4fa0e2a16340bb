"""Compared with h11: bytes that both accept are the same request to both.

h11 takes some things that we refuse (docs/http.md says which), and refuses a few that we take. There nothing is
compared, nor behind it, as one of the two has closed.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import h11
from hypothesis import given
from hypothesis import strategies as st

from fuzz.target import REAL, App, Behaviour, Plan, converse
from http_ends import BIG, chunked, cut, get, post
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.core.settings import Settings
from wire_cases import CASES, EDITS, STREAMS, Case, edited, for_each_case, thorough

PLACES = st.lists(st.integers(0, 2000), max_size=4)


class Read(NamedTuple):
    """A request, as one of the two has read it."""

    method: bytes
    target: bytes
    version: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    keeps: bool  # the connection, if its handler does

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value!r}" for name, value in self._asdict().items())


def read_by_h11(pieces: list[bytes]) -> list[Read]:
    """All complete requests before the first one that h11 refuses."""
    connection: Any = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    found: list[Read] = []
    for piece in pieces:
        connection.receive_data(piece)
    try:
        while request := next_request(connection):
            found.append(request)
            connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                break
            connection.start_next_cycle()
    except h11.RemoteProtocolError:
        pass
    return found


def next_request(connection: Any) -> Read | None:
    head, body = None, b""
    while (event := connection.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
        if isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            keeps = connection.our_state is not h11.MUST_CLOSE and connection.their_state is not h11.MUST_CLOSE
            return Read(head.method, head.target, b"HTTP/" + head.http_version, list(head.headers), body, keeps)
        else:
            assert isinstance(event, h11.ConnectionClosed), event
            break
    return None


def read_by_us(pieces: list[bytes]) -> list[Read]:
    """The same by our engine; its responses show whether it would take another request."""
    bodies: list[bytes] = []

    async def reads(app: App, request: Request, number: int) -> Response:
        bodies.append(await request.body())
        return Response(b"")

    steps = tuple((len(piece), "rest") for piece in pieces)
    answers, app = converse(Plan(Settings(), [Behaviour(reads)], REAL, steps=steps), b"".join(pieces), [])
    return [
        Read(
            request.method.encode(),
            (request.raw_path + (f"?{request.raw_query}" if request.raw_query else "")).encode(),
            b"",
            [(name, value if name != b"transfer-encoding" else value.lower()) for name, value in request.headers.raw],
            body,
            not answer.closes,
        )
        for request, body, answer in zip(app.seen, bodies, answers, strict=False)
        if answer.status == 200
    ]


def compare(pieces: list[bytes]) -> int:
    """How many requests both have read, each as the other."""
    both = list(zip(read_by_us(pieces), read_by_h11(pieces), strict=False))
    for ours, theirs in both:
        target = theirs.target
        if b"://" in target.partition(b"?")[0] and not target.startswith(b"/"):  # absolute form
            parts = urlsplit(target)
            target = (parts.path or b"/") + target[len(target.partition(b"?")[0]) :]
        path, mark, query = target.partition(b"?")
        target = quote(path, safe="/%!$&'()*+,;=:@~").encode() + mark + query  # h11 does not escape
        expected = theirs._replace(
            target=target.removesuffix(b"?"),  # an empty query is none
            fields=[(name, value if name != b"transfer-encoding" else b"chunked") for name, value in theirs.fields],
            version=b"",
            keeps=ours.keeps if theirs.version == b"HTTP/1.0" else theirs.keeps,  # h11 never does
        )
        assert ours == expected
    return len(both)


@for_each_case
def test_wire_cases(case: Case) -> None:
    compare([case.sent])


def test_comparison_sees_requests() -> None:
    assert sum(compare([case.sent]) for case in CASES) > len(CASES) // 5
    fields = ["X-A: \t1 ", "x-a: 2", "Cookie: a=b; c=d", "Accept: */*"]
    stream = get("/a?b=c", *fields) + post(BIG) + post(b"x") + get("/", "Connection: close")
    assert compare(cut(stream, [3, 70, 200, len(BIG) // 2])) == 4
    assert compare([get("/", "Transfer-Encoding: chunked", method="POST") + chunked(b"he", b"llo")]) == 1


@thorough
@given(stream=STREAMS, edits=EDITS, places=PLACES)
def test_damaged_requests(stream: bytes, edits: list[tuple[int, int, bytes]], places: list[int]) -> None:
    compare(cut(edited(stream, edits), places))
