"""Hypothesis state machines: both sides of HTTP/1.1 against each other, and the whole connection with its clock."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fuzz.target import ACTS, BEHAVIOURS, ENDS, REAL, SETTINGS, SMALL, Conversation, Loop, Plan, recorded
from tinysvc.core.errors import ProtocolError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.core.settings import Settings
from tinysvc.wire.client_connection import ClientConnection, ResponseHead
from tinysvc.wire.connection import BODY, CLOSED, DONE, HEAD, IDLE, ServerConnection
from wire_cases import FRAGMENTS, REQUESTS

DATE = b"date: now\r\n\r\n"
LIMITS = Settings(max_body_size=1000, max_header_size=1000, max_request_line=200)
PIECES = st.lists(st.binary(min_size=1, max_size=30), max_size=4)
PATHS = st.sampled_from(["/", "/a/b", "/a?b=c", "/%20"])


class BothSides(RuleBasedStateMachine):
    """A client and a server, and the bytes between them, which arrive in any pieces.

    The model is what was asked and what was responded. `is_damaged`: other bytes have come between: then nothing is
    expected but legal states, and at most one refusal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.client, self.server = ClientConnection(LIMITS), ServerConnection(LIMITS)
        self.up, self.down = b"", b""  # on their way
        self.is_damaged = self.has_ended = False
        self._begin_exchange()

    def _begin_exchange(self) -> None:
        self.unsent: list[bytes] = []  # of the request's body
        self.asked = self.asked_path = ""
        self.body = b""
        self.request: Request | None = None
        self.came = b""
        self.status = 0
        self.unwritten: list[bytes] | None = None  # of the response's body; None: no stream is sent
        self.content = b""
        self.head: ResponseHead | None = None
        self.read = b""

    # The client sends

    @precondition(lambda self: (self.client.incoming, self.client.outgoing) == (IDLE, IDLE) and not self.has_ended)
    @rule(method=st.sampled_from(["GET", "HEAD", "POST"]), path=PATHS, pieces=PIECES, chunked=st.booleans())
    def ask(self, method: str, path: str, pieces: list[bytes], chunked: bool) -> None:
        self.asked, self.asked_path = method, path
        self.unsent, self.body = (pieces, b"".join(pieces)) if method == "POST" else ([], b"")
        length = None if chunked and method == "POST" else len(self.body)
        self.up += self.client.begin_request(method, path, "x", [("x-a", "b")], length)

    @precondition(lambda self: self.client.outgoing == BODY)
    @rule()
    def send(self) -> None:
        if self.unsent:
            self.up += self.client.piece(self.unsent[0])
            self.unsent = self.unsent[1:]
        else:
            self.up += self.client.end_request()

    @rule(data=st.sampled_from(FRAGMENTS + REQUESTS) | st.binary(min_size=1, max_size=20))
    def damage(self, data: bytes) -> None:
        if len(data) % 3 == 0:  # rarely: mostly, the machine walks through good exchanges
            self.is_damaged = True
            self.up += data

    # The network

    @precondition(lambda self: self.up)
    @rule(size=st.integers(1, 40) | st.just(10_000))
    def carry_up(self, size: int) -> None:
        self.server.receive(self.up[:size])
        self.up = self.up[size:]

    @precondition(lambda self: self.down)
    @rule(size=st.integers(1, 40) | st.just(10_000))
    def carry_down(self, size: int) -> None:
        self.client.receive(self.down[:size])
        self.down = self.down[size:]

    @precondition(lambda self: self.server.outgoing == CLOSED and not self.down and not self.has_ended)
    @rule()
    def carry_end(self) -> None:
        self.has_ended = True
        try:
            self.client.receive_eof()
        except ProtocolError:
            assert self.client.incoming == CLOSED
            assert self.is_damaged or self.head is None or not self.status

    # The server takes and responds

    @precondition(lambda self: self.server.outgoing == IDLE or self.server.incoming == BODY)
    @rule()
    def take(self) -> None:
        server = self.server
        was_closed = server.incoming == CLOSED
        try:
            if server.body is not None:
                data, server.buffer = server.buffer, b""
                self.came += server.take_piece(data)
            elif self.request is None:
                self.request = server.next_request()
                if self.request is not None:
                    assert not was_closed
                    self.came = whole_body(self.request)
        except ProtocolError as error:
            assert self.is_damaged
            assert server.incoming == CLOSED
            if server.outgoing == IDLE:
                self.down += server.refusal(error, self.request, DATE)
                server.end_response()
            return
        if self.request is not None and not self.is_damaged:
            assert (self.request.method, self.request.raw_path) == (self.asked, self.asked_path.partition("?")[0])
            assert self.body.startswith(self.came)
            assert (server.body is None) == (server.incoming == DONE) == (self.came == self.body and not self._unread)

    @property
    def _unread(self) -> bool:
        """Whether the end of a chunked body has still to come."""
        return self.server.body is not None

    @precondition(
        lambda self: self.request is not None and self.server.outgoing == IDLE and self.server.incoming != CLOSED
    )
    @rule(way=st.sampled_from(["plain", "head", "stream", "declared", "nothing", "last"]), pieces=PIECES)
    def respond(self, way: str, pieces: list[bytes]) -> None:
        server, request = self.server, self.request
        assert request is not None
        self.content, self.status = b"".join(pieces), 204 if way == "nothing" else 200
        response = Response(self.content, self.status)
        if way == "nothing":
            self.content = b""
            self.down += server.head(request, response, b"", DATE)
        elif way in ("stream", "declared"):
            if way == "declared":
                response.headers = [("content-length", str(len(self.content)))]
            self.down += server.begin_stream(request, response, DATE)
            self.unwritten = pieces
            return
        elif way == "plain" and server.is_plain:
            self.down += server.plain_response(request, response, DATE)
        else:
            if way == "last":
                server.close_after(0)
            head = server.head(request, response, b"content-length: %d\r\n" % len(self.content), DATE)
            self.down += head if request.method == "HEAD" else head + self.content
        self._end_response()

    @precondition(lambda self: self.unwritten is not None)
    @rule()
    def stream(self) -> None:
        assert self.unwritten is not None
        assert self.request is not None
        if self.unwritten:
            self.server.count(len(self.unwritten[0]))
            written = bytes(self.server.piece(self.unwritten[0]))
            self.unwritten = self.unwritten[1:]
        else:
            self.unwritten, written = None, self.server.end_of_stream()
        if self.request.method != "HEAD":
            self.down += written
        if self.unwritten is None:
            self._end_response()

    def _end_response(self) -> None:
        is_read = self.server.body is None
        persists = self.server.end_response()
        assert is_read or not persists, "the rest of a body would be taken for a request"
        self.request = None

    # The client reads

    @precondition(lambda self: self.client.outgoing != IDLE)
    @rule()
    def receive(self) -> None:
        client = self.client
        try:
            if self.head is None:
                self.head = client.next_response()
                self.read = b"" if self.head is None else self.head.content
            else:
                self.read += client.take_piece()
        except ProtocolError:
            raise AssertionError("the server's response was refused") from None
        if self.head is not None and not self.is_damaged:
            assert self.head.status == self.status
            assert self.content.startswith(self.read)

    @precondition(lambda self: self.head is not None and self.client.incoming == DONE)
    @rule()
    def end(self) -> None:
        if not self.is_damaged:
            assert self.read == (b"" if self.asked == "HEAD" else self.content)
        server_persists = self.server.outgoing == IDLE and not self.is_damaged
        was_sent = self.client.outgoing == DONE
        persists = self.client.end_exchange()
        assert not persists or was_sent
        if server_persists and was_sent and not self.has_ended:
            assert persists
        if persists:
            self._begin_exchange()
        else:
            self.has_ended = True

    # What always holds

    @invariant()
    def states_are_legal(self) -> None:
        server, client = self.server, self.client
        assert server.incoming in (IDLE, HEAD, BODY, DONE, CLOSED)
        assert server.outgoing in (IDLE, BODY, CLOSED)
        assert (server.body is None) or server.incoming in (BODY, CLOSED)
        assert client.outgoing in (IDLE, BODY, DONE, CLOSED)
        assert (client.body is not None) <= (client.incoming in (BODY, CLOSED))
        assert repr(server)
        assert repr(client)

    @invariant()
    def nothing_is_taken_when_closed(self) -> None:
        if self.server.incoming == CLOSED:
            assert self.server.next_request() is None
        if self.client.incoming == CLOSED:
            assert self.client.next_response() is None


