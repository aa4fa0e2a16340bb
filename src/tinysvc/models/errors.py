"""The errors of the model store.

ModelsError                    500
├── BadReference               a text is no name, alias, version or reference
├── UnknownVersion             404  the store has no such artifact, version or alias
├── AliasMoved                 409  another publisher has moved the alias first
├── PublicationRefused         the files of a publication cannot be a version
├── VersionRefused             a version is not used: it is damaged, not signed, or has pickles
│   └── PickleRefused          it has pickles, and the reader has not allowed them
├── StoreUnavailable           503  the store does not answer
│   └── StoreMissing                it is a folder that does not exist
├── StoreReadOnly              this process may not write to the store
├── BlocksEventLoop            a blocking method was called on the event loop
└── StoreRefused               raised at start-up: the store ignores create-if-absent (a ConfigurationError, too)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import ConfigurationError, TinysvcError

if TYPE_CHECKING:
    from .alias_entries import AliasEntry


class ModelsError(TinysvcError):
    """Base of the errors of the model store."""


class BadReference(ModelsError, ValueError):
    """A text is not a valid name, alias, version or reference."""


class UnknownVersion(ModelsError, LookupError):
    """404: the store has no such artifact, version or alias."""

    status = 404
    kind = "unknown-version"


class AliasMoved(ModelsError):
    """409: another publisher has moved the alias first.

    Attributes:
        entry: What the alias names now; None if it does not exist.

    Example:
        ```python
        from tinysvc import Models
        from tinysvc.models.errors import AliasMoved

        def promote(version: int, models: Models) -> str:
            try:
                return models.move_alias("churn", "production", version, expected=version - 1).by
            except AliasMoved as error:
                return f"production has moved to {error.entry.version if error.entry else 'nothing'}"
        ```
    """

    status = 409
    kind = "alias-moved"

    def __init__(self, label: str, entry: AliasEntry | None, expected: int | None = None) -> None:
        self.label = label
        self.entry = entry
        self.expected = expected
        if entry is None:
            sentence = f"{label} does not exist; it was expected to name version {expected}."
        else:
            wanted = "" if expected is None else f", not version {expected}"
            author = f" by {entry.by}" if entry.by else ""
            sentence = f"{label} names version {entry.version}{wanted}: it was moved{author} at {entry.time}."
        super().__init__(sentence)


class PublicationRefused(ModelsError):
    """The files or the meta data of a publication cannot become a version. Nothing was published."""


class VersionRefused(ModelsError):
    """A version of the store is not used: it is damaged or incomplete, or its signature is missing or wrong."""


class PickleRefused(VersionRefused):
    """A version has pickles, which run code when they are loaded, and the reader has not allowed them.

    Attributes:
        paths: The files with pickles.
    """

    def __init__(self, label: str, paths: tuple[str, ...]) -> None:
        self.paths = paths
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        super().__init__(
            f"{label} has pickles ({', '.join(paths[:3])}{more}), which run code when they are loaded. Publish "
            "safetensors, npz or ONNX files, or say allow_pickle=True if you trust everyone who can publish."
        )


class StoreUnavailable(ModelsError):
    """503: the store does not answer, or it does not exist."""

    status = 503
    kind = "store-unavailable"


class StoreMissing(StoreUnavailable):
    """503: the folder of the store does not exist. The first publication creates it."""


class StoreReadOnly(ModelsError):
    """This process may read the store, but not write to it."""


class BlocksEventLoop(ModelsError, RuntimeError):
    """A blocking method of the store was called on the event loop. The message has the remedy."""


class StoreRefused(ModelsError, ConfigurationError):
    """The store cannot be used: two creations of one key succeed."""
