"""Publishers, movers of aliases and sweeps at the same time, in every order: no version is lost, none is half there.

Each operation of the storage is a step, and hypothesis chooses who makes the next one. Actors may be killed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from model_store_contract import publish
from models_memory import AgingFolder, MemoryStorage, TurningStorage, Turns
from tinysvc.models.errors import AliasMoved, UnknownVersion
from tinysvc.models.layout import blob_key, manifest_key, unswept_key
from tinysvc.models.manifest import decode_manifest
from tinysvc.models.store import ModelStore

Actor = Callable[[ModelStore], None]

CONTENTS = [b"a", b"b"]
EXAMPLES = int(os.environ.get("MODELS_RACES", "25"))


class Outcomes:
    """What the actors have been told."""

    def __init__(self) -> None:
        self.published: list[tuple[int, str]] = []
        self.moved: list[tuple[int, int]] = []

    def publisher(self, content: bytes, alias: str) -> Actor:
        def act(store: ModelStore) -> None:
            with store.publish("churn", alias=alias) as new:
                (new.path / "weights.bin").write_bytes(content)
            assert new.manifest is not None
            self.published.append((new.version, new.manifest.nonce))

        return act

    def mover(self, step: int) -> Actor:
        def act(store: ModelStore) -> None:
            versions = store.versions("churn")
            try:
                entry = store.move_alias("churn", "production", versions[step % len(versions)])
                self.moved.append((entry.number, entry.version))
            except (AliasMoved, UnknownVersion):
                pass  # another mover was faster, or the version was swept since it was listed

        return act

    def rollback(self) -> Actor:
        def act(store: ModelStore) -> None:
            try:
                entry = store.rollback("churn", "production")
                self.moved.append((entry.number, entry.version))
            except (AliasMoved, UnknownVersion):
                pass

        return act

    def sweeper(self, keep: int) -> Actor:
        def act(store: ModelStore) -> None:
            assert store.sweep(keep=keep).skipped == []

        return act

    def draw(self, data: st.DataObject) -> Actor:
        kind = data.draw(st.sampled_from(["publish", "move", "publish", "move", "sweep", "rollback"]))
        if kind == "publish":
            return self.publisher(data.draw(st.sampled_from(CONTENTS)), data.draw(st.sampled_from(["", "staging"])))
        if kind == "move":
            return self.mover(data.draw(st.integers(2, 3)))
        return self.rollback() if kind == "rollback" else self.sweeper(data.draw(st.integers(1, 2)))


def check_nothing_is_lost(storage: MemoryStorage | AgingFolder) -> None:
    """What a reader can rely on after each step: each version has its files, each alias its version."""
    numbers = {key.key for key in storage.listing("churn").keys}
    aside = {unswept_key(key.key): key.key for key in storage.listing("churn/swept").keys}
    blobs = {key.key for key in storage.listing("churn/blobs").keys}
    blobs |= {unswept_key(key.key) for key in storage.listing("churn/swept/blobs").keys}
    for key in numbers:
        number = int(key.removeprefix("churn/").removesuffix(".json"))
        manifest = decode_manifest("churn", number, storage.read(key))
        assert {blob_key("churn", file.sha256) for file in manifest.files} <= blobs, f"{key} is incomplete"
    for alias in storage.listing("churn/aliases").folders:
        entries = ModelStore(storage).alias_log("churn", alias)
        assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
        assert manifest_key("churn", entries[-1].version) in numbers | aside.keys(), f"{alias} names a lost version"


def check_outcomes(storage: MemoryStorage | AgingFolder, outcomes: Outcomes) -> None:
    """What the actors have been told is so."""
    store = ModelStore(storage)
    versions = [version for version, _ in outcomes.published]
    assert len(versions) == len(set(versions))
    for version, nonce in outcomes.published:
        if version in store.versions("churn"):
            assert store.manifest("churn", version).nonce == nonce
    log = {entry.number: entry.version for entry in store.alias_log("churn", "production")}
    assert all(log[number] == version for number, version in outcomes.moved)
    for version in store.versions("churn"):
        assert store.verify("churn", version) == []


def check_nothing_in_use_is_aside(storage: MemoryStorage | AgingFolder) -> None:
    """Without a kill, publishers, movers and sweeps have put everything back."""
    store = ModelStore(storage)
    versions = store.versions("churn")
    used = {file.sha256 for version in versions for file in store.manifest("churn", version).files}
    assert {blob_key("churn", each) for each in used} <= {key.key for key in storage.listing("churn/blobs").keys}
    assert {entry.version for entry in store.aliases("churn").values()} <= {*versions}


def race(storage: MemoryStorage | AgingFolder, data: st.DataObject) -> None:
    outcomes = Outcomes()
    store = ModelStore(storage)
    for content in CONTENTS:  # blobs of killed publishers: the first sweep finds them, and so does a publisher
        storage.create(blob_key("churn", hashlib.sha256(content).hexdigest()), content)
    for number in range(5):
        publish(store, content=b"old %d" % number)
    store.move_alias("churn", "production", 1)
    store.move_alias("churn", "production", 2)
    storage.age()
    for _ in range(data.draw(st.integers(1, 2))):
        bursts = data.draw(
            st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 3, 5, 8, 12, 30])), min_size=4, max_size=12)
        )
        turns = Turns([actor for actor, length in bursts for _ in range(length)])
        acts = [outcomes.sweeper(1), *(outcomes.draw(data) for _ in range(data.draw(st.integers(1, 3))))]
        with_kills = data.draw(st.booleans())
        kills = [data.draw(st.none() | st.integers(1, 60)) if with_kills else None for _ in acts]
        stores = [ModelStore(TurningStorage(storage, turns, kill)) for kill in kills]
        actors = [partial(act, store) for act, store in zip(acts, stores, strict=True)]
        turns.run(actors, lambda: check_nothing_is_lost(storage))
        check_outcomes(storage, outcomes)
        if not any(kills):
            check_nothing_in_use_is_aside(storage)
        storage.age()
    publish(store, content=b"the end")
    for _ in range(3):
        store.sweep(keep=1)
        storage.age()
    check_outcomes(storage, outcomes)
    assert not storage.listing("churn/swept").keys
    used = {file.sha256 for version in store.versions("churn") for file in store.manifest("churn", version).files}
    assert {blob.key for blob in storage.listing("churn/blobs").keys} == {blob_key("churn", each) for each in used}


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_no_order_of_steps_loses_a_version(data: st.DataObject) -> None:
    race(MemoryStorage(), data)


@settings(max_examples=max(EXAMPLES // 6, 5), deadline=None)
@given(st.data())
def test_no_order_of_steps_loses_a_version_in_a_folder(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        race(AgingFolder(Path(folder)), data)
