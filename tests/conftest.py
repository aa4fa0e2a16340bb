"""What every test shares: nothing may be left behind."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator

import pytest
import uvloop

from system import descendants, open_descriptors, shared_memory, wait_until

uvloop.new_event_loop().close()  # the first one opens a pipe for signals that stays for the life of the process

LONGEST = ("test_soak", "test_benchmarks", "test_bench")
"""The files of which one test takes long: they begin first, so that none runs alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test there is no process, no descriptor and no shared-memory segment more than before."""
    shm = shared_memory()
    children = set(descendants(os.getpid()))
    descriptors = open_descriptors()
    yield
    gc.collect()
    wait_until(lambda: set(descendants(os.getpid())) <= children, "every child process has ended")
    assert shared_memory() <= shm
    try:
        wait_until(lambda: open_descriptors() <= descriptors, "no descriptor is left")
    except AssertionError:
        pytest.fail(f"left open: {open_descriptors() - descriptors}")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as a warning or worse; a test that wants it takes it with `logged`."""
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
