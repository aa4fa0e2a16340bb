"""local_exchange.py: a request without a connection, whose caller may give up at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from http_ends import logged, on_loop
from tinysvc import CallFailed, CallTimeout, HTTPError, Request, Response, Service, budget, call, io_resource, io_route
from tinysvc.core.responses import FileContent, Handler
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work

log: list[str] = []


@io_resource
async def transaction(request: Request) -> AsyncIterator[str]:
    log.append("open")
    try:
        yield "t"
        log.append("commit")
    except BaseException as error:
        log.append(type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0)
        log.append("closed")


@io_route("/works")
async def works(transaction: str) -> str:
    return transaction


@io_route("/waits", methods=["POST"])
async def waits(transaction: str) -> None:
    log.append("waits")
    await asyncio.sleep(60)


@io_route("/finishes", methods=["POST"], on_disconnect="finish")
async def finishes(transaction: str) -> None:
    log.append("waits")
    await asyncio.sleep(0.2)
    log.append("finished")


@io_route("/file")
async def file(path: str) -> Response:
    return Response(FileContent(open(path, "rb"), 1, 3), content_type="text/plain")


@io_route("/short")
async def short(path: str) -> Response:
    return Response(FileContent(open(path, "rb"), 1, 30), content_type="text/plain")


@io_route("/body", methods=["POST"])
async def body(request: Request) -> int:
    return len(await request.body())


@io_route("/endless")
async def endless(transaction: str) -> AsyncIterator[int]:
    while True:
        yield 1


async def named(request: Request, call_next: Handler) -> Response:
    log.append("middleware")
    return await call_next(request)


HANDLERS = Service(transaction, works, waits, finishes, file, short, body, endless, middleware=[named], prefix="/p")


@pytest.fixture(autouse=True)
def fresh() -> None:
    log.clear()


async def until(word: str) -> None:
    while word not in log:
        await asyncio.sleep(0.005)


@on_loop
async def test_middleware_and_resources_of_the_request_are_those_of_the_route() -> None:
    async with at_work(HANDLERS, Settings()):
        assert await call(works) == "t"
    assert log == ["middleware", "open", "commit", "closed"]


@on_loop
async def test_caller_that_gives_up_is_a_disconnect() -> None:
    async with at_work(HANDLERS, Settings()):
        calling = asyncio.ensure_future(call(waits))
        await until("waits")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await until("closed")
    assert log == ["middleware", "open", "waits", "CancelledError", "closed"]


@on_loop
async def test_route_that_finishes_outlives_its_caller() -> None:
    async with at_work(HANDLERS, Settings()):
        with pytest.raises(TimeoutError):
            async with budget(5):
                await asyncio.wait_for(call(finishes), 0.05)
        await until("closed")
    assert log == ["middleware", "open", "waits", "finished", "commit", "closed"]


@on_loop
async def test_stream_that_is_left_aborts_the_resources() -> None:
    async with at_work(HANDLERS, Settings()):
        items = call.stream(endless)
        assert await anext(items) == 1
        await items.aclose()
        await until("closed")
    assert log[-2] in ("ConnectionAbortedError", "CancelledError")
    assert "commit" not in log


@on_loop
async def test_file_is_read_and_closed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abcdef")
    async with at_work(HANDLERS, Settings()):
        found = await call(file, str(tmp_path / "f"))
    assert (found.content, found.content_type) == (b"bcd", "text/plain")


@on_loop
async def test_body_and_result_have_their_limits() -> None:
    async with at_work(HANDLERS, Settings(max_body_size=10)):
        assert await call(body, body=b"x" * 10) == 10
        with pytest.raises(HTTPError) as caught:
            await call(body, body=b"x" * 11)
        assert caught.value.status == 413
    async with at_work(HANDLERS, Settings(max_result_size=2)):
        with pytest.raises(CallFailed, match="longer than 2 bytes"):
            await call(body, body=b"x" * 100)


@on_loop
async def test_deadline_holds_for_the_rest_of_a_stream() -> None:
    @io_route("/stops")
    async def stops() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)

    async with at_work(Service(stops), Settings()), budget(60):
        with pytest.raises(CallTimeout):
            await limited(stops)


async def limited(function: Callable[..., AsyncIterator[int]]) -> None:
    with budget(0.1):  # no timer: only the call has a deadline
        items = call.stream(function)
    async for _ in items:
        pass


@on_loop
async def test_file_that_became_shorter_is_no_result(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").write_bytes(b"012345")
    async with at_work(HANDLERS, Settings()):
        with pytest.raises(CallFailed, match="cut short"):
            await call(short, str(tmp_path / "a"))
    assert "25 bytes shorter than declared" in logged(caplog)[0]
