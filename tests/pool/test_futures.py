"""futures.py: the pool as a concurrent.futures.Executor, from threads without a loop, with real processes."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import (
    ALL_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import futures_contract
import futures_jobs
import jobs
from system import descendants, is_alive, wait_until
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import RemoteError, WorkerDied, WorkerStartError

pytestmark = pytest.mark.usefixtures("nothing_left")


# Results


def test_each_thread_gets_its_results() -> None:
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(futures_jobs.mul, n, b=2) for n in range(30)]
        assert [future.result(20) for future in futures] == [2 * n for n in range(30)]
        assert not any(future.running() or future.cancelled() for future in futures)
        assert not futures[0].cancel()


@pytest.mark.parametrize("chunksize", [1, 3, 40, 50])
def test_map_keeps_the_order(chunksize: int) -> None:
    with ProcessPoolExecutor(2) as pool:
        products = pool.map(futures_jobs.mul, range(40), iter(range(50)), chunksize=chunksize)
        assert list(products) == [n * n for n in range(40)]


def test_map_refuses_a_chunksize_below_1() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(ValueError, match="chunksize must be >= 1, not 0"):
        pool.map(futures_jobs.mul, [1], [2], chunksize=0)


def test_map_raises_at_the_failing_item() -> None:
    with ProcessPoolExecutor(1) as pool:
        results = pool.map(divmod, [1, 1, 1], [1, 0, 1])
        assert next(results) == (1, 0)
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_map_closed_early_stops_running_jobs(tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    go.touch()
    with ProcessPoolExecutor(1) as pool:
        arguments = [(str(tmp_path / "first"), str(go), False), (str(started), str(go), True)]
        for _ in pool.map(futures_jobs.spin_or_wait, *zip(*arguments, strict=True)):
            wait_until(started.exists, "the second has begun")
            break
        assert pool.submit(futures_jobs.mul, 2, 3).result(20) == 6  # the only worker is free


def test_jobs_beyond_the_queue_wait_in_order(tmp_path: Path) -> None:
    path = tmp_path / "order"
    with ProcessPoolExecutor(1, queue_size=2) as pool:
        wait([pool.submit(futures_jobs.append, str(path), str(n)) for n in range(30)])
    assert path.read_text().split() == [str(n) for n in range(30)]


# Errors


def test_error_carries_the_remote_traceback() -> None:
    with ProcessPoolExecutor(1) as pool:
        error = pool.submit(jobs.raise_value_error).exception(20)
    assert isinstance(error, ValueError)
    assert "in raise_value_error" in str(error.__cause__)
    assert "no such value" in str(error.__cause__)


def test_unpicklable_call_is_the_error_of_its_future() -> None:
    with ProcessPoolExecutor(1) as pool:
        with pytest.raises(Exception, match=r"[Pp]ickle|local object"):
            pool.submit(lambda: None).result(20)
        with pytest.raises(Exception, match=r"[Pp]ickle|local object"):
            pool.submit(jobs.return_lambda).result(20)
        with pytest.raises(RemoteError, match="the result cannot be unpickled"):
            pool.submit(jobs.return_bomb).result(20)
        assert pool.submit(futures_jobs.mul, 2, 3).result(20) == 6


def test_dead_worker_breaks_its_own_job_only(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        other = pool.submit(jobs.touch_and_wait, str(tmp_path / "started"), str(tmp_path / "go"))
        error = pool.submit(jobs.segfault).exception(20)
        assert isinstance(error, WorkerDied)
        assert isinstance(error, BrokenProcessPool)
        assert error.exitcode == -signal.SIGSEGV
        (tmp_path / "go").touch()
        assert other.result(20)
        assert pool.submit(futures_jobs.mul, 2, 3).result(20) == 6


@pytest.mark.parametrize(
    ("initializer", "text"), [(jobs.initialize_badly, "the initializer fails"), (lambda: None, r"[Pp]ickle")]
)
def test_pool_that_cannot_start_is_broken(initializer: Callable[[], Any], text: str) -> None:
    pool = ProcessPoolExecutor(1, initializer=initializer)
    future = pool.submit(futures_jobs.mul, 2, 3)
    with pytest.raises(BrokenExecutor, match=text):
        future.result(20)
    with pytest.raises(WorkerStartError, match=text):
        pool.submit(futures_jobs.mul, 2, 3)
    pool.shutdown()


def test_initializer_runs_in_each_worker(tmp_path: Path) -> None:
    path = tmp_path / "initialized"
    with ProcessPoolExecutor(2, initializer=jobs.initialize, initargs=(str(path),)) as pool:
        pool.submit(jobs.pid).result(20)
    assert path.read_text() == "xx"


def test_initargs_may_be_shared_as_with_multiprocessing(tmp_path: Path) -> None:
    ended = run_script(  # a lock starts the resource tracker of multiprocessing, which lives as long as its process
        """
        import multiprocessing
        import futures_jobs
        from system import wait_until
        from tinysvc import ProcessPoolExecutor

        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            lock, queue = context.Lock(), context.SimpleQueue()
            with ProcessPoolExecutor(2, initializer=futures_jobs.remember, initargs=(lock, queue)) as pool:
                lock.acquire()
                future = pool.submit(futures_jobs.put_under_the_lock, "word")
                wait_until(future.running, "the job has begun")
                print(queue.empty())
                lock.release()
                print(queue.get(), future.result(20))
        """,
        tmp_path,
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["True", "word None"]


def test_system_exit_in_a_job_raises_as_in_the_standard_library() -> None:
    with ProcessPoolExecutor(1) as pool:
        with pytest.raises(SystemExit, match="7"):
            pool.submit(jobs.raise_system_exit).result(20)
        assert pool.submit(futures_jobs.mul, 2, 3).result(20) == 6


@pytest.mark.asyncio
async def test_pool_with_its_own_thread_is_not_started_on_a_loop() -> None:
    pool = ProcessPoolExecutor(1)
    assert pool.submit(futures_jobs.mul, 2, 3).result(20) == 6
    with pytest.raises(RuntimeError, match="started once"):
        await pool.start()
    with pytest.raises(RuntimeError, match="run_in_executor"):
        await pool.run(futures_jobs.mul, 2, 3)
    await pool.aclose()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(futures_jobs.mul, 2, 3)


# Cancelling


def test_cancel_stops_a_running_job(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(futures_jobs.pid_and_spin, str(tmp_path / "pid"))
        wait_until((tmp_path / "pid.started").exists, "the job has begun")
        assert future.running()
        assert future.cancel()
        assert future.cancelled()
        assert not future.running()
        assert wait([future], 20, ALL_COMPLETED).done == {future}
        assert list(as_completed([future], 20)) == [future]
        with pytest.raises(CancelledError):
            future.result(20)
        assert pool.submit(futures_jobs.mul, 2, 3).result(20) == 6
        pid = int((tmp_path / "pid").read_text())
        wait_until(lambda: not is_alive(pid), "its worker has ended")


@pytest.mark.parametrize("queue_size", [1000, 1])
def test_cancel_drops_a_waiting_job(queue_size: int, tmp_path: Path) -> None:
    """Jobs in the pool's queue, and in the inbox before it."""
    with ProcessPoolExecutor(1, queue_size=queue_size) as pool:
        first = pool.submit(jobs.touch_and_wait, str(tmp_path / "started"), str(tmp_path / "go"))
        wait_until((tmp_path / "started").exists, "the first job has begun")
        waiting = [pool.submit(jobs.touch, str(tmp_path / f"ran{n}")) for n in range(4)]
        cancelled = [future for future in waiting[1:] if future.cancel()]
        assert cancelled == waiting[1:]
        assert wait(cancelled, 20).done == set(cancelled)
        (tmp_path / "go").touch()
        assert wait([waiting[0]], 20).not_done == set()
        assert first.done()
    assert sorted(path.name for path in tmp_path.glob("ran*")) == ["ran0"]


