"""The store of one machine, as each of several server processes has it: one of them is its keeper, the others ask it.

    server process A ── keeper ──> SqliteStore ──> jobs.db
    server process B ── link ──┐
    server process C ── link ──┴──> keeper's socket, in A

*Election.* The process that gets the lock jobs.db-lock is the keeper: it opens the store, ends the attempts of dead
server processes, and listens. The others connect. When their connection is lost, each tries both again, every
PAUSE seconds: the kernel releases the lock of a dead keeper at once.

*Hand-over.* The attempts of the other processes continue: their locks show that they live. A call whose answer was lost
is repeated. A write of an attempt that is refused then is read back, as it may have been committed before. A claim is
not repeated: the new keeper releases the attempts that their owner does not know. A `submit` without a key is not
repeated either, as it could be accepted twice: its client gets a 503. Other calls wait for the new keeper for at most
HANDOVER_TIME.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from ...core.errors import ConfigurationError
from ...core.job_errors import StoreError
from ..callbacks import Callbacks
from ..records import (
    MISSED,
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
from ..states import Refusal
from ..store import LocalStore
from .link import KeeperLink, KeeperRefuses, LinkLost
from .locks import FileLock, lock_as_owner, pid_in, servers_folder
from .messages import VERSION, Content, Hello, Retried
from .owners import OwnerWatch, release_unknown
from .server import KeeperServer

log = logging.getLogger("tinysvc.jobs")

PAUSE, LONG_PAUSE = 0.02, 0.5
"""Seconds between two attempts to become the keeper or to find it; the longer one after HANDOVER_TIME."""

HANDOVER_TIME = 5.0
"""Seconds for which a call waits while there is no keeper. A hand-over takes less than two."""

OPEN_TIME = 15.0
"""Seconds until a process gives up at its start because the keeper does not answer."""


class SharedStore:
    """A `Store` that several server processes of one machine share.

    Args:
        path: The file of the store.
        local: Makes the store that the keeper opens.
    """

    def __init__(self, path: Path, local: Callable[[Path], LocalStore]) -> None:
        self.path = path.resolve()
        self.owner = ""
        self._local = local
        self._service = ""
        self._problem = "the store is not open"
        self._store: LocalStore | None = None  # of the keeper
        self._link: KeeperLink | None = None  # of another process
        self._available = asyncio.Event()
        self._waits = True  # calls wait for the next keeper
        self._held: set[tuple[str, int]] = set()  # attempts of this process
        self._watchers: Callbacks[Change] = Callbacks()
        self._broken: Callbacks[str] = Callbacks()
        self._keeper: KeeperServer | None = None
        self._keeper_lock: FileLock | None = None
        self._owner_lock: FileLock | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_writes: set[asyncio.Future[None]] = set()
        self._closed = False

    # Start and end

    @property
    def inherited(self) -> Sequence[int]:
        """The descriptor that all workers of this process must inherit."""
        return [] if self._owner_lock is None else [self._owner_lock.fileno()]

    @property
    def problem(self) -> str:
        """Why the store cannot write now; "" if it can."""
        return self._store.problem if self._store is not None else self._problem

    @property
    def is_keeper(self) -> bool:
        """Whether this process has the store open."""
        return self._store is not None

    async def open(self, owner: str, service: str) -> None:
        """Become the keeper, or connect to it.

        Args:
            owner: Name of this server process; "" for a process that runs no attempts.
            service: Name of the service; "" for any.

        Raises:
            ConfigurationError: The store must not be used, or its keeper does not answer.
        """
        self.owner, self._service = owner, service
        try:
            self._folder = servers_folder(self.path)
            if owner:
                self._owner_lock = lock_as_owner(self._folder, owner)
            self._keeper_lock = FileLock(self.path.with_name(self.path.name + "-lock"))
        except OSError as error:
            if not await asyncio.to_thread(self.path.parent.exists):
                raise ConfigurationError(
                    f"the store {self.path} cannot be opened: there is no folder {self.path.parent}; make it, or "
                    "correct the setting `jobs`"
                ) from error
            raise ConfigurationError(
                f"the store {self.path} cannot be opened: {error.strerror} ({error.filename})"
            ) from error
        try:
            async with asyncio.timeout(OPEN_TIME):
                while True:
                    if await self._find():
                        break
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            keeper = pid_in(self._keeper_lock.path)
            await self.aclose()
            raise ConfigurationError(
                f"the store {self.path} cannot be used: its keeper, process {keeper}, does not answer; end that process"
            ) from None
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the store; another process becomes the keeper."""
        if self._last_writes:
            await asyncio.wait(self._last_writes)
        self._closed = True
        self._problem = "the store is closed"
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._link is not None:
            self._link.close()
        if self._keeper is not None:
            await self._keeper.aclose()
        store, self._store, self._link, self._keeper = self._store, None, None, None
        if store is not None:
            await store.aclose()
        self._available.set()  # calls that wait fail now
        if self._owner_lock is not None:
            self._owner_lock.path.unlink(missing_ok=True)
            self._owner_lock.close()
        if self._keeper_lock is not None:
            self._keeper_lock.close()

    # Election

    async def _find(self) -> bool:
        """Become the keeper, or connect to it. False if neither is possible at the moment."""
        assert self._keeper_lock is not None
        if self._keeper_lock.acquire():
            self._keeper_lock.sign()
            await self._become_keeper()
            return True
        hello = Hello(VERSION, self.owner, self._service, sorted(self._held))
        try:
            self._link = await KeeperLink.connect(
                self._folder, hello, self._watchers.call, self._on_claim, self._on_link_lost
            )
        except (OSError, LinkLost):
            return False
        except KeeperRefuses as error:
            raise KeeperRefuses(
                f"the store {self.path} cannot be used: {error}. Give this service a store of its own, as in "
                "--jobs other.db"
            ) from None
        self._problem = ""
        self._available.set()
        return True

    async def _become_keeper(self) -> None:
        assert self._keeper_lock is not None
        store = self._local(self.path)
        keeper = KeeperServer(store, self._service, self._folder, lambda: watch.wake())
        watch = OwnerWatch(store, self._folder, self.owner, keeper.is_connected)
        try:
            await store.open(self.owner, self._service)
        except BaseException:
            self._keeper_lock.release()
            raise
        try:
            await watch.look()
            if self.owner:
                await release_unknown(store, self.owner, self._held)
            if self._service:  # not for the command line, which ends at once
                await keeper.start()
        except BaseException:
            await store.aclose()
            self._keeper_lock.release()
            raise
        store.watch(self._watchers.call)
        store.broken(self._broken.call)
        self._store, self._keeper = store, keeper
        self._problem = ""
        watch.wake()
        self._start(watch.run())
        self._available.set()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_link_lost(self) -> None:
        self._link = None
        self._available.clear()
        self._problem = "the process that keeps the store has ended; another one takes over"
        self._waits = True
        if not self._closed:
            self._start(self._take_over())

    async def _take_over(self) -> None:
        """Find the next keeper, or become it."""
        began, reported = monotonic(), ""
        while True:
            pause = PAUSE if monotonic() - began < HANDOVER_TIME else LONG_PAUSE
            try:
                if await self._find():
                    break
            except (ConfigurationError, StoreError, OSError) as error:
                self._problem, pause = str(error), LONG_PAUSE
                self._waits = False
                if self._problem != reported:
                    reported = self._problem
                    log.error("the store of durable jobs cannot be opened again: %s", error)
            await asyncio.sleep(pause)
        keeper = f"process {self._link.keeper}" if self._link is not None else "this process"
        log.info(
            "%s keeps the store %s now, %.2f s after the end of the last one",
            keeper,
            self.path.name,
            monotonic() - began,
        )
        self._watchers.call(MISSED)

    # Calls

    async def _call(self, method: str, *arguments: Any) -> tuple[Any, bool]:
        """The value of a method, and whether the call was repeated after a hand-over."""
        repeated = False
        while True:
            if self._store is not None:
                return await getattr(self._store, method)(*arguments), repeated
            if self._link is not None:
                try:
                    return await self._link.ask(method, *arguments), repeated
                except LinkLost:
                    repeated = True
                    if method == "claim":
                        return [], repeated
                    if method == "submit" and not arguments[0].key:
                        raise StoreError("the keeper of the store died during this call") from None
                    await asyncio.sleep(0)  # the end of the connection is reported
                    continue
            try:
                async with asyncio.timeout(HANDOVER_TIME if self._waits else 0):
                    await self._available.wait()
            except TimeoutError:
                raise StoreError(self._problem) from None
            if self._closed:
                raise StoreError(self._problem)

    async def _write(
        self, method: str, is_done: Callable[[Record], bool], job_id: str, attempt: int, *rest: Any
    ) -> bool:
        """A write of an attempt. `is_done` finds it in the record: it may have been committed before a hand-over."""
        done, repeated = await self._call(method, job_id, attempt, *rest)
        if repeated and not done:
            record = await self.get(job_id)
            return record is not None and is_done(record)
        return bool(done)

    async def _end(self, method: str, cause: str, job_id: str, attempt: int, *rest: Any) -> bool:
        """A write that ends an attempt with this cause."""

        def is_done(record: Record) -> bool:
            return any(each.number == attempt and each.cause == cause for each in record.attempts)

        done = await self._write(method, is_done, job_id, attempt, *rest)
        self._held.discard((job_id, attempt))
        return done

    async def submit(self, new: NewJob) -> Submitted:
        value: Submitted = (await self._call("submit", new))[0]
        return value

    async def get(self, job_id: str) -> Record | None:
        value: Record | None = (await self._call("get", job_id))[0]
        return value

    async def result(self, job_id: str) -> bytes | BinaryIO | None:
        while True:
            value, _ = await self._call("result", job_id)
            if not isinstance(value, Content):
                return value  # type: ignore[no-any-return]
            if not value.path:
                return value.data
            with suppress(FileNotFoundError):  # it has been swept meanwhile
                return await asyncio.to_thread(open, value.path, "rb")

    async def page(
        self, route: str | None, state: State | None, limit: int, cursor: str, path: str | None = None
    ) -> Page:
        value: Page = (await self._call("page", route, state, limit, cursor, path))[0]
        return value

    async def claim(self, capacity: Mapping[str, int], total: int) -> list[Claimed]:
        call = asyncio.ensure_future(self._call("claim", capacity, total))
        try:
            claimed: list[Claimed] = (await asyncio.shield(call))[0]
        except asyncio.CancelledError:
            give_back = asyncio.ensure_future(self._give_back(call))
            self._last_writes.add(give_back)
            give_back.add_done_callback(self._last_writes.discard)
            raise
        return claimed

    def _on_claim(self, claimed: list[Claimed]) -> None:
        self._held.update((each.record.id, each.record.attempt) for each in claimed)

    async def _give_back(self, call: asyncio.Future[tuple[Any, bool]]) -> None:
        """Release the attempts of a claim whose caller was cancelled."""
        with suppress(StoreError):
            for each in (await call)[0]:
                await self.release(each.record.id, each.record.attempt, "shutdown")

    async def progress(self, job_id: str, attempt: int, value: Progress) -> bool:
        return bool((await self._call("progress", job_id, attempt, value))[0])

    async def save(self, job_id: str, attempt: int, value: bytes) -> bool:
        return bool((await self._call("save", job_id, attempt, value))[0])

    async def finish(self, job_id: str, attempt: int, head: ResultHead, body: bytes) -> bool:
        return await self._end("finish", "succeeded", job_id, attempt, head, body)

    async def fail(self, job_id: str, attempt: int, failure: Failure) -> bool:
        return await self._end("fail", failure.cause, job_id, attempt, failure)

    async def release(self, job_id: str, attempt: int, cause: str) -> bool:
        return await self._end("release", cause, job_id, attempt, cause)

    async def stopped(self, job_id: str, attempt: int) -> bool:
        done = await self._write("stopped", lambda record: not record.owner, job_id, attempt)
        self._held.discard((job_id, attempt))
        return done

    async def cancel(self, job_id: str) -> CancelOutcome:
        value: CancelOutcome = (await self._call("cancel", job_id))[0]
        return value

    async def retry(self, job_id: str) -> Record | Refusal | None:
        value, repeated = await self._call("retry", job_id)
        if isinstance(value, Retried):
            value = value.refusal or value.record
        if repeated and isinstance(value, Refusal):  # it was retried before the hand-over
            record = await self.get(job_id)
            return value if record is None or record.ended else record
        return value  # type: ignore[no-any-return]

    async def next_due(self) -> float | None:
        value: float | None = (await self._call("next_due"))[0]
        return value

    async def sweep(self, now: float) -> int:
        value: int = (await self._call("sweep", now))[0]
        return value

    async def schedule(self, name: str, tick: float, new: NewJob | None) -> bool:
        return bool((await self._call("schedule", name, tick, new))[0])

    async def last_tick(self, name: str) -> float | None:
        value: float | None = (await self._call("last_tick", name))[0]
        return value

    # Changes

    def watch(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback` after each commit, and with MISSED after a hand-over. Returns the function that ends it."""
        return self._watchers.add(callback)

    def broken(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback` if this process is the keeper, and its store has closed itself for good."""
        return self._broken.add(callback)

    def lost(self, callback: Callable[[list[tuple[str, int]]], None]) -> Callable[[], None]:
        """`callback` is never called: attempts continue without a keeper, as their lock shows that they live."""
        return lambda: None
