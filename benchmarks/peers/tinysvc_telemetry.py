"""tinysvc: routes and an author's metrics for the part `telemetry`."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from heartbeat import Heartbeat
from prometheus_client import Counter

from tinysvc import Service, cpu_route, io_route

HEARTBEAT = Heartbeat()
SOLD = Counter("bench_sold", "Books sold.", ["shop"])
CRASHED = Counter("bench_crashed", "Jobs that kill their worker.")

for number in range(500):
    SOLD.labels(f"shop {number}").inc()


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/held")
async def held() -> dict[str, float]:
    return HEARTBEAT.take()


@cpu_route("/crash/{number}")
def crash(number: int) -> None:
    CRASHED.inc()
    os.kill(os.getpid(), signal.SIGKILL)


@cpu_route("/sell/{number}")
def sell(number: int) -> int:
    SOLD.labels(f"shop {number}").inc()
    return number


def many(count: int) -> list[Callable[..., Any]]:
    """Further routes, each with series of its own."""

    def made(number: int) -> Callable[..., Any]:
        @io_route(f"/many/{number}")
        async def one() -> int:
            await asyncio.sleep(0)
            return number

        return one

    return [made(number) for number in range(count)]


service = Service(message, held, crash, sell, *many(100))
