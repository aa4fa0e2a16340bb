"""The processes of the pool as the server holds them: the forkserver, and the channel to each worker. No policy here.

`Forkserver` starts the process described in worker.py and passes on what it tells. `Channel` is one worker's socketpair
as an asyncio protocol: frames in both directions, read and written by the event loop itself.
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
from functools import lru_cache
from multiprocessing import context, popen_spawn_posix, process, reduction, spawn, util
from types import ModuleType
from typing import Any, NamedTuple, cast

from ..core.errors import ConfigurationError, WorkerStartError
from ..core.forks import detach_in_child
from ..core.os_errors import describe_os_error
from ..core.shutdown import awake_timeout
from ..core.stdlib_shadowing import FORKSERVER_VARIABLE, shadowing_files, stdlib_first
from .arena import Arena, Arenas, anonymous_file
from .descendants import kill_marked
from .worker import (
    COMMAND,
    FAILED,
    FORK,
    FRAME,
    KILL,
    KILL_LATE,
    OF_THE_SERVER,
    READY,
    Program,
    WorkerOptions,
    decode,
)

_BOOT = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; "
    "import pickle; program = open({program}, 'rb'); sys.path[:], path, first = pickle.load(program); "
    "[__import__(name) for name in first]; from tinysvc.pool.worker import forkserver_main; sys.path[:] = path; "
    "forkserver_main({control}, program)"
)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What BLAS and OpenMP read at import. Each worker gets cores / workers threads, unless the user has set a number."""

FORKSERVER_END = 5.0
"""Seconds a forkserver gets to end: it may be stuck in an import of the author's, or close what all workers share."""

SEPARATE_WRITE = 64 * 1024
"""A body longer than this is written beside its frame's head, not copied behind it."""


MAX_HEAD = 4 * 1024 * 1024
"""Bytes of a frame's head: a batch has all its headers there, an error its texts."""


class End(NamedTuple):
    """The end of a worker. `exit_code` is None, and `text` says why, where it could not even be forked; `peak` is the
    most memory it held, in bytes; `out_of_memory` whether the kernel has killed for want of it, None if that is not
    known; `killed` whether it was `Forkserver.kill` that ended it."""

    exit_code: int | None
    text: str = ""
    peak: int = 0
    out_of_memory: bool | None = None
    killed: bool = False


