"""compression.py and the compression in workers: responses, and request bodies, of a served service."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

import httpx
import pytest

import compression_jobs as jobs
from tinysvc import Service
from tinysvc.testing import serving
from tinysvc.wire.codings import coding_of, compress, decompress_body

WAYS = ["io", "cpu", "batch"]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(jobs, compress=True, cpu_workers=1, max_body_size=100_000, raise_errors=False) as url:  # noqa: SIM117
        with httpx.Client(base_url=url, timeout=20) as client:
            yield client


def raw(client: httpx.Client, path: str, accept: str) -> tuple[httpx.Response, bytes]:
    """The response, and its body before decompression."""
    with client.stream("GET", path, headers={"accept-encoding": accept}) as response:
        return response, b"".join(response.iter_raw())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["text", "big", "json", "view"])
@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_compressible_content_is_compressed(client: httpx.Client, way: str, kind: str, coding: str) -> None:
    plain, body = raw(client, f"/{way}/{kind}", "identity")
    response, compressed = raw(client, f"/{way}/{kind}", coding)
    assert response.headers["content-encoding"] == coding
    assert int(response.headers["content-length"]) == len(compressed) < len(body) / 4
    assert decompress_body(coding, compressed, len(body)) == body
    assert response.headers["content-type"] == plain.headers["content-type"]
    assert "content-encoding" not in plain.headers
    for each in (plain, response):
        assert each.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["small", "octets", "partial", "encoded"])
def test_other_content_is_not_compressed(client: httpx.Client, way: str, kind: str) -> None:
    plain, body = raw(client, f"/{way}/{kind}", "identity")
    response, compressed = raw(client, f"/{way}/{kind}", "gzip")
    assert compressed == body
    assert "vary" not in response.headers
    assert response.headers.get("content-encoding") == plain.headers.get("content-encoding")


@pytest.mark.parametrize("way", ["io", "cpu"])
def test_streams_are_compressed_by_item_but_events_are_not(client: httpx.Client, way: str) -> None:
    response, compressed = raw(client, f"/{way}/stream", "gzip")
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["transfer-encoding"] == "chunked"
    assert len(compressed) < 30_000
    assert gzip.decompress(compressed).decode() == "one " + jobs.TEXT + jobs.BIG
    decompressor = zlib.decompressobj(31)
    with client.stream("GET", f"/{way}/stream", headers={"accept-encoding": "gzip"}) as response:
        first = next(response.iter_raw())
        assert decompressor.decompress(first).startswith(b"one ")
    events, body = raw(client, f"/{way}/events", "gzip")
    assert "content-encoding" not in events.headers
    assert body.startswith(b"data: all work")


def test_file_is_not_compressed(client: httpx.Client) -> None:
    response, body = raw(client, "/file", "gzip")
    assert "content-encoding" not in response.headers
    assert b"A service whose responses are compressed" in body


def test_head_has_the_headers_of_get(client: httpx.Client) -> None:
    head = client.head("/io/big", headers={"accept-encoding": "gzip"})
    get, _ = raw(client, "/io/big", "gzip")
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}


def test_shared_response_is_not_changed(client: httpx.Client) -> None:
    responses = [raw(client, "/kept", accept) for accept in ("gzip", "identity", "gzip")]
    assert [response.headers.get("content-encoding") for response, _ in responses] == ["gzip", None, "gzip"]
    assert responses[1][1].decode() == jobs.BIG
    assert responses[2][1] == responses[0][1]


def test_errors_are_not_compressed(client: httpx.Client) -> None:
    assert "content-encoding" not in client.get("/nowhere").headers


def test_compression_is_off_by_default() -> None:
    with serving(Service(jobs.io)) as url:
        assert "vary" not in httpx.get(f"{url}/io/big").headers


# Compressed request bodies


def note(length: int) -> bytes:
    return json.dumps({"text": "a" * length}).encode()


def compressed_by(name: str, content: bytes) -> bytes:
    coding = coding_of(name)
    assert coding
    return compress(coding, content)


def send(client: httpx.Client, path: str, content: bytes, coding: str) -> httpx.Response:
    return client.post(path, content=content, headers={"content-type": "application/json", "content-encoding": coding})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_typed_body_is_decompressed(client: httpx.Client, way: str, name: str) -> None:
    response = send(client, f"/{way}/note", compressed_by(name, note(1000)), name)
    assert response.status_code == 200, response.text
    assert "1000" in response.text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("content", "coding", "status", "detail"),
    [
        (compressed_by("gzip", note(90_000)), "gzip", 200, ""),
        (compressed_by("gzip", note(200_000)), "gzip", 413, "more than 100000 bytes after decompression"),
        (compressed_by("zstd", bytes(500_000_000)), "zstd", 413, "more than 100000 bytes"),
        (compressed_by("gzip", compressed_by("gzip", bytes(10_000_000))), "gzip, gzip", 415, "one Content-Encoding"),
        (compressed_by("gzip", note(10))[:-4], "gzip", 400, "is not gzip: it was cut short"),
        (note(10), "gzip", 400, "is not gzip"),
        (note(10), "snappy", 415, "not 'snappy'"),
        (compressed_by("gzip", b'{"text'), "gzip", 400, "is not JSON"),
        (compressed_by("gzip", b'{"text": 1}'), "gzip", 422, "Expected `str`"),
        (note(10), "identity", 200, ""),
    ],
    ids=["fits", "long", "bomb", "nested", "cut", "plain", "unknown", "bad-json", "wrong-type", "identity"],
)
def test_invalid_compressed_body_gets_an_error(
    client: httpx.Client, way: str, content: bytes, coding: str, status: int, detail: str
) -> None:
    response = send(client, f"/{way}/note", content, coding)
    assert response.status_code == status, response.text
    assert detail in response.text
    if status == 415:
        assert response.headers["accept-encoding"] == "zstd, br, gzip, deflate"
    assert send(client, f"/{way}/note", note(3), "identity").status_code == 200


def test_body_limit_of_the_route_holds_after_decompression(client: httpx.Client) -> None:
    assert send(client, "/small/note", compressed_by("gzip", note(80)), "gzip").status_code == 200
    assert send(client, "/small/note", compressed_by("gzip", note(100)), "gzip").status_code == 413


@pytest.mark.parametrize("path", ["/io/raw", "/cpu/raw", "/io/stream"])
def test_raw_body_stays_compressed(client: httpx.Client, path: str) -> None:
    compressed = compressed_by("gzip", note(10))
    assert send(client, path, compressed, "gzip").content == compressed
