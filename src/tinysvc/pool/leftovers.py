"""In a worker: what a job has set in its process, and the next job must not meet.

Timers, signal handlers, the signal mask, the wake-up descriptor, trace and profile functions, and a traceback dump that
is still to come. What stood when the worker became ready (the author's modules and resources may have set it) stands
again after each job. But a signal that a job has handled or held back is discarded from then on, where it would end or
stop the worker: a thread or a child of that job may send it later. Working directory, umask, environment and globals
stay as a job leaves them, as in every program.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from .worker_logs import STACK_SIGNAL, watch_crashes_again

touched = True
"""Whether a function that can leave something behind was called since it was last cleared."""

_TIMERS = {
    signal.ITIMER_REAL: signal.SIGALRM,
    signal.ITIMER_VIRTUAL: signal.SIGVTALRM,
    signal.ITIMER_PROF: signal.SIGPROF,
}

_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
"""Signals of a crash: one that is discarded comes again without end. These and STACK_SIGNAL are faulthandler's."""
_FAULTS.add(STACK_SIGNAL)

_handled: set[int] = set()
"""Signals that were given a handler since it was last cleared."""


def note_calls() -> None:
    """From now on `touched` tells of such calls. Called before the author's modules load, which may import them by
    name. To look after each job would take several system calls; a library in C that makes them itself is not seen."""
    names = ("signal", "setitimer", "alarm", "set_wakeup_fd", "pthread_sigmask")
    for owner, name in [*((signal, name) for name in names), (faulthandler, "dump_traceback_later")]:
        if hasattr(owner, name):
            setattr(owner, name, _noting(getattr(owner, name)))
    signal.signal = _noting_number(signal.signal)
    for name in ("settrace", "setprofile"):
        setattr(sys, name, _noting(getattr(sys, name)))


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        global touched
        touched = True
        return function(*args, **kwargs)

    return call


def _noting_number(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(number: int, handler: Any) -> Any:
        _handled.add(number)
        return function(number, handler)

    return call


def ignore_late_timers() -> None:
    """A timer's signal that comes after its job must not kill the worker. Children would inherit SIG_IGN."""
    for number in _TIMERS.values():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _discard)


def _discard(number: int, stack_frame: object) -> None:
    pass


def discarded() -> list[int]:
    """Signals that are discarded now. In a forked child they mean what they always do."""
    return [number for number in signal.valid_signals() if signal.getsignal(number) is _discard]


def clearer() -> Callable[[], None]:
    """A function that sets all of it as it is now. It takes some 10 us: to be called when `touched`."""
    if threading.current_thread() is not threading.main_thread():  # nothing here could have been set either
        return lambda: None
    timers = [timer for timer in _TIMERS if not any(signal.getitimer(timer))]
    numbers = sorted({int(number) for number in signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP})
    get = signal._signal.getsignal  # type: ignore[attr-defined]  # without making an enum of each
    set_mask = signal._signal.pthread_sigmask  # type: ignore[attr-defined]
    set_timer, set_wakeup = signal.setitimer, signal.set_wakeup_fd
    handlers = list(map(get, numbers))
    mask = set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    _handled.clear()
    trace, profile = sys.gettrace(), sys.getprofile()
    cancel_dump = faulthandler.cancel_dump_traceback_later

    def clear() -> None:
        global touched
        for timer in timers:
            set_timer(timer, 0)
        held_back = set_mask(signal.SIG_BLOCK, ()) - mask
        for number in (_handled | held_back) - _FAULTS:
            if number in numbers and handlers[place := numbers.index(number)] == signal.SIG_DFL:
                handlers[place] = _discard
        if (now := list(map(get, numbers))) != handlers:
            for number, handler, other in zip(numbers, handlers, now, strict=True):
                if handler is not other and handler is not None:
                    signal.signal(number, handler)
        if not _FAULTS.isdisjoint(_handled):
            watch_crashes_again()
        _handled.clear()
        set_mask(signal.SIG_SETMASK, mask)
        set_wakeup(-1)
        cancel_dump()
        if sys.gettrace() is not trace:
            sys.settrace(trace)
        if sys.getprofile() is not profile:
            sys.setprofile(profile)
        touched = False

    return clear
