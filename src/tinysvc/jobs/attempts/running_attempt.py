"""One attempt of a durable job in this server process, from its claim to the report of its end.

    claimed ──> job in the pool ──> its end, or a stop ──> death of its process, if killed ──> write to the store

The end is reported after the death, never before: a further attempt, on whatever machine, never runs beside this one.
A result that the store cannot write, as on a full disk, is kept, and its write is repeated.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Literal

from ...core.errors import TinysvcError
from ...core.job_errors import StoreError
from ...core.log_records import SOURCE, RecordSource
from ...pool.state import QUEUED, RUNNING, Job
from ...runtime.attempt_jobs import attempt_job
from ...runtime.cpu_messages import RequestMessage
from ...runtime.durable_jobs import DurablePlace, EndedAttempt
from ..records import Claimed, Failure
from ..store import Store
from ..stored_request import decode_request
from .attempt_answers import AttemptAnswers
from .attempt_ends import AttemptEnd, Failed, Finished, Released, end_by_error, end_by_reply, no_longer_fits

log = logging.getLogger("tinysvc.jobs")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two tries to report an end: each is twice the one before."""

SLOW = 0.1
"""Seconds after which an attempt is no short one, whatever its route usually takes."""

LONGEST_WAIT = 1.0
"""Seconds that an attempt which was claimed ahead waits in the pool; then it waits in the store again."""

StopReason = Literal["", "cancelled", "shutdown", "lost"]
"""Why an attempt is stopped. "lost": another server process may run the next attempt, so its end is not written."""


