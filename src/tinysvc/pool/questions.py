"""Questions of a job to the server: a worker asks, and waits for the answer on its channel.

    worker   Question ──────────────> server: answers.py calls the program's function
             waits <──── Answer ─────

One question at a time: a worker has one job. An exception that interrupts the wait, of a signal handler or a timer,
leaves the answer on the channel. The job then fails and its worker ends, as it cannot know where the next frame is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextvars import ContextVar
from threading import Lock
from typing import Any

from .frames import FRAME, LENGTHS, Question, answer_decoder, frame
from .worker_channel import WorkerChannel

Ask = Callable[[Any, bytes], tuple[Any, bytes]]
"""Asks the server: from meta and body of a question to those of the answer."""

reporting: ContextVar[Callable[[Any], None] | None] = ContextVar("tinysvc_reporting", default=None)
"""The function with which a program reports something to the server, beside its results; None where no worker runs. It
raises OSError where the channel is closed, or in use by the code that an exception has interrupted."""

asking: ContextVar[Ask | None] = ContextVar("tinysvc_asking", default=None)
"""The function with which the job that runs here asks the server; None where no job runs."""


class Asker:
    """Asks the server over a worker's channel.

    Args:
        channel: The channel.
        answer_meta: The type of the meta of answers.
    """

    def __init__(self, channel: WorkerChannel, answer_meta: Any = Any) -> None:
        self._channel = channel
        self._decode = answer_decoder(answer_meta)
        self._lock = Lock()  # threads of a job may ask, too

    def ask(self, meta: Any, body: bytes) -> tuple[Any, bytes]:
        """Ask, and wait for the answer.

        Raises:
            ValueError: The body is longer than `max_result_size`.
            OverflowError: The meta cannot be encoded.
            OSError: The server has closed the channel.
        """
        channel = self._channel
        if len(body) > channel.max_result_size:
            raise ValueError(
                f"the question to the server has {len(body)} bytes; max_result_size is {channel.max_result_size}"
            )
        with self._lock:
            if channel.is_asking:
                raise RuntimeError("an earlier question was interrupted, so this worker can ask no further one")
            job = channel.job
            if job is None:
                raise RuntimeError("the job has ended, so nothing may be asked for it")
            whole = frame(Question(job[0].number, meta), len(body)) + body  # if this raises, nothing was asked
            channel.is_asking = True
            channel.send_frame(whole)
            head_length, body_length = FRAME.unpack(self._receive(LENGTHS))
            whole = self._receive(head_length + body_length)
            channel.is_asking = False
        return self._decode(whole[:head_length]).meta, whole[head_length:]

    def _receive(self, size: int) -> bytes:
        data = bytearray(size)
        view, position = memoryview(data), 0
        while position < size:
            count = self._channel.socket.recv_into(view[position:])
            if not count:
                raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            position += count
        return bytes(data)
