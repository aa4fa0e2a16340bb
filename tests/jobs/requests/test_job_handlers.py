"""job_handlers.py: the requests of a job route, over a store in memory. A test runs the attempts itself."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from time import time
from typing import Annotated, Any

import pytest

from job_services import JobService, document, header, job_service
from memory_store import MemoryStore
from tinysvc import Form, Handler, Query, Request, Response, Service, io_resource, job_route
from tinysvc.core.job_errors import StoreError, StoreFull, TooManyWaiting
from tinysvc.core.responses import FileContent
from tinysvc.jobs.records import CancelOutcome, NewJob, Progress, ResultHead, Submitted


@dataclass
class Recipe:
    epochs: int


@job_route("/trainings", keep="2d")
def train(recipe: Recipe) -> dict[str, int]:
    return {"epochs": recipe.epochs}


@job_route("/users/{user}/trainings")
def train_for(user: int) -> None: ...


@job_route("/uploads")
def upload(name: Annotated[str, Form()], size: Annotated[int, Form()] = 0) -> None: ...


@io_resource
async def owner(request: Request, token: Annotated[str, Query()] = "") -> str:
    if token != "secret":
        raise PermissionError
    return token


@job_route("/guarded")
def guarded(owner: str, needed: int) -> None: ...


def refused(request: Request, error: PermissionError) -> Response:
    return Response("no", 403)


BODY = b'{"epochs":3}'


async def submitted(service: JobService, **headers: str) -> dict[str, Any]:
    return await service.post("/trainings", BODY, {key.replace("_", "-"): value for key, value in headers.items()})


@pytest.mark.asyncio
async def test_submission_is_stored_and_gets_202() -> None:
    async with job_service(train) as service:
        response = await service.send("POST", "/trainings", BODY, {"x-request-id": "seven"})
        found = document(response)
        assert response.status == 202
        assert header(response, "location") == f"/trainings/{found['id']}"
        assert header(response, "retry-after") == "1"
        record = service.store.records[found["id"]]
        assert service.store.requests[record.id][1] == BODY
        assert (record.route, record.path, record.keep, record.request_id) == (
            "/trainings",
            "/trainings",
            2 * 86400,
            "seven",
        )
        assert {key: found[key] for key in ("state", "attempt", "max_attempts", "progress", "ended", "request_id")} == {
            "state": "queued",
            "attempt": 0,
            "max_attempts": 3,
            "progress": None,
            "ended": None,
            "request_id": "seven",
        }
        assert found["links"] == {
            "self": f"/trainings/{record.id}",
            "result": f"/trainings/{record.id}/result",
            "cancel": f"/trainings/{record.id}",
        }


@pytest.mark.asyncio
async def test_request_that_does_not_bind_is_not_stored() -> None:
    async with job_service(train, upload) as service:
        response = await service.send("POST", "/trainings", b'{"epochs":"three"}')
        assert response.status == 422
        assert document(response)["errors"][0]["place"] == "$.epochs"
        big = b'{"epochs":"' + b"x" * 100_000 + b'"}'
        assert (await service.send("POST", "/trainings", big)).status == 422
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert (await service.send("POST", "/uploads", b"size=1", form)).status == 422
        assert not service.store.records
        assert (await service.send("POST", "/uploads", b"name=a&size=1", form)).status == 202


@pytest.mark.asyncio
async def test_after_and_priority_of_a_submission() -> None:
    async with job_service(train) as service:
        response = await service.send("POST", "/trainings", BODY, {"job-after": "60", "job-priority": "5"})
        found = document(response)
        assert (found["state"], found["priority"]) == ("scheduled", 5)
        assert 55 < service.store.records[found["id"]].due - time() <= 60
        assert 55 <= int(header(response, "retry-after")) <= 60


@pytest.mark.asyncio
async def test_idempotency_key_gives_the_same_job_and_refuses_other_content() -> None:
    async with job_service(train) as service:
        first = await submitted(service, idempotency_key="k")
        assert (await submitted(service, idempotency_key='"k"'))["id"] == first["id"]
        assert first["key"] == "k"
        other = await service.send("POST", "/trainings", b'{"epochs":4}', {"idempotency-key": "k"})
        assert (other.status, document(other)["type"]) == (422, "urn:tinysvc:key-reused")
        assert (await submitted(service))["id"] != first["id"]


@pytest.mark.asyncio
async def test_same_key_of_another_sender_is_another_job() -> None:
    async with job_service(train) as service:
        ada = await submitted(service, idempotency_key="k", authorization="Bearer ada")
        bob = await submitted(service, idempotency_key="k", authorization="Bearer bob")
        assert ada["id"] != bob["id"]
        assert (ada["key"], bob["key"]) == ("k", "k")
        changed = {"idempotency-key": "k", "authorization": "Bearer bob"}
        response = await service.send("POST", "/trainings", b'{"epochs":4}', changed)
        assert "'k'" in document(response)["detail"]


@pytest.mark.asyncio
async def test_preferred_wait_gets_the_result() -> None:
    async with job_service(train) as service:
        waiting = asyncio.create_task(service.send("POST", "/trainings", BODY, {"prefer": "wait=20"}))
        while not service.store.records:
            await asyncio.sleep(0.001)
        record = await service.succeed()
        response = await waiting
        assert (response.status, response.content) == (200, b'{"loss":0}')
        assert (header(response, "preference-applied"), header(response, "x-own")) == ("wait=20", "1")
        assert header(response, "location") == f"/trainings/{record.id}"


@pytest.mark.asyncio
async def test_location_of_a_result_is_the_one_that_its_handler_has_set() -> None:
    async with job_service(train) as service:
        key = {"idempotency-key": "k"}
        job = document(await service.send("POST", "/trainings", BODY, key))["id"]
        await service.claim()
        head = ResultHead(status=201, content_type=None, headers=[("Location", "/models/7")])
        assert await service.store.finish(job, 1, head, b"")
        response = await service.send("POST", "/trainings", BODY, {"prefer": "wait=20", **key})
        assert [value for name, value in response.headers if name.lower() == "location"] == ["/models/7"]
        assert header(response, "content-location") == f"/trainings/{job}/result"


@pytest.mark.asyncio
async def test_preferred_wait_that_passes_gets_202() -> None:
    async with job_service(train) as service:
        for wait in ("wait=0", "wait=1"):
            response = await service.send("POST", "/trainings", BODY, {"prefer": wait})
            assert (response.status, header(response, "preference-applied")) == (202, wait)


@pytest.mark.asyncio
async def test_disconnect_ends_the_wait_and_not_the_job() -> None:
    async with job_service(train) as service:
        request = Request("POST", "/trainings", body=BODY)
        request.headers.raw = [(b"prefer", b"wait=60")]
        waiting = asyncio.create_task(service.running(request))
        while request.on_disconnect is None:
            await asyncio.sleep(0.001)
        request.on_disconnect()
        assert (await waiting).status == 202
        assert [record.state for record in service.store.records.values()] == ["queued"]


@pytest.mark.asyncio
async def test_status_has_an_entity_tag() -> None:
    async with job_service(train) as service:
        job = await submitted(service)
        path = job["links"]["self"]
        response = await service.send("GET", path)
        assert (response.status, document(response)) == (200, job)
        tag = header(response, "etag")
        assert (await service.send("GET", path, headers={"if-none-match": tag})).status == 304
        claimed = await service.claim()
        await service.store.progress(job["id"], 1, Progress(fraction=0.5, values={"loss": float("nan")}))
        found = document(await service.send("GET", path, headers={"if-none-match": tag}))
        assert (found["state"], found["progress"], found["values"]) == ("running", 0.5, {"loss": None})
        assert found["attempts"][0]["ended"] is None
        assert found["version"] > claimed.record.version


@pytest.mark.asyncio
async def test_result_of_each_state() -> None:
    async with job_service(train) as service:
        path = (await submitted(service))["links"]["self"]
        early = await service.send("GET", f"{path}/result")
        assert (early.status, document(early)["type"]) == (404, "urn:tinysvc:not-finished")
        assert (document(early)["state"], header(early, "retry-after")) == ("queued", "1")
        assert header(early, "cache-control") == "no-cache"
        await service.succeed(b"whole", 201)
        result = await service.send("GET", f"{path}/result")
        assert (result.status, result.content, result.content_type) == (201, b"whole", "application/json")
        failed = (await submitted(service))["links"]["self"]
        await service.fail({"type": "about:blank", "title": "Teapot", "status": 418})
        problem = await service.send("GET", f"{failed}/result")
        assert (problem.status, document(problem)["title"]) == (418, "Teapot")
        assert header(problem, "cache-control") == "no-cache"
        cancelled = (await submitted(service))["links"]["self"]
        assert (await service.send("DELETE", cancelled)).status == 200
        gone = await service.send("GET", f"{cancelled}/result")
        assert (gone.status, document(gone)["type"]) == (410, "urn:tinysvc:job-cancelled")


@pytest.mark.asyncio
async def test_result_waits_for_the_end_if_preferred() -> None:
    async with job_service(train) as service:
        path = (await submitted(service))["links"]["result"]
        waiting = asyncio.create_task(service.send("GET", path, headers={"prefer": "wait=20"}))
        await asyncio.sleep(0)
        await service.succeed()
        assert (await waiting).status == 200


@pytest.mark.asyncio
async def test_big_result_is_sent_from_its_file() -> None:
    class WithFile(MemoryStore):
        async def result(self, job_id: str) -> Any:
            return io.BytesIO(self.results[job_id])

    async with job_service(train, store=WithFile()) as service:
        path = (await submitted(service))["links"]["result"]
        await service.succeed(b"12345")
        response = await service.send("GET", path)
        assert isinstance(response.content, FileContent)
        assert (response.content.size, response.content.file.read()) == (5, b"12345")


@pytest.mark.asyncio
async def test_expired_job_is_410() -> None:
    async with job_service(train) as service:
        path = (await submitted(service))["links"]["self"]
        record = await service.succeed()
        service.store.records[record.id] = type(record)(
            **{name: getattr(record, name) for name in record.__struct_fields__} | {"expires": time() - 1}
        )
        for target in (path, f"{path}/result"):
            response = await service.send("GET", target)
            assert (response.status, document(response)["type"]) == (410, "urn:tinysvc:job-expired")
            assert document(response)["detail"] == "The job has succeeded, and was kept for 2 days after that."
        await service.store.sweep(time())
        assert (await service.send("GET", path)).status == 410


@pytest.mark.asyncio
async def test_cancel_answers_again_and_refuses_an_ended_job() -> None:
    async with job_service(train) as service:
        path = (await submitted(service))["links"]["self"]
        first = await service.send("DELETE", path)
        assert (first.status, document(first)["state"]) == (200, "cancelled")
        assert (await service.send("DELETE", path)).status == 200
        ended = (await submitted(service))["links"]["self"]
        await service.succeed()
        late = await service.send("DELETE", ended)
        assert (late.status, document(late)["type"], document(late)["state"]) == (
            409,
            "urn:tinysvc:job-ended",
            "succeeded",
        )


@pytest.mark.asyncio
async def test_retry_is_for_a_failed_job() -> None:
    async with job_service(train) as service:
        path = (await submitted(service))["links"]["self"]
        early = await service.send("POST", f"{path}/retry")
        assert (early.status, document(early)["type"]) == (409, "urn:tinysvc:not-failed")
        await service.fail(None)
        assert document(await service.send("GET", path))["links"]["retry"] == f"{path}/retry"
        assert (await service.send("GET", f"{path}/result")).status == 500
        again = await service.send("POST", f"{path}/retry")
        assert (again.status, document(again)["state"], header(again, "location")) == (202, "queued", path)


@pytest.mark.asyncio
async def test_cancel_dismisses_a_failed_job() -> None:
    async with job_service(train) as service:
        path = (await submitted(service))["links"]["self"]
        await service.fail(None)
        assert document(await service.send("GET", path))["links"]["cancel"] == path
        dismissed = await service.send("DELETE", path)
        assert (dismissed.status, document(dismissed)["state"]) == (200, "cancelled")
        assert document(dismissed)["links"].keys() == {"self", "result"}
        assert (await service.send("GET", f"{path}/result")).status == 410
        assert (await service.send("POST", f"{path}/retry")).status == 409
        assert (await service.send("DELETE", path)).status == 200


@pytest.mark.asyncio
async def test_unknown_job_is_404_for_every_verb() -> None:
    async with job_service(train, train_for) as service:
        other = (await service.post("/users/7/trainings"))["id"]
        for job_id in ("0" * 32, "seven", other):
            path = f"/trainings/{job_id}"
            for method, target in (
                ("GET", path),
                ("GET", f"{path}/result"),
                ("DELETE", path),
                ("POST", f"{path}/retry"),
            ):
                response = await service.send(method, target)
                assert (response.status, document(response)["type"]) == (404, "urn:tinysvc:unknown-job")


@pytest.mark.asyncio
async def test_list_has_pages_states_and_counts() -> None:
    async with job_service(train) as service:
        jobs = [(await submitted(service))["id"] for _ in range(3)]
        await service.store.cancel(jobs[0])
        response = await service.send("GET", "/trainings?limit=2&state=queued")
        found = document(response)
        assert [job["id"] for job in found["jobs"]] == [jobs[2], jobs[1]]
        assert found["counts"] == {
            "scheduled": 0,
            "queued": 2,
            "running": 0,
            "succeeded": 0,
            "failed": 0,
            "cancelled": 1,
        }
        assert found["next"] is None
        first = await service.send("GET", "/trainings?limit=2")
        following = document(first)["next"]
        assert header(first, "link") == f'<{following}>; rel="next"'
        rest = document(await service.send("GET", following))
        assert [job["id"] for job in rest["jobs"]] == [jobs[0]]


@pytest.mark.asyncio
async def test_wrong_query_of_a_list_is_422() -> None:
    async with job_service(train) as service:
        response = await service.send("GET", "/trainings?state=gone&limit=0")
        assert response.status == 422
        assert [each["place"] for each in document(response)["errors"]] == ["query.state", "query.limit"]
        assert (await service.send("GET", "/trainings?cursor=nonsense")).status == 422


@pytest.mark.asyncio
async def test_jobs_of_another_path_parameter_are_neither_shown_nor_cancelled() -> None:
    async with job_service(train_for) as service:
        mine = await service.post("/users/7/trainings")
        theirs = await service.post("/users/8/trainings")
        assert mine["links"]["self"] == f"/users/7/trainings/{mine['id']}"
        listed = document(await service.send("GET", "/users/7/trainings"))
        assert ([job["id"] for job in listed["jobs"]], listed["counts"]["queued"]) == ([mine["id"]], 1)
        for method in ("GET", "DELETE"):
            assert (await service.send(method, f"/users/7/trainings/{theirs['id']}")).status == 404
            assert (await service.send(method, f"/users/8/trainings/{theirs['id']}")).status == 200


@pytest.mark.asyncio
async def test_resources_of_the_request_guard_every_verb() -> None:
    async with job_service(guarded, owner, error_handlers={PermissionError: refused}) as service:
        path = (await service.post("/guarded?token=secret&needed=1"))["links"]["self"]
        for method, target in (
            ("POST", "/guarded"),
            ("GET", "/guarded"),
            ("GET", path),
            ("GET", f"{path}/result"),
            ("DELETE", path),
            ("POST", f"{path}/retry"),
        ):
            assert (await service.send(method, f"{target}?needed=1")).status == 403
            assert (await service.send(method, f"{target}?token=secret&needed=1")).status not in (403, 422)
        assert (await service.send("GET", f"{path}?token=secret")).status == 200, "other parameters are not needed"


@pytest.mark.asyncio
async def test_middleware_sees_every_verb_below_the_prefix_of_its_service() -> None:
    seen = []

    async def note(request: Request, call_next: Handler) -> Response:
        seen.append(request.method)
        return await call_next(request)

    async with job_service(train, middleware=[note], prefix="/lab") as service:
        path = (await service.post("/lab/trainings", BODY))["links"]["self"]
        assert path.startswith("/lab/trainings/")
        for method, target in (("GET", "/lab/trainings"), ("GET", path), ("GET", f"{path}/result"), ("DELETE", path)):
            await service.send(method, target)
        assert seen == ["POST", "GET", "GET", "GET", "DELETE"]


@pytest.mark.asyncio
async def test_job_routes_of_mounted_services_have_their_own_jobs() -> None:
    lab = Service(train, prefix="/lab")
    async with job_service(Service(lab, prefix="/eu"), Service(Service(train, prefix="/lab"), prefix="/us")) as service:
        ours = (await service.post("/eu/lab/trainings", BODY))["links"]["self"]
        assert ours.startswith("/eu/lab/trainings/")
        assert (await service.send("GET", ours)).status == 200
        assert (await service.send("GET", ours.replace("/eu/", "/us/"))).status == 404
        assert document(await service.send("GET", "/us/lab/trainings"))["jobs"] == []


@pytest.mark.asyncio
async def test_head_has_the_headers_of_get() -> None:
    async with job_service(train) as service:
        path = (await submitted(service))["links"]["self"]
        assert header(await service.send("HEAD", path), "etag") == header(await service.send("GET", path), "etag")
        assert (await service.send("HEAD", f"{path}/result")).status == 404


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (StoreFull("no space on /secret"), 507, "job-store-full"),
        (StoreError("the keeper of /secret is away"), 503, "job-store-unavailable"),
        (TooManyWaiting("7 jobs wait."), 503, "too-many-waiting"),
    ],
)
@pytest.mark.asyncio
async def test_job_that_cannot_be_kept_gets_no_202(error: Exception, status: int, kind: str) -> None:
    class Refusing(MemoryStore):
        def _submit(self, new: NewJob) -> Submitted:
            raise error

    async with job_service(train, store=Refusing()) as service:
        response = await service.send("POST", "/trainings", BODY)
        assert (response.status, document(response)["type"]) == (status, f"urn:tinysvc:{kind}")
        assert int(header(response, "retry-after")) >= 1
        assert b"secret" not in response.content


@pytest.mark.asyncio
async def test_middleware_can_refuse_a_priority() -> None:
    async def without_priority(request: Request, call_next: Handler) -> Response:
        return Response("no", 403) if "job-priority" in request.headers else await call_next(request)

    async with job_service(train, middleware=[without_priority]) as service:
        assert (await service.send("POST", "/trainings", BODY, {"job-priority": "100"})).status == 403
        assert (await service.send("POST", "/trainings", BODY)).status == 202


class Forgetful(MemoryStore):
    """A store whose sweep removes a durable job between two steps of a request."""

    async def result(self, job_id: str) -> Any:
        return None

    async def retry(self, job_id: str) -> Any:
        return None

    async def cancel(self, job_id: str) -> CancelOutcome:
        return CancelOutcome("unknown")


@pytest.mark.asyncio
async def test_job_that_is_removed_during_a_request_is_unknown_or_expired() -> None:
    async with job_service(train, store=Forgetful()) as service:
        path = (await submitted(service))["links"]["self"]
        assert (await service.send("DELETE", path)).status == 404
        assert (await service.send("POST", f"{path}/retry")).status == 404
        await service.succeed()
        assert (await service.send("GET", f"{path}/result")).status == 410
