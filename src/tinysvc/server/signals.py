"""Signals of a server process: drain, end at once, reload the certificates.

SIGTERM            wait for drain_delay, then drain
SIGINT             drain; the second signal of these two ends the process at once
SIGHUP             reload the certificates; if our terminal has closed, drain
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ..core.forks import detach_in_child, reset_signals
from ..core.shutdown import MIN_STEP_TIME, STUCK_MESSAGE, exit_guard
from ..core.systemd import notify, notify_alive, notify_reload
from .server import Server

log = logging.getLogger("tinysvc")


async def serve_until_signal(
    server: Server,
    ready: Callable[[], None],
    supervisor: socket.socket | None = None,
    alive: Callable[[], object] = notify_alive,
) -> None:
    """Serve until the first SIGTERM or SIGINT, then drain; a second one ends the process at once.

    The drain begins at once after SIGINT, from a terminal, and `drain_delay` after SIGTERM, from a service manager.

    The forkserver then kills the workers. Under a supervisor every signal only drains: the supervisor counts them, as a
    service manager may send one signal to both processes. Its end of the socket closes when it has died: drain.

    Args:
        server: The server.
        ready: Called once the server listens.
        supervisor: The socket to the supervisor, if there is one.
        alive: Called at intervals while the server is alive, if systemd watches the service.
    """
    task, stop, loop = asyncio.current_task(), asyncio.Event(), asyncio.get_running_loop()
    has_terminal_closed = terminal_watch()
    reload = server.reload_certificates
    if supervisor is None:
        reload = functools.partial(notify_reload, server.reload_certificates)
    waits_for_balancers = False

    def end() -> None:
        if not stop.is_set():
            stop.set()
            if supervisor is None:
                notify("STOPPING=1")
            if not server.url and task is not None:  # still starting
                task.cancel()

    def on_signal(number: int) -> None:
        nonlocal waits_for_balancers
        if stop.is_set() and supervisor is None:
            os._exit(128 + number)
        if not stop.is_set():
            waits_for_balancers = number == signal.SIGTERM
        end()

    def on_supervisor() -> None:
        assert supervisor is not None
        try:
            data = supervisor.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            server.receive_snapshots(data)
            return
        loop.remove_reader(supervisor)
        end()

    detach_in_child(stop, _reset_signals_in_child)
    reclaim_signals = _keep_signals(
        loop,
        {
            signal.SIGTERM: lambda: on_signal(signal.SIGTERM),
            signal.SIGINT: lambda: on_signal(signal.SIGINT),
            signal.SIGHUP: lambda: end() if has_terminal_closed() else reload(),
        },
    )
    if supervisor is not None:
        loop.add_reader(supervisor, on_supervisor)
    try:
        async with server.listening():
            reclaim_signals()
            server.running.on_broken = end
            ready()
            if not server.running.is_broken:
                with server.heartbeats(alive):
                    await stop.wait()
                if waits_for_balancers:
                    await server.wait_for_balancers()
        exit_guard.limit_step(max(MIN_STEP_TIME, server.running.seconds_left()), STUCK_MESSAGE)  # uvloop waits for them
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


def _keep_signals(loop: asyncio.AbstractEventLoop, handlers: Mapping[int, Callable[[], object]]) -> Callable[[], None]:
    """Handle these signals, also if a resource, a handler or a library registers its own handler later.

    `loop.add_signal_handler` replaces a handler: a library that calls it for SIGTERM would make the server deaf to
    SIGTERM. So a handler that is added later runs after ours, and only that one can be removed.

    Returns:
        A function to call once the resources are open: it undoes `signal.signal(SIGTERM, SIG_IGN)` and SIG_DFL in
        them. (A Python function given to `signal.signal` replaces nothing.)
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
        if number not in handlers or loop.is_closed():  # a loop that closes removes all of them
            return remove(number)
        add(number, handlers[number])
        return True

    def reclaim() -> None:
        for number, handler in handlers.items():
            if signal.getsignal(number) in (signal.SIG_IGN, signal.SIG_DFL):
                name = signal.Signals(number).name
                log.warning(
                    "a resource set %s to SIG_IGN or SIG_DFL; the server handles it again, to be able to drain", name
                )
                add(number, handler)

    for number, handler in handlers.items():
        add(number, handler)
    loop.add_signal_handler = add_behind  # type: ignore[method-assign, assignment]
    loop.remove_signal_handler = remove_behind  # type: ignore[method-assign, assignment]
    return reclaim


def _reset_signals_in_child(_: object) -> tuple[int, ...]:
    """In a forked child: its signals do not concern the server."""
    signal.set_wakeup_fd(-1)
    reset_signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    return ()


def terminal_watch() -> Callable[[], bool]:
    """A function that returns whether our terminal has closed since now. Under nohup it always returns False."""
    watches = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return lambda: watches and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
