"""Handlers of job routes, at the top level: workers import them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinysvc import Header, HTTPError, Job, Request, Response, cpu_resource, job_route
from tinysvc.core.responses import FileContent


@dataclass
class Recipe:
    epochs: int
    name: str = ""


class Gone:
    """A value of an earlier version of the code: its pickle cannot be read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _gone, ()


def _gone() -> None:
    raise ModuleNotFoundError("No module named 'old_models'")


@cpu_resource
def table() -> list[int]:
    return [1, 2, 3]


@cpu_resource(shared=True)
def weights() -> dict[str, int]:
    return {"w": 7}


@job_route("/trainings")
def train(recipe: Recipe, job: Job, table: list[int], weights: dict[str, int]) -> dict[str, Any]:
    done = job.saved or 0
    for epoch in range(done, recipe.epochs):
        job.progress((epoch + 1) / recipe.epochs, epoch=epoch)
        job.save(epoch + 1)
    return {"from": done, "id": job.id, "attempt": job.attempt, "rows": len(table), **weights}


@job_route("/users/{user}/jobs")
def of_user(user: int, body: bytes, x_tag: Annotated[str, Header()] = "") -> Response:
    return Response({"user": user, "size": len(body), "tag": x_tag}, 201, {"x-made": "yes"})


@job_route("/floods")
def flood(job: Job) -> int:
    started = time.monotonic()
    calls = 0
    while time.monotonic() < started + 0.35:
        calls += 1
        job.progress(None, calls=calls)
    return calls


@job_route("/pauses")
def report_and_wait(job: Job, body: bytes) -> None:
    """Two reports in a moment, then a computation without any: the second one is sent all the same."""
    job.progress(0.1)
    job.progress(0.2)
    threading.Event().wait(float(body))


@job_route("/snapshots")
def keep_big_state(job: Job, body: bytes) -> dict[str, int]:
    """Save a state that is as big as the body says; return the size of the one before."""
    before = job.saved or b""
    job.save(b"s" * int(body))
    return {"before": len(before)}


@job_route("/endless")
def save_for_ever(job: Job) -> None:
    number = 0
    while True:
        number += 1
        job.save(number)
        time.sleep(0.01)


@job_route("/failures/{how}")
def fail(how: str, job: Job, request: Request) -> Any:
    if how == "value":
        raise ValueError("no luck")
    if how.isdigit():
        raise HTTPError(int(how), "That is why.")
    if how == "memory":
        raise MemoryError
    empty: dict[str, int] = {}
    ends: dict[str, Callable[[], Any]] = {
        "saved": lambda: job.saved,
        "huge": lambda: b"x" * 300_000,
        "object": lambda: object(),
        "iterator": lambda: iter([1]),
        "file": lambda: Response(FileContent(Path(__file__).open("rb"), 0, 1)),  # noqa: SIM115 - the receiver closes it
        "header": _with_bad_header,
        "key": lambda: empty[request.id],
    }
    return ends[how]()


def _with_bad_header() -> Response:
    response = Response("x")
    response.headers = [("x-a", "a\nb")]
    return response


@job_route("/streams")
def stream() -> Iterator[int]:
    return iter([1])


@job_route("/plain")
def plain() -> str:
    return "done"
