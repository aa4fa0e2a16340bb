"""middleware.py: `Service(middleware=[...])` around routes, errors and requests without a route."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from tinysvc import ConfigurationError, Event, EventStream, HTTPError, Request, Response, Service, cpu_route, io_route
from tinysvc.core.responses import Handler
from tinysvc.testing import serving
from tinysvc.web.cors import Cors


@io_route("/plain")
async def plain() -> str:
    return "plain"


@io_route("/teapot")
async def teapot() -> None:
    raise HTTPError(418, "no coffee", headers=[("x-pot", "tea")])


@io_route("/broken")
async def broken() -> None:
    raise RuntimeError("secret")


@io_route("/things/{name}", methods=["PUT"])
async def put_thing(name: str) -> str:
    return name


@cpu_route("/cpu")
def cpu() -> str:
    return "cpu"


class Marked:
    """Records in a header the middleware that a response has passed, the innermost first."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        response.add_header("x-passed", self.name)
        return response


async def refusing(request: Request, call_next: Handler) -> Response:
    if "x-key" not in request.headers:
        raise HTTPError(401, "say who you are")
    return await call_next(request)


async def wordless(request: Request, call_next: Handler) -> Response:
    return "words"  # type: ignore[return-value]


def hasty(request: Request, call_next: Handler) -> Response:
    return Response()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    inner = Service(plain, teapot, broken, put_thing, cpu, prefix="/inner", middleware=[Marked("b"), Marked("c")])
    locked = Service(plain, prefix="/locked", middleware=[Marked("e"), refusing])
    odd = Service(plain, prefix="/odd", middleware=[wordless])
    plain_def = Service(plain, prefix="/hasty", middleware=[hasty])  # type: ignore[list-item]
    outer = Service(inner, locked, odd, plain_def, Service(plain, prefix="/free"), middleware=[Marked("a")])
    with (
        serving(
            Service(outer, Service(plain, prefix="/beside"), prefix="/v1"), cpu_workers=1, raise_errors=False
        ) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "passed"),
    [
        ("GET", "/v1/inner/plain", 200, "c, b, a"),
        ("GET", "/v1/inner/cpu", 200, "c, b, a"),
        ("HEAD", "/v1/inner/plain", 200, "c, b, a"),
        ("GET", "/v1/inner/teapot", 418, "c, b, a"),
        ("GET", "/v1/inner/broken", 500, "c, b, a"),
        ("GET", "/v1/inner/nowhere", 404, "c, b, a"),
        ("PUT", "/v1/inner/plain", 405, "c, b, a"),
        ("OPTIONS", "/v1/inner/plain", 204, "c, b, a"),
        ("PUT", "/v1/inner/things/one", 200, "c, b, a"),
        ("GET", "/v1/free/plain", 200, "a"),
        ("GET", "/v1/innerside", 404, "a"),
        ("GET", "/v1/nowhere", 404, "a"),
        ("GET", "/v1/locked/plain", 401, "e, a"),
        ("GET", "/v1/locked/nowhere", 401, "e, a"),
        ("GET", "/elsewhere", 404, None),
        ("GET", "/livez", 200, None),
    ],
)
def test_middleware_is_around_all_responses(
    client: httpx.Client, method: str, path: str, status: int, passed: str | None
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers.get("x-passed")) == (status, passed)


def test_exception_of_a_handler_reaches_middleware_as_a_response(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/v1/inner/teapot")
    assert (answer.json()["detail"], answer.headers["x-pot"]) == ("no coffee", "tea")
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        assert "secret" not in client.get("/v1/inner/broken").text
    (record,) = caplog.records
    assert "RuntimeError: secret" in record.getMessage()


def test_error_of_middleware_gets_a_response(client: httpx.Client) -> None:
    assert client.get("/v1/locked/plain").json()["detail"] == "say who you are"
    assert client.get("/v1/locked/plain", headers={"x-key": "1"}).text == "plain"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/odd/plain", "the middleware wordless returned 'words'; return a Response, as call_next does"),
        ("/v1/hasty/plain", "the middleware hasty is not async; write async def hasty(request, call_next)"),
    ],
)
def test_wrong_result_of_middleware_is_named(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, path: str, says: str
) -> None:
    caplog.clear()
    assert client.get(path).status_code == 500
    (record,) = caplog.records
    assert says in record.getMessage()


