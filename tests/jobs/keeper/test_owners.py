"""owners.py: the attempts of a server process end when its lock is free, and not before."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from keepers import CAPACITY, new_job
from memory_store import MemoryStore
from system import until
from tinysvc.core.job_errors import StoreError
from tinysvc.jobs.keeper import owners
from tinysvc.jobs.keeper.locks import lock_as_owner, owners_in, servers_folder
from tinysvc.jobs.keeper.owners import OwnerWatch, release_unknown
from tinysvc.jobs.records import Record, State

pytestmark = pytest.mark.asyncio

PARENT = """
    import os, sys, time
    from pathlib import Path
    from tinysvc.jobs.keeper.locks import lock_as_owner

    lock = lock_as_owner(Path(sys.argv[1]), "dead")
    os.dup(lock.fileno())  # as a worker has it
    read, write = os.pipe()
    if not os.fork():
        os.close(1)
        os.write(write, str(os.getpid()).encode())
        time.sleep(60)
        os._exit(0)
    print(os.read(read, 20).decode(), flush=True)
    os._exit(0)
"""


async def running_of(store: MemoryStore, owner: str) -> Record:
    accepted = (await store.submit(new_job())).record
    await store.claim(CAPACITY, 1, owner=owner)
    return store.records[accepted.id]


def watch_of(store: MemoryStore, folder: Path, *connected: str) -> OwnerWatch:
    return OwnerWatch(store, folder, "me", lambda owner: owner in connected)


async def test_attempts_of_owners_without_a_lock_end(tmp_path: Path) -> None:
    store, folder = MemoryStore(), servers_folder(tmp_path / "jobs.db")
    mine, connected, dead = [await running_of(store, owner) for owner in ("me", "connected", "dead")]
    assert not await watch_of(store, folder, "connected").look()
    found = [store.records[each.id].state for each in (mine, connected, dead)]
    assert found == [State.RUNNING, State.RUNNING, State.QUEUED]


async def test_attempts_of_an_owner_end_when_its_lock_is_free(tmp_path: Path) -> None:
    store, folder = MemoryStore(), servers_folder(tmp_path / "jobs.db")
    running, lock = await running_of(store, "other"), lock_as_owner(folder, "other")
    watch = watch_of(store, folder)
    assert await watch.look()
    assert store.records[running.id].state == State.RUNNING
    lock.close()
    assert not await watch.look()
    assert store.records[running.id].attempts[0].cause == "server-died"
    assert not owners_in(folder)


async def test_watch_ends_attempts_soon_after_the_death(tmp_path: Path) -> None:
    store, folder = MemoryStore(), servers_folder(tmp_path / "jobs.db")
    running, lock = await running_of(store, "other"), lock_as_owner(folder, "other")
    watch = watch_of(store, folder)
    task = asyncio.create_task(watch.run())
    watch.wake()
    lock.close()
    await until(lambda: store.records[running.id].state == State.QUEUED)
    task.cancel()


async def test_watch_goes_on_after_an_error_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, folder = MemoryStore(), servers_folder(tmp_path / "jobs.db")
    running = await running_of(store, "dead")
    failed = asyncio.Event()

    async def fail(owner: str) -> list[str]:
        failed.set()
        monkeypatch.undo()
        raise StoreError("the disk is full")

    monkeypatch.setattr(store, "died", fail)
    watch = watch_of(store, folder)
    task = asyncio.create_task(watch.run())
    watch.wake()
    await failed.wait()
    await until(lambda: store.records[running.id].state == State.QUEUED)
    task.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
async def test_grandchild_that_keeps_the_lock_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "SUSPICIOUS", 0.0)
    store, folder = MemoryStore(), servers_folder(tmp_path / "jobs.db")
    running = await running_of(store, "dead")
    server = textwrap.dedent(PARENT)
    pid = int(subprocess.run([sys.executable, "-c", server, folder], stdout=subprocess.PIPE, check=True).stdout)
    watch = watch_of(store, folder)
    try:
        for _ in range(2):
            assert await watch.look()
        [message] = [each.getMessage() for each in caplog.records if "holds the lock" in each.getMessage()]
        assert message.startswith(f"process {pid} (")
        assert message.endswith(f"kill {pid}")
        assert store.records[running.id].state == State.RUNNING
    finally:
        os.kill(pid, signal.SIGKILL)
    while await watch.look():
        await asyncio.sleep(0.01)
    assert store.records[running.id].state == State.QUEUED


async def test_attempts_that_their_living_owner_does_not_know_are_given_back() -> None:
    store = MemoryStore()
    known, lost, cancelled, of_other = [await running_of(store, owner) for owner in ("me", "me", "me", "other")]
    await store.cancel(cancelled.id)
    await release_unknown(store, "me", {(known.id, known.attempt), (lost.id, lost.attempt + 1)})
    found = [store.records[each.id] for each in (known, lost, cancelled, of_other)]
    assert [each.state for each in found] == [State.RUNNING, State.QUEUED, State.CANCELLED, State.RUNNING]
    assert [each.owner for each in found] == ["me", "", "", "other"]
    assert found[1].used == 0
