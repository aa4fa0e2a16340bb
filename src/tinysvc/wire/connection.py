"""HTTP/1.1 as a state machine without I/O (RFC 9112): bytes and decisions, for a server and for a client.

The theory. An exchange is two messages, a request and its response. Each end of a connection keeps one state for the
message that it receives (`incoming`) and one for the message that it sends (`outgoing`):

    IDLE ───first byte───> HEAD ───empty line───> BODY ───last byte───> DONE
      │                      │                      │                     │
      └───────── fault ──────┴──────────────────────┴──> CLOSED <─────────┤ one side does not persist
                                                                          │
    IDLE <────────────────────────────────────────────────────────────────┘ both are DONE

    event of a ServerConnection  state before                     state after
    next_request                 incoming IDLE or HEAD            HEAD (more bytes are needed), BODY or DONE
    take_piece                   incoming BODY                    BODY or DONE
    head, begin_stream           outgoing IDLE                    BODY
    end_response                 outgoing BODY                    both IDLE (another request may be taken) or CLOSED
    plain_response               incoming DONE, outgoing IDLE     both IDLE: the three events above in one
    a ProtocolError              any                              incoming CLOSED: nothing behind a fault is parsed
    next_request                 incoming CLOSED                  CLOSED, and no request

client_connection.py has the other side. Two rules make it predictable.

1. *How the bytes were cut does not matter.* A head is judged when its empty line has arrived, and no byte behind it is
   looked at. Only a fault that no more bytes can mend is refused sooner; a head that arrives in one piece is asked the
   same questions in the same order (`_check_beginning`). A limit holds for one segment as for a hundred.
2. *A refusal ends the connection.* After a ProtocolError, and after the last response, nothing more is parsed.

A method takes bytes or a message and returns bytes or a message. None of them calls back, waits or knows the time.
"""

from __future__ import annotations

import re
from copy import copy
from typing import cast

from ..core.errors import ProtocolError, TinysvcError, UnencodableResult
from ..core.requests import Peer, Request
from ..core.responses import Response, make_private, problem_response
from ..core.settings import Settings
from ..core.units import KiB
from .chunked import ChunkedDecoder
from .heads import (
    CACHED_LENGTHS,
    FORBIDDEN_IN_HEAD,
    LENGTH_LINES,
    MAX_CACHED_LINE,
    USUAL_FIRST_LINES,
    Framing,
    RequestLine,
    field_lines,
    head_lines,
    parse_any_request_line,
    parse_fields,
    parse_usual_request_line,
)

IDLE, HEAD, BODY, DONE, CLOSED = range(5)
"""The states of a message; see above."""

USUAL_BLOCK, USUAL_FIELDS = 2 * KiB, 32
"""Bytes and fields of a header block that is kept for the next request; a browser sends half as much."""


class IncomingBody:
    """The body of a message that is received: how much of it is still to come, by the framing of its head.

    `length` is None for a chunked body. `received` counts the bytes of the body that were taken.
    """

    def __init__(self, length: int | None, settings: Settings, *, expects_continue: bool = False) -> None:
        self.length = length
        self.max_size = settings.max_body_size
        self.received = 0
        self.expects_continue = expects_continue
        self.is_complete = False
        self._settings = settings
        self._decoder = ChunkedDecoder(settings) if length is None else None

    def limit(self, size: int) -> None:
        """Take at most `size` bytes. Nothing of the body was taken yet."""
        self.max_size = size
        if self._decoder is not None:
            self._decoder = ChunkedDecoder(self._settings, size)

    @property
    def left(self) -> int:
        """Bytes that are still to come; of a chunked body, a number below 1."""
        return (-1 if self.length is None else self.length) - self.received

    @property
    def has_more(self) -> bool:
        """Whether the decoder has stopped in the middle of the bytes that it has: `take(b"")` goes on."""
        return self._decoder is not None and self._decoder.has_more

    @property
    def held(self) -> int:
        """Bytes of an unfinished chunk line."""
        return 0 if self._decoder is None else self._decoder.held

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """The body's part of `data`, and the bytes behind the body. ProtocolError 400, 413 or 431."""
        if self._decoder is None:
            left = self.left
            piece, rest = data[:left], data[left:]
            self.is_complete = len(data) >= left
        else:
            piece, rest = self._decoder.feed(data), self._decoder.rest or b""
            self.is_complete = self._decoder.rest is not None
        self.received += len(piece)
        return piece, rest


