"""In a worker: undo the changes that a job made to its process, before the next job runs.

These are timers, signal handlers, the signal mask, the wake-up descriptor, trace and profile functions, and a traceback
dump that is still to come. After each job they are again as they were when the worker became ready (the author's
modules and resources may have set them). One exception: a signal that a job has handled or blocked, and whose default
effect is to end or stop the worker, is discarded from then on, because a thread or a child of that job may send it
later. Working directory, umask, environment and globals stay as a job leaves them, as in every program.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from ..core.stack_dumps import DUMP_SIGNAL
from .crash_reports import STACK_SIGNAL, restore_crash_reports

at_end_of_job: set[Callable[[], object]] = set()
"""Calls that are due at the end of the current job. Most jobs add none."""

touched = True
"""Whether a function that changes the process was called since the last reset."""

_TIMERS = {
    signal.ITIMER_REAL: signal.SIGALRM,
    signal.ITIMER_VIRTUAL: signal.SIGVTALRM,
    signal.ITIMER_PROF: signal.SIGPROF,
}

_FAULTS: set[int] = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
"""Signals of a crash: discarded, they would be raised again without end. These and the two below are faulthandler's."""
_FAULTS |= {signal.SIGTRAP, signal.SIGSYS, STACK_SIGNAL, DUMP_SIGNAL}

_handled: set[int] = set()
"""Signals that got a handler since the last reset."""


def watch_calls() -> None:
    """Set `touched` at each such call from now on.

    Called before the author's modules load, as they may import these functions by name. Checking after each job instead
    would take several system calls. Calls from C libraries are not seen.
    """
    names = ("signal", "setitimer", "alarm", "set_wakeup_fd", "pthread_sigmask")
    for owner, name in [*((signal, name) for name in names), (faulthandler, "dump_traceback_later")]:
        if hasattr(owner, name):
            setattr(owner, name, _watched(getattr(owner, name)))
    signal.signal = _with_number_noted(signal.signal)
    for name in ("settrace", "setprofile"):
        setattr(sys, name, _watched(getattr(sys, name)))


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        global touched
        touched = True
        return function(*args, **kwargs)

    return call


def _with_number_noted(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(number: int, handler: Any) -> Any:
        _handled.add(number)
        return function(number, handler)

    return call


def discard_late_timers() -> None:
    """Discard the signal of a timer that outlives its job: it would kill the worker. Children would inherit SIG_IGN."""
    for number in _TIMERS.values():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _discard)


def _discard(number: int, stack_frame: object) -> None:
    pass


def discarded() -> list[int]:
    """The signals that are discarded now. In a process that a job forks they get their default effect again."""
    return [number for number in signal.valid_signals() if signal.getsignal(number) is _discard]


def reset_function() -> Callable[[], None]:
    """A function that resets the process to its present state. It takes about 10 us: call it when `touched`."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        return lambda: None
    timers = [timer for timer in _TIMERS if not any(signal.getitimer(timer))]
    numbers = sorted({int(number) for number in signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP})
    get = signal._signal.getsignal  # type: ignore[attr-defined]  # without converting each one to an enum
    set_mask = signal._signal.pthread_sigmask  # type: ignore[attr-defined]
    set_timer, set_wakeup = signal.setitimer, signal.set_wakeup_fd
    handlers = list(map(get, numbers))
    mask = set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    _handled.clear()
    trace, profile = sys.gettrace(), sys.getprofile()
    cancel_dump = faulthandler.cancel_dump_traceback_later

    def reset() -> None:
        global touched
        for timer in timers:
            set_timer(timer, 0)
        blocked = set_mask(signal.SIG_BLOCK, ()) - mask
        for number in (_handled | blocked) - _FAULTS:
            if number in numbers and handlers[index := numbers.index(number)] == signal.SIG_DFL:
                handlers[index] = _discard
        if (now := list(map(get, numbers))) != handlers:
            for number, handler, other in zip(numbers, handlers, now, strict=True):
                if handler is not other and handler is not None:
                    signal.signal(number, handler)
        if not _FAULTS.isdisjoint(_handled):
            restore_crash_reports()
        _handled.clear()
        set_mask(signal.SIG_SETMASK, mask)
        set_wakeup(-1)
        cancel_dump()
        if sys.gettrace() is not trace:
            sys.settrace(trace)
        if sys.getprofile() is not profile:
            sys.setprofile(profile)
        touched = False

    return reset
