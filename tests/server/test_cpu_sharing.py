"""cpu_sharing.py: grpcio's threads have the policy SCHED_BATCH where no other process uses their CPUs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Set
from contextlib import closing
from math import isnan, nan

import pytest

import rpc_app
from rpc_ends import rpc_client, rpc_server
from system import until
from tinysvc import Service
from tinysvc.server import cpu_sharing
from tinysvc.server.cpu_sharing import CpuSharing, grpc_threads, used_time
from tinysvc.server.cpu_slice import SHORT, USUAL, has_usual_policy

has_policies = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no SCHED_BATCH")


class Load:
    """Others use this part of the time of all CPUs."""

    def __init__(self) -> None:
        self.part = 0.0

    def used(self, cpus: Set[int]) -> float:
        return time.process_time() + self.part * time.monotonic() * len(cpus)


class Calls:
    """The count of calls, which grows at each look."""

    def __init__(self, at_each_look: int) -> None:
        self.at_each_look = at_each_look
        self.looks = 0

    def begun(self) -> int:
        self.looks += 1
        return self.looks * self.at_each_look


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    found = Load()
    monkeypatch.setattr(cpu_sharing, "used_time", found.used)
    monkeypatch.setattr(cpu_sharing, "LOOK", 0.1)
    return found


@has_policies
@pytest.mark.asyncio
async def test_threads_follow_the_load_of_others(load: Load) -> None:
    def have(policy: int) -> bool:
        threads = grpc_threads()
        return len(threads) > 1 and all(os.sched_getscheduler(thread) == policy for thread in threads)

    async with rpc_server(Service(rpc_app.hello)) as server, rpc_client(server) as client:

        async def call_until(policy: int) -> None:
            async with asyncio.timeout(30):
                while not have(policy):
                    await client.call(rpc_app.hello, name="Ada")

        await call_until(os.SCHED_BATCH)
        assert has_usual_policy()  # the loop
        load.part = 0.5
        await call_until(os.SCHED_OTHER)
        load.part = 0.0
        await call_until(os.SCHED_BATCH)
        assert server._grpc is not None
        server._grpc._sharing.close()
        assert have(os.SCHED_OTHER)


@has_policies
@pytest.mark.asyncio
async def test_loop_has_its_usual_slice_while_its_cpus_are_its_own(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    slices: list[int] = []
    monkeypatch.setattr(cpu_sharing, "request_slice", slices.append)
    calls = Calls(at_each_look=1)
    with closing(CpuSharing(calls.begun, has_workers=True)):
        await until(lambda: len(slices) == 1)
        load.part = 0.5
        await until(lambda: len(slices) == 2)
    assert slices == [USUAL, SHORT]


@has_policies
@pytest.mark.asyncio
async def test_nothing_changes_without_calls(load: Load) -> None:
    calls = Calls(at_each_look=0)
    with closing(CpuSharing(calls.begun, has_workers=False)) as sharing:
        await until(lambda: calls.looks > 3)
        assert not sharing._is_alone


@has_policies
@pytest.mark.asyncio
async def test_measurement_that_took_too_long_counts_nothing(load: Load) -> None:
    """A process that was stopped finds the CPU time of all that ran meanwhile, and so does a blocked loop."""
    calls = Calls(at_each_look=1)
    with closing(CpuSharing(calls.begun, has_workers=False)) as sharing:
        await until(lambda: sharing._is_alone)
        load.part = 0.5
        sharing._last = sharing._last._replace(time=time.monotonic() - 10)
        sharing._look()
        assert sharing._is_alone


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")
def test_used_time_of_own_cpus_grows_with_work() -> None:
    cpus = os.sched_getaffinity(0)
    begin = used_time(cpus)
    assert begin > 0
    while used_time(cpus) == begin:
        sum(range(10_000))
    assert isnan(used_time(set()))


@has_policies
@pytest.mark.asyncio
async def test_usual_policy_stays_where_the_time_of_others_is_unknown(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose /proc/stat has other numbers of CPUs."""
    monkeypatch.setattr(cpu_sharing, "used_time", lambda cpus: nan)
    calls = Calls(at_each_look=1)
    with closing(CpuSharing(calls.begun, has_workers=False)) as sharing:
        await until(lambda: calls.looks > 3)
        assert not sharing._is_alone


@pytest.mark.asyncio
async def test_system_without_the_policy_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "SCHED_BATCH", raising=False)
    sharing = CpuSharing(lambda: 0, has_workers=True)
    assert sharing._timer is None
    sharing.close()


@has_policies
def test_policy_of_the_operator_stays() -> None:
    code = """
import asyncio, os
from tinysvc.server.cpu_sharing import CpuSharing
async def main() -> None:
    assert CpuSharing(lambda: 0, has_workers=True)._timer is None
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
