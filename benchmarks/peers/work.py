"""What the CPU routes of all peers do, so that they do the same."""

import os
import time
from typing import Any

SECONDS = 0.020


def noop(document: dict[str, Any]) -> dict[str, Any]:
    return document


def echo(body: bytes) -> bytes:
    return body


def burn(document: dict[str, Any]) -> dict[str, Any]:
    """Use 20 ms of CPU time, however long that takes on a busy machine."""
    end = time.thread_time() + SECONDS
    while time.thread_time() < end:
        pass
    return document


def endless() -> None:
    while True:
        pass


def hold(pid_file: str) -> None:
    """Say in which process this runs, and stay there."""
    with open(pid_file, "w") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(30)
