"""A version with its files on this machine: all that a worker needs to know of the model store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ArtifactVersion:
    """A version with its files on this machine.

    Attributes:
        name: Name of the artifact.
        version: Number of the version.
        path: The folder with its files.
        digest: SHA-256 of the manifest, in hexadecimal: it identifies the content.
        meta: What the publisher says about the version.
    """

    name: str
    version: int
    path: str
    digest: str
    meta: Mapping[str, Any]

    @property
    def label(self) -> str:
        """As in `churn@7`."""
        return f"{self.name}@{self.version}"
