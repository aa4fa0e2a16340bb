"""One server process: what starts it, what stops it. supervisor.py makes several of it.

start    open the resources and the workers, then listen: who connects finds everything ready
drain    stop listening, let requests and jobs under way finish, then close all in reverse
hangup   read the certificates again; if it was our terminal that closed, drain
"""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from ..core import request_context
from ..core.encoding import json_bytes
from ..core.errors import ConfigurationError, WorkerStartError
from ..core.forks import detach_in_child, end_child, reset_signals
from ..core.os_errors import describe_os_error
from ..core.requests import Request
from ..core.responses import JSON, Handler, Response
from ..core.settings import Settings, SettingsError, load_settings
from ..core.shutdown import MIN_STEP_TIME, STUCK_MESSAGE, awake_timeout, exit_guard
from ..core.systemd import notify, notify_reload, take_notify_socket
from ..http import Connections
from ..openapi.page import openapi_json, to_docs
from ..pool.importable import refuse_while_importing
from ..pool.standard_streams import open_standard_streams
from ..runtime.open_resources import ResourceFailed
from ..runtime.running_service import at_work
from ..service.plan import plans_of
from ..service.service import Service
from .cpu_slice import shorten_slice
from .first_process import leave_first_process
from .listing import is_colourful, route_table, settings_table
from .loading import TargetError, load_main, load_service
from .sockets import RELOADER, listener_url, listening_sockets
from .tls import Certificates, certificates
from .watchdog import names_of, watched

if TYPE_CHECKING:
    from .supervisor import Link

log = logging.getLogger("tinysvc")

FORESEEN = (ConfigurationError, ResourceFailed, WorkerStartError)
"""What may keep a service from starting."""

CLEANUP = 1.0
"""Seconds of the shutdown_timeout, at most a tenth of it, in which requests that are cut off close their resources."""

TELL_AFTER = 1.0
"""Seconds of draining after which it is said what is waited for: who has pressed Ctrl-C wonders."""


