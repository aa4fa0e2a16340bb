"""RQ on Redis."""

from __future__ import annotations

import queue_tasks
from queue_front import BIN, REDIS, front, start_redis
from redis import Redis
from rq import Queue

start_redis()
queue = Queue(connection=Redis(unix_socket_path=str(REDIS)))
worker = [str(BIN / "rq"), "worker", "--quiet", "--url", f"unix://{REDIS}", "default"]


def add(sent: float, path: str) -> None:
    queue.enqueue(queue_tasks.note, sent, path, result_ttl=0)


app = front(add, worker)
