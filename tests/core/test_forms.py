"""forms.py: forms of both kinds, good and bad, however they are cut; on the loop and in workers; nothing is left."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import forms_jobs as jobs
from system import PROC, open_descriptors, wait_until
from tinysvc import ConfigurationError, UploadFile
from tinysvc.binding.binder import Binder
from tinysvc.core import forms
from tinysvc.core.errors import HTTPError
from tinysvc.core.forms import (
    MAX_PARTS,
    MAX_PREAMBLE,
    SPOOL_SIZE,
    FormData,
    FormParser,
    parse_form,
    read_form,
)
from tinysvc.testing import serving

B = "boundary"
MULTIPART = f"multipart/form-data; boundary={B}"
URLENCODED = "application/x-www-form-urlencoded"
END = f"--{B}--\r\n".encode()


def part(content: bytes, disposition: str = 'form-data; name="a"', *headers: str) -> bytes:
    lines = [f"--{B}", f"Content-Disposition: {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def upload(content: bytes, filename: str = "x.txt", *headers: str, name: str = "f") -> bytes:
    return part(content, f'form-data; name="{name}"; filename="{filename}"', *headers)


def parsed(body: bytes, step: int, content_type: str = MULTIPART) -> FormData:
    parser = FormParser(content_type)
    for start in range(0, len(body), step):
        parser.feed(body[start : start + step])
    return parser.finish()


def shown(form: FormData) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, bytes]]]]:
    return form.fields, {name: [(each.filename, each.read()) for each in files] for name, files in form.files.items()}


GOOD: dict[str, tuple[bytes, Any, Any]] = {
    "nothing": (END, {}, {}),
    "a-field": (part(b"1") + END, {"a": ["1"]}, {}),
    "two-of-a-name": (part(b"1") + part(b"2") + END, {"a": ["1", "2"]}, {}),
    "utf-8": (part("zw\u00f6lf".encode(), 'form-data; name="\u00fc"') + END, {"\u00fc": ["zw\u00f6lf"]}, {}),
    "lines": (part(b"\r\n\r\n--\r\n--bound") + END, {"a": ["\r\n\r\n--\r\n--bound"]}, {}),
    "empty": (part(b"") + END, {"a": [""]}, {}),
    "a-file": (upload(b"\0\xff\r\n") + END, {}, {"f": [("x.txt", b"\0\xff\r\n")]}),
    "an-empty-file": (upload(b"") + END, {}, {"f": [("x.txt", b"")]}),
    "no-file-chosen": (upload(b"", "") + END, {}, {}),
    "a-file-without-a-name": (upload(b"x", "") + END, {}, {"f": [("", b"x")]}),
    "both": (part(b"1") + upload(b"2") + END, {"a": ["1"]}, {"f": [("x.txt", b"2")]}),
    "crlf-first": (b"\r\n" + part(b"1") + END, {"a": ["1"]}, {}),
    "epilogue": (part(b"1") + END + b"\r\nmore", {"a": ["1"]}, {}),
    "no-last-line-end": (part(b"1") + END[:-2], {"a": ["1"]}, {}),
    "binary": (part(b"1", 'form-data; name="a"', "Content-Transfer-Encoding: 8bit") + END, {"a": ["1"]}, {}),
    "charset": (part(b"1", 'form-data; name="a"', "Content-Type: text/plain; charset=UTF-8") + END, {"a": ["1"]}, {}),
    "nested": (upload(b"--x", "n", "Content-Type: multipart/mixed; boundary=x") + END, {}, {"f": [("n", b"--x")]}),
    "preamble": (b"a MIME message\r\n" + part(b"1") + END, {"a": ["1"]}, {}),
    "two-line-ends-first": (b"\r\n\r\n" + part(b"1") + END, {"a": ["1"]}, {}),
    "latin-1": (
        part(b"\xfc", 'form-data; name="a"', "Content-Type: text/x; charset=ISO-8859-1") + END,
        {"a": ["\u00fc"]}, {},
    ),
    "windows": (
        part(b"\x80", 'form-data; name="a"', "Content-Type: text/x; charset=windows-1252") + END,
        {"a": ["\u20ac"]}, {},
    ),
    "ascii": (part(b"1", 'form-data; name="a"', "Content-Type: text/x; charset=ascii") + END, {"a": ["1"]}, {}),
    "_charset_": (
        part(b"latin1", 'form-data; name="_charset_"') + part(b"\xfc") + END,
        {"_charset_": ["latin1"], "a": ["\u00fc"]}, {},
    ),
    "latin-1-name": (part(b"1").replace(b'"a"', b'"\xfc"') + END, {"\u00fc": ["1"]}, {}),
    "extended": (part(b"1", "form-data; name=f; filename*=UTF-8''%D1%84.png") + END, {}, {"f": [("\u0444.png", b"1")]}),
    "extended-latin": (
        part(b"1", "form-data; name=f; filename=x; filename*=iso-8859-1'de'%FC") + END,
        {}, {"f": [("\u00fc", b"1")]},
    ),
    "extended-broken": (
        part(b"1", "form-data; name=f; filename=x; filename*=UTF-8''%FF") + END,
        {}, {"f": [("x", b"1")]},
    ),
    "extended-quoted": (
        part(b"1", 'form-data; name=f; filename="; filename*=UTF-8\'\'y"') + END,
        {}, {"f": [("; filename*=UTF-8''y", b"1")]},
    ),
    "extended-folder": (part(b"1", "form-data; name=f; filename*=UTF-8''..%2F..%5Cx") + END, {}, {"f": [("x", b"1")]}),
    "a-big-field": (part(b"x" * 3_000_000) + END, {"a": ["x" * 3_000_000]}, {}),
    "quoted": (part(b"1", 'form-data; name="a%22b"') + END, {'a"b': ["1"]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("step", [1, 7, 10**9])
@pytest.mark.parametrize("case", GOOD)
def test_multipart_however_it_is_cut(case: str, step: int) -> None:
    body, fields, files = GOOD[case]
    assert shown(parsed(body, step)) == (fields, files)


BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "malformed"),
    "no-boundary": (b"x" * 1000, 400, "boundary"),
    "another-boundary": (part(b"1").replace(b"boundary", b"Boundary") + END, 400, "malformed"),
    "before-the-boundary": (b"x" * (MAX_PREAMBLE + 1) + b"\r\n" + part(b"1") + END, 400, "boundary"),
    "line-ends-first": (b"\r" * 1_000_000 + part(b"1") + END, 400, "boundary"),
    "no-last-boundary": (part(b"1"), 400, "malformed"),
    "cut-in-a-header": (part(b"1")[:30], 400, "malformed"),
    "no-name": (part(b"1", "form-data") + END, 400, "a part has no name"),
    "empty-name": (part(b"1", 'form-data; name=""') + END, 400, "a part has no name"),
    "no-disposition": (f"--{B}\r\nA: b\r\n\r\n1\r\n".encode() + END, 400, "Content-Disposition"),
    "attachment": (part(b"1", 'attachment; name="a"') + END, 400, "Content-Disposition"),
    "bare-line-feeds": (part(b"1").replace(b"\r\n", b"\n") + END, 400, "malformed"),
    "line-feed-in-a-header": (part(b"1", 'form-data; name="a"; x="\n"') + END, 400, "malformed"),
    "control-in-a-name": (part(b"1", 'form-data; name="a\x07"') + END, 400, "control character"),
    "control-in-a-filename": (upload(b"1", "a\x00b") + END, 400, "control character"),
    "encoded-control": (upload(b"1", "a%0Ab") + END, 400, ""),
    "base64": (part(b"MQ==", 'form-data; name="a"', "Content-Transfer-Encoding: base64") + END, 400, "base64"),
    "no-utf-8": (part(b"\xff") + END, 400, "the field 'a' is not UTF-8"),
    "charset": (part(b"1", 'form-data; name="a"', "Content-Type: text/x; charset=utf-16") + END, 400, "'utf-16'"),
    "unknown-charset": (
        part(b"1", 'form-data; name="a"', "Content-Type: text/x; charset=x") + END,
        400, "the charset 'x'",
    ),
    "no-text-charset": (
        part(b"1", 'form-data; name="a"', "Content-Type: text/x; charset=zlib") + END,
        400, "not supported",
    ),
    "extended-control": (part(b"1", "form-data; name=f; filename*=UTF-8''a%00b") + END, 400, "control character"),
    "too-many-parts": (part(b"") * (MAX_PARTS + 1) + END, 413, "more than 10000 parts"),
    "big-header": (part(b"1", 'form-data; name="a"', "X: " + "x" * 5000) + END, 413, "headers of 4096 bytes"),
    "endless-header": (f"--{B}\r\nX: ".encode() + b"x" * 1_000_000, 413, "headers of 4096 bytes"),
    "many-headers": (part(b"1", 'form-data; name="a"', *["X: y"] * 10) + END, 413, "8 headers"),
}  # fmt: skip


@pytest.mark.parametrize("step", [1, 999, 10**9])
@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_refused_however_it_is_cut(case: str, step: int) -> None:
    body, status, detail = BAD[case]
    if step == 1 and len(body) > 100_000:
        body = body[:100_000]
        if case == "too-many-parts":
            pytest.skip("what makes it bad is cut off")
    with pytest.raises(HTTPError) as caught:
        parsed(body, step)
    if case != "encoded-control":
        assert caught.value.status == status
        assert detail in caught.value.detail


def test_the_number_of_parts_is_exact() -> None:
    assert len(parsed(part(b"") * MAX_PARTS + END, 10**9).fields["a"]) == MAX_PARTS


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
def test_content_types(content_type: str, status: int) -> None:
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


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/cron.d/x", "x"),
        ("/etc/passwd", "passwd"),
        ("C:\\\\Users\\\\ada\\\\photo.jpg", "photo.jpg"),
        ("..", ""),
        (".", ""),
        ("a/..", ""),
        ("/", ""),
        (".hidden", ".hidden"),
        ("\u202fScreenshot \u00e9.png", "\u202fScreenshot \u00e9.png".strip()),
        ("NUL", "NUL"),
    ],
)
def test_a_filename_is_a_name_and_no_path(sent: str, filename: str) -> None:
    (found,) = parsed(upload(b"x", sent) + END, 10**9).files["f"]
    assert found.filename == filename


# Where the files are


def on_disk(file: UploadFile) -> bool:
    return bool(file.file._rolled)  # type: ignore[attr-defined]


def test_small_files_stay_in_memory_and_big_ones_go_to_disk() -> None:
    body = upload(bytes(SPOOL_SIZE // 2)) * 2 + upload(b"x" * 100) + upload(os.urandom(3 * SPOOL_SIZE)) + END
    form = parsed(body, 64 * 1024)
    assert [on_disk(each) for each in form.files["f"]] == [False, False, True, True]
    assert sum(each.size for each in form.files["f"]) == 4 * SPOOL_SIZE + 100
    assert form.get("f").read() == body[-3 * SPOOL_SIZE - len(END) - 2 : -len(END) - 2]


def test_the_loop_never_writes_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

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
def test_in_a_worker_all_at_once(kind: Any) -> None:
    body = part(b"1") + upload(b"x" * 700_000) + END
    form = parse_form(MULTIPART, kind(body))
    assert form.fields == {"a": ["1"]}
    assert form.get("f").size == 700_000
    assert form.get("a") == "1"
    assert form.get("b") is None
    assert repr(form.get("f")) == "<UploadFile f: 'x.txt', 700000 bytes of application/octet-stream>"


@pytest.mark.parametrize("big", [False, True])
def test_libraries_read_the_file(big: bool, tmp_path: Path) -> None:
    array = np.random.default_rng(1).random(300_000 if big else 10)
    saved = BytesIO()
    np.save(saved, array)
    (found,) = parsed(upload(saved.getvalue()) + END, 10**9).files["f"]
    assert on_disk(found) == big
    assert np.array_equal(np.load(found.file), array)
    found.save(tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    size = (1000, 1000) if big else (10, 10)
    picture = BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (*size, 3), np.uint8)).save(picture, "PNG")
    (found,) = parsed(upload(picture.getvalue()) + END, 10**9).files["f"]
    assert Image.open(found.file).size == size


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_file_reaches_its_handler(client: httpx.Client, way: str, size: int) -> None:
    content = os.urandom(size)
    files = {"file": ("a/b.bin", content, "application/x-thing")}
    found = client.post(f"/{way}/file", files=files, data={"note": "n"}).json()
    assert (found.pop("pid") == os.getpid()) == (way == "io")
    rest = {"type": "application/x-thing", "size": size, "length": size, "sum": sum(content), "note": "n"}
    assert found == {"filename": "b.bin", **rest}


@WAYS
def test_several_files_and_values(client: httpx.Client, way: str) -> None:
    files = [("files", (f"{i}.txt", b"x")) for i in range(3)]
    answer = client.post(f"/{way}/files", files=files, data={"numbers": ["1", "2"]})
    assert answer.json() == [["0.txt", "1.txt", "2.txt"], [1, 2]]
    assert client.post(f"/{way}/files", data={"numbers": "7"}).json() == [[], [7]]


@WAYS
def test_a_form_as_a_dataclass(client: httpx.Client, way: str) -> None:
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
def test_what_does_not_fit_is_named(
    client: httpx.Client, way: str, path: str, data: Any, files: Any, places: list[str]
) -> None:
    answer = client.post(f"/{way}/{path}", data=data, files=files or None)
    assert answer.status_code == 422, answer.text
    assert [error["place"] for error in answer.json()["errors"]] == places


@WAYS
def test_what_is_optional(client: httpx.Client, way: str) -> None:
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
def test_what_is_no_form_is_refused(
    client: httpx.Client, way: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    assert client.post(f"/{way}/file", headers=headers, content=content).status_code == status


def test_the_form_of_a_request(client: httpx.Client) -> None:
    answer = client.post("/io/form", data={"a": ["1", "2"]}, files={"f": ("x", b"y")})
    assert answer.json() == [{"a": ["1", "2"]}, {"f": ["x"]}]


def test_in_a_thread(client: httpx.Client, tmp_path: Path) -> None:
    answer = client.post("/io/thread", params={"path": str(tmp_path / "x")}, files={"file": ("x", bytes(2_000_000))})
    assert answer.json() == 2_000_000


def temporary_files() -> set[str]:
    return {link for link in open_descriptors() if "(deleted)" in link and "memfd" not in link}


@pytest.mark.skipif(not PROC.exists(), reason="needs /proc")
def test_nothing_is_left_whatever_happens(client: httpx.Client) -> None:
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


@pytest.mark.asyncio
async def test_a_thread_that_writes_when_the_client_goes_closes_what_it_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SpooledTemporaryFile[bytes]] = []
    writing, gone, written = threading.Event(), threading.Event(), threading.Event()

    class Slow(SpooledTemporaryFile):  # type: ignore[type-arg]
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def rollover(self) -> None:
            writing.set()
            assert gone.wait(20)
            try:
                super().rollover()
            finally:
                written.set()

    async def pieces() -> AsyncIterator[bytes]:
        yield upload(bytes(2 * SPOOL_SIZE))

    monkeypatch.setattr(forms, "SpooledTemporaryFile", Slow)
    reading = asyncio.create_task(read_form(MULTIPART, pieces()))
    assert await asyncio.to_thread(writing.wait, 20)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    gone.set()
    assert written.wait(20)
    wait_until(lambda: made and all(file.closed for file in made), "all is closed")


def test_limits_are_as_documented() -> None:
    assert (forms.MAX_PARTS, forms.MAX_PART_HEADERS, forms.MAX_BOUNDARY) == (10_000, 8, 70)


@pytest.mark.parametrize("path", ["/io/pieces", "/io/lines", "/cpu/pieces", "/cpu/lines"])
def test_upload_that_a_stream_reads_lives_until_its_end(client: httpx.Client, path: str) -> None:
    for content in (b"line\n" * 10, (b"x" * 9999 + b"\n") * (SPOOL_SIZE // 10_000 + 20)):
        answer = client.post(path, files={"file": ("x.txt", content)})
        assert answer.content == content


def test_a_byte_order_mark_is_no_part_of_a_name() -> None:
    assert parse_form("application/x-www-form-urlencoded", b"\xef\xbb\xbfa=1").fields == {"a": ["1"]}
