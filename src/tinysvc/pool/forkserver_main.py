"""The forkserver's own main: load the program once, then fork workers, kill them, and report how they ended.

The forkserver is a fresh interpreter that has loaded the author's modules. It is the parent of all workers: it kills
only processes that it has not yet reaped, so a pid is never one that the system has given to another process. With a
worker it kills all processes that the worker's jobs have started (descendants.py).

Lifetimes: the forkserver ends when its control socket closes, and kills all workers first. The kernel kills a worker
(PR_SET_PDEATHSIG) when the forkserver dies. So `kill -9` of the server leaves no process behind, whatever a worker is
computing.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import resource
import select
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NoReturn

from ..core.exit_with_parent import exit_with_parent
from ..core.os_errors import describe_os_error
from ..core.stack_dumps import DUMP_SIGNAL, close_own_file, enable_stack_dumps
from ..core.stdlib_shadowing import FORKSERVER_VARIABLE
from ..core.tracebacks import author_traceback
from . import inherited, leftovers
from .arena import Arena
from .crash_reports import STACK_SIGNAL, enable_crash_reports
from .descendants import (
    KILL_ATTEMPTS,
    KILL_INTERVAL,
    adopt_orphans,
    kill_descendants,
    kill_group,
    mark_worker,
    other_children,
    reap_orphans,
)
from .frames import (
    COMMAND,
    FORK,
    FORK_DESCRIPTORS,
    KILL_WITH_STACK,
    WRITE_STACKS,
    Ready,
    StartFailed,
    WorkerEnd,
    WorkerStart,
    frame,
    message_types,
)
from .inherited import ThreadWatch, find_generators
from .memory import OomCounter, peak_bytes
from .program import Program, WorkerOptions
from .remote_errors import sendable_text
from .server_signals import leave_signals_to_server
from .standard_streams import open_standard_streams, write_whole_lines
from .worker import close_resources, work
from .worker_channel import WorkerChannel
from .worker_logs import forward_logs

STACK_TIME = 0.05
"""Seconds between the signal that makes a worker write its Python stack (which takes about 1 ms) and SIGKILL."""


def forkserver_main(control_fd: int, program_file: Any) -> NoReturn:
    """Load the program, then serve commands until the server closes the control socket.

    Args:
        control_fd: Descriptor of the control socket.
        program_file: Open file with the pickles that forkserver.py has written; the first one is already read.
    """
    os.environ.pop(FORKSERVER_VARIABLE, None)
    open_standard_streams()
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    leave_signals_to_server()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_with_parent(control, True)
    faulthandler.enable(all_threads=False)  # for a crash in the author's imports
    enable_stack_dumps()  # for an import that never ends
    leftovers.watch_calls()
    shared = ExitStack()
    watch = inherited.watch = ThreadWatch()
    try:
        from multiprocessing import process, spawn

        # As in multiprocessing: while this is set, starting a process is refused. Otherwise a module that starts a pool
        # at import would start another forkserver, which imports the module, which starts a pool, ...
        process.current_process()._inheriting = True  # type: ignore[attr-defined]
        with watch.imports():
            options: WorkerOptions = pickle.load(program_file)
            attach = options.share() if options.share is not None else os.close  # before the author's modules load
            spawn.prepare(pickle.load(program_file))
            for descriptor in options.inherited:
                os.set_inheritable(descriptor, False)  # a forked child of a job holds it, but no program that it starts
            program: Program = pickle.load(program_file)
        del process.current_process()._inheriting  # type: ignore[attr-defined]
        if hasattr(program, "preload"):
            shared.enter_context(program.preload())
        generators = find_generators(program)
        warning = "\n".join(filter(None, (watch.warning(), generators.warning())))
        inherited.watch = None
    except BaseException as error:
        control.sendall(frame(StartFailed(sendable_text(author_traceback(error)))))
        _exit(3)
    finally:
        program_file.close()
    exit_with_parent(control, False)
    control.sendall(frame(Ready(warning)))
    gc.collect()
    gc.freeze()  # all workers share what is loaded now: keep the collector from writing to it
    ForkserverLoop(control, program, options, generators.reseed, attach).serve()
    close_resources(shared.close)
    kill_descendants()
    _exit(0)  # does not wait for threads that a module of the author's has started


class ForkserverLoop:
    """The loop of the forkserver: it receives commands, and reports the ends of workers."""

    def __init__(
        self,
        control: socket.socket,
        program: Program,
        options: WorkerOptions,
        reseed: Callable[[], object] = lambda: None,
        attach: Callable[[int], object] = os.close,
    ) -> None:
        self.control = control
        self.program = program
        self.options = options
        self.reseed = reseed
        self.attach = attach  # called in a worker, with the descriptor of its SharedMemory
        self.oom_counter = OomCounter()
        self.pid = os.getpid()
        self.pids: dict[int, int] = {}  # worker's number -> pid, until the worker is reaped
        self.kill_times: dict[int, float] = {}  # number -> time of SIGKILL, for workers that write their stack first
        self.killed: set[int] = set()  # numbers of workers that were alive when the command to kill them came
        self.wakeup, self._wakeup_writer = socket.socketpair()
        self._die_with_parent = _parent_watch()
        for end in (self.wakeup, self._wakeup_writer):
            end.setblocking(False)
        self._poll = select.poll()  # select() fails for descriptors above 1023, and the server may have many open
        for end in (self.control, self.wakeup):
            self._poll.register(end, select.POLLIN)

    def serve(self) -> None:
        """Obey commands until the server closes the control socket, then kill all workers."""
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        try:
            while self.take_command_or_wait():
                self._reap()
        finally:
            signal.set_wakeup_fd(-1)
            self._kill_all()

    def _kill_all(self) -> None:
        for pid in self.pids.values():
            kill_group(pid)
        for _ in range(KILL_ATTEMPTS):
            self._reap()
            if not self.pids and not reap_orphans(self.options.mark, {}):
                return
            time.sleep(KILL_INTERVAL)

    def take_command_or_wait(self) -> bool:
        """Wait for a command or the end of a child, and obey the command. False when the server has closed the
        control socket.
        """
        readable = {descriptor for descriptor, _ in self._poll.poll(self._kill_due())}
        if self.wakeup.fileno() in readable:
            self.wakeup.recv(4096)
            reap_orphans(self.options.mark, self.pids)
        if self.control.fileno() not in readable:
            return True
        try:
            command, descriptors, _, _ = socket.recv_fds(self.control, COMMAND.size, FORK_DESCRIPTORS)
        except ConnectionResetError:  # the server has died before it read all our frames
            return False
        if len(command) < COMMAND.size:
            return False
        operation, number = COMMAND.unpack(command)
        if operation == FORK:
            self._fork(number, descriptors)
        elif number in self.pids and not _has_ended(self.pids[number]):
            if operation == WRITE_STACKS:
                os.kill(self.pids[number], DUMP_SIGNAL)
                return True
            self.killed.add(number)
            if operation == KILL_WITH_STACK:
                os.kill(self.pids[number], STACK_SIGNAL)
                self.kill_times[number] = time.monotonic() + STACK_TIME
            else:
                kill_group(self.pids[number])
        return True

    def _kill_due(self) -> float | None:
        """SIGKILL the workers that had their time to write their stack. Milliseconds until the next one is due."""
        now = time.monotonic()
        for number, when in list(self.kill_times.items()):
            if number not in self.pids:
                del self.kill_times[number]
            elif when <= now:
                del self.kill_times[number]
                kill_group(self.pids[number])
        return (min(self.kill_times.values()) - now) * 1000 + 1 if self.kill_times else None

    def _fork(self, number: int, descriptors: list[int]) -> None:
        try:
            with (
                warnings.catch_warnings()
            ):  # 3.12 warns of threads that a library started; none of them holds our locks
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError as error:
            pid = -1
            self._report(WorkerEnd(number, None, f"cannot start: {describe_os_error('fork', error)}"))
        if pid:
            for descriptor in descriptors:
                os.close(descriptor)
            if pid > 0:
                self.pids[number] = pid
                self._report(WorkerStart(number, pid))
            return
        status = 1
        try:
            self._become_worker(number)
            sock, result_arena, crash_file, *shared = descriptors
            if shared:
                self.attach(*shared)
            job_meta = message_types(self.program).job
            channel = WorkerChannel(socket.socket(fileno=sock), Arena(result_arena), self.options, job_meta)
            enable_crash_reports(crash_file)
            close_own_file()
            leftovers.discard_late_timers()
            write_whole_lines()
            forward_logs(channel.send_log, self.options.log_level)
            status = work(channel, self.program)
        finally:
            _exit(status)

    def _become_worker(self, number: int) -> None:
        os.setsid()
        mark_worker(self.options.mark, number)
        self._die_with_parent(self.pid)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (self.control, self.wakeup, self._wakeup_writer):
            end.close()
        if self.options.memory_limit:
            resource.setrlimit(resource.RLIMIT_AS, (self.options.memory_limit,) * 2)
        self.reseed()

    def _reap(self) -> None:
        for number, pid in list(self.pids.items()):
            has_ended = _has_ended(pid)
            if has_ended is False:
                continue
            if has_ended:  # not yet reaped, so the pid is still this worker's
                kill_group(pid, other_children(self.pids.values()))
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if not ended:
                continue
            del self.pids[number]
            exit_code = os.waitstatus_to_exitcode(status)
            reap_orphans(self.options.mark, self.pids)
            killed = number in self.killed and exit_code in (-signal.SIGKILL, -STACK_SIGNAL)
            if killed:
                exit_code = -signal.SIGKILL
            self.killed.discard(number)
            self._report(WorkerEnd(number, exit_code, "", peak_bytes(usage), self.oom_counter.has_increased(), killed))

    def _report(self, event: WorkerStart | WorkerEnd) -> None:
        try:
            self.control.sendall(frame(event))
        except OSError:
            pass  # the server has died, and the next read returns the end of the socket


def _has_ended(pid: int) -> bool | None:
    """Whether a child has ended and waits to be reaped; None if unknown: on macOS before Python 3.13."""
    if not hasattr(os, "waitid"):
        return None
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _parent_watch() -> Callable[[int], None]:
    """A function that a new worker calls, with the forkserver's pid: the worker then dies with the forkserver."""
    if sys.platform == "linux":
        import ctypes

        prctl, pdeathsig = ctypes.CDLL(None).prctl, 1

        def ask_the_kernel(parent: int) -> None:
            prctl(pdeathsig, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)  # it died before the call

        return ask_the_kernel

    def watch(parent: int) -> None:
        def wait() -> None:
            while os.getppid() == parent:
                time.sleep(0.5)
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()

    return watch


def _exit(status: int) -> NoReturn:
    """End this process without running exit handlers, which belong to the forkserver's modules."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(status)
