"""An HTTP server before a queue: POST /jobs adds a job and responds when the queue has it. Starlette, on uvicorn."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

FOLDER = Path(os.environ["TMPDIR"])
REDIS = FOLDER / "redis.sock"
BIN = Path(sys.executable).parent


def start_redis() -> None:
    """Redis as its documentation recommends where no accepted write may be lost: each is in the log, with fsync."""
    options = ["--port", "0", "--unixsocket", str(REDIS), "--dir", str(FOLDER), "--save", ""]
    subprocess.Popen(["redis-server", *options, "--appendonly", "yes", "--appendfsync", "always"])
    deadline = time.monotonic() + 10
    while not REDIS.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def front(
    add: Callable[[float, str], object] | None,
    worker: Sequence[str],
    *,
    add_async: Callable[[float, str], Awaitable[object]] | None = None,
    lifespan: Callable[[], contextlib.AbstractAsyncContextManager[None]] | None = None,
) -> Starlette:
    """The server. `add` adds a job in a thread, `add_async` on the loop; `worker` is the command of the one worker."""

    async def jobs(request: Request) -> Response:
        content = await request.json()
        if add_async is not None:
            await add_async(content["sent"], content["path"])
        elif add is not None:
            await run_in_threadpool(add, content["sent"], content["path"])
        return Response(status_code=202)

    async def json(request: Request) -> Response:
        return JSONResponse({"message": "hello", "answer": 42})

    @contextlib.asynccontextmanager
    async def at_work(app: Starlette) -> AsyncIterator[None]:
        async with lifespan() if lifespan is not None else contextlib.nullcontext():
            running = subprocess.Popen(worker)
            try:
                yield
            finally:
                running.terminate()

    routes = [Route("/jobs", jobs, methods=["POST"]), Route("/json", json)]
    return Starlette(routes=routes, lifespan=at_work)
