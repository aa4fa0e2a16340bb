"""request_metrics.py: how requests are counted: their ends, their errors, and the traces of slow ones."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any, NoReturn

import pytest

from tinysvc import HTTPError, Request, Response
from tinysvc.core.errors import JobAbandoned
from tinysvc.core.responses import Handler, close_content
from tinysvc.runtime import request_metrics
from tinysvc.runtime.error_responses import error_response
from tinysvc.runtime.request_metrics import RequestMetrics
from tinysvc.telemetry.instruments import OTHER, Registry

Counts = dict[tuple[str, ...], int]


class Counted:
    """Metrics, and the counts in them."""

    def __init__(self, trace_id_of: Callable[[Request], str] = lambda request: "") -> None:
        self.registry = Registry()
        self.metrics = RequestMetrics(self.registry, trace_id_of)

    def around(self, handler: Handler, **options: Any) -> Handler:
        def respond(error: BaseException, request: Request) -> Response:
            return error_response(error, request, {})

        return self.metrics.around(handler, "GET", "/items/{name}", respond, **options)

    def counts(self) -> Counts:
        (metric,) = self.registry.snapshot()
        return {tuple(point.labels): sum(point.counts) for point in metric.points if sum(point.counts)}

    def exemplars(self) -> list[str]:
        (metric,) = self.registry.snapshot()
        return [each.trace_id for point in metric.points for each in point.exemplars]


def get(method: str = "GET") -> Request:
    return Request(method, "/items/ada")


def raising(error: BaseException) -> Handler:
    async def handler(request: Request) -> NoReturn:
        raise error

    return handler


@pytest.mark.asyncio
async def test_response_is_counted_by_method_and_status() -> None:
    counted = Counted()

    async def handler(request: Request) -> Response:
        return Response(b"", 201 if request.method == "POST" else 200)

    handle = counted.around(handler)
    for method in ("GET", "POST", "GET", "HEAD"):
        await handle(get(method))
    assert counted.counts() == {
        ("GET", "/items/{name}", "200", ""): 2,
        ("POST", "/items/{name}", "201", ""): 1,
        ("HEAD", "/items/{name}", "200", ""): 1,
    }


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (KeyError("x"), "500", "KeyError"),
        (HTTPError(404, "no"), "404", ""),
        (HTTPError(503, "busy"), "503", "HTTPError"),
        (SystemExit(1), "500", "SystemExit"),
    ],
)
@pytest.mark.asyncio
async def test_error_becomes_a_response_and_is_counted(error: BaseException, status: str, error_type: str) -> None:
    counted = Counted()
    response = await counted.around(raising(error))(get())
    assert str(response.status) == status
    assert counted.counts() == {("GET", "/items/{name}", status, error_type): 1}


@pytest.mark.asyncio
async def test_server_error_without_an_exception_has_its_status_as_type() -> None:
    counted = Counted()

    async def handler(request: Request) -> Response:
        return Response(b"", 502)

    await counted.around(handler)(get())
    assert counted.counts() == {("GET", "/items/{name}", "502", "502"): 1}


@pytest.mark.asyncio
async def test_disconnect_is_counted_as_499() -> None:
    counted, begun = Counted(), asyncio.Event()

    async def handler(request: Request) -> Response:
        begun.set()
        await asyncio.sleep(60)
        raise AssertionError

    task = asyncio.ensure_future(counted.around(handler)(get()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counted.counts() == {("GET", "/items/{name}", "499", ""): 1}


@pytest.mark.asyncio
async def test_abandoned_job_goes_on_as_itself() -> None:
    """RunningService makes an error of it that ends the connection; twice, it would be the error of a handler."""
    counted = Counted()
    with pytest.raises(JobAbandoned):
        await counted.around(raising(JobAbandoned("the client disconnected")))(get())
    assert counted.counts() == {("GET", "/items/{name}", "499", ""): 1}


@pytest.mark.asyncio
async def test_error_types_of_a_route_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_metrics, "MAX_ERROR_TYPES", 3)
    counted = Counted()

    async def handler(request: Request) -> Response:
        raise type(f"Error{number}", (Exception,), {})

    handle = counted.around(handler)
    for number in range(10):  # noqa: B007 - the handler reads it
        await handle(get())
    assert {labels[3] for labels in counted.counts()} == {"Error0", "Error1", "Error2", OTHER}
    assert sum(counted.counts().values()) == 10


@pytest.mark.asyncio
async def test_stream_is_counted_once_at_its_end() -> None:
    counted = Counted()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def handler(request: Request) -> Response:
        return Response(pieces())

    response = await counted.around(handler)(get())
    assert [piece async for piece in response.content] == [b"a", b"b"]
    assert sum(counted.counts().values()) == 0
    await close_content(response.content)
    await close_content(response.content)
    assert counted.counts() == {("GET", "/items/{name}", "200", ""): 1}


@pytest.mark.asyncio
async def test_stream_keeps_the_tail_of_a_compressed_one() -> None:
    class Compressed:
        def __aiter__(self) -> Compressed:
            return self

        async def __anext__(self) -> bytes:
            return b"piece"

        def tail(self) -> bytes:
            return b"tail"

    async def handler(request: Request) -> Response:
        return Response(Compressed())

    content = (await Counted().around(handler)(get())).content
    assert (await anext(content), content.tail()) == (b"piece", b"tail")


@pytest.mark.asyncio
async def test_accepted_websocket_is_counted_as_101() -> None:
    counted = Counted()

    async def handler(request: Request) -> Response:
        return Response(b"", 204)

    await counted.around(handler, is_socket=True)(get())
    await counted.around(raising(HTTPError(403, "no")), is_socket=True)(get())
    assert {labels[2] for labels in counted.counts()} == {"101", "403"}


@pytest.mark.asyncio
async def test_usual_request_takes_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_metrics, "perf_counter", lambda: 100.0)
    counted, called = Counted(), list[str]()

    async def handler(request: Request) -> Response:
        return Response(b"")

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == request_metrics.__file__:
            called.append(frame.f_code.co_qualname)

    handle, request = counted.around(handler), get()
    await handle(request)  # it looks for a trace
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        await handle(request)
    finally:
        sys.setprofile(before)
    assert called == ["RequestMetrics.around.<locals>.counted"]
    assert sum(counted.counts().values()) == 2


@pytest.mark.asyncio
async def test_request_without_route_has_neither_path_nor_strange_method() -> None:
    counted = Counted()
    for number in range(20):
        counted.metrics.count_without_route(Request("GET", f"/{number}"), Response(b"", 404))
        counted.metrics.count_without_route(Request(f"M{number}", "/"), Response(b"", 405))
    assert counted.counts() == {("GET", "", "404", ""): 20, (OTHER, "", "405", ""): 20}


@pytest.mark.asyncio
async def test_exemplar_of_a_bucket_is_taken_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []
    traces = iter(["", "first", "second"])

    def trace_id_of(request: Request) -> str:
        asked.append(request)
        return next(traces)

    now = [100.0]
    monkeypatch.setattr(request_metrics, "perf_counter", lambda: now[0])
    counted = Counted(trace_id_of)

    async def handler(request: Request) -> Response:
        return Response(b"")

    handle = counted.around(handler)
    for _ in range(3):
        await handle(get())
    assert (len(asked), counted.exemplars()) == (1, [])
    now[0] += request_metrics.NO_TRACE_PAUSE * 2
    for _ in range(3):
        await handle(get())
    assert (len(asked), counted.exemplars()) == (2, ["first"])
    now[0] += 2
    await handle(get())
    assert (len(asked), counted.exemplars()) == (3, ["second"])