def test_cancel_may_race_with_the_end_of_a_job() -> None:
    """In either order, the future ends once, and all waiters are notified."""
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(futures_jobs.mul, n, 2) for n in range(200)]
        cancelled = [future.cancel() for future in futures]
        assert wait(futures, 20).not_done == set()
        for number, (future, was_cancelled) in enumerate(zip(futures, cancelled, strict=True)):
            assert future.cancelled() == was_cancelled
            assert was_cancelled or future.result() == 2 * number


@pytest.mark.asyncio
async def test_cancelled_await_in_any_loop_stops_the_job(tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(1)
    loop = asyncio.get_running_loop()
    awaited = loop.run_in_executor(pool, jobs.touch_and_spin, str(tmp_path / "started"))
    await asyncio.to_thread(wait_until, (tmp_path / "started").exists, "the job has begun")
    awaited.cancel()
    assert await loop.run_in_executor(pool, futures_jobs.mul, 2, 3) == 6
    await asyncio.to_thread(pool.shutdown)


# Shutting down


def test_submit_after_shutdown_raises() -> None:
    pool = ProcessPoolExecutor(1)
    assert pool.submit(futures_jobs.mul, 2, 3).result(20) == 6
    pool.shutdown()
    pool.shutdown()
    for submit in (lambda: pool.submit(jobs.pid), lambda: list(pool.map(str, [1]))):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            submit()


def test_unused_pool_shuts_down() -> None:
    pool = ProcessPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(jobs.pid)


def test_shutdown_waits_for_submitted_jobs() -> None:
    pool = ProcessPoolExecutor(2)
    futures = [pool.submit(futures_jobs.mul, n, 2) for n in range(50)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [2 * n for n in range(50)]


def test_shutdown_without_wait_returns_at_once(tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(1)
    futures = [pool.submit(jobs.wait_for, str(tmp_path / "go")) for _ in range(3)]
    pool.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(jobs.pid)
    (tmp_path / "go").touch()
    assert wait(futures, 20).not_done == set()
    pool.shutdown()


def test_shutdown_cancels_jobs_that_have_not_started(tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(1)
    running = pool.submit(jobs.touch_and_wait, str(tmp_path / "started"), str(tmp_path / "go"))
    waiting = [pool.submit(jobs.touch, str(tmp_path / "ran")) for _ in range(5)]
    wait_until((tmp_path / "started").exists, "the first job has begun")
    pool.shutdown(wait=False, cancel_futures=True)
    assert wait(waiting, 20).not_done == set()
    assert all(future.cancelled() for future in waiting)
    assert not running.done()
    (tmp_path / "go").touch()
    assert running.result(20)
    pool.shutdown()
    assert not (tmp_path / "ran").exists()


def test_shutdown_within_a_callback_does_not_wait_for_itself() -> None:
    pool = ProcessPoolExecutor(1)
    called = threading.Event()

    def shut_down(future: Future[int]) -> None:
        pool.shutdown()
        called.set()

    pool.submit(futures_jobs.mul, 2, 3).add_done_callback(shut_down)
    assert called.wait(20)
    pool.shutdown()


def test_unreferenced_pool_finishes_its_jobs(tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(1)
    futures = [pool.submit(jobs.wait_for, str(tmp_path / "go")), pool.submit(jobs.pid)]
    del pool
    (tmp_path / "go").touch()
    assert futures[0].result(20) == futures[1].result(20)
    wait_until(lambda: "tinysvc pool" not in str(threading.enumerate()), "its thread has ended")


# Threads and loops


def test_many_threads_submit_at_once() -> None:
    barrier = threading.Barrier(8)
    with ProcessPoolExecutor(2) as pool, ThreadPoolExecutor(8) as threads:

        def ask(thread: int) -> list[int]:
            barrier.wait(20)
            return [future.result(20) for future in [pool.submit(futures_jobs.mul, thread, n) for n in range(50)]]

        assert list(threads.map(ask, range(8))) == [[thread * n for n in range(50)] for thread in range(8)]
        assert sum("forkserver" in line for line in descendants(os.getpid()).values()) == 1 + 2


def test_submit_may_race_with_shutdown() -> None:
    """Each job is either refused or done."""
    pool = ProcessPoolExecutor(1)
    futures: list[Future[int]] = []

    def submit_until_refused() -> None:
        while True:
            futures.append(pool.submit(futures_jobs.mul, 2, 3))

    with ThreadPoolExecutor(1) as thread:
        refused = thread.submit(submit_until_refused)
        wait_until(lambda: len(futures) > 10, "some are submitted")
        pool.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            refused.result(20)
    assert all(future.result(20) == 6 for future in futures)


def test_two_loops_share_a_pool() -> None:
    async def ask() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, futures_jobs.mul, n, 2) for n in range(20)))

    with ProcessPoolExecutor(2) as pool, ThreadPoolExecutor(2) as threads:
        for answers in [threads.submit(asyncio.run, ask()) for _ in range(2)]:
            assert answers.result(20) == [2 * n for n in range(20)]


@pytest.mark.asyncio
async def test_pool_on_a_loop_serves_threads(tmp_path: Path) -> None:
    def plain_code() -> list[int]:
        results = list(pool.map(futures_jobs.mul, range(20), range(20), chunksize=3))
        running = pool.submit(jobs.touch_and_spin, str(tmp_path / "started"))
        wait_until((tmp_path / "started").exists, "the job has begun")
        assert running.cancel()
        waiting = [pool.submit(jobs.wait_for, str(tmp_path / "go")) for _ in range(3)]
        (tmp_path / "go").touch()
        pool.shutdown()
        assert all(future.done() for future in waiting)
        return results

    async with ProcessPoolExecutor(1, queue_size=1) as pool:
        assert await pool.run(futures_jobs.mul, 2, 3) == 6
        assert await asyncio.to_thread(plain_code) == [n * n for n in range(20)]
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(jobs.pid)


@pytest.mark.asyncio
async def test_shutdown_on_its_own_loop_does_not_wait(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        future = asyncio.wrap_future(pool.submit(jobs.wait_for, str(tmp_path / "go")))
        pool.shutdown()
        assert not future.done()
        (tmp_path / "go").touch()
        assert await future


# Exit of the interpreter, forks, Ctrl-C


def run_script(code: str, tmp_path: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=40, env=environment, **options
    )


def test_submitted_jobs_finish_before_the_interpreter_exits(tmp_path: Path) -> None:
    ended = run_script(
        """
        import atexit
        import futures_jobs
        from tinysvc import ProcessPoolExecutor

        def submit_too_late():
            try:
                pool.submit(futures_jobs.mul, 2, 3)
            except RuntimeError as error:
                print(error)

        if __name__ == "__main__":
            pool = ProcessPoolExecutor(1)
            pool.submit(futures_jobs.mul, 2, 3).add_done_callback(lambda future: print(future.result()))
            atexit.register(submit_too_late)
        """,
        tmp_path,
    )
    assert ended.stdout.splitlines() == ["6", "cannot schedule new futures after interpreter shutdown"]
    assert ended.stderr == ""


def test_forked_child_cannot_use_the_pool_and_exits(tmp_path: Path) -> None:
    ended = run_script(
        """
        import os, sys, warnings
        import futures_jobs
        from tinysvc import ProcessPoolExecutor

        if __name__ == "__main__":
            warnings.simplefilter("ignore")  # about a fork beside threads
            with ProcessPoolExecutor(1) as pool:
                assert pool.submit(futures_jobs.mul, 2, 3).result(20) == 6
                child = os.fork()
                if not child:
                    try:
                        pool.submit(futures_jobs.mul, 2, 3)
                    except RuntimeError as error:
                        print(error, flush=True)
                    sys.exit()
                assert os.waitpid(child, 0)[1] == 0
                print(pool.submit(futures_jobs.mul, 2, 4).result(20))
        """,
        tmp_path,
    )
    child, parent = ended.stdout.splitlines()
    assert child.endswith("a forked child must make its own pool")
    assert (parent, ended.stderr) == ("8", "")


def test_ctrl_c_stops_running_jobs(tmp_path: Path) -> None:
    ended = run_script(
        """
        import os, signal, sys, threading
        import jobs
        from system import wait_until
        from tinysvc import ProcessPoolExecutor

        def interrupt(path):
            wait_until(lambda: os.path.exists(path), "the job has begun")
            os.kill(os.getpid(), signal.SIGINT)

        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for background processes
            path = sys.argv[0] + ".started"
            with ProcessPoolExecutor(1) as pool:
                spinning = pool.submit(jobs.touch_and_spin, path)
                threading.Thread(target=interrupt, args=(path,)).start()
                spinning.result()
        """,
        tmp_path,
    )
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")


# CPython's own tests


@pytest.mark.skipif(
    sys.version_info < (3, 12) or importlib.util.find_spec("test.test_concurrent_futures") is None,
    reason="this interpreter has come without CPython's own tests, or with older ones in another form",
)
@pytest.mark.parametrize("group", futures_contract.GROUPS)
def test_cpythons_own_tests_pass(group: str) -> None:
    command = [sys.executable, futures_contract.__file__, group]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=55)
    assert ended.returncode == 0, ended.stderr
