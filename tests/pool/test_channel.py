"""processes.py: the channel's frames however they are cut, and a forkserver that does not start."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import unittest.mock
from pathlib import Path
from typing import Any

import pytest

import jobs
from tinysvc.core.errors import WorkerStartError
from tinysvc.core.stdlib_shadowing import FORKSERVER_VARIABLE
from tinysvc.pool.channel import Channel, Forkserver
from tinysvc.pool.descendants import new_mark
from tinysvc.pool.worker import FRAME, WorkerOptions, frame, plain_program

OPTIONS = WorkerOptions(30, 1 << 20, False, 0, new_mark())


class Transport:
    """What a Channel needs of a transport."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


def channel(limit: int = 10_000) -> tuple[Channel, Transport, list[tuple[Any, bytes]], list[str]]:
    frames: list[tuple[Any, bytes]] = []
    ends: list[str] = []
    made = Channel(unittest.mock.Mock(), lambda head, body: frames.append((head, body)), ends.append, limit)
    transport = Transport()
    made.connection_made(transport)  # type: ignore[arg-type]
    return made, transport, frames, ends


@pytest.mark.parametrize("size", [1, 2, 7, 12, 13, 64, 10_000])
def test_frames_arrive_whole_however_they_are_cut(size: int) -> None:
    sent = [([1, 0, None], b""), ([2, 1, "meta"], b"x" * 100), ([3, 2, {"a": 1}], b"y" * 999), ([4, 0, None], b"")]
    data = b"".join(frame(head, len(body)) + body for head, body in sent)
    made, _, frames, _ = channel()
    for start in range(0, len(data), size):
        made.data_received(data[start : start + size])
    assert frames == sent


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (FRAME.pack(10, 1 << 40), "max_result_size is 10000"),
        (FRAME.pack(0xFFFFFFFF, 0), "max_result_size is 10000"),
        (FRAME.pack(1, 0) + b"\xc1", "not MessagePack"),
    ],
)
def test_what_is_no_frame_ends_the_channel(data: bytes, why: str) -> None:
    made, transport, frames, ends = channel()
    made.data_received(data)
    made.data_received(frame([1, 0, None]))  # what follows is not heard
    assert transport.closed
    assert not frames
    made.connection_lost(None)
    assert why in ends[0]


def test_a_channel_closed_before_it_is_connected() -> None:
    made = Channel(unittest.mock.Mock(), lambda head, body: None, lambda why: None, 1)
    made.close()
    transport = Transport()
    made.connection_made(transport)  # type: ignore[arg-type]
    assert transport.closed


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_a_program_that_cannot_be_loaded_is_told_with_its_traceback() -> None:
    forkserver = Forkserver(jobs.Bomb(), OPTIONS, 1, lambda *_: None, lambda: None)  # type: ignore[arg-type]
    with pytest.raises(WorkerStartError, match="cannot be loaded") as raised:
        await forkserver.start()
    assert "RuntimeError: unpickled" in raised.value.traceback


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    forkserver = Forkserver(jobs.plain_slow_program, OPTIONS, 1, lambda *_: None, lambda: None)
    start = asyncio.create_task(forkserver.start())
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_blas_threads_are_limited_unless_the_user_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinysvc import ProcessPoolExecutor

    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    async with ProcessPoolExecutor(os.cpu_count()) as pool:
        assert await pool.run(os.getenv, "OMP_NUM_THREADS") == "1"
        assert await pool.run(os.getenv, "MKL_NUM_THREADS") == "7"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.EPERM])
