"""Several server processes behind one address, and the supervisor that starts and replaces them.

    supervisor ──fork──> server process ──> forkserver ──fork──> worker
        └────── link ──────────┘

The *supervisor* binds the address, forks the server processes, and waits for signals, for their reports and for their
ends. It has no event loop, no thread and no request, and it runs none of the author's code beyond what was loaded
before: very little can fail in it. It blocks signals during a fork, until the new process has its own handlers.

A *server process* loads the service, reports its settings over its *link*, a socketpair, receives the listening
sockets, opens resources and workers, listens, and reports that it is ready. It runs in its own session: a Ctrl-C at the
terminal reaches only the supervisor. Each process listens on the address with its own socket and queue (SO_REUSEPORT),
and the kernel distributes the connections. A Unix socket, or a socket from systemd, is shared.

A server process that dies is replaced while the others serve; connections in its queue that it has not accepted are
reset. When the supervisor dies, for any reason, the links close, and the server processes drain and end. The
supervisor's own socket on the address never listens: it reserves the address while there is no server process, and
connections are then refused instead of waiting.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NoReturn

from ..core.exit_with_parent import exit_with_parent
from ..core.process_family import family
from ..core.settings import Settings
from ..core.shutdown import CLOCK_INTERVAL, Countdown
from ..core.systemd import notify, notify_alive, notify_reload, watchdog_time
from .heartbeat import Pulse
from .process_snapshots import ProcessSnapshots
from .server_process import LATE, ProcessFailed, SupervisorLink, end_in_words, send_sockets, start_log
from .sockets import (
    grpc_line,
    grpc_sockets,
    listener_url,
    listening_sockets,
    metrics_line,
    metrics_sockets,
    socket_addresses,
)
from .supervised_process import ServerProcess

log = logging.getLogger("tinysvc")

ORDERLY_ENDS = (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Exit codes of a process that was asked to end. If all processes of the service were asked, the supervisor soon gets
its own signal: it waits for that before it replaces the process."""

