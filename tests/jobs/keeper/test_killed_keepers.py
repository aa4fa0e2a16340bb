"""Real processes share a store in a file; the keeper, and others, are killed with SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import store_process
from system import wait_until

HANDOVER = 2.0
"""Seconds in which another process must have taken over."""


class Process:
    def __init__(self, path: Path, owner: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, store_process.__file__, str(path), owner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.owner = owner

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process {self.owner} has ended"
        return line.strip()

    def __call__(self, *command: Any) -> Any:
        assert self.process.stdin is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return json.loads(self.read())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def is_keeper(self) -> bool:
        return bool(self("role")["keeper"])


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[Process]]:
    found = [Process(tmp_path / "jobs.db", f"owner-{number}") for number in range(3)]
    try:
        for process in found:
            assert process.read() == "ready"
        found.sort(key=Process.is_keeper, reverse=True)
        yield found
    finally:
        for process in found:
            process.kill()


def test_accepted_jobs_outlive_each_keeper(processes: list[Process]) -> None:
    accepted: dict[str, str] = {}
    while len(processes) > 1:
        keeper, *others = processes
        assert [each.is_keeper() for each in processes] == [True] + [False] * len(others)
        for process in processes:
            key = f"{process.owner} beside {len(others)}"
            accepted[key] = process("submit", key)
        keeper.process.kill()
        began = time.monotonic()
        accepted["during"] = others[0]("submit", "during")
        assert time.monotonic() - began < HANDOVER
        keeper.kill()
        wait_until(lambda others=others: any(map(Process.is_keeper, others)), "another process is the keeper")
        processes[:] = sorted(others, key=Process.is_keeper, reverse=True)
        for key, job_id in accepted.items():
            assert processes[0]("submit", key) == job_id, "the same key gives the same job"


def test_attempt_of_a_living_process_goes_on_over_a_handover(processes: list[Process]) -> None:
    keeper, other, third = processes
    ids = [keeper("submit", key) for key in "ab"]
    [[of_keeper, _]], [[of_other, attempt]] = keeper("claim"), other("claim")
    assert sorted(ids) == sorted([of_keeper, of_other])
    keeper.kill()
    wait_until(lambda: other("record", of_keeper)["state"] == "queued", "the attempt of the dead keeper has ended")
    assert other("record", of_keeper)["causes"] == ["server-died"]
    assert third("record", of_other)["owner"] == other.owner
    assert other("finish", of_other, attempt)
    assert third("claim") == [[of_keeper, 2]]


def test_attempt_waits_for_a_process_that_a_job_left_behind(processes: list[Process]) -> None:
    keeper, other, _ = processes
    job_id = keeper("submit", "a")
    assert other("claim") == [[job_id, 1]]
    left_behind = other("fork")
    other.kill()
    try:
        time.sleep(0.2)
        assert keeper("record", job_id)["state"] == "running"
    finally:
        os.kill(left_behind, signal.SIGKILL)
    wait_until(lambda: keeper("record", job_id)["state"] == "queued", "the attempt has ended")


def test_process_that_the_keeper_left_behind_does_not_hide_its_death(processes: list[Process]) -> None:
    keeper, *others = processes
    job_id = keeper("submit", "a")
    assert keeper("claim") == [[job_id, 1]]
    left_behind = keeper("fork")
    keeper.kill()
    try:
        wait_until(lambda: any(map(Process.is_keeper, others)), "another process is the keeper")
        assert others[0]("record", job_id)["state"] == "running", "the process that is left behind holds its lock"
    finally:
        os.kill(left_behind, signal.SIGKILL)
    wait_until(lambda: others[0]("record", job_id)["state"] == "queued", "the attempt has ended")
