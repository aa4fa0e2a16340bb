"""The other end of the pool: what runs inside the forkserver and inside a worker process.

    server ──control──> forkserver ──fork──> worker
       └────────────── socketpair ─────────────┘

The *forkserver* is a fresh interpreter that has loaded the program (the author's modules) once. It does nothing but
fork workers, kill them and tell how they ended. It is the workers' parent, so a number is never mistaken for a recycled
pid: it kills only what it has not reaped, and it kills the whole process group of a worker before it reaps it.

A *worker* has one socket and one job at a time: read a frame, work, write a frame. It never sees a listening socket.

Who outlives whom: the forkserver leaves when its control socket closes, and takes all workers with it; a worker is
killed by the kernel (PR_SET_PDEATHSIG) when the forkserver dies. So `kill -9` of the server leaves nothing, whatever a
worker is computing.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, NoReturn

import msgspec

from .errors import author_traceback

# A frame: the lengths of its head and its body; the head in MessagePack; the body, raw. MessagePack holds only data:
# nothing that comes from a worker can run code in the server.
FRAME = struct.Struct("!IQ")

# What the server sends: (job's number, kind, meta) and a body.
HANDLE, CALL, CALL_STREAM = range(3)
# What a worker sends back: the same triple. The job's number is 0 before the first job.
READY, FAILED, RESULT, PICKLED, ERROR, STREAM, CHUNK, END = range(8)

# What the server asks of the forkserver: an operation and a worker's number; the worker's socket rides along with FORK.
COMMAND = struct.Struct("!cI")
FORK, KILL = b"f", b"k"

MAX_ERROR_TEXT = 64 * 1024
"""Characters of an error's message or traceback that travel; of a longer one, the end."""

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


class Reply(NamedTuple):
    """What a program makes of one job: a small value that MessagePack can carry, and bytes or an iterator of bytes."""

    meta: Any
    body: bytes | Iterator[bytes]


Handle = Callable[[Any, bytes], Reply]
Program = Callable[[], AbstractContextManager[Handle]]
"""What workers run, as a picklable function: opened once in each worker before it is ready, closed at its end."""


@contextmanager
def plain_program(initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()) -> Iterator[Handle]:
    """The program of a pool that only `run`s and `submit`s functions."""
    if initializer is not None:
        initializer(*initargs)

    def handle(meta: Any, body: bytes) -> Reply:
        raise TypeError("this pool was made without a program; use run() or submit()")

    yield handle


def frame(head: object, body_length: int = 0) -> bytes:
    """A frame's beginning: the lengths and the encoded head. The body follows it."""
    data = encode(head)
    return FRAME.pack(len(data), body_length) + data


# In the forkserver


def forkserver_main(control_fd: int, program_file: Any) -> NoReturn:
    """Load the program, then fork, kill and reap until the server is gone. `program_file` holds its pickles."""
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _die_with(control, True)
    try:
        from multiprocessing import process, spawn

        # As multiprocessing has it: while this is set, starting a process is refused. A module that starts a pool as it
        # is imported would otherwise start another forkserver, which imports the module, which starts a pool, ...
        process.current_process()._inheriting = True  # type: ignore[attr-defined]
        spawn.prepare(pickle.load(program_file))
        program: Program = pickle.load(program_file)
        del process.current_process()._inheriting  # type: ignore[attr-defined]
    except BaseException as error:
        control.sendall(frame((FAILED, 0, _text(author_traceback(error)))))
        _leave(3)
    finally:
        program_file.close()
    _die_with(control, False)
    control.sendall(frame((READY, 0, "")))
    gc.collect()
    gc.freeze()  # what is loaded now is shared by all workers: keep the collector from writing into it
    Forkserver(control, program).serve()
    _leave(0)  # also past a thread that a module of the author's has started


def _die_with(control: socket.socket, on: bool) -> None:
    """While the author's modules load, nobody watches the control socket: let the kernel end us when it closes."""
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(control, fcntl.F_GETFL)
        fcntl.fcntl(control, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)


class Forkserver:
    """The loop of the forkserver: commands come in, ends of workers go out as (exit code, worker's number)."""

    def __init__(self, control: socket.socket, program: Program) -> None:
        self.control = control
        self.program = program
        self.pid = os.getpid()
        self.pids: dict[int, int] = {}  # worker's number -> pid, until reaped
        self.wakeup, self._wakeup_writer = socket.socketpair()
        self._die_with_parent = _parent_watch()
        for end in (self.wakeup, self._wakeup_writer):
            end.setblocking(False)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        try:
            while self.take_command_or_wait():
                self.reap()
        finally:
            signal.set_wakeup_fd(-1)
            for pid in self.pids.values():
                _kill_group(pid)

    def take_command_or_wait(self) -> bool:
        """Do one command if there is one. False when the server has gone."""
        readable, _, _ = select.select([self.control, self.wakeup], [], [])
        if self.wakeup in readable:
            self.wakeup.recv(4096)
        if self.control not in readable:
            return True
        command, descriptors, _, _ = socket.recv_fds(self.control, COMMAND.size, 1)
        if len(command) < COMMAND.size:
            return False
        operation, number = COMMAND.unpack(command)
        if operation == FORK:
            self.fork(number, descriptors[0])
        elif number in self.pids:
            _kill_group(self.pids[number])
        return True

    def fork(self, number: int, descriptor: int) -> None:
        try:
            with warnings.catch_warnings():  # 3.12 warns of threads a library may have started; none holds our locks
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError as error:
            os.close(descriptor)
            self.tell(FAILED, number, f"cannot fork: {error}")
            return
        if pid:
            os.close(descriptor)
            self.pids[number] = pid
            return
        status = 1
        try:
            self._become_worker()
            status = work(socket.socket(fileno=descriptor), self.program)
        finally:
            _leave(status)

    def _become_worker(self) -> None:
        os.setsid()
        self._die_with_parent(self.pid)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (self.control, self.wakeup, self._wakeup_writer):
            end.close()
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:  # Python reseeds `random` after a fork; numpy does not
            numpy_random.seed()

    def reap(self) -> None:
        for number, pid in list(self.pids.items()):
            if hasattr(os, "waitid"):  # macOS has it since Python 3.13
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    continue
                _kill_group(pid)  # its children; the pid is still ours, as it has not been reaped
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self.pids[number]
            self.tell(os.waitstatus_to_exitcode(status), number)

    def tell(self, event: int, number: int, text: str = "") -> None:
        try:
            self.control.sendall(frame((event, number, text)))
        except OSError:
            pass  # the server has gone; the next read says so


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # the group does not exist yet in the instant between fork and setsid
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            pass


