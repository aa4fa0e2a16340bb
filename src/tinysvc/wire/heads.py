"""Parses the heads of requests and writes the heads of responses. No I/O.

The request line and the field lines are checked against a grammar here, because llhttp (httptools) accepts different
deviations in each release. llhttp only separates the fields. Further violations of RFC 9112 are refused after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

import httptools

from ..core.budget import TIMEOUT_FIELDS, timeout_of
from ..core.errors import ProtocolError, UnencodableResult
from ..core.headers import FIELD_VALUE, SERVER_HEADERS, HeaderLines, Headers, bad_header_value
from ..core.responses import COMMON_TYPES
from ..core.settings import Settings

METHODS = {m.encode(): m for m in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
"""Methods that a route can have. Another well-formed method gets a 501 (RFC 9110, 9.1)."""

MAX_CACHED_LINE = 256
"""Longest request line, in bytes, that the cache of parsed lines keeps."""

# RFC 9112, 3 request-line; RFC 3986, 3.3 and 3.4 for the target. Clients follow the WHATWG URL standard instead, and
# escape fewer characters: browsers, OkHttp and httpx send | ^ ` { } [ ] \ and a bare % in a query; curl and PHP send
# raw UTF-8. A query may contain all of them, as in nginx, Node and Go: it decides neither about a route nor about
# framing. A path may contain those with a single meaning, and they are escaped. Refused are: a backslash, which is a
# slash to browsers; bytes beyond ASCII, whose encoding is unknown; control characters, even escaped, because the
# decoded path may be written to a log or a header. A query may contain control characters (line ends of a form), but
# no NUL.
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
"""A parsed request line: method, path, query, minor version, and the authority of a target in absolute form."""


@lru_cache(maxsize=1024)
def parse_usual_request_line(line: bytes) -> RequestLine | None:
    """Parse the usual request line (a known method, a path, HTTP/1.1), without its line end. None for any other.

    The results are cached: clients request the same few targets again and again.
    """
    match = _REQUEST_LINE.fullmatch(line)
    return match and (METHODS[match[1]], match[2].decode(), (match[3] or b"").decode(), b"1", b"")


@dataclass(slots=True)
class Framing:
    """The fields of a header block, and their meaning for the message and the connection."""

    headers: Headers
    has_body: bool
    keep_alive: bool
    content_length: int
    chunked: bool
    expect_continue: bool
    upgrade: bool
    is_plain: bool
    """Whether nothing here asks for more than usual: HTTP/1.1, no offer to change protocols, no `Request-Timeout`."""
    host: bytes
    timeout: float | None = None
    """Seconds that the client gives for its response (`Request-Timeout`); None if it does not say."""


class FieldCollector:
    """Callbacks of llhttp. They collect the fields of one header block, with names in lower case."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))


def parse_fields(head: bytes, minor: bytes, settings: Settings) -> Framing:
    """Parse the header block of a complete request head. ProtocolError 400, 417 or 431."""
    line_end = head.find(b"\n") + 1
    if not FIELD_LINES.fullmatch(head, line_end, len(head) - 2):  # older llhttp accepts folded lines, and more
        raise ProtocolError(400, "The header block is malformed (RFC 9112, 5).")
    if not head.isascii():  # llhttp refuses a query beyond ASCII; the request line is checked already
        head = b"GET / HTTP/1.%b\r\n%b" % (minor, head[line_end:])
    collector = FieldCollector()
    try:
        httptools.HttpRequestParser(collector).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # an offer to change the protocol, which a server may ignore (RFC 9110, 7.8)
    except httptools.HttpParserError as error:
        raise ProtocolError(400, f"The header block is malformed: {error}.") from None
    fields = collector.fields
    single, connection = meaningful_fields(fields, settings)
    host = single.get(b"host")
    if host is None and minor == b"1":
        raise ProtocolError(400, "The Host header is missing (RFC 9112, 3.2).")
    if host is not None and not host_is_valid(host):
        raise ProtocolError(400, "The Host header is not one host with an optional port (RFC 9112, 3.2).")
    length, chunked = declared_framing(single, minor)
    expect = single.get(b"expect", b"").lower() if minor == b"1" else b""
    if expect not in (b"", b"100-continue"):
        raise ProtocolError(417, "The only supported expectation is 100-continue (RFC 9110, 10.1.1).")
    timeout = None if TIMEOUT_FIELDS.isdisjoint(single) else timeout_of(single)
    upgrade = b"upgrade" in connection and minor == b"1" and not length and not chunked
    return Framing(
        headers=Headers(tuple(fields)),
        has_body=bool(length) or chunked,
        keep_alive=persists(connection, minor),
        content_length=length or 0,
        chunked=chunked,
        expect_continue=bool(expect),
        upgrade=upgrade,
        is_plain=minor == b"1" and not upgrade and timeout is None,
        host=host or b"",
        timeout=timeout,
    )


