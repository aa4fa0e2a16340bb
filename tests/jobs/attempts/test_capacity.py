"""capacity.py: how many attempts may begin."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pytest

import runner_jobs
from http_ends import logged
from tinysvc import Retry, Service
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.jobs.attempts.capacity import Capacity
from tinysvc.runtime.durable_jobs import DurablePlace
from tinysvc.service.job_routes import job_route
from tinysvc.service.plan import plans_of


class Placed(NamedTuple):
    place: DurablePlace
    is_slow: bool = False


def places(pool: Any, *, shares_pool: bool = False) -> list[DurablePlace]:
    @job_route("/limited", limit=2)
    def limited() -> None: ...

    plans = plans_of(Service(runner_jobs.add, limited))
    return [DurablePlace(plan, pool, number, None, shares_pool) for number, plan in enumerate(plans)]


def test_attempts_fill_the_workers_and_the_limits_of_the_routes() -> None:
    pool = ProcessPoolExecutor(4)
    first, limited = places(pool)
    capacity, wanted = Capacity([first, limited]), {"/sums", "/limited"}
    assert capacity.pools == [pool]
    assert capacity.free(pool, wanted, []) == ({"/sums": 4, "/limited": 2}, 4)
    assert capacity.free(pool, {"/sums"}, [Placed(first)]) == ({"/sums": 3}, 3)
    assert capacity.free(pool, wanted, [Placed(limited), Placed(limited)]) == ({"/sums": 2}, 2)
    assert capacity.free(pool, wanted, [Placed(first)] * 4) == ({}, 0)


def test_one_worker_is_left_for_cpu_routes() -> None:
    pool = ProcessPoolExecutor(3)
    first, _ = found = places(pool, shares_pool=True)
    assert Capacity(found).free(pool, {"/sums"}, []) == ({"/sums": 2}, 2)
    assert Capacity(found).free(pool, {"/sums"}, [Placed(first), Placed(first)]) == ({}, 0)


def test_pool_of_one_worker_that_also_serves_cpu_routes_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    pool = ProcessPoolExecutor(1)
    found = places(pool, shares_pool=True)
    assert Capacity(found).free(pool, {"/sums"}, []) == ({"/sums": 1}, 1)
    (warning,) = logged(caplog)
    assert warning.startswith("the pool default has one worker, for cpu routes and for durable jobs")


def test_short_attempts_are_claimed_ahead() -> None:
    pool = ProcessPoolExecutor(2)
    first, _ = found = places(pool)
    capacity = Capacity(found)
    assert capacity.free(pool, {"/sums"}, []) == ({"/sums": 2}, 2), "nothing is known of it yet"
    capacity.note("/sums", 0.002)
    assert capacity.free(pool, {"/sums"}, []) == ({"/sums": 20}, 20)
    assert capacity.free(pool, {"/sums"}, [Placed(first)] * 12) == ({"/sums": 8}, 8)
    for _ in range(20):
        capacity.note("/sums", 10.0)
    assert capacity.free(pool, {"/sums"}, []) == ({"/sums": 2}, 2), "it has become long"
    capacity.note("/sums", -1e6)
    assert capacity.free(pool, {"/sums"}, []) == ({"/sums": 66}, 66), "no more than MOST_AHEAD"


def test_long_attempt_begins_before_further_short_ones() -> None:
    pool = ProcessPoolExecutor(2)
    first, limited = found = places(pool)
    capacity, wanted = Capacity(found), {"/sums", "/limited"}
    capacity.note("/sums", 0.002)
    assert capacity.free(pool, wanted, []) == ({"/sums": 20, "/limited": 2}, 20)
    assert capacity.free(pool, wanted, [Placed(first)]) == ({"/sums": 19, "/limited": 1}, 19)
    assert capacity.free(pool, wanted, [Placed(first)] * 2) == ({}, 0), "until a worker is free"
    assert capacity.free(pool, {"/sums"}, [Placed(limited)]) == ({"/sums": 10}, 10), "one worker takes short ones"
    assert capacity.free(pool, {"/sums"}, [Placed(first, is_slow=True)]) == ({"/sums": 10}, 10)
    assert capacity.free(pool, {"/sums"}, [Placed(limited)] * 2) == ({}, 0)


def test_big_requests_are_not_claimed_far_ahead() -> None:
    pool = ProcessPoolExecutor(2)
    capacity = Capacity(places(pool))
    capacity.note("/sums", 0.001, size=4 << 20)
    assert capacity.free(pool, {"/sums"}, []) == ({"/sums": 4}, 4)
    capacity.note("/sums", 0.001, size=400 << 20)
    assert capacity.free(pool, {"/sums"}, []) == ({"/sums": 2}, 2)


def test_pool_with_cpu_routes_claims_nothing_ahead() -> None:
    pool = ProcessPoolExecutor(3)
    capacity = Capacity(found := places(pool, shares_pool=True))
    capacity.note("/sums", 0.001)
    assert capacity.free(pool, {"/sums"}, []) == ({"/sums": 2}, 2)
    assert capacity.share(found[0]) == 2


def test_job_that_may_start_once_only_is_not_claimed_ahead() -> None:
    @job_route("/once", retry=Retry(attempts=1))
    def once() -> None: ...

    pool = ProcessPoolExecutor(2)
    place = DurablePlace(next(plans_of(Service(once))), pool, 0, None, False)
    capacity = Capacity([place])
    capacity.note("/once", 0.001)
    assert capacity.free(pool, {"/once"}, []) == ({"/once": 2}, 2)


def test_each_pool_has_its_own_room() -> None:
    one, other = ProcessPoolExecutor(1), ProcessPoolExecutor(2)
    first, second = places(one)[0], places(other)[1]
    capacity = Capacity([first, second])
    assert capacity.pools == [one, other]
    assert capacity.free(one, {"/sums", "/limited"}, [Placed(second)]) == ({"/sums": 1}, 1)
    assert capacity.free(other, {"/sums", "/limited"}, [Placed(second)]) == ({"/limited": 1}, 1)
