"""Call a method by gRPC as fast as the answers come. Run: python rpc_load.py PORT METHOD IN_FLIGHT SECONDS.

Prints one line of JSON: the calls, and the seconds. Messages stay bytes here, so that the load costs little.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

WARM_UP = 0.5


def message_of(method: str) -> bytes:
    """The request of a method: for Receipt an order of about 1 KiB."""
    from rpc_messages import generated

    if method != "Receipt":
        return b""
    made, _ = generated()
    lines = [made.Line(name=f"a thing of the name {number:04}", count=number, price=number / 7) for number in range(27)]
    request = made.ReceiptRequest(order=made.Order(number=7, customer="somebody", lines=lines))
    encoded: bytes = request.SerializeToString()
    assert 1000 < len(encoded) < 1100, len(encoded)
    return encoded


async def main(port: str, method: str, in_flight: int, seconds: float) -> None:
    from grpc import aio

    message, count, end = message_of(method), 0, 0.0
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(f"/tinysvc_rpc.TinysvcRpc/{method}")
        expected = await call(message, timeout=20)

        async def caller() -> None:
            nonlocal count
            while time.perf_counter() < end:
                assert await call(message) == expected
                count += 1

        for length in (WARM_UP, seconds):
            count, begin = 0, time.perf_counter()
            end = begin + length
            await asyncio.gather(*[caller() for _ in range(in_flight)])
    print(json.dumps({"count": count, "seconds": time.perf_counter() - begin}))


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
