"""`kill -9` of a worker at each step of its attempt, and of the keeper of several server processes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from killed_servers import Servers


def test_killed_worker_uses_one_attempt_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with ExitStack() as processes:
        servers = Servers(tmp_path, processes)
        servers.start()
        for step in ("worker:in-step", "worker:after-save", "worker:before-return"):
            servers.arm(step)
            job = servers.submit(step)
            first, last = servers.succeeded(job)["attempts"]
            assert (first["cause"], first["counts"], last["cause"]) == ("worker-died", True, "succeeded")
            assert "SIGKILL" in first["detail"]
            assert servers.attempts(job) == [1, 2]
        servers.check()


def test_killed_keeper_of_several_server_processes_loses_nothing(tmp_path: Path) -> None:
    steps = [
        f"{when}-commit:{event}" for event in ("accepted", "claim", "save", "finish") for when in ("before", "after")
    ]
    with ExitStack() as processes:
        servers = Servers(tmp_path, processes, "--workers", "2")
        servers.start()
        for step in [*steps, "after-file"]:
            servers.arm(step)
            job = servers.submit(step, steps=5, size=200_000)
            servers.wait_for_kill()
            document = servers.succeeded(job, 200_000)
            assert len(document["attempts"]) <= 2, (step, document)
        assert len(servers.patiently("GET", "/works").json()["jobs"]) == len(steps) + 1
        servers.check()
