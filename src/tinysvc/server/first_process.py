"""The first process of a container: the kernel makes every orphan its child, and it must reap them.

A server cannot do that itself: an orphan looks like a child that the author's code has started and waits for, whose
exit status must not be lost. So the first process forks the server and does three things: it reaps its children, passes
signals on, and exits with the server's status. It has no event loop and no thread.
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
    """In the first process of a container, fork, and return only in the child. In any other process, do nothing."""
    if sys.platform != "linux" or os.getpid() != 1:
        return
    if count_threads() > 1:  # threads do not run in the child
        log.warning(
            "this first process of a container has started threads before it serves, so orphaned processes are not "
            "reaped. Start it with python -m tinysvc FILE, or start the container with docker run --init"
        )
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # otherwise both processes write its buffer
    held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        server = os.fork()
    except OSError:  # no second process is allowed here, so there are no orphans
        server = 0
    if server:
        os._exit(_wait_for(server))
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    if os.environ.get("LISTEN_PID") == "1":  # the child inherits the sockets of systemd
        os.environ["LISTEN_PID"] = str(os.getpid())


def _wait_for(server: int) -> int:
    """The exit status of the server, as a shell has it. All signals are blocked, so none is lost."""
    while True:
        received = signal.sigwaitinfo(signal.valid_signals())
        if received.si_signo != signal.SIGCHLD:
            if received.si_code <= 0:  # sent by a process: a terminal sends its signals to the server, too
                os.kill(server, received.si_signo)
            continue
        with suppress(ChildProcessError):
            while any(ended := os.waitpid(-1, os.WNOHANG)):
                if ended[0] == server:
                    exit_code = os.waitstatus_to_exitcode(ended[1])
                    return exit_code if exit_code >= 0 else 128 - exit_code
