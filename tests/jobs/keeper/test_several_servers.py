"""Several server processes with one store in a file, as a user starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import several_servers_app
from commands import Served, failed, served, tinysvc
from system import descendants, is_alive, parent, wait_until, workers_below
from tinysvc.jobs.keeper.locks import pid_in

HANDOVER = 2.0
"""Seconds in which another process must have taken over."""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """A server of two processes, and its folder."""
    folder = app_in(tmp_path_factory.mktemp("two"))
    with served(*tinysvc("app.py", "--workers", "2", "--cpu-workers", "2"), cwd=folder) as server:
        yield server, folder


def app_in(folder: Path) -> Path:
    shutil.copy(several_servers_app.__file__, folder / "app.py")
    return folder


def started(server: Served, **query: Any) -> str:
    """Submit a job. Returns its path."""
    response = httpx.post(f"{server.url}/sleeps", params=query, timeout=20)
    assert response.status_code == 202, response.text
    return response.headers["location"]


def document(server: Served, path: str) -> dict[str, Any]:
    answered: dict[str, Any] = server.get(path).json()
    return answered


def running(server: Served, path: str) -> dict[str, Any]:
    """The document of a job whose attempt has reported its progress."""
    found: list[dict[str, Any]] = []

    def runs() -> bool:
        found[:] = [document(server, path)]
        return found[0]["state"] == "running" and bool(found[0]["values"])

    wait_until(runs, "the job runs")
    return found[0]


def has(server: Served, path: str, state: str) -> Callable[[], bool]:
    return lambda: document(server, path)["state"] == state


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *("-m", "tinysvc", "app.py", *arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def server_of(pid: int) -> int:
    """The server process of a worker."""
    return parent(parent(pid))


def test_jobs_of_two_server_processes_are_listed_and_cancelled_by_both(two_processes: tuple[Served, Path]) -> None:
    server, folder = two_processes
    paths = [started(server, seconds=50) for _ in range(2)]
    first, second = [running(server, path) for path in paths]
    workers = [first["values"]["worker"], second["values"]["worker"]]
    assert server_of(workers[0]) != server_of(workers[1]), "each server process runs one of them"
    listed = command(folder, "--jobs", "running", "--json")
    assert {json.loads(line)["id"] for line in listed.stdout.splitlines()} == {first["id"], second["id"]}
    assert command(folder, "--cancel-job", first["id"]).returncode == 0
    assert not is_alive(workers[0])
    for _ in range(3):  # each may reach either process
        with httpx.Client(base_url=server.url, timeout=20) as client:
            assert client.delete(paths[1]).json()["state"] == "cancelled"
    assert not is_alive(workers[1])


def test_attempts_go_on_when_the_keeper_is_killed(two_processes: tuple[Served, Path]) -> None:
    server, folder = two_processes
    paths = [started(server, seconds=2) for _ in range(2)]
    by_server = {server_of(running(server, path)["values"]["worker"]): path for path in paths}
    keeper = pid_in(folder / "jobs.db-lock")
    of_keeper = by_server.pop(keeper)
    [of_other] = by_server.values()
    os.kill(keeper, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: pid_in(folder / "jobs.db-lock") != keeper, "another process is the keeper")
    assert time.monotonic() - killed < HANDOVER
    wait_until(has(server, of_keeper, "succeeded"), "the job of the dead keeper has run again")
    wait_until(has(server, of_other, "succeeded"), "the other job has run")
    assert server.get(f"{of_keeper}/result").json() == 2
    assert server.get(f"{of_other}/result").json() == 1


@pytest.mark.usefixtures("nothing_left")
def test_second_server_stands_by_and_one_of_another_service_is_refused(tmp_path: Path) -> None:
    folder = app_in(tmp_path)
    shutil.copy(folder / "app.py", folder / "other.py")
    with served(*tinysvc("app.py"), cwd=folder) as first:
        path = started(first, seconds=0)
        with served(*tinysvc("app.py"), cwd=folder) as second:
            wait_until(has(second, path, "succeeded"), "the job has run")
            status, errors = failed(*tinysvc("other.py"), cwd=folder)
            assert status == 3
            assert "belongs to the service 'app'" in errors
            assert "--jobs other.db" in errors
            first.process.terminate()
            first.process.wait(20)
            path = started(second, seconds=0)
            wait_until(has(second, path, "succeeded"), "the job has run")
            assert pid_in(folder / "jobs.db-lock") == second.pid


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_restart_names_the_process_that_a_job_left_behind(tmp_path: Path) -> None:
    folder = app_in(tmp_path)
    with served(*tinysvc("app.py"), cwd=folder) as server:
        path = started(server, seconds=50, forks=True)
        values = running(server, path)["values"]
        [forkserver] = {parent(each) for each in workers_below(server.pid)}
        os.kill(forkserver, signal.SIGSTOP)  # else it kills the process with its worker
        os.kill(server.pid, signal.SIGKILL)
        os.kill(forkserver, signal.SIGKILL)
    left_behind = values["left_behind"]
    try:
        wait_until(lambda: not is_alive(values["worker"]), "the worker is dead")
        with served(*tinysvc("app.py"), cwd=folder) as server:
            assert document(server, path)["state"] == "running"
            line = next(line for line in server.process.stderr or () if "holds the lock" in line)
            assert f"process {left_behind} (" in line
            assert f"kill {left_behind}" in line
            os.kill(left_behind, signal.SIGKILL)
            wait_until(lambda: document(server, path)["attempt"] == 2, "the job starts again")
            assert document(server, path)["attempts"][0]["cause"] == "server-died"
            assert not descendants(left_behind)
    finally:
        if is_alive(left_behind):
            os.kill(left_behind, signal.SIGKILL)
