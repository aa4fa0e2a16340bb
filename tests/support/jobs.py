"""Functions for worker processes: jobs that work, and jobs that fail in many ways."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tinysvc.pool.frames import FRAME
from tinysvc.pool.program import JobFunction, Reply


def add(a: int, b: int) -> int:
    return a + b


def pid() -> int:
    return os.getpid()


def echo(value: Any) -> Any:
    return value


def count(n: int) -> Iterator[int]:
    yield from range(n)


def count_and_note(path: str) -> Iterator[bytes]:
    """Yield without end, and note the last number in a file."""
    number = 0
    while True:
        with open(path, "w") as file:
            file.write(str(number))
        number += 1
        yield b"x" * 65536


def touch(path: str) -> None:
    with open(path, "w"):
        pass


def wait_for(path: str) -> int:
    """Wait until the file exists."""
    while not os.path.exists(path):
        time.sleep(0.001)
    return os.getpid()


def touch_and_wait(started: str, go: str) -> int:
    touch(started)
    return wait_for(go)


def touch_and_spin(started: str) -> NoReturn:
    touch(started)
    while True:
        pass


def spin() -> NoReturn:
    while True:
        pass


def sleep_in_c() -> None:
    """Block in a C call that holds the GIL: no Python signal handler runs."""
    ctypes.PyDLL(None).sleep(3600)


def raise_value_error() -> NoReturn:
    raise ValueError("no such value")


class Picky(Exception):
    """Can be pickled, but not unpickled: `args` lacks its two arguments."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("picky")


def raise_picky() -> NoReturn:
    raise Picky(1, 2)


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: None)


def raise_unpicklable() -> NoReturn:
    raise Unpicklable


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


def raise_bad_str() -> NoReturn:
    raise BadStr


def raise_system_exit() -> NoReturn:
    sys.exit(7)


def raise_keyboard_interrupt() -> NoReturn:
    raise KeyboardInterrupt


def raise_memory_error() -> NoReturn:
    raise MemoryError


def overflow() -> Any:
    return overflow()


def return_lambda() -> Callable[[], None]:
    return lambda: None


class Bomb:
    """Run code in the process that unpickles it, and fail there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_explode, ())


def _explode() -> NoReturn:
    raise RuntimeError("unpickled")


def return_bomb() -> Bomb:
    return Bomb()


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def exit_now(status: int) -> None:
    os._exit(status)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def close_all_descriptors() -> str:
    os.closerange(0, 1024)
    return "still here"


def write_garbage() -> str:
    """Print, and write garbage to every descriptor above the standard ones."""
    print("garbage on stdout")
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\xff" * 64)
        except OSError:
            pass
    return "written"


def fork_child_and_return(path: str) -> int:
    """Leave a child process that holds every descriptor of the worker."""
    child = os.fork()
    if child == 0:
        touch(path)
        time.sleep(3600)
        os._exit(0)
    wait_for(path)
    return child


def fork_child_and_exit(path: str) -> None:
    fork_child_and_return(path)
    os._exit(9)


def start_subprocess_and_spin(path: str) -> NoReturn:
    subprocess.Popen(["sleep", "3600"])
    touch(path)
    spin()


def own_channel() -> socket.socket:
    """Find the worker's socket to the server, as only a hostile job does."""
    for descriptor in range(3, 64):
        try:
            found = socket.socket(fileno=os.dup(descriptor))
            found.getpeername()
        except OSError:
            continue
        return found
    raise LookupError


def die_in_mid_frame() -> None:
    with own_channel() as channel:
        channel.sendall(FRAME.pack(10, 50_000_000) + b"x" * 100_000)
    os._exit(5)


def change_signals_and_folder() -> str:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.chdir("/")
    return "changed"


