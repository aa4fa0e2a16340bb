"""Huey on SQLite, with fsync at each commit."""

from __future__ import annotations

import os
from pathlib import Path

import queue_tasks
from huey import SqliteHuey

FOLDER = Path(os.environ["TMPDIR"])
huey = SqliteHuey(filename=str(FOLDER / "huey.db"), fsync=True, results=False)
note = huey.task()(queue_tasks.note)

if os.environ.get("QUEUE_ROLE") != "worker":
    from queue_front import BIN, front

    command = [str(BIN / "huey_consumer"), "queue_huey.huey", "--workers", "1", "--worker-type", "process", "--quiet"]
    app = front(note, ["env", "QUEUE_ROLE=worker", *command])
