"""Several server processes behind one address, and the process that keeps them there.

    supervisor ──fork──> server process ──> forkserver ──fork──> worker
        └────── link ──────────┘

The *supervisor* binds the address, forks the processes and waits: for signals, for what they tell, for their ends. It
has no loop, no thread and no request, and of the author's code only what was loaded before it began, so that next to
nothing can go wrong in it. It forks while its signals are held back, until the new process has handlers of its own.

A *server process* loads the service, tells its settings over its *link*, a socketpair, is given the sockets, opens
resources and workers, listens, and tells that it is ready. It has a session of its own: a Ctrl-C at the terminal comes
to the supervisor alone. Each listens on the address with a socket and a queue of its own (SO_REUSEPORT), and the kernel
deals the connections out. A Unix socket, or one from systemd, they share.

Who outlives whom: a process that dies is replaced, and the others serve meanwhile; but the connections in its queue,
which it had not accepted yet, are reset with it. When the supervisor dies, however it does, the links close, and the
processes drain and end. The supervisor's own socket on the address never listens: it keeps the address while there is
no process, and who connects then is refused, not left waiting.
"""

from __future__ import annotations

import atexit
import dataclasses
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

from ..core import request_context
from ..core.errors import ConfigurationError
from ..core.exit_with_parent import exit_with_parent
from ..core.forks import detach_in_child
from ..core.settings import Pool, Settings
from ..core.shutdown import CLOCK_INTERVAL, Countdown
from ..core.systemd import notify, notify_reload
from .sockets import listener_url, listening_sockets, rebound

log = logging.getLogger("tinysvc")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a process is replaced that has died again; the first time it is replaced at once."""

TOLD_TO_END = (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Ends of a process that was told to end. If the whole service was told so, the supervisor's own signal comes within a
moment: until then the process is not replaced."""

MOMENT = 1.0
"""Seconds of it."""

HEALTHY = 10.0
"""Seconds of life after which a process's death is a first one again."""

LATE = 8.0
"""Seconds beyond `shutdown_timeout` for closing resources; a stuck forkserver may take 5 of them."""

MAX_LISTENERS = 253
"""Descriptors that one message can carry (Linux: SCM_MAX_FD)."""

OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""The signals that a supervisor handles."""


class ProcessFailed(ConfigurationError):
    """A server process could not start. It has said why, and with which status to end."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def supervise(
    serve: Callable[[Link], None],
    settings: Settings,
    announce: Callable[[str], None],
    terminal_closed: Callable[[], bool],
) -> None:
    """Keep `settings.workers` processes that run `serve` until a signal comes. ProcessFailed if one cannot start.

    The other settings are those of the first process that has told them: its service may have some of its own.
    """
    with _signals() as signals, Supervisor(serve, settings, announce, terminal_closed, signals) as supervisor:
        supervisor.run()


@contextmanager
def _signals() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that OURS can be read from, a byte each; and the one they are written to."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in OURS}
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader, writer
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


def start_log(settings: Settings) -> None:
    """As a single process logs, and which one it is."""
    request_context.configure_logging(settings.log_level, "%(levelname)s %(name)s[%(process)d]: %(message)s")


class Place:
    """One of the processes; while there is none, `pid` is 0."""

    def __init__(self) -> None:
        self.pid = 0
        self.deaths = 0  # with no healthy life between them
        self.due = 0.0  # it is not replaced before
        self.begin()

    def begin(self) -> None:
        """A process is to be forked: nothing is known of it yet."""
        self.since = time.monotonic()
        self.heard = b""  # the beginning of a line
        self.ready = False
        self.failure: ProcessFailed | None = None

    def taken(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self.link = link

    def pause(self) -> float:
        """Seconds until it is replaced, now that it has died."""
        if time.monotonic() - self.since >= HEALTHY:
            self.deaths = 0
        self.deaths += 1
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.deaths - 2, 20)) if self.deaths > 1 else 0.0


