"""calls.py: one suite for calls of handlers here, over HTTP and over gRPC; it runs over the same handlers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import uvloop

import called_app as app
from commands import Served, served, tinysvc
from system import is_alive
from tinysvc import (
    BudgetExhausted,
    CallFailed,
    CallRefused,
    CallTimeout,
    CallUnavailable,
    Event,
    HTTPError,
    Request,
    Response,
    Service,
    UploadFile,
    budget,
    call,
    io_route,
    request_id,
)
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.headers import Headers
from tinysvc.core.request_context import register_task
from tinysvc.core.settings import Settings
from tinysvc.grpc.rpc_callee import callee_messages
from tinysvc.runtime.running_service import at_work
from tinysvc.testing import serving

GUARD = 30.0

ROUNDED = 1.05
"""gRPC sends a time with two or three digits, rounded up."""


@io_route("/unused")
async def unused() -> None: ...


class Caller:
    """Runs coroutines on one event loop, where a service is at work."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = contextlib.ExitStack()
        self._open = AsyncExitStack()

    def __enter__(self) -> Caller:
        settings, service = Settings(cpu_workers=1), Service(app)
        if self.where == "wire":
            url = self._stack.enter_context(serving(app, raise_errors=False, cpu_workers=1))
            settings, service = Settings(services=f"called_app={url}"), Service(unused)
        if self.where == "rpc":
            settings, service = Settings(services=f"called_app=grpc://{self._rpc_address()}"), Service(unused)
        running = at_work(service, settings, find_messages=callee_messages)
        self._runner.run(self._open.enter_async_context(running))
        return self

    def _rpc_address(self) -> str:
        """A server in a process of its own: grpcio has one loop for each process."""
        arguments = ("called_app.py", "--grpc", "127.0.0.1:0", "--cpu-workers", "1")
        server: Served = self._stack.enter_context(served(*tinysvc(*arguments), cwd=Path(app.__file__).parent))
        return next(line for line in server.lines if line.startswith("gRPC at ")).split()[2]

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()
        self._stack.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def guarded() -> Any:
            async with asyncio.timeout(GUARD):
                return await coroutine

        return self._runner.run(guarded())


@pytest.fixture(scope="module", params=["here", "wire", "rpc"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    with Caller(request.param) as caller:
        yield caller


WHEN = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)
ORDER = app.Order(7, WHEN, Decimal("1.10"))
ROW: app.Row = {"key": UUID(int=7), "length": timedelta(hours=1, seconds=2)}


def given(**values: Any) -> dict[str, Any]:
    return {"number": 7, "rest": "a b/c", "words": ["x", "ü &"], "x_colour": app.Colour.RED, **values}


def same(function: Callable[..., Any], arguments: dict[str, Any], result: Any) -> Any:
    return pytest.param(function, arguments, result, id=function.__name__)


PLACED = {
    "number": 7,
    "rest": "a b/c",
    "words": ["x", "ü &"],
    "colour": "red",
    "session": "",
    "at": None,
    "flag": False,
}


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        same(app.places, given(), PLACED),
        same(
            app.places,
            given(session="s1", at=WHEN, flag=True),
            {**PLACED, "session": "s1", "at": WHEN.isoformat(), "flag": True},
        ),
        same(app.cpu_places, given(), PLACED),
        same(app.cpu_places, given(flag=True, at=WHEN), {**PLACED, "flag": True, "at": WHEN.isoformat()}),
        same(app.moved, {"point": app.Point(1, 2, ["a"])}, app.Point(2, 6, ["a", "moved"])),
        same(app.moved, {"point": app.Point(1), "by": 0.5}, app.Point(1.5, 0, ["moved"])),
        same(app.moved_in_thread, {"point": app.Point(2)}, app.Point(6)),
        same(app.cpu_moved, {"point": app.Point(1, 2), "by": 4}, app.Point(5, 10)),
        same(app.ordered, {"order": ORDER}, app.Order(7, WHEN + timedelta(days=1), Decimal("1.10"))),
        same(app.cpu_ordered, {"order": ORDER}, [ORDER, app.Order(8, WHEN, Decimal("1.10"))]),
        same(
            app.modelled,
            {"model": app.Model(name="m", when=WHEN, sizes=[3])},
            app.Model(name="m", when=WHEN, sizes=[3, 1]),
        ),
        same(app.cpu_modelled, {"model": app.Model(name="m", when=WHEN)}, app.Model(name="m", when=WHEN)),
        same(app.row, {"row": ROW}, ROW),
        same(app.maybe, {"number": 0}, None),
        same(app.maybe, {"number": 2}, app.Point(2)),
        same(app.now, {}, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        same(app.text, {"word": "ü"}, "ü ☃"),
        same(app.nothing, {}, None),
        same(app.raw, {"body": b"abc\0"}, b"\0cba"),
        same(app.cpu_raw, {"body": b"abc\0"}, b"\0cba"),
        same(app.cpu_raw, {"body": b"a" * 3_000_000 + b"b"}, b"b" + b"a" * 3_000_000),
        same(app.whole_form, {"point": app.Point(1, 2, ["a", "b"])}, app.Point(1, 2, ["a", "b"])),
        same(app.doubled, {"point": app.Point(4)}, 8.0),
        same(app.token, {"token": "t.1"}, "t.1"),
        same(app.chain, {"n": 3}, 3),
    ],
)
def test_result_is_that_of_the_handler(
    caller: Caller, function: Callable[..., Any], arguments: dict[str, Any], result: Any
) -> None:
    found = caller.run(called(function, **arguments))
    assert found == result
    assert type(found) is type(result)


