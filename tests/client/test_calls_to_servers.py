"""The client against tinysvc's own server: refusals that started nothing, budgets, drains and restarts."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

import service_jobs
from http_ends import on_loop
from raw_servers import calling
from tinysvc import QueueFull, Service, io_route
from tinysvc.client.address import parse_address
from tinysvc.client.messages import Outgoing
from tinysvc.testing import serving

pytestmark = [pytest.mark.usefixtures("nothing_left")]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# Which 503 says that nothing was started


@io_route("/path", methods=["POST"])
async def raises_queue_full() -> None:
    raise QueueFull("of a pool that the handler has used")


@io_route("/limited", limit=1)
async def limited(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "ok"


def test_full_queue_says_that_nothing_was_started(tmp_path: Path) -> None:
    @on_loop
    async def test() -> None:
        target = f"/narrow?started={tmp_path}/started&go={tmp_path}/go"
        with serving(Service(service_jobs.narrow), cpu_workers=1, queue_size=0) as url:
            async with calling(parse_address(url)) as caller:
                running = asyncio.create_task(send(caller, target))
                while not (tmp_path / "started").exists():
                    await asyncio.sleep(0.01)
                refused = await send(caller, target)
                assert refused.status == 503
                assert b'"started":false' in await refused.body(10_000)
                (tmp_path / "go").touch()
                assert (await running).status == 200

    test()


def send(caller, target: str, method: str = "GET", within: float = 20.0):  # type: ignore[no-untyped-def]
    outgoing = Outgoing(method, target, [])
    return caller.services.send("callee", outgoing, deadline=monotonic() + within, idempotent=False)


@on_loop
async def test_limit_of_io_requests_says_that_nothing_was_started() -> None:
    with serving(Service(limited)) as url:
        async with calling(parse_address(url)) as caller:
            running = asyncio.create_task(send(caller, "/limited?seconds=2"))
            await asyncio.sleep(0.1)
            refused = await send(caller, "/limited?seconds=0", within=0.9)
            assert refused.status == 503
            assert b'"started":false' in await refused.body(10_000)
            assert (await running).status == 200


@on_loop
async def test_error_of_a_handler_does_not_say_so() -> None:
    with serving(Service(raises_queue_full), raise_errors=False) as url:
        async with calling(parse_address(url)) as caller:
            refused = await caller.send("POST")
            assert refused.status == 503
            body = await refused.body(10_000)
            assert b"queue-full" in body
            assert b"started" not in body


# Drains


class Restarting:
    """A server on one port that can be restarted."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.port = free_port()
        self._stack = ExitStack()

    def start(self) -> None:
        self._stack.enter_context(serving(self.service, port=self.port, cpu_workers=0))

    def stop(self) -> None:
        self._stack.close()


handled = 0


@io_route("/path", methods=["POST", "GET"])
async def handler() -> str:
    global handled
    handled += 1
    await asyncio.sleep(0.002)
    return "ok"


def test_rolling_restart_loses_no_call() -> None:
    """Of any method, with one attempt each that the callee has started."""

    @on_loop
    async def test() -> None:
        global handled
        handled = made = 0
        replicas = [Restarting(Service(handler)) for _ in range(2)]
        for replica in replicas:
            await asyncio.to_thread(replica.start)
        addresses = [parse_address(f"http://127.0.0.1:{replica.port}") for replica in replicas]
        try:
            async with calling(*addresses) as caller:
                ends = False

                async def calls() -> None:
                    nonlocal made
                    while not ends:
                        assert await caller.text("POST", b"x") == "ok"
                        made += 1
                        await asyncio.sleep(0.003)

                tasks = [asyncio.create_task(calls()) for _ in range(8)]
                for _ in range(6):
                    for replica in replicas:
                        await asyncio.sleep(0.2)
                        await asyncio.to_thread(replica.stop)
                        await asyncio.to_thread(replica.start)
                        await asyncio.sleep(0.2)
                ends = True
                await asyncio.gather(*tasks)
                assert made == handled  # none was repeated after its handler had started
        finally:
            for replica in replicas:
                await asyncio.to_thread(replica.stop)

    test()
