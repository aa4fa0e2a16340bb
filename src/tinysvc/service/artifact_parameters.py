"""Artifacts that a cpu_resource takes: `model: Annotated[Path, Artifact("churn@production")]`, found and checked.

A marker is recognised by the module of its class, which only an author's import loads: the server of a service without
artifacts imports nothing of models/.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..binding.annotations import Unresolved, extras, options, signature_of
from ..core.errors import ConfigurationError
from .routes import Given, Resource

if TYPE_CHECKING:
    from ..models.artifact import Artifact

MARKER_MODULE = "tinysvc.models.artifact"

EXAMPLE = 'Annotated[Path, Artifact("churn@production")]'


def markers_in(annotation: Any) -> list[Any]:
    """The `Artifact` markers in `Annotated[Path, ...]`; also the class itself, if the author forgot the call."""
    return [each for each in extras(annotation) if getattr(each, "__module__", "") == MARKER_MODULE]


class TakenArtifact(NamedTuple):
    """An artifact, as a parameter takes it."""

    artifact: Artifact
    may_be_absent: bool
    """The parameter is a `Path | None`: it is None while the artifact or its alias does not exist."""
    candidate: Artifact | None = None
    """Tried beside it."""


def artifacts_of(function: Callable[..., Any]) -> dict[str, TakenArtifact]:
    """The artifacts that the function of a cpu_resource takes, by the names of its parameters."""
    if isinstance(function, Given) or not inspect.signature(function).parameters:
        return {}
    found = {}
    for name, parameter in signature_of(function).items():
        if markers := markers_in(parameter.annotation):
            candidate = markers[1] if len(markers) > 1 else None
            found[name] = TakenArtifact(markers[0], type(None) in options(parameter.annotation), candidate)
    return found


def candidate_of(function: Callable[..., Any], taken: Iterable[TakenArtifact]) -> Artifact | None:
    """The candidate of a route that takes these artifacts. ConfigurationError if there are two."""
    found = list(dict.fromkeys(each.candidate for each in taken if each.candidate is not None))
    if len(found) > 1:
        raise ConfigurationError.at(
            function,
            f"its resources have the candidates {', '.join(map(str, found))}; a route tries one at a time: leave one, "
            "with the same options in all resources",
        )
    return found[0] if found else None


def check_artifact(resource: Resource, parameter: inspect.Parameter) -> bool:
    """Whether the parameter of the resource is an artifact. ConfigurationError if it is a wrong one."""
    name, annotation = parameter.name, parameter.annotation
    if isinstance(annotation, Unresolved) and "Artifact(" in annotation.text:
        raise ConfigurationError.at(resource.function, f"its parameter {name} is no artifact: {annotation.reason}")
    if getattr(annotation, "__module__", "") == MARKER_MODULE:
        raise ConfigurationError.at(
            resource.function, f"its parameter {name} has an Artifact as its type; write it as in {EXAMPLE}"
        )
    markers = markers_in(annotation)
    if not markers:
        return False
    if resource.kind == "io":
        raise ConfigurationError.at(
            resource.function,
            f"its parameter {name} is an Artifact, which only a cpu_resource takes: the workers get a new version by a "
            f"swap, and the event loop cannot; make it a @cpu_resource",
        )
    if any(isinstance(marker, type) for marker in markers):
        raise ConfigurationError.at(
            resource.function, f"its parameter {name} names the class Artifact; say which artifact, as in {EXAMPLE}"
        )
    _check_markers(resource.function, name, markers)
    if set(options(annotation)) - {type(None)} != {Path}:
        raise ConfigurationError.at(
            resource.function,
            f"its parameter {name} gets the folder of an artifact as a pathlib.Path; annotate it as in {EXAMPLE}, or "
            "with Path | None if the artifact need not exist yet",
        )
    return True


def _check_markers(function: Callable[..., Any], name: str, markers: Sequence[Artifact]) -> None:
    """ConfigurationError unless it is one version that serves, and perhaps one candidate behind it."""
    served = [marker for marker in markers if not marker.is_candidate]
    if len(served) != 1:
        how = "only a candidate, with shadow or share" if not served else f"{len(served)} Artifacts that serve"
        raise ConfigurationError.at(function, f"its parameter {name} has {how}; leave one that serves, as in {EXAMPLE}")
    if len(markers) > 2 or markers[0] is not served[0]:
        raise ConfigurationError.at(
            function, f"its parameter {name} takes the Artifact that serves, and behind it at most one candidate"
        )
    if len(markers) == 2 and markers[1].reference == markers[0].reference:
        raise ConfigurationError.at(
            function,
            f"the candidate of its parameter {name} is the version that serves, {markers[0].reference}; give it an "
            'alias of its own, as in "churn@candidate"',
        )


def refuse_artifacts(function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """ConfigurationError for a handler that takes an artifact itself."""
    for name, parameter in parameters.items():
        if markers_in(parameter.annotation):
            raise ConfigurationError.at(
                function,
                f"its parameter {name} is an Artifact, which only a cpu_resource takes, as it is loaded once and not "
                f"for each request; write @cpu_resource def loaded({name}: {EXAMPLE}), and take `loaded` here",
            )
