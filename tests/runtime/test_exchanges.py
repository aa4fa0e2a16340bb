"""exchanges.py: a response that does not fit the callee's annotation is a failure with its place."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from http_ends import on_loop, serving
from tinysvc import CallFailed, Request, Response, Service, call, io_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work


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
