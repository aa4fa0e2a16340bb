"""negotiation.py: what the client likes best; where it is sent; what is linked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest

from tinysvc import Request, Response, Service, accepted, io_route, link, negotiated, redirect
from tinysvc.errors import HTTPError
from tinysvc.messages import Headers
from tinysvc.testing import serving

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
def test_what_the_client_likes_best(accept: str | None, best: str | None) -> None:
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


def test_one_value_in_three_forms(client: httpx.Client) -> None:
    found = {accept: client.get("/note", headers={"accept": accept}) for accept in ("*/*", PACK, BROWSER)}
    assert found["*/*"].json() == {"text": "hi"}
    assert msgspec.msgpack.decode(found[PACK].content, type=Note) == Note("hi")
    assert found[BROWSER].text == "<p>hi</p>"
    assert found[BROWSER].headers["content-type"] == "text/html; charset=utf-8"
    assert {answer.headers["vary"] for answer in found.values()} == {"accept"}


def test_where_there_is_no_page(client: httpx.Client) -> None:
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
def test_a_body_may_be_messagepack(client: httpx.Client, content: bytes, status: int) -> None:
    answer = client.post("/notes", content=content, headers={"content-type": PACK})
    assert answer.status_code == status, answer.text
    assert client.post("/notes", content=content, headers={"content-type": "text/plain"}).status_code == 415


def test_links_and_locations(client: httpx.Client) -> None:
    answer = client.post("/notes", json={"text": "x"})
    assert answer.headers["link"] == '</notes?page=2>; rel="next"; title="the \\"2nd\\""'


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
def test_where_a_redirect_leads(client: httpx.Client, to: str, location: str) -> None:
    assert redirect(to, 307).status == 307
    answer = client.get("/to", params={"where": to})
    assert (answer.status_code, answer.headers["location"]) == (303, location)


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        " //evil.example",
        "\n//evil.example", "javascript:alert(1)", "data:text/html,x", "http:evil.example", "https:/evil.example",
        "ftp://evil.example", "/x\r\nset-cookie: a=b", "/\0", "", "/x\x7f", "\u2028//x",
    ],
)  # fmt: skip
def test_where_it_does_not(client: httpx.Client, to: str) -> None:
    with pytest.raises(ValueError, match="a redirect leads to a path of this service"):
        redirect(to)


@pytest.mark.parametrize("status", [200, 300, 304, 404, "303"])
def test_what_is_no_redirect(status: Any) -> None:
    with pytest.raises(ValueError, match="a redirect has the status 301"):
        redirect("/", status)
