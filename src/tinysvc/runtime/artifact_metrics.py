"""The metrics of artifacts: which versions are served, how old the knowledge of the aliases is, how swaps end."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from ..telemetry.instruments import metric_of
from ..telemetry.snapshots import Metric
from .model_swaps import ModelSwaps


def artifact_metrics(swaps: ModelSwaps) -> Iterable[Metric]:
    """A source of metrics: see `Registry.add_source`. The values of several server processes add up, but for ages."""
    artifacts, now = swaps.artifacts, monotonic()
    served = [([reference, str(version.version)], 1) for reference, version in artifacts.versions.items()]
    ages = [([reference], now - artifacts.seen.get(reference, swaps.since)) for reference in swaps.looks.aliases]
    troubled = [([reference], int(bool(swaps.looks.problem_of(reference)))) for reference in artifacts.wanted]
    ends = [([outcome], count) for outcome, count in swaps.outcomes.items()]
    return (
        _gauge("served", "Server processes by the version that they serve.", served, "artifact", "version"),
        metric_of(
            "gauge",
            "tinysvc.artifact.alias.age",
            "Time since the alias was read.",
            ages,
            ["artifact"],
            unit="s",
            mode="max",
        ),
        _gauge("troubled", "Server processes that cannot serve what the reference names.", troubled, "artifact"),
        metric_of(
            "counter",
            "tinysvc.artifact.swaps",
            "Attempts to serve another version, by their outcome.",
            ends,
            ["outcome"],
        ),
    )


def _gauge(name: str, text: str, values: Iterable[tuple[list[str], int]], *labels: str) -> Metric:
    return metric_of("gauge", f"tinysvc.artifact.{name}", text, values, labels)
