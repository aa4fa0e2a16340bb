"""Faults of the disk under the SQLite store: full, read-only, slow, or with an fsync that fails."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import store_child
from power_loss import lines_of, strace
from store_child import ROUTE, content
from store_contract import content as bytes_of
from store_contract import job
from tinysvc.core.job_errors import StoreError
from tinysvc.jobs.records import State
from tinysvc.jobs.sqlite import tables
from tinysvc.jobs.sqlite.store import SqliteStore

CHILD = (sys.executable, store_child.__file__)


def run(command: list[str]) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of store_child.py, and its lines."""
    done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


async def check(path: Path, lines: list[dict[str, Any]]) -> None:
    """Everything that was acknowledged is there."""
    store = SqliteStore(path)
    await store.open("next", "service")
    for line in lines:
        record = await store.get(line["id"]) if "id" in line else None
        if line["op"] == "submit":
            assert record is not None
        elif line["op"] == "finished":
            assert record is not None
            assert record.state == State.SUCCEEDED
            assert await bytes_of(await store.result(record.id)) == content(line["number"])
    await store.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [*range(1, 18), 25, 35, 45, 55])
async def test_failed_fsync_closes_the_store_and_is_not_tried_again(number: int, tmp_path: Path) -> None:
    """The next fsync would succeed, and must not be asked. strace counts the fsyncs of each thread."""
    log, path = tmp_path / "strace.log", tmp_path / "store" / "jobs.db"
    path.parent.mkdir()
    inject = f"inject=fsync,fdatasync:error=EIO:when={number}"
    traced = strace("-o", str(log), "-y", "-e", "trace=fsync,fdatasync", "-e", inject)
    status, lines = run([*traced, *CHILD, str(path), "lives"])
    calls = list(lines_of(log.read_text()))
    failed = [call for call in calls if "EIO" in call[2]]
    if all(f"{path.parent}>" in line and "fdatasync" in line for _, _, line in failed):
        # SQLite hides the failed fsync of a folder: the store has one of its own after each new file.
        own = [line for _, _, line in calls if line.startswith("fsync") and f"{path.parent}>)" in line]
        assert (status, len(own)) == (0, 3)
    elif lines[-1]["op"] == "not opened":
        assert status == 3
        assert "jobs.db" in lines[-1]["text"]
    else:
        [broken], [refused] = ([line for line in lines if line["op"] == each] for each in ("broken", "refused"))
        assert (status, refused["status"]) == (1, 503)
        assert broken["problem"] == broken["reason"]
        assert "in doubt" in broken["reason"]
        assert "StoreError" in broken["error"] or "FsyncFailed" in broken["error"]
        for _, ended, line in failed:
            if "jobs.db>" in line or "jobs.db-wal>" in line:
                later = [each for begun, _, each in calls if begun > ended]
                assert not [each for each in later if "jobs.db>" in each or "jobs.db-wal>" in each], "synced again"
    await check(path, lines)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.asyncio
async def test_full_disk_refuses_and_loses_nothing(size: int, tmp_path: Path) -> None:
    """507 at POST, the others go on; a result is kept when it is tried again."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size={size}m tmpfs {disk} && head -c 600000 /dev/zero > {disk}/ballast && "
        f"{' '.join(CHILD)} {disk}/jobs.db flood; status=$?; cp -r {disk} {kept}; exit $status"
    )
    status, lines = run(in_a_namespace(script))
    assert status == 0, lines[-1]
    refused = [line for line in lines if line["op"] == "refused"]
    assert refused[0]["status"] == 507
    assert "full" in refused[0]["text"] or "No space left" in refused[0]["text"]
    assert refused[0]["problem"]
    assert lines[-2]["problem"] == ""
    assert [line["op"] for line in lines[-2:]] == ["finished", "submit"]
    await check(kept / "jobs.db", lines)


def in_a_namespace(script: str) -> list[str]:
    """A command line with mounts of its own; skips the test where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    for options in (["-m"], ["-r", "-m"]):
        command = [unshare, *options, "sh", "-c"]
        probe = subprocess.run([*command, "mount -t tmpfs tmpfs /tmp"], capture_output=True, text=True, check=False)
        if probe.returncode == 0:
            return [*command, script]
    pytest.skip(f"no file system can be mounted here: {probe.stderr.strip()}")


