"""Readings for tests of the dashboard: a registry with the metrics of a service, whose clock the test sets."""

from __future__ import annotations

from collections.abc import Sequence

from tinysvc.dashboard.details import ArtifactDetails, ErrorDetails, ProcessDetails, WorkerDetails, details_metric
from tinysvc.dashboard.history import History
from tinysvc.dashboard.page_document import RouteAbout, document_of
from tinysvc.dashboard.reading import Reading, reading_of
from tinysvc.telemetry.instruments import Registry, metric_of
from tinysvc.telemetry.snapshots import Metric

ABOUT = {
    "GET /page": RouteAbout("io"),
    "GET /score": RouteAbout("cpu", "default"),
    "GET /live": RouteAbout("io", is_stream=True),
}


class FakeService:
    """The metrics of a service; `tick` makes a reading of them."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.history = History()
        self.now = 1000.0
        labels = ["http.request.method", "http.route", "http.response.status_code", "error.type"]
        self.requests = self.registry.histogram("http.server.request.duration", "", labels)
        self.waits = self.registry.histogram("tinysvc.pool.queue.duration", "", ["pool"])
        self.runs = self.registry.histogram("tinysvc.pool.run.duration", "", ["pool"])
        self.outcomes = self.registry.counter("tinysvc.pool.jobs", "", ["pool", "outcome"])
        self.ends = self.registry.counter("tinysvc.pool.worker.ends", "", ["pool", "cause"])
        self.lag = self.registry.histogram("tinysvc.event_loop.lag", "", [])
        self.calls = self.registry.histogram(
            "http.client.request.duration",
            "",
            ["service", "http.request.method", "http.response.status_code", "error.type"],
        )
        self.avoided: dict[tuple[str, str], float] = {}
        self.waiting = 0
        self.states = {"idle": 2, "busy": 0}
        self.workers: list[WorkerDetails] = []
        self.errors: list[ErrorDetails] = []
        self.problems: list[str] = []
        self.blocker = ""
        self.artifacts: list[ArtifactDetails] = []
        self.registry.add_source(self._values)

    def _values(self) -> Sequence[Metric]:
        states = [(["default", state], count) for state, count in self.states.items()]
        return (
            metric_of("gauge", "tinysvc.pool.workers", "", states, ["pool", "state"]),
            metric_of("gauge", "tinysvc.pool.queue.length", "", [(["default"], self.waiting)], ["pool"]),
            metric_of("gauge", "tinysvc.call.breaker_open", "", list(self.avoided.items()), ["service", "replica"]),
            details_metric(
                ProcessDetails(7, self.workers, self.errors, self.problems, self.artifacts, self.blocker),
            ),
        )

    def request(self, route: str = "/page", seconds: float = 0.003, status: int = 200, times: int = 1) -> None:
        for _ in range(times):
            self.requests.of("GET", route, str(status), "").observe(seconds)

    def error(self, route: str, kind: str, text: str = "why", request: str = "id-1") -> None:
        """A request that failed."""
        self.request(route, status=500)
        self.errors.append(ErrorDetails(self.now, f"GET {route}", 500, kind, text, request))

    def reading(self) -> Reading:
        return reading_of(self.registry.snapshot(), self.now)

    def tick(self, seconds: float = 1.0, times: int = 1) -> None:
        """Let time pass, and take a reading at the end of each step."""
        for _ in range(times):
            self.now += seconds
            self.history.add(self.reading())

    def document(self) -> dict[str, object]:
        found = document_of(self.history, ABOUT, 7)
        assert found is not None
        return found

    def headline(self) -> str:
        """The text of the first finding; "" if there is none."""
        findings = self.document()["findings"]
        assert isinstance(findings, list)
        return str(findings[0]["text"]) if findings else ""


def worker(number: int = 1, runs: str = "", **given: object) -> WorkerDetails:
    """A worker of the default pool."""
    state = "busy" if runs else "idle"
    values: dict[str, object] = {"process": 7, "pool": "default", "number": number, "pid": 70 + number, "state": state}
    return WorkerDetails(**{**values, "age": 9.0, "jobs": 3, "runs": runs, **given})  # type: ignore[arg-type]
