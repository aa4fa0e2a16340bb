"""static.py: a folder on a real server, asked for what is in it and for what is not."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from http_ends import get
from system import PROC, open_descriptors, wait_until
from tinysvc import ConfigurationError, Service, io_route
from tinysvc.testing import serving
from tinysvc.web.static import StaticFiles, content_type_of

SCRIPT = b"let x = 'y';\n" * 1000
PAGE = b"<!doctype html><title>page</title>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("top")
    folder = top / "public"
    for name in ("", "sub", "sub/deep", "empty", "with:colon"):
        (folder / name).mkdir()
    for name, content in {
        "page.html": PAGE,
        "app.js": SCRIPT,
        "app.js.gz": gzip.compress(SCRIPT),
        "app.js.br": b"not really brotli",
        "digits.bin": b"0123456789",
        "nothing.txt": b"",
        "sub/index.html": b"index of sub",
        "with:colon/index.html": b"colon",
        "sub/deep/zw\u00f6lf \U0001f600.txt": b"deep",
        "100%.txt": b"percent",
        ".secret": b"secret",
        "sub/.git": b"secret",
        "leak.js": b"leak",
    }.items():
        (folder / name).write_bytes(content)
    (top / "outside.txt").write_bytes(b"secret")
    (top / "public_sibling").mkdir()
    (top / "public_sibling" / "x").write_bytes(b"secret")
    (folder / "inside-link").symlink_to("page.html")
    (folder / "absolute-inside").symlink_to(folder / "page.html")
    (folder / "out-link").symlink_to("../outside.txt")
    (folder / "out-folder").symlink_to("..")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "leak.js.gz").symlink_to("../outside.txt")
    os.mkfifo(folder / "pipe")
    (folder / "unreadable").write_bytes(b"x")
    return folder


@io_route("/api")
async def api() -> str:
    return "api"


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(Service(api, StaticFiles(folder), StaticFiles(folder, prefix="", cache_control="max-age=9"))) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


def told(url: str, path: str, *fields: str, method: str = "GET") -> bytes:
    """The whole answer to the path as it is, without its date."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.settimeout(20)
        connection.sendall(get(path, "Connection: close", *fields, method=method))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"date: "))


# What is there


@pytest.mark.parametrize(
    ("path", "content", "content_type"),
    [
        ("page.html", PAGE, "text/html; charset=utf-8"),
        ("app.js", SCRIPT, "text/javascript; charset=utf-8"),
        ("digits.bin", b"0123456789", "application/octet-stream"),
        ("nothing.txt", b"", "text/plain; charset=utf-8"),
        ("sub/", b"index of sub", "text/html; charset=utf-8"),
        ("sub/index.html", b"index of sub", "text/html; charset=utf-8"),
        ("sub/deep/zw%C3%B6lf%20%F0%9F%98%80.txt", b"deep", "text/plain; charset=utf-8"),
        ("100%25.txt", b"percent", "text/plain; charset=utf-8"),
        ("inside-link", PAGE, "application/octet-stream"),
        ("absolute-inside", PAGE, "application/octet-stream"),
        ("%70age.html", PAGE, "text/html; charset=utf-8"),
    ],
)
def test_a_file(client: httpx.Client, path: str, content: bytes, content_type: str) -> None:
    for prefix, cache_control in (("/static/", "no-cache"), ("/", "max-age=9")):
        answer = client.get(prefix + path, headers={"accept-encoding": "identity"})
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-type"] == content_type
        assert answer.headers["cache-control"] == cache_control
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["etag"].startswith('"')
        head = client.head(prefix + path, headers={"accept-encoding": "identity"})
        assert {**head.headers, "date": ""} == {**answer.headers, "date": ""}
        assert head.content == b""


def test_routes_come_first(client: httpx.Client) -> None:
    assert client.get("/api").text == "api"
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/static/sub", "./sub/"),
        ("/sub", "./sub/"),
        ("/static/with:colon", "./with:colon/"),
    ],
)
def test_a_folder_without_its_slash(client: httpx.Client, path: str, location: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (301, location)
    assert client.get(path, follow_redirects=True).url.path == path + "/"


@pytest.mark.parametrize(
    "path", ["//evil.example/..", "//evil.example/%2e%2e", "/\\evil.example", "/%5cevil.example/.."]
)
def test_no_redirect_leads_away(url: str, path: str) -> None:
    answer = told(url, path)
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))
    assert b"location" not in answer


