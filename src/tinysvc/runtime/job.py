"""Job: the durable job, as the handler of a job route reads it, saves it and reports its progress.

    progress   at once, if the last report is REPORT_PAUSE ago; else it waits for the next one, or for the timer
    save       the pickle goes to the server, and the call returns when the store has it on disk
    saved      unpickled when it is first read

An `Attempt` is the Job of a worker. A Job that a test makes keeps everything in memory.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any

import msgspec

from ..core.encoding import json_bytes
from ..core.errors import UnencodableResult
from ..core.job_errors import NotSaved, StaleAttempt, UnreadableSave
from ..core.requests import Request
from ..core.tracebacks import author_traceback
from .job_messages import JobAnswer, ProgressReport, SaveRequest

log = logging.getLogger("tinysvc.jobs")

REPORT_PAUSE = 0.1
"""Seconds between two reports of progress: a bar that moves ten times a second is smooth, and costs nothing."""

MAX_PROGRESS = 64 * 1024
"""Bytes of the JSON of a report. Each watcher gets each report, and the list of jobs shows all of them."""


class Job:
    """The durable job that runs: the handler of a `job_route` takes it as a parameter.

    In a test, `Job()` keeps everything in memory: a second call of the handler with the same Job continues where
    the first one has saved.

    The attributes `fraction` and `values` are the last report of `progress`.

    Args:
        saved: The value of `saved`.
        id: The id of the job, which is the same in all attempts: 32 hexadecimal digits. It names an effect outside that
            must not happen twice.
        attempt: The number of the attempt: 1 for the first one.

    Example:
        ```python
        from tinysvc import Job

        def train(epochs: int, job: Job) -> float:
            loss, start = job.saved or (1.0, 0)
            for epoch in range(start, epochs):
                loss /= 2
                job.progress((epoch + 1) / epochs, loss=loss)
                job.save((loss, epoch + 1))
            return loss

        job = Job(saved=(0.25, 2))
        assert train(3, job) == 0.125
        assert (job.fraction, job.values, job.saved) == (1.0, {"loss": 0.125}, (0.125, 3))
        ```
    """

    for_calls = True

    def __init__(self, *, saved: Any = None, id: str = "0" * 32, attempt: int = 1) -> None:  # noqa: A002 - as the attribute
        self.id = id
        self.attempt = attempt
        self.fraction: float | None = None
        self.values: dict[str, Any] = {}
        self._saved = saved

    @classmethod
    def of_request(cls, request: Request) -> Job:
        """Return the job of a request, for the parameter of a handler.

        Args:
            request: The request.

        Returns:
            The job that runs for it; a Job in memory if none does.
        """
        return _of_running.get(request) or cls()  # the server binds a request, too, before it accepts it

    @property
    def saved(self) -> Any:
        """The value that an earlier attempt has saved last; None if there is none.

        Raises:
            UnreadableSave: It cannot be unpickled. With `on_unreadable_save="restart"` of the route, it is None.
        """
        return self._saved

    def save(self, value: Any) -> None:
        """Keep a value for the next attempt, which continues there after a crash, a restart or an error.

        The value is durable when the call returns. Each call replaces the value before.

        Args:
            value: Anything that can be pickled; up to `max_result_size` bytes.

        Raises:
            StaleAttempt: The job was cancelled, or another attempt has it: stop, as nothing of this attempt counts.
            NotSaved: The store cannot write now. The value before is still there.
            ValueError: The pickle is too long.
        """
        self._saved = pickle.loads(_pickled(value))

    def progress(self, fraction: float | None = None, /, **values: Any) -> None:
        """Report how far the job is. Clients get at most ten reports a second, and always the last one.

        Args:
            fraction: From 0 to 1. None: unknown.
            **values: Further values to show, as JSON: `loss=0.1`.

        Raises:
            StaleAttempt: As for `save`.
            ValueError: The fraction is not from 0 to 1, a value is a whole number of more than 64 bits, or the values
                are longer than 64 KiB as JSON.
            UnencodableResult: A value has no JSON.
        """
        self.fraction, self.values = _checked(fraction, values)

    def __repr__(self) -> str:
        shown = "" if self.fraction is None else f", {self.fraction:.0%}"
        return f"<Job {self.id[:8]}, attempt {self.attempt}{shown}>"


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _checked(fraction: Any, values: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """The report as plain data. A copy: the handler may change its values before the report is sent."""
    if fraction is not None:
        fraction = float(fraction)
        if not 0 <= fraction <= 1:
            raise ValueError(f"job.progress takes a fraction from 0 to 1, not {fraction!r}")
    if not values:
        return fraction, {}
    try:
        encoded = json_bytes(values)
    except UnencodableResult as error:
        reason = str(error).partition("cannot be encoded: ")[2] or str(error)
        raise UnencodableResult(f"the values of job.progress have no JSON: {reason}") from None
    if len(encoded) > MAX_PROGRESS:
        raise ValueError(f"the values of job.progress have {len(encoded)} bytes as JSON; {MAX_PROGRESS} are allowed")
    plain = msgspec.json.decode(encoded, type=dict[str, Any])
    try:
        msgspec.msgpack.encode(plain)
    except OverflowError:
        raise ValueError(
            "a value of job.progress is a whole number of more than 64 bits; report it as text or float"
        ) from None
    return fraction, plain


_of_running: dict[Request, Job] = {}
"""The Job of the request that runs in this worker."""

Ask = Callable[[Any, bytes], tuple[Any, bytes]]


class Attempt(Job):
    """The Job in a worker.

    Args:
        job_id: The id of the job.
        attempt: The number of the attempt.
        ask: Asks the server.
        pickled: The saved value; None if there is none.
        discards_unreadable: Whether a saved value that cannot be unpickled counts as none.
    """

    def __init__(
        self, job_id: str, attempt: int, ask: Ask, pickled: bytes | memoryview | None, discards_unreadable: bool
    ) -> None:
        super().__init__(id=job_id, attempt=attempt)
        self._ask = ask
        self._pickled = pickled
        self._discards_unreadable = discards_unreadable
        self._lock = threading.Lock()
        self._sent = -inf  # when the last report was sent
        self._waits: ProgressReport | None = None  # not sent yet
        self._timer: threading.Thread | None = None
        self._closing = threading.Event()

    @contextmanager
    def of(self, request: Request) -> Iterator[None]:
        """Parameters that are filled for `request` get this Job. At the end of the block its last report is sent."""
        _of_running[request] = self
        try:
            yield
        finally:
            self._close()
            del _of_running[request]

    @property
    def saved(self) -> Any:
        if self._pickled is not None:
            try:
                self._saved = pickle.loads(self._pickled)
            except MemoryError:
                raise
            except Exception as error:
                traceback = author_traceback(error)
                log.error("job %s: the value of job.save(...) cannot be unpickled\n%s", self.id, traceback)
                if not self._discards_unreadable:
                    raise UnreadableSave(
                        f"the value that an earlier attempt has saved cannot be unpickled: {type(error).__name__}: "
                        f"{error}; restore the classes that it needs, or let the job start afresh: "
                        '@job_route(..., on_unreadable_save="restart")'
                    ) from error
            self._pickled = None
        return self._saved

    def save(self, value: Any) -> None:
        data = _pickled(value)
        with self._lock:
            self._check_open()
            self._send(SaveRequest(), data)

    def progress(self, fraction: float | None = None, /, **values: Any) -> None:
        self.fraction, self.values = _checked(fraction, values)
        with self._lock:
            self._check_open()
            self._waits = ProgressReport(self.fraction, self.values)
            if monotonic() - self._sent >= REPORT_PAUSE:
                self._report()
            elif self._timer is None:
                self._timer = threading.Thread(target=self._report_later, name="tinysvc progress", daemon=True)
                self._timer.start()

    def _check_open(self) -> None:
        """A thread that outlives the attempt must not ask: the server would take it for the worker's next job."""
        if self._closing.is_set():
            raise StaleAttempt("the attempt has ended, so it can report and save nothing more")

    def _report_later(self) -> None:
        """In a thread, while a report waits: it is sent although the handler makes no further report."""
        while True:
            self._closing.wait(max(0.0, self._sent + REPORT_PAUSE - monotonic()))
            with self._lock:
                if self._waits is None or self._closing.is_set():
                    self._timer = None
                    return
                if monotonic() - self._sent >= REPORT_PAUSE:
                    try:
                        self._report()
                    except Exception as error:  # the next call of the handler raises the same error
                        log.debug("job %s: a report of progress was not sent: %s", self.id, error)

    def _report(self) -> None:
        """Send the report that waits."""
        report, self._waits = self._waits, None
        self._sent = monotonic()
        self._send(report)

    def _send(self, question: Any, body: bytes = b"") -> None:
        answer: JobAnswer | None
        answer, _ = self._ask(question, body)
        if answer is None or not answer.refusal:
            return
        raise (StaleAttempt if answer.refusal == "stale" else NotSaved)(answer.detail)

    def _close(self) -> None:
        """Send the last report, and end the timer: no question may be under way when the job ends."""
        with self._lock:
            self._closing.set()
            if self._waits is not None:
                try:
                    self._report()
                except Exception as error:  # of a stale attempt, whose result is refused, too
                    log.debug("job %s: the last report of progress was not sent: %s", self.id, error)
        timer = self._timer
        if timer is not None:
            timer.join()
        self._pickled = None
