"""Functions that threads without a loop submit to a pool."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from jobs import touch_and_spin, touch_and_wait


def mul(a: int, b: int) -> int:
    return a * b


def pid_and_spin(path: str) -> NoReturn:
    with open(f"{path}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.new", path)
    touch_and_spin(path + ".started")


def append(path: str, word: str) -> None:
    with open(path, "a") as file:
        file.write(f"{word} ")


shared: list[Any] = []


def remember(*values: Any) -> None:
    shared.extend(values)


def put_under_the_lock(word: str) -> None:
    lock, queue = shared
    with lock:
        queue.put(word)


def spin_or_wait(started: str, go: str, spins: bool) -> int:
    return touch_and_spin(started) if spins else touch_and_wait(started, go)
