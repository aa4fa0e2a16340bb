"""descendants.py: processes that a job has started end with its worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import descendants_jobs
import jobs
from paths import SUPPORT
from system import PROC, descendants, is_alive, wait_until
from tinysvc.core.errors import DeadlineExceeded, WorkerDied
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.pool.descendants import children, kill_marked, new_mark

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="finds orphans through /proc"),
]

WAYS = ["child", "session", "orphan", "daemon"]


def pid_in(path: Path) -> int:
    """The pid that a sleeper writes into its file."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), "the sleeper has started")
    return int(path.read_text())


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.asyncio
async def test_processes_end_at_the_deadline_of_their_job(how: str, tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        path = tmp_path / "pid"
        running = asyncio.ensure_future(pool.run(descendants_jobs.start_and_stay, how, str(path), timeout=1.5))
        pid = await asyncio.to_thread(pid_in, path)
        with pytest.raises(DeadlineExceeded):
            await running
        await until(lambda: not is_alive(pid), "it has ended")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.asyncio
async def test_processes_end_when_their_job_is_cancelled(how: str, tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        path = tmp_path / "pid"
        running = asyncio.ensure_future(pool.run(descendants_jobs.start_and_stay, how, str(path)))
        pid = await asyncio.to_thread(pid_in, path)
        running.cancel()
        await until(lambda: not is_alive(pid), "it has ended")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.asyncio
async def test_processes_end_when_their_worker_crashes(how: str, tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        path = tmp_path / "pid"
        with pytest.raises(WorkerDied):
            await pool.run(descendants_jobs.start_and_crash, how, str(path))
        await until(lambda: not is_alive(pid_in(path)), "it has ended")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.asyncio
async def test_processes_end_with_the_pool(how: str, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    async with ProcessPoolExecutor(1) as pool:
        await pool.run(descendants_jobs.start_and_return, how, str(path))
        pid = await asyncio.to_thread(pid_in, path)
        assert is_alive(pid)
    assert not is_alive(pid)


@pytest.mark.asyncio
async def test_processes_of_other_workers_stay(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(2) as pool:
        paths = [tmp_path / "first", tmp_path / "second"]
        tasks = [
            asyncio.ensure_future(pool.run(descendants_jobs.start_and_stay, "orphan", str(path))) for path in paths
        ]
        pids = [await asyncio.to_thread(pid_in, path) for path in paths]
        tasks[1].cancel()
        await until(lambda: not is_alive(pids[1]), "that of the killed job has ended")
        await until(lambda: pool.ready == 2, "the worker has been replaced")
        assert is_alive(pids[0])
        tasks[0].cancel()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("victim", ["owner", "forkserver"])
def test_processes_end_when_owner_or_forkserver_is_killed(how: str, victim: str, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    script = tmp_path / "owner.py"
    script.write_text(
        textwrap.dedent(f"""
            import asyncio, sys
            sys.path.insert(0, {str(SUPPORT)!r})
            import descendants_jobs
            from tinysvc import ProcessPoolExecutor

            async def main():
                async with ProcessPoolExecutor(1) as pool:
                    try:
                        await pool.run(descendants_jobs.start_and_stay, {how!r}, {str(path)!r})
                    finally:
                        print("over", flush=True)
                        await asyncio.sleep(3600)

            if __name__ == "__main__":
                asyncio.run(main())
        """)
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as owner:
        try:
            pid = pid_in(path)
            forkserver = next(each for each, line in descendants(owner.pid).items() if "forkserver_main(" in line)
            os.kill(owner.pid if victim == "owner" else forkserver, signal.SIGKILL)
            wait_until(lambda: not is_alive(pid), "it has ended")
        finally:
            owner.kill()
            owner.wait()
    wait_until(lambda: not is_alive(forkserver), "the forkserver has ended")


@pytest.mark.asyncio
async def test_ended_orphans_are_reaped(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        await pool.run(descendants_jobs.leave_short_orphans, 5)
        worker = await pool.run(jobs.pid)  # the forkserver may also have an orphan that has not ended
        forkserver = int((PROC / str(worker) / "stat").read_text().rpartition(")")[2].split()[1])
        await until(lambda: children(forkserver) == [worker], "nothing but the worker is below the forkserver")
        assert worker == await pool.run(jobs.pid)


@pytest.mark.asyncio
async def test_named_memory_of_a_killed_job_is_removed(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        path = tmp_path / "names"
        running = asyncio.ensure_future(pool.run(descendants_jobs.hold_names, str(path)))
        await until(path.exists, "the job holds them")
        names = [Path("/dev/shm") / name for name in path.read_text().split()]
        assert all(name.exists() for name in names)
        child = await asyncio.to_thread(pid_in, tmp_path / "names.child")
        running.cancel()
        await until(lambda: not any(name.exists() for name in names), "they are removed")
        await until(lambda: not is_alive(child), "the other child has been killed")


def test_process_without_children_has_none() -> None:
    with subprocess.Popen(["sleep", "3600"]) as process:
        try:
            assert process.pid in children(os.getpid())
            assert children(process.pid) == []
        finally:
            process.kill()
    assert children(process.pid) == []


def test_children_are_found_without_the_list_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.listdir

    def without_threads(path: str) -> list[str]:
        if path.endswith("/task"):
            raise FileNotFoundError(path)
        return listed(path)

    with subprocess.Popen(["sleep", "3600"]) as process:
        try:
            monkeypatch.setattr(os, "listdir", without_threads)
            assert process.pid in children(os.getpid())
        finally:
            process.kill()


def test_no_children_are_found_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", nothing)
    assert children(os.getpid()) == []
    kill_marked(new_mark())
