"""The artifacts of a running service: which ones it takes, and which version of each this server process serves.

    start    resolve the alias ──> fetch and verify ──> pin the local copy ──> the pools start with it
    later    model_swaps.py brings the pools to another version, and notes it here

The program of a pool names its versions by the digest and the path of a pinned copy. So a forkserver or a worker that
is started again gets the same version, whatever its alias names by then.

When the store is away at the start, the version that was served last on this machine is served, with a warning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..core.errors import ConfigurationError
from ..core.settings import Settings
from ..models.alias_entries import AliasEntry
from ..models.artifact_version import ArtifactVersion
from ..models.errors import ModelsError, StoreMissing, StoreUnavailable, UnknownVersion, VersionRefused
from ..models.local_copies import LocalCopies
from ..models.object_urls import is_object_url
from ..models.opening import open_store
from ..models.references import Reference, parse_reference
from ..models.store import ModelStore
from ..service.plan import Plan
from .artifact_labels import joined_labels
from .swap_turns import SwapTurns

if TYPE_CHECKING:
    from ..models.artifact import Artifact

log = logging.getLogger("tinysvc.models")

T = TypeVar("T")

UNUSED_COPIES = 3600.0
"""Seconds for which all copies stay, and not only the last ones: a disk has room for those of an hour, not of a day."""

ArtifactVersions = Mapping[str, ArtifactVersion]
"""By reference, as in "churn@production"."""


class Wanted(NamedTuple):
    """An artifact that the service takes: what all parameters with this reference say together."""

    reference: Reference
    allow_pickle: bool
    """Whether all of them allow it."""
    may_be_absent: bool
    """Whether all of them do without it."""
    is_candidate: bool = False
    """Whether all of them only try it: the server starts without it, and a swap brings it."""


def wanted_by(plans: Iterable[Plan]) -> dict[str, Wanted]:
    """The artifacts that these routes take, by their references."""
    found: dict[str, Wanted] = {}
    for plan in plans:
        for artifacts in plan.artifacts.values():
            for taken in artifacts.values():
                _add(found, taken.artifact, taken.may_be_absent)
        if plan.candidate is not None:
            _add(found, plan.candidate, True)
    return found


def _add(found: dict[str, Wanted], artifact: Artifact, may_be_absent: bool) -> None:
    known = found.get(artifact.reference)
    found[artifact.reference] = Wanted(
        parse_reference(artifact.reference),
        artifact.allow_pickle and (known is None or known.allow_pickle),
        may_be_absent and (known is None or known.may_be_absent),
        artifact.is_candidate and (known is None or known.is_candidate),
    )


def drains(plans: Iterable[Plan]) -> bool:
    """Whether one of the artifacts of these routes has `swap="drain"`."""
    taken = [each for plan in plans for artifacts in plan.artifacts.values() for each in artifacts.values()]
    return any(each.artifact.swap == "drain" for each in taken)


def _remedy(reference: Reference, error: Exception) -> str:
    if not reference.alias or not isinstance(error, UnknownVersion | StoreMissing):
        return ""
    command = f"python -m tinysvc.models publish {reference.name} PATH --alias {reference.alias}"
    return f"; publish it ({command}), name another store with --models, or take Path | None to start without it"


def copies_folder(settings: Settings) -> Path:
    """The folder of the local copies: the setting, else inside of the models folder, else in the user's cache."""
    if settings.models_cache:
        return Path(settings.models_cache).expanduser()
    if not is_object_url(settings.models):
        folder = Path(settings.models).expanduser().absolute() / ".cache"
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        if os.access(existing, os.W_OK):
            return folder
    name = sha256(settings.models.encode()).hexdigest()[:16]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinysvc" / "models" / name


