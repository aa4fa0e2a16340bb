"""The loop of a worker: read a frame, run the job, write a frame. One job at a time, over one socket.

The forkserver forks the worker (forkserver_main.py). A worker never sees a listening socket. It exits when its channel
closes; the kernel kills it when the forkserver dies. A timer or a thread that a job has left behind may raise an
exception at any step: the loop finishes or repeats the step, and each job has exactly one end.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

from ..core import forks
from ..core.shutdown import warn_of_slow_close
from ..core.tracebacks import author_traceback
from . import leftovers
from .frames import (
    Call,
    Chunk,
    JobError,
    JobHead,
    Pickled,
    Ready,
    Result,
    RunProgram,
    StartFailed,
    StreamBegin,
    StreamEnd,
    message_types,
    pickle_pieces,
    unpickle_pieces,
)
from .leftovers import at_end_of_job, reset_function
from .program import JobFunction, Program
from .questions import Asker, asking, reporting
from .remote_errors import error_text, pickled_error, sendable_text
from .worker_channel import MAX_INTERRUPTIONS, WorkerChannel, is_closed_error

UNANSWERED = "a call.wait(...) of the job was interrupted, and its answer is lost"
"""The error of a job whose question was interrupted: only by an error the server learns that the worker must end."""


def work(channel: WorkerChannel, program: Program) -> int:
    """Open the program, report READY, and run jobs until the channel closes. Returns the exit status."""
    try:
        opened = program()
        run_job = opened.__enter__()
    except BaseException as error:
        channel.send(StartFailed(sendable_text(author_traceback(error))))
        return 1
    try:
        asking.set(Asker(channel, message_types(program).answer).ask)
        reporting.set(channel.send_report)
        channel.send(Ready())
        reset = reset_function()
    except OSError:
        return 1
    for _ in range(MAX_INTERRUPTIONS):  # an exception may also interrupt the handling of another one
        try:
            closed_in_order = _run_jobs(channel, run_job, reset)
            break
        except BaseException as error:
            channel.interruption = error
    else:
        closed_in_order = False
    if not closed_in_order:
        return 1  # a handler has closed our socket, or the server has died
    return close_resources(lambda: opened.__exit__(None, None, None))


def _run_jobs(channel: WorkerChannel, run_job: JobFunction, reset: Callable[[], None]) -> bool:
    """Run jobs until the channel closes in order (True) or breaks. Exceptions here come from earlier jobs."""
    goes_on = True
    while goes_on:
        try:
            if channel.job is None:
                if channel.receive() is None:
                    return True
                # In its own context: the next job does not see the context variables that this one sets.
                goes_on = copy_context().run(_run_job, channel, run_job, *channel.job)  # type: ignore[misc]
            else:  # the job was interrupted
                job, _ = channel.job
                channel.flush(ends_job=True)
                reset()
                if channel.ended != job.number:
                    error = channel.interruption or InterruptedError("the job was interrupted")
                    goes_on = _send_error(channel, job, error)
                channel.discard_frame()
            if leftovers.touched:
                reset()
            while at_end_of_job:
                at_end_of_job.pop()()
            channel.job = None  # unmap a big body before the next one comes
        except BaseException as error:
            if is_closed_error(error):
                return False
            channel.interruption = error
    return True


def close_resources(close: Callable[[], object]) -> int:
    """Close what a program has opened; print the traceback if that fails. Returns the exit status."""
    try:
        with warn_of_slow_close():
            close()
    except BaseException as error:
        print(f"a worker could not close its resources:\n{author_traceback(error)}", file=sys.stderr)
        return 1
    return 0


def _run_job(channel: WorkerChannel, run_job: JobFunction, job: JobHead, body: bytes | memoryview) -> bool:
    """Run one job and send its end, whatever it does. False if this worker must take no further job."""
    try:
        if type(job) is RunProgram:
            reply = run_job(job.meta, body)
            if channel.is_asking:
                raise InterruptedError(UNANSWERED)
            if forks.in_child:
                forks.end_child()
            reply_meta, content = reply.meta, reply.body
            del reply  # `content` must be the only reference to a part of the body
            if isinstance(content, memoryview):
                content = content.cast("B")  # its length in bytes
            if isinstance(content, (bytes, bytearray, memoryview)):
                channel.send_result(Result(job.number, reply_meta), content)
            else:
                _send_stream(channel, job.number, reply_meta, content)
        else:
            assert not isinstance(job, RunProgram)
            function, args, kwargs = unpickle_pieces(job.lengths, body)
            result = function(*args, **kwargs)
            if channel.is_asking:
                raise InterruptedError(UNANSWERED)
            if forks.in_child:
                forks.end_child()
            if type(job) is Call:
                lengths, pieces = pickle_pieces(result)
                channel.send_result(Pickled(job.number, lengths), *pieces)
            else:
                pickles = (pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in result)
                _send_stream(channel, job.number, None, pickles)
    except OSError as error:
        if forks.in_child:
            forks.end_child(error)
        if channel.is_closed():
            raise
        return _send_error(channel, job, error)
    except BaseException as error:
        if forks.in_child:
            forks.end_child(error)
        return _send_error(channel, job, error)
    return True


def _send_stream(channel: WorkerChannel, number: int, meta: Any, chunks: Iterator[bytes]) -> None:
    """Back-pressure comes from the socket: when the server stops reading, `send` blocks, and so does the generator."""
    channel.send(StreamBegin(number, meta))
    for chunk in chunks:
        channel.send(Chunk(number), chunk)
    if channel.is_asking:
        raise InterruptedError(UNANSWERED)
    channel.release_body(number)
    channel.send_end(StreamEnd(number))


def _send_error(channel: WorkerChannel, job: JobHead, error: BaseException) -> bool:
    """Send the error as text. False if the worker must be replaced: after a MemoryError it may still hold the memory;
    after an interrupted question the answer is still on the channel.
    """
    poisoned = isinstance(error, MemoryError) or channel.is_asking
    if channel.ended == job.number:  # the error came after the job's end was sent
        return not poisoned
    body = b"" if isinstance(job, RunProgram) else pickled_error(error)
    channel.release_body(job.number)
    channel.send_end(JobError(job.number, error_text(error), poisoned), body)
    return not poisoned