@pytest.mark.parametrize("call", ["socket.socketpair", "subprocess.Popen", "tinysvc.pool.channel.anonymous_file"])
@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_a_call_that_is_refused_is_one_sentence(call: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    forkserver = Forkserver(plain_program, OPTIONS, 1, lambda *_: None, lambda: None)
    monkeypatch.setattr(call, refuse)
    with pytest.raises(WorkerStartError, match=f"no forkserver can be started: .*{os.strerror(number)}"):
        await forkserver.start()


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root becomes another user")
@pytest.mark.parametrize(
    ("processes", "words"),
    [(1, "no forkserver can be started: fork failed: "), (2, "worker 1 cannot start: fork failed: ")],
)
def test_a_limit_of_processes_is_named_with_its_remedy(processes: int, words: str, tmp_path: Path) -> None:
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
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # else not what root has installed
    # Root has no such limit; a user of its own for this test has no other processes.
    user = 200_000 + os.getpid()
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *may_read]
    if subprocess.run([*as_user, "true"], capture_output=True).returncode:
        pytest.skip("a container without the capability to become another user")
    command = [*as_user, "prlimit", f"--nproc={processes}", sys.executable, "program.py"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert words in answer.stdout, answer.stderr
    assert "raise the limit of processes (pids.max of the container, or ulimit -u)" in answer.stdout


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1200, reason="so many files cannot be opened")
def test_a_pool_in_a_process_with_more_than_1024_open_files(tmp_path: Path) -> None:
    program = """
        import os, resource
        from tinysvc import ProcessPoolExecutor
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200,) * 2)
        files = [os.dup(1) for _ in range(1030)]
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(abs, -7).result())
    """
    assert python(program, tmp_path) == (0, "7\n", "")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_pool_in_a_process_whose_standard_streams_are_closed(closed: tuple[int, ...], tmp_path: Path) -> None:
    program = f"""
        import os, sys
        for descriptor in {closed}:
            os.close(descriptor)
            setattr(sys, ("stdin", "stdout", "stderr")[descriptor], None)
        from tinysvc import ProcessPoolExecutor
        with ProcessPoolExecutor(1) as pool:
            pool.submit(print, "from a worker").result()
            open("result", "w").write(str(pool.submit(abs, -7).result()))
    """
    status, output, _ = python(program, tmp_path)
    assert status == 0
    assert (tmp_path / "result").read_text() == "7"
    assert output == ("" if 1 in closed else "from a worker\n")


def python(program: str, folder: Path) -> tuple[int, str, str]:
    """Exit status, output and errors of a program."""
    guarded = 'if __name__ == "__main__":\n' + textwrap.indent(textwrap.dedent(program), "    ")
    (folder / "program.py").write_text(guarded)
    done = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


HANDLERS_IN_MAIN = """
import sys
import tinysvc

@tinysvc.cpu_route("/cpu")
def cpu() -> str:
    return "cpu"

if __name__ == "__main__":
    tinysvc.run(__name__, port=0)
"""


@pytest.mark.parametrize("words", [["-m", "app"], ["app"], ["-"], ["-c", HANDLERS_IN_MAIN]])
def test_handlers_that_workers_cannot_import_are_one_sentence(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(HANDLERS_IN_MAIN)
    done = subprocess.run(
        [sys.executable, *words], input=HANDLERS_IN_MAIN, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("tinysvc: cpu (")
    assert "move it to another module" in line


def test_a_pool_of_an_interactive_program_runs_what_can_be_imported(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        from tinysvc import ProcessPoolExecutor
        def double(x):
            return 2 * x
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(pow, 2, 3).result())
            print(pool.submit(double, 2).exception())
    """)
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    result, sentence = done.stdout.splitlines()
    assert result == "8"
    assert "move it to another module" in sentence


@pytest.mark.parametrize("how", ["frozen", "started", "unknown"])
@pytest.mark.asyncio
async def test_a_program_that_is_its_own_executable_does_not_start_itself(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif how == "started":  # by a program that took it for Python
        monkeypatch.setenv(FORKSERVER_VARIABLE, "1")
    else:
        monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: None)
    forkserver = Forkserver(plain_program, OPTIONS, 1, lambda *_: None, lambda: None)
    with pytest.raises(WorkerStartError, match="needs new Python processes, and this program's executable"):
        await forkserver.start()
