"""What a pool reports to an observer, if it has one: how its jobs and its workers end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import NamedTuple

from .frames import WorkerEnd
from .generations import GIVEN_UP, HELD_TOO_LONG
from .scheduler import KEPT_RUNNING, PAST_DEADLINE
from .state import EXITING, Job, Worker


class PoolObserver(NamedTuple):
    """Functions that a pool calls on its event loop."""

    on_job_end: Callable[[Job, object], None]
    """A job has ended, with this outcome: a reply, or an exception."""
    on_refusal: Callable[[Exception], None]
    """A job was refused: it never waited."""
    on_worker_end: Callable[[str, str], None]
    """A worker has ended: the label of its generation, and the cause, which is one of CAUSES."""


CAUSES = (
    "replaced", "deadline", "abandoned", "memory_error", "out_of_memory", "killed", "crashed", "exited", "start_failed",
    "stuck_at_exit", "forkserver_lost", "protocol_error", "shutdown",
)  # fmt: skip
"""The causes of a worker's end. `killed`: by SIGKILL from outside of the pool; `crashed`: by another signal; `exited`:
a job has ended the process; `replaced`: after max_jobs or
max_memory, or by a swap; `memory_error`: a job has raised MemoryError."""

_CAUSE_OF = {
    PAST_DEADLINE: "deadline",
    "ran an abandoned job": "abandoned",
    "ran out of memory": "memory_error",
    KEPT_RUNNING: "exited",
    "lost its forkserver": "forkserver_lost",
    "ran on while the pool was shut down": "shutdown",
    GIVEN_UP: "replaced",
    HELD_TOO_LONG: "replaced",
}
"""The cause by the kill reason of the scheduler."""


def cause_of(worker: Worker, end: WorkerEnd, *, is_closing: bool) -> str:
    """Why a worker has ended, as one of CAUSES.

    Args:
        worker: The worker, in the state before its end.
        end: Its end.
        is_closing: The pool shuts down.
    """
    if worker.kill_reason:
        if worker.kill_reason.endswith("to close its resources"):
            return "stuck_at_exit"
        return _CAUSE_OF.get(worker.kill_reason, "protocol_error" if worker.started else "start_failed")
    if not worker.started:
        return "start_failed"
    if worker.state is EXITING:
        return "shutdown" if is_closing else "replaced"
    if end.exit_code == -signal.SIGKILL:
        return "out_of_memory" if end.out_of_memory else "killed"
    if end.exit_code is None:
        return "shutdown"
    return "exited" if end.exit_code >= 0 else "crashed"
