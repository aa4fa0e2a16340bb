"""store.py: the interface is what the store in memory has."""

from __future__ import annotations

import inspect

from memory_store import MemoryStore
from tinysvc.jobs.store import LocalStore


def test_store_in_memory_has_every_method_of_the_interface() -> None:
    store: LocalStore = MemoryStore()  # checked by mypy
    for name, method in inspect.getmembers(LocalStore, inspect.isfunction):
        if not name.startswith("_"):
            wanted = list(inspect.signature(method).parameters)
            assert ["self", *inspect.signature(getattr(store, name)).parameters] == wanted, name