class Supervisor:
    """The loop of the supervisor. Leaving it as a context kills what is left."""

    def __init__(
        self,
        serve: Callable[[Link], None],
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
        self.places = [Place() for _ in range(settings.workers)]
        self.listeners: list[socket.socket] = []
        self.routes = ""  # of the service, once a process has told them
        self.announced = False
        self.ending = False
        self.failure: ProcessFailed | None = None
        self._budget = Countdown(math.inf)  # until those that do not end are killed
        self._sockets = ExitStack()
        self._selector = selectors.PollSelector()  # one that has no descriptor, which those we fork would share
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
        start_log(self.settings)
        _warn_of_threads()
        if os.environ.get("LISTEN_PID") == str(os.getpid()):  # systemd's: take them before a process inherits them
            self._bind()
        while not self.ending or self._alive():
            self._start_missing()
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._reap()
        if self.failure:
            raise self.failure

    def _alive(self) -> list[int]:
        return [place.pid for place in self.places if place.pid]

    def _patience(self) -> float | None:
        """Seconds until something is to be done that nobody will tell us of."""
        if self.ending:
            return min(CLOCK_INTERVAL, self._budget.left())
        due = [place.due for place in self.places if not place.pid]
        earliest = min(due, default=math.inf)
        return None if earliest == math.inf else max(0.0, earliest - time.monotonic())

    def _start_missing(self) -> None:
        now = time.monotonic()
        if not self._budget.left():
            log.error("killed, as they did not end in time: %s", ", ".join(map(str, self._alive())))
            self._kill()
        for place in self.places:
            if not self.ending and not place.pid and now >= place.due:
                self._fork(place)

    # How it ends

    def _pass_on(self, number: int) -> None:
        for pid in self._alive():
            os.kill(pid, number)  # it is nobody else's pid until we have reaped it

    def _kill(self) -> None:
        self._budget = Countdown(math.inf)
        self._pass_on(signal.SIGKILL)

    def _end(self) -> None:
        """Let all drain and end. Of a shared socket our end is closed too: who connects must not be left waiting."""
        if not self.ending:
            self.ending = True
            notify("STOPPING=1")
            self._budget = Countdown(self.settings.shutdown_timeout + LATE)
            self._sockets.close()
            self._pass_on(signal.SIGTERM)

    def _fail(self, failure: ProcessFailed) -> None:
        """The first failure at the start ends all the others, and is what is said."""
        self.failure = self.failure or failure
        self._end()

    # What comes

    def _on_signals(self) -> None:
        for number in self.signals[0].recv(4096):
            if number == signal.SIGHUP and not self.terminal_closed():
                notify_reload(partial(self._pass_on, number))
            elif number in (signal.SIGTERM, signal.SIGINT) and self.ending:
                raise SystemExit(128 + number)
            elif number != signal.SIGCHLD:
                self._end()

    def _hear(self, place: Place) -> bool:
        """Take what the process tells. False when there is no more for now."""
        try:
            data = place.link.recv(65536)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._forget(place)
            return False
        *lines, place.heard = (place.heard + data).split(b"\n")
        for line in lines:
            self._on_told(place, json.loads(line))
        return True

    def _on_told(self, place: Place, told: dict[str, Any]) -> None:
        if "failed" in told:
            place.failure = ProcessFailed(*told["failed"])
            if not self.announced:
                self._fail(place.failure)
        elif "settings" in told:
            self._give_listeners(place, Settings(**told["settings"]), told["routes"])
        else:
            place.ready = True
            self._announce()

    def _give_listeners(self, place: Place, settings: Settings, routes: str) -> None:
        if self.ending:
            return
        if not self.routes:
            self.settings, self.routes = settings, routes
        if not self.listeners:
            self._bind()
        with suppress(OSError):  # it has died
            socket.send_fds(place.link, [b" "], [listener.fileno() for listener in self.listeners])

    def _bind(self) -> None:
        self.listeners = self._sockets.enter_context(listening_sockets(self.settings, os.environ, reuse_port=True))

    def _announce(self) -> None:
        """Once, when all are there."""
        if self.announced or self.ending or not all(place.pid and place.ready for place in self.places):
            return
        self.announced = True
        scheme = "https" if self.settings.ssl_cert else "http"
        urls = " and ".join(listener_url(listener, scheme) for listener in self.listeners)
        self.announce(f"{self.routes}\nlistening on {urls} with {len(self.places)} processes")

    # Deaths and births

    def _reap(self) -> None:
        """Processes that have ended, and orphans where this is the first process of a container."""
        with suppress(ChildProcessError):
            while any(ended := os.waitpid(-1, os.WNOHANG)):
                for place in self.places:
                    if place.pid == ended[0]:
                        self._on_end(place, os.waitstatus_to_exitcode(ended[1]))

    def _on_end(self, place: Place, exit_code: int) -> None:
        pid, place.pid = place.pid, 0  # its last words may be what ends the others: it is past being told
        while place.link.fileno() >= 0 and self._hear(place):
            pass
        self._forget(place)
        if place.failure and self.announced:
            self._lost(place, f"server process {pid} cannot start: {place.failure}")
        else:
            self._lost(place, f"server process {pid} {end_in_words(exit_code)}", exit_code)

    def _lost(self, place: Place, why: str, exit_code: int | None = None) -> None:
        """There is no process in this place."""
        if self.ending:
            if not self.failure and exit_code not in (0, -signal.SIGTERM, -signal.SIGKILL):
                log.warning("%s while it drained", why)
        elif not self.announced and exit_code in TOLD_TO_END[1:]:
            self._end()
        elif not self.announced:
            self._fail(ProcessFailed(f"cannot start: {why}", 3))
        else:
            pause = max(place.pause(), MOMENT if exit_code in TOLD_TO_END else 0.0)
            place.due = time.monotonic() + pause
            log.error("%s; another one starts %s", why, f"in {pause:.1f} s" if pause else "in its place")

    def _forget(self, place: Place) -> None:
        if place.link.fileno() >= 0:
            self._selector.unregister(place.link)
            place.link.close()

    def _fork(self, place: Place) -> None:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)  # else what is in it is written twice
        place.begin()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
        try:
            link, theirs = socket.socketpair()
            with theirs:
                pid = _fork_in_spite_of_threads()
                if not pid:
                    self._become_server_process(Link(theirs), link, held)
        except OSError as error:
            self._lost(place, f"a server process cannot be forked ({error.strerror})")
        else:
            link.setblocking(False)
            self._selector.register(link, selectors.EVENT_READ, lambda: self._hear(place))
            place.taken(pid, link)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _become_server_process(self, link: Link, other_end: socket.socket, held: set[Any]) -> NoReturn:
        status: object = 1
        try:
            os.setsid()
            atexit._clear()  # they are the supervisor's
            signal.set_wakeup_fd(-1)
            for number in OURS:
                signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
            for sock in (other_end, *self.signals, *self._links(), *self.listeners):
                sock.close()
            logging.root.handlers[:], level = self._log_before
            logging.root.setLevel(level)
            if numpy_random := sys.modules.get("numpy.random"):  # Python reseeds `random` after a fork; numpy does not
                numpy_random.seed()
            exit_with_parent(link.socket, True)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            self.serve(link)
            status = 0
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            _leave(status if isinstance(status, int) else 1)

    def _links(self) -> Iterator[socket.socket]:
        return (place.link for place in self.places if place.pid)