class RunningAttempt:
    """One attempt at work. `task` runs it to its end.

    Args:
        claimed: The durable job as the store has given it.
        place: Its route.
        default_timeout: Seconds, for a route without `timeout`.
        store: The store.
        answers: Answers its questions.
        freed: Called when the attempt no longer needs its worker; its end is then still to be reported.
        is_ahead: It was claimed before a worker is free.
    """

    def __init__(
        self,
        claimed: Claimed,
        place: DurablePlace,
        default_timeout: float,
        store: Store,
        answers: AttemptAnswers,
        freed: Callable[[RunningAttempt], None],
        *,
        is_ahead: bool = False,
    ) -> None:
        self.id = claimed.record.id
        self.number = claimed.record.attempt
        self.place = place
        self.size = len(claimed.body) + len(claimed.saved or b"")
        self.job: Job | None = None  # in the pool
        self.is_at_work = True  # it needs a worker, or the store does not take its end
        self.unreported = ""  # why the store has not taken its end yet
        self._record = claimed.record
        self._began, self._begin = time.time(), monotonic()
        self._cause, self._seconds = "shutdown", 0.0  # of its end, if its task is cancelled; and how long it took
        self._timeout = place.plan.route.timeout_or(default_timeout)
        self._store = store
        self._answers = answers
        self._freed = freed
        self._is_ahead = is_ahead
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reason: StopReason = ""
        self.task = asyncio.create_task(self._run(claimed))

    @property
    def is_slow(self) -> bool:
        """It has run for longer than short attempts do: no other attempt should wait behind it."""
        return self.job is not None and bool(self.job.started) and monotonic() - self.job.started > SLOW

    def ended(self) -> EndedAttempt:
        """How it has ended."""
        return EndedAttempt(self.place.plan.path, self._cause, max(0.0, self._began - self._record.due), self._seconds)

    def stop(self, reason: StopReason) -> None:
        """Kill it. The first reason holds, except that a lost attempt is no longer reported in any case."""
        if not self._reason or reason == "lost":
            self._reason = reason
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def _run(self, claimed: Claimed) -> None:
        try:
            end = await self._end(claimed)
        except Exception as error:  # of tinysvc: no attempt must run for ever in the store
            log.exception("%s cannot run", self._name())
            end = end_by_error(error)
        self._cause = self._reason or ("succeeded" if isinstance(end, Finished) else end.cause)
        self._seconds = monotonic() - self._begin
        if self.job is not None:
            self._answers.forget(self.job)
        self.is_at_work = False
        self._freed(self)
        if self._reason == "lost":
            log.warning("%s was stopped, and its end is not reported", self._name())
            return
        if self._reason == "cancelled":
            await self._report(partial(self._store.stopped, self.id, self.number))
        elif not await self._report(self._written(end)):
            await self._report(partial(self._store.stopped, self.id, self.number))  # it was cancelled meanwhile

    def _name(self) -> str:
        return f"attempt {self.number} of job {self.id} ({self._record.route})"

    def _source(self, message: str, traceback: str) -> RecordSource:
        """For a line of JSON: the attempt as fields of their own."""
        route = f"job {self._record.route}"
        return RecordSource(
            message=message, route=route, job_id=self.id, attempt=self.number, exception=traceback.strip("\n")
        )

    # The pool

    async def _end(self, claimed: Claimed) -> AttemptEnd:
        """Run it, and return its end, after the death of a process that had to be killed."""
        try:
            if self._reason:
                return Released("shutdown")
            job = self.job = self._submitted(claimed)
        except ValueError as error:
            return no_longer_fits(f"the stored request cannot be read: {error}")
        except TinysvcError as error:
            return end_by_error(error)
        await asyncio.wait(
            (job.future, self._stopped),
            timeout=LONGEST_WAIT if self._is_ahead and job.state is QUEUED else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if job.state is QUEUED and not self._stopped.done():
            await self.place.pool.stop(job)
            job.future.exception()  # mark it as retrieved
            return Released("not-started")
        if job.state is RUNNING:
            await asyncio.wait((job.future, self._stopped), return_when=asyncio.FIRST_COMPLETED)
        if not job.future.done():
            await self.place.pool.stop(job)
        if (failure := job.future.exception()) is not None:
            await self.place.pool.stop(job)  # a deadline, too, is reported after the death
        await self._answers.flush(job)
        return end_by_reply(job.future.result()) if failure is None else end_by_error(failure)

    def _submitted(self, claimed: Claimed) -> Job:
        stored = decode_request(claimed.request)
        pool, timeout = self.place.pool, self._timeout
        request = RequestMessage(
            self.place.number,
            stored.method,
            stored.path,
            stored.query,
            stored.path_params,
            stored.headers,
            stored.peer,
            stored.id,
            stored.resources,
            None if timeout is None else monotonic() + timeout,
        )
        job = attempt_job(
            request,
            self.id,
            self.number,
            claimed.body,
            claimed.saved,
            pool.arenas,
            timeout=timeout,
            lane=self.place.lane,
            start_by=claimed.start_by,
        )
        return self.place.submit_job(job)

    # The store

    def _written(self, end: AttemptEnd) -> Callable[[], Awaitable[bool]]:
        """The write of the end."""
        if isinstance(end, Finished):
            return partial(self._store.finish, self.id, self.number, end.head, end.body)
        if isinstance(end, Released):
            return partial(self._store.release, self.id, self.number, end.cause)
        return self._failed(end)

    def _failed(self, end: Failed) -> Callable[[], Awaitable[bool]]:
        durable = self.place.plan.route.durable
        assert durable is not None
        pause = None if end.is_final else durable.retry.pause(max(1, self._record.used + end.counts))
        used = self._record.used + end.counts
        again = pause is not None and used < self._record.max_attempts
        then = f"the next one starts in {pause:.0f} s" if again else "there is no further one"
        text = f"{self._name()} failed ({end.cause}): {end.detail}; {then}"
        details = f"\n{end.traceback}" if end.traceback else ""
        log.log(
            logging.WARNING if again else logging.ERROR,
            "%s%s",
            text,
            details,
            extra={SOURCE: self._source(text, end.traceback)},
        )
        retry_at = None if pause is None else time.time() + pause
        failure = Failure(end.cause, end.detail, end.problem, retry_at, end.counts)
        return partial(self._store.fail, self.id, self.number, failure)

    async def _report(self, write: Callable[[], Awaitable[bool]]) -> bool:
        """Repeat a write until the store takes it. False: the attempt is not the newest, or the job is cancelled."""
        pause = FIRST_PAUSE
        while self._reason != "lost":
            try:
                return await write()
            except Exception as error:  # any: an attempt that is not reported would run for ever in the store
                if not self.unreported:
                    unknown = None if isinstance(error, StoreError) else error
                    text = "the end of %s is kept in memory, and written later: %s"
                    log.error(text, self._name(), error, exc_info=unknown)
                self.unreported, self.is_at_work = str(error) or type(error).__name__, True
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return True
