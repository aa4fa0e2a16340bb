"""Verified copies of versions on this machine, which all server processes share.

    churn/7-DIGEST/manifest.json      the manifest
    churn/7-DIGEST/files/...          the files: read-only
    .last/churn@production.json       the version that was served last under an alias, for a store that is away
    .fetching/                        copies that are not complete, and locks

A copy gets its name by one rename, after every file was checked and is on the disk: a reader sees all of it or nothing.
The name has the digest of the manifest, so a store that was made anew and numbers from 1 again gets other copies.

A process that uses a copy holds a shared lock (flock) on its manifest. The sweep removes a copy only if it gets the
exclusive lock, and renames it first.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from .artifact_version import ArtifactVersion
from .durable_files import write_durably
from .errors import BadReference, PickleRefused, UnknownVersion, VersionRefused
from .fetching import fetch_files
from .manifest import Manifest, decode_manifest
from .pickles import find_pickles
from .references import Reference, parse_reference
from .signatures import TrustedKeys
from .store import ModelStore

FETCHING = ".fetching"
LAST = ".last"
MANIFEST = "manifest.json"
FILES = "files"
_COPY = re.compile(r"[1-9][0-9]*-[0-9a-f]+", re.ASCII)


class LocalCopies:
    """The copies in one folder. All methods block; several threads and processes may call them at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def fetch(self, store: ModelStore, name: str, version: int, *, allow_pickle: bool = False) -> ArtifactVersion:
        """Copy a version to this machine and check it. A copy that is here already is used again.

        Args:
            store: The store.
            name: Name of the artifact.
            version: Number of the version.
            allow_pickle: Accept files that run code when they are loaded.

        Raises:
            UnknownVersion: The store has no such version.
            VersionRefused: The version is damaged or not signed, or has pickles.
            StoreUnavailable: The store does not answer.
            OSError: The copy cannot be written.
        """
        manifest = store.manifest(name, version)
        copy = self._folder_of(manifest)
        for _ in range(10):
            if not _is_whole(copy, manifest):
                with self._fetching(manifest):
                    if not _is_whole(copy, manifest):  # else another process has fetched it meanwhile
                        self._set_aside(copy)
                        self._fetch(store, manifest, copy)
            with suppress(_Removed), self._kept(copy):  # a sweep may remove it right now
                with suppress(OSError):  # the copies may be part of a read-only image
                    os.utime(copy / MANIFEST)  # the sweep removes the copies that were not used for longest
                return self._opened(copy, manifest, allow_pickle)
        raise VersionRefused(f"the copy of {manifest.label} is damaged: {MANIFEST} is missing; remove {copy}")

    def last(
        self, reference: Reference | str, *, trusted: TrustedKeys | None = None, allow_pickle: bool = False
    ) -> ArtifactVersion | None:
        """The version that was served last under an alias, for a store that is away. A version itself works, too.

        Args:
            reference: As in "churn@production".
            trusted: One of these keys must have signed the version.
            allow_pickle: Accept files that run code when they are loaded.

        Returns:
            None if there is no copy.

        Raises:
            VersionRefused: The copy is damaged or not signed, or has pickles.
        """
        found = parse_reference(reference) if isinstance(reference, str) else reference
        copy = self._last_copy(found)
        if copy is None:
            return None
        number = int(copy.name.partition("-")[0])
        try:
            content = (copy / MANIFEST).read_bytes()
        except OSError as error:
            raise VersionRefused(f"the copy of {found} is damaged: {error}; remove {copy}") from error
        manifest = decode_manifest(found.name, number, content)
        (trusted or TrustedKeys()).check(manifest)
        return self._opened(copy, manifest, allow_pickle)

    def remember(self, reference: Reference | str, version: ArtifactVersion) -> None:
        """Note that a version is served under an alias."""
        folder = self.folder / LAST
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"copy": Path(version.path).parent.name}).encode()
        if self._read_last(folder / f"{reference}.json") != content:
            write_durably(folder / f"{reference}.json", content)

    def has(self, version: ArtifactVersion) -> bool:
        """Whether a copy is still there."""
        return os.path.isdir(version.path) and Path(version.path).with_name(MANIFEST).exists()

    @contextmanager
    def pin(self, version: ArtifactVersion) -> Iterator[None]:
        """Keep a copy from the sweep, as long as the block runs.

        Raises:
            UnknownVersion: The copy is no longer there: fetch it again.
        """
        copy = Path(version.path).parent
        try:
            with self._kept(copy):
                yield
        except _Removed:
            raise UnknownVersion(f"the copy of {version.label} was removed: {copy}") from None

    @contextmanager
    def _kept(self, copy: Path) -> Iterator[None]:
        """Keep a copy from the sweep, by a shared lock.

        Raises:
            _Removed: It is no longer there.
        """
        try:
            descriptor = os.open(copy / MANIFEST, os.O_RDONLY)
        except FileNotFoundError:
            raise _Removed from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if not _is_still(copy / MANIFEST, descriptor):  # the sweep had the lock, and has renamed the folder
                raise _Removed
            yield
        finally:
            os.close(descriptor)

    def sweep(self, *, keep: int = 3, older_than: float = 86400.0) -> list[str]:
        """Remove copies that no process uses, and what killed processes have left.

        Args:
            keep: So many copies of each artifact stay, those that were used last.
            older_than: Seconds; younger ones stay, too.

        Returns:
            The labels of the copies, as in "churn@7".
        """
        swept = []
        for artifact in self.folder.glob("[!.]*/"):
            copies = sorted(artifact.glob("[1-9]*-*"), key=_last_used, reverse=True)
            remembered = {self._last_copy(reference) for reference in self._remembered(artifact.name)}
            for copy in copies[keep:]:
                unused = time.time() - _last_used(copy)
                if copy not in remembered and unused >= older_than and self._remove(copy):
                    swept.append(f"{artifact.name}@{copy.name.partition('-')[0]}")
        for path in (self.folder / FETCHING).glob("*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= max(older_than, 86400.0):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return swept

    def _folder_of(self, manifest: Manifest) -> Path:
        return self.folder / manifest.name / f"{manifest.version}-{manifest.digest[:20]}"

    def _fetch(self, store: ModelStore, manifest: Manifest, copy: Path) -> None:
        new = self.folder / FETCHING / token_hex(8)
        try:
            (new / FILES).mkdir(parents=True)
            if manifest.size > (free := shutil.disk_usage(new).free):  # a full disk would harm others
                sizes = f"{manifest.label} has {manifest.size} bytes, and {free} are free"
                raise OSError(errno.ENOSPC, sizes, str(self.folder))
            fetch_files(store, manifest, new / FILES)
            write_durably(new / MANIFEST, manifest.encode())
            copy.parent.mkdir(exist_ok=True)
            os.rename(new, copy)
        except OSError:
            if not copy.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)

    @contextmanager
    def _fetching(self, manifest: Manifest) -> Iterator[None]:
        """Of several server processes, one fetches, the others wait. Without locks, all fetch, and one renames."""
        folder = self.folder / FETCHING
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{manifest.name}-{manifest.digest[:20]}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _opened(self, copy: Path, manifest: Manifest, allow_pickle: bool) -> ArtifactVersion:
        """Check the files of a copy by their sizes: their content was checked before the copy got its name."""
        for file in manifest.files:
            path = copy / FILES / file.path
            size = path.stat().st_size if path.is_file() else -1
            if size != file.size:
                fault = "is missing" if size < 0 else f"has {size} bytes instead of {file.size}"
                raise VersionRefused(f"the copy of {manifest.label} is damaged: {path} {fault}; remove {copy}")
        if not allow_pickle and (found := find_pickles(copy / FILES, [file.path for file in manifest.files])):
            raise PickleRefused(manifest.label, found)
        return ArtifactVersion(manifest.name, manifest.version, str(copy / FILES), manifest.digest, manifest.meta)

    def _last_copy(self, reference: Reference) -> Path | None:
        """The folder of the copy that was served last under a reference."""
        if reference.version:
            copies = (self.folder / reference.name).glob(f"{reference.version}-*")
            return max(copies, key=_last_used, default=None)
        content = self._read_last(self.folder / LAST / f"{reference}.json")
        try:
            name = json.loads(content)["copy"]
        except (ValueError, KeyError, TypeError):
            return None
        copy = self.folder / reference.name / str(name)
        return copy if _COPY.fullmatch(str(name)) and copy.is_dir() else None

    def _read_last(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError:
            return b""

    def _remembered(self, name: str) -> list[Reference]:
        found = []
        for path in (self.folder / LAST).glob(f"{name}@*.json"):
            with suppress(BadReference):  # not ours
                found.append(parse_reference(path.name.removesuffix(".json")))
        return found

    def _remove(self, copy: Path) -> bool:
        try:
            descriptor = os.open(copy / MANIFEST, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._set_aside(copy)
        except OSError:  # in use
            return False
        finally:
            os.close(descriptor)
        return True

    def _set_aside(self, copy: Path) -> None:
        """Remove a copy, if it is there. Its name is free at once."""
        old = self.folder / FETCHING / token_hex(8)
        with suppress(FileNotFoundError):
            os.rename(copy, old)
        shutil.rmtree(old, ignore_errors=True)


def _is_whole(copy: Path, manifest: Manifest) -> bool:
    """Whether a copy is there, and somebody has removed no part of it."""
    files = copy / FILES
    return (copy / MANIFEST).exists() and all((files / file.path).exists() for file in manifest.files)


class _Removed(Exception):
    """A copy was swept."""


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _last_used(copy: Path) -> float:
    try:
        return (copy / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0