def test_only_get_and_head(client: httpx.Client) -> None:
    answer = client.post("/static/page.html")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


# What is not


NOWHERE = [
    "nowhere", "sub/nowhere", "..", "../outside.txt", "..%2foutside.txt", "%2e%2e/outside.txt", "%2e%2e%2foutside.txt",
    "sub/../page.html", "sub/%2e%2e/page.html", "./page.html", "%2e/page.html", "sub//index.html", "/page.html",
    "/etc/passwd", "//etc/passwd", "..%5coutside.txt", "sub%5cindex.html", "page.html%00", "page.html%00.txt", "%00",
    "%c0%ae%c0%ae/outside.txt", "%c0%af", "%ff", "..%c0%afoutside.txt", "../public_sibling/x", ".secret", "sub/.git",
    "%2esecret", "out-link", "out-folder/outside.txt", "dangling", "loop", "pipe", "empty",
    "empty/", "page.html/", "page.html/x", "sub%2findex.html", "digits.bin%20", "NUL", "page.html::$DATA", "x" * 300,
    "%e2%80%ae", "a" + "/a" * 2000, "~root", "page.html;x",
]  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE)
def test_what_is_not_there_is_the_same_404(url: str, path: str) -> None:
    expected = told(url, "/static/certainly-not-there")
    assert expected.startswith(b"HTTP/1.1 404 Not Found\r\n")
    answer = told(url, "/static/" + path)
    if b"%00" in path.encode():  # http.py has refused it before
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
    else:
        assert answer == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_not_there(url: str, folder: Path) -> None:
    (folder / "unreadable").chmod(0)
    assert told(url, "/static/unreadable") == told(url, "/static/nowhere")


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(ConfigurationError, match=rf"there is no folder {tmp_path}/{name} to serve files of"):
            StaticFiles(name)


# Conditions, ranges, codings


def test_who_has_it_is_told_so(client: httpx.Client) -> None:
    first = client.get("/static/page.html")
    for condition in (
        {"if-none-match": first.headers["etag"]},
        {"if-none-match": "W/" + first.headers["etag"]},
        {"if-modified-since": first.headers["last-modified"]},
    ):
        answer = client.get("/static/page.html", headers=condition)
        assert (answer.status_code, answer.content) == (304, b"")
        for name in ("etag", "last-modified", "cache-control"):
            assert answer.headers[name] == first.headers[name]
    assert client.get("/static/page.html", headers={"if-match": '"other"'}).status_code == 412


def test_a_change_changes_the_tag(client: httpx.Client, folder: Path) -> None:
    path = folder / "changing.txt"
    tags: set[str] = set()
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        os.utime(path, ns=(0, len(tags) * 10))  # within one second
        tags.add(client.get("/static/changing.txt").headers["etag"])
    assert len(tags) == 3


@pytest.mark.parametrize(
    ("wanted", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=0-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=3-1", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=0-4,2-6", 200, b"0123456789", None),
        ("bytes=" + ",".join(f"{i}-{i}" for i in range(1000)), 200, b"0123456789", None),
        ("bytes=\u0660-\u0661".encode().decode("latin-1"), 200, b"0123456789", None),
    ],
)
def test_a_part(
    client: httpx.Client, wanted: str, status: int, content: bytes | None, content_range: str | None
) -> None:
    answer = client.get("/static/digits.bin", headers=[(b"range", wanted.encode("latin-1"))])
    assert answer.status_code == status
    assert answer.headers.get("content-range") == content_range
    if content is not None:
        assert answer.content == content


def test_several_parts(client: httpx.Client) -> None:
    answer = client.get("/static/digits.bin", headers={"range": "bytes=0-1,5-6,-1"})
    assert answer.status_code == 206
    assert int(answer.headers["content-length"]) == len(answer.content)
    boundary = answer.headers["content-type"].removeprefix("multipart/byteranges; boundary=")
    parts = answer.content.split(f"--{boundary}".encode())[1:-1]
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [b"01\r\n", b"56\r\n", b"9\r\n"]
    assert [
        b"Content-Range: bytes " + c in part for c, part in zip((b"0-1/10", b"5-6/10", b"9-9/10"), parts, strict=True)
    ]


def test_head_has_no_ranges(client: httpx.Client) -> None:
    assert client.head("/static/digits.bin", headers={"range": "bytes=0-1"}).status_code == 200