class Server:
    """One server process for one service. `async with Server(...).listening() as url` serves until the block ends.

    `listeners` are bound sockets that somebody else has made, and will close; it makes its own if there are none.
    """

    def __init__(self, service: Service, settings: Settings, listeners: Iterable[socket.socket] = ()) -> None:
        if settings.workers > 1:
            raise ConfigurationError(
                f"workers is {settings.workers}, but a server inside another program is one process; "
                "several are started by python -m tinysvc and by tinysvc.run(): say workers=1 here"
            )
        self.service = service
        self.settings = settings
        self.listeners = list(listeners)
        self.urls: list[str] = []
        self.draining = False
        self._certificates: Certificates | None = None

    @property
    def url(self) -> str:
        """Where it listens; empty until it does."""
        return self.urls[0] if self.urls else ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve while the block runs, then drain. Gives the URL."""
        async with AsyncExitStack() as stack:
            listeners = self.listeners or stack.enter_context(listening_sockets(self.settings, os.environ))
            self._certificates = certificates(self.settings)
            self.running = await stack.enter_async_context(at_work(self.service, self.settings, self._own_pages()))
            scheme = "https" if self._certificates else "http"
            connections = Connections(self._handler(), self.settings, scheme=scheme)
            stack.push_async_callback(self._drain, connections)
            for listener in listeners:
                server = await self._listen(connections, listener)
                stack.callback(server.close)
            self._listening = listeners
            self._loop = asyncio.get_running_loop()
            detach_in_child(self, Server._left_to_the_parent)
            self.urls = [listener_url(listener, scheme) for listener in listeners]
            routes = ((f"{route.methods[0]} {path}", route.function) for path, route in self.service.all_routes())
            stack.enter_context(watched(asyncio.get_running_loop(), names_of(routes)))
            if self.running.pools:
                shorten_slice()
            try:
                yield self.url
            finally:
                self.draining = True

    def _left_to_the_parent(self) -> list[int]:
        """In a forked child: it does not listen, and the loop has nothing to wait for and ends the child."""
        _replace_poll(self._loop)
        self._loop.call_soon(end_child)
        return [listener.fileno() for listener in self._listening]

    def _handler(self) -> Handler:
        settings = self.settings
        if not settings.proxy_headers and not settings.root_path:
            return self.running.handle
        from ..web.proxies import behind_proxies  # not needed without a proxy

        return behind_proxies(self.running.handle, settings.proxy_headers, settings.root_path)

    async def _listen(self, connections: Connections, listener: socket.socket) -> asyncio.AbstractServer:
        loop, options = asyncio.get_running_loop(), dict[str, Any]()
        create: Callable[..., Any] = loop.create_server
        if listener.family == socket.AF_UNIX:
            create = loop.create_unix_server
            if sys.version_info >= (3, 13):
                options["cleanup_socket"] = False  # its path belongs to who has bound it
        if self._certificates:
            options["ssl"] = self._certificates.context
            options["ssl_handshake_timeout"] = max(0.1, self.settings.header_timeout)  # 0 would be an error
            options["ssl_shutdown_timeout"] = max(0.1, self.settings.write_timeout)  # what is unsent counts in it
        try:
            server: asyncio.AbstractServer = await create(
                connections, sock=listener, backlog=self.settings.backlog, **options
            )
        except OSError as error:  # two may bind one address, as long as neither listens
            where = listener_url(listener, "http").removeprefix("http://")
            raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from None
        return server

    def read_again(self) -> None:
        """What can change while we serve: the certificates."""
        if self._certificates is None:
            log.info("SIGHUP reads the certificates again; there are none, so nothing was done")
            return
        try:
            self._certificates.reload()
        except ConfigurationError as error:
            log.error("the certificates stay as they were: %s", error)
        else:
            log.info("the certificates were read again")

    async def _drain(self, connections: Connections) -> None:
        timeout, loop = self.running.seconds_left(), asyncio.get_running_loop()
        self.running.unstarted_streams.drain()
        telling = loop.call_later(TELL_AFTER, self._tell_of_draining, connections)
        if not await connections.drain(timeout - min(CLEANUP, timeout / 10)):
            log.warning("%d connections were cut off after %g s of draining", len(connections.open), timeout)
        telling.cancel()
        cut_off = connections.abort()
        if cut_off:  # what they have open is closed before what the server has
            with suppress(TimeoutError):
                async with awake_timeout(max(MIN_STEP_TIME, self.running.seconds_left())):
                    await asyncio.wait(cut_off)
        await self.running.drain(self.running.seconds_left())
        await asyncio.sleep(0)  # let the cancelled connections' tasks end

    def _tell_of_draining(self, connections: Connections) -> None:
        log.info(
            "draining: connections that are still at work: %d; they have %g s in all, or until the next signal",
            *(len(connections.open), self.settings.shutdown_timeout),
        )

    def _own_pages(self) -> dict[str, Handler]:
        """What the server answers itself where the service leaves the path free."""

        async def livez(request: Request) -> Response:
            return Response(b'{"status":"alive"}', content_type=JSON)

        async def readyz(request: Request) -> Response:
            pools = {
                pool.name: {"workers": pool.max_workers, "ready": pool.ready, "queued": pool.waiting}
                | ({"warnings": pool.warnings} if pool.warnings else {})
                for pool in self.running.pools
            }
            ready = not self.draining and self.running.is_ready()
            content: dict[str, Any] = {
                "status": "draining" if self.draining else "ready" if ready else "not ready",
                "pools": pools,
            }
            if self.running.lost_resources:
                content["lost_resources"] = sorted(self.running.lost_resources)
            return Response(json_bytes(content), 200 if ready else 503, content_type=JSON)

        pages: dict[str, Handler] = {"/livez": livez, "/readyz": readyz}
        if self.settings.docs and sum(not service.is_part_of_module for service, *_ in self.service.mounts()) > 1:
            pages["/"] = to_docs
        return pages


def run(target: str | Service, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, from within a program.

    Call it under `if __name__ == "__main__":`, because workers import the module again. A service that cannot start
    ends the process with one sentence, and exit status 2 (an option or argument is wrong) or 3 (the service cannot
    start).

    Args:
        target: `__name__` of the calling module, a `Service`, or what the command line takes: a file or a module.
        **options: Options of the server by name, see "Options and limits". They override variables.

    Raises:
        RuntimeError: A worker imports the module, and the call is not under `if __name__ == "__main__":`.
        SystemExit: The service cannot start; 2 or 3, as above.

    Example:
        ```python
        import tinysvc

        @tinysvc.io_route("/")
        async def index() -> str:
            return "hello"

        if __name__ == "__main__":
            tinysvc.run(__name__, port=9000)
        ```
    """

    refuse_while_importing()

    def load() -> Service:
        return load_main(target) if isinstance(target, str) and target in sys.modules else load_service(target)

    run_loaded(load, options)


