"""wire/heads.py without a connection: request lines and header blocks. test_wire.py tests refusals on the wire."""

from __future__ import annotations

import pytest

from tinysvc.core.errors import ProtocolError, UnencodableResult
from tinysvc.core.settings import Settings
from tinysvc.wire.heads import field_lines, head_lines, parse_any_request_line, parse_fields, parse_usual_request_line


def test_header_block_determines_the_framing() -> None:
    framing = parse_fields(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nX-A:\t b \r\n\r\n", b"1", Settings())
    assert (framing.content_length, framing.chunked, framing.keep_alive, framing.host) == (12, False, True, b"x")
    assert list(framing.headers.raw) == [(b"host", b"x"), (b"content-length", b"12"), (b"x-a", b"b")]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/1.2\r\n", 505),
        (b"FROB / HTTP/1.1\r\n", 501),
        (b"GET * HTTP/1.1\r\n", 400),
        (b"GET http://a@b/ HTTP/1.1\r\n", 400),
        (b"GET  / HTTP/1.1\r\n", 400),
    ],
)
def test_bad_request_line_is_refused(line: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_any_request_line(line)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("target", "named", "remedy"),
    [
        (b"/Zo\xc3\xab", "ë", "%C3%AB"),
        (b"/\xe9", "\\xe9", "%E9"),
        (b"/100%", "%", "%25"),
        (b"/a\\b", "\\", "%5C"),
        (b"/a#b", "#", "%23"),
        (b"/?a#b", "#", "%23"),
        (b"http://h/a\\b", "\\", "%5C"),
        (b"/a%0Ab", "%0A", "control character"),
        (b"/?a=%00", "%00", "control character"),
        (b"/a b", "space", "%20"),
    ],
)
def test_refused_target_names_the_character_and_its_escape(target: bytes, named: str, remedy: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_any_request_line(b"GET " + target + b" HTTP/1.1\r\n")
    assert refused.value.status == 400
    assert named in refused.value.detail
    assert remedy in refused.value.detail


def test_absolute_target_is_split() -> None:
    assert parse_any_request_line(b"GET http://h:80/p?q HTTP/1.1\r\n") == ("GET", "/p", "q", b"1", b"h:80")
    assert parse_any_request_line(b"GET https://h HTTP/1.1\r\n") == ("GET", "/", "", b"1", b"h")
    assert parse_any_request_line(b"OPTIONS * HTTP/1.0\r\n") == ("OPTIONS", "*", "", b"0", b"")


def test_cached_and_general_parser_agree() -> None:
    for line in (b"GET / HTTP/1.1", b"POST /a%20b?c=%0a&d[]=1 HTTP/1.1"):
        assert parse_usual_request_line(line) == parse_any_request_line(line + b"\r\n")
    for line in (b"GET / HTTP/1.0", b"FROB / HTTP/1.1", b"GET /\n HTTP/1.1", b"GET http://h/ HTTP/1.1", b""):
        assert parse_usual_request_line(line) is None


def test_header_with_a_line_end_is_not_written() -> None:
    assert field_lines([("x-a", "1"), ("x-b", "")]) == b"x-a: 1\r\nx-b: \r\n"
    for headers in ([("x", "1\r\ny: 2")], [("x y", "1")], [("x", "\0")], [("date", "now")], [("Connection", "close")]):
        with pytest.raises(UnencodableResult, match=r"one line|is malformed|by the server"):
            field_lines(headers)
    with pytest.raises(UnencodableResult, match="must be one line"):
        head_lines(200, "text/plain\r\nx: y")
