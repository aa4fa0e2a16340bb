"""In the forkserver and the workers: signals that only the server acts on.

A service manager or a terminal may send these signals to every process of a service. The server drains, and then ends
the forkserver and its workers itself.
"""

from __future__ import annotations

import signal
from typing import Any

SERVER_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def leave_signals_to_server() -> None:
    """Ignore the signals of the server.

    The handler is a function, not SIG_IGN: a program that a job starts with exec would inherit SIG_IGN.
    """
    for number in SERVER_SIGNALS:
        signal.signal(number, _ignore)
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SERVER_SIGNALS)  # blocked since before the exec


def _ignore(number: int, stack_frame: Any) -> None:
    pass


def signals_left_to_server() -> list[int]:
    """The signals that this process ignores for the server. In a process that a job forks they get their default
    effect again.
    """
    return [number for number in SERVER_SIGNALS if signal.getsignal(number) is _ignore]