def initialize(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def initialize_badly() -> NoReturn:
    raise RuntimeError("the initializer fails")


@contextmanager
def upper_program(closed_path: str = "") -> Iterator[JobFunction]:
    """A program of a pool: frames in, frames out."""

    def handle(meta: Any, body: bytes | memoryview) -> Reply:
        if meta == "stream":
            return Reply("streaming", iter([bytes(body), bytes(body).upper()]))
        if meta == "surrogate":
            raise ValueError("\udcff x")
        return Reply([meta], bytes(body).upper())

    yield handle
    if closed_path:
        touch(closed_path)


@contextmanager
def failing_while_file_exists(path: str) -> Iterator[JobFunction]:
    if os.path.exists(path):
        raise RuntimeError("the resource cannot be opened")

    def handle(meta: Any, body: bytes | memoryview) -> Reply:
        return Reply(None, body)

    yield handle


@contextmanager
def plain_slow_program() -> Iterator[JobFunction]:
    yield lambda meta, body: Reply(None, body)


@contextmanager
def failing_program() -> Iterator[JobFunction]:
    raise RuntimeError("the resource cannot be opened")
    yield lambda meta, body: Reply(None, body)


def kill_self_with(number: int) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def hostile_program(path: str) -> Iterator[JobFunction]:
    """A program that sends forged frames to the server."""
    import pickle

    from tinysvc.pool.frames import (
        BodyInUse,
        Chunk,
        ErrorText,
        Head,
        JobError,
        Pickled,
        Ready,
        Result,
        StartFailed,
        StreamEnd,
        frame,
    )

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (touch, (path,))

    def handle(meta: Any, body: bytes | memoryview) -> Reply:
        payload = pickle.dumps(Touch())
        number = next_number()
        if meta == "error":
            send(JobError(number, ErrorText("X", "message", "traceback")), payload)
            time.sleep(3600)
        if meta == "pickled":
            send(Pickled(number, []), payload)
            time.sleep(3600)
        out_of_turn: dict[Any, Head] = {
            "ready": Ready(),
            "failed start": StartFailed("Traceback"),
            "piece": Chunk(number),
            "end of a stream": StreamEnd(number),
            "body in use": BodyInUse(number),
        }
        if meta in out_of_turn:
            send(out_of_turn[meta], b"")
            time.sleep(3600)
        if meta == "wrong number":
            with own_channel() as sock:
                sock.sendall(frame(Result(77, None)) + frame(Result(number, None)))
            time.sleep(3600)
        return Reply(None, body)

    def next_number() -> int:
        frame = sys._getframe()
        while frame.f_code.co_name != "_run_job":
            assert frame.f_back is not None
            frame = frame.f_back
        number: int = frame.f_locals["job"].number
        return number

    def send(head: Head, body: bytes) -> None:
        with own_channel() as sock:
            sock.sendall(frame(head, len(body)) + body)

    yield handle


@contextmanager
def lying_program(claim: Any) -> Iterator[JobFunction]:
    """Claim that the result is in an arena that holds none."""
    from tinysvc.pool.frames import Result, frame

    def handle(meta: Any, body: bytes | memoryview) -> Reply:
        number = sys._getframe(1).f_locals["job"].number
        with own_channel() as channel:
            channel.sendall(frame(Result(number, None, claim)))
        time.sleep(3600)
        return Reply(None, b"")

    yield handle


@contextmanager
def flooding_program() -> Iterator[JobFunction]:
    def handle(meta: Any, body: bytes | memoryview) -> Reply:
        return Reply(meta, itertools.repeat(bytes(100_000)) if meta == "flood" else b"")

    yield handle


def stream_in_disguise() -> None:
    """Begin a stream as the result of a function call."""
    from tinysvc.pool.frames import StreamBegin, frame

    with own_channel() as channel:
        channel.sendall(frame(StreamBegin(sys._getframe(1).f_locals["job"].number, None)))
    time.sleep(3600)


@contextmanager
def crashing_program() -> Iterator[JobFunction]:
    def handle(meta: Any, body: bytes | memoryview) -> Reply:
        if meta == "crash":
            segfault()
        return Reply(meta, b"")

    yield handle


@contextmanager
def slow_while_file_exists(path: str) -> Iterator[JobFunction]:
    while os.path.exists(path):
        time.sleep(0.001)
    yield lambda meta, body: Reply(None, bytes(body))


class Preloaded:
    """A program with 200 MB that the forkserver opens for all workers."""

    def __init__(self, path: str) -> None:
        self.path = path

    @contextmanager
    def preload(self) -> Iterator[None]:
        import numpy

        self._note("open ")
        self.array = numpy.ones(200_000_000, dtype="u1")
        yield
        self._note("close ")

    def _note(self, text: str) -> None:
        with open(self.path, "a") as file:
            file.write(text)

    @contextmanager
    def __call__(self) -> Iterator[JobFunction]:
        yield lambda meta, body: Reply(int(self.array.sum()), b"")


leaked: list[bytes] = []


def leak(size: int) -> int:
    leaked.append(b"x" * size)
    return os.getpid()


# More faults, for test_faults.py


def match_catastrophically() -> object:
    """Match a regular expression that backtracks practically for ever, in one C call."""
    return re.match(r"(a+)+$", "a" * 64 + "b")


def sleep_with_signals_blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    time.sleep(3600)


def stop_self() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def start_thread_and_return() -> str:
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return "started"


def start_thread_and_exit() -> None:
    start_thread_and_return()
    os._exit(4)


def loop_and_ignore_sigterm() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    spin()


class Deadly:
    """Kill the process that pickles it."""

    def __reduce__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def return_deadly() -> Deadly:
    return Deadly()


def return_too_much() -> bytes:
    return bytes(200 * 1024 * 1024)


def return_too_deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def raise_deep_chain() -> NoReturn:
    error: Exception = ValueError("the first")
    for number in range(1000):
        error.__cause__ = ValueError(f"number {number}")
        error = error.__cause__
    raise error


def raise_stop_iteration() -> NoReturn:
    raise StopIteration


def raise_cancelled() -> NoReturn:
    raise asyncio.CancelledError


def raise_generator_exit() -> NoReturn:
    raise GeneratorExit


def abort_from_a_thread() -> None:
    thread = threading.Thread(target=os.abort)
    thread.start()
    thread.join()


def change_limits() -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    return "changed"


def fill_stdout() -> str:
    print("x" * 10_000_000)
    return "printed"


def close_standard_descriptors() -> str:
    os.closerange(0, 3)
    print("to no reader")
    return "printed"


@contextmanager
def keeping_program() -> Iterator[JobFunction]:
    """Keep a part of each body, as a handler should not, and read all kept parts in each job."""
    kept: list[Any] = []

    def handle(meta: Any, body: bytes | memoryview) -> Reply:
        if meta == "a part":
            kept.append(memoryview(body)[10:20])
        elif meta == "an array":
            import numpy

            kept.append(numpy.frombuffer(body, "u1"))
        elif meta == "in an error":
            part = memoryview(body)[10:20]
            error = ValueError("kept")
            kept.append(error)
            raise error from ValueError(part)
        return Reply([int(each[0]) for each in kept], b"")

    yield handle


class Versioned:
    """A program that answers with its version and its pid, and opens as the words in its file say.

    `slow`: it touches `FILE.slow` and waits while the word is there; `second-slow`: only the second worker does;
    `fails`; `dies`; `hungry`: it takes too much memory. With `preload-` before them they hold for the forkserver.
    """

    def __init__(self, version: str, path: str = "") -> None:
        self.version = version
        self.path = path

    def _words(self) -> list[str]:
        try:
            return Path(self.path).read_text().split() if self.path else []
        except FileNotFoundError:
            return []

    def _step(self, prefix: str) -> None:
        words = self._words()
        if f"{prefix}fails" in words:
            raise RuntimeError(f"version {self.version} cannot be opened")
        if f"{prefix}dies" in words:
            kill_self()
        if f"{prefix}hungry" in words:
            bytearray(1 << 40)
        if words:
            initialize(f"{self.path}.{prefix}opened")
        is_second = not prefix and bool(words) and os.path.getsize(f"{self.path}.opened") > 1
        if f"{prefix}slow" in words or ("second-slow" in words and is_second):
            touch(f"{self.path}.slow")
            while self._words():
                time.sleep(0.005)

    @contextmanager
    def preload(self) -> Iterator[None]:
        self._step("preload-")
        yield

    @contextmanager
    def __call__(self) -> Iterator[JobFunction]:
        self._step("")

        def handle(meta: Any, body: bytes | memoryview) -> Reply:
            if meta == "stream":
                return Reply([self.version, os.getpid()], self._pieces(bytes(body).decode()))
            if meta:
                initialize(meta)  # so that a test can count the runs of a job
            return Reply([self.version, os.getpid()], body)

        yield handle

    def _pieces(self, path: str) -> Iterator[bytes]:
        while not os.path.exists(path):
            yield self.version.encode()
            time.sleep(0.005)
