"""Pools that only note the programs they are given, for the driver of swaps; and a store to move aliases in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinysvc.core.settings import Settings
from tinysvc.models.opening import open_store
from tinysvc.models.references import parse_reference
from tinysvc.models.store import ModelStore
from tinysvc.pool.observer import PoolObserver
from tinysvc.pool.state import WorkerStatus
from tinysvc.runtime.artifact_pools import ArtifactPool
from tinysvc.runtime.endpoint_parts import Endpoint
from tinysvc.runtime.served_artifacts import ServedArtifacts, Wanted


class NotingPool:
    """Swaps at once, or as the test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.observer: PoolObserver | None = None
        self.generation = ""
        self.labels: list[str] = []
        self.began: list[str] = []
        self.failures: dict[str, Exception] = {}  # by label
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.statuses: list[WorkerStatus] = []

    def workers(self) -> list[WorkerStatus]:
        return self.statuses

    async def swap(self, program: Any, *, label: str = "", drain: bool = False) -> None:
        self.began.append(label)
        await self.may_end.wait()
        if label in self.failures:
            raise self.failures[label]
        self.labels.append(label)
        self.generation = label

    def crash(self, label: str, cause: str = "crashed") -> None:
        assert self.observer is not None
        self.observer.on_worker_end(label, cause)


def status(generation: str) -> WorkerStatus:
    """A worker of this generation."""
    return WorkerStatus(1, 1, "busy", 1.0, None, 0.0, 1, False, generation)


def unused() -> None:
    """Stands for the author's functions: no worker opens them."""


def endpoint_with(*references: str) -> Endpoint:
    """An endpoint with one resource that takes these artifacts."""
    parameters = {f"model{number}": reference for number, reference in enumerate(references)}
    return Endpoint(unused, (), {"loaded": unused}, artifacts={"loaded": parameters})


def artifact_pool(pool: NotingPool, *references: str, drains: bool = False) -> ArtifactPool:
    return ArtifactPool(pool, [endpoint_with(*references)], drains)


def store_in(folder: Path) -> ModelStore:
    return open_store(str(folder / "models"))


def publish(store: ModelStore, name: str = "churn", content: str = "weights", alias: str = "production") -> int:
    """Publish a version with one file, and let the alias name it."""
    with store.publish(name, alias=alias) as new:
        (new.path / "number.txt").write_text(content)
    assert new.version
    return new.version


def served_artifacts(folder: Path, *references: str, **wanted: Any) -> ServedArtifacts:
    """Those of a service with the store of `store_in`."""
    options = {"allow_pickle": False, "may_be_absent": False} | wanted
    each = {reference: Wanted(parse_reference(reference), **options) for reference in references}
    settings = Settings(models=str(folder / "models"), models_cache=str(folder / "copies"))
    return ServedArtifacts(settings, each)


@contextmanager
def store_is_away(folder: Path) -> Iterator[None]:
    """The folder of the store does not exist while the block runs; the local copies do."""
    (folder / "models").rename(folder / "away")
    yield
    (folder / "away").rename(folder / "models")
