"""The publication of a version: hash the files, upload the blobs, create the manifest, check the blobs, move the alias.

*Nothing half.* The manifest is created last; before it, a reader sees nothing. A publisher that dies leaves blobs that
no manifest names, and the sweep removes them.

*Two publishers.* Both list the versions and take the next number; the creation of the manifest fails for one of them,
which takes the number after it. Its blobs are in the store already.

*A sweep at the same time.* A blob that exists already is not uploaded again, and a sweep may be about to set it aside,
because no manifest names it yet. So the publisher looks for its blobs again after the creation of the manifest, and
uploads what is missing. A sweep that sets a blob aside later reads the manifests after that, and puts the blob back.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

from .alias_entries import AliasEntry, current_time
from .aliases import Aliases
from .errors import PublicationRefused
from .layout import blob_key, manifest_key
from .manifest import Manifest, ManifestFile, check_depth, check_files
from .storage import MAX_DOCUMENT, Storage
from .versions import Versions


class Publication:
    """A new version on its way into the store: `with store.publish("churn") as new`.

    Leaving the block without an exception publishes the files in `path`; with an exception, nothing is published.

    Attributes:
        path: An empty folder for the files of the version.
        meta: A JSON object with what is worth to know about the version; the block may add to it.
        manifest: The manifest of the version, after the block.
        alias_entry: What the alias names after the block. If a later version was published at the same time, and has
            the alias already, it keeps it.
    """

    def __init__(
        self,
        storage: Storage,
        versions: Versions,
        aliases: Aliases,
        sign: Callable[[Manifest], Manifest],
        name: str,
        alias: str,
        meta: Mapping[str, Any],
        by: str,
    ) -> None:
        self._storage = storage
        self._versions = versions
        self._aliases = aliases
        self._sign = sign
        self._alias = alias
        self._by = by
        self._open = ExitStack()
        self.name = name
        self.path = Path()
        self.meta = checked_meta(meta)
        self.manifest: Manifest | None = None
        self.alias_entry: AliasEntry | None = None

    @property
    def version(self) -> int:
        """The number of the version.

        Raises:
            RuntimeError: The block has not ended, or it has failed.
        """
        if self.manifest is None:
            raise RuntimeError(f"{self.name} has its version after the end of the `with` block, when it is published")
        return self.manifest.version

    def __enter__(self) -> Self:
        self.path = self._open.enter_context(self._storage.staging())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._open:
            if kind is None:
                self._publish()

    def _publish(self) -> None:
        meta = checked_meta(self.meta)
        files = self._hashed_files()
        for file in files:
            self._upload(file)
        self.manifest = self._create_manifest(meta, files)
        for file in files:
            self._upload(file)
        if self._alias:
            self.alias_entry = self._aliases.advance(self.name, self._alias, self.version, self._by)

    def _hashed_files(self) -> tuple[ManifestFile, ...]:
        files = tuple(hashed_file(self.path, path) for path in sorted(self.path.rglob("*")) if not _is_folder(path))
        try:
            check_files(files)
        except ValueError as error:
            raise PublicationRefused(
                f"{self.name} is not published: {error} in the folder of the publication"
            ) from error
        return files

    def _upload(self, file: ManifestFile) -> None:
        key, storage = blob_key(self.name, file.sha256), self._storage
        found = storage.find(key)
        if found is not None and found.size != file.size:  # damaged
            storage.delete(key)
            found = None
        if found is None:
            storage.upload(key, self.path / file.path)

    def _create_manifest(self, meta: dict[str, Any], files: tuple[ManifestFile, ...]) -> Manifest:
        """Create the manifest under the next number that is free."""
        at = current_time()
        version = max(self._versions.numbers(self.name), default=0)
        while True:
            version += 1
            manifest = self._sign(Manifest(self.name, version, self._by, at, meta, files, token_hex(8)))
            content = manifest.encode()
            if len(content) > MAX_DOCUMENT:
                raise PublicationRefused(f"the manifest of {self.name} is larger than {MAX_DOCUMENT} bytes")
            if self._storage.create(manifest_key(self.name, version), content):
                return manifest


def checked_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The meta data as JSON gives them back.

    Raises:
        PublicationRefused: They are not a JSON object.
    """
    try:
        copy = json.loads(json.dumps(meta, allow_nan=False))
        json.dumps(copy, ensure_ascii=False).encode()  # fails for half a surrogate pair
        if not isinstance(copy, dict):
            raise ValueError(f"expected a dict, not {type(meta).__name__}")
        check_depth(copy)
        return copy
    except (TypeError, ValueError, RecursionError) as error:
        raise PublicationRefused(
            f"the meta data of a version are JSON: {error}; convert numbers with float()"
        ) from error


def hashed_file(folder: Path, path: Path) -> ManifestFile:
    """The size and the hash of a file.

    Raises:
        PublicationRefused: It is no regular file, or something writes to it.
    """
    name = path.relative_to(folder).as_posix()
    if not stat.S_ISREG(path.lstat().st_mode):
        raise PublicationRefused(
            f"{name} is no regular file: copy the content of links, and leave out sockets and pipes"
        )
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise PublicationRefused(f"{name} was changed while it was published: close it before the `with` block ends")
    return ManifestFile(name, after.st_size, sha256)


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)
