"""The other end of the pool: what runs inside the forkserver and inside a worker process.

    server ──control──> forkserver ──fork──> worker
       └────────────── socketpair ─────────────┘

The *forkserver* is a fresh interpreter that has loaded the program (the author's modules) once. It does nothing but
fork workers, kill them and tell how they ended. It is the workers' parent, so a number is never mistaken for a recycled
pid: it kills only what it has not reaped, and with a worker it kills all that its jobs have started (descendants.py).

A *worker* has one socket and one job at a time: read a frame, work, write a frame. It never sees a listening socket.

Who outlives whom: the forkserver leaves when its control socket closes, and takes all workers with it; a worker is
killed by the kernel (PR_SET_PDEATHSIG) when the forkserver dies. So `kill -9` of the server leaves nothing, whatever a
worker is computing.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import copy_context
from itertools import islice, repeat
from typing import Any, NamedTuple, NoReturn

import msgspec

from ..core import forks
from ..core.errors import HTTPError, TinysvcError
from ..core.exit_with_parent import exit_with_parent
from ..core.os_errors import describe_os_error
from ..core.shutdown import warn_of_slow_close
from ..core.stdlib_shadowing import FORKSERVER_VARIABLE
from ..core.tracebacks import author_traceback
from . import inherited, leftovers
from .arena import BIG, Arena
from .descendants import (
    LAST_LOOKS,
    LOOK_AGAIN,
    adopt_orphans,
    bury_orphans,
    kill_all_below,
    kill_group,
    mark_worker,
    strays,
)
from .inherited import ThreadWatch, find_generators
from .leftovers import clearer, ignore_late_timers
from .worker_logs import STACK_SIGNAL, OomCounter, at_end_of_job, forward_logs, peak_bytes, watch_crashes, whole_lines

# A frame: the lengths of its head and its body; the head in MessagePack; the body, raw. MessagePack holds only data:
# nothing that comes from a worker can run code in the server.
FRAME = struct.Struct("!IQ")
LENGTHS = FRAME.size

# What the server sends: (job's number, kind, meta, size) and a body. A body of BIG bytes or more is in an arena, `size`
# says how much of it; its descriptor rides along, and behind it that of an empty arena for a big result.
HANDLE, CALL, CALL_STREAM = range(3)
# What a worker sends back: (number, kind, meta, size, memory held) and a body; the number is 0 before its first job.
READY, FAILED, RESULT, PICKLED, ERROR, STREAM, CHUNK, END, LOG, KEPT = range(10)
_ANSWERS = frozenset((RESULT, PICKLED, ERROR, END))
# KEPT comes before the end of a job that still holds on to its body: that arena is not used again.

# What the server asks of the forkserver: an operation and a worker's number. The worker's descriptors ride along with
# FORK: its socket, an arena for its first big result, and one for its last words in a crash.
COMMAND = struct.Struct("!cI")
FORK, KILL, KILL_LATE = b"f", b"k", b"l"
FORK_DESCRIPTORS = 3

OF_THE_SERVER = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that the server acts on. A service manager or a terminal may send them to every process."""

STACK_TIME = 0.05
"""Seconds that a worker gets to write its Python stack at a deadline, before SIGKILL; it takes about 1 ms."""

MAX_STRAYS = 1000
"""Exceptions in a row that may interrupt the writing of one frame: more come from no timer and no thread."""

_GONE = {errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN, errno.ESHUTDOWN}
"""Errors of a channel that is closed."""

MAX_ERROR_TEXT = 64 * 1024
"""Characters of an error's message or traceback that travel; of a longer one, the end."""

_NO_DESCRIPTORS = array("i")
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_TWO_DESCRIPTORS = socket.CMSG_SPACE(2 * struct.calcsize("i"))

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


class Reply(NamedTuple):
    """What a program makes of one job: a small value that MessagePack can carry, and bytes or an iterator of bytes."""

    meta: Any
    body: bytes | bytearray | memoryview | Iterator[bytes]


