"""model_swaps.py: the driver, with a real store and pools that only note their programs."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import pytest

from swap_pools import (
    NotingPool,
    artifact_pool,
    endpoint_with,
    publish,
    served_artifacts,
    status,
    store_in,
    store_is_away,
)
from system import until
from tinysvc import Artifact, Request, Service, cpu_resource, cpu_route
from tinysvc.core.errors import PoolClosed, WorkerStartError
from tinysvc.core.settings import Settings
from tinysvc.models.store import ModelStore
from tinysvc.pool.external import ExternalPool
from tinysvc.pool.observer import PoolObserver
from tinysvc.runtime.cpu_endpoints import CpuProgram
from tinysvc.runtime.model_swaps import ModelSwaps
from tinysvc.runtime.running_service import at_work

CHURN, WORDS = "churn@production", "words@production"
INTERVAL = 0.01


class Bench:
    """A store, two pools and their driver. The first pool uses both artifacts, the second one only `churn`."""

    def __init__(self, folder: Path, store: ModelStore, swaps: ModelSwaps, pools: list[NotingPool]) -> None:
        self.folder = folder
        self.store = store
        self.swaps = swaps
        self.pools = pools

    def publish(self, name: str = "churn", content: str = "") -> int:
        return publish(self.store, name, content or f"weights {len(self.store.versions(name))}")

    def served(self) -> list[int | None]:
        return [self.swaps.artifacts.served(each) for each in (CHURN, WORDS)]

    async def until_served(self, *numbers: int) -> None:
        await until(lambda: self.served() == list(numbers))

    async def until_outcome(self, outcome: str, count: int = 1) -> None:
        await until(lambda: self.swaps.outcomes[outcome] >= count)

    async def looks(self, count: int = 3) -> None:
        """Wait for this many more looks at the aliases."""
        for _ in range(count):
            before = self.swaps.artifacts.seen[CHURN]
            await until(lambda before=before: self.swaps.artifacts.seen[CHURN] > before)  # type: ignore[misc]

    def problem(self) -> str:
        return str(self.swaps.status()[CHURN].get("problem", ""))


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    store = store_in(folder)
    publish(store, "words")
    publish(store)
    async with AsyncExitStack() as stack:
        artifacts = served_artifacts(folder, CHURN, WORDS)
        await artifacts.open(stack)
        pools = [NotingPool("default"), NotingPool("second")]
        swaps = ModelSwaps(artifacts, INTERVAL)
        swaps.pools += [artifact_pool(pools[0], CHURN, WORDS), artifact_pool(pools[1], CHURN)]
        swaps.start()
        stack.push_async_callback(swaps.aclose)
        yield Bench(folder, store, swaps, pools)


@pytest.mark.asyncio
async def test_each_pool_gets_the_version_that_the_alias_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with bench(tmp_path) as at:
        at.publish()
        await at.until_served(2, 1)
        assert [pool.labels for pool in at.pools] == [["churn@2, words@1"], ["churn@2"]]
        at.publish("words")
        await at.until_served(2, 2)
        assert [pool.labels[1:] for pool in at.pools] == [["churn@2, words@2"], []]
        assert at.swaps.outcomes["ok"] == 2
        assert at.swaps.status() == {CHURN: {"version": 2}, WORDS: {"version": 2}}
    assert "the swap from churn@1 to churn@2 begins" in caplog.messages
    assert any(each.startswith("words@2 is served in place of words@1, after ") for each in caplog.messages)


@pytest.mark.asyncio
async def test_version_that_cannot_be_opened_is_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as at:
        at.pools[0].failures["churn@2, words@1"] = WorkerStartError(
            "no worker", "Traceback ...\nValueError: no weights"
        )
        at.publish()
        await at.until_outcome("failed")
        await at.looks()
        assert (at.served(), at.pools[0].began, at.pools[1].began) == ([1, 1], ["churn@2, words@1"], [])
        assert at.problem() == "churn@2 cannot be opened, and churn@1 stays: ValueError: no weights"
        at.publish()
        await at.until_served(3, 1)
        assert (at.problem(), at.swaps.outcomes["failed"]) == ("", 1)
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 1
    assert "Traceback ..." in caplog.text


@pytest.mark.asyncio
async def test_rollback_of_the_alias_ends_the_problem(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.pools[0].failures["churn@2, words@1"] = WorkerStartError("no worker")
        at.publish()
        await until(lambda: "no worker" in at.problem())
        at.store.rollback("churn", "production")
        await until(lambda: not at.problem())
        assert at.pools[0].labels == []


@pytest.mark.asyncio
async def test_failure_in_one_pool_takes_the_others_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.pools[1].failures["churn@2"] = WorkerStartError("no worker")
        at.publish()
        await at.until_outcome("failed")
        assert at.pools[0].labels == ["churn@2, words@1", "churn@1, words@1"]
        assert at.served() == [1, 1]


@pytest.mark.asyncio
async def test_bad_artifact_does_not_hold_up_another_one(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        for label in ("churn@2, words@2", "churn@2, words@1"):
            at.pools[0].failures[label] = WorkerStartError("no worker")
        for pool in at.pools:
            pool.may_end.clear()
        at.publish("words")
        at.publish()
        await asyncio.sleep(0)
        for pool in at.pools:
            pool.may_end.set()
        await at.until_served(1, 2)
        assert "churn@2" in at.problem()


@pytest.mark.parametrize("harm", ["blob", "manifest"])
@pytest.mark.asyncio
async def test_invalid_version_is_refused_once(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(tmp_path) as at:
        publish(at.store, content="bad", alias="staging")
        if harm == "blob":
            digest = at.store.manifest("churn", 2).files[0].sha256
            (blob,) = (tmp_path / "models" / "churn" / "blobs").rglob(f"*{digest[2:]}")
            blob.chmod(0o600)
            blob.write_bytes(b"BAD")
        else:
            (tmp_path / "models" / "churn" / "2.json").write_bytes(b"{}")
        at.store.move_alias("churn", "production", 2)
        await at.until_outcome("refused")
        await at.looks()
        assert (at.swaps.outcomes["refused"], at.served(), at.pools[0].began) == (1, [1, 1], [])
        assert at.problem().startswith("churn@1 stays, as churn@2 is refused: ")
        at.publish()
        await at.until_served(3, 1)
    assert len(caplog.records) == 1


@pytest.mark.asyncio
async def test_missing_version_is_refused_until_it_comes(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        publish(at.store, content="late", alias="staging")
        manifest = tmp_path / "models" / "churn" / "2.json"
        at.store.move_alias("churn", "production", 2)
        hidden = manifest.rename(tmp_path / "hidden")
        await until(lambda: "churn@2 is refused" in at.problem() or at.served() == [2, 1])
        hidden.rename(manifest)
        await at.until_served(2, 1)
        assert not at.problem()


@pytest.mark.asyncio
async def test_store_that_is_away_is_a_problem_and_not_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with bench(tmp_path) as at:
        with store_is_away(tmp_path):
            await until(lambda: "does not exist" in at.problem())
            before = at.swaps.artifacts.seen[CHURN]
            await asyncio.sleep(3 * INTERVAL)
            assert at.swaps.artifacts.seen[CHURN] == before
        await until(lambda: not at.problem())
        at.publish()
        await at.until_served(2, 1)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [each.partition(":")[0] for each in warnings] == [
        "the store of the models is away, and the present versions stay"
    ]
    assert "the store of the models answers again" in caplog.messages


@pytest.mark.asyncio
async def test_looks_draw_no_number_of_the_generator_that_programs_seed(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        before = random.getstate()
        await at.looks()
        assert random.getstate() == before


def hold(at: Bench) -> None:
    for pool in at.pools:
        pool.may_end.clear()


def release(at: Bench) -> None:
    for pool in at.pools:
        pool.may_end.set()


@pytest.mark.asyncio
async def test_alias_that_moves_during_a_swap_leads_to_the_newest_version_only(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        hold(at)
        at.publish()
        await until(lambda: at.pools[0].began == ["churn@2, words@1"])
        at.publish()
        await until(lambda: at.pools[0].began[1:] == ["churn@3, words@1"])
        at.publish()
        await at.looks()
        assert at.pools[0].began[2:] == []  # a swap is not given up twice in a row
        release(at)
        await at.until_served(4, 1)
        assert at.pools[1].labels == ["churn@3", "churn@4"]
        assert at.swaps.outcomes["aborted"] == 1


@pytest.mark.asyncio
async def test_alias_that_moves_back_ends_each_swap(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        hold(at)
        for count in (1, 2):
            at.publish()
            await until(lambda count=count: len(at.pools[0].began) == count)  # type: ignore[misc]
            at.store.move_alias("churn", "production", 1)
            await at.until_outcome("aborted", count)
        release(at)
        await at.looks()
        assert (at.served(), at.pools[0].labels, at.problem()) == ([1, 1], [], "")


@pytest.mark.asyncio
async def test_version_that_crashes_workers_is_replaced_by_the_one_before_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.publish()
        await at.until_served(2, 1)
        await at.until_outcome("ok")
        for _ in range(2):
            at.pools[1].crash("churn@2")
        await at.until_served(1, 1)
        assert at.pools[1].labels == ["churn@2", "churn@1"]
        assert at.problem() == "churn@2 has ended 2 workers (2 crashed), and churn@1 is served again"
        for _ in range(9):
            at.pools[1].crash("churn@1")
        await at.looks()
        assert at.pools[1].labels == ["churn@2", "churn@1"]  # neither further back nor to version 2 again
        at.publish()
        await at.until_served(3, 1)
        assert at.swaps.outcomes["rolled_back"] == 1


@pytest.mark.parametrize("waits_for", ["store", "turn"])
@pytest.mark.asyncio
async def test_way_back_waits_neither_for_a_slow_store_nor_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_for: str
) -> None:
    async with bench(tmp_path) as at:
        at.publish()
        await at.until_outcome("ok")
        artifacts, is_slow = at.swaps.artifacts, threading.Event()
        may_go_on = threading.Event()

        def fetch(*_: object) -> Any:
            is_slow.set()
            may_go_on.wait(20)
            raise OSError("too slow")

        async with artifacts.turns.turn() if waits_for == "turn" else nullcontext():
            if waits_for == "store":
                monkeypatch.setattr(artifacts, "fetch", fetch)
            at.publish()
            if waits_for == "store":
                await until(is_slow.is_set)
            else:
                await at.looks(1)
            for _ in range(2):
                at.pools[1].crash("churn@2")
            await at.until_served(1, 1)
        may_go_on.set()


@pytest.mark.asyncio
async def test_crashes_during_a_swap_end_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.pools[1].may_end.clear()
        at.publish()
        await until(lambda: at.pools[1].began == ["churn@2"])
        for _ in range(2):
            at.pools[0].crash("churn@2, words@1", "out_of_memory")
        await at.until_outcome("rolled_back")
        assert at.pools[0].labels == ["churn@2, words@1", "churn@1, words@1"]
        assert at.problem() == "churn@2 has ended 2 workers (2 out of memory), and churn@1 stays"
        await at.looks()
        assert at.pools[0].labels[2:] == []


@pytest.mark.asyncio
async def test_end_of_the_server_ends_a_swap_without_going_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.pools[1].may_end.clear()
        at.publish()
        await until(lambda: at.pools[1].began == ["churn@2"])
        await at.swaps.aclose()
        assert at.pools[0].labels == ["churn@2, words@1"]


@pytest.mark.asyncio
async def test_closed_pool_ends_the_looks(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.pools[0].failures["churn@2, words@1"] = PoolClosed("closed")
        at.publish()
        await until(lambda: at.pools[0].began != [])
        await until(lambda: at.swaps._task is not None and at.swaps._task.done())
        assert (at.problem(), at.swaps.outcomes["failed"]) == ("", 0)


@pytest.mark.asyncio
async def test_copy_of_an_old_version_stays_while_a_worker_has_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        pinned = at.swaps.artifacts
        at.pools[0].statuses = [status("churn@1, words@1")]
        for number in (2, 3):
            at.publish()
            await at.until_outcome("ok", number - 1)
        await until(lambda: set(pinned.pinned) == {"words@1", "churn@1", "churn@2", "churn@3"})  # 2: for the way back
        at.pools[0].statuses = [status("churn@3, words@1")]
        await until(lambda: set(pinned.pinned) == {"words@1", "churn@2", "churn@3"})
        at.swaps._crashes.end()
        await until(lambda: set(pinned.pinned) == {"words@1", "churn@3"})


@pytest.mark.asyncio
async def test_observer_of_the_metrics_still_learns_everything(tmp_path: Path) -> None:
    seen: list[Any] = []

    def note(*arguments: Any) -> None:
        seen.append(arguments)

    pool = NotingPool("default")
    pool.observer = PoolObserver(note, note, note)
    swaps = ModelSwaps(served_artifacts(tmp_path, CHURN), 0)
    swaps.pools.append(artifact_pool(pool, CHURN))
    swaps.start()
    pool.crash("churn@1")
    pool.observer.on_refusal(ValueError())
    assert [len(each) for each in seen] == [2, 1]


@pytest.mark.asyncio
async def test_fault_of_the_driver_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as at:
        with monkeypatch.context() as patch:
            patch.setattr(at.swaps, "_fetch", lambda named: named["x"])
            at.publish()
            await until(lambda: "the look at the aliases has failed" in caplog.text)
        await at.until_served(2, 1)


@cpu_resource
def drained(model: Annotated[Path, Artifact(CHURN, swap="drain")]) -> str:
    return (model / "number.txt").read_text()


@cpu_route("/drained")
def serve_drained(drained: str) -> str:
    return drained


@pytest.mark.asyncio
async def test_service_stays_ready_while_a_drain_has_ended_its_workers(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    publish(store, content="1")
    settings = Settings(models=str(tmp_path / "models"), models_interval=INTERVAL, cpu_workers=1)
    async with at_work(Service(serve_drained, drained), settings) as running:
        publish(store, content="2")
        await until(lambda: not running.pools[0].ready)
        assert (running.is_ready(), running.is_alive()) == (True, True)
        response = await running.handle(Request("GET", "/drained"))
        assert (response.status, response.content) == (200, b"2")


@pytest.mark.asyncio
async def test_pool_that_is_an_executor_is_named_and_not_swapped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store_in(tmp_path))
    with ThreadPoolExecutor(1) as executor:
        swaps = ModelSwaps(served_artifacts(tmp_path, CHURN), 1.0)
        swaps.add(ExternalPool(executor, CpuProgram([]), name="threads"), [endpoint_with(CHURN)], [])
        swaps.start()
        assert (swaps.pools, swaps.looks.aliases) == ([], [])
    assert "the pool threads is an executor, whose workers cannot be replaced" in caplog.text


@pytest.mark.asyncio
async def test_crashes_while_a_fix_is_fetched_are_not_the_fault_of_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as at:
        at.publish()
        await at.until_served(2, 1)
        fetch, loop = at.swaps.artifacts.fetch, asyncio.get_running_loop()

        def fetch_while_workers_crash(reference: str, version: int) -> Any:
            if at.served() == [2, 1]:
                for _ in range(2):
                    loop.call_soon_threadsafe(at.pools[1].crash, "churn@2")
            return fetch(reference, version)

        monkeypatch.setattr(at.swaps.artifacts, "fetch", fetch_while_workers_crash)
        at.publish()
        await at.until_served(3, 1)
        assert at.pools[1].labels == ["churn@2", "churn@1", "churn@3"]
        assert at.problem() == ""


@pytest.mark.asyncio
async def test_copy_that_somebody_removes_is_fetched_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(tmp_path) as at:
        copy = Path(at.swaps.artifacts.versions[CHURN].path).parent
        weights = next(path for path in copy.rglob("*") if path.is_file() and path.name != "manifest.json")
        content = weights.read_bytes()
        (copy / "manifest.json").unlink()
        weights.unlink()  # the folders stay
        await until(lambda: weights.exists() and (copy / "manifest.json").exists())
        assert weights.read_bytes() == content
        with store_is_away(tmp_path):
            shutil.rmtree(copy)
            await until(lambda: "no worker can start" in caplog.text)
        await until(weights.exists)
        at.publish()
        await at.until_served(2, 1)
    assert caplog.text.count("no worker can start") == 1
    assert caplog.text.count("the local copy of churn@1 was removed while it is served") == 2


@pytest.mark.asyncio
async def test_store_that_was_made_anew_is_noticed(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        await at.looks(1)
        shutil.rmtree(tmp_path / "models")
        publish(at.store, "words", "other words")
        publish(at.store, "churn", "other weights")
        await until(lambda: "names another churn@1 than the one that is served" in at.problem())
        assert at.served() == [1, 1]
        at.publish()
        await until(lambda: at.served()[0] == 2)
        assert at.problem() == ""
