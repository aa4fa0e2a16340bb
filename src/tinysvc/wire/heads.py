"""The heads of messages: a request's, judged as a whole, and a response's, written. No I/O.

The request line and the field lines have a grammar of our own, as what llhttp (httptools) lets pass differs from
release to release. llhttp takes the fields apart; what else RFC 9112 forbids is refused on top.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

import httptools

from ..core.errors import ProtocolError, UnencodableResult
from ..core.headers import FIELD_VALUE, SERVER_HEADERS, Headers, bad_header_value
from ..core.responses import COMMON_TYPES
from ..core.settings import Settings

METHODS = {m.encode(): m for m in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
"""Methods a route can have. Another well-formed one is 501 (RFC 9110, 9.1)."""

MAX_CACHED_LINE = 256
"""Bytes of a request line that may be kept for the next request that begins with it."""

# RFC 9112, 3 request-line; RFC 3986, 3.3 and 3.4 for the target. Clients follow the WHATWG URL standard instead, and
# leave more characters as they are: browsers, OkHttp and httpx send | ^ ` { } [ ] \ and a bare % in a query, curl and
# PHP raw UTF-8. In a query all are taken, as nginx, Node and Go take them: nothing there decides about a route or the
# framing. In a path those are taken, as their escapes, that have one meaning only. A backslash is a slash to browsers,
# and bytes beyond ASCII have no known encoding. A path holds no control character, encoded or not: decoded, it would
# end up in a log or a header. A query may, as line ends of a form do, but no NUL.
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_ESCAPE = rb"%(?![01]|7[Ff])[0-9A-Fa-f]{2}"
_USUAL_PATH = rb"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]++|" + _ESCAPE + rb")*+"
_USUAL_QUERY = rb"(?:[!\"$&-~]++|%(?!00))*+"
_PATH = rb"/(?:[!\"$&->@-\[\]-~]++|" + _ESCAPE + rb")*+"
_QUERY = rb"(?:[!\"$&-~\x80-\xff]++|%(?!00))*+"
_METHOD = b"|".join(METHODS)
_REQUEST_LINE = re.compile(rb"(" + _METHOD + rb") (" + _USUAL_PATH + rb")(?:\?(" + _USUAL_QUERY + rb"))? HTTP/1\.1")
_PATH_AND_QUERY = re.compile(rb"(" + _PATH + rb")(?:\?(" + _QUERY + rb"))?")
_LEGAL_BEGINNING = re.compile(rb"(?:https?://[^/?#]*+)?(?:" + _PATH + rb")?(?:\?" + _QUERY + rb")?", re.IGNORECASE)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_ONE_CHARACTER = re.compile(
    rb"%[0-9A-Fa-f]{2}|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|."
)
_TO_ESCAPE = re.compile(rb"[\"<>\[\]^`{|}\x80-\xff]")
_ANY_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e\x80-\xff]++) HTTP/([0-9])\.([0-9])\r\n")
# RFC 3986, 3.2.2: no user info, no path, no list. RFC 9112, 3.2 asks for exactly one Host.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})++)(?::([0-9]{0,5}))?", re.ASCII
)
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)(" + _PATH + rb")?(?:\?(" + _QUERY + rb"))?", re.IGNORECASE)
FORBIDDEN_IN_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
FIELD_LINES = re.compile(rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+")


RequestLine = tuple[str, str, str, bytes, bytes]
"""What a request line says: method, path, query, minor version, and the authority of a target in absolute form."""


@lru_cache(maxsize=1024)
def parse_usual_request_line(line: bytes) -> RequestLine | None:
    """The usual request line: a known method, a path, HTTP/1.1; without its end. None for any other.

    A service is asked for the same few things again and again, so what they mean is kept.
    """
    match = _REQUEST_LINE.fullmatch(line)
    return match and (METHODS[match[1]], match[2].decode(), (match[3] or b"").decode(), b"1", b"")


@dataclass(slots=True)
class Framing:
    """What a header block says, beyond its fields, about the message it belongs to."""

    headers: Headers
    has_body: bool
    keep_alive: bool
    content_length: int
    chunked: bool
    expect_continue: bool
    upgrade: bool
    is_plain: bool
    """Whether nothing here asks for more than a usual response: HTTP/1.1, and no offer to change protocols."""
    host: bytes


class FieldCollector:
    """llhttp's callbacks: the fields of one header block, names in lower case."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))