def _warn_of_threads() -> None:
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.current_thread())
        log.warning(
            "threads run already (%s): they do not go on in the server processes, where what they have locked stays "
            "locked. Start them in an io_resource, or serve with: python -m tinysvc FILE --workers N",
            names,
        )


def _fork_in_spite_of_threads() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads; we have, in words
        return os.fork()


def end_in_words(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with status {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was ended by signal {-exit_code}"


def _flush(stream: Any) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody reads it, it is closed, it is None
        stream.flush()


def _leave(status: int) -> NoReturn:
    """End a forked process as an interpreter ends, but past the frames of who called us."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        os._exit(status)


# In a server process


class Link:
    """What a server process says to its supervisor, and what it is given."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        detach_in_child(self, lambda link: [link.socket.fileno()])

    def listeners(self, settings: Settings, routes: str) -> list[socket.socket]:
        """Tell what is served, and get the sockets for it. From here on the process logs as its settings say."""
        start_log(settings)
        exit_with_parent(self.socket, False)
        told = {name: value for name, value in vars(settings).items() if name != "pools"}
        self.tell(settings=told, routes=routes)
        _, descriptors, _, _ = socket.recv_fds(self.socket, 1, MAX_LISTENERS)
        if not descriptors:  # the supervisor has gone
            raise SystemExit
        with ExitStack() as received:
            shared = [received.enter_context(socket.socket(fileno=descriptor)) for descriptor in descriptors]
            return [rebound(listener) for listener in shared]

    def ready(self) -> None:
        self.tell(ready=True)

    def failed(self, message: str, exit_status: int) -> NoReturn:
        """End the process; what it says is said by the supervisor, once."""
        self.tell(failed=(message, exit_status))
        raise SystemExit(exit_status)

    def tell(self, **line: object) -> None:
        with suppress(OSError):  # the supervisor has gone: the next read, or the loop, says so
            self.socket.sendall(json.dumps(line).encode() + b"\n")


def share(settings: Settings) -> Settings:
    """What is for one of the processes: its part of the CPU workers, rounded up."""

    def part(workers: int) -> int:
        return -(-workers // settings.workers)

    pools = {
        name: dataclasses.replace(pool, workers=part(pool.workers)) if isinstance(pool, Pool) and pool.workers else pool
        for name, pool in settings.pools.items()
    }
    return dataclasses.replace(settings, workers=1, cpu_workers=part(settings.cpu_workers), pools=pools)
