"""standard_streams.py: whole lines from several workers, and standard streams that are closed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from select import PIPE_BUF

import pytest

import log_jobs
from commands import run_program
from log_processes import run_process, start_process
from tinysvc import ProcessPoolExecutor
from tinysvc.pool import standard_streams
from tinysvc.pool.leftovers import at_end_of_job
from tinysvc.pool.standard_streams import MAX_LINE, WholeLines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it


def read(end: int) -> bytes:
    """The present content of a pipe."""
    pieces = []
    try:
        while piece := os.read(end, 65536):
            pieces.append(piece)
    except BlockingIOError:
        pass
    return b"".join(pieces)


@pytest.fixture
def slow_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread writes old lines, however slow this machine is."""
    monkeypatch.setattr(standard_streams, "start_new_thread", lambda *_: None)


def test_line_waits_for_its_newline_or_a_flush(slow_watch: None, pipe: tuple[int, int]) -> None:
    lines = WholeLines(pipe[1], "<stdout>")
    assert lines.write(b"one") == 3
    assert read(pipe[0]) == b""
    lines.write(memoryview(b"\ntwo\nthr"))
    assert read(pipe[0]) == b"one\ntwo\n"
    lines.flush()
    assert read(pipe[0]) == b"thr"
    lines.flush()
    assert read(pipe[0]) == b""


def test_endless_line_is_written_at_max_line(slow_watch: None, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        lines = WholeLines(file.fileno(), "<stdout>")
        count = 0
        while not os.fstat(file.fileno()).st_size:
            count += lines.write(b"x" * 1000)
        lines.flush()
    assert MAX_LINE < count <= MAX_LINE + 1000
    assert (tmp_path / "out").stat().st_size == count


def test_each_thread_has_its_own_line(slow_watch: None, pipe: tuple[int, int]) -> None:
    lines = WholeLines(pipe[1], "<stdout>")
    lines.write(b"mine ")
    other = threading.Thread(target=lines.write, args=(b"other\n",))
    other.start()
    other.join()
    lines.write(b"too\n")
    unfinished = threading.Thread(target=lines.write, args=(b"unfinished",))
    unfinished.start()
    unfinished.join()
    lines.flush()
    assert read(pipe[0]) == b"other\nmine too\nunfinished"


def test_writes_are_small_enough_that_a_pipe_does_not_mix_them() -> None:
    lines = b"".join(b"%d\n" % number for number in range(5000)) + b"x" * 3 * PIPE_BUF + b"\nrest"
    pieces = list(standard_streams._pieces(lines))
    assert b"".join(pieces) == lines
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert [len(piece) > PIPE_BUF for piece in pieces] == [False] * (len(pieces) - 2) + [True, False]
    assert len(pieces) < len(lines) // PIPE_BUF + 5


def test_closed_pipe_raises_nothing(pipe: tuple[int, int]) -> None:
    lines = WholeLines(pipe[1], "<stdout>")
    os.close(pipe[0])
    assert lines.write(b"to no reader\n") == 13
    os.close(pipe[1])
    assert lines.write(b"to no reader\n") == 13
    assert not lines.isatty()
    lines.close()
    assert not lines.closed


def test_full_nonblocking_pipe_drops_lines_and_counts_them(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    lines = WholeLines(pipe[1], "<stdout>")
    for _ in range(1000):
        lines.write(b"x" * 1000 + b"\n")
    kept = read(pipe[0]).count(b"\n")
    assert 0 < kept < 1000
    lines.write(b"after\n")
    assert read(pipe[0]) == b"(%d lines of a worker could not be written here)\nafter\n" % (1000 - kept)


def test_lines_of_four_processes_do_not_mix(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], True)
    children = [start_process(f"print_lines({name!r}, '200')", stdout=pipe[1]) for name in "abcd"]
    os.close(pipe[1])
    with open(pipe[0], closefd=False) as reader:
        lines = reader.read().splitlines()
    assert [child.wait() for child in children] == [0] * 4
    expected = [f"{name} {number} {'x' * (number * 19 % 3000)} end" for name in "abcd" for number in range(200)]
    assert sorted(lines) == sorted(expected)


def test_streams_of_a_worker_have_the_usual_interface() -> None:
    code = (
        "import sys; from tinysvc.pool.standard_streams import write_whole_lines; write_whole_lines(); "
        "sys.stdout.buffer.write(b'bytes\\n'); print('caf\\u00e9', '\\udcff'); sys.stderr.write('error\\n'); "
        "print(sys.stdout.encoding, sys.stdout.errors, sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.name); "
        "sys.stdout.reconfigure(line_buffering=True); print('end', end='', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={"LC_ALL": "C"})
    assert done.stdout.decode() == "bytes\ncafé \\udcff\nutf-8 backslashreplace 1 2 <stdout>\nend"
    assert done.stderr == b"error\n"


def test_print_to_a_closed_descriptor_raises_nothing() -> None:
    assert run_process("print_to_closed_descriptors()") == ("", "still here\n")


def test_streams_that_the_author_replaced_stay() -> None:
    assert run_process("keep_other_streams()") == ("kept\n", "")


def test_carriage_return_writes_the_line(slow_watch: None, pipe: tuple[int, int]) -> None:
    lines = WholeLines(pipe[1], "<stdout>")
    lines.write(b"\r1 %")
    lines.write(b"\r2 %")
    assert os.read(pipe[0], 100) == b"\r1 %\r"
    lines.flush()
    assert os.read(pipe[0], 100) == b"2 %"


def test_unfinished_line_is_written_after_a_while(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], True)
    lines = WholeLines(pipe[1], "<stdout>")
    lines.write(b"x ")
    assert os.read(pipe[0], 100) == b"x "
    lines.write(b"y ")
    assert os.read(pipe[0], 100) == b"y "


def test_unfinished_line_waits_for_the_end_of_the_job_without_a_thread(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(standard_streams, "start_new_thread", refuse)
    lines = WholeLines(pipe[1], "<stdout>")
    lines.write(b"x ")
    while at_end_of_job:
        at_end_of_job.pop()()
    assert read(pipe[0]) == b"x "
    monkeypatch.undo()
    os.set_blocking(pipe[0], True)
    lines.write(b"y ")
    assert os.read(pipe[0], 100) == b"y "


@pytest.mark.asyncio
async def test_unfinished_line_of_a_running_job_is_written(
    nothing_left: None, capfd: pytest.CaptureFixture[str]
) -> None:
    async with ProcessPoolExecutor(1) as pool:
        job = asyncio.ensure_future(pool.run(log_jobs.print_and_wait, "thinking ", timeout=60))
        seen = ""
        while "thinking " not in seen:
            await asyncio.sleep(0.01)
            seen += capfd.readouterr().out
        assert not job.done()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_pool_works_with_closed_standard_streams(closed: tuple[int, ...], tmp_path: Path) -> None:
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
    status, output, _ = run_program(program, tmp_path)
    assert status == 0
    assert (tmp_path / "result").read_text() == "7"
    assert output == ("" if 1 in closed else "from a worker\n")