def test_a_part_only_of_what_the_client_knows(client: httpx.Client) -> None:
    first = client.get("/static/digits.bin")
    tag, date = first.headers["etag"], first.headers["last-modified"]
    for condition, status in (
        (tag, 206), (date, 206), ("W/" + tag, 200), ('"other"', 200), ("Sun, 06 Nov 1994 08:49:37 GMT", 200), ("", 200),
    ):  # fmt: skip
        answer = client.get("/static/digits.bin", headers={"range": "bytes=0-1", "if-range": condition})
        assert answer.status_code == status, condition
    stale = {"range": "bytes=0-1", "if-none-match": tag}
    assert client.get("/static/digits.bin", headers=stale).status_code == 304


@pytest.mark.parametrize(
    ("accept", "coding"),
    [("gzip", "gzip"), ("gzip, br", "br"), ("br;q=0.1, gzip", "gzip"), ("zstd", None), ("identity", None), ("*", "br")],
)
def test_what_was_compressed_before(
    url: str, client: httpx.Client, folder: Path, accept: str, coding: str | None
) -> None:
    with client.stream("GET", "/static/app.js", headers={"accept-encoding": accept}) as answer:
        body = b"".join(answer.iter_raw())
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    ends = {"gzip": ".gz", "br": ".br", None: ""}
    assert body == (folder / f"app.js{ends[coding]}").read_bytes()
    again = client.get("/static/app.js", headers={"accept-encoding": accept, "if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.headers["vary"]) == (304, "accept-encoding")
    other = client.get("/static/app.js", headers={"accept-encoding": "identity"})
    assert (other.headers["etag"] != answer.headers["etag"]) == (coding is not None)


def test_a_part_is_of_the_file_itself(client: httpx.Client) -> None:
    answer = client.get("/static/app.js", headers={"accept-encoding": "gzip", "range": "bytes=0-2"})
    assert (answer.content, answer.headers["vary"]) == (b"let", "accept-encoding")
    assert "content-encoding" not in answer.headers


def test_a_sibling_that_leads_outside_is_not_followed(client: httpx.Client) -> None:
    answer = client.get("/static/leak.js", headers={"accept-encoding": "gzip"})
    assert (answer.content, "vary" in answer.headers) == (b"leak", False)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.css", "text/css; charset=utf-8"),
        ("a.JSON", "application/json; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.webp", "image/webp"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("a.b/c", "application/octet-stream"),
    ],
)
def test_content_types(name: str, content_type: str) -> None:
    assert content_type_of(name) == content_type


# What is left behind


@pytest.mark.skipif(not PROC.exists(), reason="needs /proc")
def test_no_descriptor_stays_open(client: httpx.Client, url: str, folder: Path) -> None:
    def files() -> list[str]:
        return [link for link in open_descriptors() if str(folder) in link]

    asked: list[tuple[str, str, dict[str, Any]]] = [
        (method, path, headers)
        for method in ("GET", "HEAD")
        for path in ("app.js", "sub", "sub/", "nowhere", "pipe", "leak.js")
        for headers in (
            {}, {"range": "bytes=0-1"}, {"range": "bytes=0-1,3-4"}, {"range": "bytes=99999-"},
            {"if-none-match": "*"}, {"if-match": '"x"'}, {"accept-encoding": "gzip"}, {"accept-encoding": "*"},
        )
    ]  # fmt: skip
    for method, path, headers in asked:
        with client.stream(method, f"/static/{path}", headers=headers) as answer:
            assert b"".join(answer.iter_raw()) or method == "HEAD" or answer.status_code in (301, 304)
    wait_until(lambda: not files(), "every file is closed")


def test_a_module_serves_its_folder(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a.txt").write_text("a")
    module = tmp_path / "site_of_test_static.py"
    module.write_text(
        "from pathlib import Path\nfrom tinysvc import io_route\nfrom tinysvc.web.static import StaticFiles\n\n\n"
        "files = StaticFiles(Path(__file__).parent / 'public', prefix='/files')\n\n\n"
        "@io_route('/hello')\nasync def hello() -> str:\n    return 'hello'\n"
    )
    with serving(str(module)) as url:
        assert httpx.get(f"{url}/files/a.txt").text == "a"
        assert httpx.get(f"{url}/hello").text == "hello"
        assert httpx.get(f"{url}/").status_code == 404
