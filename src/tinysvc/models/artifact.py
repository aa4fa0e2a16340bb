"""The marker of a parameter that is filled with the folder of a published artifact."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import ConfigurationError
from .errors import BadReference
from .references import parse_reference

_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)


@dataclass(frozen=True)
class Artifact:
    """Marker: the parameter of a `cpu_resource` gets the folder of a published artifact, verified, as a `Path`.

    With an alias, as in "churn@production", the server looks at the alias at intervals. When it names another version,
    the server fetches and verifies that version, and replaces its workers by workers that have it open. No request
    fails meanwhile. If the new version cannot be fetched, is not valid, cannot be opened or fails the `check` of its
    resource, the old version stays. With a number, as in "churn@7", the version never changes.

    The server does not start without the artifact. A parameter `Path | None` is None instead, as long as the artifact
    or its alias does not exist.

    *Candidates.* A second Artifact of the same parameter, with `shadow` or `share`, is tried beside the first one. The
    workers have both open: the resources that depend on the parameter are opened twice. A candidate that does not
    exist, or cannot be opened, changes nothing.

    Args:
        reference: Name of the artifact, and an alias or the number of a version, as in "churn@production" or "churn@7".
        swap: "live": the old version serves until the new one is ready, and for that time both are in memory. "drain":
            the workers of the pool end first, and their jobs wait in its queue until the new version is ready.
        allow_pickle: Whether the artifact may hold pickles, which run code when they are loaded.
        shadow: Candidate: the fraction of requests that are computed with it, too, after their response: see "Models"
            in the docs. Only where a worker is idle and another one stays so; clients notice nothing. The handler runs
            once more, so it must not change anything outside of its worker.
        compare: Gets the content of the response and that of the candidate's response, in a worker: what a JSON
            content means, a text, or bytes. The number that it returns is shown as the difference.
        share: Candidate: the fraction of requests that get its response.
        sticky: Name of a request header: requests with one value of it always get the same variant.

    Raises:
        ConfigurationError: An argument has another form.

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
    shadow: float | None = None
    compare: Callable[[Any, Any], float] | None = None
    share: float | None = None
    sticky: str = ""

    def __post_init__(self) -> None:
        try:
            parse_reference(self.reference)
        except (BadReference, AttributeError) as error:
            raise ConfigurationError(f"Artifact({self.reference!r}): {error}") from None
        if self.swap not in ("live", "drain"):
            raise ConfigurationError(f'swap of an Artifact is "live" or "drain", not {self.swap!r}')
        if type(self.allow_pickle) is not bool:
            raise ConfigurationError(f"allow_pickle of an Artifact is True or False, not {self.allow_pickle!r}")
        if self.is_candidate:
            self._check_candidate()
        elif self.compare is not None or self.sticky:
            raise ConfigurationError(f"{self}: compare needs shadow=, and sticky needs share=")

    @property
    def is_candidate(self) -> bool:
        """Whether it is tried beside another version."""
        return self.shadow is not None or self.share is not None

    def _check_candidate(self) -> None:
        if self.shadow is not None and self.share is not None:
            raise ConfigurationError(f"{self} has shadow and share; leave one of them")
        for name, fraction in (("shadow", self.shadow), ("share", self.share)):
            if fraction is not None and (type(fraction) not in (int, float) or not 0 <= fraction <= 1):
                raise ConfigurationError(f"{name} of an Artifact is a number from 0 to 1, not {fraction!r}")
        if self.swap != "live":
            raise ConfigurationError(f"{self}: swap is an option of the version that serves, not of a candidate")
        if self.compare is not None and (self.shadow is None or not callable(self.compare)):
            raise ConfigurationError(f"{self}: compare is a function of two contents, and needs shadow=")
        if self.sticky and (self.share is None or not _HEADER.fullmatch(str(self.sticky))):
            raise ConfigurationError(f"{self}: sticky is the name of a request header, and needs share=")

    def __str__(self) -> str:
        return f"Artifact({self.reference!r})"
