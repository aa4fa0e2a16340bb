"""Start a server from the command line or a program: load the service, serve, turn failures into an exit status."""

from __future__ import annotations

import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from ..core.errors import ConfigurationError, WorkerStartError
from ..core.os_errors import describe_os_error
from ..core.setting_values import SettingsError
from ..core.settings import Settings, load_settings
from ..core.shutdown import exit_guard
from ..core.stack_dumps import enable_stack_dumps
from ..core.systemd import notify, take_notify_socket
from ..openapi.page import openapi_json
from ..pool.importable import refuse_while_importing
from ..pool.standard_streams import open_standard_streams
from ..runtime.open_resources import ResourceFailed
from ..service.plan import plans_of
from ..service.service import Service
from ..telemetry.logs import configure_logging
from .first_process import leave_first_process
from .listing import is_colourful, route_table, settings_table
from .loading import TargetError, load_main, load_service
from .server import MetricsPlace, Server
from .signals import serve_until_signal, terminal_watch
from .sockets import RELOADER, grpc_line, metrics_line

if TYPE_CHECKING:
    from .server_process import SupervisorLink

FORESEEN = (ConfigurationError, ResourceFailed, WorkerStartError)
"""Errors of a service that cannot start; their message is printed without a traceback."""


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
def exit_on_failure() -> Iterator[None]:
    """Print a foreseen failure of the block as one sentence, and end the process with its exit status."""
    try:
        yield
    except FORESEEN as error:
        _exit(_status(error), error)
    except OSError as error:  # an OSError in the author's code arrives as one of the errors above
        _exit(3, cannot_serve(error))


def cannot_serve(error: OSError) -> str:
    """The message for a system call that failed in tinysvc itself, with its line of code."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"cannot serve: {describe_os_error(frame.line or frame.name, error)} (in {frame.filename}, line {frame.lineno})"
    )


def show(subject: str, load: Callable[[], Service], options: Mapping[str, Any]) -> None:
    """Print the `routes`, the `openapi` document or the `settings` of a service, and do not serve it."""
    open_standard_streams()
    with exit_on_failure():
        service = load()
        settings = load_settings(options, os.environ, service.options)
        plans = list(plans_of(service))
    if subject == "routes":
        _announce(_routes(service))
    elif subject == "settings":
        _announce(settings_table(settings, options, os.environ, service.options))
    else:
        _announce(openapi_json(service, plans, settings, indent=True).decode())


def run_loaded(load: Callable[[], Service], options: Mapping[str, Any]) -> None:
    """Load the service and serve it; see `exit_on_failure` for failures."""
    open_standard_streams()
    leave_first_process()
    enable_stack_dumps()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a handler's prints appear at once, also in a file or a pipe
    take_notify_socket(os.environ)
    load = functools.cache(load)
    with exit_on_failure():
        settings = load_settings(options, os.environ)  # report a wrong option before importing the author's code
        if RELOADER in os.environ:
            _serve_under_reloader(load, options)
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
                functools.partial(_serve_under_supervisor, load, options), settings, _announce_ready, terminal_watch()
            )


def _serve_alone(service: Service, settings: Settings) -> None:
    configure_logging(settings)
    server = Server(service, settings)

    def ready() -> None:
        others = metrics_line(server.metrics_listeners) + grpc_line(server.grpc_addresses)
        _announce_ready(f"{_routes(service)}\n{others}listening on {' and '.join(server.urls)}")

    _run(serve_until_signal(server, ready))
    _exit_if_broken(server)


def _serve_under_reloader(load: Callable[[], Service], options: Mapping[str, Any]) -> None:
    from .reload import link_to_reloader, load_reporting_folders

    link = link_to_reloader()
    options = {**options, "workers": 1, "drain_delay": 0.0}  # each version has all the CPU workers, and ends at once
    _serve_under_supervisor(lambda: load_reporting_folders(link, load), options, link)


def _serve_under_supervisor(load: Callable[[], Service], options: Mapping[str, Any], link: SupervisorLink) -> None:
    """Serve in a process that a supervisor or a reloader has started."""
    from .server_process import settings_of_one_process

    enable_stack_dumps()
    try:
        service = load()
        settings = load_settings(options, os.environ, service.options)
        listeners = link.listeners(settings, _routes(service))
        metrics = MetricsPlace(link.metrics_listeners, link if settings.workers > 1 else None)
        server = Server(service, settings_of_one_process(settings), listeners, metrics, link.grpc_sockets)
        _run(serve_until_signal(server, link.ready, link.socket, functools.partial(link.report, alive=True)))
        _exit_if_broken(server)
    except FORESEEN as error:
        link.failed(str(error), _status(error))
    except OSError as error:
        link.failed(cannot_serve(error), 3)


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


def _exit_if_broken(server: Server) -> None:
    """End with status 1 if the server has drained because its store of durable jobs has closed itself."""
    if server.url and server.running.is_broken:
        sys.exit(1)


def _status(error: Exception) -> int:
    """2: the target or an option is wrong; 3: the service cannot start. A server process has reported its own."""
    return getattr(error, "exit_status", 2 if isinstance(error, (TargetError, SettingsError)) else 3)


def _exit(status: int, message: object) -> NoReturn:
    print(f"tinysvc: {message}", file=sys.stderr)
    sys.exit(status)


def _announce_ready(text: str) -> None:
    _announce(text)
    notify("READY=1")


def _announce(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # the reader of our output has closed it: serve all the same
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
