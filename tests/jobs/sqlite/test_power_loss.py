"""Power loss: cut the record of all writes after every fsync, and open what is on the disk then.

Each acknowledged change must be there: with nothing, all or some of the writes since the last fsync.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import store_child
from power_loss import SYNC, Event, disk_at, recorded, reports_before
from store_child import content
from store_contract import content as bytes_of
from tinysvc.jobs.records import State
from tinysvc.jobs.sqlite.store import SqliteStore


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    folder = tmp_path_factory.mktemp("recorded") / "store"
    folder.mkdir()
    return recorded(folder, Path(store_child.__file__), "lives")


def acknowledged(lines: list[bytes]) -> tuple[dict[str, dict[str, Any]], float]:
    """For each durable job what the process was told; and the newest tick."""
    jobs: dict[str, dict[str, Any]] = {}
    tick = 0.0
    for line in map(json.loads, lines):
        if line["op"] == "tick":
            tick = line["tick"]
        elif line["op"] == "submit":
            jobs[line["id"]] = {"body": line["number"]}
        elif line["op"] == "ending":
            jobs[line["id"]]["may be"] = line["state"]
        elif line["op"] == "saved":
            jobs[line["id"]]["saved"] = line["number"]
        else:
            jobs[line["id"]]["is"] = jobs[line["id"]]["may be"]
            jobs[line["id"]]["result"] = line.get("number")
    return jobs, tick


async def check(path: Path, lines: list[bytes]) -> None:
    """Open the store as the next server does, and look for all that was acknowledged."""
    jobs, tick = acknowledged(lines)
    if not jobs and not path.exists():
        return
    store = SqliteStore(path)
    await store.open("next", "service")
    try:
        for owner in await store.owners():
            await store.died(owner)
        for job_id, told in jobs.items():
            record = await store.get(job_id)
            assert record is not None, f"{job_id} is lost"
            if "is" in told:
                assert record.state == told["is"]
            else:
                assert record.state in (State.QUEUED, told.get("may be", State.QUEUED))
            if record.state == State.SUCCEEDED:
                number = told.get("result")
                result = await bytes_of(await store.result(job_id))
                assert number is None or result == content(number)
        for claimed in await store.claim({store_child.ROUTE: 1000}, 1000):
            told = jobs.get(claimed.record.id, {})
            if told:
                assert claimed.body == content(told["body"])
                if "saved" in told:
                    assert claimed.saved in (content(5), content(6))
                    assert told["saved"] == 5 or claimed.saved == content(6)
        assert ((await store.last_tick("nightly")) or 0.0) >= tick
        await store.sweep(0.0)
    finally:
        await store.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("luck", ["none", "all", "some"])
async def test_every_acknowledged_job_survives_a_power_loss(luck: str, events: list[Event], tmp_path: Path) -> None:
    syncs = [event for event in events if event.call in SYNC]
    assert len(syncs) > 40
    places = sorted({place for sync in syncs for place in (sync.begun - 1, sync.ended)} | {events[-1].ended})
    for number, place in enumerate(places):
        folder = tmp_path / str(place)
        folder.mkdir()
        disk_at(events, place, luck, seed=number).restore(events, folder)
        await check(folder / "jobs.db", reports_before(events, place))


@pytest.mark.asyncio
@pytest.mark.parametrize("deaf", ["", "jobs.db-wal", "jobs.db-files/"], ids=["folder", "log", "files"])
async def test_model_of_the_disk_finds_a_missing_fsync(deaf: str, events: list[Event], tmp_path: Path) -> None:
    """Without the fsyncs of one kind, the same record loses something."""
    names = {event.inode: event.target or event.name for event in events if event.name}
    names[0] = ""
    left = [
        event
        for event in events
        if event.call not in SYNC or not (names[event.inode].startswith(deaf) if deaf else event.inode == 0)
    ]
    assert len(left) < len(events)
    last = max(event.ended for event in events if event.call == "report")
    disk_at(left, last, "none").restore(left, tmp_path)
    with pytest.raises(AssertionError):
        await check(tmp_path / "jobs.db", reports_before(left, last))
