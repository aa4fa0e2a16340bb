"""tinysvc: bytes to a worker and back."""

import work
from heartbeat import Heartbeat

from tinysvc import cpu_route, io_route

heartbeat = Heartbeat()


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/held")
async def held() -> dict[str, float]:
    return heartbeat.take()


@cpu_route("/echo", methods=["POST"], timeout=60)
def echo(body: bytes) -> bytes:
    return work.echo(body)


@cpu_route("/echo-view", methods=["POST"], timeout=60)
def echo_view(body: memoryview) -> memoryview:
    return body
