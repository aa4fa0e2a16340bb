"""Jobs that are stuck, for tests of stack dumps."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path

from tinysvc.core.stack_dumps import DUMP_SIGNAL


def stuck_in_c(begun: str) -> None:
    """Hold the interpreter's lock in C code; a second thread waits for a lock."""
    lock = threading.Lock()
    lock.acquire()
    threading.Thread(target=wait_for, args=(lock,), daemon=True).start()
    Path(begun).touch()
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    while True:  # the second time waits without end
        libc.pthread_mutex_lock(mutex)


def wait_for(lock: threading.Lock) -> None:
    lock.acquire()


def stopped(begun: str) -> None:
    Path(begun).touch()
    os.kill(os.getpid(), signal.SIGSTOP)


def take_the_signal() -> None:
    signal.signal(DUMP_SIGNAL, lambda *_: None)


def wait_for_file(path: str) -> None:
    while not Path(path).exists():
        threading.Event().wait(0.01)
