"""job_commands.py: durable jobs on the command line, of a running server or of a store that no one serves."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from keepers import CAPACITY, Processes, new_job, processes
from postgres import Postgres
from tinysvc.cli import job_commands
from tinysvc.cli.job_commands import run_job_command
from tinysvc.cli.job_flags import JobCommand
from tinysvc.core.errors import ConfigurationError
from tinysvc.jobs.keeper.shared_store import SharedStore
from tinysvc.jobs.opening import store_of
from tinysvc.jobs.records import Failure, Progress, Record, ResultHead, State
from tinysvc.jobs.store import Store

pytestmark = pytest.mark.asyncio

UNKNOWN = "f" * 32


class Console:
    """A server process with a store, and the command line beside it."""

    def __init__(self, servers: Processes, capsys: pytest.CaptureFixture[str]) -> None:
        self.servers = servers
        self.capsys = capsys
        self.status = 0

    async def run(self, flag: str, value: str = "", *, as_json: bool = False) -> str:
        """The output of a command; or its error, and then `status` is set."""
        command = JobCommand(flag, value)
        try:
            await asyncio.to_thread(run_job_command, command, str(self.servers.path), as_json=as_json)
        except SystemExit as ended:
            self.status = int(ended.code or 0)
        output, errors = self.capsys.readouterr()
        return (output + errors).rstrip("\n")


@pytest_asyncio.fixture
async def console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Console]:
    async with processes(tmp_path / "jobs.db") as servers:
        servers.path.touch()

        def store_in_memory(text: str) -> Store:
            return SharedStore(Path(text), servers._local)

        monkeypatch.setattr(job_commands, "store_of", store_in_memory)
        yield Console(servers, capsys)


def words(text: str) -> str:
    """A table as one line, with one space between two words."""
    return " ".join(text.split())


async def failed_job(store: SharedStore) -> Record:
    await store.submit(new_job(path="/users/7/trainings"))
    [claimed] = await store.claim(CAPACITY, 1)
    record = claimed.record
    problem = {"type": "urn:tinysvc:worker-died", "status": 500, "detail": "The worker was ended by SIGSEGV."}
    assert await store.fail(record.id, record.attempt, Failure("worker-died", "SIGSEGV", problem=problem))
    return record


async def test_jobs_of_a_running_server_are_listed(console: Console) -> None:
    server = await console.servers.start()
    failed = await failed_job(server)
    waiting = (await server.submit(new_job())).record
    lines = (await console.run("--jobs")).splitlines()
    assert lines[0].split() == ["ID", "STATE", "DONE", "USED", "ACCEPTED", "ROUTE"]
    assert lines[1].startswith(f"{waiting.id}  queued ")
    assert lines[2].startswith(f"{failed.id}  failed ")
    assert lines[2].endswith("/users/7/trainings  worker-died The worker was ended by SIGSEGV.")
    assert lines[3:] == ["1 queued, 1 failed"]
    only_failed = (await console.run("--jobs", "failed")).splitlines()
    assert [line.split()[0] for line in only_failed[1:-1]] == [failed.id]
    assert await console.run("--jobs", "running") == "1 queued, 1 failed"


async def test_store_without_a_server_is_listed(console: Console) -> None:
    assert await console.run("--jobs") == "no durable jobs"
    await console.servers.memory.submit(new_job())
    assert (await console.run("--jobs")).endswith("1 queued")


async def test_long_list_is_cut(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_commands, "MAX_LISTED", 4)
    monkeypatch.setattr(job_commands, "PAGE_SIZE", 2)
    for _ in range(5):
        await console.servers.memory.submit(new_job())
    lines = (await console.run("--jobs")).splitlines()
    assert len(lines) == 1 + 4 + 2
    assert lines[-2:] == ["only the newest 4 are shown", "5 queued"]


async def test_job_is_shown_with_its_attempts(console: Console) -> None:
    server = await console.servers.start()
    record = await failed_job(server)
    text = await console.run("--job", record.id)
    assert f"id {record.id}" in words(text)
    assert "problem worker-died The worker was ended by SIGSEGV." in words(text)
    assert "attempts 1 of 3 used" in words(text)
    assert text.splitlines()[-1].split()[0] == "1"
    assert text.splitlines()[-1].endswith("worker-died  SIGSEGV")


async def test_progress_is_shown_without_control_characters(console: Console) -> None:
    server = await console.servers.start()
    await server.submit(new_job())
    [claimed] = await server.claim(CAPACITY, 1)
    await server.progress(claimed.record.id, 1, Progress(fraction=0.42, values={"loss": 0.5, "x": "\x1b[31m"}))
    text = await console.run("--job", claimed.record.id)
    assert "done 42 % loss=0.5 x=?[31m" in words(text)
    assert "running" in text.splitlines()[-1]


async def test_json_is_one_document_a_line(console: Console) -> None:
    server = await console.servers.start()
    records = [(await server.submit(new_job())).record for _ in range(2)]
    lines = (await console.run("--jobs", as_json=True)).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [record.id for record in reversed(records)]
    assert json.loads(await console.run("--job", records[0].id, as_json=True))["state"] == "queued"


async def test_waiting_job_is_cancelled_in_a_store_without_a_server(console: Console) -> None:
    record = (await console.servers.memory.submit(new_job())).record
    for _ in range(2):
        assert "state cancelled" in words(await console.run("--cancel-job", record.id))
    assert console.status == 0
    assert console.servers.memory.records[record.id].state == State.CANCELLED


async def test_cancel_waits_until_the_worker_is_dead(console: Console) -> None:
    server = await console.servers.start()
    await server.submit(new_job())
    [claimed] = await server.claim(CAPACITY, 1)
    command = asyncio.create_task(console.run("--cancel-job", claimed.record.id))
    while console.servers.memory.records[claimed.record.id].state != State.CANCELLED:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert not command.done()
    assert await server.stopped(claimed.record.id, 1)
    assert "state cancelled" in words(await command)


async def test_worker_that_does_not_die_is_reported(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_commands, "DEATH_TIME", 0.05)
    server = await console.servers.start()
    await server.submit(new_job())
    [claimed] = await server.claim(CAPACITY, 1)
    assert "is cancelled, but the server process" in await console.run("--cancel-job", claimed.record.id)
    assert console.status == 1


async def test_attempt_of_a_dead_server_is_cancelled_without_waiting(console: Console) -> None:
    server = await console.servers.start()
    await server.submit(new_job())
    [claimed] = await server.claim(CAPACITY, 1)
    await console.servers.kill(server)
    assert "state cancelled" in words(await console.run("--cancel-job", claimed.record.id))


async def test_failed_job_is_started_again(console: Console) -> None:
    server = await console.servers.start()
    record = await failed_job(server)
    assert "state queued" in words(await console.run("--retry-job", record.id))
    assert "only a failed one can be started again" in await console.run("--retry-job", record.id)
    assert console.status == 1


async def test_failed_job_is_dismissed(console: Console) -> None:
    server = await console.servers.start()
    record = await failed_job(server)
    assert "state cancelled" in words(await console.run("--cancel-job", record.id))
    assert "is cancelled: only a failed one can be started again" in await console.run("--retry-job", record.id)


@pytest.mark.parametrize("flag", ["--job", "--cancel-job", "--retry-job"])
async def test_unknown_job_is_an_error(console: Console, flag: str) -> None:
    assert await console.run(flag, UNKNOWN) == f"tinysvc: there is no durable job {UNKNOWN}; --jobs lists all of them"
    assert console.status == 1


async def test_ended_job_cannot_be_cancelled(console: Console) -> None:
    server = await console.servers.start()
    await server.submit(new_job(keep=-1.0))
    [claimed] = await server.claim(CAPACITY, 1)
    job_id = claimed.record.id
    assert await server.finish(job_id, 1, ResultHead(status=200, content_type=None), b"")
    assert "has succeeded already" in await console.run("--cancel-job", job_id)
    assert console.status == 1
    assert "done 100 %" in words(await console.run("--job", job_id))
    await server.sweep(console.servers.memory.clock())
    assert "was deleted at the end of its retention" in await console.run("--job", job_id)


async def test_reader_that_has_enough_is_no_error(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await console.servers.start()
    await server.submit(new_job())
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        await console.run("--jobs")
        monkeypatch.undo()
    assert console.status == 0


async def test_failed_job_without_a_type_of_problem_shows_its_cause(console: Console) -> None:
    server = await console.servers.start()
    await server.submit(new_job())
    [claimed] = await server.claim(CAPACITY, 1)
    problem = {"type": "about:blank", "status": 500}
    assert await server.fail(claimed.record.id, 1, Failure("saved-unreadable", "", problem=problem))
    assert "problem saved-unreadable" in words(await console.run("--job", claimed.record.id))


async def test_missing_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no store .*nothing\.db in .*; name the one of the server"):
        await asyncio.to_thread(run_job_command, JobCommand("--jobs", ""), str(tmp_path / "nothing.db"))


async def test_jobs_in_postgresql_are_listed_and_cancelled(
    postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    url = await postgres.create_database()
    server = store_of(url)
    await server.open("server", "shop")
    try:
        waiting = (await server.submit(new_job())).record
        await asyncio.to_thread(run_job_command, JobCommand("--jobs", ""), url)
        assert capsys.readouterr().out.endswith("1 queued\n")
        await asyncio.to_thread(run_job_command, JobCommand("--cancel-job", waiting.id), url)
        record = await server.get(waiting.id)
        assert record is not None
        assert record.state == State.CANCELLED
    finally:
        await server.aclose()
