"""A poller that fetches while versions are published, moved and swept never sees half a version.

`MODELS_POLLS=10000` runs as many rounds; the suite runs a few hundred.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tinysvc.models.artifact_version import ArtifactVersion
from tinysvc.models.errors import AliasMoved, UnknownVersion
from tinysvc.models.local_copies import LocalCopies
from tinysvc.models.opening import open_store
from tinysvc.models.store import ModelStore

POLLS = int(os.environ.get("MODELS_POLLS", "300"))


def publish(store: ModelStore, number: int) -> None:
    with store.publish("churn", alias="production", meta={"number": number}) as new:
        for name in ("first", "second"):
            (new.path / name).write_bytes(b"%d," % number * 1000)


def check_whole(version: ArtifactVersion) -> None:
    for name in ("first", "second"):
        assert Path(version.path, name).read_bytes() == b"%d," % version.meta["number"] * 1000


@contextmanager
def at_the_same_time(work: list[object]) -> Iterator[None]:
    """Repeat each function in a thread of its own until the block ends."""
    ended, failures = threading.Event(), list[BaseException]()

    def repeat(function: object) -> None:
        try:
            while not ended.is_set():
                function()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    if failures:
        raise failures[0]


@pytest.mark.timeout(max(60, POLLS // 20))
def test_poller_never_sees_half_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the machine does not lose its power: more rounds
    store, copies = open_store(str(tmp_path / "models")), LocalCopies(tmp_path / "copies")
    numbers = iter(range(10**9))
    publish(store, next(numbers))

    def roll_back() -> None:
        with suppress(UnknownVersion, AliasMoved):  # as far as it goes
            store.rollback("churn", "production")

    work = [
        lambda: publish(store, next(numbers)),
        lambda: store.sweep(keep=2, older_than=10),  # longer than any step takes
        lambda: copies.sweep(keep=1, older_than=0),
        roll_back,
    ]
    seen = set()
    with at_the_same_time([*work]):
        for _ in range(POLLS):
            with ExitStack() as pinned:
                try:
                    version = copies.fetch(store, "churn", store.resolve("churn@production"))
                    pinned.enter_context(copies.pin(version))
                except UnknownVersion:
                    continue  # the copy was swept before it was pinned
                check_whole(version)
                seen.add(version.version)
    assert len(seen) > 1
