"""Celery on Redis. A job is acknowledged after it has ended, so that a worker's death does not lose it."""

from __future__ import annotations

import os

import queue_tasks
from celery import Celery
from queue_front import BIN, REDIS, front, start_redis

celery = Celery("queue_celery", broker=f"redis+socket://{REDIS}")
celery.conf.update(
    task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1, task_ignore_result=True
)
note = celery.task(queue_tasks.note, name="note")

if os.environ.get("QUEUE_ROLE") != "worker":
    start_redis()
    options = ["--concurrency", "1", "--without-gossip", "--without-mingle", "--loglevel", "ERROR"]
    worker = ["env", "QUEUE_ROLE=worker", str(BIN / "celery"), "-A", "queue_celery", "worker", *options]
    app = front(note.delay, worker)
