"""submit.py and job_calls.py: one suite for job routes of this process and of another server; it runs over both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any

import pytest

import submitted_app as app
from http_ends import on_loop, serving
from job_services import JobService, job_service
from memory_store import MemoryStore
from tinysvc import (
    BudgetExhausted,
    CallFailed,
    CallTimeout,
    ConfigurationError,
    HTTPError,
    Request,
    Response,
    Service,
    budget,
    call,
    io_route,
    submit,
)
from tinysvc.core.headers import Headers
from tinysvc.core.request_context import register_task
from tinysvc.core.settings import Settings
from tinysvc.runtime import job_calls
from tinysvc.runtime.running_service import at_work

WHERE = ("here", "wire")


@io_route("/unused")
async def unused() -> None: ...


@asynccontextmanager
async def callable_service(where: str, *, runs: bool = True) -> AsyncIterator[JobService]:
    """`submitted_app`, mounted here, or at an address."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(job_service(app, runs=runs))
        if where == "wire":
            server = await stack.enter_async_context(serving(service.running))
            services = f"submitted_app=http://127.0.0.1:{server.port}"
            await stack.enter_async_context(at_work(Service(unused), Settings(services=services)))
        yield service


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_submitted_job_has_a_status_and_a_result(where: str) -> None:
    async with callable_service(where) as service:
        accepted = await submit(app.train, app.Recipe(4, "a"))
        assert accepted.url == f"/trainings/{accepted.id}"
        assert await accepted.result() == app.Summary(0.25, "a")
        document = await accepted.status()
        assert (document.id, document.state, document.progress) == (accepted.id, "succeeded", 1.0)
        assert repr(accepted) == f"<Accepted {accepted.url}>"
        assert len(service.store.records) == 1


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_call_of_a_job_route_gives_its_result(where: str) -> None:
    async with callable_service(where) as service:
        assert await call(app.train, app.Recipe(2, name="b")) == app.Summary(0.5, "b")
        assert await call(app.label, "a b", size=3, team="blue") == "a b 3 blue"
        assert [record.state for record in service.store.records.values()] == ["succeeded"] * 2


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_options_of_a_submission_reach_the_store(where: str) -> None:
    async with callable_service(where, runs=False) as service:
        first = await submit(app.label, "a", after=60, priority=5, key='user "7"')
        again = await submit(app.label, "a", key='user "7"')
        assert again.id == first.id
        record = service.store.records[first.id]
        assert (record.state, record.priority) == ("scheduled", 5)
        assert (await first.status()).key == 'user "7"'
        await submit(app.label, "b", key='user "7"')  # another path has its own keys
        with pytest.raises(HTTPError, match="422 The Idempotency-Key"):
            await submit(app.label, "a", 2, key='user "7"')


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_parameters_named_as_options_are_given_by_position(where: str) -> None:
    async with callable_service(where):
        assert await (await submit(app.options, "x", "y", after=0, key="k")).result() == "x y"


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_refused_arguments_are_an_error_of_the_submission(where: str) -> None:
    async with callable_service(where) as service:
        with pytest.raises(HTTPError, match="422"):
            await submit(app.train, {"epochs": "many"})
        with pytest.raises(TypeError, match="missing arguments: recipe"):
            await submit(app.train)
        assert not service.store.records


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_failure_of_a_job_is_the_exception_of_its_result(where: str) -> None:
    async with callable_service(where):
        accepted = await submit(app.teapot)
        with pytest.raises(HTTPError, match="418 It is a teapot"):
            await accepted.result()
        with pytest.raises(HTTPError, match="418"):
            await call(app.teapot)
        with pytest.raises(CallFailed, match="job-failed") as caught:
            await call(app.broken)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_result_in_time_or_a_timeout_and_the_job_goes_on(where: str) -> None:
    async with callable_service(where, runs=False) as service:
        accepted = await submit(app.label, "a")
        with pytest.raises(CallTimeout, match=r"The job has not ended within 0\.3 s; it continues"):
            await accepted.result(timeout=0.3)
        assert (await accepted.status()).state == "queued"
        waiting = asyncio.create_task(accepted.result(timeout=20))
        await asyncio.sleep(0.01)
        await service.succeed(b"made", content_type="text/plain")
        assert await waiting == "made"


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_call_whose_budget_ends_cancels_its_job(where: str) -> None:
    async with callable_service(where, runs=False) as service:
        with pytest.raises(BudgetExhausted):
            async with budget(0.3):
                await call(app.label, "a")
        await ended(service.store)


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_cancelled_call_cancels_its_job(where: str) -> None:
    async with callable_service(where, runs=False) as service:
        calling = asyncio.create_task(call(app.label, "a"))
        while not service.store.records:
            await asyncio.sleep(0.001)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await ended(service.store)


async def ended(store: MemoryStore) -> None:
    """Wait until the only durable job is cancelled."""
    limit = monotonic() + 30
    while [record.state for record in store.records.values()] != ["cancelled"]:
        assert monotonic() < limit
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_accepted_job_is_cancelled(where: str) -> None:
    async with callable_service(where, runs=False) as service:
        accepted = await submit(app.label, "a")
        assert (await accepted.cancel()).state == "cancelled"
        assert (await accepted.cancel()).state == "cancelled"
        with pytest.raises(HTTPError, match="410 The job was cancelled"):
            await accepted.result()
        other = await submit(app.label, "a")
        await service.succeed()
        with pytest.raises(HTTPError, match="409 The job has succeeded already"):
            await other.cancel()


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_credentials_are_passed_on_where_they_are_named(where: str) -> None:
    async with callable_service(where):
        request = Request("GET", "/", headers=Headers([(b"authorization", b"Bearer ada")]))

        class Owner:
            def current_request(self) -> Request:
                return request

        register_task(asyncio.current_task(), Owner())  # type: ignore[arg-type]
        with pytest.raises(HTTPError, match="401"):
            await submit(app.guarded)
        accepted = await submit.forwarding("Authorization")(app.guarded)
        assert await accepted.result() == "ada"
        assert await call.forwarding("authorization")(app.guarded) == "ada"


