"""The marker of a parameter that is filled with the folder of a published artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.errors import ConfigurationError
from .errors import BadReference
from .references import parse_reference


@dataclass(frozen=True)
class Artifact:
    """Marker: the parameter of a `cpu_resource` gets the folder of a published artifact, verified, as a `Path`.

    With an alias, as in "churn@production", the server looks at the alias at intervals. When it names another version,
    the server fetches and verifies that version, and replaces its workers by workers that have it open. No request
    fails meanwhile. If the new version cannot be fetched, is not valid, cannot be opened or fails the `check` of its
    resource, the old version stays. With a number, as in "churn@7", the version never changes.

    The server does not start without the artifact. A parameter `Path | None` is None instead, as long as the artifact
    or its alias does not exist.

    Args:
        reference: Name of the artifact, and an alias or the number of a version, as in "churn@production" or "churn@7".
        swap: "live": the old version serves until the new one is ready, and for that time both are in memory. "drain":
            the workers of the pool end first, and their jobs wait in its queue until the new version is ready.
        allow_pickle: Whether the artifact may hold pickles, which run code when they are loaded.

    Raises:
        ConfigurationError: The reference or `swap` has another form.

    Example:
        ```python
        from pathlib import Path
        from typing import Annotated

        from tinysvc import Artifact, cpu_resource

        @cpu_resource(shared=True)
        def words(vocabulary: Annotated[Path, Artifact("vocabulary@production")]) -> list[str]:
            return (vocabulary / "words.txt").read_text().splitlines()
        ```
    """

    reference: str
    swap: Literal["live", "drain"] = "live"
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        try:
            parse_reference(self.reference)
        except (BadReference, AttributeError) as error:
            raise ConfigurationError(f"Artifact({self.reference!r}): {error}") from None
        if self.swap not in ("live", "drain"):
            raise ConfigurationError(f'swap of an Artifact is "live" or "drain", not {self.swap!r}')
        if type(self.allow_pickle) is not bool:
            raise ConfigurationError(f"allow_pickle of an Artifact is True or False, not {self.allow_pickle!r}")