def meaningful_fields(fields: list[tuple[bytes, bytes]], settings: Settings) -> tuple[dict[bytes, bytes], set[bytes]]:
    """The fields that may stand once only, and the options of Connection. ProtocolError 400 or 431."""
    if len(fields) > settings.max_headers:
        raise ProtocolError(
            431, f"The message has {len(fields)} header fields; at most {settings.max_headers} are allowed."
        )
    single: dict[bytes, bytes] = {}
    connection: set[bytes] = set()
    for name, value in fields:
        if len(name) + len(value) > settings.max_header_field:
            raise ProtocolError(431, f"A header field is longer than {settings.max_header_field} bytes.")
        if name == b"connection":
            if value != b"keep-alive" and not _OPTIONS.fullmatch(value):  # the usual value
                raise ProtocolError(400, "The Connection header is not a list of tokens (RFC 9110, 7.6.1).")
            connection.update(option.strip(b" \t").lower() for option in value.split(b","))
        elif name in _ONLY_ONCE:
            if name in single:
                raise ProtocolError(400, f"The message has the header {name.decode()} twice.")
            single[name] = value
    return single, connection


def declared_framing(single: dict[bytes, bytes], minor: bytes) -> tuple[int | None, bool]:
    """The declared length of the body, and whether it is chunked (RFC 9112, 6). ProtocolError 400."""
    length, coding = single.get(b"content-length"), single.get(b"transfer-encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise ProtocolError(400, "Content-Length must be one decimal number, at most 18 digits, no leading zero.")
    if coding is not None and (minor == b"0" or coding.lower() != b"chunked" or length is not None):
        raise ProtocolError(400, "Transfer-Encoding must be 'chunked', on HTTP/1.1, without a Content-Length.")
    return None if length is None else int(length), coding is not None


def persists(connection: set[bytes], minor: bytes) -> bool:
    """Whether the connection may be used for another message (RFC 9112, 9.3)."""
    return b"close" not in connection and (minor == b"1" or b"keep-alive" in connection)


_OPTIONS = re.compile(rb"[ \t]*+(?:" + TOKEN + rb")?[ \t]*+(?:,[ \t]*+(?:" + TOKEN + rb")?[ \t]*+)*+")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")  # other programs may read 010 as eight
_ONLY_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect", *TIMEOUT_FIELDS})


def host_is_valid(host: bytes) -> bool:
    """Whether the value is one host, with or without a port (RFC 9110, 7.2)."""
    match = _HOST.fullmatch(host)
    return match is not None and 0 < int(match[1] or 80) <= 65535


def parse_any_request_line(line: bytes) -> RequestLine:
    """Parse any request line, with its line end; `line` may contain further bytes.

    ProtocolError 505 for a version other than 1.0 and 1.1, 501 for an unknown method, 400 for any other fault.
    """
    match = _ANY_REQUEST_LINE.match(line)
    if match is None:
        remedy = " Write a space in the target as %20." if line.partition(b"\r\n")[0].count(b" ") > 2 else ""
        raise ProtocolError(400, f"The request line is not 'METHOD target HTTP/1.1' (RFC 9112, 3).{remedy}")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise ProtocolError(505, "The server supports only HTTP/1.0 and HTTP/1.1.")
    if method not in METHODS:
        raise ProtocolError(501, f"The server does not implement this method, only {', '.join(METHODS.values())}.")
    name = METHODS[method]
    if target == b"*" and method == b"OPTIONS":
        return name, "*", "", minor, b""
    origin = _PATH_AND_QUERY.fullmatch(target)
    if origin is not None:
        return name, _escaped(origin[1]), _query_text(origin[2] or b""), minor, b""
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        raise ProtocolError(400, _target_fault(target))
    authority, path, query = absolute.groups(b"")
    if not host_is_valid(authority):
        raise ProtocolError(400, "The request target does not name a valid host.")
    return name, _escaped(path) or "/", _query_text(query), minor, authority


def _escaped(text: bytes) -> str:
    return _TO_ESCAPE.sub(_escape_of, text).decode()


def _query_text(query: bytes) -> str:
    """The query, with bytes beyond ASCII escaped as a browser does it."""
    return query.decode() if query.isascii() else _BEYOND_ASCII.sub(_escape_of, query).decode()


def _escape_of(found: re.Match[bytes]) -> bytes:
    return b"".join([b"%%%02X" % byte for byte in found[0]])


def _target_fault(target: bytes) -> str:
    """The sentence for a refused target: its first bad character, and how to write it."""
    legal = _LEGAL_BEGINNING.match(target)
    if not legal or not legal[0] or target[legal.end() :] == b"":
        return "The request target is not a path that begins with / (RFC 9112, 3.2)."
    fault = _ONE_CHARACTER.match(target, legal.end())
    assert fault is not None  # it matches any byte
    if len(fault[0]) == 3 and fault[0].startswith(b"%"):
        return f"The request target holds {fault[0].decode()}, a control character, which is refused even if escaped."
    shown = fault[0].decode(errors="backslashreplace")
    return f"The request target holds the unescaped character {shown}; write it as {_escape_of(fault).decode()}."


# Responses

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


@lru_cache(maxsize=256)
def head_lines(status: int, content_type: str | None) -> bytes:
    """Status line and content type of a response, cached. UnencodableResult for a bad content type."""
    status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    if content_type is None:
        return status_line
    if not FIELD_VALUE.fullmatch(content_type):
        raise UnencodableResult(bad_header_value("content-type", content_type))
    return b"%bcontent-type: %b\r\n" % (status_line, content_type.encode("latin-1"))


USUAL_FIRST_LINES: dict[str | None, bytes] = {name: head_lines(200, name) for name in COMMON_TYPES}
"""The first lines of most responses: a 200 with a common content type."""


CACHED_LENGTHS = 2048
LENGTH_LINES = [b"content-length: %d\r\n" % size for size in range(CACHED_LENGTHS)]
"""The lines of small bodies: formatting a number takes longer than a lookup."""


def field_lines(headers: Sequence[tuple[str, str]]) -> bytes:
    """The header lines that a handler has added. UnencodableResult for a bad line."""
    try:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")
        is_good = type(headers) is HeaderLines or (lines.count(b"\n") == len(headers) and FIELD_LINES.fullmatch(lines))
    except UnicodeEncodeError:
        lines, is_good = b"", None
    if not is_good:  # HeaderLines are checked when they are added; these headers were assigned as a whole
        raise UnencodableResult(_bad_field(headers))
    for name, _ in headers:
        if name.lower() in SERVER_HEADERS and name != "content-length":
            raise UnencodableResult(f"the header {name!r} is written by the server; {SERVER_HEADERS[name.lower()]}")
    return lines


def _bad_field(headers: Sequence[tuple[str, str]]) -> str:
    for name, value in headers:
        if not isinstance(value, str) or not FIELD_VALUE.fullmatch(value):
            return bad_header_value(name, value)
    return f"one of these headers is malformed (RFC 9110, 5): {headers!r}"