Handle = Callable[[Any, bytes | memoryview], Reply]
Program = Callable[[], AbstractContextManager[Handle]]
"""What workers run, as a picklable function: opened once in each worker before it is ready, closed at its end.

A program may have a method `preload()`, a context manager that the forkserver enters before it forks the first worker:
what it opens, all workers share. A body of BIG bytes or more comes as a memoryview.
"""


class WorkerOptions(NamedTuple):
    """What a pool tells its workers."""

    log_level: int
    max_result_size: int
    measures_memory: bool
    memory_limit: int
    mark: int  # of the pool, for what its jobs start


@contextmanager
def plain_program(initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()) -> Iterator[Handle]:
    """The program of a pool that only `run`s and `submit`s functions."""
    if initializer is not None:
        initializer(*initargs)

    def handle(meta: Any, body: bytes | memoryview) -> Reply:
        raise TypeError("this pool was made without a program; use run() or submit()")

    yield handle


def call_each(function: Callable[..., Any], chunk: Sequence[Sequence[Any]]) -> list[Any]:
    """What a chunk of `map` runs."""
    return [function(*arguments) for arguments in chunk]


def frame(head: object, body_length: int = 0) -> bytes:
    """A frame's beginning: the lengths and the encoded head. The body follows it."""
    data = encode(head)
    return FRAME.pack(len(data), body_length) + data


def pack(value: object) -> tuple[list[int], list[Any]]:
    """`value` pickled: big buffers in it (numpy arrays, say) as they are, the pickle of the rest, and their lengths."""
    buffers: list[memoryview] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= BIG:
            buffers.append(raw)
        return raw.nbytes < BIG

    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=in_band)
    return [buffer.nbytes for buffer in buffers], [*buffers, data]


def unpack(lengths: Sequence[int], body: bytes | memoryview) -> Any:
    """What `pack` has packed. Arrays of it live in `body`."""
    if not lengths:
        return pickle.loads(body)
    view, position = memoryview(body), 0
    buffers = []
    for length in lengths:
        buffers.append(view[position : position + length])
        position += length
    return pickle.loads(view[position:], buffers=buffers)


# In the forkserver


