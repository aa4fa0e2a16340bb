"""grpc.aio as its documentation shows it, with protoc's classes. Run: python grpc_plain.py PORT.

`Compute` runs in a ProcessPoolExecutor of two processes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

WORKERS = 2


def compute() -> None: ...


async def serve(port: str, pool: ProcessPoolExecutor) -> None:
    from google.protobuf.empty_pb2 import Empty
    from rpc_messages import generated

    from grpc import aio

    messages, stubs = generated()
    loop = asyncio.get_running_loop()

    class Servicer(stubs.TinysvcRpcServicer):  # type: ignore[misc]
        async def Nothing(self, request: Any, context: Any) -> Any:  # noqa: N802
            return Empty()

        async def Receipt(self, request: Any, context: Any) -> Any:  # noqa: N802
            order = request.order
            total = sum(line.count * line.price for line in order.lines)
            return messages.Receipt(number=order.number, total=total)

        async def Compute(self, request: Any, context: Any) -> Any:  # noqa: N802
            await loop.run_in_executor(pool, compute)
            return Empty()

    server = aio.server()
    stubs.add_TinysvcRpcServicer_to_server(Servicer(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    import uvloop

    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("forkserver")) as pool:
        pool.submit(compute).result()
        uvloop.run(serve(sys.argv[1], pool))


if __name__ == "__main__":
    main()
