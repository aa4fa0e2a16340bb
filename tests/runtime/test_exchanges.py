"""exchanges.py: a response that does not fit the callee's annotation is a failure with its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from http_ends import on_loop, serving
from tinysvc import CallFailed, CallTimeout, Request, Response, Service, call, io_route
from tinysvc.binding.outgoing import OutgoingRequest
from tinysvc.client.messages import Outgoing
from tinysvc.core.settings import Settings
from tinysvc.runtime.call_context import CallContext
from tinysvc.runtime.exchanges import RemoteExchange
from tinysvc.runtime.running_service import at_work
from tinysvc.server.server import Server
from tinysvc.service.routes import route_of


@dataclass
class Score:
    value: float
    name: str


@io_route("/score", methods=["POST"])
async def score(n: int) -> Score:
    return Score(n, "")


@io_route("/unused")
async def unused() -> None: ...


def answering(content: object, **options: str) -> object:
    async def handle(request: Request) -> Response:
        found = Response(content, **options)  # type: ignore[arg-type]
        if found.content_type is None:
            found.content_type = "application/json"
        return found

    return handle


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"value":1}', "missing required field `name`"),
        (b'{"value":"x","name":""}', r"Expected `float`, got `str` - at `\$\.value`"),
        (b'{"value":1', "truncated"),
    ],
)
@on_loop
async def test_response_of_another_version_is_named_with_its_place(content: bytes, says: str) -> None:
    async with serving(answering(content)) as server:  # type: ignore[arg-type]
        services = f"test_exchanges=http://127.0.0.1:{server.port}"
        async with at_work(Service(unused), Settings(services=services)):
            with pytest.raises(CallFailed, match=says) as caught:
                await call(score, 1)
    error = caught.value
    assert (error.service, error.replica, error.attempts) == (
        "test_exchanges",
        f"http://127.0.0.1:{server.port}",
        1,
    )
    assert error.answered == 200


@on_loop
async def test_result_that_is_too_large_is_refused() -> None:
    async with serving(answering(b'{"value":1,"name":"%b"}' % (b"x" * 5000))) as server:  # type: ignore[arg-type]
        settings = Settings(services=f"test_exchanges=http://127.0.0.1:{server.port}", max_result_size=1000)
        async with at_work(Service(unused), settings):
            with pytest.raises(CallFailed, match="longer than 1000 bytes"):
                await call(score, 1)


@on_loop
async def test_newer_callee_may_send_more() -> None:
    async with serving(answering(b'{"value":1,"name":"n","more":[1]}')) as server:  # type: ignore[arg-type]
        services = f"test_exchanges=http://127.0.0.1:{server.port}"
        async with at_work(Service(unused), Settings(services=services)):
            assert await call(score, 1) == Score(1, "n")


class Sent:
    """Services that only note what they are given."""

    def __init__(self) -> None:
        self.options: dict[str, object] = {}

    async def send(self, service: str, request: Outgoing, **options: object) -> None:
        self.options = options


@io_route("/price", methods=["POST"], idempotent=True, hedge=0.05)
async def price(body: bytes) -> None: ...


@io_route("/buy", methods=["POST"])
async def buy(body: bytes) -> None: ...


@pytest.mark.parametrize(
    ("handler", "can_repeat", "idempotent", "hedge"),
    [(price, True, True, 0.05), (price, False, False, 0.05), (buy, True, False, None)],
)
@on_loop
async def test_route_says_what_is_safe_to_repeat_unless_the_body_can_be_sent_only_once(
    handler: Callable[..., object], can_repeat: bool, idempotent: bool, hedge: float | None
) -> None:
    route, services = route_of(handler), Sent()
    assert route is not None
    exchange = RemoteExchange(services, "shop", route)  # type: ignore[arg-type]
    context = CallContext(7.0, "", None, 1)
    await exchange(OutgoingRequest("POST", "/", [], b"", can_repeat), context)
    assert services.options == {"deadline": 7.0, "idempotent": idempotent, "hedge": hedge}


@on_loop
async def test_replica_on_a_unix_socket_is_called(tmp_path: Path) -> None:
    path = tmp_path / "s"
    caller = Settings(services=f"test_exchanges=unix:{path}")
    async with Server(Service(score), Settings(unix=str(path))).listening(), at_work(Service(unused), caller):
        assert await call(score, 2) == Score(2, "")


@io_route("/late")
async def late() -> AsyncIterator[int]:
    await asyncio.sleep(60)
    yield 1


@on_loop
async def test_stream_must_begin_in_time() -> None:
    async with at_work(Service(late), Settings(call_timeout=0.05)):
        with pytest.raises(CallTimeout, match=r"The stream has not begun within 0\.05 s"):
            await anext(call.stream(late))
