"""Looks at the aliases of the artifacts, and what is wrong with them.

A trouble is logged when it begins, not at each look, and is shown by `/readyz` as long as it lasts.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import monotonic

from ..models.errors import ModelsError, StoreUnavailable, UnknownVersion
from .served_artifacts import ServedArtifacts

log = logging.getLogger("tinysvc.models")

SILENT = 30.0
"""Seconds without an answer after which a store counts as away."""


class AliasLooks:
    """The aliases of the artifacts that a server process serves.

    Args:
        artifacts: What is served.
    """

    def __init__(self, artifacts: ServedArtifacts) -> None:
        self.aliases: list[str] = []
        """Their references. A reference with the number of a version never changes."""
        self.problems: dict[str, str] = {}
        """By reference."""
        self.store_problem = ""
        self._artifacts = artifacts
        self._gone: set[str] = set()  # digests of copies that cannot be fetched again, as the log says

    async def look(self) -> dict[str, int]:
        """The versions that the aliases name, as far as they can be read."""
        named = {}
        for reference in self.aliases:
            try:
                number = await self._resolved(reference)
            except (StoreUnavailable, OSError) as error:
                self._store_is_away(error)
                return {}
            except UnknownVersion as error:
                if reference in self._artifacts.versions:  # else it need not exist yet
                    self.note_problem(reference, str(error))
                continue
            except ModelsError as error:
                self.note_problem(reference, str(error))
                continue
            self._artifacts.seen[reference] = monotonic()
            named[reference] = number
            if number == self._artifacts.served(reference):
                self.problems.pop(reference, None)
        if self.store_problem:
            log.info("the store of the models answers again")
            self.store_problem = ""
        return named

    async def _resolved(self, reference: str) -> int:
        """The version that a reference names. A store that does not answer, as a network file system, is a problem."""
        silent = StoreUnavailable(f"it has not answered for {SILENT:g} s")
        timer = asyncio.get_running_loop().call_later(SILENT, self._store_is_away, silent)
        try:
            return await self._artifacts.in_thread(partial(self._artifacts.resolve, reference))
        finally:
            timer.cancel()

    async def look_at_copies(self) -> None:
        """Fetch local copies again that were removed while they are served: workers that start need them."""
        gone = self._artifacts.removed_copies()
        self._gone &= gone.keys()
        for digest, reference in gone.items():
            label = self._artifacts.versions[reference].label
            try:
                await self._artifacts.in_thread(partial(self._artifacts.fetch_again, reference))
                log.warning("the local copy of %s was removed while it is served; it is fetched again", label)
            except (ModelsError, OSError) as error:
                if digest not in self._gone:
                    self._gone.add(digest)
                    log.error("the local copy of %s was removed, and no worker can start: %s", label, error)

    def _store_is_away(self, error: Exception) -> None:
        wanted = self._artifacts.wanted.values()
        if not self._artifacts.versions and all(each.may_be_absent for each in wanted):
            return  # perhaps nothing was ever published: the first publication makes the folder
        if not self.store_problem:
            log.warning("the store of the models is away, and the present versions stay: %s", error)
        self.store_problem = str(error)

    def note_problem(self, reference: str, problem: str) -> bool:
        """Note it, and log it unless it is known. Returns whether it is new."""
        if self.problems.get(reference) == problem:
            return False
        self.problems[reference] = problem
        log.error("the artifact %s: %s", reference, problem)
        return True

    def problem_of(self, reference: str) -> str:
        """What is wrong with an artifact; "" for nothing."""
        return self.problems.get(reference) or (self.store_problem if reference in self.aliases else "")
