"""rpc_metrics.py, and the lines of rpc_access_log.py: calls by method and status, also on the dashboard."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

import rpc_app
from rpc_ends import rpc_client, rpc_server
from scrapes import scrape
from system import until
from tinysvc import Service
from tinysvc.core.log_records import SOURCE
from tinysvc.dashboard.dashboard_pages import routes_of
from tinysvc.dashboard.reading import reading_of

SERVICE = Service(rpc_app.hello, rpc_app.refused, rpc_app.stuck, rpc_app.numbers, rpc_app.pid)


@pytest.mark.asyncio
async def test_calls_are_counted_logged_and_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinysvc.access")
    options = {"metrics": "/metrics", "access_log": True, "dashboard": True}
    async with rpc_server(SERVICE, **options) as server, rpc_client(server) as client:
        metadata = {"metadata": (("x-request-id", "id-7"),)}
        assert await client.call(rpc_app.hello, metadata, name="Ada") == "hello Ada"
        await client.error(rpc_app.refused, status=404)
        await client.error(rpc_app.refused, status=503)
        assert len(await client.items(rpc_app.numbers, count=3)) == 3
        await client.error(rpc_app.stuck, {"timeout": 0.05}, name="it")
        call = client.begin(rpc_app.stuck, {"name": "other"})
        await until(lambda: "other began" in rpc_app.happened)
        call.cancel()
        assert server._grpc is not None
        await until(lambda: not server._grpc._server.calls.running)  # type: ignore[union-attr]
        found = await asyncio.to_thread(scrape, f"{server.url}/metrics")
        shown = reading_of(await server.snapshot(), 0.0).routes
        assert (shown["RPC rpc_app.RpcApp/Refused"].times.count, shown["RPC rpc_app.RpcApp/Refused"].errors) == (2, 1)
        about = routes_of(server.running)
        assert about["RPC rpc_app.RpcApp/Numbers"].is_stream
        assert about["RPC rpc_app.RpcApp/Pid"].kind == "cpu"
    counted = {
        (labels["rpc_method"].partition("/")[2], labels["rpc_status_code"], labels["error_type"]): value
        for (name, pairs), value in found.samples.items()
        if name == "rpc_server_call_duration_seconds_count" and value
        for labels in [dict(pairs)]
    }
    assert counted == {
        ("Hello", "OK", ""): 1,
        ("Refused", "NOT_FOUND", ""): 1,
        ("Refused", "UNAVAILABLE", "UNAVAILABLE"): 1,
        ("Numbers", "OK", ""): 1,
        ("Stuck", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"): 1,
        ("Stuck", "CANCELLED", ""): 1,
    }
    records = [record for record in caplog.records if record.name == "tinysvc.access"]
    lines = [record.getMessage() for record in records]
    assert lines[0].startswith("127.0.0.1 RPC rpc_app.RpcApp/Hello OK, ")
    assert lines[0].endswith("[request id-7]")
    assert json.dumps(vars(records[0])[SOURCE].extra)
