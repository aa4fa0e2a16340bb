"""postgres/changes.py: notifications that fit, and watchers that cannot disturb each other."""

from __future__ import annotations

import asyncio

import pytest

from tinysvc.jobs.postgres.changes import LONGEST, Changes, payloads
from tinysvc.jobs.records import MISSED, Change, State

CHANGE = Change("a" * 32, "/trainings", State.RUNNING, 7)


def received(*notifications: str) -> list[Change]:
    async def run() -> list[Change]:
        changes = Changes()
        seen: list[Change] = []
        changes.watch(seen.append)
        for notification in notifications:
            changes.receive(notification)
        await asyncio.sleep(0)
        return seen

    return asyncio.run(run())


@pytest.mark.parametrize("number", [0, 1, 2, 1000])
def test_changes_survive_the_way_through_notifications(number: int) -> None:
    changes = [Change(f"{each:032x}", "/ä" * (each % 50), State.QUEUED, each) for each in range(number)]
    notifications = payloads(changes)
    assert all(len(each.encode()) <= LONGEST for each in notifications)
    assert received(*notifications) == changes


def test_change_that_fits_into_no_notification_becomes_read_again() -> None:
    assert received(*payloads([CHANGE, Change("b", "/" + "x" * LONGEST, State.QUEUED, 1)])) == [CHANGE, MISSED]


@pytest.mark.parametrize("payload", ["", "[", '{"version": 2}', '[["a", "/t", "dreaming", 1]]'])
def test_unreadable_notification_becomes_read_again(payload: str) -> None:
    assert received(payload) == [MISSED]


def test_failing_watcher_is_logged_and_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        changes = Changes()
        seen: list[Change] = []

        def fails(change: Change) -> None:
            raise ValueError(change.id)

        changes.watch(fails)
        stop = changes.watch(seen.append)
        changes.report([CHANGE])
        assert seen == []  # not from within the code that reports
        await asyncio.sleep(0)
        assert seen == [CHANGE]
        stop()
        stop()
        changes.report([CHANGE])
        await asyncio.sleep(0)
        assert seen == [CHANGE]

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == ["a callback of the store of durable jobs failed"] * 2
