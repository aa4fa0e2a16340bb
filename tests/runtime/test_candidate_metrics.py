"""candidate_metrics.py: the figures of both variants of a route."""

from __future__ import annotations

from tinysvc.runtime.candidate_metrics import CandidateMetrics
from tinysvc.telemetry.instruments import Registry


def test_each_variant_has_its_outcomes_and_times() -> None:
    registry = Registry()
    metrics = CandidateMetrics(registry).of("/churn", "churn@candidate")
    metrics.served.end("ok", 0.01)
    metrics.candidate.end("ok", 0.02)
    metrics.candidate.end("worker_died", 0.03)
    metrics.differences.observe(0.0)
    metrics.skipped.add()
    found = {
        (metric.name, *point.labels): sum(point.counts) if point.counts else point.value
        for metric in registry.snapshot()
        for point in metric.points
    }
    requests = ("tinysvc.candidate.requests", "/churn", "churn@candidate")
    assert {key[3:]: value for key, value in found.items() if key[:3] == requests} == {
        ("served", "ok"): 1,
        ("served", "error"): 0,
        ("candidate", "ok"): 1,
        ("candidate", "error"): 0,
        ("candidate", "worker_died"): 1,
    }
    assert found["tinysvc.candidate.duration", "/churn", "churn@candidate", "candidate"] == 2
    assert found["tinysvc.candidate.difference", "/churn", "churn@candidate"] == 1
    assert found["tinysvc.candidate.skipped", "/churn", "churn@candidate"] == 1


def test_equal_responses_are_in_the_first_bucket() -> None:
    metrics = CandidateMetrics(Registry()).of("/churn", "churn@candidate")
    assert [metrics.differences.observe(value) for value in (0.0, 1e-9, 1e9)] == [0, 1, 17]
