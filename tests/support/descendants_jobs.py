"""Jobs that leave processes behind."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import NoReturn

SLEEP = "import sys, time, os; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(3600)"


def sleeper(path: str) -> list[str]:
    """A command that writes its pid into the file and does not end."""
    return [sys.executable, "-c", SLEEP, path]


def start(how: str, path: str) -> None:
    if how == "child":
        subprocess.Popen(sleeper(path))
    elif how == "session":
        subprocess.Popen(sleeper(path), start_new_session=True)
    elif how == "orphan":
        subprocess.run(["setsid", "-f", *sleeper(path)], check=True)
    else:  # a classic daemon: two forks, no exec, no environment, no descriptor of its parent
        if os.fork():
            os.wait()
            return
        os.setsid()
        if os.fork():
            os._exit(0)
        os.environ.clear()
        os.closerange(0, 100)
        Path(path).write_text(f"{os.getpid()}\n")
        time.sleep(3600)


def start_and_stay(how: str, path: str) -> NoReturn:
    start(how, path)
    while True:
        time.sleep(1)


def start_and_return(how: str, path: str) -> int:
    start(how, path)
    return os.getpid()


def start_and_crash(how: str, path: str) -> NoReturn:
    start(how, path)
    while not Path(path).exists():
        time.sleep(0.01)
    os._exit(1)


def leave_short_orphans(count: int) -> None:
    for _ in range(count):
        subprocess.run(["setsid", "-f", "true"], check=True)


def hold_names(path: str) -> NoReturn:
    """A named semaphore and named shared memory, with a tracker that removes them at the end."""
    lock = multiprocessing.get_context("spawn").Lock()
    memory = shared_memory.SharedMemory(create=True, size=1000)
    subprocess.Popen(sleeper(path + ".child"))
    semaphore = lock._semlock.name.lstrip("/")  # type: ignore[attr-defined]
    Path(path + ".new").write_text(f"sem.{semaphore} {memory.name.lstrip('/')}")
    os.rename(path + ".new", path)
    while True:
        time.sleep(1)
