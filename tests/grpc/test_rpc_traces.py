"""rpc_traces.py: the spans of calls by gRPC, as a collector gets them."""

from __future__ import annotations

import asyncio

import pytest

import rpc_app
from collector import Collector, Span, collecting
from rpc_ends import rpc_client, rpc_server
from tinysvc import Service

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = {"metadata": (("traceparent", f"00-{TRACE}-{PARENT}-01"),)}
SERVER = 2


async def spans_of(collector: Collector, *names: str) -> dict[str, Span]:
    found = await asyncio.to_thread(collector.wait_for, *names)
    collector.spans.clear()
    return {span.name: span for span in found}


@pytest.mark.asyncio
async def test_calls_have_spans() -> None:
    service = Service(rpc_app.hello, rpc_app.pid, rpc_app.refused, rpc_app.numbers)
    with collecting() as collector:
        async with rpc_server(service, traces=collector.url, trace_sample=0.0) as server, rpc_client(server) as client:
            await client.call(rpc_app.hello, name="unrecorded")
            assert await client.call(rpc_app.hello, METADATA, name="Ada") == "hello Ada"
            (span,) = (await spans_of(collector, "rpc_app.RpcApp/Hello")).values()
            assert (span.trace_id, span.parent_id, span.kind, span.status) == (TRACE, PARENT, SERVER, 0)
            known = {name: value for name, value in span.attributes.items() if name != "user_agent.original"}
            assert known.pop("tinysvc.request.id")
            assert known == {
                "rpc.system.name": "grpc",
                "rpc.method": "rpc_app.RpcApp/Hello",
                "rpc.status_code": "OK",
                "client.address": "127.0.0.1",
            }
            await client.call(rpc_app.pid, METADATA)
            found = await spans_of(collector, "rpc_app.RpcApp/Pid", "run /pid")
            assert found["run /pid"].parent_id == found["rpc_app.RpcApp/Pid"].span_id
            await client.error(rpc_app.refused, METADATA, status=503)
            (span,) = (await spans_of(collector, "rpc_app.RpcApp/Refused")).values()
            assert (span.status, span.attributes["rpc.status_code"]) == (2, "UNAVAILABLE")
            assert len(await client.items(rpc_app.numbers, METADATA, count=2)) == 2
            (span,) = (await spans_of(collector, "rpc_app.RpcApp/Numbers")).values()
            assert span.status == 0
