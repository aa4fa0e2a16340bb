"""opening.py: the setting `jobs` names a store."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.jobs.keeper.shared_store import SharedStore
from tinysvc.jobs.opening import new_owner, store_of
from tinysvc.jobs.postgres.store import PostgresStore


def test_path_is_a_store_that_server_processes_share(tmp_path: Path) -> None:
    store = store_of(str(tmp_path / "jobs.db"))
    assert isinstance(store, SharedStore)
    assert store.path == (tmp_path / "jobs.db").resolve()
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_address_of_a_database_is_a_store_in_postgresql(scheme: str) -> None:
    assert isinstance(store_of(f"{scheme}://user:secret@host/jobs"), PostgresStore)


def test_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"need the asyncpg library .*pip install 'tinysvc\[postgres\]'"):
        store_of("postgresql://host/jobs")


def test_unknown_address_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not 'mysql://host/db'"):
        store_of("mysql://host/db")


def test_owner_is_new_each_time() -> None:
    first, second = new_owner(), new_owner()
    assert first != second
    assert first.startswith(f"{os.getpid()}-")
