"""The work of the CPU routes, the same for all peers."""

import os
import time
from typing import Any

SECONDS = 0.020

TURN = 0.050
"""Seconds for which a request waits or computes in the part `kusers`."""


def noop(document: dict[str, Any]) -> dict[str, Any]:
    return document


def square(number: int) -> int:
    return number * number


def echo(body: bytes) -> bytes:
    return body


def burn(document: dict[str, Any]) -> dict[str, Any]:
    spend(SECONDS)
    return document


def compute() -> dict[str, bool]:
    spend(TURN)
    return {"computed": True}


def spend(seconds: float) -> None:
    """Use this much CPU time, however long that takes on a busy machine."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def endless() -> None:
    while True:
        pass


def hold(pid_file: str) -> None:
    """Write the pid of this process to a file, and sleep."""
    with open(pid_file, "w") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(30)
