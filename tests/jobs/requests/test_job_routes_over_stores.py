"""Job routes of a real server with real workers, over each store: every verb, and calls from another service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import submitted_app as app
from postgres import MISSING
from tinysvc import HTTPError, Service, call, io_route, submit
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work
from tinysvc.testing import serving

WAITS = {"prefer": "wait=20"}


@io_route("/unused")
async def unused() -> None: ...


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the store."""
    if request.param == "sqlite":
        store = str(tmp_path_factory.mktemp("store") / "jobs.db")
    else:
        if MISSING:
            pytest.skip(MISSING)
        store = asyncio.run(request.getfixturevalue("postgres").create_database())
    with serving(app, jobs=store, raise_errors=False) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


def accepted(client: httpx.Client, path: str, **options: Any) -> dict[str, Any]:
    response = client.post(path, **options)
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    assert response.headers["location"] == document["links"]["self"]
    return document


def test_job_runs_in_a_worker_and_gives_its_result(client: httpx.Client) -> None:
    response = client.post("/trainings", json={"epochs": 4, "name": "a"}, headers=WAITS)
    assert (response.status_code, response.json()) == (200, {"loss": 0.25, "name": "a"})
    found = client.get(response.headers["location"]).json()
    assert (found["state"], found["attempt"], found["attempts"][0]["cause"]) == ("succeeded", 1, "succeeded")
    assert client.get(response.headers["content-location"]).json() == response.json()
    assert client.post("/trainings", json={"epochs": "four"}).status_code == 422


def test_key_gives_the_same_job(client: httpx.Client) -> None:
    key = {"idempotency-key": '"order-7"'}
    first = accepted(client, "/labels/a", headers=key)
    assert accepted(client, "/labels/a", headers=key)["id"] == first["id"]
    assert accepted(client, "/labels/b", headers=key)["id"] != first["id"]
    assert client.post("/labels/a?size=2", headers=key).json()["type"] == "urn:tinysvc:key-reused"


def test_list_has_the_jobs_of_its_path_in_pages(client: httpx.Client) -> None:
    ids = [accepted(client, "/labels/listed", headers={"job-after": "600"})["id"] for _ in range(3)]
    accepted(client, "/labels/other", headers={"job-after": "600"})
    first = client.get("/labels/listed?state=scheduled&limit=2").json()
    rest = client.get(first["next"]).json()
    assert [each["id"] for each in first["jobs"] + rest["jobs"]] == ids[::-1]
    assert (first["counts"]["scheduled"], rest["next"]) == (3, None)
    for cursor in ("nonsense", "9" * 40, "-1" * 30):
        assert client.get(f"/labels/listed?cursor={cursor}").status_code == 422


def test_events_come_up_to_the_end(client: httpx.Client) -> None:
    job = accepted(client, "/labels/a", headers={"job-after": "0.3"})
    with client.stream("GET", job["links"]["self"], headers={"accept": "text/event-stream"}) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    states = [json.loads(line)["state"] for line in lines]
    assert (states[0], states[-1]) == ("scheduled", "succeeded")


def test_waiting_job_is_cancelled_and_a_failed_one_retried(client: httpx.Client) -> None:
    job = accepted(client, "/labels/a", headers={"job-after": "600"})
    for _ in range(2):
        assert client.delete(job["links"]["cancel"]).json()["state"] == "cancelled"
    assert client.get(job["links"]["result"]).json()["type"] == "urn:tinysvc:job-cancelled"
    failed = client.post("/teapots", headers=WAITS)
    assert (failed.status_code, failed.json()["title"]) == (418, "I'm a Teapot")
    path = failed.headers["location"]
    assert client.post(f"{path}/retry").status_code == 202
    assert client.get(f"{path}/result", headers=WAITS).status_code == 418
    assert client.get(path).json()["attempt"] == 2
    assert client.delete(path).json()["state"] == "cancelled", "a failed one is dismissed"
    done = client.post("/labels/a", headers=WAITS).headers["location"]
    assert client.delete(done).json()["type"] == "urn:tinysvc:job-ended"


def test_resource_of_the_request_guards_the_job_and_reaches_its_worker(client: httpx.Client) -> None:
    ada = {"authorization": "Bearer ada"}
    assert client.post("/guarded").status_code == 401
    response = client.post("/guarded", headers=ada | WAITS)
    assert response.text == "ada"
    path = response.headers["location"]
    assert [client.get(path, headers=each).status_code for each in (ada, {})] == [200, 401]


def test_other_service_submits_and_calls(url: str) -> None:
    async def main() -> None:
        async with at_work(Service(unused), Settings(services=f"submitted_app={url}")):
            assert await call(app.train, app.Recipe(2, "b")) == app.Summary(0.5, "b")
            job = await submit(app.train, app.Recipe(4), after=0.2, priority=1)
            assert (await job.status()).state == "scheduled"
            assert await job.result(timeout=20) == app.Summary(0.25, "")
            with pytest.raises(HTTPError, match="418 It is a teapot"):
                await call(app.teapot)

    asyncio.run(main())