def is_left_out(caller: Caller, function: Callable[..., Any]) -> bool:
    """Whether only HTTP serves the handler, and the caller speaks gRPC: then the call names the remedy."""
    if caller.where != "rpc":
        return False
    with pytest.raises(ConfigurationError, match=r"cannot be called over gRPC.*address of HTTP"):
        caller.run(called(function))
    return True


async def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await call(function, *args, **kwargs)


def test_arguments_stand_in_the_order_of_the_parameters_without_resources(caller: Caller) -> None:
    assert caller.run(called(app.cpu_moved, app.Point(1), 2)) == app.Point(3)
    assert caller.run(called(app.moved, app.Point(1), by=2)) == app.Point(3, 0, ["moved"])


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, r"moved\(\) is missing arguments: point"),
        ((app.Point(1), 2, 3), {}, r"moved\(\) takes 2 arguments but 3 were given; a call gives it point, by"),
        ((app.Point(1),), {"factor": 3}, r"moved\(\) got an unexpected argument 'factor'; a call gives it point, by"),
        ((app.Point(1),), {"point": app.Point(1)}, r"moved\(\) got multiple values for argument 'point'"),
    ],
)
def test_wrong_arguments_are_type_errors(
    caller: Caller, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        caller.run(called(app.moved, *args, **kwargs))


def test_response_keeps_status_headers_and_content(caller: Caller) -> None:
    if is_left_out(caller, app.response):
        return
    found: Response = caller.run(called(app.response, b"\x89PNG"))
    assert (found.status, found.content, found.content_type) == (201, b"\x89PNG", "image/x-own")
    assert ("x-own", "1") in found.headers


def uploaded(size: int, name: str = "a.png") -> UploadFile:
    upload = UploadFile("photo", name, "image/png")
    upload.file.write(b"abcd" + b"x" * (size - 4))
    upload.size = size
    return upload


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_uploads_travel(caller: Caller, size: int) -> None:
    if is_left_out(caller, app.upload):
        return
    photo, more = uploaded(size, 'a "b".png'), [uploaded(10), uploaded(20)]
    photo.file.seek(0)
    found = caller.run(called(app.upload, "über", photo, more))
    assert found == ["über", 'a "b".png', "image/png", size, 2, "abcd"]
    assert caller.run(called(app.cpu_upload, "t", photo)) == ["t", 'a "b".png', size]


def test_body_may_be_a_stream(caller: Caller) -> None:
    if is_left_out(caller, app.sized):
        return

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    assert caller.run(called(app.sized, body=pieces())) == 1_000_000
    assert caller.run(called(app.sized, body=b"abc")) == 3
    assert caller.run(called(app.sized, body=iter([b"abc", b"de"]))) == 5
    assert caller.run(called(app.sized)) == 0
    with pytest.raises(TypeError, match="the body of a call is bytes or an iterator of bytes, not a int"):
        caller.run(called(app.sized, body=7))


def test_cache_of_the_route_holds_for_calls(caller: Caller) -> None:
    assert caller.run(called(app.cached, 1)) == caller.run(called(app.cached, 1))


# Errors


@pytest.mark.parametrize("function", [app.raises, app.raises_in_thread, app.cpu_raises])
def test_4xx_of_the_callee_is_the_same_error_in_the_caller(caller: Caller, function: Any) -> None:
    with pytest.raises(HTTPError) as caught:
        caller.run(called(function, "404"))
    error = caught.value
    assert (error.status, error.detail) == (404, "There is no such thing.")
    assert list(error.headers) == [("retry-after", "7")]
    assert error.problem()["detail"] == "There is no such thing."


@pytest.mark.parametrize("function", [app.raises, app.raises_in_thread, app.cpu_raises])
def test_failure_of_the_callee_is_call_failed(caller: Caller, function: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CallFailed) as caught:
        caller.run(called(function, "bug"))
    error = caught.value
    assert (type(error), error.answered, error.service) == (CallFailed, 500, "called_app")
    assert "secret" not in error.public
    if caller.where != "rpc":  # else another process has logged it
        assert any("RuntimeError: secret" in record.getMessage() for record in caplog.records)
    with pytest.raises(CallFailed, match="has answered 500 Internal Server Error: Broken") as caught:
        caller.run(called(function, "500"))
    assert caught.value.details is not None
    with pytest.raises(CallUnavailable) as unavailable:
        caller.run(called(function, "503"))
    assert (unavailable.value.retry_after, unavailable.value.answered) == (7, 503)


def test_dead_worker_is_call_failed(caller: Caller) -> None:
    with pytest.raises(CallFailed, match="worker-died") as caught:
        caller.run(called(app.cpu_exits))
    assert caught.value.answered == 500


def test_returned_4xx_is_an_error_too(caller: Caller) -> None:
    if is_left_out(caller, app.refuses):
        return
    with pytest.raises(HTTPError) as caught:
        caller.run(called(app.refuses))
    assert caught.value.status == 409
    assert caught.value.problem()["why"] == "no"


# Time


@pytest.mark.parametrize("function", [app.slow, app.slow_request, app.cpu_slow])
def test_budget_ends_the_call_and_the_handler(caller: Caller, tmp_path: Path, function: Any) -> None:
    async def limited() -> None:
        async with budget(0.3):
            await call(function, str(tmp_path / "state"))

    start = time.monotonic()
    with pytest.raises(BudgetExhausted):
        caller.run(limited())
    assert 0.25 < time.monotonic() - start < 5
    ends = "ended" if function is not app.cpu_slow else None
    if ends:
        until(lambda: (tmp_path / "state").read_text() == ends)
    else:
        until(lambda: not is_running(tmp_path / "state"))


def is_running(state: Path) -> bool:
    word, _, pid = state.read_text().partition(" ")
    assert word == "started"
    return is_alive(int(pid))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("function", [app.slow, app.slow_request, app.cpu_slow])
def test_call_timeout_inside_of_the_block_names_the_callee(caller: Caller, tmp_path: Path, function: Any) -> None:
    async def limited() -> None:
        async with budget(0):
            await call(function, str(tmp_path / "state"))

    with pytest.raises(CallTimeout) as caught:
        caller.run(limited())
    assert caught.value.service == "called_app"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("function", [app.limited, app.cpu_limited])
def test_timeout_of_the_callee_is_its_failure(caller: Caller, function: Any) -> None:
    caller.run(called(app.cpu_context))  # the worker runs
    with pytest.raises(CallFailed) as caught:
        caller.run(called(function))
    assert not isinstance(caught.value, BudgetExhausted)
    assert caught.value.answered == 504


@pytest.mark.parametrize("function", [app.slow, app.slow_request, app.cpu_slow])
def test_cancelled_call_stops_the_handler(caller: Caller, tmp_path: Path, function: Any) -> None:
    state = tmp_path / "state"

    async def cancelled() -> None:
        task = asyncio.ensure_future(call(function, str(state)))
        while not state.exists() or not state.read_text():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while function is not app.cpu_slow and state.read_text() != "ended":
            await asyncio.sleep(0.005)
        while function is app.cpu_slow and is_running(state):
            await asyncio.sleep(0.005)

    caller.run(cancelled())


def test_tasks_of_a_gather_have_the_deadline(caller: Caller) -> None:
    async def gathered() -> Any:
        async with budget(20):
            return await asyncio.gather(call(app.context), call(app.cpu_context))

    for found in caller.run(gathered()):
        assert 0 < found["left"] <= 20 * ROUNDED


def test_call_without_any_deadline_has_that_of_the_setting(caller: Caller) -> None:
    assert 20 < caller.run(called(app.context))["left"] <= 30 * ROUNDED
    assert 20 < caller.run(called(app.cpu_context))["left"] <= 30 * ROUNDED


# Context


class Owner:
    """A connection with a request."""

    def __init__(self, headers: dict[str, str]) -> None:
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.request = Request("GET", "/", headers=Headers(lines))

    def current_request(self) -> Request:
        return self.request


CARRIED = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=b",
    "x-request-id": "of-the-client",
    "authorization": "Bearer secret",
}