def whole_body(request: Request) -> bytes:
    """The body that came whole with its head."""
    body: Any = request._body
    return bytes(body)


class WholeConnection(RuleBasedStateMachine):
    """The connection of http.py on a loop that is turned by hand: bytes, time, a client that disconnects, a drain."""

    @initialize(
        limits=st.sampled_from(SETTINGS),
        behaviours=st.lists(st.sampled_from(BEHAVIOURS), min_size=1, max_size=3),
        scale=st.sampled_from([REAL, SMALL]),
        piece=st.sampled_from([0, 1, 7]),
        end=st.sampled_from(ENDS),
    )
    def begin(self, limits: Settings, behaviours: Any, scale: Any, piece: int, end: str) -> None:
        self.faults: list[Any] = []
        self.loop = Loop(self.faults)
        asyncio._set_running_loop(self.loop)
        steps = ((0, "reset"),)  # so that no response is expected to be whole
        self.plan = Plan(limits, behaviours, scale, 1, piece, end, steps)
        self.records = recorded()
        self.messages = self.records.__enter__()
        self.scaled = scale.applied()
        self.scaled.__enter__()
        self.conversation = Conversation(self.loop, self.plan)

    @rule(data=st.sampled_from(REQUESTS * 2 + FRAGMENTS) | st.binary(max_size=30))
    def send(self, data: bytes) -> None:
        if not {b""} & {*self.conversation.transport.segments} and not self.conversation.is_over:
            self.conversation.send(data)

    @rule(act=st.sampled_from([act for act in ACTS if act not in ("nothing", "drain", "end")]))
    def act(self, act: str) -> None:
        if not self.conversation.is_over:
            self.conversation.act(act)

    @precondition(lambda self: not self.conversation.connections.draining)
    @rule(act=st.sampled_from(["drain", "end"]))
    def finish(self, act: str) -> None:
        if not self.conversation.is_over and not self.conversation.transport.lost:
            self.conversation.act(act)

    def teardown(self) -> None:
        if not hasattr(self, "conversation"):
            return
        try:
            self.conversation.transport.window = inf
            self.conversation.rest()
            if not self.conversation.is_over:
                self.conversation.finish()
            self.conversation.judge()
            assert not self.faults, self.faults
            expected = [behaviour.logs for behaviour in self.conversation.app.used if behaviour.logs]
            for message in self.messages:
                assert any(words in message for words in expected), message
        finally:
            self.conversation.abandon()
            asyncio._set_running_loop(None)
            self.loop.close()
            self.scaled.__exit__(None, None, None)
            self.records.__exit__(None, None, None)


BothSidesTest = BothSides.TestCase
BothSidesTest.settings = settings(max_examples=150, stateful_step_count=60, deadline=None, derandomize=True)
WholeConnectionTest = WholeConnection.TestCase
WholeConnectionTest.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, derandomize=True)