def open_standard_streams() -> None:
    """Where the parent of this process has closed standard streams (a daemon, cron), write to and read from nothing.

    Else a socket of ours takes the number of one, and a print of anybody's goes into it, or fails.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) == descriptor:  # the lowest that is free
                os.set_inheritable(descriptor, True)  # for the forkserver
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for the life of the process


def forkserver_main(control_fd: int, program_file: Any) -> NoReturn:
    """Load the program, then fork, kill and reap until the server is gone. `program_file` holds its pickles."""
    os.environ.pop(FORKSERVER_VARIABLE, None)
    open_standard_streams()
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    _leave_signals_to_the_server()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_with_parent(control, True)
    faulthandler.enable(all_threads=False)  # for a crash in the author's import
    leftovers.note_calls()
    shared = ExitStack()
    watch = inherited.watch = ThreadWatch()
    try:
        from multiprocessing import process, spawn

        # As multiprocessing has it: while this is set, starting a process is refused. A module that starts a pool as it
        # is imported would otherwise start another forkserver, which imports the module, which starts a pool, ...
        process.current_process()._inheriting = True  # type: ignore[attr-defined]
        with watch.imports():
            spawn.prepare(pickle.load(program_file))
            options: WorkerOptions = pickle.load(program_file)
            program: Program = pickle.load(program_file)
        del process.current_process()._inheriting  # type: ignore[attr-defined]
        if hasattr(program, "preload"):
            shared.enter_context(program.preload())
        generators = find_generators(program)
        warning = "\n".join(filter(None, (watch.warning(), generators.warning())))
        inherited.watch = None
    except BaseException as error:
        control.sendall(frame((FAILED, 0, _text(author_traceback(error)))))
        _leave(3)
    finally:
        program_file.close()
    exit_with_parent(control, False)
    control.sendall(frame((READY, 0, warning)))
    gc.collect()
    gc.freeze()  # what is loaded now is shared by all workers: keep the collector from writing into it
    Forkserver(control, program, options, generators.reseed).serve()
    _close(shared.close)
    kill_all_below()
    _leave(0)  # also past a thread that a module of the author's has started


def _leave_signals_to_the_server() -> None:
    """With a handler, not SIG_IGN: what a job starts with exec would ignore them, too."""
    for number in OF_THE_SERVER:
        signal.signal(number, _left_to_the_server)
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_THE_SERVER)  # blocked since before the exec


def _left_to_the_server(number: int, frame: Any) -> None:
    """The server drains, and ends us when that is done."""


class Forkserver:
    """The loop of the forkserver: commands come in, ends of workers go out.

    An end is told as (exit code, worker's number, text, peak memory in bytes, whether the kernel ran out of memory,
    whether it was a command that killed the worker).
    """

    def __init__(
        self,
        control: socket.socket,
        program: Program,
        options: WorkerOptions,
        reseed: Callable[[], object] = lambda: None,
    ) -> None:
        self.control = control
        self.program = program
        self.options = options
        self.reseed = reseed
        self.out_of_memory = OomCounter()
        self.pid = os.getpid()
        self.pids: dict[int, int] = {}  # worker's number -> pid, until reaped
        self.late: dict[int, float] = {}  # number -> when SIGKILL follows, if its stack is not written by then
        self.killed: set[int] = set()  # numbers of those that were alive when the command came
        self.wakeup, self._wakeup_writer = socket.socketpair()
        self._die_with_parent = _parent_watch()
        for end in (self.wakeup, self._wakeup_writer):
            end.setblocking(False)
        self._poll = select.poll()  # select() knows no descriptor above 1023, and the server may have many open
        for end in (self.control, self.wakeup):
            self._poll.register(end, select.POLLIN)

    def serve(self) -> None:
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        try:
            while self.take_command_or_wait():
                self.reap()
        finally:
            signal.set_wakeup_fd(-1)
            self._kill_all()

    def _kill_all(self) -> None:
        for pid in self.pids.values():
            kill_group(pid)
        for _ in range(LAST_LOOKS):
            self.reap()
            if not self.pids and not bury_orphans(self.options.mark, {}):
                return
            time.sleep(LOOK_AGAIN)

    def take_command_or_wait(self) -> bool:
        """Do one command if there is one. False when the server has gone."""
        readable = {descriptor for descriptor, _ in self._poll.poll(self._kill_late())}
        if self.wakeup.fileno() in readable:
            self.wakeup.recv(4096)
            bury_orphans(self.options.mark, self.pids)
        if self.control.fileno() not in readable:
            return True
        try:
            command, descriptors, _, _ = socket.recv_fds(self.control, COMMAND.size, FORK_DESCRIPTORS)
        except ConnectionResetError:  # the server has gone, and had not read all that we told it
            return False
        if len(command) < COMMAND.size:
            return False
        operation, number = COMMAND.unpack(command)
        if operation == FORK:
            self.fork(number, descriptors)
        elif number in self.pids and not _has_ended(self.pids[number]):
            self.killed.add(number)
            if operation == KILL_LATE:
                os.kill(self.pids[number], STACK_SIGNAL)
                self.late[number] = time.monotonic() + STACK_TIME
            else:
                kill_group(self.pids[number])
        return True

    def _kill_late(self) -> float | None:
        """SIGKILL those that had their time to write their stack. Milliseconds until the next one is due."""
        now = time.monotonic()
        for number, when in list(self.late.items()):
            if number not in self.pids:
                del self.late[number]
            elif when <= now:
                del self.late[number]
                kill_group(self.pids[number])
        return (min(self.late.values()) - now) * 1000 + 1 if self.late else None

    def fork(self, number: int, descriptors: list[int]) -> None:
        try:
            with warnings.catch_warnings():  # 3.12 warns of threads a library may have started; none holds our locks
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError as error:
            pid = -1
            self.tell(FAILED, number, f"cannot start: {describe_os_error('fork', error)}")
        if pid:
            for descriptor in descriptors:
                os.close(descriptor)
            if pid > 0:
                self.pids[number] = pid
            return
        status = 1
        try:
            self._become_worker(number)
            channel, result_arena, last_words = descriptors
            link = Link(socket.socket(fileno=channel), Arena(result_arena), self.options)
            watch_crashes(last_words)
            ignore_late_timers()
            whole_lines()
            forward_logs(link.log, self.options.log_level)
            status = work(link, self.program)
        finally:
            _leave(status)

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

    def reap(self) -> None:
        for number, pid in list(self.pids.items()):
            has_ended = _has_ended(pid)
            if has_ended is False:
                continue
            if has_ended:  # the pid is still ours, as it has not been reaped
                kill_group(pid, strays(self.pids.values()))
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if not ended:
                continue
            del self.pids[number]
            exit_code = os.waitstatus_to_exitcode(status)
            bury_orphans(self.options.mark, self.pids)
            killed = number in self.killed and exit_code in (-signal.SIGKILL, -STACK_SIGNAL)
            if killed:
                exit_code = -signal.SIGKILL
            self.killed.discard(number)
            self.tell(exit_code, number, "", peak_bytes(usage), self.out_of_memory.grew(), killed)

    def tell(self, event: int, number: int, text: str, *more: Any) -> None:
        try:
            self.control.sendall(frame((event, number, text, *more)))
        except OSError:
            pass  # the server has gone; the next read says so


def _has_ended(pid: int) -> bool | None:
    """Whether a child has ended and waits to be reaped; None where that cannot be seen: on macOS before Python 3.13."""
    if not hasattr(os, "waitid"):
        return None
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


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


class Link:
    """A worker's end of its channel, and the arena that its next big result goes into.

    An exception may come between any two steps of the interpreter: a signal handler or a thread that a job has left
    behind raises it. So what the kernel has read or written is noted in the same step: `deque.extend(map(call, ...))`
    is one. A frame that has begun is ended before anything else is written, and an answer is never sent twice.
    """

    def __init__(self, channel: socket.socket, arena: Arena | None, options: WorkerOptions) -> None:
        channel.settimeout(None)  # also where a module has called socket.setdefaulttimeout
        self.channel = channel
        self._send = channel.send
        self.arena = arena
        self.job: tuple[int, int, Any, bytes | memoryview] | None = None  # number, kind, meta, body
        self.stray: BaseException | None = None  # what has cut off the job at hand
        self.answered = 0  # number of the last job whose answer is sent
        self._receipts = map(channel.recvmsg, repeat(65536), repeat(_TWO_DESCRIPTORS), repeat(_CLOSE_ON_EXEC))
        self._inbox: deque[Any] = deque()  # what recvmsg has returned, of the frame that is being read
        self._partial: tuple[bytearray, list[int]] | None = None  # a longer frame, and the bytes of each read
        self._outgoing: tuple[bytes, int] | None = None  # a frame that is being written, and whose answer it is
        self._written: deque[int] = deque()  # the bytes of each of its writes
        self.body: memoryview | None = None  # of the job at hand, if it came in an arena
        self._mapping: Any = None
        self._max_result_size = options.max_result_size
        self._small = min(BIG, options.max_result_size + 1)
        self._measures_memory = options.measures_memory
        self._lock = threading.Lock()  # other threads of the worker may log
        forks.detach_in_child(self, Link._left_to_the_parent)
        self._pid = os.getpid()

    def _left_to_the_parent(self) -> list[int]:
        """In a child that a job has forked: signals end it, as a child of any program."""
        left = [each for each in OF_THE_SERVER if signal.getsignal(each) is _left_to_the_server]
        forks.reset_signals(left + leftovers.discarded())
        return [self.channel.fileno()]

    def receive(self) -> tuple[int, int, Any, bytes | memoryview] | None:
        """The next job; None at the end of the channel."""
        inbox = self._inbox
        if not inbox:
            inbox.extend(islice(self._receipts, 1))
        data, ancillary, _, _ = inbox[0]
        descriptors = array("i", ancillary[0][2]) if ancillary else _NO_DESCRIPTORS
        while len(data) < LENGTHS:
            more = self.channel.recv(65536)
            if not more:
                return None
            data += more
        head_length, body_length = FRAME.unpack_from(data)
        body_start = LENGTHS + head_length
        total = body_start + body_length
        if len(data) < total:
            whole = self._receive_rest(data, total)
            if whole is None:
                return None
            data = whole
        number, kind, meta, size = decode(data[LENGTHS:body_start])
        body: bytes | memoryview = data[body_start:]
        if size:
            try:
                body = self.body = Arena(descriptors.pop(0), size).view()
            except (IndexError, OSError):  # no descriptor is free, to receive that of the body or to map it
                self.send_no_descriptor(number)
                return None
            self._mapping = self.body.obj
        if descriptors:
            self.arena = Arena(descriptors[0])
        self.answered = 0
        self.job = job = number, kind, meta, body
        inbox.clear()
        self._partial = None
        return job

    def send_no_descriptor(self, number: int) -> None:
        """The job's body cannot be read: an error for this job, and the worker, which has leaked them, is replaced."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        text = (
            f"the worker cannot receive the job's body: all its {limit} file descriptors are open. An earlier job has "
            "left files or sockets open: close them, or raise the limit (ulimit -n)"
        )
        self.send(number, ERROR, ("OSError", text, "", True))

    def _receive_rest(self, data: bytes, total: int) -> bytes | None:
        if self._partial is None:
            start = bytearray(total)
            start[: len(data)] = data
            self._partial = start, [len(data)]
        whole, counts = self._partial
        view = memoryview(whole)
        while (position := sum(counts)) < total:
            counts.extend(map(self.channel.recv_into, (view[position:],)))
            if not counts[-1]:
                return None
        return bytes(whole)

    def send(self, number: int, kind: int, meta: Any = None, body: Any = b"", size: int = 0) -> None:
        memory = _memory() if self._measures_memory else 0
        start = frame((number, kind, meta, size, memory), len(body))
        with self._lock:
            self._write(start + body, number if kind in _ANSWERS else 0)

    def _write(self, data: bytes, answers: int) -> None:
        if forks.in_child:  # it has returned into our code: the channel is its parent's
            forks.end_child()
        if self._outgoing is not None:
            self.flush(answers=True)
        written = self._written
        written.clear()
        self._outgoing = data, answers
        stray: BaseException | None = None
        try:  # mostly one write is all; `flush` does the same, however often it is interrupted
            written.extend(map(self._send, (data,)))
            if written[0] == len(data):
                self.answered = answers or self.answered
                self._outgoing = None
                return
        except BaseException as error:
            if _is_gone(error):
                raise
            stray = error
        self.flush(answers=answers > 0, stray=stray)

    def flush(self, *, answers: bool, stray: BaseException | None = None) -> None:
        """Write the frame that has begun to its end. What has interrupted it is raised then, unless the job is over."""
        strays = [stray] if stray else []
        written = self._written
        while (outgoing := self._outgoing) is not None:
            try:
                data, number = outgoing
                if (sent := sum(written)) < len(data):
                    written.extend(map(self._send, (memoryview(data)[sent:] if sent else data,)))
                if sum(written) == len(data):
                    self.answered = number or self.answered
                    self._outgoing = None
            except BaseException as error:
                if _is_gone(error) or len(strays) > MAX_STRAYS:
                    raise
                strays.append(error)
        if strays and not answers:
            raise strays[0]

    def forget_frame(self) -> None:
        """Forget the job's frame, whose reading may have been interrupted, and what has interrupted it."""
        self._inbox.clear()
        self._partial = self.stray = None

    def send_result(self, number: int, kind: int, meta: Any, first: Any, *more: Any) -> None:
        """The pieces as one body. Where they are big, they go into the arena, if there is one."""
        if not more and len(first) < self._small:
            if self.body is not None:
                first = self._copied(first)
                self.let_go_of_body(number)
            self.send(number, kind, meta, first)
            return
        length = len(first) + sum(map(len, more))
        if length > self._max_result_size:
            raise ValueError(
                f"the result has {length} bytes; max_result_size is {self._max_result_size}: "
                "raise it, or yield the result in pieces"
            )
        if self.arena is None:
            self.send(number, kind, meta, b"".join((first, *more)))
            return
        self.arena.size = 0  # where a write has failed half-way, begin again
        for piece in (first, *more):
            self.arena.write(piece)
        if isinstance(first, memoryview):
            first.release()
        self.let_go_of_body(number)
        self.send(number, kind, meta, size=length)
        self.arena = None  # it is the server's now

    @staticmethod
    def _copied(content: Any) -> bytes:
        """The content of a small result, which may be a part of the body."""
        copy = bytes(content)
        if isinstance(content, memoryview):
            content.release()
        return copy

    def let_go_of_body(self, number: int) -> None:
        """The job is done with its body. If something still looks at it, its arena is not used again."""
        body, self.body = self.body, None
        if body is not None:
            try:
                body.release()
                self._mapping.close()
            except BufferError:
                self.send(number, KEPT)
            self._mapping = None

    def log(self, fields: list[Any]) -> None:
        """A log record, between the other frames. OSError in a forked child, where the channel is closed, and in a
        signal handler that has interrupted a frame half-way: there it would wait for itself."""
        if os.getpid() != self._pid or not self._lock.acquire(timeout=1.0):
            raise BlockingIOError("the channel is not ours")
        try:
            self._write(frame((0, LOG, fields, 0, 0)), 0)
        finally:
            self._lock.release()

    def is_closed(self) -> bool:
        try:
            self.channel.getpeername()
        except OSError:
            return True
        return False


