"""Each fault in each situation: only the faulty job fails, and the pool recovers. docs/faults.md lists them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from pickle import PicklingError
from typing import Any, NamedTuple

import httpx
import pytest

import jobs
from pools import assert_healthy
from system import descendants, until, wait_until, workers_below
from tinysvc.core.errors import DeadlineExceeded, RemoteError, WorkerDied
from tinysvc.executor import ProcessPoolExecutor

pytestmark = pytest.mark.usefixtures("nothing_left")


class Fault(NamedTuple):
    """A job and its outcome: an error class with a part of its message, or a result."""

    job: Callable[..., Any]
    outcome: Any
    message: str = ""
    timeout: float | None = None

    def __str__(self) -> str:
        job = self.job.func if isinstance(self.job, partial) else self.job
        return f"{job.__name__}{self.job.args}" if isinstance(self.job, partial) else job.__name__


FAULTS = {
    "The worker dies": [
        Fault(jobs.segfault, WorkerDied, "SIGSEGV"),
        Fault(jobs.abort, WorkerDied, "SIGABRT"),
        Fault(jobs.abort_from_a_thread, WorkerDied, "SIGABRT"),
        Fault(partial(jobs.exit_now, 0), WorkerDied, "status 0"),
        Fault(partial(jobs.exit_now, 3), WorkerDied, "status 3"),
    ],
    "The worker dies otherwise": [
        Fault(jobs.kill_self, WorkerDied, "SIGKILL"),
        Fault(jobs.start_thread_and_exit, WorkerDied, "status 4"),
        Fault(jobs.return_deadly, WorkerDied, "SIGKILL"),
        Fault(jobs.close_all_descriptors, WorkerDied, "status 1"),
    ],
    "The worker breaks the protocol": [
        Fault(jobs.die_in_mid_frame, WorkerDied, "status 5"),
        Fault(jobs.write_garbage, WorkerDied, "was killed: it sent"),
    ],
    "The job does not end": [
        Fault(jobs.spin, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
        Fault(jobs.sleep_in_c, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
        Fault(jobs.match_catastrophically, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
        Fault(jobs.sleep_with_signals_blocked, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
        Fault(jobs.loop_and_ignore_sigterm, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
        Fault(jobs.stop_self, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
    ],
    "The job raises": [
        Fault(jobs.raise_value_error, ValueError, "no such value"),
        Fault(jobs.raise_deep_chain, ValueError, "number 999"),
        Fault(jobs.raise_picky, RemoteError, "Picky: picky"),
        Fault(jobs.raise_unpicklable, RemoteError, "Unpicklable"),
        Fault(jobs.raise_bad_str, jobs.BadStr),
        Fault(jobs.raise_system_exit, RemoteError, "SystemExit: 7"),
    ],
    "The job raises what is no usual exception": [
        Fault(jobs.raise_keyboard_interrupt, RemoteError, "KeyboardInterrupt"),
        Fault(jobs.raise_stop_iteration, RemoteError, "StopIteration"),
        Fault(jobs.raise_generator_exit, RemoteError, "GeneratorExit"),
        Fault(jobs.raise_cancelled, RemoteError, "CancelledError"),
        Fault(jobs.raise_memory_error, MemoryError),
        Fault(jobs.overflow, RecursionError, "maximum recursion depth"),
    ],
    "The result cannot be sent": [
        Fault(jobs.return_lambda, (AttributeError, PicklingError, RemoteError), "lambda"),
        Fault(jobs.return_bomb, RemoteError, "unpickled"),
        Fault(jobs.return_too_much, ValueError, "max_result_size is 67108864"),
        Fault(jobs.return_too_deep, RecursionError, "while pickling"),
    ],
    "The job misbehaves without consequences": [
        Fault(jobs.start_thread_and_return, "started"),
        Fault(jobs.change_signals_and_folder, "changed"),
        Fault(jobs.change_limits, "changed"),
        Fault(jobs.close_standard_descriptors, "printed"),
    ],
}


async def assert_outcome(fault: Fault, pool: ProcessPoolExecutor) -> None:
    if isinstance(fault.outcome, str):
        assert await pool.run(fault.job, timeout=fault.timeout) == fault.outcome
        return
    with pytest.raises(fault.outcome) as raised:
        await pool.run(fault.job, timeout=fault.timeout)
    if fault.message:
        assert fault.message in str(raised.value)


async def beside_another_job(fault: Fault, pool: ProcessPoolExecutor, go: Path) -> None:
    other = asyncio.create_task(pool.run(jobs.wait_for, str(go)))
    await asyncio.sleep(0)
    await assert_outcome(fault, pool)
    go.touch()
    assert await other in workers_below(os.getpid())
    await assert_healthy(pool)


async def while_another_worker_is_replaced(fault: Fault, pool: ProcessPoolExecutor, go: Path) -> None:
    before = set(pool._dispatcher.scheduler.workers)
    os.kill(workers_below(os.getpid())[0], signal.SIGKILL)
    await until(lambda: not before <= set(pool._dispatcher.scheduler.workers))
    faulty = asyncio.create_task(assert_outcome(fault, pool))
    await asyncio.sleep(0)
    other = asyncio.create_task(pool.run(jobs.wait_for, str(go)))
    await asyncio.sleep(0)
    go.touch()
    await faulty
    await other
    await assert_healthy(pool)


async def in_the_queue(fault: Fault, pool: ProcessPoolExecutor, go: Path) -> None:
    before = asyncio.create_task(pool.run(jobs.wait_for, str(go)))
    await asyncio.sleep(0)
    # On a slow machine the deadline may pass in the queue.
    faulty = asyncio.create_task(assert_outcome(fault._replace(outcome=TimeoutError) if fault.timeout else fault, pool))
    await asyncio.sleep(0)
    behind = [asyncio.create_task(pool.run(jobs.add, n, 1)) for n in range(3)]
    await asyncio.sleep(0)
    go.touch()
    await before
    await faulty
    assert await asyncio.gather(*behind) == [1, 2, 3]
    await assert_healthy(pool)


async def in_a_drain(fault: Fault, pool: ProcessPoolExecutor, go: Path) -> None:
    faulty = asyncio.create_task(assert_outcome(fault, pool))
    await asyncio.sleep(0)
    queued = asyncio.create_task(pool.run(jobs.add, 1, 2))
    await asyncio.sleep(0)
    await asyncio.gather(pool.aclose(30), faulty)
    assert await queued == 3


@contextmanager
def each(kind: str, folder: Path) -> Iterator[Iterator[tuple[Fault, Path]]]:
    """The faults of a kind, each with an empty folder. An error names the fault."""
    current = ""

    def faults() -> Iterator[tuple[Fault, Path]]:
        nonlocal current
        for fault in FAULTS[kind]:
            current = str(fault)
            (folder / current).mkdir()
            yield fault, folder / current

    try:
        yield faults()
    except BaseException as error:
        error.add_note(f"fault: {current}")
        raise


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", FAULTS)
async def test_fault_fails_its_own_job_only(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with each(kind, tmp_path) as faults:
        async with ProcessPoolExecutor(2) as pool:
            for fault, folder in faults:
                await beside_another_job(fault, pool, folder / "go")
                await while_another_worker_is_replaced(fault, pool, folder / "go on")


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", FAULTS)
async def test_fault_harms_neither_queue_nor_drain(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with each(kind, tmp_path) as faults:
        for fault, folder in faults:
            async with ProcessPoolExecutor(1) as pool:
                await in_the_queue(fault, pool, folder / "go")
                await in_a_drain(fault, pool, folder / "go on")


# Faults from outside


def ptrace(request: int, pid: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, None))


ATTACH = 16


@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform != "linux", reason="ptrace is used as Linux has it")
async def test_worker_held_by_a_debugger_is_replaced() -> None:
    """A dead worker that a debugger holds cannot be reaped; the pool starts its successor all the same."""
    async with ProcessPoolExecutor(1) as pool:
        pid = await pool.run(jobs.pid)
        if ptrace(ATTACH, pid):
            pytest.skip("ptrace is not permitted here")
        try:
            with pytest.raises(DeadlineExceeded):
                await pool.run(jobs.pid, timeout=0.1)
            assert await asyncio.wait_for(pool.run(jobs.pid), 20) != pid
        finally:
            os.waitpid(pid, 0x40000000)  # __WALL: wait for the stop or the exit
            with suppress(ChildProcessError):
                os.waitpid(pid, 0x40000000)
        await assert_healthy(pool)


@pytest.mark.asyncio
@pytest.mark.parametrize(("job", "how"), [(jobs.kill_self, "SIGKILL"), (partial(jobs.exit_now, 0), "status 0")])
async def test_exit_status_that_arrives_late_is_reported(job: Callable[[], Any], how: str) -> None:
    """On a busy machine the pool kills a worker that has already exited: the exit status arrives later."""
    async with ProcessPoolExecutor(1) as pool:
        [worker] = pool._dispatcher.scheduler.workers.values()
        forkserver = forkserver_of_this_process()
        status = Path(f"/proc/{forkserver}/status")
        await until(
            lambda: "State:\tS" in status.read_text()
        )  # the forkserver has closed its copy of the worker's channel
        os.kill(forkserver, signal.SIGSTOP)
        try:
            ended = asyncio.create_task(pool.run(job))
            await until(lambda: worker.kill_reason != "")
        finally:
            os.kill(forkserver, signal.SIGCONT)
        with pytest.raises(WorkerDied, match=how):
            await ended
        await assert_healthy(pool)


def forkserver_of_this_process() -> int:
    return next(child for child, line in descendants(os.getpid()).items() if "forkserver_main" in line)


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_pool_that_closes_while_its_forkserver_restarts_leaves_nothing() -> None:
    before = descendants(os.getpid()).keys()  # such as the resource tracker of a library that an earlier test used
    async with ProcessPoolExecutor(1) as pool:
        os.kill(forkserver_of_this_process(), signal.SIGKILL)
        await until(lambda: not pool._dispatcher.scheduler.generation.can_start)
        await asyncio.sleep(0)  # another forkserver is started
        await pool.aclose(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert descendants(os.getpid()).keys() <= before


@pytest.mark.asyncio
async def test_flood_of_sigchld_fails_no_job() -> None:
    async with ProcessPoolExecutor(2) as pool:
        forkserver = forkserver_of_this_process()
        flood = subprocess.Popen(["sh", "-c", f"while kill -CHLD {forkserver} {os.getpid()}; do :; done"])
        try:
            assert await asyncio.gather(*(pool.run(jobs.echo, n) for n in range(300))) == list(range(300))
            with pytest.raises(WorkerDied):
                await pool.run(jobs.segfault)
            await assert_healthy(pool)
        finally:
            flood.kill()
            flood.wait()


SERVICE = """
    import logging, os, time
    from tinysvc import cpu_route, io_route

    @cpu_route("/pid", timeout=0)
    def pid() -> int:
        return os.getpid()

    @cpu_route("/wait", timeout=1.0)
    def wait(started: str, go: str) -> str:
        open(started, "w").close()
        while not os.path.exists(go):
            time.sleep(0.001)
        return "done"

    @cpu_route("/raise")
    def fail() -> None:
        logging.getLogger("shop").error("a record for a disk that is full")
        raise RuntimeError("a traceback for a disk that is full")

    @cpu_route("/nap", timeout=5.0)
    def nap() -> int:
        time.sleep(0.1)
        return 1

    @io_route("/io")
    async def io() -> str:
        return "io"
