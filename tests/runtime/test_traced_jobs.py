"""traced_jobs.py: queue and run of every job, whatever ended it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import traced_app
from collector import Collector, collecting
from system import wait_until
from tinysvc import Pool, Service
from tinysvc.testing import serving

CONSUMER, ERROR = 5, 2


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def client(collector: Collector) -> Iterator[httpx.Client]:
    service = Service(traced_app, pools={"other": Pool(workers=1)})
    with (
        serving(service, cpu_workers=1, queue_size=1, traces=collector.url, raise_errors=False) as url,
        httpx.Client(base_url=url, timeout=30) as found,
    ):
        yield found


@pytest.fixture(autouse=True)
def _empty(collector: Collector) -> None:
    collector.spans.clear()


def test_job_is_inside_its_request(client: httpx.Client, collector: Collector) -> None:
    assert client.get("/square?n=3").json() == 9
    request, run = collector.wait_for("GET /square", "run /square")
    assert (run.trace_id, run.parent_id, run.status) == (request.trace_id, request.span_id, 0)
    assert request.start <= run.start <= run.end <= request.end + 1_000_000
    assert run.attributes == {"tinysvc.pool": "default", "http.route": "/square"}
    assert collector.named("queue default") == []


def test_job_that_waits_has_a_queue_span_and_a_refused_one_no_run(client: httpx.Client, collector: Collector) -> None:
    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(lambda _: client.get("/sleeps-shortly").status_code, range(4)))
    refused = statuses.count(503)
    assert set(statuses) == {200, 503}
    wait_until(lambda: len(collector.named("GET /sleeps-shortly")) == 4, "all requests have ended")
    requests = {span.span_id: span for span in collector.named("GET /sleeps-shortly")}
    queues = collector.named("queue default")
    runs = {span.parent_id: span for span in collector.named("run /sleeps-shortly")}
    failed = [span for span in queues if span.status == ERROR]
    assert [span.attributes["error.type"] for span in failed] == ["QueueFull"] * refused
    assert all(span.parent_id not in runs for span in failed)
    waited = [span for span in queues if span.status != ERROR]
    assert waited
    for span in waited:
        assert requests[span.parent_id].start <= span.start
        assert span.end == runs[span.parent_id].start


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("/dies", "WorkerDied", "was killed by SIGKILL"),
        ("/sleeps", "DeadlineExceeded", "past its deadline of 0.2 s"),
        ("/raises", "ValueError", "ValueError: no"),
        ("/refuses-in-worker", "503", ""),
    ],
)
def test_job_that_fails_says_why(client: httpx.Client, collector: Collector, path: str, kind: str, text: str) -> None:
    client.get(path)
    request, run = collector.wait_for(f"GET {path}", f"run {path}")
    assert (run.parent_id, run.status, run.attributes["error.type"]) == (request.span_id, ERROR, kind)
    assert text in run.description
    assert "\n" not in run.description


def test_job_of_a_client_that_disconnects(client: httpx.Client, collector: Collector) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.get("/sleeps", timeout=0.1)
    (run,) = collector.wait_for("run /sleeps")
    assert (run.status, run.attributes["error.type"]) == (ERROR, "JobAbandoned")


def test_stream_runs_until_its_end(client: httpx.Client, collector: Collector) -> None:
    client.get("/steps?n=3")
    run, last = collector.wait_for("run /steps", "step 2")
    assert last.parent_id == run.span_id
    assert run.end >= last.end - 1_000_000


def test_requests_of_a_batch_have_spans_of_their_own(client: httpx.Client, collector: Collector) -> None:
    with ThreadPoolExecutor(2) as threads:
        replies = list(threads.map(lambda n: client.post(f"/totals?n={n}").json(), range(2)))
    assert replies == [1, 2]
    wait_until(lambda: len(collector.named("POST /totals")) == 2, "both requests have ended")
    requests = {span.span_id for span in collector.named("POST /totals")}
    runs = collector.named("run /totals")
    assert {span.parent_id for span in runs} == requests
    assert {span.parent_id for span in collector.named("all at once")} <= {span.span_id for span in runs}


def test_attempt_is_a_trace_with_a_link_to_its_request(client: httpx.Client, collector: Collector) -> None:
    reply = client.post("/trainings?epochs=2", headers={"prefer": "wait=20"})
    assert reply.json() == 2
    request, attempt, run, inner = collector.wait_for(
        "POST /trainings", "attempt /trainings", "run /trainings", "epoch"
    )
    assert attempt.links == [(request.trace_id, request.span_id)]
    assert attempt.trace_id != request.trace_id
    assert (attempt.parent_id, attempt.kind, attempt.status) == ("", CONSUMER, 0)
    assert attempt.attributes["tinysvc.job.attempt"] == 1
    assert len(attempt.attributes["tinysvc.job.id"]) == 32
    assert (run.trace_id, run.parent_id) == (attempt.trace_id, attempt.span_id)
    assert (inner.trace_id, inner.parent_id) == (attempt.trace_id, run.span_id)


def test_failed_attempt_says_why(client: httpx.Client, collector: Collector) -> None:
    client.post("/trainings?epochs=-1", headers={"prefer": "wait=20"})
    attempt, run = collector.wait_for("attempt /trainings", "run /trainings")
    for span in (attempt, run):
        assert (span.status, span.attributes["error.type"]) == (ERROR, "error")
        assert span.description == "tinysvc.core.errors.HTTPError: 422 too few"


def test_attempt_of_an_unrecorded_request_is_not_recorded(client: httpx.Client, collector: Collector) -> None:
    unsampled = {"prefer": "wait=20", "traceparent": f"00-{'1' * 32}-{'1' * 16}-00"}
    assert client.post("/trainings?epochs=3", headers=unsampled).json() == 3
    client.get("/plain")
    collector.wait_for("GET /plain", "in a thread")
    assert set(collector.names()) == {"GET /plain", "in a thread"}
