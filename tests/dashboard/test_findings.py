"""findings.py: each kind of trouble has a sentence that names the culprit, and a cause hides its effects."""

from __future__ import annotations

from typing import Any

from dashboard_readings import FakeService, worker
from tinysvc.core.units import MiB
from tinysvc.dashboard.details import ArtifactDetails


def texts(service: FakeService) -> list[str]:
    findings = service.document()["findings"]
    assert isinstance(findings, list)
    return [each["kind"] for each in findings]


def quiet() -> FakeService:
    """A service that was well for two minutes."""
    service = FakeService()
    for _ in range(24):
        service.request(times=20)
        service.tick(5)
    return service


def test_quiet_service_has_no_finding() -> None:
    assert quiet().headline() == ""


def test_route_that_has_become_slow_is_named() -> None:
    service = quiet()
    for _ in range(15):
        service.request(seconds=0.4, times=20)
        service.tick(5)
    text = "GET /page is slow: half of its requests take 375 ms or more, usually 2.83 ms."
    assert service.headline() == text


def test_route_that_was_always_slow_is_named() -> None:
    service = FakeService()
    service.tick()
    service.request(seconds=2.0, times=5)
    service.tick(5)
    assert service.headline().startswith("GET /page is slow: half of its requests take 1.75 s or more.")


def test_stream_is_never_slow() -> None:
    service = FakeService()
    service.tick()
    service.request("/live", seconds=9.0, times=5)
    service.tick(5)
    assert service.headline() == ""


def test_saturated_pool_is_named_with_its_route_and_hides_slowness() -> None:
    service = quiet()
    service.waiting, service.states = 12, {"idle": 0, "busy": 2}
    service.workers = [worker(1, "GET /score"), worker(2, "GET /score")]
    service.request("/score", seconds=4.0, times=9)
    service.waits.of("default").observe(3.0)
    service.runs.of("default").observe(1.0)
    service.tick(1, 4)
    text = "The pool default is saturated: all 2 workers are busy, and 12 jobs wait. 2 of the workers run GET /score."
    assert service.headline() == text
    assert texts(service) == ["saturated"]


def test_short_queue_is_no_saturation() -> None:
    service = quiet()
    service.waiting, service.states = 12, {"idle": 0, "busy": 2}
    service.tick(1)
    assert service.headline() == ""


def test_crash_loop_is_named_with_its_route() -> None:
    service = quiet()
    for _ in range(4):
        service.ends.of("default", "crashed").add()
        service.error("/score", "WorkerDied", "worker 3 was killed by SIGSEGV")
    service.tick(1, 2)
    text = "Workers of the pool default end again and again: 4 in the last minute (4 crashed)"
    assert service.headline() == f"{text}, while they ran GET /score."
    assert texts(service) == ["crashes"]


def test_replaced_workers_are_no_crash_loop() -> None:
    service = quiet()
    service.ends.of("default", "replaced").add(9)
    service.tick(1, 2)
    assert service.headline() == ""


def test_leaking_worker_is_named() -> None:
    service = quiet()
    service.workers = [worker(3, memory=300 * MiB, growth=200 * MiB, growth_time=300.0, mostly="GET /score")]
    service.tick()
    text = "Worker 3 of the pool default leaks: its memory has grown by 210 MB in 5 min, to 315 MB"
    assert service.headline() == f"{text}, while it mostly ran GET /score."


def test_service_that_is_down_is_named_and_hides_failures() -> None:
    service = quiet()
    service.avoided["prices", "http://10.0.0.7:80"] = 1.0
    for _ in range(5):
        service.error("/page", "CallFailed", "A connection to http://10.0.0.7:80 was refused.")
        service.calls.of("prices", "GET", "", "CallFailed").observe(0.01)
    service.tick(1, 2)
    assert service.headline() == "The service prices is down: http://10.0.0.7:80 does not respond."
    findings = service.document()["findings"]
    assert isinstance(findings, list)
    assert findings[0]["detail"].startswith("Requests of GET /page fail. A connection to ")
    assert texts(service) == ["down"]


def test_lost_replica_is_no_outage() -> None:
    service = quiet()
    service.avoided.update({("prices", "http://a"): 1.0, ("prices", "http://b"): 0.0})
    service.tick(1, 2)
    assert service.headline() == "The service prices has lost 1 of 2 replicas: http://a does not respond."


def test_failing_route_is_named_with_its_error() -> None:
    service = quiet()
    for _ in range(30):
        service.error("/page", "KeyError", "'price'", "id-7")
    service.tick()
    assert service.headline() == "GET /page fails: 30 of 270 requests in the last minute."
    findings = service.document()["findings"]
    assert isinstance(findings, list)
    assert findings[0]["detail"] == "KeyError: 'price' (request id-7)"


def test_few_errors_are_no_headline() -> None:
    service = quiet()
    service.error("/page", "KeyError")
    service.tick()
    assert service.headline() == ""


def test_blocked_event_loop_is_reported() -> None:
    service = quiet()
    for _ in range(20):
        service.lag.of().observe(0.5)
    service.tick()
    assert service.headline().startswith("The event loop is late by ")


def test_route_that_blocks_the_event_loop_is_named_and_hides_slowness() -> None:
    service = quiet()
    service.blocker = "GET /page"
    service.request(seconds=3.0, times=50)
    service.request("/score", seconds=3.0, times=50)
    service.tick()
    assert service.headline() == "GET /page blocks the event loop: no other request is served meanwhile."
    assert texts(service) == ["blocked"]


def test_problems_of_a_process_come_first() -> None:
    service = quiet()
    service.problems = ["the resource database has ended"]
    service.lag.of().observe(0.5)
    service.tick()
    assert service.headline() == "The resource database has ended."


def test_artifact_with_a_problem_is_named_and_not_severe() -> None:
    service = quiet()
    service.artifacts = [ArtifactDetails("churn@production", 7, 0.5, "churn@8 cannot be opened, and churn@7 stays")]
    service.tick(5)
    text = "The artifact churn@production has a problem: churn@8 cannot be opened, and churn@7 stays."
    assert service.headline() == text
    findings: Any = service.document()["findings"]
    assert [(each["is_severe"], each["target"]) for each in findings] == [(False, "artifact churn@production")]


def test_old_trouble_is_forgotten() -> None:
    service = quiet()
    for _ in range(30):
        service.error("/page", "KeyError")
    service.tick()
    service.tick(5, 14)
    assert service.headline() == ""
