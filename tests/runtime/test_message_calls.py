"""message_calls.py: a worker's call of a handler that takes messages: it asks and is answered as over HTTP."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

import called_app as app
from http_ends import on_loop
from rpc_ends import rpc_server
from tinysvc import CallFailed, HTTPError, Request, Service, call, cpu_route
from tinysvc.binding.outgoing import RequestWriter
from tinysvc.binding.replies import ReplyReader
from tinysvc.core.settings import Settings
from tinysvc.grpc.rpc_callee import callee_messages
from tinysvc.runtime.call_context import CallContext
from tinysvc.runtime.call_failures import check_response
from tinysvc.runtime.call_targets import CallTable
from tinysvc.runtime.open_services import services_here
from tinysvc.runtime.running_service import at_work
from tinysvc.service.plan import plan_of
from tinysvc.service.routes import call_method, route_of

WHOLE = {"number": 7, "rest": "a b/c", "words": ["x", "ü &"], "x_colour": app.Colour.RED, "session": "s1"}


@cpu_route("/asks")
def asks(how: str) -> list[Any]:
    if how:
        call.wait(app.raises, how)
    return [call.wait(app.cpu_moved, app.Point(1, 2), by=4), call.wait(app.text, "ü")]


class AsWorker:
    """Calls handlers as a worker does: with the texts of HTTP."""

    def __init__(self, table: CallTable) -> None:
        self._table = table

    async def call(self, function: Any, **arguments: Any) -> Any:
        route = route_of(function)
        assert route is not None
        binder = plan_of(function, route).binder
        writer = RequestWriter(function, call_method(route, binder.body_kind), route.path, binder.inputs)
        callee = self._table.callee_for_worker(function)
        sent = writer.write(arguments)
        sent.headers.append(("x-call-hops", "1"))
        incoming: Any = await callee.exchange(sent, CallContext(monotonic() + 20, "", None, 1))
        await check_response(incoming, callee.service)
        reader = ReplyReader(function, batched=route.batch is not None)
        headers = incoming.headers
        content = await incoming.body(10_000)
        incoming.discard()
        return reader.value(incoming.status, headers.get("content-type", ""), content, headers)


@on_loop
async def test_calls_of_a_worker_are_translated() -> None:
    async with rpc_server(Service(app)) as server:
        settings = Settings(
            services=f"called_app=grpc://{server.grpc_addresses[0]}", cpu_workers=1, max_result_size=10_000
        )
        async with at_work(Service(asks), settings, find_messages=callee_messages) as running:
            worker = AsWorker(CallTable(running, services_here(), find_messages=callee_messages))
            assert (await worker.call(app.places, **WHOLE))["words"] == ["x", "ü &"]
            assert await worker.call(app.moved, point=app.Point(1, 2), by=2) == app.Point(3, 6, ["moved"])
            assert await worker.call(app.whole_form, point=app.Point(1, 2, ["a"])) == app.Point(1, 2, ["a"])
            assert await worker.call(app.raw, body=b"abc") == b"cba"
            assert await worker.call(app.doubled, point=app.Point(4)) == 8.0
            assert await worker.call(app.token, token="t") == "t"
            assert await worker.call(app.nothing) is None
            with pytest.raises(HTTPError, match="no such thing"):
                await worker.call(app.raises, how="404")
            with pytest.raises(CallFailed, match="longer than"):
                await worker.call(app.raw, body=b"a" * 20_000)
            response = await running.handle(Request("GET", "/asks", "how="))
            assert response.content == b'[{"x":5.0,"y":10.0,"tags":[]},"\xc3\xbc \xe2\x98\x83"]'
            assert (await running.handle(Request("GET", "/asks", "how=404"))).status == 404
