"""Schedules: the job routes with `every=`, whose jobs start at a time and without a request.

Every server process runs the same loop, and the store accepts each tick of a schedule once:

    tick      the latest time of the schedule that has passed; earlier ones that were missed are left out
    accepted  if it is later than the newest tick that the store knows for the schedule
    known     a server that starts makes its schedules known, with the present as their newest tick

So a schedule that was missed while no server ran gets one job, a new schedule gets none for the time before it, and a
clock that is set back repeats nothing. The loop reads the clock anew at least every `LONGEST_SLEEP` seconds: it may be
set, and the machine may be suspended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from ..core.cron import Cron
from ..core.job_errors import JobError, TooManyWaiting
from ..service.plan import Plan
from .records import NewJob

log = logging.getLogger("tinysvc.jobs")

LONGEST_SLEEP = 15.0
"""Seconds after which the clock is read again: a clock that is set makes a job late by this much at most."""

RETRY_PAUSE = 1.0
"""Seconds before a store that was not available is asked again."""

FUTURE = 60.0
"""Seconds: a newest tick that is later than the clock by more than this was accepted while a clock was wrong."""


class TickStore(Protocol):
    """The part of a store that schedules call."""

    async def schedule(self, name: str, tick: float, new: NewJob | None) -> bool: ...

    async def last_tick(self, name: str) -> float | None: ...


class Schedule(NamedTuple):
    """One job route with `every=`."""

    name: str
    """Under this name the store keeps its newest tick. Another expression or zone is another schedule."""
    cron: Cron
    new_job: Callable[[], NewJob]
    """Makes the durable job of one tick."""


def schedules_of(plans: Iterable[Plan], new_job: Callable[[Plan], NewJob]) -> list[Schedule]:
    """The schedules of a service's routes. A route that is mounted twice has one schedule, at its first place."""
    found: dict[int, Schedule] = {}
    for plan in plans:
        durable = plan.route.durable
        if durable is not None and durable.every and id(plan.route) not in found:
            name = f"{plan.path} {durable.every} {durable.zone}"
            found[id(plan.route)] = Schedule(name, Cron(durable.every, durable.zone), _maker(plan, new_job))
    return list(found.values())


def _maker(plan: Plan, new_job: Callable[[Plan], NewJob]) -> Callable[[], NewJob]:
    return lambda: new_job(plan)


class Scheduler:
    """Gives the store a durable job at each tick.

    Args:
        store: Accepts each tick of a schedule once.
        schedules: The schedules of the service.
        clock: The present as a Unix time.
    """

    def __init__(self, store: TickStore, schedules: Iterable[Schedule], clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._unknown = list(schedules)  # not yet known to the store
        self._known: list[Schedule] = []
        self._newest: dict[str, float] = {}  # ticks that the store has answered
        self._full: set[str] = set()  # schedules whose job finds too many that wait
        self._is_away = False

    async def run(self) -> None:
        """Run until the task is cancelled. Without a schedule, return."""
        while self._unknown or self._known:
            pause = await self.step()
            await asyncio.sleep(pause)

    async def step(self) -> float:
        """Give the store all ticks that are due. Returns the seconds until the next one, or until a repetition."""
        now = self._clock()
        try:
            while self._unknown:
                await self._store.schedule(self._unknown[-1].name, now, None)
                self._known.append(self._unknown.pop())
            for each in self._known:
                await self._tick(each, now)
        except JobError as error:
            if not self._is_away:
                log.warning("the store of durable jobs cannot accept scheduled jobs now; they start later: %s", error)
            self._is_away = True
            return RETRY_PAUSE
        self._is_away = False
        if self._full:
            return RETRY_PAUSE
        ticks = [each.cron.next(now) for each in self._known]
        waits = [tick - self._clock() for tick in ticks if tick is not None]
        return max(0.0, min([LONGEST_SLEEP, *waits]))

    async def _tick(self, schedule: Schedule, now: float) -> None:
        tick = schedule.cron.latest(now)
        if tick is None or tick <= self._newest.get(schedule.name, float("-inf")):
            return
        try:
            new = schedule.new_job()
        except Exception:  # a value that the route cannot bind; other schedules go on
            log.exception("the schedule %r cannot start its job", schedule.name)
            self._newest[schedule.name] = tick
            return
        try:
            is_accepted = await self._store.schedule(schedule.name, tick, new)
        except TooManyWaiting as error:  # other schedules go on
            if schedule.name not in self._full:
                log.warning("the schedule %r cannot start its job now; it starts later: %s", schedule.name, error)
            self._full.add(schedule.name)
            return
        self._full.discard(schedule.name)
        self._newest[schedule.name] = tick
        if not is_accepted:
            await self._check_future(schedule)

    async def _check_future(self, schedule: Schedule) -> None:
        """Report a newest tick that was accepted by a clock that was wrong: until then, no tick is accepted."""
        newest = await self._store.last_tick(schedule.name)
        if newest is not None and newest > self._clock() + FUTURE:
            log.warning(
                "the schedule %r starts no job before %s: the job of that time was accepted by a clock that was ahead "
                "of this one; with another expression or zone it is a new schedule",
                schedule.name,
                datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"),
            )