def test_read_only_disk_is_refused_at_the_start(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    asyncio.run(_make(disk / "jobs.db"))
    for left in (["jobs.db"], []):  # with and without a file
        for path in disk.iterdir():
            if path.name not in left:
                path.unlink()
        script = (
            f"mount --bind {disk} {disk} && mount -o remount,ro,bind {disk} && {' '.join(CHILD)} {disk}/jobs.db group"
        )
        status, lines = run(in_a_namespace(script))
        assert (status, [line["op"] for line in lines]) == (3, ["not opened"])
        assert "read-only" in lines[0]["text"].lower() or "readonly" in lines[0]["text"]
        assert str(disk / "jobs.db") in lines[0]["text"]


async def _make(path: Path) -> None:
    store = SqliteStore(path)
    await store.open("server", "service")
    await store.submit(job())
    await store.aclose()


@pytest.mark.asyncio
async def test_refused_write_gives_503_and_ends(tmp_path: Path) -> None:
    """A quota, say: nothing was committed, and no fsync has failed."""
    log, path = tmp_path / "strace.log", tmp_path / "store" / "jobs.db"
    path.parent.mkdir()
    inject = "inject=pwrite64:error=EDQUOT:when=150"
    status, lines = run([*strace("-o", str(log), "-e", "trace=pwrite64", "-e", inject), *CHILD, str(path), "retrying"])
    refused = [line for line in lines if line["op"] == "refused"]
    assert (status, [line["status"] for line in refused]) == (0, [503])
    assert "I/O error" in refused[0]["problem"]
    assert lines[-1] == {"op": "done", "problem": ""}
    await check(path, lines)


def test_slow_disk_makes_larger_groups(tmp_path: Path) -> None:
    """With an fsync of 0.2 s, 48 durable jobs are accepted with a few of them."""
    log, path = tmp_path / "strace.log", tmp_path / "store" / "jobs.db"
    path.parent.mkdir()
    slow = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_exit=200000")
    status, lines = run([*strace("-o", str(log), *slow), *CHILD, str(path), "group"])
    assert (status, lines[-1]["op"], len(lines)) == (0, "done", 49)
    assert log.read_text().count("fdatasync(") < 20


@pytest.mark.asyncio
async def test_lock_of_a_foreign_tool_gives_503_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LOCK_WAIT", 0.1)
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open("server", "service")
    tool = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    tool.execute("BEGIN IMMEDIATE")
    answers = await asyncio.gather(*(store.submit(job(key=str(n))) for n in range(3)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreError}
    assert "another program has locked the file" in store.problem
    assert (await store.page(ROUTE, None, 10, "")).counts == {}
    tool.execute("ROLLBACK")
    tool.close()
    assert (await store.submit(job(key="0"))).is_new
    assert store.problem == ""
    await store.aclose()


@pytest.mark.asyncio
async def test_file_that_is_damaged_while_it_is_open_closes_the_store(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await _make(path)
    store = SqliteStore(path)
    await store.open("server", "service")
    reasons: list[str] = []
    store.broken(reasons.append)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    answers = [await asyncio.gather(store.submit(job(key=str(n))), return_exceptions=True) for n in range(9)]
    assert any(isinstance(answer, StoreError) for [answer] in answers)
    with pytest.raises(StoreError, match="in doubt"):
        await store.claim({ROUTE: 1}, 1)
    assert len(reasons) == 1
    await store.aclose()


@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.asyncio
async def test_file_that_is_removed_while_it_is_open_closes_the_store(is_replaced: bool, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = SqliteStore(path)
    await store.open("server", "service")
    reasons: list[str] = []
    store.broken(reasons.append)
    await store.submit(job())
    path.rename(tmp_path / "moved.db")
    if is_replaced:
        path.touch()
    with pytest.raises(StoreError, match="the file was removed or replaced while it was open"):
        await store.submit(job())
    assert len(reasons) == 1
    await store.aclose()


@pytest.mark.asyncio
async def test_service_of_another_name_is_refused(tmp_path: Path) -> None:
    await _make(tmp_path / "jobs.db")
    store = SqliteStore(tmp_path / "jobs.db")
    with pytest.raises(Exception, match="has the durable jobs of the service 'service', not of 'other'"):
        await store.open("server", "other")
    await store.open("command line", "")
    await store.aclose()
