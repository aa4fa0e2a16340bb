"""`kill -9` of a server at each step of a durable job: what was accepted is kept, and what was saved is not done again.

One server after the other has the same store. Each dies at one step, and the next one recovers from that.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from killed_servers import Servers
from postgres import Postgres
from system import wait_until


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as processes:
        servers = Servers(tmp_path, processes, "--shutdown-timeout", "0.5")
        servers.start()
        yield servers
        servers.check()


def submit_in_vain(servers: Servers, key: str) -> None:
    with pytest.raises(httpx.TransportError):
        servers.request("POST", "/works", json={}, headers={"idempotency-key": key})


def test_killed_around_the_acceptance_keeps_one_job(servers: Servers) -> None:
    for step in ("before-commit:accepted", "after-commit:accepted"):
        servers.arm(step)
        submit_in_vain(servers, step)
        servers.restart()
        job = servers.submit(step)
        assert servers.succeeded(job)["attempts"][-1]["cause"] == "succeeded"
        assert servers.attempts(job) == [1]
    job = servers.submit("after the 202")
    servers.kill()
    servers.succeeded(job)
    assert len(servers.request("GET", "/works").json()["jobs"]) == 3


STEPS = [
    "before-commit:claim",
    "after-commit:claim",
    "before-commit:save",
    "after-commit:save",
    "after-file",
    "before-commit:finish",
    "after-commit:finish",
    "before-commit:fail",
    "after-commit:fail",
]


def test_killed_while_a_job_runs_goes_on_from_its_last_save(servers: Servers) -> None:
    for step in STEPS:
        fails = int("fail" in step)
        servers.arm(step)
        with suppress(httpx.TransportError):
            servers.request("POST", "/works", json={"size": 200_000, "fails": fails}, headers={"idempotency-key": step})
        servers.restart()
        job = servers.submit(step, size=200_000, fails=fails)
        document = servers.succeeded(job, 200_000)
        assert len(document["attempts"]) <= 2 + fails, (step, document)
        if step == "after-commit:finish":
            assert servers.attempts(job) == [1]


def test_killed_around_a_cancel_stays_cancelled(servers: Servers) -> None:
    servers.close_gate()
    for step in ("before-commit:cancel", "after-commit:cancel", "before-commit:stopped", "after-commit:stopped"):
        job = servers.submit(step, steps=50, gated=True)
        wait_until(servers.noted("saved", job, 1, 0), "the job runs")
        servers.arm(step)
        with pytest.raises(httpx.TransportError):
            servers.request("DELETE", f"/works/{job}")
        servers.restart()
        assert servers.request("DELETE", f"/works/{job}").status_code == 200
        assert servers.document(job)["state"] == "cancelled"
        if step != "before-commit:cancel":
            assert servers.attempts(job) == [1]


def test_killed_around_a_retry_of_a_failed_job(servers: Servers) -> None:
    for step in ("before-commit:retry", "after-commit:retry"):
        job = servers.submit(step, "/refusals")
        assert servers.ended(job, "/refusals")["state"] == "failed"
        servers.arm(step)
        with pytest.raises(httpx.TransportError):
            servers.request("POST", f"/refusals/{job}/retry")
        servers.restart()
        if step == "before-commit:retry":
            assert servers.document(job, "/refusals")["state"] == "failed"
            assert servers.request("POST", f"/refusals/{job}/retry").status_code == 202
        assert servers.ended(job, "/refusals")["state"] == "succeeded"
        assert servers.attempts(job) == [1, 2]


def test_killed_in_a_shutdown_requeues_its_jobs(servers: Servers) -> None:
    for step, cause in (("before-commit:release", "server-died"), ("after-commit:release", "shutdown")):
        servers.close_gate()
        job = servers.submit(step, gated=True)
        wait_until(servers.noted("saved", job, 1, 0), "the job runs")
        servers.arm(step)
        servers.server.process.send_signal(signal.SIGTERM)
        servers.restart()
        servers.open_gate()
        first, last = servers.succeeded(job)["attempts"]
        assert (first["cause"], first["counts"], last["cause"]) == (cause, cause == "server-died", "succeeded")


def test_killed_in_the_recovery_recovers_again(servers: Servers) -> None:
    servers.close_gate()
    job = servers.submit("lapse", gated=True)
    wait_until(servers.noted("saved", job, 1, 0), "the job runs")
    servers.server.process.kill()
    servers.wait_for_death()
    for step in ("before-commit:lapse", "after-commit:lapse"):
        servers.arm(step)
        servers.die_at_start()
        servers.open_gate()
        servers.start()
        servers.succeeded(job)
        assert servers.attempts(job)[:2] == [1, 2]
        servers.close_gate()
        job = servers.submit(f"again {step}", gated=True)
        wait_until(servers.noted("saved", job, 1, 0), "the job runs")
        servers.server.process.kill()
        servers.wait_for_death()


POSTGRES_STEPS = ["before-commit:claim", "after-commit:save", "before-commit:finish", "after-commit:finish"]


def test_killed_server_of_several_machines_loses_nothing(tmp_path: Path, postgres: Postgres) -> None:
    """With PostgreSQL, a job goes on when the lease of its dead server is over."""
    with ExitStack() as processes:
        servers = Servers(tmp_path, processes, "--jobs", asyncio.run(postgres.create_schema()))
        servers.start()
        kill_at_each_step(servers)


def kill_at_each_step(servers: Servers) -> None:
    for step in ("before-commit:accepted", "after-commit:accepted"):
        servers.arm(step)
        submit_in_vain(servers, step)
        servers.restart()
        servers.succeeded(servers.submit(step))
    for step in POSTGRES_STEPS:
        servers.arm(step)
        with suppress(httpx.TransportError):
            servers.request("POST", "/works", json={"size": 200_000}, headers={"idempotency-key": step})
        servers.restart()
        servers.succeeded(servers.submit(step, size=200_000), 200_000)
    assert len(servers.request("GET", "/works").json()["jobs"]) == 2 + len(POSTGRES_STEPS)
    servers.check()
