"""For tests: `serving(service)`, a real server on a free port, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .loading import load_service
from .server import Server
from .service import Service
from .settings import load_settings

__all__ = ["serving"]


@contextmanager
def serving(target: str | Service | types.ModuleType, **options: Any) -> Iterator[str]:
    """Serve `target` (a Service, a module, or what the command line takes) while the block runs; gives the base URL.

    It is the real server with real workers, on a free port of 127.0.0.1, so that synchronous and asynchronous tests use
    it alike. `options` are fields of Settings. What keeps the server from starting is raised here.
    """
    service = load_service(target)
    settings = load_settings({"port": 0, "cpu_workers": 2, **options}, os.environ, service.options)
    server = Server(service, settings)
    started = threading.Event()
    stop: asyncio.Event
    loop: asyncio.AbstractEventLoop
    failure: list[BaseException] = []

    async def serve() -> None:
        nonlocal stop, loop
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with server.listening():
            started.set()
            await stop.wait()

    def body() -> None:
        import uvloop

        try:
            uvloop.run(serve())
        except BaseException as error:
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=body, name="tinysvc-serving")
    thread.start()
    started.wait()
    try:
        if not failure:
            yield server.url
    finally:
        if not failure:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
    if failure:
        raise failure[0]