@contextmanager
def failures_told() -> Iterator[None]:
    """What is foreseen to go wrong in the block is said in its sentence, and ends the process with its status."""
    try:
        yield
    except FORESEEN as error:
        _exit(_status(error), error)
    except OSError as error:  # what an author's code raises is one of those above
        _exit(3, cannot_start(error))


def cannot_start(error: OSError) -> str:
    """The sentence for a call of ours that the system has refused, with the line of code that made it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"cannot serve: {describe_os_error(frame.line or frame.name, error)} (in {frame.filename}, line {frame.lineno})"
    )


def show(what: str, load: Callable[[], Service], options: Mapping[str, Any]) -> None:
    """Print the `routes`, the `openapi` document or the `settings` of a service, and do not serve it."""
    open_standard_streams()
    with failures_told():
        service = load()
        settings = load_settings(options, os.environ, service.options)
        plans = list(plans_of(service))
    if what == "routes":
        _announce(_routes(service))
    elif what == "settings":
        _announce(settings_table(settings, options, os.environ, service.options))
    else:
        _announce(openapi_json(service, plans, settings, indent=True).decode())


def run_loaded(load: Callable[[], Service], options: Mapping[str, Any]) -> None:
    """Load, serve, and turn every foreseen failure into its sentence and exit status."""
    open_standard_streams()
    leave_first_process()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what a handler prints is seen at once, also in a file or a pipe
    take_notify_socket(os.environ)
    load = functools.cache(load)
    with failures_told():
        settings = load_settings(options, os.environ)  # a wrong option is said before the author's code is imported
        if RELOADER in os.environ:
            _serve_for_a_reloader(load, options)
            return
        if settings.workers == 1 and not settings.reload:
            settings = load_settings(options, os.environ, load().options)
        if settings.reload:
            from .reload import reload

            reload(settings, _announce_ready, terminal_watch())
        elif settings.workers == 1:
            _serve_alone(load(), settings)
        else:
            from .supervisor import supervise

            supervise(
                functools.partial(_serve_beside_others, load, options), settings, _announce_ready, terminal_watch()
            )


def _serve_alone(service: Service, settings: Settings) -> None:
    request_context.configure_logging(settings.log_level, "%(levelname)s %(name)s: %(message)s")
    server = Server(service, settings)

    def ready() -> None:
        _announce_ready(f"{_routes(service)}\nlistening on {' and '.join(server.urls)}")

    _run(_serve_until_signal(server, ready))


def _serve_for_a_reloader(load: Callable[[], Service], options: Mapping[str, Any]) -> None:
    from .reload import link_to_reloader, telling_folders

    link = link_to_reloader()
    alone = {**options, "workers": 1}  # a reloader has one process for each version, with all the CPU workers
    _serve_beside_others(lambda: telling_folders(link, load), alone, link)


def _serve_beside_others(load: Callable[[], Service], options: Mapping[str, Any], link: Link) -> None:
    """What a process does that a supervisor has forked."""
    from .supervisor import share

    try:
        service = load()
        settings = load_settings(options, os.environ, service.options)
        listeners = link.listeners(settings, _routes(service))
        server = Server(service, share(settings), listeners)
        _run(_serve_until_signal(server, link.ready, link.socket))
    except FORESEEN as error:
        link.failed(str(error), _status(error))
    except OSError as error:
        link.failed(cannot_start(error), 3)


def _replace_poll(loop: asyncio.AbstractEventLoop) -> None:
    """A forked child shares the list of what the loop waits for: give it one of its own, which is empty."""
    if not hasattr(select, "epoll"):
        return  # kqueue is not inherited
    selector = getattr(loop, "_selector", None)
    find = getattr(loop, "_get_backend_id", None) or getattr(selector, "fileno", None)
    if find is not None and (descriptor := find()) >= 0:
        with select.epoll() as own:
            os.dup2(own.fileno(), descriptor, inheritable=False)


def _routes(service: Service) -> str:
    return route_table(service, colour=is_colourful(sys.stdout))


def _run(serving: Coroutine[Any, Any, None]) -> None:
    import uvloop

    exit_guard.is_armed = True
    try:
        uvloop.run(serving)
        exit_guard.limit_exit()
    finally:
        exit_guard.end_step()
        exit_guard.is_armed = False


def _status(error: Exception) -> int:
    """2 where what was asked for is wrong, 3 where it cannot start; a server process has said which."""
    return getattr(error, "exit_status", 2 if isinstance(error, (TargetError, SettingsError)) else 3)


def _exit(status: int, message: object) -> NoReturn:
    print(f"tinysvc: {message}", file=sys.stderr)
    sys.exit(status)


async def _serve_until_signal(
    server: Server, ready: Callable[[], None], supervisor: socket.socket | None = None
) -> None:
    """The first SIGTERM or SIGINT drains; the second ends the process at once, and the forkserver kills the workers.

    With a supervisor each only drains: it is the supervisor who counts, as a service manager may send a signal to both
    of us. When its end of the socket closes, it has died: drain.
    """
    task, stop, loop = asyncio.current_task(), asyncio.Event(), asyncio.get_running_loop()
    terminal_closed = terminal_watch()
    read_again = server.read_again if supervisor else functools.partial(notify_reload, server.read_again)

    def end() -> None:
        if not stop.is_set():
            stop.set()
            if supervisor is None:
                notify("STOPPING=1")
            if not server.url and task is not None:  # still starting
                task.cancel()

    def on_signal(number: int) -> None:
        if stop.is_set() and supervisor is None:
            os._exit(128 + number)
        end()

    def on_supervisor_gone() -> None:
        assert supervisor is not None
        loop.remove_reader(supervisor)
        end()

    detach_in_child(stop, _without_signals)
    take_back_signals = _keep_signals(
        loop,
        {
            signal.SIGTERM: lambda: on_signal(signal.SIGTERM),
            signal.SIGINT: lambda: on_signal(signal.SIGINT),
            signal.SIGHUP: lambda: end() if terminal_closed() else read_again(),
        },
    )
    if supervisor is not None:
        loop.add_reader(supervisor, on_supervisor_gone)
    try:
        async with server.listening():
            take_back_signals()
            ready()
            await stop.wait()
        exit_guard.limit_step(max(MIN_STEP_TIME, server.running.seconds_left()), STUCK_MESSAGE)  # uvloop waits for them
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


def _keep_signals(loop: asyncio.AbstractEventLoop, handlers: Mapping[int, Callable[[], object]]) -> Callable[[], None]:
    """Handle these signals, whatever a resource, a handler or a library of theirs registers later.

    `loop.add_signal_handler` replaces: a library that adds one for SIGTERM would make the server deaf to it. So what is
    added later is called behind ours, and only that is removed. Call the result when the resources are open: it undoes
    `signal.signal(SIGTERM, SIG_IGN)` and SIG_DFL in them. (Python functions given to `signal.signal` replace nothing.)
    """
    add, remove = loop.add_signal_handler, loop.remove_signal_handler

    def add_behind(number: int, callback: Callable[..., object], *args: Any) -> None:
        if number in handlers:
            add(number, both, handlers[number], functools.partial(callback, *args))
        else:
            add(number, callback, *args)

    def both(ours: Callable[[], object], other: Callable[[], object]) -> None:
        ours()
        other()

    def remove_behind(number: int) -> bool:
        if number not in handlers or loop.is_closed():  # a loop that closes removes them all
            return remove(number)
        add(number, handlers[number])
        return True

    def take_back() -> None:
        for number, handler in handlers.items():
            if signal.getsignal(number) in (signal.SIG_IGN, signal.SIG_DFL):
                name = signal.Signals(number).name
                log.warning("a resource gave %s to SIG_IGN or SIG_DFL; the server handles it again, to drain", name)
                add(number, handler)

    for number, handler in handlers.items():
        add(number, handler)
    loop.add_signal_handler = add_behind  # type: ignore[method-assign, assignment]
    loop.remove_signal_handler = remove_behind  # type: ignore[method-assign, assignment]
    return take_back


def _without_signals(_: object) -> tuple[int, ...]:
    """In a forked child: signals that it gets are its own."""
    signal.set_wakeup_fd(-1)
    reset_signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    return ()


def terminal_watch() -> Callable[[], bool]:
    """A function that says whether our terminal has closed: a SIGHUP then means what it always has, but under nohup."""
    watches = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return lambda: watches and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


def _announce_ready(text: str) -> None:
    _announce(text)
    notify("READY=1")


def _announce(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # nobody reads our output: no reason not to serve
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
