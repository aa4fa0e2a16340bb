"""Forks in a handler (os.fork, multiprocessing's "fork"): the child must not act as the server or the worker.

Without protection the child shares the sockets, the event loop and its wake-up descriptor for signals: a SIGTERM to the
child ends the server, and a SystemExit in the child makes a second server. The owners of descriptors therefore register
here. In a child, their descriptors are replaced by /dev/null, which keeps the numbers in use. A child that returns from
the handler is ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

_owners: weakref.WeakKeyDictionary[Any, Callable[[Any], Iterable[int]]] = weakref.WeakKeyDictionary()

in_child = False
"""Whether this process is a forked child of a process with registered owners."""


def detach_in_child(owner: Any, descriptors: Callable[[Any], Iterable[int]]) -> None:
    """In a forked child, replace `descriptors(owner)` by /dev/null. `descriptors` may do more there."""
    _owners[owner] = descriptors


def end_child(error: BaseException | None = None) -> NoReturn:
    """End a forked child that has returned from the author's code, with the exit status of an interpreter."""
    status = 1
    if isinstance(error, SystemExit):
        status = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        if error.code is not None and not isinstance(error.code, int):
            _print_error(str(error.code))
    elif error is None:
        _print_error(
            "tinysvc: a forked child returned from its handler and was ended; end it in the handler: os._exit(0)"
        )
    else:
        _print_error("".join(traceback.format_exception(error)))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status & 0xFF)


def _print_error(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr)


def reset_signals(numbers: Iterable[int]) -> None:
    """Give the signals the handlers of a new interpreter."""
    with suppress(ValueError):  # not in the main thread of the main interpreter
        for number in numbers:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_blocked: dict[int, set[Any]] = {}
"""The signal mask of each thread before its fork, by thread id."""


def _before_fork() -> None:
    """Block signals until `_after_fork`: an early signal to the child must not wake up the event loop of its parent."""
    if _owners:
        _blocked[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _release_signals() -> None:
    blocked = _blocked.pop(threading.get_ident(), None)
    if blocked is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _after_fork() -> None:
    global in_child
    if not _owners:
        return
    in_child = True
    try:
        _detach_owners()
    finally:
        _release_signals()


def _detach_owners() -> None:
    owners = list(_owners.items())
    _owners.clear()
    devnull = os.open(os.devnull, os.O_RDWR)
    for owner, descriptors in owners:
        found: Iterable[int] = ()
        with suppress(Exception):  # of an owner that has ended: the others must be detached all the same
            found = list(descriptors(owner))
        for descriptor in found:
            with suppress(OSError):
                if descriptor >= 0:
                    os.dup2(devnull, descriptor, inheritable=False)
    os.close(devnull)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_release_signals, after_in_child=_after_fork)
