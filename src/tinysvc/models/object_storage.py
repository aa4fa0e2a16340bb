"""A bucket of S3, Google Cloud Storage or Azure as a `Storage`, through the obstore library.

    create    one PUT that the service refuses if the key exists (`If-None-Match: *`)
    upload    parts of PART bytes at the same time; a blob is named by its hash: overwriting it changes nothing
    chunks    ranges of PIECE bytes; the next ones are fetched while the caller hashes and writes this one

*An answer that is lost.* A PUT may succeed although its answer never arrives. Repeated, it is refused because of
itself. So `create` repeats it itself, and then compares the content: no two publishers write equal contents.

*Forks.* The threads of obstore do not survive a fork. A worker opens a storage of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.units import MiB
from .errors import StoreReadOnly, StoreUnavailable
from .storage import MAX_DOCUMENT, Listing, MissingKey, StoredKey

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    Bucket = S3Store | GCSStore | AzureStore

PIECE, AHEAD = 8 * MiB, 4
"""Bytes of a range, and how many of them are fetched ahead: 32 MiB keep a line of 1 Gbit/s busy for 250 ms."""

PART, MAX_PARTS = 16 * MiB, 9_999
"""Bytes of a part of an upload, and how many parts S3 allows."""

MAX_COPY = 5 * 1024 * MiB
"""Bytes that S3 copies by one request. Larger content is read and written again."""

ATTEMPTS, PAUSE = 4, 0.2
"""Attempts to create a key, and seconds before the second one. Each further pause is twice as long."""

RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(seconds=20)}
CLIENT: dict[str, Any] = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),
    "timeout": timedelta(minutes=10),  # of one part or range
}

STAGING = "tinysvc-publication-"
"""The folders of publications begin like this, in the folder for temporary files."""

_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|metadata\.google\.internal|metadata endpoint|[Cc]redential")


class _KeyExistsError(Exception):
    """The service has refused to create a key."""


class ObjectStorage:
    """The keys below a prefix of a bucket.

    Args:
        url: For messages, without secrets.
        remedy: The variables with the credentials, for messages.
        make_bucket: Makes an obstore client with options for its retries and its connections.
    """

    def __init__(self, url: str, remedy: str, make_bucket: Callable[[dict[str, Any], dict[str, Any]], Bucket]) -> None:
        import obstore  # only where a store has such a URL

        self._api = obstore
        self._url = url
        self._remedy = remedy
        self._process = os.getpid()
        self._bucket = make_bucket(RETRIES, CLIENT)
        self._without_retries = make_bucket(NO_RETRIES, CLIENT)

    @property
    def url(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"<ObjectStorage {self._url}>"

    def create(self, key: str, content: bytes) -> bool:
        failure: StoreUnavailable | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                with self._translated(is_write=True):
                    self._api.put(self._without_retries, key, content, mode="create")
                    return True
            except StoreUnavailable as error:
                failure = error
            except _KeyExistsError:
                try:
                    return self.read(key) == content and failure is not None
                except MissingKey:  # another PUT of the key has failed at the same time (S3: 409), or it is deleted
                    failure = failure or StoreUnavailable(f"{self._url} refuses to create {key}, which does not exist")
        assert failure is not None
        raise failure

    def upload(self, key: str, file: Path) -> bool:
        if self.find(key) is not None:
            return False
        part = max(PART, -(-file.stat().st_size // MAX_PARTS))
        with self._translated(is_write=True):
            self._api.put(self._bucket, key, file, chunk_size=part, max_concurrency=AHEAD)
        return True

    def read(self, key: str) -> bytes:
        with self._translated(key):
            found = self._api.get(self._bucket, key)
            if found.meta["size"] > MAX_DOCUMENT:
                raise ValueError(f"{key} has more than {MAX_DOCUMENT} bytes")
            return bytes(found.bytes())

    def chunks(self, key: str) -> Iterator[memoryview | bytes]:
        found = self.find(key)
        if found is None:
            raise MissingKey(key)
        yield from self._pieces(key, found.size)

    def _pieces(self, key: str, size: int) -> Iterator[memoryview]:
        """The content of a key with so many bytes. Its threads make the requests: obstore may be what calls this."""
        starts = iter(range(0, size, PIECE))
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="tinysvc models") as threads:
            ahead = deque(threads.submit(self._range, key, start, size) for start in islice(starts, AHEAD))
            try:
                while ahead:
                    piece = ahead.popleft().result()
                    ahead.extend(threads.submit(self._range, key, start, size) for start in islice(starts, 1))
                    yield piece
            finally:
                for waiting in ahead:
                    waiting.cancel()

    def _range(self, key: str, start: int, size: int) -> memoryview:
        with self._translated(key):
            return memoryview(self._api.get_range(self._bucket, key, start=start, end=min(start + PIECE, size)))

    def find(self, key: str) -> StoredKey | None:
        try:
            with self._translated(key):
                return _stored(self._api.head(self._bucket, key))
        except MissingKey:
            return None

    def listing(self, folder: str) -> Listing:
        with self._translated():
            found = self._api.list_with_delimiter(self._bucket, folder or None)
        folders = tuple(each.rstrip("/").rpartition("/")[2] for each in found["common_prefixes"])
        return Listing(tuple(_stored(each) for each in found["objects"]), folders)

    def copy(self, key: str, new_key: str) -> None:
        with self._translated(key, is_write=True):
            size = self._api.head(self._bucket, key)["size"]
            if size <= MAX_COPY:
                self._api.copy(self._bucket, key, new_key)
            else:
                self._api.put(
                    self._bucket, new_key, self._pieces(key, size), chunk_size=max(PART, -(-size // MAX_PARTS))
                )

    def delete(self, key: str) -> None:
        try:
            with self._translated(key, is_write=True):
                self._api.delete(self._bucket, key)
        except MissingKey:
            pass  # S3 deletes a missing key without an error; Google and Azure report it

    @contextmanager
    def staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=STAGING) as folder:
            yield Path(folder)

    def sweep_staging(self, older_than: float, dry_run: bool) -> list[str]:
        old = []
        for path in Path(tempfile.gettempdir()).glob(f"{STAGING}*"):
            try:
                facts = path.lstat()
            except FileNotFoundError:  # its publication has ended
                continue
            if facts.st_uid == os.geteuid() and path.is_dir() and facts.st_mtime < time.time() - older_than:
                old.append(str(path))
                if not dry_run:
                    shutil.rmtree(path, ignore_errors=True)
        return old

    @contextmanager
    def _translated(self, key: str = "", *, is_write: bool = False) -> Iterator[None]:
        """Raise the errors of obstore as those of `Storage`."""
        if os.getpid() != self._process:
            raise StoreUnavailable(
                f"the store {self._url} was opened before this process was forked, and its threads do not survive "
                "that; open it in the process that uses it"
            )
        from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except AlreadyExistsError as error:
            raise _KeyExistsError from error
        except FileNotFoundError as error:
            if key and not _NO_BUCKET.search(str(error)):
                raise MissingKey(key) from None
            raise StoreUnavailable(f"the store {self._url} does not exist: {_sentence(error)}") from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            if is_write and isinstance(error, PermissionDeniedError):
                raise StoreReadOnly(f"the store {self._url} may be read, but not written: {_sentence(error)}") from None
            raise StoreUnavailable(
                f"the store {self._url} refuses these credentials: {_sentence(error)}; check {self._remedy}"
            ) from None
        except BaseError as error:
            if _NO_BUCKET.search(str(error)):
                raise StoreUnavailable(f"the store {self._url} does not exist: {_sentence(error)}") from None
            remedy = f"; check {self._remedy}" if _NO_CREDENTIALS.search(str(error)) else ""
            raise StoreUnavailable(f"the store {self._url} does not answer: {_sentence(error)}{remedy}") from None


def _stored(found: Any) -> StoredKey:
    return StoredKey(found["path"], found["size"], found["last_modified"].timestamp())


def _sentence(error: BaseException) -> str:
    """The text of an error of obstore without its dump, and without queries of URLs, which may hold a signature."""
    text = str(error).partition("\n\nDebug source")[0]
    before, _, document = text.partition("<?xml")
    detail = ": ".join(re.findall(r"<(?:Code|Message)>([^<\n]*)", document))
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", " ".join(f"{before}{detail}".split()))[:400]
