"""static.py: a served folder: its files, other paths, conditions, ranges and compressed files."""

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


def raw_response(url: str, path: str, *fields: str, method: str = "GET") -> bytes:
    """The response to the unchanged path as bytes, without its date."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.settimeout(20)
        connection.sendall(get(path, "Connection: close", *fields, method=method))
        response = b"".join(iter(lambda: connection.recv(65536), b""))
    return b"\r\n".join(line for line in response.split(b"\r\n") if not line.startswith(b"date: "))


# Files


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
def test_file_is_served_with_its_headers(client: httpx.Client, path: str, content: bytes, content_type: str) -> None:
    for prefix, cache_control in (("/static/", "no-cache"), ("/", "max-age=9")):
        response = client.get(prefix + path, headers={"accept-encoding": "identity"})
        assert (response.status_code, response.content) == (200, content)
        assert response.headers["content-type"] == content_type
        assert response.headers["cache-control"] == cache_control
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["accept-ranges"] == "bytes"
        assert response.headers["etag"].startswith('"')
        head = client.head(prefix + path, headers={"accept-encoding": "identity"})
        assert {**head.headers, "date": ""} == {**response.headers, "date": ""}
        assert head.content == b""


def test_routes_precede_files(client: httpx.Client) -> None:
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
def test_folder_without_a_slash_is_redirected(client: httpx.Client, path: str, location: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.headers["location"]) == (301, location)
    assert client.get(path, follow_redirects=True).url.path == path + "/"


@pytest.mark.parametrize(
    "path", ["//evil.example/..", "//evil.example/%2e%2e", "/\\evil.example", "/%5cevil.example/.."]
)
def test_no_redirect_to_another_host(url: str, path: str) -> None:
    response = raw_response(url, path)
    assert response.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))
    assert b"location" not in response


def test_other_methods_get_405(client: httpx.Client) -> None:
    response = client.post("/static/page.html")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


# Other paths


NOT_SERVED = [
    "nowhere", "sub/nowhere", "..", "../outside.txt", "..%2foutside.txt", "%2e%2e/outside.txt", "%2e%2e%2foutside.txt",
    "sub/../page.html", "sub/%2e%2e/page.html", "./page.html", "%2e/page.html", "sub//index.html", "/page.html",
    "/etc/passwd", "//etc/passwd", "..%5coutside.txt", "sub%5cindex.html", "page.html%00", "page.html%00.txt", "%00",
    "%c0%ae%c0%ae/outside.txt", "%c0%af", "%ff", "..%c0%afoutside.txt", "../public_sibling/x", ".secret", "sub/.git",
    "%2esecret", "out-link", "out-folder/outside.txt", "dangling", "loop", "pipe", "empty",
    "empty/", "page.html/", "page.html/x", "sub%2findex.html", "digits.bin%20", "NUL", "page.html::$DATA", "x" * 300,
    "%e2%80%ae", "a" + "/a" * 2000, "~root", "page.html;x",
]  # fmt: skip


@pytest.mark.parametrize("path", NOT_SERVED)
def test_all_other_paths_get_the_same_404(url: str, path: str) -> None:
    expected = raw_response(url, "/static/certainly-not-there")
    assert expected.startswith(b"HTTP/1.1 404 Not Found\r\n")
    response = raw_response(url, "/static/" + path)
    if b"%00" in path.encode():  # refused by http.py
        assert response.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
    else:
        assert response == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_gets_404(url: str, folder: Path) -> None:
    (folder / "unreadable").chmod(0)
    assert raw_response(url, "/static/unreadable") == raw_response(url, "/static/nowhere")


def test_missing_folder_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(ConfigurationError, match=rf"there is no folder {tmp_path}/{name} for StaticFiles"):
            StaticFiles(name)


# Conditions, ranges, codings


def test_current_copy_gets_304(client: httpx.Client) -> None:
    first = client.get("/static/page.html")
    for condition in (
        {"if-none-match": first.headers["etag"]},
        {"if-none-match": "W/" + first.headers["etag"]},
        {"if-modified-since": first.headers["last-modified"]},
    ):
        response = client.get("/static/page.html", headers=condition)
        assert (response.status_code, response.content) == (304, b"")
        for name in ("etag", "last-modified", "cache-control"):
            assert response.headers[name] == first.headers[name]
    assert client.get("/static/page.html", headers={"if-match": '"other"'}).status_code == 412


def test_changed_file_has_another_etag(client: httpx.Client, folder: Path) -> None:
    path = folder / "changing.txt"
    tags: set[str] = set()
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        os.utime(path, ns=(0, len(tags) * 10))  # within one second
        tags.add(client.get("/static/changing.txt").headers["etag"])
    assert len(tags) == 3


@pytest.mark.parametrize(
    ("header", "status", "content", "content_range"),
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
def test_single_range(
    client: httpx.Client, header: str, status: int, content: bytes | None, content_range: str | None
) -> None:
    response = client.get("/static/digits.bin", headers=[(b"range", header.encode("latin-1"))])
    assert response.status_code == status
    assert response.headers.get("content-range") == content_range
    if content is not None:
        assert response.content == content


def test_several_ranges_are_multipart(client: httpx.Client) -> None:
    response = client.get("/static/digits.bin", headers={"range": "bytes=0-1,5-6,-1"})
    assert response.status_code == 206
    assert int(response.headers["content-length"]) == len(response.content)
    boundary = response.headers["content-type"].removeprefix("multipart/byteranges; boundary=")
    parts = response.content.split(f"--{boundary}".encode())[1:-1]
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [b"01\r\n", b"56\r\n", b"9\r\n"]
    assert [
        b"Content-Range: bytes " + c in part for c, part in zip((b"0-1/10", b"5-6/10", b"9-9/10"), parts, strict=True)
    ]


def test_head_ignores_ranges(client: httpx.Client) -> None:
    assert client.head("/static/digits.bin", headers={"range": "bytes=0-1"}).status_code == 200


def test_if_range_must_match(client: httpx.Client) -> None:
    first = client.get("/static/digits.bin")
    tag, date = first.headers["etag"], first.headers["last-modified"]
    for condition, status in (
        (tag, 206), (date, 206), ("W/" + tag, 200), ('"other"', 200), ("Sun, 06 Nov 1994 08:49:37 GMT", 200), ("", 200),
    ):  # fmt: skip
        response = client.get("/static/digits.bin", headers={"range": "bytes=0-1", "if-range": condition})
        assert response.status_code == status, condition
    stale = {"range": "bytes=0-1", "if-none-match": tag}
    assert client.get("/static/digits.bin", headers=stale).status_code == 304


@pytest.mark.parametrize(
    ("accept", "coding"),
    [("gzip", "gzip"), ("gzip, br", "br"), ("br;q=0.1, gzip", "gzip"), ("zstd", None), ("identity", None), ("*", "br")],
)
def test_compressed_file_is_sent_if_accepted(
    url: str, client: httpx.Client, folder: Path, accept: str, coding: str | None
) -> None:
    with client.stream("GET", "/static/app.js", headers={"accept-encoding": accept}) as response:
        body = b"".join(response.iter_raw())
    assert response.headers.get("content-encoding") == coding
    assert response.headers["vary"] == "accept-encoding"
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    suffixes = {"gzip": ".gz", "br": ".br", None: ""}
    assert body == (folder / f"app.js{suffixes[coding]}").read_bytes()
    again = client.get("/static/app.js", headers={"accept-encoding": accept, "if-none-match": response.headers["etag"]})
    assert (again.status_code, again.headers["vary"]) == (304, "accept-encoding")
    other = client.get("/static/app.js", headers={"accept-encoding": "identity"})
    assert (other.headers["etag"] != response.headers["etag"]) == (coding is not None)


def test_range_is_of_the_uncompressed_file(client: httpx.Client) -> None:
    response = client.get("/static/app.js", headers={"accept-encoding": "gzip", "range": "bytes=0-2"})
    assert (response.content, response.headers["vary"]) == (b"let", "accept-encoding")
    assert "content-encoding" not in response.headers


def test_compressed_link_out_of_the_folder_is_not_followed(client: httpx.Client) -> None:
    response = client.get("/static/leak.js", headers={"accept-encoding": "gzip"})
    assert (response.content, "vary" in response.headers) == (b"leak", False)


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
def test_content_type_by_suffix(name: str, content_type: str) -> None:
    assert content_type_of(name) == content_type


# Open files


@pytest.mark.skipif(not PROC.exists(), reason="needs /proc")
def test_every_file_is_closed(client: httpx.Client, url: str, folder: Path) -> None:
    def files() -> list[str]:
        return [link for link in open_descriptors() if str(folder) in link]

    requests: list[tuple[str, str, dict[str, Any]]] = [
        (method, path, headers)
        for method in ("GET", "HEAD")
        for path in ("app.js", "sub", "sub/", "nowhere", "pipe", "leak.js")
        for headers in (
            {}, {"range": "bytes=0-1"}, {"range": "bytes=0-1,3-4"}, {"range": "bytes=99999-"},
            {"if-none-match": "*"}, {"if-match": '"x"'}, {"accept-encoding": "gzip"}, {"accept-encoding": "*"},
        )
    ]  # fmt: skip
    for method, path, headers in requests:
        with client.stream(method, f"/static/{path}", headers=headers) as response:
            assert b"".join(response.iter_raw()) or method == "HEAD" or response.status_code in (301, 304)
    wait_until(lambda: not files(), "every file is closed")


def test_module_serves_its_folder(tmp_path: Path) -> None:
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
