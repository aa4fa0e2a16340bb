"""list_page.py: the responses of /jobs and /jobs.json; jobs_page/ itself is tested in test_jobs_page.py."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from jobs_page_app import ROUTES
from memory_store import MemoryStore
from tinysvc import Request
from tinysvc.core.errors import BindingError
from tinysvc.core.settings import Settings
from tinysvc.jobs.records import NewJob
from tinysvc.jobs.requests.list_page import jobs_pages, shows_jobs_page

pytestmark = pytest.mark.asyncio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(clock=lambda: 1000.0)


async def listed(store: MemoryStore, query: str = "") -> Any:
    response = await jobs_pages(store, ROUTES)["/jobs.json"](Request("GET", "/jobs.json", query))
    assert dict(response.headers)["cache-control"] == "no-store"
    assert isinstance(response.content, bytes)
    return orjson.loads(response.content)


async def submitted(store: MemoryStore, route: str = "/trainings", **options: Any) -> str:
    return (await store.submit(NewJob(route=route, path=route, request=b"", **options))).record.id


async def test_list_has_documents_counts_and_routes(store: MemoryStore) -> None:
    job_id = await submitted(store, due=2000.0, key="user-7")
    found = await listed(store)
    (job,) = found["jobs"]
    assert (job["id"], job["key"], job["due"]) == (job_id, "user-7", "1970-01-01T00:33:20Z")
    assert job["links"]["cancel"] == f"/trainings/{job_id}"
    counts = {"scheduled": 1, "queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
    assert (found["counts"], found["routes"]) == (counts, list(ROUTES))
    assert (found["has_more"], found["problem"]) == (False, "")


async def test_list_is_filtered_and_limited(store: MemoryStore) -> None:
    trainings = [await submitted(store) for _ in range(3)]
    imported = await submitted(store, "/imports")
    await store.cancel(trainings[0])
    for query, expected, has_more in (
        ("route=/imports", [imported], False),
        ("state=cancelled", [trainings[0]], False),
        ("route=/trainings&limit=2", [trainings[2], trainings[1]], True),
    ):
        found = await listed(store, query)
        assert ([job["id"] for job in found["jobs"]], found["has_more"]) == (expected, has_more)


@pytest.mark.parametrize("query", ["state=done", "limit=0", "limit=201", "limit=x", "limit=%D9%A3"])
async def test_wrong_filter_is_422(store: MemoryStore, query: str) -> None:
    with pytest.raises(BindingError, match=f"422 query.{query.partition('=')[0]}: it is "):
        await listed(store, query)


async def test_page_needs_a_setting_or_reload() -> None:
    assert not shows_jobs_page(Settings())
    assert shows_jobs_page(Settings(jobs_page=True))
    assert shows_jobs_page(Settings(reload=True))
