"""postgres/lease.py: the deadline here is earlier than the end of the lease in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from postgres import Postgres
from tinysvc.jobs.postgres.connection import Link, Lost
from tinysvc.jobs.postgres.lease import Lease, boot_time
from tinysvc.jobs.postgres.schema import prepare


class Times:
    """A clock that a test sets, and the events of a lease."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registered = 0
        self.killed = 0
        self.delay = 0.0
        self.fails = False

    def lease(self, link: Link, seconds: float = 30.0) -> Lease:
        async def register() -> None:
            self.now += self.delay
            if self.fails:
                raise Lost("away")
            self.registered += 1

        async def lapse(_owner: str) -> None:
            raise AssertionError("there is no other server")

        def lost() -> None:
            self.killed += 1

        return Lease(link, "1-owner", seconds, register=register, lapse=lapse, lost=lost, clock=lambda: self.now)


@pytest_asyncio.fixture
async def link(postgres: Postgres) -> AsyncIterator[Link]:
    """A connection to tables in which the lease of 1-owner lasts."""
    url = await postgres.create_schema()
    link = Link(url)
    async with link.session(5) as connection:
        await prepare(connection, "service", url)
        await connection.execute("INSERT INTO tinysvc_job_servers VALUES ('1-owner', 'infinity')")
    yield link
    await link.aclose()


def test_boot_time_moves_on() -> None:
    assert 0 < boot_time() <= boot_time()


@pytest.mark.asyncio
async def test_deadline_counts_from_the_sending_and_leaves_a_margin(link: Link) -> None:
    times = Times()
    times.delay = 4.0
    lease = times.lease(link)
    assert not lease.holds()
    await lease.begin()
    times.now = 128.9  # renewed at 104: a sixth before 104 + 30
    assert lease.holds()
    times.now = 129.0
    assert not lease.holds()
    assert times.killed == 1
    assert not lease.holds()
    assert times.killed == 1  # once for each lease
    await lease.aclose()


@pytest.mark.asyncio
async def test_end_of_the_lease_is_noticed_without_being_asked(link: Link) -> None:
    times = Times()
    lease = times.lease(link, seconds=3.0)
    await lease.begin()
    assert lease.number == 1
    times.fails = True
    times.now += 3.0
    async with asyncio.timeout(10):
        while not times.killed:
            await asyncio.sleep(0.01)
        times.fails = False
        while lease.number == 1:  # a new lease begins when the database answers
            await asyncio.sleep(0.01)
    assert lease.holds()
    await lease.aclose()
