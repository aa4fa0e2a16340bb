"""limits.py by itself; over HTTP it is tested in test_service.py."""

from __future__ import annotations

import asyncio

import pytest

from tinysvc.core.errors import HTTPError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.runtime.limits import IoLimit, limited_body

pytestmark = pytest.mark.asyncio


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def test_complete_body_is_checked_at_once() -> None:
    handler = limited_body(echo, 3)
    assert (await handler(Request("POST", "/", body=b"abc"))).content == b"abc"
    with pytest.raises(HTTPError, match="The body has 4 bytes; at most 3 are allowed") as refused:
        await handler(Request("POST", "/", body=memoryview(b"abcd")))
    assert refused.value.status == 413


async def test_every_end_of_a_request_frees_its_place() -> None:
    limit = IoLimit(1)

    async def fail(request: Request) -> Response:
        raise LookupError

    async def wait(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    for _ in range(3):
        with pytest.raises(LookupError):
            await limit.around(fail)(Request("GET", "/"))
    waiting = asyncio.ensure_future(limit.around(wait)(Request("GET", "/")))
    await asyncio.sleep(0)
    with pytest.raises(HTTPError, match="The server already handles 1 requests, its limit") as refused:
        await limit.around(echo)(Request("GET", "/"))
    assert (refused.value.status, refused.value.headers) == (503, [("retry-after", "1")])
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await limit.around(echo)(Request("GET", "/"))).status == 200
