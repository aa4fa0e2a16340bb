"""The contract of storages and model stores. A test file subclasses both classes with its own `storage`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tinysvc.models import retention
from tinysvc.models.artifact_version import ArtifactVersion
from tinysvc.models.errors import (
    AliasMoved,
    BadReference,
    PublicationRefused,
    StoreRefused,
    UnknownVersion,
    VersionRefused,
)
from tinysvc.models.layout import alias_key, blob_key, manifest_key, swept_key
from tinysvc.models.local_copies import LocalCopies
from tinysvc.models.storage import MAX_DOCUMENT, Listing, MissingKey, Storage, StoredKey
from tinysvc.models.store import ModelStore


def publish(store: ModelStore, name: str = "churn", content: bytes = b"weights", **options: Any) -> int:
    """Publish a version with the one file `weights.bin`."""
    with store.publish(name, **options) as new:
        (new.path / "weights.bin").write_bytes(content)
    return new.version


def content_of(version: ArtifactVersion) -> bytes:
    return (Path(version.path) / "weights.bin").read_bytes()


class StorageContract:
    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        """An empty storage."""
        raise NotImplementedError

    def test_content_is_created_once(self, storage: Storage) -> None:
        assert storage.create("churn/1.json", b"first")
        assert not storage.create("churn/1.json", b"second")
        assert storage.read("churn/1.json") == b"first"

    def test_file_is_uploaded_once(self, storage: Storage, tmp_path: Path) -> None:
        content = bytes(range(256)) * 12_000  # more than one piece
        for number, each in enumerate((content, b"other")):
            (tmp_path / f"file{number}").write_bytes(each)
        assert storage.upload("churn/blobs/ab", tmp_path / "file0")
        assert not storage.upload("churn/blobs/ab", tmp_path / "file1")
        assert b"".join(bytes(piece) for piece in storage.chunks("churn/blobs/ab")) == content

    def test_empty_content(self, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        assert storage.upload("churn/blobs/e3", tmp_path / "empty")
        assert b"".join(bytes(piece) for piece in storage.chunks("churn/blobs/e3")) == b""
        assert storage.find("churn/blobs/e3") is not None

    def test_one_of_many_creations_succeeds(self, storage: Storage) -> None:
        start = threading.Barrier(8)

        def create(number: int) -> bool:
            start.wait(30)
            return storage.create("churn/1.json", b"%d" % number)

        with ThreadPoolExecutor(8) as threads:
            created = list(threads.map(create, range(8)))
        assert created.count(True) == 1
        assert storage.read("churn/1.json") == b"%d" % created.index(True)

    def test_missing_key(self, storage: Storage) -> None:
        storage.create("churn/1.json", b"there is one")
        assert storage.find("churn/2.json") is None
        with pytest.raises(MissingKey):
            storage.read("churn/2.json")
        with pytest.raises(MissingKey):
            next(iter(storage.chunks("churn/2.json")))
        with pytest.raises(MissingKey):
            storage.copy("churn/2.json", "churn/3.json")
        storage.delete("churn/2.json")

    def test_large_document_is_not_read(self, storage: Storage, tmp_path: Path) -> None:
        with open(tmp_path / "large", "wb") as file:
            file.truncate(MAX_DOCUMENT + 1)
        storage.upload("churn/1.json", tmp_path / "large")
        with pytest.raises(ValueError, match="more than"):
            storage.read("churn/1.json")

    def test_listing_has_one_folder(self, storage: Storage) -> None:
        assert storage.create("churn/1.json", b"12345")
        assert storage.create("churn/aliases/production/1.json", b"1")
        assert storage.create("other/1.json", b"1")
        assert {name for name in storage.listing("").folders if name[0] != "."} == {"churn", "other"}
        found = storage.listing("churn")
        assert [(each.key, each.size) for each in found.keys] == [("churn/1.json", 5)]
        assert found.folders == ("aliases",)
        assert [each.key for each in storage.listing("churn/aliases/production").keys] == [
            "churn/aliases/production/1.json"
        ]
        assert storage.listing("nothing") == Listing((), ())
        assert storage.find("churn/1.json") == found.keys[0]

    def test_copy_has_the_time_of_now(self, storage: Storage) -> None:
        storage.create("churn/1.json", b"old")
        before = storage.find("churn/1.json")
        for _ in range(2):
            storage.copy("churn/1.json", "churn/swept/1.json")
        storage.delete("churn/1.json")
        after = storage.find("churn/swept/1.json")
        assert isinstance(before, StoredKey)
        assert isinstance(after, StoredKey)
        assert after.modified >= before.modified
        assert storage.find("churn/1.json") is None
        assert storage.read("churn/swept/1.json") == b"old"
        storage.delete("churn/swept/1.json")
        assert storage.find("churn/swept/1.json") is None

    def test_staging_folder_is_removed(self, storage: Storage) -> None:
        with storage.staging() as folder:
            (folder / "deep" / "er").mkdir(parents=True)
            (folder / "deep" / "er" / "file").touch()
        assert not folder.exists()


class ModelStoreContract:
    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        """An empty storage."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, storage: Storage) -> ModelStore:
        return ModelStore(storage)

    @pytest.fixture
    def copies(self, tmp_path: Path) -> LocalCopies:
        return LocalCopies(tmp_path / "copies")

    def test_probe_leaves_nothing(self, store: ModelStore) -> None:
        assert store.probe()
        assert not store.storage.listing(".probe").keys

    def test_store_that_ignores_create_if_absent_is_refused(
        self, store: ModelStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create = store.storage.create

        def overwriting(key: str, content: bytes) -> bool:
            store.storage.delete(key)
            return create(key, content)

        monkeypatch.setattr(store.storage, "create", overwriting)
        with pytest.raises(StoreRefused, match="create-if-absent"):
            store.probe()

    def test_published_version_is_fetched(self, store: ModelStore, copies: LocalCopies) -> None:
        with store.publish("churn", alias="staging", meta={"auc": 0.91}, by="ada") as new:
            (new.path / "sub").mkdir()
            (new.path / "sub" / "data.bin").write_bytes(b"in a folder")
            (new.path / "weights.bin").write_bytes(b"weights")
            new.meta["rows"] = 12
        assert new.version == 1
        assert store.names() == ["churn"]
        assert store.versions("churn") == [1]
        manifest = store.manifest("churn", 1)
        assert manifest == new.manifest
        assert (manifest.by, manifest.meta, manifest.size) == ("ada", {"auc": 0.91, "rows": 12}, 18)
        assert [file.path for file in manifest.files] == ["sub/data.bin", "weights.bin"]
        assert store.resolve("churn@staging") == 1
        version = copies.fetch(store, "churn", 1)
        assert version.label == "churn@1"
        assert version.meta == manifest.meta
        assert content_of(version) == b"weights"
        assert (Path(version.path) / "sub" / "data.bin").read_bytes() == b"in a folder"
        assert store.verify("churn", 1) == []

    def test_exception_in_the_block_publishes_nothing(self, store: ModelStore) -> None:
        def fail() -> None:
            with store.publish("churn") as new:
                (new.path / "weights.bin").write_bytes(b"half")
                raise RuntimeError("training has failed")

        with pytest.raises(RuntimeError, match="training has failed"):
            fail()
        store.probe()
        assert store.versions("churn") == []
        assert store.names() == []

    def test_version_is_known_after_the_block(self, store: ModelStore) -> None:
        with store.publish("churn") as new:
            (new.path / "weights.bin").touch()
            with pytest.raises(RuntimeError, match="after the end"):
                _ = new.version

    def test_equal_files_are_stored_once(self, store: ModelStore) -> None:
        assert [publish(store), publish(store), publish(store, content=b"other")] == [1, 2, 3]
        assert len(store.storage.listing("churn/blobs").keys) == 2

    def test_many_publishers_get_different_numbers(self, store: ModelStore) -> None:
        start = threading.Barrier(6)

        def run(number: int) -> int:
            start.wait(30)
            return publish(store, content=b"%d" % number, alias="staging")

        with ThreadPoolExecutor(6) as threads:
            numbers = list(threads.map(run, range(6)))
        assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
        assert store.resolve("churn@staging") == 6
        assert store.verify("churn", 6) == []

    @pytest.mark.parametrize("meta", [{"auc": float("nan")}, {"auc": object()}, {"text": "\ud800"}, [1]])
    def test_meta_data_must_be_json(self, store: ModelStore, meta: Any) -> None:
        with pytest.raises(PublicationRefused, match="JSON"):
            store.publish("churn", meta=meta)

    def test_publication_without_files_is_refused(self, store: ModelStore) -> None:
        with pytest.raises(PublicationRefused, match="no files"), store.publish("churn"):
            pass
        assert store.versions("churn") == []

    def test_names_are_checked(self, store: ModelStore) -> None:
        for name in ("", "..", ".hidden", "a/b", "a b"):
            with pytest.raises(BadReference):
                store.versions(name)
        with pytest.raises(BadReference):
            store.publish("churn", alias="7")

    def test_unknown_version(self, store: ModelStore, copies: LocalCopies) -> None:
        publish(store)
        with pytest.raises(UnknownVersion, match="no churn@7: it has 1"):
            copies.fetch(store, "churn", 7)
        with pytest.raises(UnknownVersion, match="it has no other"):
            store.manifest("other", 1)
        with pytest.raises(UnknownVersion, match="no churn@production: churn has no alias"):
            store.resolve("churn@production")
        store.move_alias("churn", "staging", 1)
        with pytest.raises(UnknownVersion, match="no churn@production: churn has staging"):
            store.resolve("churn@production")

    def test_alias_moves(self, store: ModelStore) -> None:
        for content in (b"1", b"2"):
            publish(store, content=content)
        first = store.move_alias("churn", "production", 1, by="ada")
        assert (first.version, first.by, first.number) == (1, "ada", 1)
        assert store.move_alias("churn", "production", 1) == first
        second = store.move_alias("churn", "production", 2, expected=1)
        assert second.number == 2
        assert store.aliases("churn") == {"production": second}
        assert store.alias_log("churn", "production") == [first, second]

    def test_alias_moves_only_from_the_expected_version(self, store: ModelStore) -> None:
        for content in (b"1", b"2"):
            publish(store, content=content)
        with pytest.raises(AliasMoved, match="does not exist"):
            store.move_alias("churn", "production", 1, expected=2)
        store.move_alias("churn", "production", 1, expected=0, by="ada")
        with pytest.raises(AliasMoved, match="names version 1, not version 2: it was moved by ada at") as caught:
            store.move_alias("churn", "production", 2, expected=2)
        assert caught.value.entry == store.alias("churn", "production")

    def test_alias_cannot_name_a_missing_version(self, store: ModelStore) -> None:
        publish(store)
        for version in (0, 2):
            with pytest.raises(UnknownVersion):
                store.move_alias("churn", "production", version)

    def test_one_of_two_alias_moves_wins(self, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for content in (b"1", b"2"):
            publish(store, content=content)
        create = store.storage.create

        def second(key: str, content: bytes) -> bool:
            monkeypatch.setattr(store.storage, "create", create)
            store.move_alias("churn", "production", 2, by="grace")
            return create(key, content)

        monkeypatch.setattr(store.storage, "create", second)
        with pytest.raises(AliasMoved, match="names version 2: it was moved by grace") as caught:
            store.move_alias("churn", "production", 1, by="ada")
        assert caught.value.entry is not None
        assert caught.value.entry.version == 2

    def test_second_rollback_goes_further_back(self, store: ModelStore) -> None:
        for content in (b"1", b"2", b"3"):
            publish(store, content=content, alias="production")
        assert store.rollback("churn", "production").version == 2
        assert store.rollback("churn", "production", expected=2).version == 1
        with pytest.raises(UnknownVersion, match="no version before 1"):
            store.rollback("churn", "production")
        with pytest.raises(AliasMoved):
            store.rollback("churn", "production", expected=3)
        assert len(store.alias_log("churn", "production")) == 5

    def test_damaged_alias_is_not_replaced_by_an_older_entry(self, store: ModelStore) -> None:
        publish(store, alias="production")
        store.storage.create(alias_key("churn", "production", 2), b"{}")
        with pytest.raises(VersionRefused, match="entry 2 of churn@production is damaged"):
            store.resolve("churn@production")
        assert store.move_alias("churn", "production", 1).number == 3
        assert store.resolve("churn@production") == 1

    @pytest.mark.parametrize("content", [b"other!!", b"short", b"much longer than it was", None])
    def test_damaged_blob_is_refused(self, store: ModelStore, copies: LocalCopies, content: bytes | None) -> None:
        publish(store)
        manifest = store.manifest("churn", 1)
        key = blob_key("churn", manifest.files[0].sha256)
        store.storage.delete(key)
        if content is not None:
            store.storage.create(key, content)
        with pytest.raises(VersionRefused, match=r"churn@1 is (damaged|incomplete).*weights\.bin"):
            copies.fetch(store, "churn", 1)
        assert not list(copies.folder.glob("churn/*"))
        assert [fault.partition(":")[0] for fault in store.verify("churn", 1)] == ["weights.bin"]

    def test_publisher_replaces_a_truncated_blob(self, store: ModelStore, copies: LocalCopies) -> None:
        publish(store)
        key = blob_key("churn", store.manifest("churn", 1).files[0].sha256)
        store.storage.delete(key)
        store.storage.create(key, b"half")
        assert publish(store) == 2
        assert content_of(copies.fetch(store, "churn", 1)) == b"weights"

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"null", b"[" * 100_000])
    def test_damaged_manifest_is_refused(self, store: ModelStore, copies: LocalCopies, content: bytes) -> None:
        store.storage.create(manifest_key("churn", 1), content)
        with pytest.raises(VersionRefused, match="manifest of churn@1 is damaged"):
            copies.fetch(store, "churn", 1)
        assert "manifest of churn@1 is damaged" in store.verify("churn", 1)[0]

    def test_sweep_keeps_what_is_in_use(self, store: ModelStore, copies: LocalCopies) -> None:
        for number in range(8):
            publish(store, content=b"%d" % number)
        for version in (1, 2, 3):
            store.move_alias("churn", "production", version)
        dry = store.sweep(keep=2, older_than=0, dry_run=True)
        assert store.versions("churn") == [1, 2, 3, 4, 5, 6, 7, 8]
        swept = store.sweep(keep=2, older_than=0)
        assert dry.versions == swept.versions == ["churn@1", "churn@4", "churn@5", "churn@6"]
        assert store.versions("churn") == [2, 3, 7, 8]
        assert (swept.set_aside, swept.skipped) == (4, [])
        assert len(store.storage.listing("churn/blobs").keys) == 4
        assert not store.storage.listing("churn/swept").keys
        assert not store.storage.listing("churn/swept/blobs").keys
        assert all(store.verify("churn", version) == [] for version in (2, 3, 7, 8))
        assert publish(store) == 9
        again = store.sweep(keep=3, older_than=0)
        assert (again.versions, again.set_aside, again.removed, again.entries) == ([], 0, 0, 0)
        assert store.rollback("churn", "production").version == 2

    def test_swept_version_can_be_fetched_for_a_day(self, store: ModelStore, copies: LocalCopies) -> None:
        for number in range(3):
            publish(store, content=b"%d" % number)
        assert store.sweep(keep=1).versions == ["churn@1", "churn@2"]
        assert store.sweep(keep=1).versions == []
        assert store.versions("churn") == [3]
        assert content_of(copies.fetch(store, "churn", 1)) == b"0"
        with pytest.raises(UnknownVersion):
            store.move_alias("churn", "production", 1)

    def test_blob_without_a_version_stays_for_a_day(self, store: ModelStore) -> None:
        publish(store)
        store.storage.create(blob_key("churn", "ab" * 32), b"of a killed publisher")
        assert store.sweep().set_aside == 0
        assert store.sweep(older_than=0).set_aside == len(b"of a killed publisher")
        assert store.verify("churn", 1) == []

    def test_next_sweep_finishes_a_killed_one(self, store: ModelStore, copies: LocalCopies) -> None:
        publish(store, alias="production")
        for key in (manifest_key("churn", 1), blob_key("churn", store.manifest("churn", 1).files[0].sha256)):
            store.storage.copy(key, swept_key(key, "killed"))
            store.storage.delete(key)
        assert store.versions("churn") == []
        assert content_of(copies.fetch(store, "churn", store.resolve("churn@production"))) == b"weights"
        store.sweep(older_than=0)
        assert store.versions("churn") == [1]
        assert store.verify("churn", 1) == []
        assert not store.storage.listing("churn/swept/blobs").keys

    def test_sweep_leaves_a_damaged_artifact_alone(self, store: ModelStore) -> None:
        for name in ("churn", "other"):
            for number in range(2):
                publish(store, name=name, content=b"%d" % number)
        store.storage.create(alias_key("churn", "production", 1), b"damaged")
        store.storage.create(manifest_key("fraud", 1), b"damaged")
        store.storage.create(blob_key("fraud", "ab" * 32), b"12345")
        swept = store.sweep(keep=1, older_than=0)
        assert swept.versions == ["other@1"]
        assert [sentence.partition(":")[0] for sentence in swept.skipped] == [
            "churn was not swept",
            "fraud was not swept",
        ]
        assert store.storage.find(blob_key("fraud", "ab" * 32))

    def test_sweep_shortens_the_log_of_an_alias(self, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "KEPT_ENTRIES", 5)
        for number in range(2):
            publish(store, content=b"%d" % number)
        for number in range(8):
            store.move_alias("churn", "production", 1 + number % 2)
        assert store.sweep().entries == 3
        assert len(store.alias_log("churn", "production")) == 5
        assert store.move_alias("churn", "production", 1).number == 9
