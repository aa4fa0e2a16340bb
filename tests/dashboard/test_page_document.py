"""page_document.py: the tables of the page, and its charts."""

from __future__ import annotations

import json
from typing import Any

from dashboard_readings import ABOUT, FakeService, worker
from tinysvc.dashboard.details import ArtifactDetails
from tinysvc.dashboard.page_document import charts_of, document_of
from tinysvc.runtime.candidate_metrics import CandidateMetrics


def busy_service() -> FakeService:
    service = FakeService()
    for number in range(20):
        service.request(times=10)
        service.request("/score", seconds=0.2)
        service.runs.of("default").observe(0.2)
        service.waiting = number % 3
        service.tick(5)
    return service


def document(service: FakeService) -> Any:
    return service.document()


def test_first_reading_makes_no_document() -> None:
    service = FakeService()
    assert document_of(service.history, ABOUT, 7) is None
    service.tick()
    assert document_of(service.history, ABOUT, 7) is None


def test_routes_have_rate_and_quantiles_of_the_last_minute() -> None:
    found = document(busy_service())
    page = next(row for row in found["routes"] if row["route"] == "GET /page")
    assert page["rate"] == 2.0
    assert page["count"] == 120
    assert (page["p50"], page["usual"]) == (0.0025, 0.0025)
    assert found["total"]["requests"] == 132
    assert found["routes"][0]["route"] == "GET /score"  # it takes most of the time


def test_pools_have_their_queue_and_the_ends_of_their_workers() -> None:
    service = busy_service()
    service.ends.of("default", "crashed").add()
    service.outcomes.of("default", "queue_full").add(2)
    service.tick(5)
    (pool,) = document(service)["pools"]
    assert pool["states"] == {"idle": 2, "busy": 0}
    assert pool["rate"] == 0.1
    assert pool["ends"] == pool["bad_ends"] == {"crashed": 1}
    assert pool["refused"] == 2


def test_details_of_all_processes_are_joined() -> None:
    service = busy_service()
    service.workers = [worker(1), worker(2, "GET /score")]
    service.error("/page", "ValueError", request="first")
    service.tick()
    service.error("/page", "ValueError", request="second")
    service.tick()
    found = document(service)
    assert [each["runs"] for each in found["workers"]] == ["", "GET /score"]
    assert [each["request"] for each in found["errors"]] == ["second", "first"]
    assert found["processes"] == [7]


def test_candidates_are_beside_the_version_that_serves() -> None:
    service = FakeService()
    metrics = CandidateMetrics(service.registry).of("/score", "churn@candidate")
    metrics.differences.observe(100)
    service.tick(60)
    for _ in range(4):
        metrics.served.end("ok", 0.007)
    metrics.candidate.end("error", 0.02)
    metrics.differences.observe(0.25)
    metrics.differences.observe(0.75)
    metrics.skipped.add(2)
    service.tick(60)
    assert document(service)["candidates"] == [
        {
            "route": "/score",
            "artifact": "churn@candidate",
            "served": {"count": 4, "errors": 0, "p50": 0.0075, "p99": 0.00995},
            "candidate": {"count": 1, "errors": 1, "p50": 0.0175, "p99": 0.02485},
            "difference": 0.5,
            "skipped": 2,
        }
    ]
    service.tick(61)
    (row,) = document(service)["candidates"]
    assert (row["served"]["p50"], row["difference"]) == (None, None)


def test_artifacts_have_the_versions_of_all_processes() -> None:
    service = FakeService()
    service.tick()
    service.artifacts = [
        ArtifactDetails("words@3", 3, None),
        ArtifactDetails("churn@production", 7, 0.5),
        ArtifactDetails("churn@production", 8, 2.0, "trouble"),
        ArtifactDetails("new@staging", None, 1.0),
    ]
    service.tick()
    rows: Any = service.document()["artifacts"]
    assert [list(each.values()) for each in rows] == [
        ["churn@production", {"7": 1, "8": 1}, 2.0, "trouble"],
        ["new@staging", {"none": 1}, 1.0, ""],
        ["words@3", {"3": 1}, None, ""],
    ]


def test_charts_have_one_point_for_each_step() -> None:
    service = busy_service()
    charts = charts_of(service.history)
    assert len(charts["times"]) == 19
    assert charts["rate"] == [2.2] * 19
    assert charts["routes"]["GET /page"] == [0.00495] * 19
    assert charts["pools"]["default"] == [number % 3 for number in range(1, 20)]
    json.dumps([charts, document(service)])


def test_charts_of_a_new_server_are_empty() -> None:
    charts = charts_of(FakeService().history)
    assert charts["times"] == charts["rate"] == []
