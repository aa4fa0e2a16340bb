"""artifact_metrics.py: versions, ages, troubles and ends of swaps."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

from swap_pools import publish, served_artifacts, store_in
from tinysvc.runtime.artifact_metrics import artifact_metrics
from tinysvc.runtime.model_swaps import OUTCOMES, ModelSwaps
from tinysvc.telemetry.snapshots import Snapshot, merge

CHURN, WORDS = "churn@production", "words@3"


def values(snapshot: Snapshot) -> dict[str, dict[tuple[str, ...], float]]:
    return {
        metric.name.removeprefix("tinysvc.artifact."): {tuple(each.labels): each.value for each in metric.points}
        for metric in snapshot
    }


def test_values_of_processes_add_up_but_the_oldest_age_counts(tmp_path: Path) -> None:
    publish(store_in(tmp_path))
    artifacts = served_artifacts(tmp_path, CHURN, WORDS)
    swaps = ModelSwaps(artifacts, 0)
    swaps.looks.aliases = [CHURN]
    snapshots = [list(artifact_metrics(swaps))]
    assert values(snapshots[0])["swaps"] == {(outcome,): 0 for outcome in OUTCOMES}
    artifacts.versions[CHURN] = artifacts.fetch(CHURN, 1)
    artifacts.seen[CHURN] = monotonic() - 100
    swaps.looks.problems[CHURN] = "trouble"
    swaps.outcomes["failed"] += 1
    snapshots.append(list(artifact_metrics(swaps)))
    found = values(merge([*snapshots, snapshots[1]]))
    assert found["served"] == {(CHURN, "1"): 2}
    assert 100 <= found["alias.age"][CHURN,] < 200
    assert found["troubled"] == {(CHURN,): 2, (WORDS,): 0}
    assert found["swaps"]["failed",] == 2
    artifacts._unpin_all()
