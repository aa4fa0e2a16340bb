"""Many users send a request at the same instant: how long does the k-th of them wait?

    python burst.py PORT USERS METHOD PATH [METHOD BESIDE]      prints one JSON object

All connections are open before the first byte is sent. With BESIDE, as many other users request that path just before;
only requests for PATH are counted. A POST carries `{}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from open_loop import content_length

PATIENCE = 60.0


async def ask(port: int, method: str, path: str, ready: asyncio.Barrier) -> float:
    """Seconds from the common start to the complete response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await ready.wait()
        begin = time.perf_counter()
        body = "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}" if method == "POST" else "\r\n"
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{body}".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(content_length(head))
    finally:
        writer.close()
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"200 was expected for {path}, not {head!r}")
    return time.perf_counter() - begin


async def main(port: str, users: str, method: str, path: str, *beside: str) -> None:
    count = int(users)
    ready = asyncio.Barrier(count * 2 if beside else count)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        if beside:
            for _ in range(count):
                group.create_task(ask(int(port), *beside, ready))
        counted = [group.create_task(ask(int(port), method, path, ready)) for _ in range(count)]
    print(json.dumps({"latencies": sorted(task.result() for task in counted)}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
