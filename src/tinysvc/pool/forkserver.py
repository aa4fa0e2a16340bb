"""The forkserver as the server holds it: start it, send it commands, read its reports. No policy here.

forkserver_main.py runs in the process that this file starts.
"""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import context, popen_spawn_posix, reduction, spawn, util
from typing import Any

from ..core.errors import WorkerStartError
from ..core.forks import detach_in_child
from ..core.os_errors import describe_os_error
from ..core.shutdown import awake_timeout
from ..core.stdlib_shadowing import FORKSERVER_VARIABLE, shadowing_files, stdlib_first
from .arena import anonymous_file
from .descendants import kill_marked
from .frames import (
    COMMAND,
    FORK,
    FRAME,
    KILL,
    KILL_WITH_STACK,
    WRITE_STACKS,
    FromForkserver,
    Ready,
    WorkerEnd,
    WorkerStart,
    decode_from_forkserver,
)
from .importable import can_import_main, refuse_frozen, refuse_unimportable, refuse_while_importing
from .program import Program, WorkerOptions
from .server_signals import SERVER_SIGNALS

_BOOT = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; "
    "import pickle; program = open({program}, 'rb'); sys.path[:], path, first = pickle.load(program); "
    "[__import__(name) for name in first]; from tinysvc.pool.forkserver_main import forkserver_main; "
    "sys.path[:] = path; forkserver_main({control}, program)"
)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Variables that BLAS and OpenMP read at import. Each worker gets cores / workers threads, unless the user has set a
number."""

FORKSERVER_END = 5.0
"""Seconds for the forkserver to end: it may be stuck in an import of the author's, or close shared resources."""


