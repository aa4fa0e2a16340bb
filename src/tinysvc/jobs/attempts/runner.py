"""The runner: claims durable jobs while this server process has room for them, and runs their attempts.

    a commit, on any server ──> Change ──> claim ──> attempts, one in each worker (running_attempt.py) ──> claim

Between two claims no code runs: there is no timer for each durable job, but one poll every POLL seconds. A retry storm
is bounded twice: pauses have a random part, and no more attempts begin than there are workers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from ...core.job_errors import StoreError
from ...core.shutdown import MIN_STEP_TIME, LoopCountdown, awake_timeout
from ...pool.state import Job
from ...runtime.durable_jobs import DurablePlace, EndedAttempt
from ..records import CancelOutcome, Change, Claimed, Record, State
from ..store import Store
from .attempt_answers import AttemptAnswers
from .capacity import Capacity
from .running_attempt import RunningAttempt, StopReason

log = logging.getLogger("tinysvc.jobs")

POLL = 5.0
"""Seconds after which the runner asks the store in any case: clocks jump, and a report of a change can be lost."""

STORE_PAUSE = 1.0
"""Seconds until the next claim after one that the store has refused."""

STOP_TIME = 1.0
"""Seconds of a drain, at most a quarter, in which killed attempts die and the store gets their ends."""


class Runner:
    """The attempts of one server process.

    Args:
        store: The store, open.
        places: The job routes.
        default_timeout: Seconds, for a route without `timeout`.
    """

    def __init__(self, store: Store, places: Sequence[DurablePlace], default_timeout: float) -> None:
        self.answers = AttemptAnswers(store, self._on_stale)
        self.on_attempt_end: Callable[[EndedAttempt], None] | None = None
        self._store = store
        self._places = {place.plan.path: place for place in places}
        self._capacity = Capacity(places)
        self._default_timeout = default_timeout
        self._running: dict[tuple[str, int], RunningAttempt] = {}
        self._wanted = set(self._places)  # routes that may have a durable job to claim
        self._due: float | None = None  # the earliest scheduled one (Unix time)
        self._due_is_known = False
        self._cancelled: set[str] | None = None  # ids that were cancelled while a claim is under way
        self._is_paused = False
        self._missed = False  # changes may have been missed
        self._woken = asyncio.Event()
        self._problem = ""
        self._task: asyncio.Task[None] | None = None
        self._ends: list[Callable[[], None]] = []  # each ends a callback of the store

    @property
    def problem(self) -> str:
        """Why an end of an attempt waits for the store, or no attempt begins; "" if all is well."""
        waiting = [each.unreported for each in self._running.values() if each.unreported]
        return f"{len(waiting)} ended attempts wait for the store: {waiting[0]}" if waiting else self._problem

    # Start and end

    def start(self) -> None:
        """Begin to claim."""
        store = self._store
        self._ends = [store.watch(self._on_change), store.lost(self._on_lost), store.broken(self._on_broken)]
        self._task = asyncio.create_task(self._work())

    def pause(self) -> None:
        """Claim no more."""
        self._is_paused = True
        self._woken.set()

    async def drain(self, timeout: float) -> None:
        """Let the attempts end within `timeout` seconds, then kill the others: any server may claim their jobs."""
        self.pause()
        reserve = min(STOP_TIME, timeout / 4)
        countdown = LoopCountdown(timeout - reserve)
        if self._task is not None:  # a claim that is under way has perhaps been committed
            await asyncio.wait([self._task], timeout=max(MIN_STEP_TIME, countdown.left()))
            self._task.cancel()
        await self._ended(countdown.left())
        countdown.cancel()
        if self._running:
            log.info("%d attempts of durable jobs are stopped, and wait for a server", len(self._running))
        for attempt in self._running.values():
            attempt.stop("shutdown")
        await self._ended(max(reserve, MIN_STEP_TIME))
        for attempt in list(self._running.values()):
            attempt.task.cancel()
        while self._ends:
            self._ends.pop()()

    async def _ended(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with awake_timeout(seconds):
                while tasks := [attempt.task for attempt in self._running.values()]:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    # Changes

    def _on_change(self, change: Change) -> None:
        if not change.id:
            self._missed = True
            self._wanted.update(self._places)
            self._woken.set()
        elif change.state in (State.QUEUED, State.SCHEDULED):
            if change.route in self._places:
                if change.state == State.SCHEDULED:
                    self._due_is_known = False
                self._wanted.add(change.route)
                self._woken.set()
        elif change.state == State.CANCELLED:
            if self._cancelled is not None:
                self._cancelled.add(change.id)
            self._stop([each for each in self._running.values() if each.id == change.id], "cancelled")

    def _on_lost(self, attempts: Iterable[tuple[str, int]]) -> None:
        """This server process no longer owns these attempts: kill them, and do not report them."""
        self._stop([self._running[each] for each in attempts if each in self._running], "lost")

    def _on_broken(self, reason: str) -> None:
        """The store is closed for good: no end of an attempt can be written, and the server exits."""
        self.pause()
        self._stop(self._running.values(), "lost")

    def _on_stale(self, job: Job) -> None:
        """The store has refused a write of this job in a pool."""
        self._stop([each for each in self._running.values() if each.job is job], "cancelled")

    def _stop(self, attempts: Iterable[RunningAttempt], reason: StopReason) -> None:
        for attempt in attempts:
            attempt.stop(reason)

    async def cancel(self, job_id: str) -> CancelOutcome:
        """Cancel a durable job. Returns when no process runs it any more, on any server."""
        outcome = await self._store.cancel(job_id)
        if not outcome.owner:
            return outcome
        attempt = self._running.get((job_id, outcome.attempt))
        if attempt is not None:
            attempt.stop("cancelled")
            await asyncio.wait([attempt.task])
        return replace(outcome, record=await self._without_owner(job_id))

    async def _without_owner(self, job_id: str) -> Record | None:
        """The record, when the server process that runs it has reported the death."""
        changed = asyncio.Event()

        def note(change: Change) -> None:
            if change.id in (job_id, ""):
                changed.set()

        unwatch = self._store.watch(note)
        try:
            while (record := await self._store.get(job_id)) and record.owner and record.state == State.CANCELLED:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await changed.wait()
                changed.clear()
            return record
        finally:
            unwatch()

    # Claims

    async def _work(self) -> None:
        while not self._is_paused:
            self._woken.clear()
            if self._due is not None and self._due <= time.time():
                self._claim_anew()
            try:
                await self._check_missed()
                for pool in self._capacity.pools:
                    await self._claim(pool)
                seconds = await self._until_due()
                self._problem = ""
            except Exception as error:  # any: without this task no attempt would ever begin
                if not self._problem:
                    unknown = None if isinstance(error, StoreError) else error
                    log.error("no attempt of a durable job begins: %s", error, exc_info=unknown)
                self._problem, seconds = str(error) or type(error).__name__, STORE_PAUSE
                self._claim_anew()
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                self._claim_anew()

    def _claim_anew(self) -> None:
        """Ask the store for durable jobs of all routes, and for the next one that is scheduled."""
        self._wanted.update(self._places)
        self._due, self._due_is_known = None, False

    async def _claim(self, pool: object) -> None:
        """Begin as many attempts as the pool has room for."""
        at_work = [each for each in self._running.values() if each.is_at_work]
        capacity, total = self._capacity.free(pool, self._wanted, at_work)
        if not capacity or self._is_paused:
            return
        self._wanted.difference_update(capacity)
        self._cancelled = set()
        try:
            claimed = await self._store.claim(capacity, total)
        except BaseException:
            self._wanted.update(capacity)
            raise
        finally:
            cancelled, self._cancelled = self._cancelled, None
        for each in claimed:
            capacity[each.record.route] -= 1
            self._begin(each, each.record.id in cancelled)
        # A route that has started fewer attempts than it might has no waiting job.
        self._wanted.update(route for route, left in capacity.items() if not left or len(claimed) == total)

    def _begin(self, claimed: Claimed, is_cancelled: bool) -> None:
        record = claimed.record
        place = self._places[record.route]
        at_work = sum(each.is_at_work for each in self._running.values() if each.place.pool is place.pool)
        attempt = RunningAttempt(
            claimed,
            place,
            self._default_timeout,
            self._store,
            self.answers,
            self._on_freed,
            is_ahead=at_work >= self._capacity.share(place),
        )
        self._running[record.id, record.attempt] = attempt
        attempt.task.add_done_callback(lambda _: self._on_end(attempt))
        if is_cancelled or self._is_paused:
            attempt.stop("cancelled" if is_cancelled else "shutdown")

    def _on_freed(self, attempt: RunningAttempt) -> None:
        if attempt.job is not None and attempt.job.started:
            self._capacity.note(attempt.place.plan.path, attempt.job.ran, attempt.size)
        self._woken.set()

    def _on_end(self, attempt: RunningAttempt) -> None:
        del self._running[attempt.id, attempt.number]
        self._woken.set()
        if self.on_attempt_end is not None:
            self.on_attempt_end(attempt.ended())
        if not attempt.task.cancelled() and (error := attempt.task.exception()) is not None:
            log.error("attempt %d of job %s has no reported end", attempt.number, attempt.id, exc_info=error)

    async def _until_due(self) -> float:
        """Seconds until the next claim without a change."""
        if not self._due_is_known:
            self._due_is_known = True
            due = await self._store.next_due()
            # One that is due already waits for a worker, or its route is not served here.
            self._due = due if due is not None and due > time.time() else None
        return POLL if self._due is None else min(POLL, max(0.0, self._due - time.time()))

    async def _check_missed(self) -> None:
        """Stop the attempts that are no longer ours, after changes that this process has perhaps not seen."""
        if not self._missed:
            return
        for attempt in list(self._running.values()):
            record = await self._store.get(attempt.id)
            if record is not None and record.attempt == attempt.number and record.state == State.RUNNING:
                continue
            is_cancelled = record is not None and record.attempt == attempt.number and record.state == State.CANCELLED
            attempt.stop("cancelled" if is_cancelled else "lost")
        self._missed = False
