"""A service whose requests are recorded: test_tracing.py looks at their spans."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator

from opentelemetry import trace

from tinysvc import Batch, HTTPError, Request, WebSocket, call, cpu, cpu_route, io_route, job_route, submit
from tinysvc.core.trace_context import current_trace
from tinysvc.pool.questions import reporting

tracer = trace.get_tracer("traced_app")


@io_route("/hello/{name}")
async def hello(name: str, request: Request) -> dict[str, str]:
    trace.get_current_span().set_attribute("greeted", name)
    with tracer.start_as_current_span("think", attributes={"n": 1}) as span:
        span.add_event("idea", {"good": True})
        found = current_trace()
    return {"traceparent": request.headers.get("traceparent", ""), "inner": found.traceparent if found else ""}


@io_route("/plain")
def plain() -> str:
    with tracer.start_as_current_span("in a thread"):
        return "plain"


@io_route("/fails")
async def fails() -> str:
    raise RuntimeError("a secret")


@io_route("/counts")
async def counts() -> AsyncIterator[int]:
    for n in range(3):
        yield n


@cpu_route("/square")
def square(n: int) -> int:
    with tracer.start_as_current_span("multiply") as span:
        span.set_attribute("n", n)
        return n * n


@cpu_route("/modules")
def modules() -> list[str]:
    return sorted(name for name in sys.modules if name.startswith("opentelemetry"))


@cpu_route("/raises")
def raises() -> int:
    with tracer.start_as_current_span("try"):
        raise ValueError("no")


@cpu_route("/dies")
def dies() -> int:
    with tracer.start_as_current_span("before the end"):
        pass
    with tracer.start_as_current_span("never ends"):
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


@cpu_route("/sleeps", timeout=0.2)
def sleeps() -> int:
    time.sleep(30)
    return 0


@cpu_route("/steps")
def steps(n: int) -> Iterator[int]:
    for step in range(n):
        with tracer.start_as_current_span(f"step {step}"):
            yield step


@cpu_route("/totals", methods=["POST"], batch=Batch(4, wait=0.05))
def totals(n: list[int]) -> list[int]:
    with tracer.start_as_current_span("all at once"):
        return [each + 1 for each in n]


@cpu_route("/flood")
def flood() -> int:
    for _ in range(3000):
        with tracer.start_as_current_span("flood"):
            pass
    return 0


@io_route("/calls")
async def calls() -> int:
    with tracer.start_as_current_span("outer"):
        called: int = await call(square, 3)
        other: int = await cpu(square, 4)
        return called + other


@io_route("/asks")
async def asks() -> str:
    return (await call(answers, 5))["traceparent"]


@io_route("/answers", methods=["GET"])
async def answers(n: int, request: Request) -> dict[str, str]:
    return {"traceparent": request.headers.get("traceparent", "")}


@io_route("/refused")
async def refused() -> str:
    return await call(refuses)


@io_route("/refuses")
async def refuses(request: Request) -> str:
    raise HTTPError(409, "no")


@cpu_route("/waits", pool="other")
def waits() -> str:
    return call.wait(answers, 6)["traceparent"]


@job_route("/trainings", pool="other")
def train(epochs: int) -> int:
    if epochs < 0:
        raise HTTPError(422, "too few")
    with tracer.start_as_current_span("epoch"):
        return epochs


@io_route("/starts", methods=["POST"])
async def starts() -> str:
    return (await submit(train, 2)).id


@io_route("/endless")
async def endless() -> AsyncIterator[int]:
    while True:
        yield 1
        await asyncio.sleep(0.01)


@io_route("/slow")
async def slow() -> None:
    await asyncio.sleep(30)


@cpu_route("/sleeps-shortly")
def sleeps_shortly() -> int:
    time.sleep(0.3)
    return 1


@cpu_route("/refuses-in-worker")
def refuses_in_worker() -> int:
    raise HTTPError(503, "not now")


@io_route("/calls-what-fails")
async def calls_what_fails() -> str:
    return await call(fails)


@cpu_route("/threads")
def threads() -> dict[str, int]:
    ids = {"worker": os.getpid(), "forkserver": os.getppid()}
    return {name: len(os.listdir(f"/proc/{pid}/task")) for name, pid in ids.items()}


@cpu_route("/own-modules")
def modules_of_tinysvc() -> list[str]:
    return sorted(name for name in sys.modules if name.startswith("tinysvc."))


@cpu_route("/plain-in-worker")
def plain_in_worker() -> str:
    found = current_trace()
    return found.traceparent if found else ""


@cpu_route("/lies")
def lies() -> int:
    report = reporting.get()
    assert report is not None
    report(["no", "span"])
    return 1


@io_route("/echo")
async def echo(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)