class ServedArtifacts:
    """The versions that this server process serves.

    Args:
        settings: The server's settings.
        wanted: The artifacts that the service takes.

    Raises:
        ConfigurationError: The store, or one of the trusted keys, cannot be opened.
    """

    def __init__(self, settings: Settings, wanted: Mapping[str, Wanted]) -> None:
        self.wanted = wanted
        self.store: ModelStore = open_store(settings.models, keys=settings.models_keys.split())
        self.copies = LocalCopies(copies_folder(settings))
        self.turns = SwapTurns(self.copies.folder, f"{settings.models} {' '.join(sorted(wanted))}")
        self.versions: dict[str, ArtifactVersion] = {}
        self.seen: dict[str, float] = {}  # when each alias was read last (time.monotonic)
        self._entries: dict[str, AliasEntry] = {}  # of the aliases of the versions that are served, as far as compared
        self._pins: dict[str, tuple[str, ExitStack]] = {}  # by digest, with the label

    def served(self, reference: str) -> int | None:
        """The version that this process serves under a reference; None for an artifact that it does not take."""
        version = self.versions.get(reference)
        return None if version is None else version.version

    def label_of(self, plan: Plan) -> Callable[[], str]:
        """A function that returns the versions that the route serves now, as its workers write them in X-Artifact."""
        references = {each.artifact.reference for taken in plan.artifacts.values() for each in taken.values()}
        known: ArtifactVersions | None = None
        label = ""

        def current() -> str:
            nonlocal known, label
            if known is not self.versions:  # `note_served` replaces it
                known = self.versions
                label = joined_labels(known[each] for each in references if each in known)
            return label

        return current

    # In a thread

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a function that asks the store. A cancellation does not wait for it: the store may never answer."""
        from anyio import CapacityLimiter
        from anyio.to_thread import run_sync

        return await run_sync(function, abandon_on_cancel=True, limiter=CapacityLimiter(1))

    def resolve(self, reference: str) -> int:
        """The version that a reference names now. It asks the store.

        Raises:
            VersionRefused: The store has another version under the number of the one that is served.
        """
        wanted = self.wanted[reference].reference
        if wanted.version:
            return wanted.version
        entry = self.store.alias(wanted.name, wanted.alias)
        served = self.versions.get(reference)
        if served is not None and served.version == entry.version and self._entries.get(reference) != entry:
            if self.store.manifest(wanted.name, entry.version).digest != served.digest:
                raise VersionRefused(
                    f"{wanted} names another {served.label} than the one that is served: the store was made anew; "
                    "publish the model once more, or start the server again"
                )
            self._entries[reference] = entry
        return entry.version

    def fetch(self, reference: str, version: int) -> ArtifactVersion:
        """The verified local copy of a version, pinned."""
        wanted = self.wanted[reference]
        found = self.copies.fetch(self.store, wanted.reference.name, version, allow_pickle=wanted.allow_pickle)
        self._pin(found)
        return found

    def removed_copies(self) -> dict[str, str]:
        """The versions that are served and whose copies somebody has removed: a reference by digest."""
        return {each.digest: name for name, each in self.versions.items() if not self.copies.has(each)}

    def fetch_again(self, reference: str) -> None:
        """Fetch the version that is served once more. It gets the same path.

        Raises:
            VersionRefused: The store has another version under its number.
        """
        version = self.versions[reference]
        if (pin := self._pins.pop(version.digest, None)) is not None:
            pin[1].close()
        if self.fetch(reference, version.version).digest != version.digest:
            raise VersionRefused(f"the store has another {version.label}")

    def _pin(self, version: ArtifactVersion) -> None:
        if version.digest not in self._pins:
            with ExitStack() as stack:
                stack.enter_context(self.copies.pin(version))
                self._pins[version.digest] = version.label, stack.pop_all()

    # At the start

    async def open(self, stack: AsyncExitStack) -> None:
        """Fetch all versions, and keep their copies until `stack` closes.

        Raises:
            ConfigurationError: One of them cannot be served.
        """
        stack.callback(self._unpin_all)
        for reference, wanted in self.wanted.items():
            if wanted.is_candidate:
                continue
            try:
                version = await self.in_thread(partial(self._first, reference))
            except (ModelsError, OSError) as error:
                problem = f"the artifact {reference} cannot be served: {error}"
                raise ConfigurationError(problem + _remedy(wanted.reference, error)) from error
            if version is not None:
                self.versions[reference] = version
        await self.in_thread(self._remember)

    def _first(self, reference: str) -> ArtifactVersion | None:
        """The version at the start; None for an artifact that need not exist and does not."""
        wanted = self.wanted[reference]
        try:
            number = self.resolve(reference)
            self.seen[reference] = monotonic()
        except (UnknownVersion, StoreUnavailable) as error:
            is_away = isinstance(error, StoreUnavailable)
            version = self._copy_of_last(reference) if is_away else None
            if version is None and not wanted.may_be_absent:
                raise
            how = f"{version.label} is served, from the local copy" if version else "it is None until it exists"
            log.warning("the artifact %s: %s; %s", reference, error, how)
            return version
        try:
            version = self.fetch(reference, number)
        except StoreUnavailable as error:
            version = self._copy_of_last(reference)
            if version is None:
                raise
            log.warning("the artifact %s: %s; %s is served, from the local copy", reference, error, version.label)
            return version
        return self._unless_failed(reference, version)

    def _unless_failed(self, reference: str, version: ArtifactVersion) -> ArtifactVersion:
        """The version; the one served last if another process of this server could not open it."""
        if any(version.digest in state for state in self.turns.failed()):
            last = self._copy_of_last(reference)
            if last is not None and last.digest != version.digest:
                log.warning("the artifact %s: %s has failed before; %s is served", reference, version.label, last.label)
                return last
        return version

    def _copy_of_last(self, reference: str) -> ArtifactVersion | None:
        wanted = self.wanted[reference]
        last = self.copies.last(wanted.reference, trusted=self.store.trusted, allow_pickle=wanted.allow_pickle)
        if last is not None:
            self._pin(last)
        return last

    # After a swap

    async def note_served(self, versions: ArtifactVersions) -> None:
        """All pools serve these versions."""
        self.versions = dict(versions)
        await self.in_thread(self._remember)

    def _remember(self) -> None:
        """Note on the disk what is served, for a start without the store, and remove copies that nothing uses."""
        try:
            for reference, version in self.versions.items():
                self.copies.remember(self.wanted[reference].reference, version)
            self.copies.sweep(older_than=UNUSED_COPIES)
        except OSError as error:
            log.warning("the folder %s of the local copies cannot be written: %s", self.copies.folder, error)

    @property
    def pinned(self) -> list[str]:
        """The labels of the pinned copies."""
        return [label for label, _ in list(self._pins.values())]

    def unpin(self, before: ArtifactVersions, used: Collection[str]) -> None:
        """Release the copies that are neither served, nor among `before`, nor have a label in `used`."""
        kept = {version.digest for version in (*self.versions.values(), *before.values())}
        for digest, (label, pin) in list(self._pins.items()):
            if digest not in kept and label not in used:
                pin.close()
                del self._pins[digest]

    def _unpin_all(self) -> None:
        for _, pin in self._pins.values():
            pin.close()
        self._pins.clear()
