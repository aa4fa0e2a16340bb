"""For tests: `serving(service)`, a real server on a free port, in its own thread.

pytest has it as the fixture `tinysvc_serve`, too.
"""

from __future__ import annotations

import asyncio
import os
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory
from typing import Any

from .core.settings import load_settings
from .core.tracebacks import author_traceback, error_observers
from .server.loading import load_service
from .server.server import Server
from .service.service import Service

__all__ = ["serving"]

OnError = Callable[[BaseException], None]


@contextmanager
def serving(target: str | Service | types.ModuleType, *, raise_errors: bool = True, **options: Any) -> Iterator[str]:
    """Serve in a thread while the block runs: a real server with real workers on a free port of 127.0.0.1.

    Synchronous and asynchronous tests use it alike.

    Args:
        target: A `Service`, a module, or what the command line takes: a file or a module's name.
        raise_errors: Raise at the end of the block what handlers have raised and clients got a 500 for: the exception
            itself, or an ExceptionGroup of several. Exceptions of a worker are a `RemoteError`. If the block itself
            fails, they are notes of its exception. False: a test of the 500 itself.
        **options: Options of the server by name, see "Options and limits". `cpu_workers` is 2 unless it is given, and
            durable jobs are kept in a temporary folder unless `jobs` is given.

    Yields:
        Base URL of the server, as in "http://127.0.0.1:40123".

    Raises:
        ConfigurationError: The service cannot start. Other errors of the start are raised here, too.

    Example:
        ```python
        from urllib.request import urlopen

        from tinysvc import Service, io_route
        from tinysvc.testing import serving

        @io_route("/hello")
        async def hello() -> str:
            return "hello"

        with serving(Service(hello)) as url:
            assert urlopen(f"{url}/hello").read() == b"hello"
        ```
    """
    service = load_service(target)
    workers = None if "TINYSVC_CPU_WORKERS" in os.environ else 2
    with _own_store(service, options) as store, _raised() if raise_errors else nullcontext(_ignore) as on_error:
        given = {"port": 0, "cpu_workers": workers, **store, **options}
        server = Server(service, load_settings(given, os.environ, service.options))
        with _in_a_thread(server, on_error):
            yield server.url


@contextmanager
def _own_store(service: Service, options: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The option `jobs` for a store that no other server uses, unless one is given or none is needed."""
    is_given = "jobs" in options or "TINYSVC_JOBS" in os.environ or "jobs" in service.options
    if is_given or not any(route.durable for _, route in service.all_routes()):
        yield {}
        return
    with TemporaryDirectory(prefix="tinysvc-") as folder:
        yield {"jobs": f"{folder}/jobs.db"}


@contextmanager
def _in_a_thread(server: Server, on_error: OnError) -> Iterator[None]:
    """Serve in a new thread until the block ends; `on_error` is called with each error of a handler or a resource."""
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

    def collect(error: BaseException) -> None:
        if threading.current_thread() is thread:
            on_error(error)

    thread = threading.Thread(target=body, name="tinysvc-serving", daemon=True)  # Ctrl-C ends a start that hangs
    error_observers.append(collect)
    try:
        thread.start()
        started.wait()
        try:
            if not failure:
                yield
        finally:
            if not failure:
                loop.call_soon_threadsafe(stop.set)
            thread.join()
    finally:
        error_observers.remove(collect)
    if failure:
        raise failure[0]


@contextmanager
def _raised() -> Iterator[OnError]:
    """Raise the collected errors at the end of the block: those with status 500, and of resources that cannot close."""
    faults: list[BaseException] = []

    def collect(error: BaseException) -> None:
        if getattr(error, "status", 500) == 500:
            faults.append(error)

    try:
        yield collect
    except BaseException as error:
        for fault in faults:
            error.add_note(f"the server failed during the block:\n{author_traceback(fault)}")
        raise
    if faults:
        raise faults[0] if len(faults) == 1 else BaseExceptionGroup("the server failed", faults)


def _ignore(error: BaseException) -> None:
    """Used with `raise_errors=False`."""