def parse_fields(head: bytes, minor: bytes, settings: Settings) -> Framing:
    """The header block of `head`, a whole request head. ProtocolError 400, 417 or 431."""
    line_end = head.find(b"\n") + 1
    if not FIELD_LINES.fullmatch(head, line_end, len(head) - 2):  # older llhttp takes folds, and more
        raise ProtocolError(400, "The header block is malformed (RFC 9112, 5).")
    if not head.isascii():  # llhttp refuses a query beyond ASCII; the request line is judged already
        head = b"GET / HTTP/1.%b\r\n%b" % (minor, head[line_end:])
    collector = FieldCollector()
    try:
        httptools.HttpRequestParser(collector).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # an offer to change protocols, which a server may ignore (RFC 9110, 7.8)
    except httptools.HttpParserError as error:
        raise ProtocolError(400, f"The header block is malformed: {error}.") from None
    fields = collector.fields
    if len(fields) > settings.max_headers:
        raise ProtocolError(431, f"{len(fields)} header fields came; at most {settings.max_headers} are allowed.")
    single: dict[bytes, bytes] = {}
    connection: set[bytes] = set()
    for name, value in fields:
        if len(name) + len(value) > settings.max_header_field:
            raise ProtocolError(431, f"A header field is longer than {settings.max_header_field} bytes.")
        if name == b"connection":
            if value != b"keep-alive" and not _OPTIONS.fullmatch(value):  # it is the usual one
                raise ProtocolError(400, "The Connection header is not a list of tokens (RFC 9110, 7.6.1).")
            connection.update(option.strip(b" \t").lower() for option in value.split(b","))
        elif name in _ONLY_ONCE:
            if name in single:
                raise ProtocolError(400, f"The header {name.decode()} came twice.")
            single[name] = value
    host = single.get(b"host")
    if host is None and minor == b"1":
        raise ProtocolError(400, "The Host header is missing (RFC 9112, 3.2).")
    if host is not None and not host_is_valid(host):
        raise ProtocolError(400, "The Host header is not one host with an optional port (RFC 9112, 3.2).")
    length, coding = single.get(b"content-length"), single.get(b"transfer-encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise ProtocolError(400, "Content-Length must be one decimal number, at most 18 digits, no leading zero.")
    if coding is not None and (minor == b"0" or coding.lower() != b"chunked" or length is not None):
        raise ProtocolError(400, "Transfer-Encoding must be 'chunked', on HTTP/1.1, without a Content-Length.")
    expect = single.get(b"expect", b"").lower() if minor == b"1" else b""
    if expect not in (b"", b"100-continue"):
        raise ProtocolError(417, "The only expectation understood is 100-continue.")
    upgrade = b"upgrade" in connection and minor == b"1" and length in (None, b"0") and coding is None
    return Framing(
        headers=Headers(tuple(fields)),
        has_body=length not in (None, b"0") or coding is not None,
        keep_alive=b"close" not in connection and (minor == b"1" or b"keep-alive" in connection),
        content_length=int(length or 0),
        chunked=coding is not None,
        expect_continue=bool(expect),
        upgrade=upgrade,
        is_plain=minor == b"1" and not upgrade,
        host=host or b"",
    )


_OPTIONS = re.compile(rb"[ \t]*+(?:" + TOKEN + rb")?[ \t]*+(?:,[ \t]*+(?:" + TOKEN + rb")?[ \t]*+)*+")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")  # to others 010 is eight
_ONLY_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect"})


def host_is_valid(host: bytes) -> bool:
    """Whether it is one host, with a port or without (RFC 9110, 7.2)."""
    match = _HOST.fullmatch(host)
    return match is not None and 0 < int(match[1] or 80) <= 65535


def parse_any_request_line(line: bytes) -> RequestLine:
    """Any request line, with its end and whatever is behind it.

    ProtocolError 505 for a version other than 1.0 and 1.1, 501 for a method we do not have, 400 for the rest.
    """
    match = _ANY_REQUEST_LINE.match(line)
    if match is None:
        remedy = " A space in the target is written as %20." if line.partition(b"\r\n")[0].count(b" ") > 2 else ""
        raise ProtocolError(400, f"The request line is not 'METHOD target HTTP/1.1' (RFC 9112, 3).{remedy}")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise ProtocolError(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if method not in METHODS:
        raise ProtocolError(501, "The method is not one that is implemented here.")
    name = METHODS[method]
    if target == b"*" and method == b"OPTIONS":
        return name, "*", "", minor, b""
    origin = _PATH_AND_QUERY.fullmatch(target)
    if origin is not None:
        return name, _escaped(origin[1]), _query_text(origin[2] or b""), minor, b""
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        raise ProtocolError(400, _fault_of(target))
    authority, path, query = absolute.groups(b"")
    if not host_is_valid(authority):
        raise ProtocolError(400, "The request target names no valid host.")
    return name, _escaped(path) or "/", _query_text(query), minor, authority


def _escaped(text: bytes) -> str:
    return _TO_ESCAPE.sub(_escape_of, text).decode()


def _query_text(query: bytes) -> str:
    """The query as it came, but for bytes beyond ASCII: those are escaped, as a browser would have done."""
    return query.decode() if query.isascii() else _BEYOND_ASCII.sub(_escape_of, query).decode()


def _escape_of(found: re.Match[bytes]) -> bytes:
    return b"".join([b"%%%02X" % byte for byte in found[0]])


def _fault_of(target: bytes) -> str:
    """The sentence for a target that is refused: it names the first bad character, and how to write that."""
    legal = _LEGAL_BEGINNING.match(target)
    if not legal or not legal[0] or target[legal.end() :] == b"":
        return "The request target is not a path that begins with / (RFC 9112, 3.2)."
    fault = _ONE_CHARACTER.match(target, legal.end())
    assert fault is not None  # it matches any byte
    if len(fault[0]) == 3 and fault[0].startswith(b"%"):
        return f"The request target holds {fault[0].decode()}, a control character; none is taken there, even escaped."
    shown = fault[0].decode(errors="backslashreplace")
    return f"The request target holds the character {shown} as it is; write it as {_escape_of(fault).decode()}."


# Responses

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


@lru_cache(maxsize=256)
def head_lines(status: int, content_type: str | None) -> bytes:
    """The lines that most responses share. UnencodableResult for a content type that cannot stand there."""
    status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    if content_type is None:
        return status_line
    if not FIELD_VALUE.fullmatch(content_type):
        raise UnencodableResult(bad_header_value("content-type", content_type))
    return b"%bcontent-type: %b\r\n" % (status_line, content_type.encode("latin-1"))


USUAL_FIRST_LINES: dict[str | None, bytes] = {name: head_lines(200, name) for name in COMMON_TYPES}
"""What most responses begin with."""


CACHED_LENGTHS = 2048
LENGTH_LINES = [b"content-length: %d\r\n" % size for size in range(CACHED_LENGTHS)]
"""Of small bodies: to write a number takes longer than to look it up."""


def field_lines(headers: Sequence[tuple[str, str]]) -> bytes:
    """A response's own header lines. UnencodableResult for what cannot stand there."""
    try:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")
        is_good = lines.count(b"\n") == len(headers) and FIELD_LINES.fullmatch(lines)
    except UnicodeEncodeError:
        lines, is_good = b"", None
    if not is_good:  # it came by assignment
        raise UnencodableResult(_bad_field(headers))
    for name, _ in headers:
        if name.lower() in SERVER_HEADERS and name != "content-length":
            raise UnencodableResult(f"the header {name!r} is written by the server; {SERVER_HEADERS[name.lower()]}")
    return lines


def _bad_field(headers: Sequence[tuple[str, str]]) -> str:
    for name, value in headers:
        if not isinstance(value, str) or not FIELD_VALUE.fullmatch(value):
            return bad_header_value(name, value)
    return f"the headers {headers!r} would not stay in their lines"
