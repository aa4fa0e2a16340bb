"""Fixtures of all tests: no test may leave anything behind."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator

import pytest
import uvloop

from postgres import MISSING, Postgres, running_postgres
from system import descendants, open_descriptors, shared_memory, wait_until
from tinysvc.core.request_context import current_attempt, request_id, route_name

pytest.register_assert_rewrite("store_contract")

uvloop.new_event_loop().close()  # the first loop opens a pipe for signals that stays open

LONGEST = ("test_soak", "test_benchmarks", "test_bench")
"""Files with one long test. They start first: else one of them runs alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish() -> None:
    """Exclude the thousands of collected tests from garbage collections: `nothing_left` does one for each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_request_left() -> Iterator[None]:
    """Forget the request of a job that the test has run in its own thread: log lines of the next test would name it."""
    yield
    for variable in (request_id, route_name):
        if variable.own():
            variable.set("")
    if current_attempt.get()[0]:
        current_attempt.set(("", 0))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that all tests of this process share; each makes a database of its own in it."""
    if MISSING:
        pytest.skip(MISSING)
    with running_postgres(in_memory=True) as server:
        yield server


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Assert that the test leaves no process, no descriptor and no shared memory behind."""
    shm = shared_memory()
    children = set(descendants(os.getpid()))
    descriptors = open_descriptors()
    yield
    gc.collect()
    wait_until(lambda: set(descendants(os.getpid())) <= children, "every child process has ended")
    try:  # waits: a test that runs at the same time may have made a segment, and removes it
        wait_until(lambda: shared_memory() <= shm, "all shared memory is removed")
    except AssertionError:
        pytest.fail(f"left in shared memory: {shared_memory() - shm}")
    try:
        wait_until(lambda: open_descriptors() <= descriptors, "all descriptors are closed")
    except AssertionError:
        pytest.fail(f"left open: {open_descriptors() - descriptors}")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that nothing is logged as a warning or worse; `logged` takes expected records."""
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
