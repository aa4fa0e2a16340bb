"""artifact_caching.py: a cached result belongs to the version that computed it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from system import until
from tinysvc import Request, Response, cpu_route
from tinysvc.runtime.artifact_caching import VersionedCachedRoute
from tinysvc.runtime.caching import ResponseCache
from tinysvc.service.routes import recorded

on_loop = pytest.mark.asyncio


class Workers:
    """A handler whose workers are of one version, while the server process serves another or the same one."""

    def __init__(self) -> None:
        self.served = self.version = "churn@7"
        self.calls = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self, request: Request) -> Response:
        self.calls += 1
        version = self.version
        await self.may_end.wait()
        return Response(version.encode(), headers={"x-artifact": version} if version else {})


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def route(workers: Workers) -> VersionedCachedRoute:
    @cpu_route("/x", cache=60)
    def function() -> None: ...

    found: Any = recorded(function)[0]
    return VersionedCachedRoute(workers, found, ResponseCache(1_000_000), [], False, served=lambda: workers.served)


async def ask(route: VersionedCachedRoute) -> bytes:
    return bytes((await route(Request("GET", "/x"))).content)


@on_loop
async def test_result_is_kept_for_its_version(workers: Workers, route: VersionedCachedRoute) -> None:
    assert [await ask(route), await ask(route), workers.calls] == [b"churn@7", b"churn@7", 1]
    workers.served = workers.version = "churn@8"
    assert [await ask(route), await ask(route), workers.calls] == [b"churn@8", b"churn@8", 2]
    workers.served = "churn@7"  # back
    assert [await ask(route), workers.calls] == [b"churn@7", 2]


@on_loop
async def test_result_of_the_old_version_that_ends_after_the_swap_is_not_found(
    workers: Workers, route: VersionedCachedRoute
) -> None:
    workers.may_end.clear()
    late = asyncio.ensure_future(ask(route))
    await until(lambda: workers.calls == 1)
    workers.served = workers.version = "churn@8"
    workers.may_end.set()
    assert await late == b"churn@7"
    assert await ask(route) == b"churn@8"


@on_loop
async def test_result_of_a_worker_that_is_renewed_first_is_found_after_the_swap(
    workers: Workers, route: VersionedCachedRoute
) -> None:
    workers.version = "churn@8"
    assert await ask(route) == b"churn@8"
    workers.served = "churn@8"
    assert [await ask(route), workers.calls] == [b"churn@8", 1]


@on_loop
async def test_result_without_an_artifact_is_kept_as_long_as_there_is_none(
    workers: Workers, route: VersionedCachedRoute
) -> None:
    workers.served = workers.version = ""
    assert [await ask(route), await ask(route), workers.calls] == [b"", b"", 1]
