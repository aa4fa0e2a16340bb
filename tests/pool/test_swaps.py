"""swaps.py with real processes: a pool gets another program while it works."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from pickle import PicklingError

import pytest

from jobs import Versioned
from pools import submit
from system import descendants, exists, parent, until
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import PoolClosed, WorkerStartError
from tinysvc.pool import swaps
from tinysvc.pool.generations import HeldTooLong
from tinysvc.runtime.cpu_endpoints import CpuProgram

pytestmark = pytest.mark.usefixtures("nothing_left")


async def version(pool: ProcessPoolExecutor) -> str:
    reply = await submit(pool, None, b"").future
    return str(reply.meta[0])


def forkservers() -> list[int]:
    return [
        child
        for child, line in descendants(os.getpid()).items()
        if "forkserver_main" in line and parent(child) == os.getpid()
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("drain", [False, True])
async def test_swap_replaces_all_workers(drain: bool) -> None:
    async with ProcessPoolExecutor(2, program=Versioned("1"), label="m@1") as pool:
        before = {status.pid for status in pool.workers()}
        assert [status.generation for status in pool.workers()] == ["m@1", "m@1"]
        await pool.swap(Versioned("2"), label="m@2", drain=drain)
        assert pool.generation == "m@2"
        assert {await version(pool) for _ in range(4)} == {"2"}
        ready = [status for status in pool.workers() if status.state == "idle"]
        assert [status.generation for status in ready] == ["m@2", "m@2"]
        assert not before & {status.pid for status in ready}
        await until(lambda: len(forkservers()) == 1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("drain", "faults"),
    [(False, ["fails", "dies", "hungry", "preload-fails", "preload-dies"]), (True, ["dies", "preload-fails"])],
)
async def test_program_that_cannot_start_leaves_the_old_one_at_work(
    drain: bool, faults: list[str], tmp_path: Path
) -> None:
    words = tmp_path / "words"
    async with ProcessPoolExecutor(2, program=Versioned("1"), label="m@1", memory_limit=1 << 30) as pool:
        for fault in faults:
            words.write_text(fault)
            before = {status.pid for status in pool.workers()}
            with pytest.raises(WorkerStartError) as raised:
                await pool.swap(Versioned("2", str(words)), label="m@2", drain=drain)
            if fault.endswith("fails"):
                assert "version 2 cannot be opened" in raised.value.traceback
            if fault == "hungry":
                assert "MemoryError" in raised.value.traceback
            assert pool.generation == "m@1"
            assert await version(pool) == "1"
            if not drain:
                assert {status.pid for status in pool.workers() if status.generation == "m@1"} == before
            await until(lambda: len(forkservers()) == 1 and pool.ready == 2)
        await pool.swap(Versioned("3"), label="m@3")
        assert await version(pool) == "3"


@pytest.mark.asyncio
async def test_job_ends_on_the_version_that_it_began_with(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with ProcessPoolExecutor(2, program=Versioned("1")) as pool:
        stream = await submit(pool, "stream", str(go).encode()).future
        assert await anext(stream.body) == b"1"
        await asyncio.wait_for(pool.swap(Versioned("2")), 20)
        assert await version(pool) == "2"
        await anext(stream.body)
        go.touch()
        assert {bytes(piece) async for piece in stream.body} <= {b"1"}
        await until(lambda: len(forkservers()) == 1)


@pytest.mark.asyncio
async def test_swaps_under_load_fail_and_repeat_no_job(tmp_path: Path) -> None:
    done: list[str] = []
    stop = False
    others = descendants(os.getpid()).keys()  # such as the database server that tests share

    async def client(number: int) -> None:
        while not stop:
            note = tmp_path / f"{number}.{len(done)}"
            reply = await submit(pool, str(note)).future
            done.append(reply.meta[0])
            assert note.stat().st_size == 1
            note.unlink()

    async with ProcessPoolExecutor(2, program=Versioned("0")) as pool:
        clients = [asyncio.create_task(client(number)) for number in range(4)]
        descriptors = 0
        for number in range(1, 5):
            await pool.swap(Versioned(str(number)), label=str(number), drain=number == 3)
            await until(lambda number=str(number): number in done)  # type: ignore[misc]
            await until(lambda: len(descendants(os.getpid()).keys() - others) == 3)  # a forkserver and two workers
            descriptors = descriptors or len(os.listdir("/dev/fd"))
            assert len(os.listdir("/dev/fd")) <= descriptors + 1  # a big result's arena may come and go
        stop = True
        await asyncio.gather(*clients)
    assert set(done) == set("01234")


STEPS = {
    "the program loads": "preload-slow",
    "the first worker starts": "slow",
    "the second worker starts": "second-slow",
}


class Swap:
    """A swap that stops at a step until it is released."""

    def __init__(self, pool: ProcessPoolExecutor, step: str, path: Path, label: str) -> None:
        self.pool = pool
        self.label = label
        self.words = path / label
        self.words.write_text(STEPS[step])
        self.old = forkservers()
        self.task = asyncio.create_task(pool.swap(Versioned(label, str(self.words)), label=label))

    async def reach(self) -> None:
        await exists(Path(f"{self.words}.slow"))

    def kill(self, victim: str) -> set[int]:
        """Kill it. Returns the workers that end."""
        old, kind = victim.split()
        forkserver = next(pid for pid in forkservers() if (pid in self.old) == (old == "old"))
        workers = {child for child in descendants(forkserver) if parent(child) == forkserver}
        os.kill(forkserver if kind == "forkserver" else max(workers), signal.SIGKILL)
        return workers if kind == "forkserver" else {max(workers)}

    def release(self) -> None:
        self.words.unlink()


@pytest.mark.asyncio
@pytest.mark.parametrize("step", STEPS)
async def test_killed_process_of_the_old_generation_does_not_stop_a_swap(step: str, tmp_path: Path) -> None:
    async with ProcessPoolExecutor(2, program=Versioned("0"), label="0") as pool:
        for number, victim in enumerate(("old worker", "old forkserver")):
            swap = Swap(pool, step, tmp_path, str(number + 1))
            await swap.reach()
            ended = swap.kill(victim)
            if step != "the second worker starts":
                await until(lambda ended=ended: ended.isdisjoint(each.pid for each in pool.workers()))  # type: ignore[misc]
                await until(lambda: pool.ready == 2)
                assert await version(pool) == str(number)
            swap.release()
            await asyncio.wait_for(swap.task, 20)
            assert await version(pool) == pool.generation == swap.label
            await until(lambda: len(forkservers()) == 1 and pool.ready == 2)


@pytest.mark.asyncio
@pytest.mark.parametrize("step", STEPS)
async def test_failed_or_cancelled_swap_goes_back(step: str, tmp_path: Path) -> None:
    async with ProcessPoolExecutor(2, program=Versioned("0"), label="0") as pool:
        for victim in ("new worker", "new forkserver", ""):
            if step == "the program loads" and victim == "new worker":
                continue
            swap = Swap(pool, step, tmp_path, f"after {victim}")
            await swap.reach()
            if victim:
                swap.kill(victim)
                with pytest.raises(WorkerStartError):
                    await asyncio.wait_for(swap.task, 20)
            else:
                swap.task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await swap.task
            assert pool.generation == "0"
            assert pool.ready >= 1
            await until(lambda: len(forkservers()) == 1 and pool.ready == 2)
            assert {await version(pool) for _ in range(4)} == {"0"}
            assert {worker.generation for worker in pool.workers()} == {"0"}


@pytest.mark.asyncio
@pytest.mark.parametrize("step", STEPS)
async def test_pool_that_closes_during_a_swap_leaves_nothing_behind(step: str, tmp_path: Path) -> None:
    async with ProcessPoolExecutor(2, program=Versioned("0")) as pool:
        swap = Swap(pool, step, tmp_path, "1")
        next_swap = asyncio.create_task(pool.swap(Versioned("2")))
        await swap.reach()
        last = asyncio.ensure_future(submit(pool, None).future)
        await asyncio.wait_for(pool.aclose(), 5)
        assert (await last).meta[0] in ("0", "1")
        for task in (swap.task, next_swap):
            with pytest.raises(PoolClosed):
                await task
        with pytest.raises(PoolClosed):
            await pool.swap(Versioned("3"))


@pytest.mark.asyncio
@pytest.mark.parametrize("step", ["draining", "stopped", "loading"])
@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_drain_may_be_cancelled_or_closed_at_any_time(step: str, end: str, tmp_path: Path) -> None:
    go, words = tmp_path / "go", tmp_path / "words"
    words.write_text("preload-slow")
    async with ProcessPoolExecutor(1, program=Versioned("0"), label="0") as pool:
        stream = await submit(pool, "stream", str(go).encode()).future
        swap = asyncio.create_task(pool.swap(Versioned("1", str(words)), label="1", drain=True))
        await anext(stream.body)
        waiting = asyncio.ensure_future(submit(pool, None).future)
        if step != "draining":
            go.touch()
            await until(lambda: pool.ready == 0)
        if step == "loading":
            await exists(Path(f"{words}.slow"))
        if end == "cancel":
            swap.cancel()
            with pytest.raises(asyncio.CancelledError):
                await swap
            assert pool.generation == "0"
        else:
            closing = asyncio.create_task(pool.aclose())
            with pytest.raises(PoolClosed):
                await swap
        go.touch()
        async for _ in stream.body:
            pass
        assert (await waiting).meta[0] == "0"  # by a worker of the old program, which is loaded again
        if end == "close":
            await closing


@pytest.mark.asyncio
@pytest.mark.parametrize("drain", [False, True])
async def test_endless_stream_does_not_block_swaps_for_ever(
    drain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swaps, "HOLD_LIMIT", 0.1)
    async with ProcessPoolExecutor(2, program=Versioned("1")) as pool:
        stream = await submit(pool, "stream", str(tmp_path / "never").encode()).future
        if not drain:
            await pool.swap(Versioned("2"))
            assert len(forkservers()) == 2
        await pool.swap(Versioned("3"), drain=drain)
        with pytest.raises(HeldTooLong, match="held an old generation"):
            async for _ in stream.body:
                pass
        assert await version(pool) == "3"
        await until(lambda: len(forkservers()) == 1)


@pytest.mark.asyncio
async def test_swaps_run_one_at_a_time() -> None:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(forkservers()))
            await asyncio.sleep(0.01)

    async with ProcessPoolExecutor(1, program=Versioned("0")) as pool:
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(pool.swap(Versioned(str(number)), label=str(number)) for number in (1, 2)))
        assert await version(pool) == pool.generation == "2"
        watching.cancel()
    assert most == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("words", "message"),
    [("preload-slow", "the new program was not loaded within 1 s"), ("slow", "was not ready within 1 s")],
)
async def test_load_without_end_is_refused(words: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "words").write_text(words)
    async with ProcessPoolExecutor(1, program=Versioned("0"), start_limit=1) as pool:
        with pytest.raises(WorkerStartError, match=message):
            await pool.swap(Versioned("1", str(tmp_path / "words")))
        assert await version(pool) == "0"


@pytest.mark.asyncio
async def test_wrong_use_of_swap_is_refused() -> None:
    pool = ProcessPoolExecutor(1, program=Versioned("0"))
    with pytest.raises(RuntimeError, match="not been started"):
        await pool.swap(Versioned("1"))
    async with pool:
        with pytest.raises(ValueError, match="message types"):
            await pool.swap(CpuProgram([]))
        with pytest.raises((AttributeError, PicklingError), match="local object"):  # by the version of Python
            await pool.swap(lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="start_limit"):
        ProcessPoolExecutor(1, start_limit=0)
