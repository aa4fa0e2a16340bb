"""rpc_health.py: what balancers ask for."""

from __future__ import annotations

import asyncio

import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpc
import rpc_app
from rpc_ends import rpc_client, rpc_server
from tinysvc import Service
from tinysvc.grpc import rpc_health

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def asked(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.asyncio
async def test_health_of_a_server_from_its_start_to_its_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_health, "LOOK_AGAIN", 0.02)
    async with rpc_server(Service(rpc_app.hello, rpc_app.pid, name="shop")) as server, rpc_client(server) as client:
        health = HealthStub(client.channel)
        for name in ("", "rpc_app.RpcApp", "grpc.health.v1.Health"):
            assert (await health.Check(asked(name), timeout=20)).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(asked("other"), timeout=20)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        statuses = (await health.List(health_pb2.HealthListRequest(), timeout=20)).statuses
        assert {name: each.status for name, each in statuses.items()} == dict.fromkeys(
            ("", "rpc_app.RpcApp", "grpc.health.v1.Health"), SERVING
        )
        assert (await anext(aiter(health.Watch(asked("other"), timeout=20)))).status == UNKNOWN
        watched = aiter(health.Watch(asked(), timeout=20))
        assert (await anext(watched)).status == SERVING

        server.running.lost_resources.add("table")  # nobody reports that to the health
        assert (await anext(watched)).status == NOT_SERVING
        assert (await health.Check(asked(), timeout=20)).status == NOT_SERVING
        server.running.lost_resources.clear()
        assert (await anext(watched)).status == SERVING

        assert server._grpc is not None
        server._grpc.leave()
        assert (await anext(watched)).status == NOT_SERVING
        draining = asyncio.create_task(server._grpc.drain(20))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(watched)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await draining == 0
