"""artifact_pools.py: which versions the program of a pool gets, and what a drain shows."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from swap_pools import NotingPool, artifact_pool, endpoint_with, status
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.models.artifact_version import ArtifactVersion
from tinysvc.pool.external import ExternalPool
from tinysvc.runtime.artifact_pools import SwappablePool, program_of, references_of
from tinysvc.runtime.cpu_endpoints import CpuProgram

VERSIONS = {
    name: ArtifactVersion(name.partition("@")[0], number, "/copies", name, {})
    for name, number in (("churn@production", 8), ("words@3", 3), ("other@1", 1))
}
ENDPOINTS = [endpoint_with("words@3", "churn@production"), endpoint_with(), endpoint_with("words@3", "new@staging")]


def test_program_has_the_versions_of_its_endpoints_only() -> None:
    program = program_of(ENDPOINTS, VERSIONS)
    assert list(program.artifacts) == ["churn@production", "words@3"]
    assert (program.label, CpuProgram([]).label) == ("churn@8, words@3", "")
    assert references_of(ENDPOINTS) == ["churn@production", "new@staging", "words@3"]


@pytest.mark.asyncio
async def test_pool_is_unloaded_during_a_swap_with_a_drain_only() -> None:
    for drains in (False, True):
        pool = NotingPool("default")
        pool.may_end.clear()
        artifacts = artifact_pool(pool, "churn@production", drains=drains)
        swap = asyncio.create_task(artifacts.swap(VERSIONS))
        await asyncio.sleep(0)
        assert artifacts.is_unloaded == drains
        pool.may_end.set()
        await swap
        assert (artifacts.is_unloaded, pool.labels) == (False, ["churn@8"])


def test_pool_uses_its_own_artifacts() -> None:
    pool = NotingPool("default")
    artifacts = artifact_pool(pool, "churn@production", "new@staging")
    assert artifacts.uses({"new@staging"})
    assert not artifacts.uses({"words@3"})
    assert artifacts.label(VERSIONS) == "churn@8"
    pool.statuses = [status("churn@7, words@3"), status("churn@8, words@3")]
    assert artifacts.labels_in_use() == {"churn@7", "churn@8", "words@3"}


def test_only_pools_of_our_own_can_be_swapped() -> None:
    assert isinstance(ProcessPoolExecutor(1), SwappablePool)
    with ThreadPoolExecutor() as executor:
        assert not isinstance(ExternalPool(executor, CpuProgram([])), SwappablePool)
