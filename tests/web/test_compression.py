"""compression.py, and the workers' part: answers that are compressed, and bodies that came so, on a served service."""

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
    """The answer, and its body as it came."""
    with client.stream("GET", path, headers={"accept-encoding": accept}) as answer:
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["text", "big", "json", "view"])
@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_what_shrinks_is_compressed(client: httpx.Client, way: str, kind: str, coding: str) -> None:
    plain, body = raw(client, f"/{way}/{kind}", "identity")
    answer, packed = raw(client, f"/{way}/{kind}", coding)
    assert answer.headers["content-encoding"] == coding
    assert int(answer.headers["content-length"]) == len(packed) < len(body) / 4
    assert decompress_body(coding, packed, len(body)) == body
    assert answer.headers["content-type"] == plain.headers["content-type"]
    assert "content-encoding" not in plain.headers
    for each in (plain, answer):
        assert each.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["small", "octets", "partial", "packed"])
def test_what_does_not_is_left_alone(client: httpx.Client, way: str, kind: str) -> None:
    plain, body = raw(client, f"/{way}/{kind}", "identity")
    answer, packed = raw(client, f"/{way}/{kind}", "gzip")
    assert packed == body
    assert "vary" not in answer.headers
    assert answer.headers.get("content-encoding") == plain.headers.get("content-encoding")


@pytest.mark.parametrize("way", ["io", "cpu"])
def test_streams_are_compressed_as_they_go_but_not_events(client: httpx.Client, way: str) -> None:
    answer, packed = raw(client, f"/{way}/stream", "gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert len(packed) < 30_000
    assert gzip.decompress(packed).decode() == "one " + jobs.TEXT + jobs.BIG
    unpack = zlib.decompressobj(31)
    with client.stream("GET", f"/{way}/stream", headers={"accept-encoding": "gzip"}) as answer:
        first = next(answer.iter_raw())
        assert unpack.decompress(first).startswith(b"one ")
    events, body = raw(client, f"/{way}/events", "gzip")
    assert "content-encoding" not in events.headers
    assert body.startswith(b"data: all work")


def test_a_file_is_sent_as_it_is(client: httpx.Client) -> None:
    answer, body = raw(client, "/file", "gzip")
    assert "content-encoding" not in answer.headers
    assert b"A service whose answers are compressed" in body


def test_head_has_the_headers_of_get(client: httpx.Client) -> None:
    head = client.head("/io/big", headers={"accept-encoding": "gzip"})
    get, _ = raw(client, "/io/big", "gzip")
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}


def test_a_response_that_its_author_keeps_is_not_written_into(client: httpx.Client) -> None:
    answers = [raw(client, "/kept", accept) for accept in ("gzip", "identity", "gzip")]
    assert [answer.headers.get("content-encoding") for answer, _ in answers] == ["gzip", None, "gzip"]
    assert answers[1][1].decode() == jobs.BIG
    assert answers[2][1] == answers[0][1]


def test_errors_are_plain(client: httpx.Client) -> None:
    assert "content-encoding" not in client.get("/nowhere").headers


def test_off_by_default() -> None:
    with serving(Service(jobs.io)) as url:
        assert "vary" not in httpx.get(f"{url}/io/big").headers


# Bodies that came compressed


def note(length: int) -> bytes:
    return json.dumps({"text": "a" * length}).encode()


def packed_by(name: str, content: bytes) -> bytes:
    coding = coding_of(name)
    assert coding
    return compress(coding, content)


def send(client: httpx.Client, path: str, content: bytes, coding: str) -> httpx.Response:
    return client.post(path, content=content, headers={"content-type": "application/json", "content-encoding": coding})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_typed_body_is_unpacked(client: httpx.Client, way: str, name: str) -> None:
    answer = send(client, f"/{way}/note", packed_by(name, note(1000)), name)
    assert answer.status_code == 200, answer.text
    assert "1000" in answer.text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("content", "coding", "status", "detail"),
    [
        (packed_by("gzip", note(90_000)), "gzip", 200, ""),
        (packed_by("gzip", note(200_000)), "gzip", 413, "more than 100000 bytes when it is unpacked"),
        (packed_by("zstd", bytes(500_000_000)), "zstd", 413, "more than 100000 bytes"),
        (packed_by("gzip", packed_by("gzip", bytes(10_000_000))), "gzip, gzip", 415, "one Content-Encoding"),
        (packed_by("gzip", note(10))[:-4], "gzip", 400, "is not gzip: it was cut short"),
        (note(10), "gzip", 400, "is not gzip"),
        (note(10), "snappy", 415, "not 'snappy'"),
        (packed_by("gzip", b'{"text'), "gzip", 400, "is not JSON"),
        (packed_by("gzip", b'{"text": 1}'), "gzip", 422, "Expected `str`"),
        (note(10), "identity", 200, ""),
    ],
    ids=["fits", "long", "bomb", "nested", "cut", "plain", "unknown", "bad-json", "wrong-type", "identity"],
)
def test_what_is_wrong_with_it_is_said(
    client: httpx.Client, way: str, content: bytes, coding: str, status: int, detail: str
) -> None:
    answer = send(client, f"/{way}/note", content, coding)
    assert answer.status_code == status, answer.text
    assert detail in answer.text
    if status == 415:
        assert answer.headers["accept-encoding"] == "zstd, br, gzip, deflate"
    assert send(client, f"/{way}/note", note(3), "identity").status_code == 200


def test_the_routes_own_limit_holds_for_what_is_unpacked(client: httpx.Client) -> None:
    assert send(client, "/small/note", packed_by("gzip", note(80)), "gzip").status_code == 200
    assert send(client, "/small/note", packed_by("gzip", note(100)), "gzip").status_code == 413


@pytest.mark.parametrize("path", ["/io/raw", "/cpu/raw", "/io/stream"])
def test_raw_bytes_are_what_was_sent(client: httpx.Client, path: str) -> None:
    packed = packed_by("gzip", note(10))
    assert send(client, path, packed, "gzip").content == packed
