"""traced_calls.py: spans of calls in this process, over the network, and of workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import traced_app
import traced_caller
from collector import Collector, collecting
from tinysvc import Pool, Service
from tinysvc.testing import serving

INTERNAL, SERVER, CLIENT, ERROR = 1, 2, 3, 2


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def url(collector: Collector) -> Iterator[str]:
    service = Service(traced_app, pools={"other": Pool(workers=1)})
    with serving(service, cpu_workers=1, traces=collector.url, raise_errors=False) as found:
        yield found


@pytest.fixture(autouse=True)
def _empty(collector: Collector) -> None:
    collector.spans.clear()


def test_called_cpu_handlers_are_inside_the_span_that_calls(url: str, collector: Collector) -> None:
    assert httpx.get(f"{url}/calls").json() == 25
    request, outer, called = collector.wait_for("GET /calls", "outer", "call traced_app.square")
    runs, inner = collector.named("run /square"), collector.named("multiply")
    assert {span.trace_id for span in (outer, called, *runs, *inner)} == {request.trace_id}
    assert (outer.parent_id, called.parent_id, called.kind) == (request.span_id, outer.span_id, INTERNAL)
    assert sorted(span.parent_id for span in runs) == sorted([called.span_id, outer.span_id])  # by call, by cpu
    assert {span.parent_id for span in inner} == {span.span_id for span in runs}


def test_call_as_a_request_in_this_process(url: str, collector: Collector) -> None:
    seen = httpx.get(f"{url}/asks").text
    request, called = collector.wait_for("GET /asks", "call traced_app.answers")
    assert (called.parent_id, called.kind) == (request.span_id, CLIENT)
    assert seen == f"00-{request.trace_id}-{called.span_id}-01"


def test_refused_call_is_an_error(url: str, collector: Collector) -> None:
    httpx.get(f"{url}/refused")
    called, request = collector.wait_for("call traced_app.refuses", "GET /refused")
    assert (called.status, called.attributes["error.type"]) == (ERROR, "409")
    assert request.status == 0  # a 4xx is no error of the server


def test_failed_direct_call_is_an_error(url: str, collector: Collector) -> None:
    httpx.get(f"{url}/calls-what-fails")
    (called,) = collector.wait_for("call traced_app.fails")
    assert (called.status, called.attributes["error.type"]) == (ERROR, "CallFailed")


def test_call_of_a_worker_is_inside_its_run(url: str, collector: Collector) -> None:
    seen = httpx.get(f"{url}/waits").text
    run, called = collector.wait_for("run /waits", "call traced_app.answers")
    assert called.parent_id == run.span_id
    assert seen == f"00-{run.trace_id}-{called.span_id}-01"


def test_call_over_the_network_is_one_trace(url: str, collector: Collector) -> None:
    services = f"traced_app={url}"
    with serving(Service(traced_caller), services=services, traces=collector.url) as caller:
        assert httpx.get(f"{caller}/far").json() == 49
        request, called, remote, run = collector.wait_for(
            "GET /far", "call traced_app.square", "GET /square", "run /square"
        )
        assert {span.trace_id for span in (called, remote, run)} == {request.trace_id}
        assert (called.parent_id, called.kind) == (request.span_id, CLIENT)
        assert (remote.parent_id, remote.kind) == (called.span_id, SERVER)
        assert called.attributes["tinysvc.call.attempts"] == 1
        assert called.attributes["tinysvc.replica"] == url
        assert {request.resource["service.name"], remote.resource["service.name"]} == {"traced_caller", "traced_app"}


def test_call_over_grpc_has_the_attributes_of_an_rpc(collector: Collector, tmp_path: Path) -> None:
    socket = f"unix:{tmp_path}/s"
    services = f"traced_app=grpc+{socket}"
    with (
        serving(Service(traced_app, pools={"other": Pool(workers=1)}), cpu_workers=1, grpc=socket),
        serving(Service(traced_caller), services=services, traces=collector.url, raise_errors=False) as caller,
    ):
        assert httpx.get(f"{caller}/far").json() == 49
        (called,) = collector.wait_for("call traced_app.square")
        attributes = {name: value for name, value in called.attributes.items() if name.startswith(("rpc.", "http."))}
        assert attributes == {
            "rpc.system.name": "grpc",
            "rpc.method": "traced_app.TracedApp/Square",
            "rpc.status_code": "OK",
        }
        collector.spans.clear()
        httpx.get(f"{caller}/far-refused")
        (called,) = collector.wait_for("call traced_app.refuses_in_worker")
    assert (called.status, called.attributes["error.type"]) == (ERROR, "UNAVAILABLE")


def test_unrecorded_caller_is_not_recorded_by_its_callee(url: str, collector: Collector) -> None:
    services = f"traced_app={url}"
    with serving(Service(traced_caller), services=services, traces=collector.url, trace_sample=0) as caller:
        assert httpx.get(f"{caller}/far").json() == 49
    httpx.get(f"{url}/plain")
    collector.wait_for("GET /plain")
    assert not {"GET /far", "GET /square", "run /square"} & set(collector.names())


def test_call_that_cannot_be_sent_is_an_error(url: str, collector: Collector) -> None:
    with serving(
        Service(traced_caller), services="traced_app=http://127.0.0.1:1", traces=collector.url, raise_errors=False
    ) as caller:
        assert httpx.get(f"{caller}/far").status_code == 503
        (called,) = collector.wait_for("call traced_app.square")
    assert (called.status, called.attributes["error.type"]) == (ERROR, "CallUnavailable")


def test_submitted_job_links_to_the_call(url: str, collector: Collector) -> None:
    httpx.post(f"{url}/starts")
    called, attempt = collector.wait_for("call traced_app.train", "attempt /trainings")
    assert attempt.links == [(called.trace_id, called.span_id)]
