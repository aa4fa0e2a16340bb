"""running_attempt.py: an attempt that is lost tells the store nothing. Its other ends are in test_runner.py."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlencode

import pytest

import runner_jobs
from http_ends import logged, on_loop
from memory_store import MemoryStore
from system import exists
from tinysvc import Service
from tinysvc.core.settings import Settings
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.jobs.attempts.attempt_answers import AttemptAnswers
from tinysvc.jobs.attempts.running_attempt import RunningAttempt, StopReason
from tinysvc.jobs.records import NewJob, State
from tinysvc.jobs.stored_request import StoredRequest, encode_request
from tinysvc.runtime.checks import endpoint_of
from tinysvc.runtime.cpu_endpoints import CpuProgram
from tinysvc.runtime.durable_jobs import DurablePlace
from tinysvc.service.plan import plans_of

pytestmark = pytest.mark.usefixtures("nothing_left")


async def state_after(reasons: list[StopReason], folder: Path) -> State:
    """The state of a durable job whose attempt is stopped for these reasons, one after the other."""
    (plan,) = plans_of(Service(runner_jobs.wait))
    pool = ProcessPoolExecutor(1, program=CpuProgram([endpoint_of(plan, Settings())]))
    store = MemoryStore()
    answers = AttemptAnswers(store, lambda _: None)
    query = urlencode({"started": folder / "started", "go": folder / "go"})
    request = encode_request(StoredRequest(method="POST", path="/waits", query=query))
    await store.submit(NewJob(route="/waits", request=request))
    async with pool:
        (claimed,) = await store.claim({"/waits": 1}, 1)
        attempt = RunningAttempt(claimed, DurablePlace(plan, pool, 0, None, False), 30, store, answers, lambda _: None)
        await exists(folder / "started")
        for reason in reasons:
            attempt.stop(reason)
            await asyncio.sleep(0)
        await attempt.task
    return store.records[claimed.record.id].state


@on_loop
async def test_lost_attempt_writes_nothing_to_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await state_after(["lost"], tmp_path) == State.RUNNING
    (message,) = logged(caplog)
    assert message.endswith("(/waits) was stopped, and its end is not reported")


@on_loop
async def test_attempt_that_is_lost_while_it_is_stopped_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await state_after(["shutdown", "lost"], tmp_path) == State.RUNNING
    assert len(logged(caplog)) == 1


@on_loop
async def test_first_reason_of_a_stop_holds(tmp_path: Path) -> None:
    assert await state_after(["shutdown", "cancelled"], tmp_path) == State.QUEUED
