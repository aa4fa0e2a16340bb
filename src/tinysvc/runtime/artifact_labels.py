"""The header `X-Artifact`: the versions of the artifacts that the worker of a response has open, as in "churn@8".

The worker adds it: during a swap only the worker knows its version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..pool.program import JobFunction, Reply
from .cpu_messages import BatchReply

if TYPE_CHECKING:
    from ..models.artifact_version import ArtifactVersion

HEADER = "x-artifact"


def label_of(wanted: Mapping[str, Mapping[str, str]], versions: Mapping[str, ArtifactVersion]) -> str:
    """The value of the header for an endpoint.

    Args:
        wanted: References of artifacts by resource and parameter, as an `Endpoint` has them.
        versions: The version of each reference.
    """
    references = {reference for artifacts in wanted.values() for reference in artifacts.values()}
    return joined_labels(versions[reference] for reference in references if reference in versions)


def joined_labels(versions: Iterable[ArtifactVersion]) -> str:
    """The versions in one line, each once, as in "churn@8, vocabulary@3"."""
    return ", ".join(sorted({version.label for version in versions}))


def labelled(run_job: JobFunction, label: str) -> JobFunction:
    """`run_job`, whose responses get the header."""
    line = (HEADER, label)

    def run(meta: Any, body: bytes | memoryview) -> Reply:
        reply = run_job(meta, body)
        heads = [part.head for part in reply.meta.parts] if type(reply.meta) is BatchReply else [reply.meta]
        for head in heads:
            if head is not None:
                head.headers = [*head.headers, line]  # the author may return one Response again and again
        return reply

    return run
