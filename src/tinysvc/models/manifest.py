"""The manifest of a version: `churn/7.json` names the files with their sizes and hashes, the meta data, the signature.

It is created last, so a version is visible as a whole or not at all. Its content comes from the store, which others may
write to: everything is checked before it is used, above all that no path leaves the folder of the version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .alias_entries import text_of_time
from .errors import VersionRefused

FORMAT = 1
MAX_FILES = 100_000
MAX_PATH = 1000
"""Characters of a path: object stores take keys of 1,024 bytes, file systems paths of 4,096."""
MAX_PART = 255
"""Bytes of the name of a file or folder: file systems take no more."""
MAX_DEPTH = 100
"""Containers inside of containers in the meta data. A version with its meta data is pickled on its way to a worker."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of a version: its path inside the version, its bytes, and their SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Signature:
    """An ed25519 signature in base64, and the first characters of the SHA-256 of its public key."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version consists of.

    Attributes:
        name: Name of the artifact.
        version: Number of the version.
        by: The person or process that published it; may be empty.
        at: When it was published, in seconds since 1970.
        meta: What the publisher says about the version: a JSON object.
        files: The files, sorted by their paths.
        nonce: A random text that makes the content unique.
        signature: Of everything else; None if the version is not signed.
    """

    name: str
    version: int
    by: str
    at: float
    meta: Mapping[str, Any]
    files: tuple[ManifestFile, ...]
    nonce: str
    signature: Signature | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """As in `churn@7`."""
        return f"{self.name}@{self.version}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def time(self) -> str:
        """When the version was published, as text in UTC."""
        return text_of_time(self.at)

    @property
    def digest(self) -> str:
        """The SHA-256 of the content that a signature covers, in hexadecimal: it identifies the version."""
        return hashlib.sha256(self.signed_content()).hexdigest()

    def signed_content(self) -> bytes:
        """Everything but the signature, in a form that does not depend on white space and order."""
        return json.dumps(self._members(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def encode(self) -> bytes:
        """The content of `churn/7.json`."""
        members = self._members()
        if self.signature is not None:
            members["signature"] = {"key": self.signature.key, "value": self.signature.value}
        return json.dumps(members, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def _members(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "by": self.by,
            "at": self.time,
            "nonce": self.nonce,
            "meta": dict(self.meta),
            "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in self.files],
        }


def decode_manifest(name: str, version: int, content: bytes) -> Manifest:
    """Read the manifest of a version.

    Raises:
        VersionRefused: The content is no manifest, or it is one of another artifact or version.
    """
    try:
        members = json.loads(content, object_pairs_hook=_unique, parse_constant=_no_number)
        if members["format"] != FORMAT:
            raise ValueError(f"its format is {members['format']!r}, this release of tinysvc reads format {FORMAT}")
        manifest = Manifest(
            name=_typed(members["name"], str),
            version=_typed(members["version"], int),
            by=_typed(members["by"], str),
            at=datetime.fromisoformat(members["at"]).timestamp(),
            meta=_typed(members["meta"], dict),
            files=tuple(_file(each) for each in _typed(members["files"], list)),
            nonce=_typed(members["nonce"], str),
            signature=_signature(members.get("signature")),
        )
        if manifest.time != members["at"]:
            raise ValueError("'at' is no time in UTC")
        check_files(manifest.files)
        check_depth(manifest.meta)
        manifest.signed_content()  # fails for 1e999, which is read as infinity
        manifest.encode()  # fails for half a surrogate pair
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise VersionRefused(f"the manifest of {name}@{version} is damaged: {_reason(error)}") from error
    if (manifest.name, manifest.version) != (name, version):
        raise VersionRefused(f"the manifest of {name}@{version} is that of {manifest.label}")
    return manifest


def check_files(files: Iterable[ManifestFile]) -> None:
    """Check that the paths can be created below one folder, and nowhere else.

    Raises:
        ValueError: Names the first path that is not possible.
    """
    paths: set[str] = set()
    for file in files:
        _check_path(file.path)
        if file.path in paths:
            raise ValueError(f"the path {file.path!r} is there twice")
        paths.add(file.path)
    if not paths:
        raise ValueError("there are no files")
    if len(paths) > MAX_FILES:
        raise ValueError(f"there are {len(paths)} files; a version has at most {MAX_FILES}")
    for path in paths:
        parent = path
        while parent := parent.rpartition("/")[0]:
            if parent in paths:
                raise ValueError(f"the path {parent!r} is a file and a folder")


def check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Check that JSON is not nested too deeply.

    Raises:
        ValueError: It is.
    """
    if isinstance(value, (dict, list)):
        if most <= 0:
            raise ValueError(f"the meta data are nested deeper than {MAX_DEPTH}")
        for each in value.values() if isinstance(value, dict) else value:
            check_depth(each, most - 1)


def _check_path(path: str) -> None:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"the path {path!r} is not relative and normal")
    if any(len(part.encode(errors="replace")) > MAX_PART for part in parts):
        raise ValueError(f"the path {path[:200]!r} has a name of more than {MAX_PART} bytes")
    if len(path) > MAX_PATH or not path.isprintable() or "\\" in path:
        raise ValueError(
            f"the path {path[:200]!r} has control characters, a backslash, or more than {MAX_PATH} characters"
        )


def _file(members: Any) -> ManifestFile:
    file = ManifestFile(_typed(members["path"], str), _typed(members["size"], int), _typed(members["sha256"], str))
    if file.size < 0 or not _SHA256.fullmatch(file.sha256):
        raise ValueError(f"size or hash of {file.path!r} is not possible")
    return file


def _signature(members: Any) -> Signature | None:
    return None if members is None else Signature(_typed(members["key"], str), _typed(members["value"], str))


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:  # not isinstance: True is no number
        raise ValueError(f"{str(value)[:100]!r} is not of the type {kind.__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that is there twice: two readers could read two different manifests."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
