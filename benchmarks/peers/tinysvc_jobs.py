"""Durable jobs of tinysvc."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import queue_tasks

from tinysvc import io_route, job_route


@dataclass
class Note:
    sent: float
    path: str


@job_route("/jobs")
def note(item: Note) -> None:
    queue_tasks.note(item.sent, item.path)


@job_route("/endless")
def endless(path: str) -> None:
    """Years in the C code of `re`, which holds the interpreter lock."""
    Path(path).write_text(f"{os.getpid()}\n")
    re.match(r"(a+)+$", "a" * 60 + "b")


@io_route("/json")
async def json() -> dict[str, object]:
    return {"message": "hello", "answer": 42}
