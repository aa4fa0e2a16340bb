"""How a worker ended: its exit code in words, its peak memory, and its Python stack.

    in the worker   enable_crash_reports ──> the Python stack, in an anonymous file (the worker's crash file)
    forkserver      exit code, peak memory, out-of-memory kills
    in the server   describe_end ──> "was killed by SIGSEGV; peak memory 41 MiB; Python stack, ..."

A job may have taken control of its worker, so nothing in the crash file is trusted: no text from it can forge a line of
the log.
"""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path

from ..core.stack_dumps import DUMP_SIGNAL
from ..core.tracebacks import one_line

STACK_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
"""Makes a worker write its Python stack and end, also when it is stuck in C code or at a lock."""


# In a worker


_crash_file = -1


def enable_crash_reports(descriptor: int) -> None:
    """Write the Python stack of this process to `descriptor` when it crashes, and at DUMP_SIGNAL those of all threads.

    The file is empty and only ours.
    """
    global _crash_file
    _crash_file = descriptor
    faulthandler.enable(descriptor, all_threads=False)
    faulthandler.register(STACK_SIGNAL, descriptor, all_threads=False, chain=True)  # then the signal ends the process
    faulthandler.register(DUMP_SIGNAL, descriptor, all_threads=True)


def restore_crash_reports() -> None:
    """Enable crash reports again after a job has set its own handlers for these signals."""
    faulthandler.disable()
    faulthandler.unregister(STACK_SIGNAL)
    faulthandler.unregister(DUMP_SIGNAL)
    enable_crash_reports(_crash_file)


# In the server


def describe_end(exit_code: int | None, kill_reason: str, *, out_of_memory: bool | None, peak: int, stack: str) -> str:
    """Describe the end of a worker for the log: "was killed by SIGSEGV; peak memory 41 MiB; ..." and the Python stack.

    Args:
        exit_code: As os.waitstatus_to_exitcode returns it; None if the worker has no process any more.
        kill_reason: Why the pool killed the worker; "" if it did not.
        out_of_memory: Whether the kernel killed processes because memory ran out; None if the system has no counter.
        peak: The most memory that the worker held, in bytes; 0 if unknown.
        stack: The content of its crash file.
    """
    report = [_ending(exit_code, kill_reason, out_of_memory)]
    if peak:
        report.append(f"peak memory {peak / 2**20:.0f} MiB")
    frames = _author_frames(stack) if exit_code in _CRASHES or kill_reason else []
    if frames:
        report.append("\n".join(["Python stack, last call first:", *frames]))
    return "; ".join(report)


_CRASHES = {-number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)}
"""Exit codes after which faulthandler has written a stack. After other codes the stack is that of a forked child."""

_OUT_OF_MEMORY = {True: ", likely out of memory", False: " from outside the pool", None: ", perhaps out of memory"}


def _ending(exit_code: int | None, kill_reason: str, out_of_memory: bool | None) -> str:
    if kill_reason:
        return f"was killed: it {kill_reason}"
    if exit_code is None:
        return "was ended"
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    if exit_code == -signal.SIGKILL:
        return f"was killed by SIGKILL{_OUT_OF_MEMORY[out_of_memory]}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was killed by {names.get(-exit_code, f'signal {-exit_code}')}"


_OUR_FILES = tuple(
    f'  File "{start}'.encode("ascii", "backslashreplace").decode()  # as faulthandler writes it
    for start in (f"{Path(__file__).parents[1]}/", "<string>")  # the forkserver is started with `python -c`
)


def _author_frames(stack: str) -> list[str]:
    """The frames of the last stack in faulthandler's text, without ours; all frames if all are ours."""
    stack = stack.rpartition("Fatal Python error")[2].rpartition("Stack (most recent call first):")[2]
    lines = stack.splitlines()
    frames = [one_line(line) for line in lines if line.startswith('  File "')]
    return [frame for frame in frames if not frame.startswith(_OUR_FILES)] or frames