def _parent_watch() -> Callable[[int], None]:
    """A function for a new worker to call: from now on we die with our parent, the forkserver."""
    if sys.platform == "linux":
        import ctypes

        prctl, pdeathsig = ctypes.CDLL(None).prctl, 1

        def ask_the_kernel(parent: int) -> None:
            prctl(pdeathsig, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)  # it died before we asked

        return ask_the_kernel

    def watch(parent: int) -> None:
        def wait() -> None:
            while os.getppid() == parent:
                time.sleep(0.5)
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()

    return watch


# In a worker


def work(channel: socket.socket, program: Program) -> int:
    """A worker's life: open the program, say so, do jobs until the channel closes. Returns the exit status."""
    try:
        opened = program()
        handle = opened.__enter__()
    except BaseException as error:
        channel.sendall(frame((0, FAILED, _text(author_traceback(error)))))
        return 1
    try:
        channel.sendall(frame((0, READY, None)))
        while (received := receive(channel)) is not None:
            (number, kind, meta), body = received
            if not do_job(channel, handle, number, kind, meta, body):
                break
    except OSError:
        return 1  # the handler closed our socket, or the server has gone
    try:
        opened.__exit__(None, None, None)
    except BaseException as error:
        print(f"a worker could not close its resources:\n{author_traceback(error)}", file=sys.stderr)
        return 1
    return 0


def receive(channel: socket.socket) -> tuple[Any, bytes] | None:
    """The next frame; None at the end of the channel."""
    data = channel.recv(65536)
    while len(data) < FRAME.size:
        more = channel.recv(65536)
        if not more:
            return None
        data += more
    head_length, body_length = FRAME.unpack_from(data)
    total = FRAME.size + head_length + body_length
    if len(data) < total:
        whole = bytearray(total)
        whole[: len(data)] = data
        view, position = memoryview(whole), len(data)
        while position < total:
            count = channel.recv_into(view[position:])
            if not count:
                return None
            position += count
        data = bytes(whole)
    body_start = FRAME.size + head_length
    return decode(data[FRAME.size : body_start]), data[body_start:]


def send(channel: socket.socket, number: int, kind: int, meta: Any = None, body: bytes = b"") -> None:
    start = frame((number, kind, meta), len(body))
    if len(body) < 65536:
        channel.sendall(start + body)
    else:
        channel.sendall(start)
        channel.sendall(body)


def do_job(channel: socket.socket, handle: Handle, number: int, kind: int, meta: Any, body: bytes) -> bool:
    """One job, answered whatever it does. False if this worker should not take another one."""
    try:
        if kind == HANDLE:
            reply_meta, content = handle(meta, body)
            if isinstance(content, bytes):
                send(channel, number, RESULT, reply_meta, content)
            else:
                send_stream(channel, number, reply_meta, content)
        else:
            function, args, kwargs = pickle.loads(body)
            result = function(*args, **kwargs)
            if kind == CALL:
                send(channel, number, PICKLED, None, pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
            else:
                pickles = (pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in result)
                send_stream(channel, number, None, pickles)
    except OSError as error:
        if _is_closed(channel):
            raise
        return send_error(channel, number, kind, error)
    except BaseException as error:
        return send_error(channel, number, kind, error)
    return True


def send_stream(channel: socket.socket, number: int, meta: Any, chunks: Iterator[bytes]) -> None:
    """The socket is the back-pressure: when the server stops reading it, `sendall` waits and so does the generator."""
    send(channel, number, STREAM, meta)
    for chunk in chunks:
        send(channel, number, CHUNK, None, chunk)
    send(channel, number, END)


def send_error(channel: socket.socket, number: int, kind: int, error: BaseException) -> bool:
    """The error as text. After a MemoryError the worker leaves: what it still holds, nobody knows."""
    leaving = isinstance(error, MemoryError)
    try:
        message = str(error)
    except BaseException:
        message = "(its __str__ failed)"
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "__main__"):
        name = f"{type(error).__module__}.{name}"
    body = b"" if kind == HANDLE else _pickled_error(error)
    send(channel, number, ERROR, (_text(name), _text(message), _text(author_traceback(error)), leaving), body)
    return not leaving


def _text(text: str) -> str:
    """Of any text, what UTF-8 can carry and a log can hold."""
    return text[-MAX_ERROR_TEXT:].encode(errors="backslashreplace").decode()


def _pickled_error(error: BaseException) -> bytes:
    """The exception as a pickle, for run() and submit(); empty if it would not come out again as it went in."""
    try:
        data = pickle.dumps(error)
        return data if type(pickle.loads(data)) is type(error) else b""
    except BaseException:
        return b""


def _is_closed(channel: socket.socket) -> bool:
    try:
        channel.getpeername()
    except OSError:
        return True
    return False


def _leave(status: int) -> NoReturn:
    """End a forked worker without running the forkserver's own exit handlers."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(status)
