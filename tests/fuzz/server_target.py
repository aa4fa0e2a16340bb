"""wire/connection.py alone: any bytes are requests, in order, and at most one refusal, which is the end.

`check` is the target of a fuzzer. The first CHOICES bytes of its input choose the limits, the cuts and the responses;
the rest is what the client sends. There is no loop and no transport, so that a second has many thousands of runs.
The oracles:

- The same bytes in other pieces give the same requests and the same verdict.
- The bytes of one request on a connection of its own give the same request: nothing of the request before is left.
- Only ProtocolError is raised, with a status of STATUSES. Behind it, and behind the last response, nothing is parsed.
- The states after each step are those of the table in wire/connection.py.
- An unfinished head or chunk line takes no more memory than the limits allow.
- A strict client (wire/client_connection.py) reads each response, and agrees on whether the connection persists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tinysvc.core.errors import ProtocolError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.core.settings import Settings
from tinysvc.wire.chunked import MAX_CHUNK_LINE
from tinysvc.wire.client_connection import ClientConnection
from tinysvc.wire.connection import BODY, CLOSED, DONE, HEAD, IDLE, ServerConnection

CHOICES = 8
"""Bytes at the beginning of an input that choose what happens; the others are sent."""

STATUSES = frozenset({400, 413, 414, 417, 431, 501, 505})
LIMITS: dict[str, Any] = {
    "max_request_line": 100,
    "max_header_size": 400,
    "max_header_field": 120,
    "max_headers": 8,
    "max_body_size": 300,
}
SETTINGS = [Settings(**LIMITS), Settings(**LIMITS, max_requests=2), Settings()]
ANSWERS = ("plain", "head", "stream", "declared", "nothing", "denies", "limits", "is the last", "one more")
DATE = b"date: now\r\n\r\n"
BEHIND = b"GET /behind HTTP/1.1\r\nHost: x\r\n\r\n"


class Seen(NamedTuple):
    """A request that was taken whole; or a refusal, which has only a status."""

    status: int
    method: str = ""
    path: str = ""
    query: str = ""
    fields: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""


class Plan(NamedTuple):
    """What the first bytes of an input choose."""

    settings: Settings
    answers: tuple[str, ...]  # to the requests in turn
    sizes: tuple[int, ...]  # of the pieces, in turn
    reads_responses: bool

    def cut(self, data: bytes) -> Iterator[bytes]:
        place = number = 0
        while place < len(data):
            size = self.sizes[number % len(self.sizes)]
            yield data[place : place + size]
            place, number = place + size, number + 1


def plan(choices: bytes) -> Plan:
    """`choices` as a plan; any bytes are one."""
    limits, a, b, c, *sizes = choices.ljust(CHOICES, b"\0")
    return Plan(
        SETTINGS[limits % len(SETTINGS)],
        tuple(ANSWERS[choice % len(ANSWERS)] for choice in (a, b, c)),
        tuple(size or 1 for size in sizes),
        bool(limits & 0x80),
    )


class Conversation:
    """One connection: it takes bytes, and responds to each request at once."""

    def __init__(self, plan: Plan, first: int = 0) -> None:
        self.wire = ServerConnection(plan.settings)
        self.plan = plan
        self.client = ClientConnection(plan.settings) if plan.reads_responses else None
        self.seen: list[Seen] = []
        self.ends: list[int] = []  # of the requests: bytes from the beginning
        self.is_over = False
        self._first = first  # number of the first request: it chooses the response
        self._request: Request | None = None
        self._answer = ""
        self._body: list[bytes] = []
        self._received = 0
        self._most = plan.settings.max_request_line + plan.settings.max_header_size + 4

    def receive(self, data: bytes) -> None:
        self._received += len(data)
        self.wire.receive(data)
        try:
            while not self.is_over and self._take_request() and self._take_body():
                self._respond()
        except ProtocolError as error:
            self._refuse(error)

    def _refuse(self, error: ProtocolError) -> None:
        wire = self.wire
        assert error.status in STATUSES, error
        self._check_closed()
        self.seen.append(Seen(error.status))
        self._read(self._request, error.status, wire.refusal(error, self._request, DATE), persists=False)

    def _check_closed(self) -> None:
        wire = self.wire
        assert wire.incoming == CLOSED, "a refusal does not close the connection"
        wire.receive(BEHIND)
        assert wire.next_request() is None, "a request was taken from a closed connection"
        assert wire.incoming == CLOSED
        self.is_over = True

    def _take_request(self) -> bool:
        wire = self.wire
        if self._request is not None:
            return True
        request = wire.next_request()
        assert wire.outgoing == IDLE
        if request is None:
            assert wire.incoming in (IDLE, HEAD)
            assert len(wire.buffer) <= self._most, "an unfinished head is longer than its limits"
            return False
        assert wire.incoming == (DONE if wire.body is None else BODY)
        self._request, self._body = request, [request._body]  # type: ignore[list-item]  # a body that came whole with the head
        answers = self.plan.answers
        self._answer = answers[(self._first + len(self.seen)) % len(answers)]
        if self._answer == "limits":
            if wire.body is not None:
                wire.body.limit(20)
            elif len(self._body[0]) > 20:
                self._is_too_long()
        if wire.body is not None and (wire.body.length or 0) > wire.body.max_size:
            self._is_too_long()
        return True

    def _is_too_long(self) -> None:
        """The shell refuses a declared length; here, the connection is closed as it does that."""
        self.wire.close_after(0)
        self.wire.end_response()
        raise ProtocolError(413, "too long")

    def _take_body(self) -> bool:
        wire = self.wire
        if self._answer == "denies":
            return True
        while (body := wire.body) is not None:
            data, wire.buffer = wire.buffer, b""
            if not (data or body.has_more):
                return False
            piece = wire.take_piece(data)
            self._body.append(piece)
            assert body.received <= body.max_size
            if not (body.is_complete or body.has_more):
                assert body.held <= max(MAX_CHUNK_LINE, self.plan.settings.max_header_size)
            assert wire.incoming == (BODY if wire.body is body else DONE)
        return True

    def _respond(self) -> None:
        wire, request = self.wire, self._request
        assert request is not None
        body = b"" if self._answer == "denies" else b"".join(self._body)
        self.seen.append(Seen(200, request.method, request.raw_path, request.raw_query, request.headers.raw, body))
        self.ends.append(self._received - len(wire.buffer))
        is_plain = self._answer == "plain" and wire.is_plain
        status, sent = self._written(request)
        if is_plain:
            assert (wire.incoming, wire.outgoing) == (IDLE, IDLE)
        else:
            assert wire.outgoing == BODY
        persists = wire.end_response()
        assert (wire.incoming, wire.outgoing) == ((IDLE, IDLE) if persists else (CLOSED, CLOSED))
        if not persists:
            self._check_closed()
        self._read(request, status, sent, persists=persists)
        self._request = None

    def _written(self, request: Request) -> tuple[int, bytes]:
        """Status and bytes of the chosen response."""
        wire, response = self.wire, Response(b"content")
        if self._answer == "plain" and wire.is_plain:
            return 200, wire.plain_response(request, response, DATE)
        if self._answer in ("stream", "declared"):
            if self._answer == "declared":
                response.headers = [("content-length", "7")]
            sent = bytes(wire.begin_stream(request, response, DATE))
            if request.method == "HEAD":
                return 200, sent
            for piece in (b"con", b"tent"):
                wire.count(len(piece))
                sent += wire.piece(piece)
            return 200, sent + wire.end_of_stream()
        if self._answer == "nothing":
            return 204, wire.head(request, Response(b"", 204), b"", DATE)
        if self._answer in ("denies", "is the last"):
            wire.close_after(0)
        elif self._answer == "one more":
            wire.close_after(1)
        head = wire.head(request, response, b"content-length: 7\r\n", DATE)
        return 200, head if request.method == "HEAD" else head + b"content"

    def _read(self, request: Request | None, status: int, sent: bytes, *, persists: bool) -> None:
        """Let a client read the response."""
        client = self.client
        if client is None:
            return
        client.begin_request(request.method if request else "GET", "/", "x")
        client.end_request()
        client.receive(sent)
        response = client.next_response()
        assert response is not None, sent
        assert response.status == status
        body = response.content + client.take_piece()
        if not persists:
            client.receive_eof()
        assert client.incoming == DONE, sent
        if request is not None and status == 200:
            assert body == (b"" if request.method == "HEAD" else b"content"), sent
        assert client.end_exchange() is persists


def whole(plan: Plan, data: bytes, first: int = 0) -> Conversation:
    conversation = Conversation(plan, first)
    conversation.receive(data)
    return conversation


def check(data: bytes) -> None:
    """Hold a connection to the sentence above. AssertionError, or another exception, is a finding."""
    chosen, sent = plan(data[:CHOICES]), data[CHOICES:]
    conversation = whole(chosen, sent)
    seen = conversation.seen
    in_pieces = Conversation(chosen)
    for piece in chosen.cut(sent):
        if in_pieces.is_over:
            break
        in_pieces.receive(piece)
    assert in_pieces.seen == seen, f"how the bytes were cut did matter: {in_pieces.seen} and {seen}"
    if len(seen) > 1:
        begin = 0
        for number, end in enumerate([*conversation.ends, len(sent)][: len(seen)]):
            alone = whole(chosen, sent[begin:end], number).seen
            assert alone == seen[number : number + 1], f"alone {alone}, behind others {seen[number]}"
            begin = end


def seeds(sent: bytes, number: int) -> list[bytes]:
    """Inputs to begin with: whole, byte by byte, and behind an equal request; each answer comes with some of them."""
    answer = number % len(ANSWERS)
    return [
        bytes([0x80, answer, 0, answer, 255, 255, 255, 255]) + sent,
        bytes([0, 0, answer, answer, 1, 1, 1, 1]) + sent,
        bytes([0x81, 0, answer, 0, 2, 3, 50, 1]) + BEHIND + sent,
        bytes([0, 0, 0, answer, 40, 7, 90, 200]) + sent + BEHIND,
    ]
