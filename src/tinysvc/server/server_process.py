"""The server process's side of a supervisor or a reloader: it reports over a link and receives its sockets there.

{"settings": {...}, "routes": "..."}     the service is loaded; the reply is the listening sockets
{"ready": true}                          the process listens
{"failed": [message, exit status]}       the service cannot start
{"folders": [...]}                       to a reloader only: the folders to watch

The lines about metrics are in snapshot_exchange.py. Two bytes come with the listening sockets: the number of those for
metrics, and of those for gRPC, which are the last ones.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import NoReturn

from ..core.errors import ConfigurationError
from ..core.exit_with_parent import exit_with_parent
from ..core.forks import detach_in_child
from ..core.pool_settings import Pool
from ..core.settings import Settings
from ..telemetry.logs import configure_logging
from .sockets import rebound

LATE = 8.0
"""Seconds beyond `shutdown_timeout` until a process is killed: it closes resources; a stuck forkserver may take 5."""

MAX_LISTENERS = 253
"""Descriptors that one message can carry (Linux: SCM_MAX_FD)."""


class ProcessFailed(ConfigurationError):
    """A server process cannot start: its own message, and the exit status for the whole command."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def start_log(settings: Settings) -> None:
    """Log as a single process does, with the process id in each line."""
    configure_logging(settings, shows_process=True)


def send_sockets(
    link: socket.socket,
    listeners: Sequence[socket.socket],
    metrics: Sequence[socket.socket],
    grpc: Sequence[socket.socket],
) -> None:
    """Send all sockets of the service to a server process: the other end of `SupervisorLink.listeners`."""
    counts = bytes([len(metrics), len(grpc)])
    with suppress(OSError):  # it has died
        socket.send_fds(link, [counts], [each.fileno() for each in (*listeners, *metrics, *grpc)])


class SupervisorLink:
    """The socket of a server process to its supervisor."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.metrics_listeners: list[socket.socket] = []
        self.grpc_sockets: list[socket.socket] = []
        self._sending = threading.Lock()
        detach_in_child(self, lambda link: [link.socket.fileno()])

    def listeners(self, settings: Settings, routes: str) -> list[socket.socket]:
        """Report the settings and the routes, and receive the listening sockets. The log starts, too."""
        start_log(settings)
        exit_with_parent(self.socket, False)
        values = {name: value for name, value in vars(settings).items() if name != "pools"}
        self.report(settings=values, routes=routes)
        counts, descriptors, _, _ = socket.recv_fds(self.socket, 2, MAX_LISTENERS)
        if not descriptors:  # the supervisor has ended
            raise SystemExit
        with ExitStack() as received:
            shared = [received.enter_context(socket.socket(fileno=descriptor)) for descriptor in descriptors]
            listeners = [rebound(listener) for listener in shared]
        first_of_grpc = len(listeners) - counts[1]
        first_of_metrics = first_of_grpc - counts[0]
        self.metrics_listeners, self.grpc_sockets = listeners[first_of_metrics:first_of_grpc], listeners[first_of_grpc:]
        return listeners[:first_of_metrics]

    def ready(self) -> None:
        self.report(ready=True)

    def failed(self, message: str, exit_status: int) -> NoReturn:
        """End the process; the supervisor prints the message, once."""
        self.report(failed=(message, exit_status))
        raise SystemExit(exit_status)

    def report(self, **line: object) -> None:
        self.send_line(json.dumps(line).encode())

    def send_line(self, line: bytes) -> None:
        """Send a line, from any thread."""
        with self._sending, suppress(OSError):  # the supervisor has ended: the next read, or the loop, notices
            self.socket.sendall(line + b"\n")


def settings_of_one_process(settings: Settings) -> Settings:
    """The settings of one of `settings.workers` processes: its part of the CPU workers, rounded up."""

    def part(workers: int) -> int:
        return -(-workers // settings.workers)

    pools = {
        name: dataclasses.replace(pool, workers=part(pool.workers)) if isinstance(pool, Pool) and pool.workers else pool
        for name, pool in settings.pools.items()
    }
    return dataclasses.replace(settings, workers=1, cpu_workers=part(settings.cpu_workers), pools=pools)


def end_in_words(exit_code: int) -> str:
    """How a process ended, as in "was ended by SIGKILL"."""
    if exit_code >= 0:
        return f"ended with status {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was ended by signal {-exit_code}"