@pytest.mark.parametrize("where", WHERE)
@on_loop
async def test_result_that_is_a_response_is_one_again(where: str) -> None:
    async with callable_service(where):
        response = await call(app.raw)
        assert isinstance(response, Response)
        assert (response.status, response.content) == (201, b"made")
        assert ("x-own", "1") in response.headers


@on_loop
async def test_requests_for_a_result_go_on_while_the_callee_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_calls, "PAUSE", 0.01)
    refusals = 3

    async def restarting(request: Request) -> Response:
        nonlocal refusals
        if request.method == "GET" and refusals:
            refusals -= 1
            return Response(b'{"type":"about:blank"}', 503, content_type="application/problem+json")
        return await service.running(request)

    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(job_service(app, runs=True))
        server = await stack.enter_async_context(serving(restarting))
        services = f"submitted_app=http://127.0.0.1:{server.port}"
        await stack.enter_async_context(at_work(Service(unused), Settings(services=services)))
        assert await call(app.label, "a") == "a 1 "
        monkeypatch.setattr(job_calls, "OUTAGE", -1.0)
        refusals = 3
        accepted = await submit(app.label, "a")
        with pytest.raises(CallFailed):
            await accepted.result()


@on_loop
async def test_submission_without_a_response_is_sent_again_and_gives_one_job() -> None:
    """As if the callee were killed after its commit, before its response."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(job_service(app, runs=True))
        sent = 0

        async def dies_once(request: Request) -> Response:
            nonlocal sent
            sent += 1
            response = await service.running(request)
            if sent == 1:
                for connection in list(server.connections.open):
                    connection.transport.abort()
            return response

        server = await stack.enter_async_context(serving(dies_once))
        services = f"submitted_app=http://127.0.0.1:{server.port}"
        await stack.enter_async_context(at_work(Service(unused), Settings(services=services)))
        accepted = await submit(app.label, "a")
        assert sent == 2
        assert list(service.store.records) == [accepted.id]
        assert await accepted.result() == "a 1 "


@on_loop
async def test_callee_that_is_lost_is_a_failed_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(job_calls, "PAUSE", 0.01)
    monkeypatch.setattr(job_calls, "OUTAGE", 0.1)
    async with AsyncExitStack() as callee, AsyncExitStack() as caller:
        service = await callee.enter_async_context(job_service(app))

        async def accepts_only(request: Request) -> Response:
            if request.method == "POST":
                return await service.running(request)
            return Response(b"nothing here", 503 if request.method == "GET" else 500)

        server = await callee.enter_async_context(serving(accepts_only))
        settings = Settings(services=f"submitted_app=http://127.0.0.1:{server.port}")
        await caller.enter_async_context(at_work(Service(unused), settings))
        with pytest.raises(CallFailed, match="503"):
            await call(app.label, "a")
        accepted = await submit(app.label, "a")
        with pytest.raises(CallFailed, match="503"):
            await accepted.status()
        while not any("was not cancelled: 500" in message for message in caplog.messages):
            await asyncio.sleep(0.01)
        await callee.aclose()
        with pytest.raises(CallFailed):
            await accepted.result()
        with pytest.raises(BudgetExhausted):
            async with budget(0.2):
                await accepted.result(timeout=20)
    caplog.clear()


@on_loop
async def test_document_that_cannot_be_read_is_a_failed_call() -> None:
    async def answers(request: Request) -> Response:
        headers = {"location": "/labels/a/7"} if request.method == "POST" else {}
        return Response(b"{}", 202 if request.method == "POST" else 200, headers, content_type="application/json")

    async with serving(answers) as server:
        services = f"submitted_app=http://127.0.0.1:{server.port}"
        async with at_work(Service(unused), Settings(services=services)):
            accepted = await submit(app.label, "a")
            with pytest.raises(CallFailed, match="The document of the job cannot be read"):
                await accepted.status()


@on_loop
async def test_answer_that_is_no_acceptance_is_a_failed_call() -> None:
    async def answers(request: Request) -> Response:
        return Response(b"{}", content_type="application/json")

    async with serving(answers) as server:
        services = f"submitted_app=http://127.0.0.1:{server.port}"
        async with at_work(Service(unused), Settings(services=services)):
            with pytest.raises(CallFailed, match="not 202 with a Location: is this a job route there"):
                await submit(app.label, "a")


@on_loop
async def test_handler_that_is_no_job_route_is_not_submitted() -> None:
    async with callable_service("here"), at_work(Service(unused), Settings()):
        with pytest.raises(ConfigurationError, match="cannot be submitted: it has no @job_route"):
            await submit(unused)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"after": -1}, "after takes seconds"),
        ({"priority": 1.5}, "priority takes a whole number"),
        ({"priority": 101}, "priority takes a whole number"),
        ({"key": "ä"}, "key takes 1 to 255 visible ASCII characters"),
    ],
)
@on_loop
async def test_wrong_option_is_a_value_error(options: dict[str, Any], says: str) -> None:
    async with callable_service("here"):
        with pytest.raises(ValueError, match=says):
            await submit(app.label, "a", **options)


@on_loop
async def test_job_route_has_no_stream() -> None:
    async with callable_service("here"):
        with pytest.raises(ConfigurationError, match="is a job route, which streams nothing"):
            call.stream(app.label, "a")


def test_submission_without_an_event_loop_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"where no event loop runs; submit it in an `async def` io handler"):
        _ = submit(app.raw)
