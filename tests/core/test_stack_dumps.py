"""core/stack_dumps.py: a process writes the stacks of all its threads at a signal."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from tinysvc.core import stack_dumps
from tinysvc.core.stack_dumps import DUMP_SIGNAL, MAX_FILE, StackDump, dump_file

PROGRAM = """
import os, signal, threading
from tinysvc.core import stack_dumps
stack_dumps.enable_stack_dumps()
stack_dumps.enable_stack_dumps()
lock = threading.Lock()
lock.acquire()

def waits_for_a_lock() -> None:
    lock.acquire()

thread = threading.Thread(target=waits_for_a_lock, daemon=True)
thread.start()
dump = stack_dumps.StackDump(stack_dumps._own_file)
os.kill(os.getpid(), stack_dumps.DUMP_SIGNAL)
while not dump.is_complete():
    pass
print(dump.text(), flush=True)
stack_dumps.close_own_file()
os._exit(0)
"""


def test_all_threads_are_in_the_text() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    out = done.stdout
    assert "in waits_for_a_lock" in out
    assert "Current thread" in out


def completed(dump: StackDump) -> str:
    end = time.monotonic() + 30
    while not dump.is_complete():
        assert time.monotonic() < end
        time.sleep(0.01)
    return dump.text()


def test_text_is_what_the_file_gains() -> None:
    descriptor = dump_file()
    try:
        os.write(descriptor, b"an earlier dump\n")
        dump = StackDump(descriptor)
        assert not dump.is_complete()
        writer = threading.Thread(target=os.write, args=(descriptor, b"Thread 1\n\x1b[31m\xff\n"))
        writer.start()
        assert completed(dump) == "Thread 1\n?[31m\\xff\n"
        writer.join()
    finally:
        os.close(descriptor)


def test_full_file_begins_again() -> None:
    descriptor = dump_file()
    try:
        os.write(descriptor, b"x" * (MAX_FILE + 1))
        dump = StackDump(descriptor)
        os.write(descriptor, b"Thread 2\n")
        assert completed(dump) == "Thread 2\n"
        assert os.fstat(descriptor).st_size == 9
    finally:
        os.close(descriptor)


def test_file_is_a_temporary_one_where_memfd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError("refused")

    monkeypatch.setattr(os, "memfd_create", refuse)
    descriptor = dump_file()
    try:
        os.pwrite(descriptor, b"a", 0)
        os.write(descriptor, b"b")
        assert os.pread(descriptor, 9, 0) == b"ab"
    finally:
        os.close(descriptor)


def test_service_goes_on_where_no_file_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise OSError("no descriptor is free")

    monkeypatch.setattr(stack_dumps, "dump_file", refuse)
    stack_dumps.enable_stack_dumps()
    assert stack_dumps._own_file == -1
    assert DUMP_SIGNAL
