"""The client's side of HTTP/1.1 without I/O: requests go out, responses come in.

The states are those of `connection.py`; here the request is the outgoing message and the response the incoming one. A
response is parsed as strictly as a request. Its body ends where RFC 9112, 6.3 says:

    response                                       body
    to HEAD; with status 204 or 304                none
    Transfer-Encoding: chunked                     chunked
    Content-Length                                 so many bytes
    neither                                        all bytes until the end of the connection

Interim responses (1xx) are skipped. 101 is refused: no request here offers to change the protocol.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..core.errors import ProtocolError
from ..core.headers import Headers
from ..core.settings import Settings
from ..core.units import KiB
from .connection import BODY, CLOSED, DONE, HEAD, IDLE, IncomingBody, has_no_body
from .heads import (
    FIELD_LINES,
    FORBIDDEN_IN_HEAD,
    declared_framing,
    field_lines,
    meaningful_fields,
    persists,
)

MAX_INTERIM = 16
"""Interim responses to one request; more are refused. (Go's net/http allows 5, with a larger limit on their bytes.)"""

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_MAX_STATUS_LINE = 1024
_UNTIL_END = 2**63
"""The length of a body that ends with the connection."""


USUAL_HEAD = 2 * KiB
"""Bytes of a head that is kept, with its meaning, for the next response: a service often repeats it for a second."""


class ResponseHead(NamedTuple):
    """Status and header fields of a final response.

    `content` is the body if it came whole with the head; else it is empty, and `body` of the connection is set.
    """

    status: int
    headers: Headers
    content: bytes = b""


class _Meaning(NamedTuple):
    """What the head of a final response says."""

    status: int
    headers: Headers
    keep_alive: bool
    length: int | None
    chunked: bool


class ClientConnection:
    """One connection to a server, for one exchange at a time.

    `begin_request`, `piece` and `end_request` return the bytes to send. `receive` and `receive_eof` take bytes and the
    end of file; then `next_response` and `take_piece` return the response. Each fault is a ProtocolError 502.
    """

    __slots__ = (
        "_chunked", "_eof", "_interim", "_is_head", "_known_head", "_known_meaning", "_until_end", "body", "buffer",
        "incoming", "keep_alive", "outgoing", "settings",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.buffer = b""  # received, and not taken
        self.incoming = self.outgoing = IDLE
        self.body: IncomingBody | None = None  # of the response, until its last byte was taken
        self.keep_alive = True
        self._eof = False
        self._chunked = False  # the request that is sent
        self._is_head = False
        self._interim = 0
        self._until_end = False  # the body of the response ends with the connection
        self._known_head = b""  # of the response before
        self._known_meaning: _Meaning | None = None

    # Requests

    def begin_request(
        self, method: str, target: str, host: str, headers: Sequence[tuple[str, str]] = (), length: int | None = 0
    ) -> bytes:
        """The head of a request.

        `target` is a path with its query, percent-encoded; `length` the bytes of its body, None if they are not known:
        then the body is chunked. UnencodableResult for a header that cannot be sent.
        """
        self.outgoing, self._is_head, self._interim = BODY, method == "HEAD", 0
        self._chunked = length is None
        lines = field_lines(headers) if headers else b""
        if length is None:
            framing = b"transfer-encoding: chunked\r\n"
        elif length or method in ("POST", "PUT", "PATCH"):  # RFC 9110, 8.6
            framing = b"content-length: %d\r\n" % length
        else:
            framing = b""
        return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n" % (
            method.encode(),
            target.encode(),
            host.encode(),
            framing,
            lines,
        )

    def piece(self, data: bytes) -> bytes:
        """A piece of the request's body as it is sent; an empty one is not sent at all."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def end_request(self) -> bytes:
        """The last bytes of the request."""
        self.outgoing = DONE
        return b"0\r\n\r\n" if self._chunked else b""

    # Responses

    def receive(self, data: bytes) -> None:
        """Add the bytes to the buffer."""
        self.buffer = self.buffer + data if self.buffer else data

    def receive_eof(self) -> None:
        """The server has closed its side. ProtocolError 502 if a response was cut short by that.

        With bytes in the buffer, it is `next_response` or `take_piece` that finds out.
        """
        self._eof, self.keep_alive = True, False
        if not self.buffer:
            self._check_end()

    def _check_end(self) -> None:
        """The end of file, behind all bytes."""
        if self._until_end:
            self._end_body()
        elif self.incoming in (HEAD, BODY):
            raise self._fault("The server closed the connection in the middle of a response.")

    def next_response(self) -> ResponseHead | None:
        """The next final response in the buffer; None if its head is not complete, or after a fault.

        ProtocolError 502.
        """
        known = self._known_meaning
        if known is not None and self.incoming != CLOSED and self.buffer.startswith(self._known_head):
            self.buffer = self.buffer[len(self._known_head) :]
            return self._begin_body(known)
        while self.incoming != CLOSED:
            end = self.buffer.find(b"\r\n\r\n") + 4
            self._check_beginning(self.buffer[:end] if end >= 4 else self.buffer)
            if end < 4:
                if self.buffer:
                    self.incoming = HEAD
                if self._eof:
                    self._check_end()
                return None
            head, self.buffer = self.buffer[:end], self.buffer[end:]
            meaning = self._parsed(head)
            if meaning is not None:
                usual = len(head) <= USUAL_HEAD
                self._known_head, self._known_meaning = (head, meaning) if usual else (b"", None)
                return self._begin_body(meaning)
        return None

    def take_piece(self) -> bytes:
        """The bytes of the response's body that have come. After the last of them, `body` is None.

        ProtocolError 502.
        """
        body, data = self.body, self.buffer
        if body is None:
            return b""
        self.buffer = b""
        pieces = []
        try:
            while True:
                piece, rest = body.take(data)
                pieces.append(piece)
                if not body.has_more:
                    break
                data = b""
        except ProtocolError as error:
            raise self._fault(error.detail) from None
        if body.is_complete:
            self.buffer = rest
            self._end_body()
        elif self._eof:
            self._check_end()
        return b"".join(pieces)

    def end_exchange(self) -> bool:
        """Both messages were sent and taken. Whether the connection can be used for another exchange.

        Bytes that no request has asked for make it unusable.
        """
        goes_on = self.keep_alive and self.incoming == self.outgoing == DONE and not self.buffer
        self.incoming = self.outgoing = IDLE if goes_on else CLOSED
        return goes_on

    def _end_body(self) -> None:
        self.body, self.incoming, self._until_end = None, DONE, False

    def _fault(self, detail: str) -> ProtocolError:
        self.incoming, self.keep_alive = CLOSED, False
        return ProtocolError(502, detail)

    def _check_beginning(self, head: bytes) -> None:
        """Refuse a head, complete or not, for a fault that no more bytes can mend."""
        limit = _MAX_STATUS_LINE + self.settings.max_header_size
        line_end = head.find(b"\n") + 1
        if FORBIDDEN_IN_HEAD.search(head) or (line_end and not _STATUS_LINE.fullmatch(head, 0, line_end)):
            raise self._fault("The server's response does not begin with 'HTTP/1.1', a status and a header block.")
        if len(head) > limit or (line_end or len(head)) > _MAX_STATUS_LINE:
            raise self._fault(f"The head of the server's response is longer than {limit} bytes.")

    def _parsed(self, head: bytes) -> _Meaning | None:
        """What this head says; None for that of an interim response."""
        match = _STATUS_LINE.match(head)
        assert match is not None  # `_check_beginning` has seen it
        minor, status = match[1], int(match[2])
        if not FIELD_LINES.fullmatch(head, match.end(), len(head) - 2):
            raise self._fault("The header block of the server's response is malformed (RFC 9112, 5).")
        if status < 200:
            self._interim += 1
            self.incoming = HEAD  # the final response has still to come
            if status == 101 or self._interim > MAX_INTERIM:
                raise self._fault(f"The server sent an interim response that no request asked for: {status}.")
            return None
        lines = [line.partition(b":") for line in head[match.end() : -4].split(b"\r\n") if line]
        fields = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
        try:
            single, connection = meaningful_fields(fields, self.settings)
            length, chunked = declared_framing(single, minor)
        except ProtocolError as error:
            raise self._fault(f"The server's response was refused. {error.detail}") from None
        return _Meaning(status, Headers(tuple(fields)), persists(connection, minor), length, chunked)

    def _begin_body(self, meaning: _Meaning) -> ResponseHead:
        """The response with this head, whose body begins in the buffer."""
        status, headers, keep_alive, length, chunked = meaning
        self.keep_alive = keep_alive and not self._eof
        self.incoming, content = DONE, b""
        if self._is_head or length == 0 or has_no_body(status):
            pass
        elif length is not None and len(self.buffer) >= length:
            content, self.buffer = self.buffer[:length], self.buffer[length:]
        else:
            self._until_end = length is None and not chunked
            self.keep_alive = self.keep_alive and not self._until_end
            self.incoming = BODY
            self.body = IncomingBody(None if chunked else length or _UNTIL_END, self.settings)
            self.body.limit(_UNTIL_END)  # the caller sets another limit, if any
        return ResponseHead(status, headers, content)

    def __repr__(self) -> str:
        names = ("idle", "in its head", "in its body", "done", "closed")
        return f"<ClientConnection: request {names[self.outgoing]}, response {names[self.incoming]}>"
