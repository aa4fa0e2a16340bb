"""services.py: the public side of the client, against real servers."""

from __future__ import annotations

import pytest

from http_ends import on_loop, serving
from raw_servers import calling, good, raw_server
from tinysvc.client.address import parse_address
from tinysvc.core.errors import ConfigurationError, HTTPError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


async def echo(request: Request) -> Response:
    return Response((await request.body()) or b"nothing", headers={"x-timeout": request.headers["request-timeout"]})


@on_loop
async def test_call_of_a_real_server() -> None:
    async with serving(echo) as server, calling(parse_address(f"http://127.0.0.1:{server.port}")) as caller:
        for body in (b"", b"abc", b"x" * 300_000):
            incoming = await caller.send("POST", body)
            assert incoming.status == 200
            assert await incoming.body(1_000_000) == (body or b"nothing")
            assert incoming.attempts == 1
            assert 9000 < int(incoming.headers["x-timeout"].removesuffix("ms")) <= 10_000
        assert server.only.wire.requests == 3  # one connection


@on_loop
async def test_too_large_body_is_not_sent() -> None:
    async with raw_server(good) as server, calling(server, max_body_size=10) as caller:
        with pytest.raises(HTTPError, match="at most 10 may be sent") as raised:
            await caller.send("POST", b"x" * 11)
        assert raised.value.status == 413
        assert server.connections == 0


@on_loop
async def test_unknown_service_names_the_remedy() -> None:
    async with raw_server(good) as server, calling(server) as caller:
        with pytest.raises(ConfigurationError, match="add other=http://host:port"):
            await caller.services.send("other", None, deadline=None, idempotent=True)  # type: ignore[arg-type]
