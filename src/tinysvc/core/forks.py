"""After a fork the child is neither the server nor a worker.

A handler may fork (os.fork, multiprocessing's "fork"). The child would share the sockets, the event loop and the way
that signals wake it up: a SIGTERM to the child would end the server, and a SystemExit in it would make a second server.
So the owners of such things register here. In a child each of their descriptors leads to /dev/null, so that its number
is not used again. A child that returns from the handler is ended.
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
"""Whether this process is a forked child of one that had something to share."""


def detach_in_child(owner: Any, descriptors: Callable[[Any], Iterable[int]]) -> None:
    """In a forked child, `descriptors(owner)` lead nowhere. The function does the rest of what is needed there."""
    _owners[owner] = descriptors


def end_child(error: BaseException | None = None) -> NoReturn:
    """End a forked child that came back from the author's code, as the interpreter ends."""
    status = 1
    if isinstance(error, SystemExit):
        status = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        if error.code is not None and not isinstance(error.code, int):
            _say(str(error.code))
    elif error is None:
        _say("tinysvc: a forked child returned from its handler; it ends here. End it in the handler: os._exit(0)")
    else:
        _say("".join(traceback.format_exception(error)))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status & 0xFF)


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr)


def reset_signals(numbers: Iterable[int]) -> None:
    """Give the signals the meaning that a new interpreter gives them."""
    with suppress(ValueError):  # not in the main thread of the main interpreter
        for number in numbers:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_held: dict[int, set[Any]] = {}
"""The signals that a thread held back before it began to fork."""


def _before_fork() -> None:
    """A signal to the child that comes too soon must not wake up its parent: it waits for `_after_fork`."""
    if _owners:
        _held[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _release_signals() -> None:
    held = _held.pop(threading.get_ident(), None)
    if held is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _after_fork() -> None:
    global in_child
    if not _owners:
        return
    in_child = True
    try:
        _let_go()
    finally:
        _release_signals()


def _let_go() -> None:
    owners = list(_owners.items())
    _owners.clear()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for owner, descriptors in owners:
        for descriptor in descriptors(owner):
            with suppress(OSError):
                if descriptor >= 0:
                    os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_release_signals, after_in_child=_after_fork)