"""


@contextmanager
def server(folder: Path, *arguments: str, **options: Any) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """The service on a Unix socket, in its own process."""
    (folder / "service.py").write_text(textwrap.dedent(SERVICE))
    path = str(folder / "socket")
    command = [sys.executable, "-m", "tinysvc", "service.py", "--unix", path, "--cpu-workers", "2", *arguments]
    process = subprocess.Popen(command, cwd=folder, text=True, **{"stdout": subprocess.DEVNULL, **options})
    try:
        wait_until(lambda: _listens(path), "the server listens")
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://x", timeout=30) as client:
            yield process, client
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def test_server_that_was_stopped_kills_no_healthy_worker(tmp_path: Path) -> None:
    """The job ends in time while the server is stopped; its deadline passes; then the server continues."""
    with server(tmp_path) as (process, client), ThreadPoolExecutor(1) as thread:
        pid = client.get("/pid").json()
        other = client.get("/pid").json()
        go, started = tmp_path / "go", tmp_path / "started"
        answer = thread.submit(client.get, f"/wait?started={started}&go={go}")
        wait_until(started.exists, "the job runs")
        process.send_signal(signal.SIGSTOP)
        go.touch()
        time.sleep(1.5)  # longer than the deadline: the subject of this test
        process.send_signal(signal.SIGCONT)
        assert answer.result(30).text == "done"
        assert client.get("/pid").json() in {pid, other, *workers_below(process.pid)}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_under_the_log_fails_no_request(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full, server(tmp_path, stderr=full, stdout=full) as (_, client):
        for _ in range(3):
            assert client.get("/raise").status_code == 500
            assert client.get("/io").text == "io"
            assert client.get("/pid").status_code == 200


def test_excess_requests_get_503_and_the_rest_is_served(tmp_path: Path) -> None:
    with server(tmp_path, "--queue-size", "4") as (_, client), ThreadPoolExecutor(60) as threads:
        answers = [threads.submit(client.get, "/nap") for _ in range(60)]
        statuses = Counter(answer.result(50).status_code for answer in answers)
        assert set(statuses) <= {200, 503}
        assert statuses[200] >= 6
        assert statuses[503] > 0
        refused = next(answer.result() for answer in answers if answer.result().status_code == 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["type"] == "urn:tinysvc:queue-full"
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_sigterm_during_start_up_ends_every_process(tmp_path: Path, delay: float) -> None:
    (tmp_path / "service.py").write_text(textwrap.dedent(SERVICE))
    command = [sys.executable, "-m", "tinysvc", "service.py", "--port", "0", "--cpu-workers", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    time.sleep(delay)  # an arbitrary moment of the start-up
    processes = set(descendants(process.pid))
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM)
    wait_until(lambda: not processes & set(descendants(1)), "every process has ended")
