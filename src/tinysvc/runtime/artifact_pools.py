"""The pools whose programs use artifacts, and how they get other versions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from ..pool.observer import PoolObserver
from ..pool.program import Program
from ..pool.state import WorkerStatus
from .artifact_labels import joined_labels
from .cpu_endpoints import CpuProgram
from .endpoint_parts import Endpoint
from .served_artifacts import ArtifactVersions


@runtime_checkable
class SwappablePool(Protocol):
    """A pool that can replace its workers by workers with another program."""

    name: str
    observer: PoolObserver | None

    @property
    def generation(self) -> str:
        """The label of its newest program."""

    def workers(self) -> list[WorkerStatus]:
        """The workers as they are now."""

    async def swap(self, program: Program, *, label: str = "", drain: bool = False) -> None:
        """Replace the workers. WorkerStartError if that fails; then the old ones stay."""


def program_of(endpoints: Sequence[Endpoint], versions: ArtifactVersions) -> CpuProgram:
    """The program of a pool with these endpoints; it has the versions of their artifacts only."""
    references = references_of(endpoints)
    return CpuProgram(list(endpoints), {each: versions[each] for each in references if each in versions})


def references_of(endpoints: Sequence[Endpoint]) -> list[str]:
    """The references of the artifacts that the endpoints take, each once."""
    found = (each for endpoint in endpoints for taken in endpoint.artifacts.values() for each in taken.values())
    return sorted(set(found))


class ArtifactPool:
    """A pool with artifacts.

    Args:
        pool: The pool.
        endpoints: The endpoints of its program.
        drains: Whether its workers end before those with another version start.
    """

    def __init__(self, pool: SwappablePool, endpoints: Sequence[Endpoint], drains: bool) -> None:
        self.pool = pool
        self.name = pool.name
        self.drains = drains
        self.is_unloaded = False
        """Whether it has no workers at the moment because of a swap with a drain. Its jobs wait."""
        self.references = references_of(endpoints)
        self._endpoints = endpoints

    def uses(self, references: Collection[str]) -> bool:
        """Whether it uses one of these artifacts."""
        return any(reference in references for reference in self.references)

    def labels_in_use(self) -> set[str]:
        """The labels of the versions that its workers have open, also those of one with a long stream."""
        return {label for worker in self.pool.workers() for label in worker.generation.split(", ")}

    def label(self, versions: ArtifactVersions) -> str:
        """The label of its generation with these versions."""
        return joined_labels(versions[each] for each in self.references if each in versions)

    async def swap(self, versions: ArtifactVersions) -> None:
        """Replace the workers by workers with these versions. If that fails, the old ones stay.

        Raises:
            WorkerStartError: A worker with these versions cannot start.
            PoolClosed: The pool shuts down.
        """
        self.is_unloaded = self.drains
        try:
            program = program_of(self._endpoints, versions)
            await self.pool.swap(program, label=program.label, drain=self.drains)
        finally:
            self.is_unloaded = False
