"""models/object_storage.py: a bucket of an S3-compatible server keeps the promises of a storage."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import publishing_app
from model_store_contract import ModelStoreContract, StorageContract
from s3_servers import BUCKET, S3Server, failing, s3_server, s3_storage
from tinysvc import Service
from tinysvc.models import object_storage
from tinysvc.models.errors import StoreReadOnly, StoreRefused, StoreUnavailable
from tinysvc.models.object_storage import ObjectStorage
from tinysvc.models.object_urls import object_storage as storage_at
from tinysvc.models.storage import MissingKey
from tinysvc.models.store import ModelStore
from tinysvc.testing import serving

KEY = "churn/1.json"


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def server(running: S3Server) -> Iterator[S3Server]:
    running.recover()
    yield running
    running.recover()


@pytest.fixture
def storage(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    monkeypatch.setattr(object_storage, "PAUSE", 0.001)
    return s3_storage(server, monkeypatch)


class TestStorage(StorageContract):
    @pytest.fixture
    def storage(self, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
        yield s3_storage(server, monkeypatch)  # noqa: PT022 - as the contract


class TestModelStore(ModelStoreContract):
    @pytest.fixture
    def storage(self, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
        yield s3_storage(server, monkeypatch)  # noqa: PT022 - as the contract


def test_service_that_ignores_create_if_absent_is_refused(server: S3Server, storage: ObjectStorage) -> None:
    assert ModelStore(storage).probe()
    server.ignores_create = True
    with pytest.raises(StoreRefused, match=rf"s3://{BUCKET}/models-\d+ ignores create-if-absent"):
        ModelStore(storage).probe()


def test_handlers_publish_to_a_bucket(storage: ObjectStorage) -> None:
    """On the event loop, in a thread, and in a worker, which the forkserver has forked."""
    parts = "in_io", "in_thread", "in_cpu", "newest", "at_start", "guard"
    app = Service(*(getattr(publishing_app, part) for part in parts))
    with serving(app, models=storage.url, cpu_workers=1) as url, httpx.Client(base_url=url, timeout=30) as client:
        found = [
            client.post("/io?content=io").json(),
            client.get("/thread?content=thread").json(),
            client.post("/cpu?content=cpu").json(),
        ]
    assert [each["version"] for each in found] == [1, 2, 3]
    store = ModelStore(storage)
    assert store.resolve("churn@staging") == 3
    assert [store.verify("churn", version) for version in (1, 2, 3)] == [[]] * 3


def test_lost_answer_is_no_lost_creation(server: S3Server, storage: ObjectStorage) -> None:
    """The PUT has its effect, and its answer is an error: the second PUT is refused because of the first."""
    server.fault, server.after_work = failing("500 Internal Server Error"), True
    assert storage.create(KEY, b"mine")
    assert [each.partition(" ")[0] for each in server.requests] == ["PUT", "PUT", "GET"]


def test_lost_answer_does_not_win_against_another_publisher(server: S3Server, storage: ObjectStorage) -> None:
    storage.create(KEY, b"theirs")
    server.fault = failing("500 Internal Server Error")
    assert not storage.create(KEY, b"mine")
    assert storage.read(KEY) == b"theirs"


def test_conflict_without_a_key_is_repeated(server: S3Server, storage: ObjectStorage) -> None:
    """S3 refuses a PUT beside another one with 409, and that one may fail."""
    server.fault = failing("409 Conflict")
    assert storage.create(KEY, b"mine")


def test_absent_store_is_reported(server: S3Server, storage: ObjectStorage) -> None:
    server.fault = failing(*["503 Service Unavailable"] * 10)
    with pytest.raises(StoreUnavailable, match=rf"s3://{BUCKET}/models-\d+ does not answer: .*503") as caught:
        storage.create(KEY, b"mine")
    assert "Debug" not in str(caught.value)
    assert len(server.requests) == object_storage.ATTEMPTS


def test_refused_connection_is_reported(monkeypatch: pytest.MonkeyPatch, storage: ObjectStorage) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(object_storage, "RETRIES", object_storage.NO_RETRIES)
    away = storage_at("s3://company/models")
    with pytest.raises(StoreUnavailable, match="s3://company/models does not answer"):
        away.read(KEY)


def test_read_only_store_is_reported(server: S3Server, storage: ObjectStorage, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"w")
    storage.create(KEY, b"1")
    for write in (
        lambda: storage.create("churn/2.json", b"2"),
        lambda: storage.upload("churn/blobs/a", file),
        lambda: storage.delete(KEY),
        lambda: storage.copy(KEY, "churn/2.json"),
    ):
        server.fault = lambda environ: None if environ["REQUEST_METHOD"] in ("GET", "HEAD") else "403 Forbidden"
        with pytest.raises(StoreReadOnly, match="may be read, but not written"):
            write()
    assert storage.read(KEY) == b"1"


def test_wrong_credentials_are_reported_with_their_variables(server: S3Server, storage: ObjectStorage) -> None:
    server.fault = lambda environ: "403 Forbidden"
    with pytest.raises(StoreUnavailable, match=r"refuses these credentials.*check AWS_ACCESS_KEY_ID"):
        storage.read(KEY)


def test_bucket_that_does_not_exist_is_no_missing_key(storage: ObjectStorage) -> None:
    elsewhere = storage_at("s3://nowhere/models")
    with pytest.raises(StoreUnavailable, match=r"s3://nowhere/models does not exist: .* NoSuchBucket: The specified"):
        elsewhere.read(KEY)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        elsewhere.listing("")


def test_content_travels_in_pieces(
    server: S3Server, storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "PIECE", 1000)
    file, content = tmp_path / "weights", os.urandom(10_500)
    file.write_bytes(content)
    assert storage.upload("churn/blobs/a", file)
    pieces = [bytes(piece) for piece in storage.chunks("churn/blobs/a")]
    assert [len(each) for each in pieces] == [1000] * 10 + [500]
    assert b"".join(pieces) == content


def test_reader_of_pieces_may_end_early(
    storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "PIECE", 10)
    file = tmp_path / "weights"
    file.write_bytes(b"0123456789" * 100)
    storage.upload("churn/blobs/a", file)
    pieces = storage.chunks("churn/blobs/a")
    assert next(pieces) == b"0123456789"
    pieces.close()  # type: ignore[attr-defined]


def test_big_file_is_uploaded_in_parts(
    server: S3Server, storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "PART", 5 * 2**20)
    file = tmp_path / "weights"
    file.write_bytes(bytes(11 * 2**20))
    assert storage.upload("churn/blobs/a", file)
    assert sum(each.startswith("PUT") for each in server.requests) == 3
    found = storage.find("churn/blobs/a")
    assert found is not None
    assert found.size == 11 * 2**20
    assert not storage.upload("churn/blobs/a", file)


def test_missing_keys(storage: ObjectStorage) -> None:
    assert storage.find(KEY) is None
    for read in (lambda: storage.read(KEY), lambda: list(storage.chunks(KEY)), lambda: storage.copy(KEY, "b")):
        with pytest.raises(MissingKey):
            read()
    storage.delete(KEY)
    assert storage.listing("churn").keys == ()


def test_listing_has_the_keys_and_the_folders(storage: ObjectStorage) -> None:
    for key in (KEY, "churn/2.json", "churn/aliases/production/1.json", "other/1.json"):
        storage.create(key, b"12")
    assert sorted(storage.listing("").folders) == ["churn", "other"]
    found = storage.listing("churn")
    assert found.folders == ("aliases",)
    assert sorted((each.key, each.size) for each in found.keys) == [(KEY, 2), ("churn/2.json", 2)]
    assert abs(found.keys[0].modified - time.time()) < 60
    assert storage.listing("churn/aliases").folders == ("production",)


def test_long_listing_is_complete(storage: ObjectStorage, server: S3Server) -> None:
    """A service lists a thousand keys at a time; this one three."""
    for number in range(10):
        storage.create(f"churn/{number}.json", b"")
    server.fault = lambda environ: environ.update(QUERY_STRING=environ["QUERY_STRING"] + "&max-keys=3")
    server.requests.clear()
    assert len(storage.listing("churn").keys) == 10
    assert len(server.requests) == 4


def test_copied_content_has_a_new_key(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.create(KEY, b"1")
    storage.copy(KEY, "trash/1.json")
    storage.delete(KEY)
    monkeypatch.setattr(object_storage, "MAX_COPY", 0)
    storage.copy("trash/1.json", KEY)
    assert storage.read(KEY) == b"1"


def test_store_does_not_survive_a_fork(storage: ObjectStorage) -> None:
    child = os.fork()
    if child == 0:
        try:
            storage.read(KEY)
        except StoreUnavailable as error:
            os._exit(7 if "forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_staging_folders_of_killed_publishers_are_swept(
    storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with storage.staging() as used:
        old = tmp_path / f"{object_storage.STAGING}old"
        old.mkdir()
        (old / "weights").touch()
        os.utime(old, (0, 0))
        assert storage.sweep_staging(60, dry_run=True) == [str(old)]
        assert storage.sweep_staging(60, dry_run=False) == [str(old)]
        assert not old.exists()
        assert used.is_dir()
    assert not used.exists()
