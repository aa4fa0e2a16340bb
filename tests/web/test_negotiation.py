"""negotiation.py: content types, redirects, links and attachments."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest

from tinysvc import HTTPError, Request, Response, Service, cpu_route, io_route
from tinysvc.core.headers import Headers
from tinysvc.testing import serving
from tinysvc.web.negotiation import accepted, attachment, link, negotiated, redirect

JSON, PACK, PAGE = "application/json", "application/msgpack", "text/html"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (JSON, JSON),
        (PACK, PACK),
        ("application/*", JSON),
        ("text/*", PAGE),
        (BROWSER, PAGE),
        ("application/json;q=0.5, application/msgpack", PACK),
        ("application/json;q=0, */*", PACK),
        ("application/*;q=0.9, text/html;q=0.8", JSON),
        ("*/*;q=0.1, text/html", PAGE),
        ("TEXT/HTML", PAGE),
        ("text/html;level=1", PAGE),
        ("application/json;charset=utf-8", JSON),
        ("image/png", None),
        ("*/*;q=0", None),
        ("garbage", None),
        (";q=1,,", None),
    ],
)
def test_accepted_chooses_the_preferred_type(accept: str | None, best: str | None) -> None:
    request = Request("GET", "/", headers=Headers([(b"accept", accept.encode())] if accept is not None else []))
    if best is None:
        with pytest.raises(HTTPError, match="406 The client accepts none of application/json, application/msgpack"):
            accepted(request, [JSON, PACK, PAGE])
    else:
        assert accepted(request, [JSON, PACK, PAGE]) == best


@dataclass
class Note:
    text: str


@io_route("/note")
async def note(request: Request) -> Response:
    return negotiated(request, Note("hi"), html=lambda note: f"<p>{note.text}</p>")


@io_route("/data")
async def data(request: Request) -> Response:
    return negotiated(request, [Note("hi")], status=201)


@io_route("/to")
async def to(where: str) -> Response:
    return redirect(where)


@io_route("/notes", methods=["POST"])
async def add(note: Note) -> Response:
    return Response(note, 201, headers=[("location", "/note"), link("/notes?page=2", "next", title='the "2nd"')])


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(Service(note, data, to, add)) as url, httpx.Client(base_url=url) as client:
        yield client


def test_negotiated_sends_json_messagepack_or_html(client: httpx.Client) -> None:
    found = {accept: client.get("/note", headers={"accept": accept}) for accept in ("*/*", PACK, BROWSER)}
    assert found["*/*"].json() == {"text": "hi"}
    assert msgspec.msgpack.decode(found[PACK].content, type=Note) == Note("hi")
    assert found[BROWSER].text == "<p>hi</p>"
    assert found[BROWSER].headers["content-type"] == "text/html; charset=utf-8"
    assert {response.headers["vary"] for response in found.values()} == {"accept"}


def test_html_without_a_page_gets_406(client: httpx.Client) -> None:
    assert client.get("/data", headers={"accept": BROWSER}).status_code == 201
    assert client.get("/data", headers={"accept": PAGE}).status_code == 406


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (msgspec.msgpack.encode({"text": "x"}), 201),
        (msgspec.msgpack.encode({"text": 1}), 422),
        (b"\xc1", 400),
        (b"\x81", 400),
    ],
)
def test_messagepack_body_is_accepted(client: httpx.Client, content: bytes, status: int) -> None:
    response = client.post("/notes", content=content, headers={"content-type": PACK})
    assert response.status_code == status, response.text
    assert client.post("/notes", content=content, headers={"content-type": "text/plain"}).status_code == 415


def test_link_header_is_quoted(client: httpx.Client) -> None:
    response = client.post("/notes", json={"text": "x"})
    assert response.headers["link"] == '</notes?page=2>; rel="next"; title="the \\"2nd\\""'


@pytest.mark.parametrize(
    ("to", "location"),
    [
        ("/notes/7", "/notes/7"),
        ("/", "/"),
        ("notes", "notes"),
        ("?page=2", "?page=2"),
        ("/a b/\u00fc", "/a%20b/%C3%BC"),
        ("/already%20quoted", "/already%20quoted"),
        ("https://example.org/x?y=1#z", "https://example.org/x?y=1#z"),
        ("HTTP://example.org", "HTTP://example.org"),
        ("/time/12:30", "/time/12:30"),
        ("/a?b=\\c|d^{e}`100%", "/a?b=%5Cc%7Cd%5E%7Be%7D%60100%"),
        ("/a#\\", "/a#%5C"),
    ],
)
def test_redirect_quotes_the_location(client: httpx.Client, to: str, location: str) -> None:
    assert redirect(to, 307).status == 307
    response = client.get("/to", params={"where": to})
    assert (response.status_code, response.headers["location"]) == (303, location)


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        " //evil.example",
        "\n//evil.example", "javascript:alert(1)", "data:text/html,x", "http:evil.example", "https:/evil.example",
        "ftp://evil.example", "/x\r\nset-cookie: a=b", "/\0", "", "/x\x7f", "\u2028//x",
    ],
)  # fmt: skip
def test_redirect_to_another_host_is_an_error(client: httpx.Client, to: str) -> None:
    with pytest.raises(ValueError, match="the location must be a path of this service"):
        redirect(to)


@pytest.mark.parametrize("status", [200, 300, 304, 404, "303"])
def test_invalid_redirect_status_is_an_error(status: Any) -> None:
    with pytest.raises(ValueError, match="the status of a redirect must be 301"):
        redirect("/", status)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a b.pdf", 'attachment; filename="a b.pdf"'),
        ("тест.pdf", "attachment; filename=\"____.pdf\"; filename*=UTF-8''%D1%82%D0%B5%D1%81%D1%82.pdf"),
        ("ü", "attachment; filename=\"_\"; filename*=UTF-8''%C3%BC"),
        ('a"b%41.txt', "attachment; filename=\"a_b_41.txt\"; filename*=UTF-8''a%22b%2541.txt"),
        ("../\\a\r\nX: y\0", 'attachment; filename=".._" "_a__X: y_"'.replace('" "', "")),
        ("\udcff", 'attachment; filename="?"'),
        ("it's;", 'attachment; filename="it\'s;"'),
    ],
)
def test_attachment_takes_any_name(name: str, value: str) -> None:
    assert attachment(name) == ("content-disposition", value)
    assert Response(b"", headers=[attachment(name)]).headers == [("content-disposition", value)]
    assert attachment(name, inline=True)[1].startswith("inline; filename=")


@cpu_route("/download")
def download() -> Response:
    return Response(b"x", headers=[attachment("тест.pdf")])


def test_attachment_from_a_worker() -> None:
    with serving(Service(download), cpu_workers=1) as url:
        assert httpx.get(f"{url}/download").headers["content-disposition"] == attachment("тест.pdf")[1]


def test_link_parameter_can_be_any_text() -> None:
    assert link("/a", "next", title="é") == ("link", "</a>; rel=\"next\"; title*=UTF-8''%C3%A9")


@io_route("/assigned")
async def assigned() -> Response:
    response = Response(b"x")
    response.headers = [("content-disposition", 'attachment; filename="тест"')]
    return response


@io_route("/typed")
async def typed_with_letters() -> Response:
    response = Response(b"x")
    response.content_type = "text/ж"
    return response


@io_route("/raised")
async def raised_with_letters() -> None:
    raise HTTPError(400, headers=[("x-name", "ж")])


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("/assigned", ["content-disposition", "'т'", "filename*=UTF-8''"]),
        ("/typed", ["content-type", "'ж'"]),
        ("/raised", ["x-name", "'ж'", "raised_with_letters"]),
    ],
)
def test_header_with_other_letters_is_a_logged_500(
    path: str, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(assigned, typed_with_letters, raised_with_letters)
    with serving(service, raise_errors=False) as url:
        assert httpx.get(url + path).status_code == 500
    logged = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert [text for text in texts if text not in logged] == []
    assert "bug in tinysvc" not in logged
