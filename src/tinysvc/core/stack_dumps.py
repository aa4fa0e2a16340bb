"""The Python stacks of all threads of a process, also of one that is stuck in C code or waits for a lock.

    in the process      faulthandler waits for DUMP_SIGNAL; its handler, in C, appends the stacks to an anonymous file
    another process     sends the signal, and reads what the file has gained: StackDump

The handler needs neither the interpreter's lock nor a thread that runs Python. The other process needs no right to
trace the first one: a server has the file open, and the command line opens it below `/proc/PID/fd`, which the same user
may do. The file has a name by which the command line finds it: DUMP_SIGNAL would kill a process without the handler.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import tempfile
from time import monotonic

DUMP_SIGNAL = signal.SIGRTMAX - 1 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR1
"""Makes a process of ours write the stacks of all its threads, and go on."""

FILE_NAME, OWN_FILE_NAME = "tinysvc-stacks", "tinysvc-own-stacks"
"""Names of the files of workers, which their server has open, too; and of other processes."""

MAX_FILE = 256 * 1024
"""Bytes of a file after which its next dump begins at its start again."""

MAX_TEXT = 128 * 1024
"""Bytes of a dump that are read: faulthandler writes at most 100 threads of 100 frames."""

SETTLED = 0.05
"""Seconds without a further byte after which a dump is complete. All of it takes about 1 ms."""

DUMP_LIMIT = 2.0
"""Seconds for a dump. A process that is stopped, or held by the kernel, writes none."""

_UNPRINTABLE = re.compile(r"[^\n -~]")


def dump_file(name: str = FILE_NAME) -> int:
    """The descriptor of a new file for dumps, to which every process appends. OSError if none can be made."""
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # not on Linux, or in a sandbox
        with tempfile.TemporaryFile(buffering=0, prefix=name) as file:
            descriptor = os.dup(file.fileno())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
    return descriptor


_own_file = -1


def enable_stack_dumps() -> None:
    """Let this process, with a new file, write its stacks at DUMP_SIGNAL. A forked child calls it again."""
    global _own_file
    import faulthandler

    before = _own_file
    try:
        _own_file = dump_file(OWN_FILE_NAME)
    except OSError:  # no descriptor is free: the service matters more
        return
    faulthandler.register(DUMP_SIGNAL, _own_file, all_threads=True)
    if before >= 0:
        os.close(before)


def close_own_file() -> None:
    """In a forked child whose dumps go to another file."""
    global _own_file
    if _own_file >= 0:
        os.close(_own_file)
        _own_file = -1


class StackDump:
    """What a file gains by one signal. Make it, send DUMP_SIGNAL, and call `is_complete` until it is True."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begin = os.fstat(descriptor).st_size
        if self._begin > MAX_FILE:
            os.ftruncate(descriptor, 0)
            self._begin = 0
        self._size, self._since = self._begin, monotonic()

    def is_complete(self) -> bool:
        size = os.fstat(self._descriptor).st_size
        if size != self._size:
            self._size, self._since = size, monotonic()
        return size > self._begin and monotonic() - self._since >= SETTLED

    def text(self) -> str:
        """The stacks as faulthandler writes them, last call first. Code in that process may have written them, too."""
        text = os.pread(self._descriptor, MAX_TEXT, self._begin).decode("ascii", "backslashreplace")
        return _UNPRINTABLE.sub("?", text)
