"""Hot swaps: the server looks at the aliases of its artifacts, and brings its pools to the versions that they name.

    look ──> fetch and verify ──> swap one pool after the other ──> watch for crashes
     │            │                     │                              │
     └─ the store └─ refused: the       └─ cannot be opened: the       └─ back to the version before, once
        is away:     version is not        state is not tried again
        look again   tried again

Whatever fails, the versions that are served stay, and the service stays ready. One server process swaps after the other
(swap_turns.py). If an alias moves while a swap runs, the swap is given up for the newest version, but not twice in a
row: under an alias that moves all the time, a swap must end now and then.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import PoolClosed, PoolError
from ..models.artifact_version import ArtifactVersion
from ..models.errors import ModelsError, StoreUnavailable, UnknownVersion
from ..pool.observer import PoolObserver
from .alias_looks import AliasLooks
from .artifact_labels import joined_labels
from .artifact_pools import ArtifactPool, SwappablePool, program_of, references_of
from .cpu_endpoints import CpuProgram
from .endpoint_parts import Endpoint
from .served_artifacts import ArtifactVersions, ServedArtifacts, drains
from .swap_memory import CrashWatch, FailedStates, RefusedVersions, state_of

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool
    from ..service.plan import Plan

log = logging.getLogger("tinysvc.models")

T = TypeVar("T")

OUTCOMES = ("ok", "refused", "failed", "aborted", "rolled_back")
"""How an attempt to serve other versions ends. `refused`: a version cannot be fetched, or is not valid; `failed`: it
cannot be opened; `aborted`: the alias has moved on."""


_random = random.SystemRandom()
"""Our own: a test of the author's may seed the random numbers of the module, or check that they stay. Each server
process draws others, even after a fork."""


class ModelSwaps:
    """Keeps the pools of a server process at the versions that the aliases name.

    Args:
        artifacts: What is served.
        interval: Mean seconds between two looks at the aliases; 0 for none.
    """

    def __init__(self, artifacts: ServedArtifacts, interval: float) -> None:
        self.artifacts = artifacts
        self.pools: list[ArtifactPool] = []
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.looks = AliasLooks(artifacts)
        self.since = monotonic()
        """When the server began to look at the aliases (time.monotonic)."""
        self._interval = interval
        self._failed = FailedStates()
        self._refused = RefusedVersions()
        self._decided: Mapping[str, int] | None = None  # new versions, when nothing was left to try
        self._before: ArtifactVersions | None = None  # to which crashes lead back
        self._crashes = CrashWatch()
        self._wake = asyncio.Event()  # too many crashes
        self._has_aborted = False
        self._task: asyncio.Task[None] | None = None

    # Start and end

    def program_of(self, endpoints: Sequence[Endpoint]) -> CpuProgram:
        """The program of a pool with these endpoints and the present versions."""
        return program_of(endpoints, self.artifacts.versions)

    def add(
        self, pool: ProcessPoolExecutor | ExternalPool, endpoints: Sequence[Endpoint], plans: Sequence[Plan]
    ) -> None:
        """Swap the versions of this pool, too. Its program has artifacts."""
        if not isinstance(pool, SwappablePool):
            references = ", ".join(references_of(endpoints))
            log.warning(
                "the pool %s is an executor, whose workers cannot be replaced: it serves the present versions of %s "
                "until the server starts again",
                pool.name,
                references,
            )
            return
        self.pools.append(ArtifactPool(pool, endpoints, drains(plans)))

    @property
    def unloaded(self) -> set[str]:
        """The names of the pools that have no workers because of a swap."""
        return {pool.name for pool in self.pools if pool.is_unloaded}

    def start(self) -> None:
        """Begin to look. The pools have started."""
        used = {reference for pool in self.pools for reference in pool.references}
        wanted = self.artifacts.wanted
        self.looks.aliases = [
            reference
            for reference, each in wanted.items()
            if reference in used and (each.reference.alias or each.is_candidate)
        ]
        for pool in self.pools:
            pool.pool.observer = self._observer(pool.name, pool.pool.observer)
        if self.looks.aliases and (self._interval or any(each.is_candidate for each in wanted.values())):
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Give up a swap that runs, and look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _observer(self, pool: str, other: PoolObserver | None) -> PoolObserver:
        """Notes ends of workers, and passes everything on to the observer that the pool has."""

        def on_worker_end(label: str, cause: str) -> None:
            if other is not None:
                other.on_worker_end(label, cause)
            if self._crashes.note(pool, label, cause):
                self._wake.set()

        if other is None:
            return PoolObserver(lambda job, outcome: None, lambda error: None, on_worker_end)
        return other._replace(on_worker_end=on_worker_end)

    # The loop

    async def _run(self) -> None:
        pause: float | None = self._pause()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            pause = self._pause() if self._interval else None  # without looks, candidates are fetched once
            try:
                await self._step()
            except PoolClosed:
                return
            except Exception:  # a fault of ours must not end the looks
                log.exception("the look at the aliases has failed")

    def _pause(self) -> float:
        """Seconds until the next look. They are random: many servers must not ask one store at the same time."""
        return self._interval * _random.uniform(0.75, 1.25)

    async def _step(self) -> None:
        if self._wake.is_set():
            self._wake.clear()
            if self._crashes.is_bad:
                await self._go_back()  # at once: this does not wait for our turn
        self._release()
        await self.looks.look_at_copies()
        async with AsyncExitStack() as turn:
            target = await self._unless_crash(self._prepare(turn))
            if target is not None and not self._wake.is_set():  # crashes lead back first
                await self._swap(target)

    async def _unless_crash(self, preparation: Coroutine[Any, Any, T]) -> T | None:
        """The result of a preparation. It is given up, with None, when the version that is served crashes workers: the
        way back must not wait for a slow store, or for the swap of another process.
        """
        task, crash = asyncio.create_task(preparation), asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait([task, crash], return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, crash):
                await _cancelled(each)

    async def _prepare(self, turn: AsyncExitStack) -> ArtifactVersions | None:
        """What to serve next, when `turn` is ours; None for what is served already."""
        if not await self._new_versions():
            return None
        await turn.enter_async_context(self.artifacts.turns.turn())
        named = await self._new_versions()  # it may have been a long time until our turn
        self._failed.add(self.artifacts.turns.failed())
        new = await self._fetch(named)
        target = self._failed.choose(self.artifacts.versions, new)
        if target is None and len(new) == len(named):
            self._decided = named
            self._note_failed_before(new)
        return target

    async def _new_versions(self) -> dict[str, int]:
        """The versions that the aliases name, where others are served and there is something left to try."""
        named = await self.looks.look()
        served, is_held = self.artifacts.served, self._refused.is_held
        new = {each: number for each, number in named.items() if number != served(each) and not is_held(each, number)}
        return {} if new == self._decided else new

    # Fetch

    async def _fetch(self, named: Mapping[str, int]) -> dict[str, ArtifactVersion]:
        """The copies of these versions, without those that are refused or cannot be had now."""
        found = {}
        for reference, number in named.items():
            try:
                found[reference] = await self.artifacts.in_thread(partial(self.artifacts.fetch, reference, number))
            except (ModelsError, OSError) as error:
                # What the store does not give may come later, but a version that is not valid stays so.
                may_come = isinstance(error, (StoreUnavailable, UnknownVersion, OSError))
                self._refused.hold(reference, number, self._interval if may_come else inf)
                if self.looks.note_problem(reference, self._stays(reference, number, f"is refused: {error}")):
                    self.outcomes["refused"] += 1
        return found

    def _stays(self, reference: str, number: int, trouble: str) -> str:
        name, served = self.artifacts.wanted[reference].reference.name, self.artifacts.versions.get(reference)
        return f"{served.label} stays, as {name}@{number} {trouble}" if served else f"{name}@{number} {trouble}"

    def _note_failed_before(self, new: ArtifactVersions) -> None:
        """These have failed before, perhaps in another server process."""
        for reference, version in new.items():
            if reference not in self.looks.problems:
                self.looks.note_problem(reference, self._stays(reference, version.version, "has failed before"))

    # Swap

    async def _swap(self, target: ArtifactVersions) -> None:
        served = self.artifacts.versions
        changed = {each: version for each, version in target.items() if served.get(each) != version}
        label, before = joined_labels(changed.values()), _labels(served, changed)
        began = monotonic()
        log.info("the swap %sto %s begins", f"from {before} " if before else "", label)
        self._crashes.begin({pool.name: pool.label(target) for pool in self.pools if pool.uses(changed)})
        try:
            outcome = await self._watched(asyncio.create_task(self._swap_pools(target, changed)), changed)
        except PoolClosed:
            raise
        except Exception as error:
            self._fail(target, changed, f"{label} cannot be opened{_and_stays(before)}", error)
            return
        self._has_aborted = outcome == "aborted"
        if outcome == "ok":
            self._crashes.swapped()
            self._before, self._decided = served, None
            self._solved(changed)
            self.outcomes["ok"] += 1
            is_tried = all(self.artifacts.wanted[each].is_candidate for each in changed)
            how = "is loaded as a candidate" if is_tried else "is served"
            log.info("%s %s%s, after %.1f s", label, how, before and f" in place of {before}", monotonic() - began)
            await self.artifacts.note_served(target)
        elif outcome == "crashed":
            self._note_crash(target, changed, _and_stays(before))
        else:
            self.outcomes["aborted"] += 1
            log.info("the swap to %s is given up: the alias has moved", label)

    async def _watched(self, swap: asyncio.Task[None], changed: ArtifactVersions) -> str:
        """Wait for the end of a swap. It is given up if the alias moves, or if the new version crashes workers."""
        crash = asyncio.create_task(self._wake.wait())
        move = asyncio.create_task(self._alias_moves(changed))
        try:
            await asyncio.wait([swap, crash, move], return_when=asyncio.FIRST_COMPLETED)
            if not swap.done():
                await _cancelled(swap)
            if swap.cancelled():
                return "crashed" if crash.done() else "aborted"
            await swap
            return "ok"
        finally:
            for task in (crash, move, swap):
                await _cancelled(task)

    async def _alias_moves(self, changed: ArtifactVersions) -> None:
        """Return when an alias names another version than this swap brings, and the swap may be given up."""
        while True:
            await asyncio.sleep(self._pause())
            named = await self.looks.look()
            for reference, version in changed.items():
                number = named.get(reference, version.version)
                is_back = number == self.artifacts.served(reference)
                if number != version.version and (is_back or not self._has_aborted):
                    return

    async def _swap_pools(self, versions: ArtifactVersions, changed: Collection[str]) -> None:
        """All pools that use a changed artifact, or none."""
        swapped: list[ArtifactPool] = []
        served = self.artifacts.versions
        try:
            for pool in self.pools:
                if pool.uses(changed):
                    await pool.swap(versions)
                    swapped.append(pool)
        except BaseException as error:
            if self._task is not None and not isinstance(error, PoolClosed):  # else the server ends
                for pool in swapped:
                    await self._restore(pool, served)
            raise

    async def _restore(self, pool: ArtifactPool, versions: ArtifactVersions) -> bool:
        try:
            await pool.swap(versions)
        except PoolError as error:
            log.error("the pool %s cannot go back to %s: %s", pool.name, pool.label(versions), error)
            return False
        return True

    # After a swap

    def _fail(self, target: ArtifactVersions, changed: Collection[str], problem: str, error: Exception) -> None:
        self.outcomes["failed"] += 1
        self._crashes.end()
        self._remember_failure(target)
        reason, _, traceback = str(error).partition("\n")
        last_line = traceback.rstrip().rpartition("\n")[2].strip()
        log.error("%s: %s%s", problem, reason, f"\n{traceback}" if traceback else "")
        for reference in changed:
            self.looks.problems[reference] = f"{problem}: {last_line or reason}"

    def _note_crash(self, target: ArtifactVersions, changed: Collection[str], result: str) -> None:
        self.outcomes["rolled_back"] += 1
        self._crashes.end()
        self._remember_failure(target)
        label = joined_labels(target[each] for each in changed)
        causes = ", ".join(f"{n} {cause.replace('_', ' ')}" for cause, n in Counter(self._crashes.causes).items())
        problem = f"{label} has ended {self._crashes.count} workers ({causes}){result}"
        log.error("%s", problem)
        self.looks.problems.update(dict.fromkeys(changed, problem))

    def _remember_failure(self, target: ArtifactVersions) -> None:
        state = state_of(target)
        self._failed.add([state])
        self.artifacts.turns.note_failed(state)

    async def _go_back(self) -> None:
        """The new version has crashed workers after the swap: serve those before it again, once."""
        before, self._before = self._before, None
        if before is None:
            return
        served = self.artifacts.versions
        changed = {each: version for each, version in served.items() if before.get(each) != version}
        self._note_crash(served, changed, f", and {_labels(before, changed) or 'no version'} is served again")
        pools = [pool for pool in self.pools if pool.uses(changed)]
        if all([await self._restore(pool, before) for pool in pools]):
            await self.artifacts.note_served(before)

    def _solved(self, changed: Collection[str]) -> None:
        for reference in changed:
            self.looks.problems.pop(reference, None)

    def _release(self) -> None:
        """Unpin the copies that no worker and no way back needs."""
        if self._before is not None and self._crashes.is_over:
            self._before = None
        if len(self.artifacts.pinned) > len(state_of(self.artifacts.versions)):
            used = {label for pool in self.pools for label in pool.labels_in_use()}
            self.artifacts.unpin(self._before or {}, used)

    def status(self) -> dict[str, dict[str, Any]]:
        """For `/readyz`: the version of each artifact, and its trouble."""
        found: dict[str, dict[str, Any]] = {}
        for reference in self.artifacts.wanted:
            found[reference] = {"version": self.artifacts.served(reference)}
            if problem := self.looks.problem_of(reference):
                found[reference]["problem"] = problem
        return found


def _labels(versions: ArtifactVersions, references: Collection[str]) -> str:
    """The labels of those versions; "" if there is none."""
    return joined_labels(versions[each] for each in references if each in versions)


def _and_stays(before: str) -> str:
    return f", and {before} stays" if before else ""


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task, unless it has ended, and wait for its end."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # retrieve it
