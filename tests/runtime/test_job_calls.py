"""job_calls.py: calls from workers; tests/runtime/test_submit.py has those of the event loop."""

from __future__ import annotations

import pytest

import submitted_app as app
from http_ends import logged
from job_services import job_service
from tinysvc import call, cpu_route


@cpu_route("/asks", pool="asking")
def asks(name: str) -> str:
    return call.wait(app.label, name, team="red")


@cpu_route("/waits-for-itself")
def waits_for_itself() -> str:
    return call.wait(app.label, "a")


@pytest.mark.asyncio
async def test_cpu_handler_waits_for_the_result_of_a_job_route(caplog: pytest.LogCaptureFixture) -> None:
    async with job_service(app, asks, runs=True, pools=["asking"]) as service:
        response = await service.send("GET", "/asks?name=a")
        assert (response.status, response.content) == (200, b"a 1 red")
    logged(caplog)  # of pools without processes


@pytest.mark.asyncio
async def test_call_that_needs_the_worker_of_its_caller_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with job_service(app, waits_for_itself, runs=True) as service:
        assert (await service.send("GET", "/waits-for-itself")).status == 508
        assert not service.store.records
    assert "needs a worker of the pool 'default'" in " ".join(logged(caplog))
