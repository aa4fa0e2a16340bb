"""The server: sockets, signals, drain. The only place that has any of them.

start    open the resources and the workers, then listen: who connects finds everything ready
drain    stop listening, let requests and jobs under way finish, then close all in reverse
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from .binding import json_bytes
from .errors import ConfigurationError, WorkerStartError
from .http import Connections
from .loading import ImportFailed, TargetError, load_main, load_service
from .messages import JSON, Handler, Request, Response
from .pages import index_page
from .processes import refuse_while_importing
from .service import ResourceFailed, RunningService, Service
from .settings import Settings, SettingsError, load_settings
from .watchdog import watched

log = logging.getLogger("tinysvc")


class Server:
    """One server process for one service. `async with Server(...).listening() as url` serves until the block ends."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.settings = settings
        self.url = ""
        self.draining = False
        self._listener: asyncio.Server

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve while the block runs, then drain. Gives the URL."""
        with _bound_socket(self.settings) as listener:
            async with self.service.running(self.settings, self._own_pages()) as running:
                self.running = running
                connections = Connections(running, self.settings)
                loop = asyncio.get_running_loop()
                if listener.family == socket.AF_UNIX:
                    server = await loop.create_unix_server(connections, sock=listener, backlog=self.settings.backlog)
                else:
                    server = await loop.create_server(connections, sock=listener, backlog=self.settings.backlog)
                self.url = _url(listener)
                with watched(loop):
                    try:
                        yield self.url
                    finally:
                        self.draining = True
                        server.close()
                        await self._drain(connections, running)

    async def _drain(self, connections: Connections, running: RunningService) -> None:
        timeout, loop = self.settings.shutdown_timeout, asyncio.get_running_loop()
        end = loop.time() + timeout
        if not await connections.drain(timeout):
            log.warning("%d connections were cut off after %g s of draining", len(connections.open), timeout)
        connections.abort()
        await running.drain(max(0.0, end - loop.time()))
        await asyncio.sleep(0)  # let the cancelled connections' tasks end

    def _own_pages(self) -> dict[str, Handler]:
        """What the server answers itself where the service leaves the path free."""

        async def livez(request: Request) -> Response:
            return Response(b'{"status":"alive"}', content_type=JSON)

        async def readyz(request: Request) -> Response:
            pools = {
                pool.name: {"workers": pool.max_workers, "ready": pool.ready, "queued": pool.waiting}
                for pool in self.running.pools
            }
            ready = not self.draining and self.running.is_ready()
            content = {"status": "draining" if self.draining else "ready" if ready else "not ready", "pools": pools}
            return Response(json_bytes(content), 200 if ready else 503, content_type=JSON)

        pages: dict[str, Handler] = {"/livez": livez, "/readyz": readyz}
        if len(list(self.service.services())) > 1:
            pages["/"] = index_page(self.service.name or "tinysvc", self.service.mounted())
        return pages


def run(target: str | Service, **options: Any) -> None:
    """Serve `target` until SIGTERM or SIGINT; in a module: `tinysvc.run(__name__)`.

    `target` is the name of the calling module, a Service, or what the command line takes. `options` are fields of
    Settings, as in `run(__name__, port=9000)`. Write it under `if __name__ == "__main__":`, as workers import the
    module again. If the service cannot start, the process ends with one sentence and status 2 (what was asked for is
    wrong) or 3 (it was right, but cannot start).
    """

    refuse_while_importing()

    def load() -> Service:
        return load_main(target) if isinstance(target, str) and target in sys.modules else load_service(target)

    run_loaded(load, options)


def run_loaded(load: Callable[[], Service], options: Mapping[str, Any]) -> None:
    """Load, serve, and turn every foreseen failure into its sentence and exit status."""
    _open_standard_descriptors()
    try:
        load_settings(options, os.environ)  # a wrong option is said before the author's code is imported
        service = load()
        settings = load_settings(options, os.environ, service.options)
        logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
        import uvloop

        uvloop.run(_serve_until_signal(service, settings))
    except ImportFailed as error:
        _exit(3, error)
    except (TargetError, SettingsError) as error:
        _exit(2, error)
    except (ConfigurationError, ResourceFailed, WorkerStartError) as error:
        _exit(3, error)


def _open_standard_descriptors() -> None:
    """If one was closed by who started us, no socket of ours may take its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _exit(status: int, message: object) -> NoReturn:
    print(f"tinysvc: {message}", file=sys.stderr)
    sys.exit(status)


async def _serve_until_signal(service: Service, settings: Settings) -> None:
    """The first SIGTERM or SIGINT drains; the second ends the process at once, and the forkserver kills the workers."""
    task, stop, server = asyncio.current_task(), asyncio.Event(), Server(service, settings)

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        if not server.url and task is not None:  # still starting
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        async with server.listening() as url:
            _announce(f"{route_table(service)}\nlistening on {url}")
            await stop.wait()
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


def _announce(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # nobody reads our output: no reason not to serve
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process


def route_table(service: Service) -> str:
    """The routes, one a line: method, path, io or cpu, handler."""
    rows = [
        (
            " ".join(m.route.methods),
            m.path,
            m.route.kind,
            f"{m.route.function.__module__}.{m.route.function.__qualname__}",
        )
        for m in service.mounted()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@contextmanager
def _bound_socket(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket, bound but not yet listening. ConfigurationError if the address cannot be had."""
    if settings.unix:
        with _bound_unix_socket(settings.unix) as listener:
            yield listener
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", "") or error
        raise ConfigurationError(f"{settings.host!r} is no address of this machine: {why}") from None
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ConfigurationError(_cannot_bind(error, settings)) from None
        yield listener


def _cannot_bind(error: OSError, settings: Settings) -> str:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: another process does; stop it or choose --port (0 takes a free one)"
    if error.errno == errno.EACCES:
        return f"cannot listen on {where}: not permitted; choose --port above 1023"
    return f"cannot listen on {where}: {error.strerror}"


@contextmanager
def _bound_unix_socket(path: str) -> Iterator[socket.socket]:
    """A Unix socket at `path`. One that nobody listens on any more is replaced; a live one, or another file, is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            if Path(path).is_socket():
                _refuse_live_socket(path)
                os.unlink(path)
            listener.bind(path)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on the Unix socket {path}: {error.strerror or error}") from None
        try:
            yield listener
        finally:
            Path(path).unlink(missing_ok=True)


def _refuse_live_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
    raise ConfigurationError(
        f"cannot listen on the Unix socket {path}: another process does; stop it or choose another"
    )


def _url(listener: socket.socket) -> str:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"