def work(link: Link, program: Program) -> int:
    """A worker's life: open the program, say so, do jobs until the channel closes. Returns the exit status."""
    try:
        opened = program()
        handle = opened.__enter__()
    except BaseException as error:
        link.send(0, FAILED, _text(author_traceback(error)))
        return 1
    try:
        link.send(0, READY)
        clear = clearer()
    except OSError:
        return 1
    for _ in range(MAX_STRAYS):  # an exception may also interrupt what handles another one
        try:
            goes_on = _do_jobs(link, handle, clear)
            break
        except BaseException as error:
            link.stray = error
    else:
        goes_on = False
    if not goes_on:
        return 1  # the handler closed our socket, or the server has gone
    return _close(lambda: opened.__exit__(None, None, None))


def _do_jobs(link: Link, handle: Handle, clear: Callable[[], None]) -> bool:
    """Jobs, until the channel closes in order (True) or breaks. An exception here comes from what a job left behind."""
    goes_on = True
    while goes_on:
        try:
            if link.job is None:
                if link.receive() is None:
                    return True
                # In a context of its own: the next job does not see the variables that this one sets.
                goes_on = copy_context().run(do_job, link, handle, *link.job)  # type: ignore[misc]
            else:  # it was interrupted on its way
                number, kind, _, _ = link.job
                link.flush(answers=True)
                clear()
                if link.answered != number:
                    goes_on = send_error(link, number, kind, link.stray or InterruptedError("the job was cut off"))
                link.forget_frame()
            if leftovers.touched:
                clear()
            while at_end_of_job:
                at_end_of_job.pop()()
            link.job = None  # so that a big body is unmapped before the next comes
        except BaseException as error:
            if _is_gone(error):
                return False
            link.stray = error
    return True


