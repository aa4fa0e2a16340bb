"""silent_calls.py: clients that begin calls and do not send their messages."""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.events
import pytest

import grpc
import rpc_app
from rpc_ends import rpc_client, rpc_server
from system import until
from tinysvc import Service
from tinysvc.grpc import silent_calls
from tinysvc.grpc.silent_calls import A_MOMENT, SilentCalls


@pytest.mark.asyncio
async def test_newest_of_too_many_silent_calls_are_ended() -> None:
    silent = SilentCalls(30.0, 2)
    tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in range(4)]
    for task in tasks:
        silent.metadata[task] = ()
    for _ in range(A_MOMENT):
        silent.look()
    assert len(silent.metadata) == 4
    silent.look()
    await asyncio.sleep(0)
    assert [task.cancelled() or task.cancelling() > 0 for task in tasks] == [False, False, True, True]
    assert list(silent.metadata) == tasks[:2]
    silent.metadata.clear()
    silent.look()
    assert silent.timer is None
    for task in tasks:
        task.cancel()


@pytest.mark.asyncio
async def test_silent_call_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent_calls, "LOOK", 0.01)
    async with rpc_server(Service(rpc_app.hello, rpc_app.finished), body_timeout=0.1, max_body_size=1000) as server:
        assert server._grpc is not None
        calls = server._grpc._server.calls
        host, _, port = server.grpc_addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        link = h2.connection.H2Connection(h2.config.H2Configuration())
        link.initiate_connection()
        for number, name in ((1, "Hello"), (3, "Hello"), (5, "Finished")):
            head = [(":method", "POST"), (":scheme", "http"), (":path", f"/rpc_app.RpcApp/{name}"), (":authority", "x")]
            link.send_headers(number, [*head, ("te", "trailers"), ("content-type", "application/grpc")])
        writer.write(link.data_to_send())
        await until(lambda: len(calls.silent.metadata) == 3)
        await until(lambda: len(calls.silent.metadata) == 0)
        ended: list[int | None] = []
        while 3 not in ended:  # grpcio holds nothing of it any more
            data = await asyncio.wait_for(reader.read(65536), 20)
            ended += [each.stream_id for each in link.receive_data(data) if isinstance(each, h2.events.StreamEnded)]
        writer.close()
        async with rpc_client(server) as client:
            await client.call(rpc_app.finished, name="silent")  # goes on for longer than a call may be silent
            assert await client.call(rpc_app.hello, name="Ada") == "hello Ada"


@pytest.mark.asyncio
async def test_messages_that_arrive_at_once_are_counted_together() -> None:
    async with rpc_server(Service(rpc_app.slow_size), max_body_memory=250_000) as server, rpc_client(server) as client:
        calls = [client.begin(rpc_app.slow_size, {"data": b"x" * 100_000}, timeout=20) for _ in range(8)]
        codes = [await call.code() for call in calls]
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert codes.count(grpc.StatusCode.OK) <= 3