SIGNAL_DELAY = 1.0
"""Seconds that it waits for that signal."""

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""The signals that a supervisor handles."""


def supervise(
    serve: Callable[[SupervisorLink], None],
    settings: Settings,
    announce: Callable[[str], None],
    terminal_closed: Callable[[], bool],
) -> None:
    """Keep `settings.workers` processes running `serve` until a signal arrives.

    The other settings come from the first process that reports them, as its service may have settings of its own.

    Raises:
        ProcessFailed: A server process cannot start.
    """
    with _signals() as signals, Supervisor(serve, settings, announce, terminal_closed, signals) as supervisor:
        supervisor.run()


@contextmanager
def _signals() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket from which the HANDLED signals are read, one byte each, and the socket that they are written to."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in HANDLED}
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader, writer
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


class Supervisor:
    """The loop of the supervisor. Its context kills the processes that are left."""

    def __init__(
        self,
        serve: Callable[[SupervisorLink], None],
        settings: Settings,
        announce: Callable[[str], None],
        terminal_closed: Callable[[], bool],
        signals: tuple[socket.socket, socket.socket],
    ) -> None:
        self.serve = serve
        self.settings = settings
        self.announce = announce
        self.terminal_closed = terminal_closed
        self.signals = signals
        self.processes = [ServerProcess() for _ in range(settings.workers)]
        self.listeners: list[socket.socket] = []
        self.metrics_listeners: list[socket.socket] = []
        self.grpc_sockets: list[socket.socket] = []
        self.snapshots = ProcessSnapshots(self._send)
        self.routes = ""  # of the service, once a process has reported them
        self.announced = False
        self.ending = False
        self.failure: ProcessFailed | None = None
        self._countdown = Countdown(math.inf)  # until processes that do not end are killed
        self._closes_sockets_at = math.inf
        self._pulse = Pulse(watchdog_time() / 2)
        self._sockets = ExitStack()
        self._selector = selectors.PollSelector()  # it has no descriptor, which forked processes would share
        self._selector.register(signals[0], selectors.EVENT_READ, self._on_signals)
        self._log_before = logging.root.handlers[:], logging.root.level

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exc: object) -> None:
        self._kill()
        for pid in self._alive():
            os.waitpid(pid, 0)
        self._sockets.close()

    def run(self) -> None:
        family()  # it is decided here, for all processes
        start_log(self.settings)
        _warn_of_threads()
        if os.environ.get("LISTEN_PID") == str(
            os.getpid()
        ):  # systemd's sockets: take them before a process inherits them
            self._bind()
        while not self.ending or self._alive():
            self._start_missing()
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._reap()
            self._close_sockets()
            self.snapshots.tick()
        if self.failure:
            raise self.failure

    def _alive(self) -> list[int]:
        return [process.pid for process in self.processes if process.pid]

    def _patience(self) -> float | None:
        """Seconds until the supervisor must act without an event; None: there is nothing to do."""
        if self.ending:
            return min(CLOCK_INTERVAL, self._countdown.left())
        due = [process.due for process in self.processes if not process.pid]
        earliest = min(min(due, default=math.inf) - time.monotonic(), self.snapshots.seconds_left())
        return None if earliest == math.inf else max(0.0, earliest)

    def _start_missing(self) -> None:
        now = time.monotonic()
        if not self._countdown.left():
            log.error("killed, because they did not end in time: %s", ", ".join(map(str, self._alive())))
            self._kill()
        for process in self.processes:
            if not self.ending and not process.pid and now >= process.due:
                self._fork(process)

    # The end

    def _pass_on(self, number: int) -> None:
        for pid in self._alive():
            os.kill(pid, number)  # the kernel does not reuse the pid before we reap it

    def _kill(self) -> None:
        self._countdown = Countdown(math.inf)
        self._pass_on(signal.SIGKILL)

    def _end(self, number: int = signal.SIGINT) -> None:
        """Let all processes drain and end, at SIGTERM after `drain_delay`.

        Shared sockets close here, too: connections must not wait in their queue. They close a little before those of
        the processes, which accept the last connections of the queue.
        """
        if not self.ending:
            self.ending = True
            notify("STOPPING=1")
            delay = self.settings.drain_delay if number == signal.SIGTERM else 0.0
            self._countdown = Countdown(delay + self.settings.shutdown_timeout + LATE)
            self._closes_sockets_at = time.monotonic() + max(0.0, delay - 2 * CLOCK_INTERVAL)
            self._close_sockets()
            self._pass_on(signal.SIGTERM if number == signal.SIGTERM else signal.SIGINT)

    def _close_sockets(self) -> None:
        if time.monotonic() >= self._closes_sockets_at:
            self._closes_sockets_at = math.inf
            self._sockets.close()

    def _fail(self, failure: ProcessFailed) -> None:
        """A process cannot start: end the others, and report the first failure."""
        self.failure = self.failure or failure
        self._end()

    # Signals and reports

    def _on_signals(self) -> None:
        for number in self.signals[0].recv(4096):
            if number == signal.SIGHUP and not self.terminal_closed():
                notify_reload(partial(self._pass_on, number))
            elif number in (signal.SIGTERM, signal.SIGINT) and self.ending:
                raise SystemExit(128 + number)
            elif number != signal.SIGCHLD:
                self._end(number)

    def _receive(self, process: ServerProcess) -> bool:
        """Read reports of the process. False if there are no more at the moment."""
        try:
            data = process.link.recv(65536)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._forget(process)
            return False
        *lines, process.received = (process.received + data).split(b"\n")
        for line in lines:
            if not self.snapshots.receive(process.reporter, line):
                self._on_report(process, json.loads(line))
        return True

    def _on_link(self, process: ServerProcess) -> None:
        if process.outgoing:
            self._write(process)
        self._receive(process)

    def _send(self, pid: int, line: bytes) -> None:
        """Send a line to a process, without waiting for it."""
        for process in self.processes:
            if process.pid == pid:
                process.outgoing += line + b"\n"
                self._write(process)

    def _write(self, process: ServerProcess) -> None:
        try:
            process.outgoing = process.outgoing[process.link.send(process.outgoing) :]
        except BlockingIOError:
            pass  # its buffer is full
        except OSError:  # it has died
            process.outgoing = b""
        if process.link.fileno() >= 0:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if process.outgoing else 0)
            self._selector.modify(process.link, events, partial(self._on_link, process))

    def _on_report(self, process: ServerProcess, report: dict[str, Any]) -> None:
        if "failed" in report:
            process.failure = ProcessFailed(*report["failed"])
            if not self.announced:
                self._fail(process.failure)
        elif "alive" in report:
            self._pulse.beat(process.pid)
            if self._pulse.is_regular([each.pid for each in self.processes if each.pid and each.ready]):
                notify_alive()
        elif "settings" in report:
            self._give_listeners(process, Settings(**report["settings"]), report["routes"])
        else:
            process.ready = True
            self._announce()

    def _give_listeners(self, process: ServerProcess, settings: Settings, routes: str) -> None:
        if self.ending:
            return
        if not self.routes:
            self.settings, self.routes = settings, routes
        if not self.listeners:
            self._bind()
        send_sockets(process.link, self.listeners, self.metrics_listeners, self.grpc_sockets)

    def _bind(self) -> None:
        self.listeners = self._sockets.enter_context(listening_sockets(self.settings, os.environ, reuse_port=True))
        self.metrics_listeners = self._sockets.enter_context(metrics_sockets(self.settings, reuse_port=True))
        self.grpc_sockets = self._sockets.enter_context(grpc_sockets(self.settings, self.listeners))

    def _announce(self) -> None:
        """Print the routes and the addresses, once all processes are ready."""
        if self.announced or self.ending or not all(process.pid and process.ready for process in self.processes):
            return
        self.announced = True
        scheme = "https" if self.settings.ssl_cert else "http"
        urls = " and ".join(listener_url(listener, scheme) for listener in self.listeners)
        others = metrics_line(self.metrics_listeners) + grpc_line(socket_addresses(self.grpc_sockets))
        self.announce(f"{self.routes}\n{others}listening on {urls} with {len(self.processes)} processes")

    # Ends and starts

    def _reap(self) -> None:
        """Reap ended processes, also orphans where this is the first process of a container."""
        with suppress(ChildProcessError):
            while any(ended := os.waitpid(-1, os.WNOHANG)):
                for process in self.processes:
                    if process.pid == ended[0]:
                        self._on_end(process, os.waitstatus_to_exitcode(ended[1]))

    def _on_end(self, process: ServerProcess, exit_code: int) -> None:
        pid, process.pid = process.pid, 0  # its last report may end the others, but not this process
        while process.link.fileno() >= 0 and self._receive(process):
            pass
        self._forget(process)
        self.snapshots.ended(pid)
        if process.failure and self.announced:
            self._on_missing(process, f"server process {pid} cannot start: {process.failure}")
        else:
            self._on_missing(process, f"server process {pid} {end_in_words(exit_code)}", exit_code)

    def _on_missing(self, process: ServerProcess, why: str, exit_code: int | None = None) -> None:
        """A process has ended or could not be forked: plan its next start, or end."""
        if self.ending:
            if not self.failure and exit_code not in (*ORDERLY_ENDS, -signal.SIGKILL):
                log.warning("%s while it was draining", why)
        elif not self.announced and exit_code in ORDERLY_ENDS[1:]:
            self._end()
        elif not self.announced:
            self._fail(ProcessFailed(f"cannot start: {why}", 3))
        else:
            pause = max(process.pause(), SIGNAL_DELAY if exit_code in ORDERLY_ENDS else 0.0)
            process.due = time.monotonic() + pause
            log.error("%s; it is restarted %s", why, f"in {pause:.1f} s" if pause else "at once")

    def _forget(self, process: ServerProcess) -> None:
        if process.link.fileno() >= 0:
            self._selector.unregister(process.link)
            process.link.close()

    def _fork(self, process: ServerProcess) -> None:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)  # otherwise both processes write its buffer
        process.begin()
        blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            link, theirs = socket.socketpair()
            with theirs:
                pid = _fork_in_spite_of_threads()
                if not pid:
                    self._become_server_process(SupervisorLink(theirs), link, blocked_before)
        except OSError as error:
            self._on_missing(process, f"a server process cannot be forked ({error.strerror})")
        else:
            link.setblocking(False)
            self._selector.register(link, selectors.EVENT_READ, partial(self._on_link, process))
            process.started(pid, link)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)

    def _become_server_process(
        self, link: SupervisorLink, other_end: socket.socket, blocked_before: set[Any]
    ) -> NoReturn:
        status: object = 1
        try:
            os.setsid()
            atexit._clear()  # exit functions of the supervisor
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
            owned = (*self.listeners, *self.metrics_listeners, *self.grpc_sockets)
            for sock in (other_end, *self.signals, *self._links(), *owned):
                sock.close()
            logging.root.handlers[:], level = self._log_before
            logging.root.setLevel(level)
            if numpy_random := sys.modules.get("numpy.random"):  # Python reseeds `random` after a fork; numpy does not
                numpy_random.seed()
            exit_with_parent(link.socket, True)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)
            self.serve(link)
            status = 0
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            _leave(status if isinstance(status, int) else 1)

    def _links(self) -> Iterator[socket.socket]:
        return (process.link for process in self.processes if process.pid)


def _warn_of_threads() -> None:
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.current_thread())
        log.warning(
            "threads already run (%s): they do not exist in the server processes, where their locks stay locked. "
            "Start them in an io_resource, or serve with: python -m tinysvc FILE --workers N",
            names,
        )


def _fork_in_spite_of_threads() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads; `_warn_of_threads` has
        return os.fork()


def _flush(stream: Any) -> None:
    with suppress(OSError, ValueError, AttributeError):  # its reader has closed it, it is closed, or None
        stream.flush()


def _leave(status: int) -> NoReturn:
    """End a forked process as the interpreter ends, but without returning through the frames of the caller."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        logging.shutdown()  # the exit function that does this was the supervisor's
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        os._exit(status)