async def within(headers: dict[str, str], function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        register_task(asyncio.current_task(), Owner(headers))  # type: ignore[arg-type]
        return await function()

    return await asyncio.create_task(run())


def test_trace_and_request_id_are_passed_on_and_credentials_are_not(caller: Caller) -> None:
    found = caller.run(within(CARRIED, lambda: call(app.context)))
    assert found["id"] == "of-the-client"
    assert (found["traceparent"], found["tracestate"]) == (CARRIED["traceparent"], "a=b")
    assert found["authorization"] is None
    assert found["agent"] == found["x-call-hops"] == "1"
    assert caller.run(within(CARRIED, lambda: call(app.cpu_context)))["id"] == "of-the-client"


def test_credentials_are_passed_on_where_the_code_asks_for_it(caller: Caller) -> None:
    found = caller.run(within(CARRIED, lambda: call.forwarding("Authorization")(app.context)))
    assert found["authorization"] == "Bearer secret"


def test_circle_of_calls_is_refused(caller: Caller) -> None:
    found = caller.run(within({"x-call-hops": "15"}, lambda: call(app.context)))
    assert found["x-call-hops"] == "16"
    with pytest.raises(CallRefused, match="has passed 16 services"):
        caller.run(within({"x-call-hops": "16"}, lambda: call(app.context)))
    with pytest.raises(CallRefused):
        caller.run(called(app.chain, 40))


def test_id_of_the_caller_s_variable_is_passed_on(caller: Caller) -> None:
    async def named() -> Any:
        request_id.set("set-by-the-author")
        return await call(app.context)

    assert caller.run(named())["id"] == "set-by-the-author"


# Streams


async def collected(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
    return [item async for item in call.stream(function, *args, **kwargs)]


def test_items_of_a_stream(caller: Caller) -> None:
    assert caller.run(collected(app.counted, app.Point(1), to=3)) == [app.Point(1), app.Point(2), app.Point(3)]
    assert caller.run(collected(app.cpu_counted, 2)) == [app.Point(0), app.Point(1)]
    assert caller.run(collected(app.cpu_counted, 0)) == []
    assert caller.run(collected(app.events, 2)) == [
        Event("line 0\nand more", event="tick", id="0"),
        Event("line 1\nand more", event="tick", id="1", retry=5),
    ]
    if not is_left_out(caller, app.event_stream):
        assert caller.run(collected(app.event_stream)) == [Event("only")]
    assert "".join(caller.run(collected(app.words, 3))) == "☃0 ☃1 ☃2 "
    assert len(b"".join(caller.run(collected(app.pieces, 50_000)))) == 500_000


def test_stream_that_breaks_is_never_taken_for_a_whole_one(caller: Caller) -> None:
    async def first_two() -> None:
        items = call.stream(app.broken)
        assert await anext(items) == app.Point(1)
        with pytest.raises(CallFailed):
            await anext(items)

    caller.run(first_two())


def test_stream_that_is_left_early_stops_the_handler(caller: Caller, tmp_path: Path) -> None:
    state = tmp_path / "state"

    async def left() -> None:
        async with contextlib.aclosing(call.stream(app.endless, str(state))) as items:
            async for n in items:
                if n == [3]:
                    break
        while state.read_text() != "closed":
            await asyncio.sleep(0.005)

    caller.run(left())


def test_slow_reader_holds_back_the_handler(caller: Caller, tmp_path: Path) -> None:
    state = tmp_path / "state"

    async def slow() -> int:
        async with contextlib.aclosing(call.stream(app.endless, str(state), 50_000)) as items:
            await anext(items)
            before, now = "", "1"
            while before != now or not now:  # until the handler waits
                await asyncio.sleep(0.2)
                before, now = now, state.read_text()
            return int(now)

    assert caller.run(slow()) > 0


def test_stream_without_any_deadline_may_go_on_for_long(caller: Caller) -> None:
    (left,) = caller.run(collected(app.left_in_stream))
    assert left > 24 * 3600


def test_one_value_and_a_stream_are_not_confused(caller: Caller) -> None:
    with pytest.raises(Exception, match="streams, and call"):
        caller.run(called(app.counted, app.Point(1), to=3))
    if caller.where == "here":
        with pytest.raises(Exception, match="returns one value"):
            caller.run(collected(app.moved, app.Point(1)))
    came = "one message" if caller.where == "rpc" else "a JSON document"
    function, value = (
        (app.doubled, app.Point(1)) if caller.where == "here" else (app.modelled, app.Model(name="m", when=WHEN))
    )
    with pytest.raises(CallFailed, match=f"{came} came, and a stream was expected"):
        caller.run(collected(function, value))


# Where


def test_handler_that_is_nowhere_is_refused(caller: Caller) -> None:
    other = unused if caller.where == "here" else None
    if other is None:
        return
    with pytest.raises(Exception, match=r'TINYSVC_SERVICES="test_calls=http://host:8000"'):
        caller.run(called(other))