def _is_gone(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _GONE


def _close(close: Callable[[], object]) -> int:
    try:
        with warn_of_slow_close():
            close()
    except BaseException as error:
        print(f"a worker could not close its resources:\n{author_traceback(error)}", file=sys.stderr)
        return 1
    return 0


def do_job(link: Link, handle: Handle, number: int, kind: int, meta: Any, body: bytes | memoryview) -> bool:
    """One job, answered whatever it does. False if this worker should not take another one."""
    try:
        if kind == HANDLE:
            reply_meta, content = handle(meta, body)
            if forks.in_child:
                forks.end_child()
            if isinstance(content, memoryview):
                content = content.cast("B")  # its length in bytes
            if isinstance(content, (bytes, bytearray, memoryview)):
                link.send_result(number, RESULT, reply_meta, content)
            else:
                send_stream(link, number, reply_meta, content)
        else:
            function, args, kwargs = unpack(meta, body)
            result = function(*args, **kwargs)
            if forks.in_child:
                forks.end_child()
            if kind == CALL:
                lengths, pieces = pack(result)
                link.send_result(number, PICKLED, lengths, *pieces)
            else:
                pickles = (pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in result)
                send_stream(link, number, None, pickles)
    except OSError as error:
        if forks.in_child:
            forks.end_child(error)
        if link.is_closed():
            raise
        return send_error(link, number, kind, error)
    except BaseException as error:
        if forks.in_child:
            forks.end_child(error)
        return send_error(link, number, kind, error)
    return True


def send_stream(link: Link, number: int, meta: Any, chunks: Iterator[bytes]) -> None:
    """The socket is the back-pressure: when the server stops reading it, `send` waits and so does the generator."""
    link.send(number, STREAM, meta)
    for chunk in chunks:
        link.send(number, CHUNK, None, chunk)
    link.let_go_of_body(number)
    link.send(number, END)


def send_error(link: Link, number: int, kind: int, error: BaseException) -> bool:
    """The error as text. After a MemoryError the worker leaves: what it still holds, nobody knows."""
    leaving = isinstance(error, MemoryError)
    if link.answered == number:  # it came behind the answer
        return not leaving
    body = b"" if kind == HANDLE else pickled_error(error)
    link.let_go_of_body(number)
    link.send(number, ERROR, (*error_text(error), leaving), body)
    return not leaving


def error_text(error: BaseException) -> tuple[str, str, str]:
    """The name of its type, its message and its traceback; none of an error of ours, which says all in its message."""
    try:
        message = str(error)
    except BaseException:
        message = "(its __str__ failed)"
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "__main__"):
        name = f"{type(error).__module__}.{name}"
    shown = "" if isinstance(error, TinysvcError) else author_traceback(error)
    return _text(name), _text(message), _text(shown)


