"""The first process of a container: the kernel gives it every orphan there, and it must reap them.

A server cannot do so itself: an orphan looks like a child that the author's code has started and will wait for, and the
exit status of such a child must not be lost. So the first process forks the server, and does three things: it reaps
its children, passes signals on, and ends as the server ends. It has no loop and no thread.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress

from ..pool.inherited import count_threads

log = logging.getLogger("tinysvc")


def leave_first_process() -> None:
    """Return in a child of this process where this is the first one, and at once where it is not."""
    if sys.platform != "linux" or os.getpid() != 1:
        return
    if count_threads() > 1:  # they would not run in the child
        log.warning(
            "this is the first process of a container and has threads before it serves, so that orphaned processes are "
            "not reaped. Start it by python -m tinysvc FILE, or the container by docker run --init"
        )
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # else its buffer is written twice
    held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        server = os.fork()
    except OSError:  # no second process is allowed here, and so no orphan
        server = 0
    if server:
        os._exit(_wait_for(server))
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    if os.environ.get("LISTEN_PID") == "1":  # the sockets of a service manager are inherited
        os.environ["LISTEN_PID"] = str(os.getpid())


def _wait_for(server: int) -> int:
    """The exit status of the server, as a shell gives it. All signals are blocked, and so none is lost."""
    while True:
        received = signal.sigwaitinfo(signal.valid_signals())
        if received.si_signo != signal.SIGCHLD:
            if received.si_code <= 0:  # by a process: the terminal sends its signals to the server, too
                os.kill(server, received.si_signo)
            continue
        with suppress(ChildProcessError):
            while any(ended := os.waitpid(-1, os.WNOHANG)):
                if ended[0] == server:
                    exit_code = os.waitstatus_to_exitcode(ended[1])
                    return exit_code if exit_code >= 0 else 128 - exit_code
