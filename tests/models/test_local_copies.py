"""models/local_copies.py: verified copies that all server processes of a machine share."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_store_contract import content_of, publish
from tinysvc.models.errors import PickleRefused, UnknownVersion, VersionRefused
from tinysvc.models.local_copies import LocalCopies
from tinysvc.models.opening import open_store
from tinysvc.models.signatures import TrustedKeys
from tinysvc.models.store import ModelStore


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return open_store(str(tmp_path / "models"))


@pytest.fixture
def copies(tmp_path: Path) -> LocalCopies:
    return LocalCopies(tmp_path / "copies")


def make_unused(copies: LocalCopies) -> None:
    """Let all copies look as if they were not used for days."""
    for manifest in copies.folder.glob("*/*/manifest.json"):
        os.utime(manifest, (1000.0, 1000.0))


def test_copy_is_used_again(store: ModelStore, copies: LocalCopies) -> None:
    publish(store)
    first = copies.fetch(store, "churn", 1)
    for blob in Path(store.url).glob("churn/blobs/*"):
        blob.unlink()
    assert copies.fetch(store, "churn", 1) == first
    assert pickle.loads(pickle.dumps(first)) == first


def test_one_of_several_processes_fetches(
    store: ModelStore, copies: LocalCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here they are threads, each with its own lock."""
    publish(store)
    chunks, fetched = store.storage.chunks, []

    def counted(key: str) -> Iterator[memoryview | bytes]:
        fetched.append(key)
        return chunks(key)

    monkeypatch.setattr(store.storage, "chunks", counted)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: LocalCopies(copies.folder).fetch(store, "churn", 1), range(4)))
    assert len(fetched) == 1
    assert found == [found[0]] * 4


def test_copies_may_be_part_of_a_read_only_image(
    store: ModelStore, copies: LocalCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    version = copies.fetch(store, "churn", 1)
    copies.remember("churn@production", version)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("utime", "mkdir", "rename"):
        monkeypatch.setattr(os, name, refused)
    assert copies.fetch(store, "churn", 1) == version
    assert copies.last("churn@production") == version


def test_damaged_note_of_the_last_version_is_no_version(store: ModelStore, copies: LocalCopies) -> None:
    publish(store)
    copies.remember("churn@production", copies.fetch(store, "churn", 1))
    (note,) = (copies.folder / ".last").iterdir()
    for content in (b"", b"[]", b'{"copy": "2-none"}'):
        note.write_bytes(content)
        assert copies.last("churn@production") is None


def test_store_made_anew_gets_other_copies(store: ModelStore, copies: LocalCopies, tmp_path: Path) -> None:
    publish(store)
    old = copies.fetch(store, "churn", 1)
    other = open_store(str(tmp_path / "anew"))
    publish(other, content=b"anew")
    new = copies.fetch(other, "churn", 1)
    assert (content_of(old), content_of(new)) == (b"weights", b"anew")


def test_changed_size_of_a_copy_is_noticed(store: ModelStore, copies: LocalCopies) -> None:
    publish(store)
    file = Path(copies.fetch(store, "churn", 1).path) / "weights.bin"
    file.chmod(0o600)
    file.write_bytes(b"less")
    with pytest.raises(VersionRefused, match="has 4 bytes instead of 7; remove"):
        copies.fetch(store, "churn", 1)
    file.unlink()
    with pytest.raises(VersionRefused, match="is missing; remove"):
        copies.last("churn@1")
    assert content_of(copies.fetch(store, "churn", 1)) == b"weights"  # somebody cleans up: it is fetched again


def test_last_version_is_remembered_for_a_store_that_is_away(store: ModelStore, copies: LocalCopies) -> None:
    publish(store, meta={"auc": 0.91})
    assert copies.last("churn@production") is None
    version = copies.fetch(store, "churn", 1)
    assert copies.last("churn@production") is None
    copies.remember("churn@production", version)
    again = LocalCopies(copies.folder)
    assert again.last("churn@production") == version
    assert again.last("churn@1") == version
    assert again.last("churn@2") is None


def test_damaged_manifest_of_a_copy_is_refused(store: ModelStore, copies: LocalCopies) -> None:
    publish(store)
    manifest = Path(copies.fetch(store, "churn", 1).path).parent / "manifest.json"
    for content in (b"{}", b"[]", b"half"):
        manifest.write_bytes(content)
        with pytest.raises(VersionRefused, match="damaged"):
            copies.last("churn@1")
    manifest.unlink()
    with pytest.raises(VersionRefused, match=r"is damaged: .* remove"):
        copies.last("churn@1")
    assert content_of(copies.fetch(store, "churn", 1)) == b"weights"  # it is fetched again


def test_pickle_is_refused_unless_it_is_allowed(store: ModelStore, copies: LocalCopies) -> None:
    publish(store, content=pickle.dumps(Path("code")))
    with pytest.raises(PickleRefused, match=r"churn@1 has pickles \(weights\.bin\)"):
        copies.fetch(store, "churn", 1)
    with pytest.raises(PickleRefused):
        copies.last("churn@1")
    version = copies.fetch(store, "churn", 1, allow_pickle=True)
    assert copies.last("churn@1", allow_pickle=True) == version
    with pytest.raises(PickleRefused):
        copies.fetch(store, "churn", 1)


def test_last_version_needs_a_trusted_signature(store: ModelStore, copies: LocalCopies) -> None:
    publish(store)
    copies.remember("churn@production", copies.fetch(store, "churn", 1))
    trusted = TrustedKeys([Ed25519PrivateKey.generate().public_key()])
    with pytest.raises(VersionRefused, match="no signature"):
        copies.last("churn@production", trusted=trusted)


def test_sweep_keeps_what_is_pinned_or_remembered(store: ModelStore, copies: LocalCopies) -> None:
    versions = [copies.fetch(store, "churn", publish(store, content=b"%d" % number)) for number in range(5)]
    copies.remember("churn@production", versions[0])
    assert copies.sweep(keep=1) == []
    make_unused(copies)
    copies.fetch(store, "churn", 5)
    with copies.pin(versions[1]):
        assert sorted(copies.sweep(keep=1)) == ["churn@3", "churn@4"]
        assert [Path(each.path).exists() for each in versions] == [True, True, False, False, True]
    assert copies.sweep(keep=1) == ["churn@2"]
    assert not list((copies.folder / ".fetching").glob("[0-9a-f]*[0-9a-f]"))
    with pytest.raises(UnknownVersion, match="was removed"), copies.pin(versions[1]):
        pass
    assert content_of(copies.fetch(store, "churn", 2)) == b"1"


def test_files_of_others_in_the_folder_do_no_harm(store: ModelStore, copies: LocalCopies) -> None:
    version = copies.fetch(store, "churn", publish(store))
    copies.remember("churn@production", version)
    (copies.folder / "notes.txt").touch()
    (copies.folder / "churn" / "notes.txt").touch()
    (copies.folder / ".last" / "churn@.json").touch()
    make_unused(copies)
    assert copies.sweep(keep=1) == []
    assert copies.last("churn@production") == version
    for name in ("", "..", "notes"):
        (copies.folder / ".last" / "churn@production.json").write_text(json.dumps({"copy": name}))
        assert copies.last("churn@production") is None


def test_version_that_has_no_room_is_not_begun(
    store: ModelStore, copies: LocalCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    usage = shutil.disk_usage(store.url)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=6))
    with pytest.raises(OSError, match="churn@1 has 7 bytes, and 6 are free"):
        copies.fetch(store, "churn", 1)
    assert not any((copies.folder / ".fetching").glob("*/*"))
