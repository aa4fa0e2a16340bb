"""The job of the part `jobs`, for all queues: it notes how long it waited."""

from __future__ import annotations

import os
import time


def note(sent: float, path: str) -> None:
    """Append the seconds since `sent` to the file; without a path, do nothing."""
    if path:
        line = f"{time.time() - sent:.6f}\n".encode()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, line)
        os.close(descriptor)
