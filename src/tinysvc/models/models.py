"""Models: the store of models, as handlers and resources take it.

Its methods block, as the store does. In a worker and in a thread that is as it should be; on the event loop they raise
`BlocksEventLoop` with the remedy. `publish` alone has both forms: `with`, and `async with` on the loop.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..core.request_context import current_attempt, request_id, route_name
from .errors import BlocksEventLoop
from .references import parse_reference

if TYPE_CHECKING:
    from ..core.settings import Settings
    from .alias_entries import AliasEntry
    from .manifest import Manifest
    from .publication import Publication
    from .store import ModelStore

Served = Callable[[str], int | None]
"""Returns the version that is served of a reference."""


class Models:
    """The store of models and other artifacts: a handler or a resource takes it by the type of a parameter.

    Its methods block. Cpu handlers, job handlers and `def` handlers of io routes call them. An `async def` handler
    calls them in a thread (`await asyncio.to_thread(models.versions, "churn")`), and publishes with `async with`.

    Args:
        store: A folder, or the URL of an object store. In a service, it is the setting `models`.
        keys: Files with trusted public keys: then other versions are refused.
        signing_key: File with the private key that signs what is published.
        served: Returns the version of a reference that this process serves; for tests.

    Example:
        ```python
        from tinysvc import Models, job_route

        @job_route("/trainings", timeout=3600)
        def train(rounds: int, models: Models) -> dict:
            with models.publish("churn", alias="staging", meta={"rounds": rounds}) as new:
                (new.path / "weights.txt").write_text("0.5")  # published at the end of the block, or not at all
            return {"version": new.version}
        ```
    """

    def __init__(
        self,
        store: str | os.PathLike[str] = "models",
        *,
        keys: Sequence[str] = (),
        signing_key: str = "",
        served: Served | None = None,
    ) -> None:
        self._place = os.fspath(store), tuple(keys), signing_key
        self._served = served

    @classmethod
    def of_service(cls, settings: Settings, served: Served | None = None) -> Models:
        """Return the store of a service, for the parameter of a handler.

        Args:
            settings: Those of the server.
            served: Returns the version of a reference that this process serves.
        """
        keys, key = settings.models_keys.split(), settings.models_signing_key
        return cls(settings.models, keys=keys, signing_key=key, served=served)

    def __reduce__(self) -> tuple[Any, ...]:
        store, keys, signing_key = self._place
        return partial(Models, store, keys=keys, signing_key=signing_key), ()

    def __repr__(self) -> str:
        return f"<Models {self._place[0]}>"

    def publish(self, name: str, *, alias: str = "", meta: Mapping[str, Any] | None = None, by: str = "") -> Publishing:
        """Publish a version: `with models.publish("churn") as new: save(new.path / "weights.npz")`.

        The files in `new.path` are published at the end of the block; after an exception, nothing is. `new.version` is
        the number, after the block. In an `async def` handler, write `async with`: the files are hashed and sent in a
        thread.

        Args:
            name: Name of the artifact; a new one is created.
            alias: Let this alias name the new version.
            meta: What is worth to know about the version: a JSON object.
            by: The person or process that publishes; default: the route, the job and the host.

        Returns:
            A context manager, whose value is the publication.

        Raises:
            BadReference: `name` or `alias` is not possible.
            PublicationRefused: `meta` is no JSON object; at the end of the block: the files cannot be published.
            StoreUnavailable: The store does not answer.
            StoreReadOnly: This process may not write to the store.
            BlocksEventLoop: `with` is on the event loop.
        """
        return Publishing(self._place, name, alias, meta, by or author())

    def versions(self, name: str) -> list[int]:
        """List the versions of an artifact.

        Args:
            name: Name of the artifact.

        Returns:
            Their numbers, sorted; empty if there is no such artifact.

        Raises:
            StoreUnavailable: The store does not answer.
            BlocksEventLoop: The code is on the event loop.
        """
        return self._store("versions").versions(name)

    def manifest(self, name: str, version: int) -> Manifest:
        """Read the manifest of a version.

        Args:
            name: Name of the artifact.
            version: Number of the version.

        Returns:
            Its files with their sizes and hashes, and its meta data: `files`, `size`, `meta`, `by`, `at`, `digest`.

        Raises:
            UnknownVersion: There is no such version.
            VersionRefused: The manifest is damaged, or no trusted key has signed it.
            BlocksEventLoop: The code is on the event loop.
        """
        return self._store("manifest").manifest(name, version)

    def alias(self, name: str, alias: str) -> AliasEntry:
        """Read what an alias names now.

        Args:
            name: Name of the artifact.
            alias: The alias.

        Returns:
            The last entry of the alias: `version`, `by`, `at`.

        Raises:
            UnknownVersion: There is no such alias.
            BlocksEventLoop: The code is on the event loop.
        """
        return self._store("alias").alias(name, alias)

    def move_alias(
        self, name: str, alias: str, version: int, *, expected: int | None = None, by: str = ""
    ) -> AliasEntry:
        """Let an alias name a version.

        Args:
            name: Name of the artifact.
            alias: The alias; a new one is created.
            version: Number of the version.
            expected: The version that the alias must name now; 0: the alias must not exist yet.
            by: The person or process that moves it; default: the route, the job and the host.

        Returns:
            The new entry of the alias.

        Raises:
            AliasMoved: The alias names another version than `expected`, or it was moved by another process right now.
            UnknownVersion: There is no such version.
            BlocksEventLoop: The code is on the event loop.
        """
        return self._store("move_alias").move_alias(name, alias, version, expected=expected, by=by or author())

    def rollback(self, name: str, alias: str, *, expected: int | None = None, by: str = "") -> AliasEntry:
        """Let an alias name the version that it named before.

        Args:
            name: Name of the artifact.
            alias: The alias.
            expected: The version that the alias must name now.
            by: The person or process that moves it; default: the route, the job and the host.

        Returns:
            The new entry of the alias.

        Raises:
            AliasMoved: The alias names another version than `expected`, or it was moved by another process right now.
            UnknownVersion: There is no such alias, or it has named no other version.
            BlocksEventLoop: The code is on the event loop.
        """
        return self._store("rollback").rollback(name, alias, expected=expected, by=by or author())

    def served(self, reference: str) -> int | None:
        """Look up the version that this process serves. It does not block.

        Args:
            reference: As a resource of the service names it: "churn@production" or "churn@7".

        Returns:
            The number of the version; None if no resource of the service takes this artifact.

        Raises:
            BadReference: The text has another form.
        """
        parse_reference(reference)
        return None if self._served is None else self._served(reference)

    def with_served(self, served: Served) -> Models:
        """Return the same store for a process that serves these versions.

        Args:
            served: Returns the version of a reference.
        """
        store, keys, signing_key = self._place
        return Models(store, keys=keys, signing_key=signing_key, served=served)

    def _store(self, method: str) -> ModelStore:
        if is_on_event_loop():
            raise BlocksEventLoop(
                f"models.{method}(...) blocks, and this code is on the event loop; write "
                f"await asyncio.to_thread(models.{method}, ...), or make the handler a plain def"
            )
        return opened(*self._place)


class Publishing:
    """The block of a publication, `with` or `async with`. Its value is the `Publication`."""

    def __init__(
        self,
        place: tuple[str, tuple[str, ...], str],
        name: str,
        alias: str,
        meta: Mapping[str, Any] | None,
        by: str,
    ) -> None:
        self._place = place
        self._name = name
        self._options: dict[str, Any] = {"alias": alias, "meta": meta, "by": by}
        self._new: Publication | None = None

    def __enter__(self) -> Publication:
        if is_on_event_loop():
            raise BlocksEventLoop(
                "`with models.publish(...)` blocks, and this code is on the event loop; write `async with`"
            )
        return self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._new is not None:
            self._new.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Publication:
        from ..core.threads import in_thread  # not in a worker

        try:
            return await in_thread(self._begin)  # type: ignore[no-any-return]
        except BaseException as error:  # the handler may be cancelled after the thread has begun
            if self._new is not None:
                await in_thread(partial(self.__exit__, type(error), error, None), always=True)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from ..core.threads import in_thread

        await in_thread(partial(self.__exit__, kind, error, traceback), always=True)

    def _begin(self) -> Publication:
        new = opened(*self._place).publish(self._name, **self._options)
        new.__enter__()
        self._new = new
        return new


def is_on_event_loop() -> bool:
    """Whether an event loop runs in this thread. A worker has none, and does not import asyncio for this."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def opened(url: str, keys: tuple[str, ...], signing_key: str) -> ModelStore:
    """The store, open in this process. Its connections are shared by all code that uses it."""
    return _opened(os.getpid(), url, keys, signing_key)


@lru_cache(maxsize=8)
def _opened(process: int, url: str, keys: tuple[str, ...], signing_key: str) -> ModelStore:
    from .opening import open_store  # with the first use

    return open_store(url, keys=keys, signing_key=signing_key)


def author() -> str:
    """The code that calls, as the author of a publication: the route, the durable job and the host."""
    job_id, attempt = current_attempt.get()
    detail = f"job {job_id} attempt {attempt}" if job_id else request_id.get()
    return " ".join(filter(None, (route_name.get(), detail and f"({detail})", "on", socket.gethostname())))