async def events() -> AsyncIterator[Event | dict[str, int]]:
    yield Event("one")
    yield {"two": 2}


MADE: dict[str, Callable[[], Response]] = {
    "text": lambda: Response("no", 403),
    "json": lambda: Response({"no": 1}, 403),
    "none": lambda: Response(None, 403),
    "octets": lambda: Response(bytearray(b"no"), 403),
    "pieces": lambda: Response(iter(["n", "o"]), 403, content_type="text/csv"),
    "lines": lambda: Response((line async for line in events()), 403),
    "events": lambda: EventStream(events()),
}


async def shut(request: Request, call_next: Handler) -> Response:
    return MADE[request.query["what"][0]]()


async def loud(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    pieces = response.content

    async def louder() -> AsyncIterator[bytes]:
        async for piece in pieces:
            yield piece.upper()

    response.content = louder()
    return response


@io_route("/events")
async def streams() -> EventStream:
    return EventStream(events())


@cpu_route("/pieces")
def pieces() -> Iterator[str]:
    yield from ("one", "two")


def test_response_of_middleware_is_encoded_as_a_result() -> None:
    with serving(Service(plain, middleware=[Marked("outer"), shut])) as url:
        answers = {what: httpx.get(f"{url}/plain?what={what}") for what in MADE}
    assert {answer.headers["x-passed"] for answer in answers.values()} == {"outer"}
    stream = 'data: one\n\ndata: {"two":2}\n\n'
    assert {w: (a.status_code, a.text, a.headers.get("content-type", "")[:16]) for w, a in answers.items()} == {
        "text": (403, "no", "text/plain; char"),
        "json": (403, '{"no":1}', "application/json"),
        "none": (403, "", ""),
        "octets": (403, "no", "application/octe"),
        "pieces": (403, "no", "text/csv"),
        "lines": (403, stream, "text/event-strea"),
        "events": (200, stream, "text/event-strea"),
    }


def test_middleware_may_change_a_stream() -> None:
    with serving(Service(streams, pieces, middleware=[loud]), cpu_workers=1) as url:
        assert httpx.get(f"{url}/events").text == 'DATA: ONE\n\nDATA: {"TWO":2}\n\n'
        assert httpx.get(f"{url}/pieces").text == "ONETWO"


def test_405_and_options_keep_their_allow_header(client: httpx.Client) -> None:
    for method in ("POST", "OPTIONS"):
        assert client.request(method, "/v1/inner/plain").headers["allow"] == "GET, HEAD, OPTIONS"


def test_services_side_by_side_without_a_prefix_keep_their_own() -> None:
    one, other = Service(plain, middleware=[Marked("one")]), Service(teapot, middleware=[Marked("other")])
    with serving(Service(one, other)) as url:
        passed = {
            (method, path): httpx.request(method, url + path).headers.get("x-passed")
            for method in ("GET", "OPTIONS", "PUT")
            for path in ("/plain", "/teapot")
        }
    assert passed == {key: "one" if "plain" in key[1] else "other" for key in passed}


@pytest.mark.parametrize("wrong", ["gzip", Cors, lambda request: None])
def test_invalid_middleware_is_refused_at_start_up(wrong: Any) -> None:
    says = re.escape(f"middleware takes a list of functions, as in async def m(request, call_next), not {[wrong]!r}")
    with pytest.raises(ConfigurationError, match=says):
        Service(plain, middleware=[wrong])


async def streams_it(request: Request, call_next: Handler) -> Response:
    size = sum([len(piece) async for piece in request.stream()])
    response = await call_next(request)
    response.headers.append(("x-size", str(size)))
    return response


@io_route("/read", methods=["POST"])
async def read_size(body: bytes) -> int:
    return len(body)


@cpu_route("/cpu", methods=["POST"])
def cpu_size(body: bytes) -> int:
    return len(body)


@pytest.mark.parametrize("path", ["/read", "/cpu"])
def test_streamed_body_is_not_empty_for_the_handler(path: str, caplog: pytest.LogCaptureFixture) -> None:
    service = Service(read_size, cpu_size, middleware=[streams_it])
    with serving(service, cpu_workers=1, raise_errors=False) as url:
        assert httpx.post(url + path, content=b"").json() == 0
        for size in (1, 500_000):  # with its head, and in pieces
            answer = httpx.post(url + path, content=bytes(size))
            assert (answer.status_code, answer.headers["x-size"]) == (500, str(size))
    assert caplog.text.count("must call await request.body(), which keeps it") == 2


async def reads_behind(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    response.headers.append(("x-size", str(len(await request.body()))))
    return response


@io_route("/ignore", methods=["POST"])
async def ignore() -> int:
    return -1


@pytest.mark.parametrize("path", ["/read", "/cpu", "/ignore"])
def test_body_is_read_behind_call_next(path: str) -> None:
    def pieces(size: int) -> Iterator[bytes]:
        for _ in range(size // 1000):
            yield bytes(1000)

    with serving(Service(read_size, cpu_size, ignore, middleware=[reads_behind]), cpu_workers=1) as url:
        for size in (1000, 100_000):
            for content in (bytes(size), pieces(size)):
                answer = httpx.post(url + path, content=content)
                assert (answer.status_code, answer.headers["x-size"]) == (200, str(size))


# What call_next gave is closed, whatever comes of it

endless_closed = threading.Event()


@io_route("/endless", methods=["POST"])
async def endless() -> AsyncIterator[str]:
    try:
        while True:
            yield "piece "
            await asyncio.sleep(0)
    finally:
        endless_closed.set()


@io_route("/sized", methods=["POST"])
async def sized() -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"12345"

    return Response(pieces(), headers={"content-length": "5"})


async def louder(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    quiet = response.content

    async def loud() -> AsyncIterator[bytes]:
        async for piece in quiet:
            yield piece.upper()

    response.content = loud()
    return response


async def instead(request: Request, call_next: Handler) -> Response:
    await call_next(request)
    return Response(b"no", 403)


async def failing(request: Request, call_next: Handler) -> Response:
    await call_next(request)
    raise HTTPError(409, "no")


async def longer(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    response.content = b"".join([piece async for piece in response.content]) + b"67"
    return response


@pytest.mark.parametrize(("middleware", "status"), [(louder, 200), (instead, 403), (failing, 409)])
def test_stream_behind_middleware_is_always_closed(middleware: Any, status: int) -> None:
    endless_closed.clear()
    with serving(Service(endless, middleware=[Marked("outer"), middleware])) as url:
        with httpx.stream("POST", f"{url}/endless") as answer:
            assert answer.status_code == status
            if status == 200:
                assert next(answer.iter_text()).startswith("PIECE ")
        assert endless_closed.wait(20)


def test_content_length_is_that_of_the_sent_content() -> None:
    with serving(Service(sized, middleware=[longer])) as url:
        answer = httpx.post(f"{url}/sized")
    assert (answer.text, answer.headers.get_list("content-length")) == ("1234567", ["7"])


@cpu_route("/length", methods=["POST"])
def length(body: bytes) -> int:
    return len(body)


@io_route("/io-length", methods=["POST"])
async def io_length(body: bytes) -> int:
    return len(body)


async def reads_form(request: Request, call_next: Handler) -> Response:
    fields = (await request.form()).fields
    response = await call_next(request)
    response.add_header("x-size", str(len(fields["a"][0])))
    return response


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [10, 100_000, 900_000])
def test_handler_reads_a_form_that_middleware_has_parsed(size: int, chunked: bool) -> None:
    body = b"a=" + b"x" * size
    headers = {"content-type": "application/x-www-form-urlencoded"}
    with serving(Service(length, io_length, middleware=[reads_form]), cpu_workers=1) as url:
        for path in ("length", "io-length"):
            content: Any = iter([body[:5], body[5:]]) if chunked else body
            answer = httpx.post(f"{url}/{path}", content=content, headers=headers)
            assert (answer.text, answer.headers["x-size"]) == (str(size + 2), str(size))