def _text(text: str) -> str:
    """Of any text, what UTF-8 can carry and a log can hold."""
    return text[-MAX_ERROR_TEXT:].encode(errors="backslashreplace").decode()


def pickled_error(error: BaseException) -> bytes:
    """A pickle of the exception and of whether it comes out as it went in, for run(), submit() and cpu().

    Many exceptions do not, as their __init__ takes other arguments than those that they keep. A stand-in is made of
    these without __init__: of the same class, or an HTTPError if that is what the class, unknown elsewhere, is made of.
    Empty if that fails, too.
    """
    made: list[tuple[object, type]] = [(error, type(error)), (_StandIn(error, type(error)), type(error))]
    if isinstance(error, HTTPError):
        made.append((_StandIn(error, HTTPError), HTTPError))
    for value, kind in made:
        data = _pickle_of((value, value is error))
        if data and type(pickle.loads(data)[0]) is kind:
            return data
    return b""


class _StandIn:
    """An exception that is pickled by its arguments and attributes: what cannot be pickled of them is left out."""

    def __init__(self, error: BaseException, kind: type[BaseException]) -> None:
        self._error, self._kind = error, kind

    def __reduce__(self) -> tuple[Any, ...]:
        args = tuple(each if _pickle_of(each) else repr(each) for each in self._error.args)
        state = {name: each for name, each in vars(self._error).items() if _pickle_of(each)}
        return _without_init, (self._kind, args, state)


def _without_init(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _pickle_of(value: object) -> bytes:
    """Empty if the value cannot be pickled, or not unpickled."""
    try:
        data = pickle.dumps(value)
        pickle.loads(data)
    except BaseException:
        return b""
    return data


def _memory() -> int:
    """Bytes of memory this process holds (RSS); where the system does not tell, the most it ever held."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(100).split()[1]) * resource.getpagesize()
    except OSError:
        return peak_bytes(resource.getrusage(resource.RUSAGE_SELF))


def _leave(status: int) -> NoReturn:
    """End a forked worker without running the forkserver's own exit handlers."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(status)
