"""crash_reports.py: how a worker ended, in words."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import log_jobs
from log_processes import run_process
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import WorkerDied
from tinysvc.pool import crash_reports
from tinysvc.pool.arena import Arena
from tinysvc.pool.crash_reports import describe_end


def test_python_stack_of_a_crash_is_in_the_crash_file() -> None:
    arena = Arena()
    out, _ = run_process(f"crash({arena.descriptor})", pass_fds=[arena.descriptor])
    stack = os.pread(arena.descriptor, 65536, 0).decode()
    arena.close()
    description = describe_end(int(out), "", out_of_memory=False, peak=41 << 20, stack=stack)
    first, *frames = description.splitlines()
    assert first == "was killed by SIGSEGV; peak memory 41 MiB; Python stack, last call first:"
    assert [frame.rpartition(" in ")[2] for frame in frames[-3:]] == ["segfault", "predict", "crash"]


OUR_FILE = str(Path(crash_reports.__file__).parent / "worker.py")


STACK = f"""Fatal Python error: Aborted

Current thread 0x00007f (most recent call first):
  File "/srv/other.py", line 1 in a_forked_child

Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/srv/shop.py", line 12 in predict
  File "{OUR_FILE}", line 400 in do_job
  File "<string>", line 1 in <module>

Current thread's C stack trace (most recent call first):
  Binary file "/usr/bin/python", at _Py_DumpStack+0x31

Extension modules: numpy._core (total: 1)
"""


SHOWN = 'Python stack, last call first:\n  File "/srv/shop.py", line 12 in predict'


ENDS: list[tuple[int | None, str, bool | None, int, str, str]] = [
    (-11, "", False, 41 << 20, STACK, f"was killed by SIGSEGV; peak memory 41 MiB; {SHOWN}"),
    (-6, "", None, 0, STACK, f"was killed by SIGABRT; {SHOWN}"),
    (-7, "", None, 0, "", "was killed by SIGBUS"),
    (-9, "", True, 0, STACK, "was killed by SIGKILL, likely out of memory"),
    (-9, "", False, 0, "", "was killed by SIGKILL from outside the pool"),
    (-9, "", None, 3 << 30, "", "was killed by SIGKILL, perhaps out of memory; peak memory 3072 MiB"),
    (-9, "sent rubbish", None, 0, "", "was killed: it sent rubbish"),
    (-35, "", None, 0, "", "was killed by signal 35"),
    (-200, "", None, 0, "", "was killed by signal 200"),
    (0, "", None, 1 << 20, "", "exited with status 0; peak memory 1 MiB"),
    (3, "", True, 0, STACK, "exited with status 3"),
    (None, "", None, 0, "", "was ended"),
]


@pytest.mark.parametrize(("exit_code", "kill_reason", "out_of_memory", "peak", "stack", "words"), ENDS)
def test_each_end_is_described(
    exit_code: int | None, kill_reason: str, out_of_memory: bool | None, peak: int, stack: str, words: str
) -> None:
    assert describe_end(exit_code, kill_reason, out_of_memory=out_of_memory, peak=peak, stack=stack) == words


def test_stack_of_only_our_frames_is_shown_whole() -> None:
    ours = f'  File "{OUR_FILE}", line 1 in receive\n  File "<string>", line 1 in <module>\n'
    stack = f"Fatal Python error: Aborted\n\n{ours}"
    assert describe_end(-6, "", out_of_memory=None, peak=0, stack=stack).count("\n") == 2


def test_stack_cannot_forge_a_line() -> None:
    stack = 'Fatal Python error: x\nERROR tinysvc: forged\n  File "\x1b[1A", line 1 in x\n\xff\xff\n'
    description = describe_end(-11, "", out_of_memory=None, peak=0, stack=stack)
    assert description == 'was killed by SIGSEGV; Python stack, last call first:\n  File "\\x1b[1A", line 1 in x'


@pytest.mark.asyncio
async def test_crash_is_reported_with_its_stack(nothing_left: None) -> None:
    async with ProcessPoolExecutor(1) as pool:
        with pytest.raises(WorkerDied) as caught:
            await pool.run(log_jobs.predict)
    first, *frames = str(caught.value).splitlines()
    assert "SIGSEGV" in first
    assert " s into the job; peak memory " in first
    assert [frame.rpartition(" in ")[2] for frame in frames][-2:] == ["segfault", "predict"]
    assert caught.value.exitcode == -signal.SIGSEGV
