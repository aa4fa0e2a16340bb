"""wire/codings.py: the choice of a coding, compression, and decompression up to a limit."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import Any

import pytest

from tinysvc.core.errors import HTTPError
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.wire import codings
from tinysvc.wire.codings import (
    MIN_SIZE,
    Coding,
    begin_compression,
    choose_coding,
    coding_of,
    compress,
    compress_pieces,
    decompress_body,
    offered_codings,
    restore_tags,
    weights_of,
)

NAMES = ["gzip", "deflate", "br", "zstd"]
TEXT = b"all work and no play makes Jack a dull boy. " * 1000
LIMIT = 1_000_000


def coding(name: str) -> Coding:
    found = coding_of(name)
    assert found is not None
    return found


def accepting(codings: str) -> Request:
    return Request("GET", "/", headers=Headers([(b"accept-encoding", codings.encode())]))


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, gzip", "gzip"),
        ("zstd;q=0, *", "br"),
        ("br;q=0.2, gzip;q=0.8", "gzip"),
        ("br;q=0.8 , gzip; q=0.8", "br"),
        ("gzip;q=0", ""),
        ("gzip;q=0.000", ""),
        ("identity", ""),
        ("identity, gzip;q=0.9", ""),
        ("identity;q=0.5, gzip;q=0.9", "gzip"),
        ("identity;q=0", ""),
        ("compress, sdch", ""),
        ("", ""),
        (",,;", ""),
        ("gzip;q=2", ""),
        ("gzip;q=0.1234", ""),
        ("gzip;q=\u0661", ""),
        ("gzip;level=9", "gzip"),
        ("gzip;level=9;q=0.1, br;q=0.05", "gzip"),
    ],
)
def test_best_coding_is_chosen(accept: str, chosen: str) -> None:
    assert choose_coding(accept, ("zstd", "br", "gzip")) == chosen


def test_long_header_is_read_in_one_pass() -> None:
    assert len(weights_of("gzip;" + ";q=" * 2600)) == 1
    assert weights_of("a;q=0.5," * 900) == {"a": 0.5}


def test_missing_library_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*names: str) -> Any:
        raise ImportError(names)

    def forget() -> None:
        coding_of.cache_clear()
        offered_codings.cache_clear()

    with monkeypatch.context() as patch:
        patch.setattr(codings, "_first_of", missing)
        forget()
        assert offered_codings() == ("gzip",)
        with pytest.raises(HTTPError, match=r"415 .* one Content-Encoding of gzip, deflate, or none, not 'br'"):
            decompress_body("br", b"", LIMIT)
    forget()
    assert offered_codings() == ("zstd", "br", "gzip")


# Packing


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"x", TEXT, os.urandom(100_000)], ids=len)
def test_decompression_restores_the_content(name: str, content: bytes) -> None:
    packed = compress(coding(name), content)
    assert decompress_body(name, packed, LIMIT) == content
    assert compress(coding(name), memoryview(content)) == packed
    if content == TEXT:
        assert len(packed) < len(TEXT) / 50


@pytest.mark.parametrize("name", NAMES)
def test_each_piece_of_a_stream_can_be_decompressed_at_once(name: str) -> None:
    unpack = coding(name).decompressor()
    pieces = [b"one", TEXT, b"", b"three"]
    packed = compress_pieces(coding(name), iter(pieces))
    for piece in pieces:
        found, data = b"", next(packed)
        while more := unpack(data, 10 * len(TEXT))[:2]:
            found, data = found + more[0], more[1]
            if not any(more):
                break
        assert found == piece
    assert next(packed, b"")
    assert list(packed) == []


def body(size: int, content_type: str = "application/json", **headers: str) -> Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(b"x" * size, headers=fields, content_type=content_type)


@pytest.mark.parametrize(
    ("response", "is_packed"),
    [
        (body(MIN_SIZE), True),
        (body(MIN_SIZE - 1), False),
        (body(9999, "text/html; charset=utf-8"), True),
        (body(9999, "image/svg+xml"), True),
        (body(9999, "application/problem+json"), True),
        (body(9999, "application/vnd.api+json"), True),
        (body(9999, "application/x-ndjson"), True),
        (body(9999, "text/event-stream; charset=utf-8"), False),
        (body(9999, "image/png"), False),
        (body(9999, "application/zip"), False),
        (body(9999, "application/octet-stream"), False),
        (body(9999, content_encoding="br"), False),
        (body(9999, content_range="bytes 0-9998/10000"), False),
        (body(9999, cache_control="public, no-transform"), False),
        (body(9999, cache_control="no-store"), True),
        (Response(b"x" * 9999, 206, content_type="text/plain"), False),
        (Response(iter([b"x"]), content_type="text/plain"), True),
        (Response(iter([b"x"])), False),
    ],
)
def test_only_compressible_responses_are_compressed(response: Response, is_packed: bool) -> None:
    before = list(response.headers)
    found = begin_compression(accepting("gzip"), response)
    assert (found is not None) == is_packed
    if is_packed:
        assert ("content-encoding", "gzip") in response.headers
        assert ("vary", "accept-encoding") in response.headers
    else:
        assert response.headers == before


@pytest.mark.parametrize("accept", ["", "identity"])
def test_compressible_response_gets_vary(accept: str) -> None:
    response = body(9999, vary="Origin")
    assert begin_compression(accepting(accept), response) is None
    assert response.headers == [("vary", "Origin, accept-encoding")]


def test_compression_changes_length_and_entity_tag() -> None:
    response = Response(
        iter([b"x"]), headers={"content-length": "1", "etag": '"v1"', "x-a": "b"}, content_type="text/plain"
    )
    begin_compression(accepting("br"), response)
    assert response.headers == [
        ("etag", 'W/"v1"'),
        ("x-a", "b"),
        ("vary", "accept-encoding"),
        ("content-encoding", "br"),
    ]
    weak = body(9999, etag='W/"v1"')
    begin_compression(accepting("br"), weak)
    assert ("etag", 'W/"v1"') in weak.headers


@pytest.mark.parametrize(
    ("given", "restored"),
    [
        ('W/"v1"', '"v1"'),
        ('W/"v1", "v2", W/"W/", W/","', '"v1", "v2", "W/", ","'),
        ('"W/"', '"W/"'),
        ("*", "*"),
    ],
)
def test_tags_of_if_match_become_strong_again(given: str, restored: str) -> None:
    headers = Headers([(b"if-match", given.encode()), (b"if-none-match", b'W/"v1"')])
    request = Request("PUT", "/", headers=headers)
    restore_tags(request)
    assert dict(request.headers) == {"if-match": restored, "if-none-match": 'W/"v1"'}
    assert headers["if-match"] == given  # of the connection, which keeps a header block for the next request
    unconditional = Request("PUT", "/")
    restore_tags(unconditional)
    assert dict(unconditional.headers) == {}


# Unpacking


@pytest.mark.parametrize("name", NAMES)
def test_bomb_is_detected_before_it_fills_the_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = compress(coding(name), bytes(50_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(HTTPError, match="413 The body has more than 1000000 bytes after decompression"):
        decompress_body(name, bomb, LIMIT)
    steps: list[int] = []

    def counting() -> Any:
        step = coding(name).decompressor()

        def counted(data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
            found = step(data, limit)
            steps.append(len(found[0]))
            return found

        return counted

    monkeypatch.setattr(codings, "coding_of", lambda _: coding(name)._replace(decompressor=counting))
    with pytest.raises(HTTPError):
        decompress_body(name, bomb, LIMIT)
    assert sum(steps) <= LIMIT + max(steps)
    assert max(steps) <= 4 * codings.OUTPUT_SIZE


@pytest.mark.parametrize("name", NAMES)
def test_limit_of_the_decompressed_size_is_exact(name: str) -> None:
    packed = compress(coding(name), bytes(1000))
    assert len(decompress_body(name, packed, 1000)) == 1000
    with pytest.raises(HTTPError, match="413"):
        decompress_body(name, packed, 999)


@pytest.mark.parametrize("name", NAMES)
def test_malformed_coding_gets_400(name: str) -> None:
    packed = compress(coding(name), TEXT)
    for bad in (packed[:-1], packed[: len(packed) // 2], packed + b"x", b"", b"\0" * 50, b"plain text", TEXT):
        with pytest.raises(HTTPError, match=f"400 The body is not {name}: "):
            decompress_body(name, bad, LIMIT)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("identity", 0),
        ("", 0),
        ("GZIP", 0),
        ("x-gzip", 0),
        ("gzip, identity", 0),
        ("gzip, gzip", 415),
        ("gzip, br", 415),
        ("compress", 415),
        ("aes128gcm", 415),
        ("gzip;q=1", 415),
        ("\x0bgzip", 415),
    ],
)
def test_content_encoding_header_is_parsed(header: str, status: int) -> None:
    packed = gzip.compress(TEXT)
    if status:
        with pytest.raises(HTTPError) as caught:
            decompress_body(header, packed, LIMIT)
        assert caught.value.status == status
        assert caught.value.headers == [("accept-encoding", "zstd, br, gzip, deflate")]
    else:
        assert decompress_body(header, packed, LIMIT) == (TEXT if "gzip" in header.lower() else packed)


def test_deflate_is_the_zlib_format() -> None:
    assert decompress_body("deflate", zlib.compress(TEXT), LIMIT) == TEXT
