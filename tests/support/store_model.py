"""The same commands to a store and to the store in memory: all answers, and all records afterwards, must be equal.

Hypothesis makes the commands. They name durable jobs by their place in the order of submission, so a shorter list of
commands is still a valid one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from hypothesis import strategies as st

from memory_store import MemoryStore
from store_contract import LARGE, Harness, OwnerView, content
from tinysvc.core.job_errors import JobError
from tinysvc.jobs.records import Failure, NewJob, Progress, Record, ResultHead, State
from tinysvc.jobs.states import Refusal
from tinysvc.jobs.store import Store

ROUTES = ("/a", "/b/{user}")
OWNERS = ("one", "two")
START = 2_000_000_000.0
"""A time after all real ones: the far future of a store that has no clock but the real one."""
LATER = 1000.0
LOOK = 4
"""Commands after which all records are compared. Most faults are in the answers anyway."""
YEAR = 365 * 86400.0


class Clock:
    """A clock that jumps, forth and back."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Side:
    """One of the two stores, with the ids that it gave out."""

    def __init__(self, harness: Harness, now: float) -> None:
        self.harness = harness
        self.now = now
        """The time that commands relate to."""
        self.ids: list[str] = []

    async def server(self, owner: int = 0) -> Store:
        return await self.harness.server(OWNERS[owner])

    def id_of(self, place: int) -> str:
        return self.ids[place % len(self.ids)] if self.ids else "f" * 32

    async def running(self, number: int) -> str:
        """One of the running ones, if there are any; else any."""
        store = await self.server()
        records = [await store.get(each) for each in self.ids]
        places = [place for place, record in enumerate(records) if record and record.state == State.RUNNING]
        return self.id_of(places[number % len(places)] if places else number)

    def place_of(self, record: Record) -> int:
        if record.id not in self.ids:
            self.ids.append(record.id)
        return self.ids.index(record.id)

    async def owner_of(self, job_id: str) -> Store:
        """The server process that runs it: only this one may write for its attempt."""
        record = await (await self.server()).get(job_id)
        return await self.harness.server(record.owner if record and record.owner else OWNERS[0])

    async def attempt_of(self, job_id: str, older: int) -> int:
        record = await (await self.server()).get(job_id)
        return (record.attempt if record else 1) - older


class Model:
    """A `Harness` of the store in memory.

    Args:
        clock: None: the real one.
        gives_back: Server processes that end in good order give back what they run; else they keep it.
    """

    def __init__(self, clock: Clock | None, gives_back: bool = False) -> None:
        self._store = MemoryStore(clock) if clock else MemoryStore()
        self._gives_back = gives_back

    async def server(self, owner: str) -> Any:
        return OwnerView(self._store, owner)

    async def kill(self, owner: str) -> None:
        await self._store.died(owner)

    async def restart(self) -> None:
        for record in [each for each in self._store.records.values() if each.owner and self._gives_back]:
            await self._store.release(record.id, record.attempt, "shutdown")
            await self._store.stopped(record.id, record.attempt)


class Command(Protocol):
    async def run(self, side: Side) -> Any:
        """Do it, and return an answer that both sides must give."""


@dataclass(frozen=True)
class Submit:
    route: int
    priority: int
    due: float | None
    key: str
    digest: bytes
    attempts: int
    large: bool
    limit: int | None

    async def run(self, side: Side) -> Any:
        submitted = await (await side.server()).submit(self.new(side))
        return submitted.is_new, side.place_of(submitted.record)

    def new(self, side: Side) -> NewJob:
        return NewJob(
            route=ROUTES[self.route],
            path=("/a", f"/b/{self.priority}")[self.route],
            request=b"\x80",
            body=LARGE if self.large else self.digest,
            digest=self.digest,
            due=None if self.due is None else side.now + self.due,
            priority=self.priority,
            key=self.key,
            max_attempts=self.attempts,
            max_waiting=self.limit,
            keep=LATER,
        )


@dataclass(frozen=True)
class Claim:
    owner: int
    first: int
    second: int
    total: int

    async def run(self, side: Side) -> Any:
        capacity = dict(zip(ROUTES, (self.first, self.second), strict=True))
        claimed = await (await side.server(self.owner)).claim(capacity, self.total)
        return [(side.place_of(each.record), each.record.attempt, each.body, each.saved) for each in claimed]


@dataclass(frozen=True)
class Write:
    """A write of an attempt: the newest, or an older one."""

    kind: str
    job: int
    older: int
    value: int

    async def run(self, side: Side) -> Any:
        job_id = await side.running(self.job)
        store = await side.owner_of(job_id)
        attempt = await side.attempt_of(job_id, self.older)
        body = LARGE[self.value :] if self.value % 2 else str(self.value).encode()
        problem = {"status": 500 + self.value}
        match self.kind:
            case "progress":
                return await store.progress(job_id, attempt, Progress(fraction=0.5, values={"n": self.value}))
            case "save":
                return await store.save(job_id, attempt, body)
            case "finish":
                head = ResultHead(status=200, content_type="text/plain", size=len(body))
                return await store.finish(job_id, attempt, head, body)
            case "fail":
                return await store.fail(
                    job_id, attempt, Failure("error", str(self.value), problem=problem, counts=bool(self.value % 3))
                )
            case "pause":
                due = side.now + (self.value - 2) * LATER
                return await store.fail(job_id, attempt, Failure("worker-died", problem=problem, retry_at=due))
            case "release":
                return await store.release(job_id, attempt, "shutdown")
            case _:
                return await store.stopped(job_id, attempt)


