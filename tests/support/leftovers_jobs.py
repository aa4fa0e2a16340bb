"""Jobs that leave timers, signals, threads and forked children behind."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any


class TooLong(Exception):
    """As raised by decorators that limit the time of a function."""


def ring(*_: object) -> None:
    raise TooLong("the alarm of another job")


def leave_everything_behind() -> None:
    signal.signal(signal.SIGALRM, ring)
    signal.signal(signal.SIGUSR1, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.01)
    signal.setitimer(signal.ITIMER_PROF, 10)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    os.set_blocking(wakeup := os.pipe()[1], False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    faulthandler.dump_traceback_later(60)
    sys.setprofile(lambda *_: None)


def surroundings() -> tuple[Any, ...]:
    time.sleep(0.1)
    return (
        signal.getsignal(signal.SIGUSR1) is ring,
        signal.getitimer(signal.ITIMER_REAL),
        signal.getitimer(signal.ITIMER_PROF),
        len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        signal.set_wakeup_fd(-1),
        sys.getprofile(),
    )


HANDLING = ("left", "restored", "by a loop", "ignored", "held back")
"""Ways in which a job handles a signal that arrives again after the job."""


def leave_a_signal_to_come(number: int, way: str, go: str) -> None:
    """Leave a thread behind that sends the signal to the worker when the file `go` exists."""
    if way == "held back":
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    elif way == "by a loop":

        async def handle() -> None:
            asyncio.get_running_loop().add_signal_handler(number, lambda: None)

        asyncio.run(handle())
    else:
        before = signal.signal(number, signal.SIG_IGN if way == "ignored" else ring)
        if way == "restored":
            signal.signal(number, before)

    def send() -> None:
        while not os.path.exists(go):
            time.sleep(0.001)
        os.kill(os.getpid(), number)
        os.rename(go, go + "-sent")

    threading.Thread(target=send, daemon=True).start()


def wait_for_the_signal(go: str) -> int:
    while not os.path.exists(go + "-sent"):
        time.sleep(0.001)
    return os.getpid()


def death_of_children(number: int) -> tuple[int, int]:
    """The exit codes of a program and of a forked child that send the signal to themselves."""
    program = subprocess.run(["sh", "-c", f"kill -{number} $$"], check=False).returncode
    if not (child := os.fork()):
        os.kill(os.getpid(), number)
        os._exit(0)
    return program, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def handle_crashes() -> None:
    for number in (signal.SIGSEGV, signal.SIGABRT):
        signal.signal(number, ring)


def raise_in_the_main_thread(error: type[BaseException] = TooLong) -> int:
    """Leave a thread behind that raises exceptions in the main thread, again and again."""
    main = threading.main_thread().ident or 0

    def throw() -> None:
        for _ in range(200):
            time.sleep(0.001)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(error))

    threading.Thread(target=throw, daemon=True).start()
    return 1


def big_text_with_an_alarm(size: int, after: float) -> bytes:
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, after, 0.001)
    return b"1" * size


def wait_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def sort_in_c(size: int) -> int:
    return sum(map(abs, range(size)))


def fork_and_return() -> int:
    return os.fork()


def count_with_an_alarm(stop: int) -> Iterator[int]:
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    yield from range(stop)


def process_id() -> int:
    return os.getpid()