class Forkserver:
    """The forkserver process. `on_end(number, end)` is told the end of each worker, `on_lost()` that of the forkserver
    itself."""

    def __init__(
        self,
        program: Program,
        options: WorkerOptions,
        threads: int,
        on_end: Callable[[int, End], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._on_end = on_end
        self._on_lost = on_lost
        self._mark = options.mark
        self._pickles, self._inherited = _pickles(program, options)
        self._environment = {FORKSERVER_VARIABLE: "1", **dict.fromkeys(_THREAD_VARIABLES, str(threads)), **os.environ}
        self._buffer = b""
        self.warnings: list[str] = []  # of the program that it has loaded
        self._ready: asyncio.Future[None]
        self._ended: asyncio.Future[None]
        self._process: subprocess.Popen[bytes]

    async def start(self) -> None:
        """Start the process and wait until it has loaded the program. WorkerStartError with its traceback if not."""
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
        self._buffer = b""
        self._ready = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._loop.add_reader(self._control, self._read)
        try:
            await self._ready
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
            flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # -O, -W, -X as ours
            held = signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_SERVER)  # until it has handlers for them
            try:
                return subprocess.Popen(
                    [spawn.get_executable(), *flags, "-c", boot],
                    pass_fds=(program.fileno(), control.fileno(), *self._inherited),
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                    start_new_session=True,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def fork(self, number: int, descriptors: Sequence[int]) -> None:
        """Fork worker `number` with these FORK_DESCRIPTORS. The answer is its READY frame, or `on_end`."""
        # At most two commands a worker are ever unread, a few bytes each: the socket's buffer cannot be full.
        try:
            socket.send_fds(self._control, [COMMAND.pack(FORK, number)], descriptors)
        except OSError:
            pass  # it has died; `_read` will say so

    def kill(self, number: int, *, late: bool = False) -> None:
        """SIGKILL worker `number` and its process group, if it is alive. The answer is `on_end`. After a
        deadline (`late`) it writes its Python stack first, if it can within STACK_TIME."""
        try:
            self._control.send(COMMAND.pack(KILL_LATE if late else KILL, number))
        except OSError:
            pass

    async def stop(self, seconds: float = FORKSERVER_END) -> None:
        """Kill all workers, then end the forkserver itself, which has these seconds for it."""
        try:
            self._control.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        try:
            async with awake_timeout(min(seconds, FORKSERVER_END)):
                await asyncio.shield(self._ended)
        except TimeoutError:  # stuck in the author's import, say
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
            self._lost()
            return
        self._buffer += data
        while len(self._buffer) >= FRAME.size:
            end = FRAME.size + FRAME.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            event, number, text, *more = decode(self._buffer[FRAME.size : end])
            self._buffer = self._buffer[end:]
            self._told(number, event, text, End(None if text else event, text, *more))

    def _told(self, number: int, event: int, text: str, end: End) -> None:
        if number:
            # One turn later: what the worker wrote before its end is readable now, and is to be read first.
            self._loop.call_soon(self._on_end, number, end)
        elif not self._ready.done():
            if event == READY:
                self.warnings = text.splitlines()
                self._ready.set_result(None)
            elif event == FAILED:
                self._ready.set_exception(WorkerStartError("the service cannot be loaded in a worker", text))

    def _lost(self) -> None:
        self._loop.remove_reader(self._control)
        self._control.close()
        exit_code = self._process.wait()  # its socket is closed: it has ended, or does within microseconds
        if exit_code:
            kill_marked(self._mark)  # it could not do so itself
        if not self._ready.done():
            self._ready.set_exception(
                WorkerStartError(f"the forkserver ended at its start, with exit code {exit_code}")
            )
        self._ended.set_result(None)
        if not self._ready.cancelled() and self._ready.exception() is None:
            self._on_lost()


class _Heir:
    """multiprocessing pickles its locks, queues and pipes only for a process that it starts. This stands for ours."""

    DupFd = staticmethod(popen_spawn_posix._DupFd)

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return descriptor


def _pickles(program: Program, options: WorkerOptions) -> tuple[bytes, list[int]]:
    """What the forkserver reads: sys.path, how to prepare the interpreter as `multiprocessing` does, what to run. And
    the descriptors that what it runs inherits."""
    refuse_while_importing()
    preparation = spawn.get_preparation_data("forkserver")
    if not _imports_main(sys.modules["__main__"]):  # as `python -`, whose file is said to be "<stdin>"
        preparation.pop("init_main_from_path", None)
    preparation["authkey"] = bytes(preparation["authkey"])
    path = [os.getcwd() if entry == "" else entry for entry in sys.path]
    paths = (
        (stdlib_first(path), path, ("tinysvc.runtime.cpu_endpoints",)) if shadowing_files(path) else (path, path, ())
    )
    heir = _Heir()
    context.set_spawning_popen(heir)  # type: ignore[arg-type]
    try:
        pickles = [pickle.dumps(value) for value in (paths, preparation, options)]
        buffer = io.BytesIO()
        _ProgramPickler(buffer).dump(program)
        return b"".join((*pickles, buffer.getbuffer())), heir.descriptors
    finally:
        context.set_spawning_popen(None)


class _ProgramPickler(reduction.ForkingPickler):
    def reducer_override(self, value: Any) -> Any:
        refuse_unimportable(value)
        return NotImplemented


def refuse_unimportable(function: Any) -> None:
    """ConfigurationError for a function or class of a `__main__` that workers cannot import as multiprocessing does."""
    function = getattr(function, "func", function)  # of a functools.partial
    if getattr(function, "__module__", "") != "__main__" or _imports_main(sys.modules["__main__"]):
        return
    if hasattr(function, "__qualname__"):
        raise ConfigurationError.at(
            function,
            "workers cannot import the program that this is defined in (a package's __main__, a zipapp, a notebook, "
            "python -c or an interactive session); move it to another module that workers can import, a .py file",
        )


@lru_cache(maxsize=1)  # it asks the file system, and each `run` of a function of the main module needs it
def _imports_main(main: ModuleType) -> bool:
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return not f".{name}".endswith(".__main__")
    path = getattr(main, "__file__", None) or ""
    return os.path.isfile(path) and os.path.basename(path) not in ("ipython", "ipython.py")


def refuse_frozen(what: str) -> None:
    """WorkerStartError where `sys.executable` is not Python: it would start the program again, and so without end."""
    executable = os.fsdecode(spawn.get_executable() or "")
    if getattr(sys, "frozen", False) or FORKSERVER_VARIABLE in os.environ or not executable:
        os.environ.pop(FORKSERVER_VARIABLE, None)
        raise WorkerStartError(
            f"{what} needs new Python processes, and this program's executable ({executable or 'unknown'}) is the "
            "program itself, as in a frozen one; serve it with python, or run its cpu handlers with cpu_workers=0"
        )


def refuse_while_importing() -> None:
    """RuntimeError in a process that is importing the author's modules for a pool: it must not start one itself."""
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a module starts workers, or calls tinysvc.run(), while the workers import it; "
            'write that call under: if __name__ == "__main__":'
        )


class Channel(asyncio.Protocol):
    """One worker's socket. `on_frame(head, body)` is called for each frame; `on_closed(why)` at its end;
    `why` says which rule the worker broke, if it was that."""

    def __init__(
        self,
        sock: socket.socket,
        on_frame: Callable[[Any, bytes], None],
        on_closed: Callable[[str], None],
        limit: int,
    ) -> None:
        self._socket = sock
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._limit = limit
        self._closed = False
        detach_in_child(self, lambda channel: [channel._socket.fileno()])
        self.transport: asyncio.Transport
        self.arena: Arena | None = None  # where the worker may put a big result
        self.arenas = Arenas()  # where it has put others, which have been read
        self._why = ""
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in _pieces
        self._wanted = FRAME.size  # bytes that complete what we wait for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        if self._closed:
            transport.close()

    def close(self) -> None:
        """Close our end; an idle worker then closes its resources and leaves."""
        self._closed = True
        if self.arena is not None:
            self.arena.close()
        self.arenas.close()
        if hasattr(self, "transport"):
            self.transport.close()

    def leave(self) -> None:
        """As `close`, also where a forked child of the server holds our end open."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return
        data = b"".join(self._pieces) if len(self._pieces) > 1 else data
        position = 0
        while len(data) - position >= FRAME.size:
            head_length, body_length = FRAME.unpack_from(data, position)
            if head_length > MAX_HEAD or body_length > self._limit:
                self.fail(f"sent {head_length + body_length} bytes; max_result_size is {self._limit}")
                return
            body_start = position + FRAME.size + head_length
            end = body_start + body_length
            if len(data) < end:
                self._wanted = end - position
                break
            try:
                head = decode(data[position + FRAME.size : body_start])
            except Exception:
                self.fail("sent a frame that is not MessagePack")
                return
            position = end
            self._wanted = FRAME.size
            self._on_frame(head, data[body_start:end])
            if self._why:
                return  # it broke a rule: nothing behind that counts
        rest = data[position:]
        self._pieces, self._held = ([rest] if rest else []), len(rest)

    def fail(self, why: str) -> None:
        """The worker does not keep to the protocol: stop listening to it."""
        self._why = why
        self._pieces = []
        self.transport.abort()

    def send(self, start: bytes, body: bytes, descriptors: Sequence[int] = ()) -> None:
        """A frame: its beginning, as worker.frame makes it, its body, and descriptors that ride along.

        The transport cannot send descriptors. So they go with the frame's beginning over the socket itself: the worker
        has answered all before, so nothing of ours is still on its way. If it lied there, OSError.
        """
        if descriptors:
            if self.transport.get_write_buffer_size():
                raise OSError("it answered a job that it had not yet received")
            start = start[socket.send_fds(self._socket, [start], descriptors) :]
        if len(body) < SEPARATE_WRITE:
            self.transport.write(start + body)
        else:
            self.transport.write(start)
            self.transport.write(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_closed(self._why)
