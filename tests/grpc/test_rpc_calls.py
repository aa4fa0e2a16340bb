"""rpc_calls.py: handlers on the loop and in workers, called by gRPC: results, streams, errors, deadlines, cancels."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import grpc
import rpc_app
from rpc_ends import RpcClient, rpc_client, rpc_server
from system import is_alive
from system import until as until_true
from tinysvc import Service
from tinysvc.server.server import Server

Code = grpc.StatusCode
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with rpc_server(Service(rpc_app, name="shop"), cpu_workers=2) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: Server) -> AsyncIterator[RpcClient]:
    async with rpc_client(server) as client:
        yield client


async def until(text: str) -> None:
    """Wait until a handler has noted this."""
    await until_true(lambda: text in rpc_app.happened)


async def test_handler_on_the_loop(client: RpcClient) -> None:
    assert await client.call(rpc_app.hello, name="Ada") == "hello Ada"
    assert await client.call(rpc_app.hello, name="Ada", times=2) == "hello Adahello Ada"
    assert await client.call(rpc_app.nothing) is None
    assert await client.call(rpc_app.plain, text="quiet") == "QUIET"


async def test_headers_come_from_metadata(client: RpcClient) -> None:
    sent = {"metadata": (("x-user", "!"),)}
    assert await client.call(rpc_app.item, sent, item=rpc_app.Item("pen", 3)) == rpc_app.Item("pen!", 4)


async def test_handler_sees_the_request(client: RpcClient) -> None:
    metadata = (("x-request-id", "id-7"), ("x-tags", "a"), ("x-tags", "b"))
    seen = await client.call(rpc_app.seen, {"metadata": metadata, "timeout": 30})
    assert seen.pop("client").startswith("('127.0.0.1', ")
    assert seen == {"method": "POST", "path": "/seen", "left": "30", "id": "id-7", "tags": "a, b"}
    assert (await client.call(rpc_app.seen, {"timeout": None}))["left"] == ""


async def test_request_has_the_path_that_the_message_stands_for(client: RpcClient) -> None:
    found = await client.call(rpc_app.seen_path, name="a/b", more="c d")
    assert found == {"path": "/seen/a%2Fb", "query": "more=c+d", "name": "a/b"}


async def test_handler_in_a_worker(client: RpcClient) -> None:
    assert await client.call(rpc_app.double, item=rpc_app.Item("pen", 4)) == rpc_app.Item("pen", 8)
    assert await client.call(rpc_app.pid) != os.getpid()
    assert await client.call(rpc_app.divide, a=3, b=2) == 1.5


async def test_only_an_error_reports_the_times_of_its_job(client: RpcClient) -> None:
    """A pair of metadata costs a tenth of a short call, and no client of gRPC shows it."""
    call = client.begin(rpc_app.pid, {})
    await call
    assert not await call.trailing_metadata()
    error = await client.error(rpc_app.dies)
    assert "run;dur=" in dict(error.trailing_metadata() or ())["server-timing"]


async def test_big_message_and_result(client: RpcClient) -> None:
    """They go through shared memory between server and worker."""
    data = os.urandom(1_500_000)
    assert await client.call(rpc_app.big, data=data) == data * 2


async def test_batch_of_requests(client: RpcClient) -> None:
    found = await asyncio.gather(*[client.call(rpc_app.squares, number=each) for each in range(8)])
    assert found == [each * each for each in range(8)]


async def test_cached_result(client: RpcClient) -> None:
    first = await client.call(rpc_app.cached, number=1)
    assert await client.call(rpc_app.cached, number=1) == first
    assert await client.call(rpc_app.cached, number=2) != first


async def test_streams(client: RpcClient) -> None:
    assert await client.items(rpc_app.numbers, count=3) == [0, 1, 2]
    assert await client.items(rpc_app.numbers, count=0) == []
    assert await client.items(rpc_app.lines, count=2) == ["0", "1"]
    assert await client.items(rpc_app.pieces, count=2) == [rpc_app.Item("", 0), rpc_app.Item("", 1)]
    assert await client.items(rpc_app.pieces, count=0) == []


async def test_stream_that_fails_half_way_is_no_short_stream(client: RpcClient, caplog: Any) -> None:
    call = client.begin(rpc_app.breaks, {}, timeout=20)
    stream = call.__aiter__()
    await anext(stream)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(stream)
    assert (caught.value.code(), caught.value.details()) == (Code.INTERNAL, "Internal Server Error")
    assert "KeyError: 'secret'" in caplog.text


@pytest.mark.parametrize("function", [rpc_app.gives_up, rpc_app.gives_up_in_a_worker])
@pytest.mark.parametrize(
    ("status", "code"), [(410, Code.NOT_FOUND), (409, Code.ABORTED), (503, Code.UNAVAILABLE), (500, Code.INTERNAL)]
)
async def test_stream_that_the_handler_gives_up_has_its_error(
    client: RpcClient, function: Any, status: int, code: grpc.StatusCode
) -> None:
    call = client.begin(function, {"status": status}, timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert (caught.value.code(), caught.value.details()) == (code, "no more")


async def test_cancelled_stream_is_closed(client: RpcClient) -> None:
    rpc_app.happened.clear()
    call = client.begin(rpc_app.numbers, {"count": 10**9}, timeout=20)
    await anext(call.__aiter__())
    call.cancel()
    await until("numbers closed")


# Streams of requests


async def test_stream_of_requests(client: RpcClient) -> None:
    codec = client.methods[rpc_app.total].codec
    call = client.begin_stream(rpc_app.total, metadata=(("x-start", "100"),))
    for count in (1, 2, 3):
        await call.write(codec.encode_request_item(rpc_app.Item("", count)))
    await call.done_writing()
    assert codec.decode_result(await call) == 106


async def test_both_sides_stream_at_the_same_time(client: RpcClient) -> None:
    codec = client.methods[rpc_app.doubles].codec
    call = client.begin_stream(rpc_app.doubles)
    for number in (1, 2):
        await call.write(codec.encode_request_item(number))
        assert codec.decode_item(await call.read()) == 2 * number
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_handler_may_leave_requests_unread(client: RpcClient) -> None:
    codec = client.methods[rpc_app.first].codec
    call = client.begin_stream(rpc_app.first)
    await call.write(codec.encode_request_item(7))
    assert codec.decode_result(await call) == 7


async def test_item_that_does_not_fit_is_an_invalid_argument(client: RpcClient) -> None:
    call = client.begin_stream(rpc_app.total)
    await call.write(b"\xff")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is Code.INVALID_ARGUMENT


# Errors


async def test_argument_that_does_not_fit(client: RpcClient) -> None:
    call = client.channel.unary_unary(client.methods[rpc_app.item].path)(b"\xff", timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(404, "", Code.NOT_FOUND), (409, "", Code.ABORTED), (409, "already_exists", Code.ALREADY_EXISTS)],
)
async def test_error_of_a_handler(client: RpcClient, status: int, code: str, expected: grpc.StatusCode) -> None:
    error = await client.error(rpc_app.refused, status=status, code=code)
    assert (error.code(), error.details()) == (expected, f"refused with {status}")
    assert dict(error.trailing_metadata())["x-why"] == "because"


async def test_unavailable_says_when_to_try_again(client: RpcClient) -> None:
    error = await client.error(rpc_app.refused, status=503)
    assert error.code() is Code.UNAVAILABLE
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "3000"


async def test_exception_of_a_handler_stays_in_the_log(client: RpcClient, caplog: Any) -> None:
    for error in (await client.error(rpc_app.fails), await client.error(rpc_app.divide, a=1, b=0)):
        assert (error.code(), error.details()) == (Code.INTERNAL, "Internal Server Error")
        assert dict(error.trailing_metadata())["x-request-id"] in caplog.text
    assert "KeyError: 'secret'" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_error_of_a_worker(client: RpcClient) -> None:
    assert (await client.error(rpc_app.refuses)).code() is Code.ABORTED
    error = await client.error(rpc_app.dies)
    assert error.code() is Code.INTERNAL
    assert "exit" not in (error.details() or "")


async def test_unknown_method(client: RpcClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.channel.unary_unary("/rpc_app.RpcApp/Nowhere")(b"", timeout=20)
    assert caught.value.code() is Code.UNIMPLEMENTED


async def test_route_that_only_http_has_is_left_out(client: RpcClient) -> None:
    assert rpc_app.page not in client.methods


async def test_limit_is_shared(client: RpcClient) -> None:
    rpc_app.happened.clear()
    first = client.begin(rpc_app.limited, {})
    await until("limited")
    error = await client.error(rpc_app.limited)
    assert (error.code(), error.details()) == (Code.UNAVAILABLE, "This route already handles 1 requests, its limit.")
    first.cancel()


# Deadlines and cancels


async def test_deadline_kills_the_job(client: RpcClient, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    error = await client.error(rpc_app.sleeps, {"timeout": 0.7}, seconds=60.0, mark=str(mark))
    assert error.code() is Code.DEADLINE_EXCEEDED
    await until_true(lambda: not is_alive(int(mark.read_text())))


async def test_cancel_kills_the_job(client: RpcClient, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    call = client.begin(rpc_app.sleeps, {"seconds": 60.0, "mark": str(mark)})
    await until_true(lambda: mark.exists() and mark.read_text() != "")
    call.cancel()
    await until_true(lambda: not is_alive(int(mark.read_text())))


async def test_cancel_and_deadline_stop_a_handler_on_the_loop(client: RpcClient) -> None:
    rpc_app.happened.clear()
    call = client.begin(rpc_app.stuck, {"name": "cancel"})
    await until("cancel began")
    call.cancel()
    await until("cancel cancelled")
    error = await client.error(rpc_app.stuck, {"timeout": 0.1}, name="deadline")
    assert error.code() is Code.DEADLINE_EXCEEDED
    await until("deadline cancelled")


async def test_handler_may_finish_after_a_cancel(client: RpcClient) -> None:
    rpc_app.happened.clear()
    call = client.begin(rpc_app.finished, {"name": "it"})
    await until("it began")
    call.cancel()
    await until("it finished")


async def test_timeout_of_the_route(client: RpcClient) -> None:
    error = await client.error(rpc_app.late)
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert error.details() == "The response was not ready within 0.05 s."


# Resources of the request


async def test_resources_of_the_request(client: RpcClient) -> None:
    right = {"metadata": (("authorization", "Bearer right"),)}
    assert await client.call(rpc_app.whoami, right) == "Ada"
    assert await client.call(rpc_app.whoami_cpu, right, number=3) == "Ada 3"
    assert (await client.error(rpc_app.whoami)).code() is Code.UNAUTHENTICATED
    wrong = {"metadata": (("authorization", "Bearer wrong"),)}
    assert (await client.error(rpc_app.whoami, wrong)).code() is Code.UNAUTHENTICATED


async def test_resource_of_a_stream_is_closed_at_its_end(client: RpcClient) -> None:
    rpc_app.happened.clear()
    right = {"metadata": (("authorization", "Bearer right"),)}
    assert await client.items(rpc_app.guarded, right, count=2) == ["Ada 0", "Ada 1"]
    assert rpc_app.happened == ["closing", "committed"]
    call = client.begin(rpc_app.guarded, {"count": 10**9}, **right)
    await anext(aiter(call))
    call.cancel()
    assert await client.call(rpc_app.hello, name="Ada") == "hello Ada"


async def test_cancel_does_not_stop_a_commit(client: RpcClient) -> None:
    rpc_app.happened.clear()
    call = client.begin(rpc_app.whoami, {}, metadata=(("authorization", "Bearer right"),))
    await until("closing")
    call.cancel()
    await until("committed")


async def test_resource_takes_a_field_of_the_message(client: RpcClient) -> None:
    assert await client.call(rpc_app.orders, shop="corner", count=2) == "CORNER 2"


async def test_background_task(client: RpcClient) -> None:
    assert await client.call(rpc_app.tasks, name="it") == "it"
    await until("it ran later")


async def test_nothing_is_left(server: Server) -> None:
    """No call, no job: the tests before have cancelled some of each kind."""
    assert server._grpc is not None
    calls = server._grpc._server.calls
    await until_true(lambda: not calls.running and not calls.finishing)
    assert calls.message_bytes == 0
    assert [pool.waiting for pool in server.running.pools] == [0]


async def test_handler_of_a_stream_does_not_end_the_server(client: RpcClient) -> None:
    error = await client.error(rpc_app.exits)
    assert error.code() is Code.INTERNAL
    assert await client.call(rpc_app.hello, name="Ada") == "hello Ada"


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb"])
async def test_text_that_no_path_holds_is_refused(client: RpcClient, name: str) -> None:
    error = await client.error(rpc_app.hello, name=name)
    assert error.code() is Code.INVALID_ARGUMENT
    assert (error.details() or "").startswith("name: ")
    assert (await client.error(rpc_app.plain, text="a\0b")).code() is Code.INVALID_ARGUMENT
    assert await client.call(rpc_app.plain, text="a\nb") == "A\nB"
