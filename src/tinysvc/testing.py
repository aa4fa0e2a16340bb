"""For tests: `serving(service)`, a real server on a free port, in a thread of its own.

pytest has it as the fixture `tinysvc_serve` too.
"""

from __future__ import annotations

import asyncio
import os
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from .errors import author_traceback, noticed_by
from .loading import load_service
from .server import Server
from .service import Service
from .settings import load_settings

__all__ = ["serving"]


@contextmanager
def serving(target: str | Service | types.ModuleType, *, raise_errors: bool = True, **options: Any) -> Iterator[str]:
    """Serve `target` (a Service, a module, or what the command line takes) while the block runs; gives the base URL.

    It is the real server with real workers, on a free port of 127.0.0.1, so that synchronous and asynchronous tests use
    it alike. `options` are fields of Settings. What keeps the server from starting is raised here.

    What a handler has raised, and the client has got a 500 for, is raised where the block ends: the exception itself,
    or an ExceptionGroup of several; what comes from a worker is a RemoteError. If the block ends with an error of its
    own, they are notes of that. Not so with `raise_errors=False`, for a test of the 500 itself.
    """
    service = load_service(target)
    settings = load_settings({"port": 0, "cpu_workers": 2, **options}, os.environ, service.options)
    server = Server(service, settings)
    with _in_a_thread(server) as thread, _raised_of(thread) if raise_errors else nullcontext():
        yield server.url


@contextmanager
def _in_a_thread(server: Server) -> Iterator[threading.Thread]:
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
            yield thread
    finally:
        if not failure:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
    if failure:
        raise failure[0]


@contextmanager
def _raised_of(thread: threading.Thread) -> Iterator[None]:
    """Collects what the server in this thread answers 500 for."""
    faults: list[BaseException] = []

    def collect(error: BaseException) -> None:
        if threading.get_ident() == thread.ident and getattr(error, "status", 500) == 500:
            faults.append(error)

    noticed_by.append(collect)
    try:
        yield
    except BaseException as error:
        for fault in faults:
            error.add_note(f"a handler failed meanwhile:\n{author_traceback(fault)}")
        raise
    finally:
        noticed_by.remove(collect)
    if faults:
        raise faults[0] if len(faults) == 1 else BaseExceptionGroup("handlers failed", faults)