class ServerConnection:
    """The server's side: requests come in, responses go out.

    `buffer` holds the bytes that were received and not taken. `body` is the body of the request until its last byte
    was taken, and None where it came whole with its head. `keep_alive` says whether another request may follow.
    """

    __slots__ = (
        "_checked", "_chunked", "_forgiven", "_known_block", "_known_framing", "_last", "_left", "_longest_line",
        "body", "buffer", "incoming", "is_plain", "keep_alive", "minor", "offers_upgrade", "outgoing", "peer",
        "requests", "settings", "timeout",
    )  # fmt: skip

    def __init__(self, settings: Settings, peer: Peer | None = None) -> None:
        self.settings = settings
        self.peer = peer or Peer(None, None, "http")
        self.buffer = b""
        self.incoming = self.outgoing = IDLE
        self.body: IncomingBody | None = None
        self.keep_alive = True
        self.minor = b"1"
        self.offers_upgrade = False  # the request
        self.timeout: float | None = None  # seconds, of a request that is not plain
        self.is_plain = False  # the request came whole, and a small 200 needs only the usual lines
        self.requests = 0  # that were taken
        self._last = settings.max_requests  # number of the request after whose response the connection closes
        self._forgiven = 0  # number of the request before which an empty line was skipped
        self._checked = 0  # bytes of an incomplete head that are in order
        self._known_block = b""  # of the request before: a client repeats its header block
        self._known_framing: Framing | None = None  # the meaning of that block
        self._longest_line = -1  # bytes of a request line before that block that keep within the limits
        self._chunked = False  # the response that is sent
        self._left: int | None = None  # bytes of the declared length of the response that are not sent yet

    # Requests

    def receive(self, data: bytes) -> None:
        """Add the bytes to the buffer."""
        self.buffer = self.buffer + data if self.buffer else data

    def next_request(self) -> Request | None:
        """The next request in the buffer; None if its head is not complete. ProtocolError if it is refused.

        None, too, once the connection is closed. The request has its body if that has arrived whole; else `body` is
        set, and `take_piece` returns its bytes.
        """
        line, _, rest = self.buffer.partition(b"\r\n")
        block = self._known_block
        framing = self._known_framing
        if (
            framing is not None
            and len(line) <= self._longest_line
            and (rest == block or rest.startswith(block))
            and (start := parse_usual_request_line(line)) is not None
        ):
            self.buffer = rest[len(block) :] if len(rest) > len(block) else b""
            self._checked = 0
        else:
            judged = self._judge_head()
            if judged is None:
                return None
            start, framing = judged
        method, path, query, self.minor, _ = start
        self.requests = number = self.requests + 1
        self.incoming = DONE
        body = self._body_of(framing) if framing.has_body else b""
        self.keep_alive = framing.keep_alive and number < self._last
        self.is_plain = self.keep_alive and framing.is_plain and method != "HEAD" and self.incoming == DONE
        if not self.is_plain:
            self.offers_upgrade, self.timeout = framing.upgrade, framing.timeout
        return Request(method, path, query, framing.headers, body, None, self.peer)

    def take_timeout(self, request: Request) -> float | None:
        """Seconds that the client gives for the response to a request that is not plain. It may be a plain one now."""
        if self.timeout is not None:
            usual = self.minor == b"1" and not self.offers_upgrade and request.method != "HEAD"
            self.is_plain = usual and self.keep_alive and self.incoming == DONE
        return self.timeout

    def _judge_head(self) -> tuple[RequestLine, Framing] | None:
        """The meaning of the head in the buffer; None if it is not complete."""
        try:
            return self._judged()
        except ProtocolError:
            self._close()
            raise

    def _close(self) -> None:
        self.incoming = CLOSED
        self._known_framing = None  # else the usual head would still be taken

    def _judged(self) -> tuple[RequestLine, Framing] | None:
        if self.incoming == CLOSED:
            return None
        buffer = self.buffer
        if buffer.startswith(b"\r\n") and self._forgiven <= self.requests:
            self._forgiven = self.requests + 1  # one empty line before a request is skipped (RFC 9112, 2.2)
            buffer = self.buffer = buffer[2:]
        end = buffer.find(b"\r\n\r\n", self._checked) + 4
        if end < 4:
            if buffer:
                self.incoming = HEAD
                self._check_beginning(buffer)
                self._checked = max(0, len(buffer) - 3)
            return None
        head = buffer[:end]
        self._check_beginning(head)
        start = parse_any_request_line(head)
        *_, minor, authority = start
        framing = parse_fields(head, minor, self.settings)
        if authority and framing.host and framing.host.lower() != authority.lower():
            raise ProtocolError(400, "The request target and the Host header name different hosts.")
        if minor == b"1":
            self._remember(head[head.find(b"\n") + 1 :], framing)
        self.buffer = buffer[end:]
        self._checked = 0
        return start, framing

    def _remember(self, block: bytes, framing: Framing) -> None:
        """Keep the meaning of a usual block. A long one would cost too much memory for ten thousand idle clients."""
        if len(block) <= USUAL_BLOCK and len(framing.headers.raw) <= USUAL_FIELDS:
            settings = self.settings
            short_head = min(settings.max_request_line, settings.max_header_size)  # too short to be too long
            self._known_block, self._known_framing = block, framing
            self._longest_line = min(MAX_CACHED_LINE, short_head - len(block))
        else:
            self._known_block, self._known_framing = b"", None

    def _check_beginning(self, head: bytes) -> None:
        """Refuse a head, whole or not, for the first fault that no more bytes can mend: 400, 414, 431, 501 or 505.

        `_checked` bytes of it were in order before.
        """
        seen, settings = self._checked, self.settings
        end = settings.max_request_line + 2
        line_end = head.find(b"\n", 0, end) + 1
        if not line_end:
            self._check_characters(head, seen, end)
            if len(head) >= end:
                raise ProtocolError(414, f"The request line is longer than {settings.max_request_line} bytes.")
            return
        if seen < line_end:
            parse_any_request_line(head)
        end = line_end + settings.max_header_size
        self._check_characters(head, seen, end)
        if len(head) > end:
            raise ProtocolError(431, f"The header block is longer than {settings.max_header_size} bytes.")

    def _check_characters(self, head: bytes, start: int, end: int) -> None:
        if FORBIDDEN_IN_HEAD.search(head, start, end):
            raise ProtocolError(400, "The request head holds a control character, or a line end that is not CR LF.")

    def _body_of(self, framing: Framing) -> bytes:
        """The body if it has arrived whole, as small ones do; else `body` is set."""
        length = framing.content_length
        if length and length <= len(self.buffer) and length <= self.settings.max_body_size:
            body, self.buffer = self.buffer[:length], self.buffer[length:]
            return body
        self.body = IncomingBody(
            None if framing.chunked else length, self.settings, expects_continue=framing.expect_continue
        )
        self.incoming = BODY
        return b""

    def take_piece(self, data: bytes) -> bytes:
        """The body's part of `data`; the bytes behind the body go back into the buffer, before all others."""
        body = self.body
        assert body is not None
        try:
            piece, rest = body.take(data)
        except ProtocolError:
            self._close()
            raise
        if body.is_complete:
            self.body, self.incoming = None, DONE
            self.buffer = rest + self.buffer
        return piece

    # Responses

    def close_after(self, requests: int) -> None:
        """Take at most so many requests more. 0: the response to this one is the last."""
        self._last = self.requests + requests
        if not requests:
            self.keep_alive = self.is_plain = False

    def plain_response(self, request: Request, response: Response, date_lines: bytes) -> bytes:
        """A 200 whose content is bytes, where `is_plain`: the same as `head` and the content, in one step."""
        self.incoming = IDLE
        content = response.content
        size = len(content)
        first_lines = USUAL_FIRST_LINES.get(response.content_type) or head_lines(200, response.content_type)
        length_line = LENGTH_LINES[size] if size < CACHED_LENGTHS else b"content-length: %d\r\n" % size
        own_lines = _own_lines(request, response) if response.headers else b""
        return b"".join((first_lines, length_line, own_lines, date_lines, content))

    def head(self, request: Request, response: Response, framing: bytes, date_lines: bytes) -> bytes:
        """Status line and header block, up to and with the empty line. `framing` is the line of the length."""
        if response.headers or not self.keep_alive or self.minor == b"0":
            framing += self._more_lines(request, response)
        self.outgoing = BODY
        return head_lines(response.status, response.content_type) + framing + date_lines

    def _more_lines(self, request: Request, response: Response) -> bytes:
        """The response's own headers, and those of the connection."""
        lines = _own_lines(request, response)
        if not self.keep_alive:
            lines += b"connection: close\r\n"
        elif self.minor == b"0":
            lines += b"connection: keep-alive\r\n"
        elif response.status == 426:  # RFC 9110, 7.8
            lines += b"connection: upgrade\r\n"
        return lines

    def refusal(self, error: TinysvcError, request: Request | None, date_lines: bytes) -> bytes:
        """The response to a request that was not understood; it is the last one."""
        self.close_after(0)
        self.minor = b"1"
        asked = request or Request("GET", "/")
        response = problem_response(error, asked)
        head = self.head(asked, response, b"content-length: %d\r\n" % len(response.content), date_lines)
        return head if asked.method == "HEAD" else head + response.content

    def begin_stream(self, request: Request, response: Response, date_lines: bytes) -> bytes:
        """The head of a response whose length is declared, or not known: then it is chunked, or ends the connection."""
        never_a_body = has_no_body(response.status)
        self._left = _take_declared_length(response, never_a_body)
        self._chunked = self._left is None and self.minor == b"1" and not never_a_body  # RFC 9112, 6.1
        self.keep_alive = self.keep_alive and (self._chunked or never_a_body or self._left is not None)
        return self.head(request, response, b"transfer-encoding: chunked\r\n" if self._chunked else b"", date_lines)

    @property
    def has_declared_length(self) -> bool:
        """Whether the stream that is sent has said how long it is."""
        return self._left is not None

    def count(self, size: int) -> None:
        """The stream has `size` bytes more. UnencodableResult if it is now longer than declared."""
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise UnencodableResult(f"the stream is {-self._left} bytes, or more, longer than its content-length")

    def piece(self, data: bytes | memoryview) -> bytes | memoryview:
        """A piece of the stream as it is sent."""
        return b"%x\r\n%b\r\n" % (len(data), cast(bytes, data)) if self._chunked else data

    def end_of_stream(self) -> bytes:
        """The last bytes of the stream. UnencodableResult if it is shorter than it has declared."""
        if self._left:
            raise UnencodableResult(f"the stream is {self._left} bytes shorter than its content-length")
        return b"0\r\n\r\n" if self._chunked else b""

    def end_response(self) -> bool:
        """The response was sent. Whether the connection can take another request."""
        if self.keep_alive and self.incoming in (DONE, IDLE):  # IDLE: after a plain response
            self.incoming = self.outgoing = IDLE
            return True
        self.outgoing = CLOSED
        self._close()
        return False

    def __repr__(self) -> str:
        names = ("idle", "in its head", "in its body", "done", "closed")
        return f"<ServerConnection: request {names[self.incoming]}, response {names[self.outgoing]}>"


def has_no_body(status: int) -> bool:
    """Whether a response with this status never has a body (RFC 9110, 6.4.1)."""
    return status == 204 or status == 304


def _own_lines(request: Request, response: Response) -> bytes:
    """The response's own header lines. A shared cache must not keep a Set-Cookie, or a response to an Authorization."""
    lines = field_lines(response.headers)
    if lines.find(b"ache-") < 0 or not _MAY_BE_KEPT.search(lines):
        return lines
    if _SETS_COOKIE.search(lines) or "authorization" in request.headers:
        response = copy(response)  # the author may return one and the same response again and again
        make_private(response)
        lines = field_lines(response.headers)
    return lines


_MAY_BE_KEPT = re.compile(rb"(?im)^cache-control:[^\r]*\b(?:public|max-age|s-maxage)\b")
_SETS_COOKIE = re.compile(rb"(?im)^set-cookie:")


def _take_declared_length(response: Response, never_a_body: bool) -> int | None:
    """The length that a stream declares. Where there is never a body, the header is removed."""
    declared = [value for name, value in response.headers if name == "content-length"]
    if declared and never_a_body:
        response.headers = [field for field in response.headers if field[0] != "content-length"]
        return None
    return int(declared[0]) if declared else None
