"""A store of durable jobs in memory: the shortest one that keeps the contract of tinysvc/jobs/store.py."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping

from tinysvc.jobs import states
from tinysvc.jobs.cursors import place_of
from tinysvc.jobs.records import (
    WAITING,
    CancelOutcome,
    Change,
    Claimed,
    Failure,
    NewJob,
    Page,
    Progress,
    Record,
    ResultHead,
    State,
    Submitted,
)


class MemoryStore:
    """A `LocalStore` without a disk. `clock` can be replaced by a test."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.problem = ""
        self.inherited: tuple[int, ...] = ()
        self.owner = ""
        self.clock = clock
        self.records: dict[str, Record] = {}  # in the order of acceptance
        self.places: dict[str, int] = {}
        self.requests: dict[str, tuple[bytes, bytes]] = {}
        self.saved: dict[str, bytes] = {}
        self.results: dict[str, bytes] = {}
        self.ticks: dict[str, float] = {}
        self.watchers: list[Callable[[Change], None]] = []
        self.breaks: list[Callable[[str], None]] = []
        self.numbers = itertools.count(1)

    async def open(self, owner: str, service: str) -> None:
        self.owner = owner

    async def aclose(self) -> None:
        self.watchers.clear()

    async def submit(self, new: NewJob) -> Submitted:
        return self._submit(new)

    def _submit(self, new: NewJob) -> Submitted:
        mine = [record for record in self.records.values() if record.route == new.route]
        same_key = next((record for record in mine if new.key and record.key == new.key), None)
        waiting = sum(record.state in WAITING for record in mine)
        if (earlier := states.repeated_by(new, same_key, waiting)) is not None:
            return Submitted(earlier, False)
        record = states.accepted(new, secrets.token_hex(16), self.clock())
        self.places[record.id] = next(self.numbers)
        self.requests[record.id] = new.request, new.body
        self._keep(record)
        return Submitted(record, True)

    async def get(self, job_id: str) -> Record | None:
        return self.records.get(job_id)

    async def result(self, job_id: str) -> bytes | None:
        return self.results.get(job_id)

    async def page(
        self, route: str | None, state: State | None, limit: int, cursor: str, path: str | None = None
    ) -> Page:
        kept = [each for each in self.records.values() if not each.expired]
        mine = [each for each in kept if route in (None, each.route) and path in (None, each.path)]
        before = place_of(cursor)
        found = [each for each in reversed(mine) if state in (None, each.state) and self.places[each.id] < before]
        more = str(self.places[found[limit - 1].id]) if len(found) > limit else ""
        return Page(found[:limit], more, dict(Counter(str(each.state) for each in mine)))

    async def claim(self, capacity: Mapping[str, int], total: int, *, owner: str = "") -> list[Claimed]:
        now = self.clock()
        for record in self.records.values():
            self._change(record.id, states.wake(record, now))
        left = dict(capacity)
        claimed: list[Claimed] = []
        queued = [each for each in self.records.values() if each.state == State.QUEUED]
        for record in sorted(queued, key=lambda each: (-each.priority, each.due, self.places[each.id])):
            if left.get(record.route, 0) > 0 and len(claimed) < total:
                left[record.route] -= 1
                self._change(record.id, states.claim(record, owner or self.owner, now))
                claimed.append(
                    Claimed(self.records[record.id], *self.requests[record.id], self.saved.get(record.id)),
                )
        return claimed

    async def progress(self, job_id: str, attempt: int, value: Progress) -> bool:
        return self._write(job_id, lambda record: states.progress(record, attempt, value))

    async def save(self, job_id: str, attempt: int, value: bytes) -> bool:
        done = self._write(job_id, lambda record: states.save(record, attempt))
        if done:
            self.saved[job_id] = value
        return done

    async def finish(self, job_id: str, attempt: int, head: ResultHead, body: bytes) -> bool:
        done = self._write(job_id, lambda record: states.finish(record, attempt, head, self.clock()))
        if done:
            self.results[job_id] = body
        return done

    async def fail(self, job_id: str, attempt: int, failure: Failure) -> bool:
        return self._write(job_id, lambda record: states.fail(record, attempt, failure, self.clock()))

    async def release(self, job_id: str, attempt: int, cause: str) -> bool:
        return self._write(job_id, lambda record: states.release(record, attempt, cause, self.clock()))

    async def cancel(self, job_id: str) -> CancelOutcome:
        record = self.records.get(job_id)
        if record is None or record.expired:
            return CancelOutcome("unknown")
        new = states.cancel(record, self.clock())
        self._change(job_id, new)
        return states.cancel_outcome(record, new)

    async def stopped(self, job_id: str, attempt: int) -> bool:
        return self._write(job_id, lambda record: states.stopped(record, attempt))

    async def retry(self, job_id: str) -> Record | states.Refusal | None:
        if job_id not in self.records or self.records[job_id].expired:
            return None
        new = states.retry(self.records[job_id], self.clock())
        self._change(job_id, new)
        return new

    async def next_due(self) -> float | None:
        return min((each.due for each in self.records.values() if each.state == State.SCHEDULED), default=None)

    async def sweep(self, now: float) -> int:
        removed = 0
        for record in list(self.records.values()):
            if self._change(record.id, states.expire(record, now)):
                removed += 1
            if (kept := self.records[record.id]).expired and now >= states.forgotten_at(kept):
                del self.records[record.id]
        for job_id in [
            job_id for job_id in self.requests if job_id not in self.records or self.records[job_id].expired
        ]:
            del self.requests[job_id]
            self.saved.pop(job_id, None)
            self.results.pop(job_id, None)
        return removed

    async def schedule(self, name: str, tick: float, new: NewJob | None) -> bool:
        if new is None:
            self.ticks.setdefault(name, tick)
            return False
        if tick <= self.ticks.get(name, float("-inf")):
            return False
        self._submit(new)
        self.ticks[name] = tick
        return True

    async def last_tick(self, name: str) -> float | None:
        return self.ticks.get(name)

    def watch(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        self.watchers.append(callback)
        return lambda: self.watchers.remove(callback) if callback in self.watchers else None

    def lost(self, callback: Callable[[list[tuple[str, int]]], None]) -> Callable[[], None]:
        return lambda: None  # no lease

    def broken(self, callback: Callable[[str], None]) -> Callable[[], None]:
        self.breaks.append(callback)
        return lambda: self.breaks.remove(callback)

    async def attempts_of(self, owner: str) -> list[Record]:
        return [record for record in self.records.values() if record.owner == owner]

    async def owners(self) -> set[str]:
        return {record.owner for record in self.records.values() if record.owner}

    async def died(self, owner: str) -> list[str]:
        mine = [record for record in self.records.values() if record.owner == owner]
        return [each.id for each in mine if self._change(each.id, states.lapse(each, self.clock()))]

    def _write(self, job_id: str, change: Callable[[Record], Record | states.Refusal]) -> bool:
        record = self.records.get(job_id)
        return record is not None and self._change(job_id, change(record))

    def _change(self, job_id: str, new: Record | states.Refusal) -> bool:
        if isinstance(new, states.Refusal):
            return False
        self._keep(new)
        return True

    def _keep(self, record: Record) -> None:
        self.records[record.id] = record
        if not record.has_saved:
            self.saved.pop(record.id, None)
        for callback in list(self.watchers):
            callback(Change(record.id, record.route, record.state, record.version))
