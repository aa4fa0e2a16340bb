"""Further tests of the contract of tinysvc/jobs/store.py: odd values, and many callers at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from postgres_stores import claimed, new_job, record_of, submitted
from tinysvc.core.job_errors import TooManyWaiting
from tinysvc.jobs.store import Store


@pytest.mark.asyncio
class StoreEdges:
    """Subclasses have a fixture `store`."""

    async def test_unknown_ids_are_not_found(self, store: Store) -> None:
        for job_id in ("0" * 32, "", "x" * 5000, "\N{SNOWMAN}", "\0" * 32):
            assert await store.get(job_id) is None
            assert await store.result(job_id) is None
            assert (await store.cancel(job_id)).kind == "unknown"
            assert await store.retry(job_id) is None
            assert not await store.save(job_id, 1, b"")

    async def test_limit_of_waiting_jobs_is_exact(self, store: Store) -> None:
        later = time.time() + 1000
        results = await asyncio.gather(
            *(store.submit(new_job(max_waiting=3, due=later if number % 2 else None)) for number in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, TooManyWaiting) for each in results) == 5
        assert (await store.submit(new_job("/other", max_waiting=3))).is_new
        await claimed(store)
        assert (await store.submit(new_job(max_waiting=3))).is_new

    async def test_many_claims_at_once_start_each_job_once(self, store: Store) -> None:
        jobs = {(await submitted(store)).id for _ in range(12)}
        found = await asyncio.gather(*(store.claim({"/trainings": 3}, 3) for _ in range(8)))
        started = [each.record.id for some in found for each in some]
        assert sorted(started) == sorted(jobs)

    async def test_any_path_can_be_listed(self, store: Store) -> None:
        for path in ("/\0", "/\N{SNOWMAN}", "/" + "x" * 5000, ""):
            job = await submitted(store, path=path)
            assert (await record_of(store, job.id)).path == path
            assert [each.id for each in (await store.page("/trainings", None, 5, "", path)).records] == [job.id]

    async def test_page_refuses_a_cursor_that_is_none(self, store: Store) -> None:
        await submitted(store)
        with pytest.raises(ValueError, match=r"."):
            await store.page(None, None, 5, "nonsense")

    async def test_each_tick_is_accepted_once(self, store: Store) -> None:
        assert await store.last_tick("daily") is None
        assert not await store.schedule("daily", 100.0, None)
        assert await store.last_tick("daily") == 100.0
        assert not await store.schedule("daily", 150.0, None)
        assert await store.last_tick("daily") == 100.0
        answers = await asyncio.gather(*(store.schedule("daily", 200.0, new_job()) for _ in range(5)))
        assert sorted(answers) == [False] * 4 + [True]
        assert not await store.schedule("daily", 150.0, new_job())
        assert await store.schedule("other", 150.0, new_job())
        assert (await store.page(None, None, 5, "")).counts == {"queued": 2}
