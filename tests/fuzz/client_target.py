"""wire/client_connection.py alone: any bytes are responses to requests, or one fault, which is the end.

`check` is the target of a fuzzer. The first CHOICES bytes of its input choose the limits, the methods and the cuts; the
rest is what the server sends. The oracles:

- The same bytes in other pieces give the same response, also behind other responses on the same connection.
- Only ProtocolError 502 is raised. Behind it, nothing is parsed, and the connection is not used again.
- The states after each step are those of the table in wire/connection.py.
- An unfinished head takes no more memory than the limits allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tinysvc.core.errors import ProtocolError
from tinysvc.core.settings import Settings
from tinysvc.wire.client_connection import ClientConnection, ResponseHead
from tinysvc.wire.connection import BODY, CLOSED, DONE, HEAD, IDLE

from . import server_target

CHOICES = 8
"""Bytes at the beginning of an input that choose what happens; the others are sent."""

SETTINGS = [Settings(max_header_size=400, max_header_field=120, max_headers=8), Settings()]
METHODS = ("GET", "HEAD", "POST")
FAULT = 502
STATUS_LINE = 1024
"""Bytes of a status line: the limit of wire/client_connection.py."""


class Outcome(NamedTuple):
    """A response; an unfinished one has no `is_whole`. A fault has only its status."""

    status: int
    fields: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    is_whole: bool = False


class Exchange:
    """A request on a connection, and the bytes that come for it."""

    def __init__(self, wire: ClientConnection, method: str) -> None:
        self.wire = wire
        self.head: ResponseHead | None = None
        self.is_over = False
        self._pieces: list[bytes] = []
        self._failed = False
        self._most = wire.settings.max_header_size + STATUS_LINE
        wire.begin_request(method, "/", "x")
        wire.end_request()
        assert (wire.incoming, wire.outgoing) == (IDLE, DONE)

    def receive(self, data: bytes, *, eof: bool = False) -> None:
        try:
            self.wire.receive(data)
            if eof:
                self.wire.receive_eof()
            self._take()
            if self.head is None and eof:
                assert self.wire.incoming == IDLE, "an unfinished response at the end of file is no fault"
        except ProtocolError as error:
            self._fail(error)

    def _take(self) -> None:
        wire = self.wire
        if self.head is None:
            self.head = wire.next_response()
            if self.head is None:
                assert wire.incoming in (IDLE, HEAD)
                assert len(wire.buffer) <= self._most, "an unfinished head is longer than its limits"
                return
            assert self.head.status >= 200
            assert wire.incoming == (DONE if wire.body is None else BODY)
            self._pieces.append(self.head.content)
        self._pieces.append(wire.take_piece())
        self.is_over = wire.incoming == DONE
        assert self.is_over == (wire.body is None)
        assert self.is_over or not wire.buffer, "bytes of a body were not taken"

    def _fail(self, error: ProtocolError) -> None:
        wire = self.wire
        assert error.status == FAULT, error
        assert wire.incoming == CLOSED
        wire.receive(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert wire.next_response() is None, "a response was taken behind a fault"
        assert not wire.end_exchange(), "a connection with a fault is used again"
        self._failed = self.is_over = True

    @property
    def outcome(self) -> Outcome:
        if self._failed:
            return Outcome(FAULT)
        if self.head is None:
            return Outcome(0)
        return Outcome(self.head.status, self.head.headers.raw, b"".join(self._pieces), self.is_over)


def check(data: bytes) -> None:
    """Hold a connection to the sentence above. AssertionError, or another exception, is a finding."""
    limits, a, b, *_ = choices = data[:CHOICES].ljust(CHOICES, b"\0")
    chosen, sent = server_target.plan(choices), data[CHOICES:]
    settings, ends = SETTINGS[limits % len(SETTINGS)], bool(limits & 0x40)
    wire, methods = ClientConnection(settings), (METHODS[a % len(METHODS)], METHODS[b % len(METHODS)])
    for number in range(20):
        method = methods[number % 2]
        alone = Exchange(ClientConnection(settings), method)
        alone.receive(sent)
        end = len(sent) - len(alone.wire.buffer) if alone.outcome.is_whole else len(sent)
        cut = exchanged(wire, method, chosen.cut(sent[:end]))
        if ends and not alone.is_over:
            alone = Exchange(ClientConnection(settings), method)
            alone.receive(sent, eof=True)  # with the last bytes: they are taken after it
            cut.receive(b"", eof=True)
        assert cut.outcome == alone.outcome, f"how the bytes were cut did matter: {cut.outcome} and {alone.outcome}"
        sent = sent[end:]
        if cut.outcome.status == FAULT or not wire.end_exchange() or not sent:
            break
        assert not alone.wire.end_exchange(), "a connection with bytes that no request has asked for is used again"


def exchanged(wire: ClientConnection, method: str, pieces: Iterable[bytes]) -> Exchange:
    exchange = Exchange(wire, method)
    for piece in pieces:
        if exchange.is_over:
            break
        exchange.receive(piece)
    return exchange


def seeds(sent: bytes, number: int) -> list[bytes]:
    """Inputs to begin with: whole and byte by byte, with and without an end of file, alone and behind others."""
    other = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    return [
        bytes([0x40 + number % 2, number % 3, 0, 0, 255, 255, 255, 255]) + sent,
        bytes([0, number % 3, 0, 0, 1, 1, 1, 1]) + sent,
        bytes([0x40, 0, number % 3, 0, 2, 90, 7, 1]) + other + sent,
        bytes([0x40, number % 3, number % 3, 0, 60, 5, 3, 200]) + sent + sent,
    ]
