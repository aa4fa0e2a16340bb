"""forkserver.py: a forkserver that cannot start, and the environment of its workers."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jobs
from commands import run_program
from tinysvc.core.errors import WorkerStartError
from tinysvc.pool.forkserver import Forkserver
from tinysvc.pool.program import function_program
from worker_ends import OPTIONS


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_unloadable_program_is_reported_with_its_traceback() -> None:
    forkserver = Forkserver(jobs.Bomb(), OPTIONS, 1, lambda *_: None, lambda: None)  # type: ignore[arg-type]
    with pytest.raises(WorkerStartError, match="cannot be loaded") as raised:
        await forkserver.start()
    assert "RuntimeError: unpickled" in raised.value.traceback


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_cancelled_start_leaves_nothing_behind() -> None:
    forkserver = Forkserver(jobs.plain_slow_program, OPTIONS, 1, lambda *_: None, lambda: None)
    start = asyncio.create_task(forkserver.start())
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_blas_threads_are_limited_unless_the_user_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinysvc import ProcessPoolExecutor

    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    async with ProcessPoolExecutor(os.cpu_count()) as pool:
        assert await pool.run(os.getenv, "OMP_NUM_THREADS") == "1"
        assert await pool.run(os.getenv, "MKL_NUM_THREADS") == "7"


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_inherited_lock_is_held_until_all_processes_of_the_pool_are_dead(tmp_path: Path) -> None:
    from tinysvc import ProcessPoolExecutor

    with open(tmp_path / "lock", "wb") as ours, open(tmp_path / "lock", "rb") as other:
        fcntl.flock(ours, fcntl.LOCK_EX)
        async with ProcessPoolExecutor(1, inherited=[ours.fileno()]) as pool:
            assert not await pool.run(os.get_inheritable, ours.fileno()), "programs that a job starts hold it, too"
            ours.close()
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.EPERM])
@pytest.mark.parametrize("call", ["socket.socketpair", "subprocess.Popen", "tinysvc.pool.forkserver.anonymous_file"])
@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_refused_system_call_is_one_sentence(call: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    forkserver = Forkserver(function_program, OPTIONS, 1, lambda *_: None, lambda: None)
    monkeypatch.setattr(call, refuse)
    with pytest.raises(WorkerStartError, match=f"no forkserver can be started: .*{os.strerror(number)}"):
        await forkserver.start()


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root becomes another user")
@pytest.mark.parametrize(
    ("processes", "words"),
    [(1, "no forkserver can be started: fork failed: "), (2, "worker 1 cannot start: fork failed: ")],
)
def test_process_limit_is_named_with_its_remedy(processes: int, words: str, tmp_path: Path) -> None:
    program = """
        import os
        from tinysvc import ProcessPoolExecutor
        from tinysvc.core.errors import WorkerStartError
        import asyncio
        async def main():
            try:
                async with ProcessPoolExecutor(1):
                    print("it has started")
            except WorkerStartError as error:
                print(error)
        if __name__ == "__main__":
            asyncio.run(main())
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    # Without this capability it cannot read the files that root has installed.
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    # Root has no such limit, and a user that only this test uses has no other processes.
    user = 200_000 + os.getpid()
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *may_read]
    if subprocess.run([*as_user, "true"], capture_output=True).returncode:
        pytest.skip("a container without the capability to become another user")
    command = [*as_user, "prlimit", f"--nproc={processes}", sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert words in done.stdout, done.stderr
    assert "raise the limit of processes (pids.max of the container, or ulimit -u)" in done.stdout


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1200, reason="the limit of open files is too low")
def test_pool_starts_with_more_than_1024_open_files(tmp_path: Path) -> None:
    program = """
        import os, resource
        from tinysvc import ProcessPoolExecutor
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200,) * 2)
        files = [os.dup(1) for _ in range(1030)]
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(abs, -7).result())
    """
    assert run_program(program, tmp_path) == (0, "7\n", "")
