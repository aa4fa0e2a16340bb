"""core/forms.py: forms of both kinds, on the event loop and in workers."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import forms_jobs as jobs
from multipart_bodies import END, MULTIPART, URLENCODED, parsed, part, upload
from system import PROC, open_descriptors, wait_until
from tinysvc import ConfigurationError
from tinysvc.binding.binder import Binder
from tinysvc.core.errors import HTTPError
from tinysvc.core.form_data import MAX_PARTS, SPOOL_SIZE
from tinysvc.core.forms import FormParser, parse_form, read_form
from tinysvc.testing import serving


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=x", 415),
        ("text/plain", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary=""', 400),
        (f"multipart/form-data; boundary={'x' * 71}", 400),
        ("multipart/form-data; boundary=a\x01b", 400),
        ("multipart/form-data; boundary=\u00e9", 400),
        ("multipart/form-data; charset=utf-16; boundary=x", 400),
        ("Multipart/Form-Data ; BOUNDARY=x", 0),
        ('multipart/form-data; boundary="x"', 0),
        ("multipart/form-data; boundary=x; charset=UTF-8", 0),
        (f"multipart/form-data; boundary={'x' * 70}", 0),
        ("application/x-www-form-urlencoded; charset=UTF-8", 0),
        ("application/x-www-form-urlencoded; !=" + '"' + "\\" * 10_000, 0),  # CVE-2024-24762
        ("application/x-www-form-urlencoded" + ';"' * 4000, 0),
    ],
)
def test_content_type_is_checked(content_type: str, status: int) -> None:
    if status:
        with pytest.raises(HTTPError) as caught:
            FormParser(content_type)
        assert caught.value.status == status
    else:
        assert FormParser(content_type).unwritten == 0


@pytest.mark.parametrize("step", [1, 10**9])
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {}),
        (b"a=1&b=2&a=3", {"a": ["1", "3"], "b": ["2"]}),
        (b"a=%C3%BC+x", {"a": ["\u00fc x"]}),
        ("a=\u00fc".encode(), {"a": ["\u00fc"]}),
        (b"a=1&x=;role=admin", {"a": ["1"], "x": [";role=admin"]}),  # CVE-2026-53538
        (b"a=1&" * MAX_PARTS + b"b", None),
        (b"a=\xff", None),
    ],
)
def test_urlencoded(body: bytes, fields: dict[str, list[str]] | None, step: int) -> None:
    if fields is None:
        with pytest.raises(HTTPError, match=r"4(00|13) The form (holds more than 10000|is not UTF)"):
            parsed(body, max(step, len(body) // 50), URLENCODED)
    else:
        assert parsed(body, step, URLENCODED).fields == fields


def test_event_loop_never_writes_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:

    writers: set[int] = set()
    original = FormParser.flush

    def flush(self: FormParser) -> None:
        if self.unwritten:
            writers.add(threading.get_ident())
        original(self)

    monkeypatch.setattr(FormParser, "flush", flush)
    body = upload(os.urandom(5 * SPOOL_SIZE)) + END

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    form = asyncio.run(read_form(MULTIPART, pieces()))
    assert form.get("f").size == 5 * SPOOL_SIZE
    assert writers
    assert threading.get_ident() not in writers


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_worker_parses_the_whole_body(kind: Any) -> None:
    body = part(b"1") + upload(b"x" * 700_000) + END
    form = parse_form(MULTIPART, kind(body))
    assert form.fields == {"a": ["1"]}
    assert form.get("f").size == 700_000
    assert form.get("a") == "1"
    assert form.get("b") is None
    assert repr(form.get("f")) == "<UploadFile f: 'x.txt', 700000 bytes of application/octet-stream>"


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "multipart", None)
    with pytest.raises(RuntimeError, match=r"uploads need the multipart library .*; pip install 'tinysvc\[forms\]'"):
        FormParser(MULTIPART)
    assert FormParser(URLENCODED)
    with pytest.raises(ConfigurationError, match=r"io_file .*pip install 'tinysvc\[forms\]'"):
        Binder(jobs.io_file)


# Bound to parameters, on a real server


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serving(jobs, cpu_workers=1, max_body_size=20_000_000, raise_errors=False) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


WAYS = pytest.mark.parametrize("way", ["io", "cpu"])


@WAYS
@pytest.mark.parametrize("size", [0, 10, 100_000, 3_000_000])
def test_handler_gets_the_file(client: httpx.Client, way: str, size: int) -> None:
    content = os.urandom(size)
    files = {"file": ("a/b.bin", content, "application/x-thing")}
    found = client.post(f"/{way}/file", files=files, data={"note": "n"}).json()
    assert (found.pop("pid") == os.getpid()) == (way == "io")
    rest = {"type": "application/x-thing", "size": size, "length": size, "sum": sum(content), "note": "n"}
    assert found == {"filename": "b.bin", **rest}


@WAYS
def test_handler_gets_several_files_and_values(client: httpx.Client, way: str) -> None:
    files = [("files", (f"{i}.txt", b"x")) for i in range(3)]
    answer = client.post(f"/{way}/files", files=files, data={"numbers": ["1", "2"]})
    assert answer.json() == [["0.txt", "1.txt", "2.txt"], [1, 2]]
    assert client.post(f"/{way}/files", data={"numbers": "7"}).json() == [[], [7]]


@WAYS
def test_form_fills_a_dataclass(client: httpx.Client, way: str) -> None:
    files = [("photo", ("p.jpg", b"1")), ("more", ("m.jpg", b"2")), ("more", ("n.jpg", b"3"))]
    data = {"title": "t", "rating": "5", "tags": ["a", "b"], "unknown": "x"}
    assert client.post(f"/{way}/entry", files=files, data=data).json() == [
        "t",
        5,
        ["a", "b"],
        ["p.jpg", "m.jpg", "n.jpg"],
    ]
    assert client.post(f"/{way}/entry", data={"title": "t"}).json() == ["t", 0, [], []]


@WAYS
@pytest.mark.parametrize(
    ("path", "data", "files", "places"),
    [
        ("file", {}, {"other": b"x"}, ["form.file"]),
        ("file", {"file": "text"}, {}, ["form.file"]),
        ("files", {"numbers": ["1", "x"]}, {}, ["form.numbers[1]"]),
        ("entry", {"rating": "5"}, {}, ["form"]),
        ("entry", {"title": "t", "rating": "-5"}, {}, ["form.rating"]),
        ("entry", {"title": "t", "photo": "text"}, {}, ["form.photo"]),
        ("entry", {}, {"title": b"x"}, ["form.title"]),
    ],
)
def test_422_names_the_field(
    client: httpx.Client, way: str, path: str, data: Any, files: Any, places: list[str]
) -> None:
    answer = client.post(f"/{way}/{path}", data=data, files=files or None)
    assert answer.status_code == 422, answer.text
    assert [error["place"] for error in answer.json()["errors"]] == places


@WAYS
def test_optional_fields_have_defaults(client: httpx.Client, way: str) -> None:
    assert client.post(f"/{way}/optional", data={"the-name": "ada"}).json() == [None, "ada"]
    assert client.post(f"/{way}/optional", files={"file": ("f", b"x")}).json() == ["f", "nobody"]


@WAYS
@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "application/json"}, b"{}", 415),
        ({}, b"x", 415),
        ({"content-type": MULTIPART}, b"x", 400),
        ({"content-type": MULTIPART}, part(b"") * (MAX_PARTS + 1) + END, 413),
        ({"content-type": MULTIPART}, upload(bytes(21_000_000)) + END, 413),
        (
            {"content-type": MULTIPART, "content-encoding": "gzip"},
            gzip.compress(upload(b"x", name="file") + END, mtime=0),
            200,
        ),
        ({"content-type": MULTIPART, "content-encoding": "gzip"}, gzip.compress(bytes(30_000_000), mtime=0), 413),
        ({"content-type": MULTIPART, "content-encoding": "gzip"}, b"x", 400),
    ],
)
def test_bad_form_gets_its_status(
    client: httpx.Client, way: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    assert client.post(f"/{way}/file", headers=headers, content=content).status_code == status


def test_request_form_has_fields_and_files(client: httpx.Client) -> None:
    answer = client.post("/io/form", data={"a": ["1", "2"]}, files={"f": ("x", b"y")})
    assert answer.json() == [{"a": ["1", "2"]}, {"f": ["x"]}]


def test_form_is_read_in_a_thread(client: httpx.Client, tmp_path: Path) -> None:
    answer = client.post("/io/thread", params={"path": str(tmp_path / "x")}, files={"file": ("x", bytes(2_000_000))})
    assert answer.json() == 2_000_000


def temporary_files() -> set[str]:
    return {link for link in open_descriptors() if "(deleted)" in link and "memfd" not in link}


@pytest.mark.skipif(not PROC.exists(), reason="needs /proc")
def test_no_temporary_file_remains(client: httpx.Client) -> None:
    before = temporary_files()
    big = bytes(5_000_000)
    assert client.post("/io/file", files={"file": ("x", big)}).status_code == 200
    assert client.post("/io/fails", files={"file": ("x", big)}).status_code == 500
    assert client.post("/io/file", files={"other": ("x", big)}).status_code == 422
    body = upload(big)[:-100_000]
    assert (
        client.post("/io/file", content=body + b"\r\n" + part(b"\xff"), headers={"content-type": MULTIPART}).status_code
        == 400
    )
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        head = f"POST /io/file HTTP/1.1\r\nHost: x\r\nContent-Type: {MULTIPART}\r\nContent-Length: 9000000\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: temporary_files() - before, "the file is on disk")
    wait_until(lambda: temporary_files() <= before, "nothing of it is left")


@pytest.mark.parametrize("path", ["/io/pieces", "/io/lines", "/cpu/pieces", "/cpu/lines"])
def test_upload_stays_open_until_the_stream_ends(client: httpx.Client, path: str) -> None:
    for content in (b"line\n" * 10, (b"x" * 9999 + b"\n") * (SPOOL_SIZE // 10_000 + 20)):
        answer = client.post(path, files={"file": ("x.txt", content)})
        assert answer.content == content


def test_byte_order_mark_is_removed() -> None:
    assert parse_form("application/x-www-form-urlencoded", b"\xef\xbb\xbfa=1").fields == {"a": ["1"]}
