"""Handlers and resources of every kind that take the store of models."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

from tinysvc import (
    Artifact,
    Batch,
    Header,
    Models,
    Service,
    call,
    cpu_resource,
    cpu_route,
    io_resource,
    io_route,
    job_route,
)


def published(models: Models, content: str, alias: str = "") -> dict[str, Any]:
    with models.publish("churn", alias=alias, meta={"content": content}) as new:
        (new.path / "weights.txt").write_text(content)
    return {"version": new.version, "by": new.manifest.by if new.manifest else "", "pid": os.getpid()}


@cpu_resource
def newest(models: Models) -> list[int]:
    """The versions when the worker was started."""
    return models.versions("churn")


@cpu_resource
def first(model: Annotated[Path, Artifact("churn@1")], models: Models) -> str:
    """The content of a version, and which one it is."""
    return f"{(model / 'weights.txt').read_text()} is version {models.served('churn@1')}"


@io_resource
def at_start(models: Models) -> str:
    return repr(models)


@io_resource
def guard(models: Models, name: Annotated[str, Header()] = "churn") -> list[int]:
    return models.versions(name)


@io_route("/io", methods=["POST"])
async def in_io(content: str, models: Models) -> dict[str, Any]:
    async with models.publish("churn", alias="staging") as new:
        (new.path / "weights.txt").write_text(content)
    return {"version": new.version, "by": new.manifest.by if new.manifest else ""}


@io_route("/blocking")
async def blocking(models: Models) -> list[str]:
    found = []
    for step in (lambda: models.publish("churn").__enter__(), lambda: models.versions("churn")):
        try:
            step()
        except RuntimeError as error:
            found.append(str(error))
    found.append(str(await asyncio.to_thread(models.versions, "churn")))
    return found


@io_route("/thread")
def in_thread(content: str, models: Models, at_start: str, guard: list[int]) -> dict[str, Any]:
    return {**published(models, content), "at_start": at_start, "before": guard}


@io_route("/failing", methods=["POST"])
async def failing(models: Models) -> None:
    async with models.publish("churn") as new:
        (new.path / "weights.txt").write_text("half")
        raise ValueError("training has failed")


@io_route("/served")
async def served(reference: str, models: Models) -> list[int | None]:
    return [models.served(reference)]


@cpu_route("/cpu", methods=["POST"])
def in_cpu(content: str, models: Models, newest: list[int]) -> dict[str, Any]:
    return {**published(models, content, "staging"), "newest": newest}


@cpu_route("/first")
def in_worker(first: str, models: Models) -> list[object]:
    return [first, models.served("churn@1"), models.served("churn@2")]


@cpu_route("/batch", methods=["POST"], batch=Batch(size=2, wait=0))
def in_batch(content: list[str], models: Models) -> list[Any]:
    return [published(models, each) for each in content]


@io_route("/calls")
async def calls(content: str) -> list[Any]:
    return [await call(in_cpu, content), await call(in_io, content)]


@job_route("/trainings")
def in_job(content: str, models: Models) -> dict[str, Any]:
    return published(models, content, "staging")


service = Service(
    *(newest, first, at_start, guard),
    *(in_io, blocking, in_thread, failing, served, in_worker, in_cpu, in_batch, calls, in_job),
)
