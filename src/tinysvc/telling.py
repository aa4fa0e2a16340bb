"""Stub, to be replaced."""
from __future__ import annotations

import signal
from typing import Any


class OomCounter:
    def grew(self) -> bool | None:
        return None
def forward_logs(send: Any, level: int) -> None: ...
def whole_lines() -> None: ...
def watch_crashes(descriptor: int) -> None: ...
def peak_bytes(usage: Any) -> int:
    return int(usage.ru_maxrss) * 1024
def log_record(worker: int, pool: str, fields: Any) -> None: ...
def manner_of_death(exit_code: int | None, why: str, *, out_of_memory: bool | None, peak: int, stack: str) -> str:
    if why:
        return f"was killed: it {why}"
    if exit_code is None:
        return "was ended"
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    if exit_code != -signal.SIGKILL:
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-exit_code, f'signal {-exit_code}')}"
    return "was killed by SIGKILL, out of memory perhaps"
