"""reading.py: the figures of a snapshot, and quantiles of histograms."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dashboard_readings import FakeService, worker
from grpc import StatusCode
from tinysvc.dashboard.reading import Times
from tinysvc.grpc.rpc_metrics import RpcMetrics
from tinysvc.runtime.candidate_metrics import CandidateMetrics
from tinysvc.telemetry.snapshots import merge


def test_reading_has_routes_pools_and_services() -> None:
    service = FakeService()
    service.request("/page", times=3)
    service.request("/page", status=500)
    service.request("")
    service.outcomes.of("default", "ok").add(2)
    service.ends.of("default", "crashed").add()
    service.calls.of("prices", "GET", "404", "404").observe(0.1)
    service.calls.of("prices", "GET", "", "CallFailed").observe(0.1)
    service.avoided["prices", "http://a"] = 1.0
    service.waiting, service.workers = 4, [worker()]
    reading = service.reading()
    assert {name: (each.times.count, each.errors) for name, each in reading.routes.items()} == {
        "GET /page": (4, 1),
        "no route": (1, 0),
    }
    pool = reading.pools["default"]
    assert (pool.waiting, pool.states["idle"], pool.outcomes, pool.ends) == (4, 2, {"ok": 2}, {"crashed": 1})
    prices = reading.services["prices"]
    assert (prices.times.count, prices.errors, prices.replicas) == (2, 1, {"http://a": True})
    assert reading.processes[0].workers[0].number == 1


def test_calls_over_grpc_belong_to_the_called_service() -> None:
    service = FakeService()
    labels = ["service", "rpc.system.name", "rpc.method", "rpc.status_code", "error.type"]
    calls = service.registry.histogram("rpc.client.call.duration", "", labels)
    for code, error in [("OK", ""), ("NOT_FOUND", "NOT_FOUND"), ("UNAVAILABLE", "UNAVAILABLE"), ("", "HTTPError")]:
        calls.of("prices", "grpc", "prices.Prices/Price", code, error).observe(0.1)
    prices = service.reading().services["prices"]
    assert (prices.times.count, prices.errors) == (4, 2)


def test_reading_counts_only_errors_of_the_server_in_calls_by_grpc() -> None:
    service = FakeService()
    metrics, method = RpcMetrics(service.registry, []), SimpleNamespace(name="/shop.Shop/Buy")
    for status in (StatusCode.OK, StatusCode.NOT_FOUND, StatusCode.INTERNAL):
        metrics.count(SimpleNamespace(method=method, status=status, begun=0.0))  # type: ignore[arg-type]
    found = service.reading().routes["RPC shop.Shop/Buy"]
    assert (found.times.count, found.errors) == (3, 1)


def test_reading_has_both_variants_of_a_candidate() -> None:
    service = FakeService()
    metrics = CandidateMetrics(service.registry).of("/score", "churn@candidate")
    metrics.served.end("ok", 0.1)
    metrics.candidate.end("ok", 0.2)
    metrics.candidate.end("worker_died", 0.3)
    metrics.differences.observe(0.5)
    metrics.skipped.add(4)
    (found,) = service.reading().candidates.values()
    assert (found.route, found.artifact, found.skipped, found.differences.sum) == ("/score", "churn@candidate", 4, 0.5)
    counts = {name: (each.times.count, each.errors) for name, each in found.variants.items()}
    assert counts == {"served": (1, 0), "candidate": (2, 1)}


def test_reading_of_two_processes_has_the_details_of_both() -> None:
    one, other = FakeService(), FakeService()
    one.workers, other.workers = [worker(1)], [worker(2)]
    merged = merge([one.registry.snapshot(), other.registry.snapshot()])
    one.registry.snapshot = lambda: merged  # type: ignore[method-assign]
    assert [process.workers[0].number for process in one.reading().processes] == [1, 2]


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([0, 10, 0], 0.5, 1.5),
        ([5, 5, 0], 1.0, 2.0),
        ([0, 0, 3], 0.5, 2.0),
    ],
)
def test_quantile_is_linear_in_its_bucket(counts: list[int], share: float, expected: float | None) -> None:
    assert Times([1.0, 2.0], counts).quantile(share) == expected


def test_difference_never_falls_below_zero() -> None:
    after, before = Times([1.0], [1, 0], 1.0), Times([1.0], [3, 0], 3.0)
    assert after.since(before) == Times([1.0], [0, 0], 0.0)
    assert after.since(None) is after