@dataclass(frozen=True)
class Decide:
    """Someone cancels or retries a durable job."""

    kind: str
    job: int

    async def run(self, side: Side) -> Any:
        store, job_id = await side.server(), side.id_of(self.job)
        if self.kind == "cancel":
            outcome = await store.cancel(job_id)
            return outcome.kind, outcome.owner, outcome.attempt
        answer = await store.retry(job_id)
        return answer.reason if isinstance(answer, Refusal) else answer and side.place_of(answer)


@dataclass(frozen=True)
class Tick:
    tick: float
    only_remember: bool

    async def run(self, side: Side) -> Any:
        store = await side.server()
        new = None if self.only_remember else Submit(0, 0, None, "", b"tick", 1, False, None).new(side)
        accepted = await store.schedule("nightly", self.tick, new)
        if accepted:
            side.place_of((await store.page(ROUTES[0], None, 1, "")).records[0])
        return accepted, await store.last_tick("nightly")


@dataclass(frozen=True)
class Event:
    """Something that happens to the servers or to the clock."""

    kind: str
    value: int

    async def run(self, side: Side) -> Any:
        match self.kind:
            case "kill":
                await side.server(self.value % 2)
                await side.harness.kill(OWNERS[self.value % 2])
            case "restart":
                await side.harness.restart()
            case "sweep":
                return await (await side.server()).sweep(side.now + self.value * LATER)
        return None


@dataclass(frozen=True)
class Jump:
    """The clock jumps, by seconds; nothing for a store with a clock of its own."""

    seconds: float

    async def run(self, side: Side) -> Any:
        return None


_jobs = st.integers(0, 5)
_submits = st.builds(
    Submit,
    route=st.integers(0, 1),
    priority=st.integers(-1, 1),
    due=st.sampled_from([None, -LATER, -2 * LATER, LATER, YEAR]),
    key=st.sampled_from(["", "", "k"]),
    digest=st.sampled_from([b"1", b"2"]),
    attempts=st.integers(1, 3),
    large=st.sampled_from([False, False, False, True]),
    limit=st.sampled_from([None, None, None, 2]),
)
_claims = st.builds(Claim, st.integers(0, 1), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4))
_writes = st.builds(
    Write,
    st.sampled_from(["progress", "save", "save", "finish", "fail", "pause", "pause", "release", "stopped"]),
    _jobs,
    st.sampled_from([0, 0, 0, 0, 0, 1, -1]),
    st.integers(0, 5),
)
_events = st.one_of(
    st.builds(Decide, st.sampled_from(["cancel", "retry"]), _jobs),
    st.builds(Tick, st.sampled_from([1.0, 2.0, 3.0]), st.booleans()),
    st.builds(Event, st.sampled_from(["kill", "restart", "sweep"]), st.integers(0, 3)),
    st.builds(Jump, st.sampled_from([-2 * LATER, -1.0, 1.0, 2 * LATER, YEAR])),
)
_command = st.one_of(_submits, _submits, _claims, _writes, _writes, _writes, _events)
COMMANDS: st.SearchStrategy[list[Command]] = st.integers(8, 40).flatmap(
    lambda number: st.tuples(
        st.lists(_submits, min_size=2, max_size=6), st.lists(_command, min_size=number, max_size=number)
    ).map(lambda parts: [*parts[0], *parts[1]])
)
"""Lists of some length: most of the short ones end no durable job."""


async def compare(
    harness: Harness, commands: list[Command], now: float, clock: Clock | None = None, gives_back: bool = False
) -> None:
    """Give the commands to the store of `harness`, and to a new store in memory.

    Args:
        harness: An empty store.
        commands: Made by `COMMANDS`.
        now: The time of the clock of the store.
        clock: The clock of the store. None: it has the real one, which does not jump.
        gives_back: See `Model`.
    """
    own_clock = Clock() if clock else None
    model, real = Side(Model(own_clock, gives_back), now), Side(harness, now)
    for number, command in enumerate(commands, 1):
        if isinstance(command, Jump) and clock and own_clock:
            clock.now = own_clock.now = own_clock.now + command.seconds
            model.now = real.now = model.now + command.seconds
        expected, answer = [await _answer(command, side) for side in (model, real)]
        assert answer == expected, (command, commands)
        if number % LOOK == 0 or number == len(commands):
            expected, found = [await _view(side) for side in (model, real)]
            assert found == expected, (command, commands)


async def _answer(command: Command, side: Side) -> Any:
    try:
        return await command.run(side)
    except JobError as error:
        return type(error).__name__


async def _view(side: Side) -> Any:
    """All that can be seen, without times, ids and versions."""
    store = await side.server()
    records = [await store.get(each) for each in side.ids]
    results = [await store.result(each.id) if each and each.result else None for each in records]
    pages = [await store.page(route, None, 3, "") for route in (None, *ROUTES)]
    mine = await store.page(ROUTES[1], None, 9, "", "/b/1")
    return (
        [record and _seen(record) for record in records],
        [None if result is None else await content(result) for result in results],
        [([side.ids.index(each.id) for each in page.records], page.counts) for page in (*pages, mine)],
        await store.next_due() is None,
    )


def _seen(record: Record) -> dict[str, Any]:
    lapsed = {"server-died", "lease-lost"}
    attempts = [
        (each.number, each.ended is None, "died" if each.cause in lapsed else each.cause, each.counts)
        for each in record.attempts
    ]
    return {
        "state": record.state,
        "attempts": attempts,
        "attempt": record.attempt,
        "used": record.used,
        "owner": record.owner,
        "problem": record.problem and record.problem["status"],
        "progress": record.progress,
        "saved": record.has_saved,
        "result": record.result,
        "expired": record.expired,
        "expires": record.expires is not None,
        "key": record.key,
    }