class Forkserver:
    """The forkserver process.

    Args:
        program: The program that the workers run.
        options: Options for the workers.
        threads: BLAS threads of each worker.
        on_end: Called with the WorkerEnd of each worker that has ended.
        on_lost: Called when the forkserver itself has died.
    """

    def __init__(
        self,
        program: Program,
        options: WorkerOptions,
        threads: int,
        on_end: Callable[[WorkerEnd], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._on_end = on_end
        self._on_lost = on_lost
        self._mark = options.mark
        self._pickles, collected = _pickles(program, options)
        self._inherited = [*collected, *options.inherited]
        self._environment = {FORKSERVER_VARIABLE: "1", **dict.fromkeys(_THREAD_VARIABLES, str(threads)), **os.environ}
        self._buffer = b""
        self.warnings: list[str] = []  # about the program that it has loaded
        self.pids: dict[int, int] = {}  # number of a worker -> pid
        self._ready: asyncio.Future[None]
        self._ended: asyncio.Future[None] | None = None  # None: it was never started
        self._is_stopped = False  # `stop` was called
        self._process: subprocess.Popen[bytes]

    @property
    def has_process(self) -> bool:
        """Whether it was started and has not ended."""
        return self._ended is not None and not self._ended.done()

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded the program and can fork workers."""
        return self.has_process and self._ready.done() and not self._is_stopped

    async def start(self) -> None:
        """Start the process and wait until it has loaded the program.

        Raises:
            WorkerStartError: The process cannot start, or the program cannot be loaded (with its traceback).
        """
        self._loop = asyncio.get_running_loop()
        refuse_frozen("a pool of workers")
        try:
            self._control, theirs = socket.socketpair()
        except OSError as error:
            raise WorkerStartError(f"no forkserver can be started: {describe_os_error('socketpair', error)}") from None
        self._control.setblocking(False)
        detach_in_child(self, lambda forkserver: [forkserver._control.fileno()])
        try:
            self._process = self._start_process(theirs)
        except OSError as error:
            self._control.close()
            call = f"starting {spawn.get_executable()}" if error.filename else "fork"
            raise WorkerStartError(f"no forkserver can be started: {describe_os_error(call, error)}") from None
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        self._buffer, self._is_stopped = b"", False
        self._ready = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._loop.add_reader(self._control, self._read)
        try:
            await self._ready
            if not self.is_ready:  # before this task went on
                raise WorkerStartError("the forkserver died when it had loaded the program")
        except BaseException:
            await self.stop()
            raise

    def _start_process(self, control: socket.socket) -> subprocess.Popen[bytes]:
        try:
            descriptor = anonymous_file()
        except OSError as error:
            raise WorkerStartError(f"no forkserver can be started: {error.strerror}") from None
        with open(descriptor, "w+b") as program:
            program.write(self._pickles)
            program.seek(0)
            boot = _BOOT.format(program=program.fileno(), control=control.fileno())
            flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # -O, -W, -X as in this process
            blocked_before = signal.pthread_sigmask(
                signal.SIG_BLOCK, SERVER_SIGNALS
            )  # until the forkserver has its handlers
            try:
                return subprocess.Popen(
                    [spawn.get_executable(), *flags, "-c", boot],
                    pass_fds=(program.fileno(), control.fileno(), *self._inherited),
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                    start_new_session=True,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)

    def fork(self, number: int, descriptors: Sequence[int]) -> None:
        """Fork worker `number` with its FORK_DESCRIPTORS. A READY frame or `on_end` follows."""
        # At most two commands a worker are unread at a time, a few bytes each: the socket's buffer cannot be full.
        try:
            socket.send_fds(self._control, [COMMAND.pack(FORK, number)], descriptors)
        except OSError:
            pass  # it has died, which `_read` notices

    def kill(self, number: int, *, with_stack: bool = False) -> None:
        """SIGKILL worker `number` and its process group, if it is alive. `on_end` follows.

        Args:
            number: The worker's number.
            with_stack: Let the worker write its Python stack first, if it can within STACK_TIME.
        """
        try:
            self._control.send(COMMAND.pack(KILL_WITH_STACK if with_stack else KILL, number))
        except OSError:
            pass

    def write_stacks(self, number: int) -> None:
        """Let worker `number` append the Python stacks of its threads to its crash file, if it is alive."""
        try:
            self._control.send(COMMAND.pack(WRITE_STACKS, number))
        except OSError:
            pass

    async def stop(self, seconds: float = FORKSERVER_END) -> None:
        """Kill all workers, then let the forkserver end, within these seconds (at most FORKSERVER_END)."""
        self._is_stopped = True
        if self._ended is None or self._ended.done():
            return
        try:
            self._control.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        try:
            async with awake_timeout(min(seconds, FORKSERVER_END)):
                await asyncio.shield(self._ended)
        except TimeoutError:  # stuck in the author's import, for example
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._ended

    def _read(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_closed()
            return
        self._buffer += data
        while len(self._buffer) >= FRAME.size:
            end = FRAME.size + FRAME.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            head = decode_from_forkserver(self._buffer[FRAME.size : end])
            self._buffer = self._buffer[end:]
            self._on_frame(head)

    def _on_frame(self, head: FromForkserver) -> None:
        if isinstance(head, WorkerStart):
            self.pids[head.number] = head.pid
        elif isinstance(head, WorkerEnd):
            self.pids.pop(head.number, None)
            # One turn of the loop later: the last frames of the worker are readable now, and must be read first.
            self._loop.call_soon(self._on_end, head)
        elif self._ready.done():
            pass
        elif isinstance(head, Ready):
            self.warnings = head.warnings.splitlines()
            self._ready.set_result(None)
        else:
            self._ready.set_exception(WorkerStartError("the service cannot be loaded in a worker", head.traceback))

    def _on_closed(self) -> None:
        self._loop.remove_reader(self._control)
        self._control.close()
        self.pids.clear()
        exit_code = self._process.wait()  # its socket is closed: it has ended, or ends within microseconds
        if exit_code:
            kill_marked(self._mark)  # it could not do so itself
        if not self._ready.done():
            self._ready.set_exception(
                WorkerStartError(f"the forkserver ended at its start, with exit code {exit_code}")
            )
        assert self._ended is not None
        self._ended.set_result(None)
        if not self._ready.cancelled() and self._ready.exception() is None and not self._is_stopped:
            self._on_lost()


class _DescriptorCollector:
    """Stands in for the Popen of multiprocessing, which pickles locks, queues and pipes only while it starts a
    process. Collects their descriptors, which the forkserver inherits.
    """

    DupFd = staticmethod(popen_spawn_posix._DupFd)

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return descriptor


def _pickles(program: Program, options: WorkerOptions) -> tuple[bytes, list[int]]:
    """The pickles that the forkserver reads, and the descriptors that it inherits.

    The pickles are sys.path, the options, the data with which multiprocessing prepares an interpreter, the program.
    """
    refuse_while_importing()
    preparation = spawn.get_preparation_data("forkserver")
    if not can_import_main(sys.modules["__main__"]):  # as `python -`, where the file is named "<stdin>"
        preparation.pop("init_main_from_path", None)
    preparation["authkey"] = bytes(preparation["authkey"])
    path = [os.getcwd() if entry == "" else entry for entry in sys.path]
    paths = (
        (stdlib_first(path), path, ("tinysvc.runtime.cpu_endpoints",)) if shadowing_files(path) else (path, path, ())
    )
    collector = _DescriptorCollector()
    context.set_spawning_popen(collector)  # type: ignore[arg-type]
    try:
        pickles = [pickle.dumps(value) for value in (paths, options, preparation)]
        buffer = io.BytesIO()
        _ProgramPickler(buffer).dump(program)
        return b"".join((*pickles, buffer.getbuffer())), collector.descriptors
    finally:
        context.set_spawning_popen(None)


class _ProgramPickler(reduction.ForkingPickler):
    def reducer_override(self, value: Any) -> Any:
        refuse_unimportable(value)
        return NotImplemented
