"""The interface of a store of durable jobs. SQLite and PostgreSQL implement it; states.py decides for both.

*Durable:* every method that changes a durable job has committed, with fsync, when it returns. A crash can lose nothing
but `progress`. *Fenced:* a write of an attempt names (id, attempt). If another attempt is the newest, or the durable
job is cancelled, the method returns False and has changed nothing. *Errors:* every method may raise
`core/job_errors.py: StoreError`, and has then changed nothing. *Cancellation:* a change continues if its caller is
cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Protocol

from .records import (
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
from .states import Refusal


class Store(Protocol):
    """Durable jobs on disk."""

    @property
    def problem(self) -> str:
        """Why the store cannot write now; "" if it can."""

    @property
    def inherited(self) -> Sequence[int]:
        """Descriptors that the workers must inherit: the death of the last one closes them."""

    async def open(self, owner: str, service: str) -> None:
        """Open the store for the server process `owner` of `service`; ConfigurationError if it must not be used."""

    async def aclose(self) -> None:
        """Finish the writes that have begun, and close."""

    async def submit(self, new: NewJob) -> Submitted:
        """Accept a durable job. Raises StoreFull, TooManyWaiting, or KeyReused."""

    async def get(self, job_id: str) -> Record | None:
        """The record; with `expired` for a while after its retention."""

    async def result(self, job_id: str) -> bytes | BinaryIO | None:
        """The body of the result; a big one as an open file, which stays readable after `sweep`."""

    async def page(
        self, route: str | None, state: State | None, limit: int, cursor: str, path: str | None = None
    ) -> Page:
        """A page of records, the newest first, without expired ones.

        Args:
            route: Path pattern of their route. None: any.
            state: Their state. None: any.
            limit: Records on the page at most.
            cursor: `next` of the page before; "" for the first one.
            path: The path of their requests. None: any. `counts` counts by it, too.
        """

    async def claim(self, capacity: Mapping[str, int], total: int) -> list[Claimed]:
        """Start at most `total` attempts: highest priority first, then earliest due, then in the order of acceptance.

        Args:
            capacity: For each route how many may start. Durable jobs of other routes wait.
            total: How many may start together.
        """

    async def progress(self, job_id: str, attempt: int, value: Progress) -> bool:
        """Keep the progress. It does not wait for a commit."""

    async def save(self, job_id: str, attempt: int, value: bytes) -> bool:
        """Keep a value, from which a later attempt continues."""

    async def finish(self, job_id: str, attempt: int, head: ResultHead, body: bytes) -> bool:
        """The attempt succeeded."""

    async def fail(self, job_id: str, attempt: int, failure: Failure) -> bool:
        """The attempt failed. With `failure.retry_at` there is a further one then, if attempts are left."""

    async def release(self, job_id: str, attempt: int, cause: str) -> bool:
        """The attempt was stopped by a shutdown: the durable job is queued, and the attempt does not count."""

    async def cancel(self, job_id: str) -> CancelOutcome:
        """Cancel it; a failed one is dismissed.

        The owner of a running attempt must then kill the worker, and report it by `stopped`.
        """

    async def stopped(self, job_id: str, attempt: int) -> bool:
        """The worker of a cancelled attempt is dead: the record has no owner any more."""

    async def retry(self, job_id: str) -> Record | Refusal | None:
        """Start a failed one again. None: there is none with this id."""

    async def next_due(self) -> float | None:
        """When the earliest scheduled one is due."""

    async def sweep(self, now: float) -> int:
        """Remove those whose retention is over, and files that no record names. Returns how many it removed."""

    async def schedule(self, name: str, tick: float, new: NewJob | None) -> bool:
        """Accept the durable job of one tick, if the tick is later than the newest one of this name.

        Args:
            name: The schedule. An unknown name is remembered, with `tick` as its newest one.
            tick: Unix time of the tick.
            new: The durable job. None: only remember an unknown name.

        Returns:
            Whether a durable job was accepted.
        """

    async def last_tick(self, name: str) -> float | None:
        """The newest tick that `schedule` accepted under this name."""

    def watch(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback` on the event loop after each commit, also for changes by other processes.

        Returns:
            A function that ends this.
        """

    def lost(self, callback: Callable[[list[tuple[str, int]]], None]) -> Callable[[], None]:
        """Call `callback` with each (id, attempt) that this server process must kill at once. Returns its end.

        The lease cannot be renewed, so another server may start the next attempt. Late writes return False.
        """

    def broken(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback` with the reason when the store has closed itself for good. Returns its end.

        An fsync has failed, or the file is damaged: the server must exit, and start again from the content of the disk.
        """


class LocalStore(Store, Protocol):
    """A store of one machine, which one keeper process writes in the name of all."""

    async def claim(self, capacity: Mapping[str, int], total: int, *, owner: str = "") -> list[Claimed]:
        """As in `Store`, for another server process `owner`."""

    async def owners(self) -> set[str]:
        """The server processes that run attempts, or have to kill cancelled ones."""

    async def died(self, owner: str) -> list[str]:
        """A server process is dead with all its workers: its attempts end as "server-died". Returns their ids."""

    async def attempts_of(self, owner: str) -> list[Record]:
        """The records that `owner` runs, and the cancelled ones whose workers it has to kill."""
