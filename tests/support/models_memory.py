"""A storage in memory, whose clock the test sets, and turns: the test decides which thread makes the next step."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysvc.models.folder import FolderStorage
from tinysvc.models.storage import Listing, MissingKey, Storage, StoredKey

DAYS = 2 * 86400.0


class MemoryStorage:
    """Keys in a dict. Its clock goes on by a second with each change."""

    url = "memory"

    def __init__(self) -> None:
        self._content: dict[str, tuple[bytes, float]] = {}
        self._now = 1_000_000.0
        self._lock = threading.Lock()

    def age(self) -> None:
        """Two days pass."""
        self._now += DAYS

    def _put(self, key: str, content: bytes) -> bool:
        with self._lock:
            self._now += 1
            if key in self._content:
                return False
            self._content[key] = (content, self._now)
            return True

    def create(self, key: str, content: bytes) -> bool:
        return self._put(key, content)

    def upload(self, key: str, file: Path) -> bool:
        return self._put(key, file.read_bytes())

    def read(self, key: str) -> bytes:
        try:
            return self._content[key][0]
        except KeyError:
            raise MissingKey(key) from None

    def chunks(self, key: str) -> Iterator[bytes]:
        yield self.read(key)

    def find(self, key: str) -> StoredKey | None:
        found = self._content.get(key)
        return StoredKey(key, len(found[0]), found[1]) if found else None

    def listing(self, folder: str) -> Listing:
        prefix = f"{folder}/" if folder else ""
        inside = [key for key in list(self._content) if key.startswith(prefix)]
        keys = [self.find(key) for key in inside if "/" not in key[len(prefix) :]]
        folders = {key[len(prefix) :].partition("/")[0] for key in inside if "/" in key[len(prefix) :]}
        return Listing(tuple(key for key in keys if key), tuple(folders))

    def copy(self, key: str, new_key: str) -> None:
        self._put(new_key, self.read(key))

    def delete(self, key: str) -> None:
        with self._lock:
            self._content.pop(key, None)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    def sweep_staging(self, older_than: float, dry_run: bool) -> list[str]:
        return []


class AgingFolder(FolderStorage):
    """A folder whose files can look older."""

    def age(self) -> None:
        """Two days pass."""
        inodes = {path.stat().st_ino: path for path in self.folder.rglob("*") if path.is_file()}
        for path in inodes.values():
            os.utime(path, (0, path.stat().st_mtime - DAYS))


class Killed(BaseException):
    """`kill -9`: nothing that follows has an effect."""


class Turns:
    """Lets one of several threads make one step at a time. `choices` decides which one.

    Args:
        choices: Numbers: each one chooses among the threads that wait. After the last one, the first thread goes on.
    """

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = list(choices)
        self._waiting: dict[int, threading.Semaphore] = {}
        self._changed = threading.Condition()
        self._alive = 0
        self._ended = False
        self._number = threading.local()

    def step(self) -> None:
        """Wait for the turn of this thread. Called before each step."""
        turn = threading.Semaphore(0)
        with self._changed:
            if self._ended:
                raise Killed
            self._waiting[self._number.value] = turn
            self._changed.notify()
        assert turn.acquire(timeout=30)
        if self._ended:
            raise Killed

    def run(self, actors: Sequence[Callable[[], None]], check: Callable[[], None]) -> None:
        """Run all actors to their ends, and check after each step."""
        failures: list[BaseException] = []

        def act(number: int, actor: Callable[[], None]) -> None:
            self._number.value = number
            try:
                self.step()
                actor()
            except Killed:
                pass
            except BaseException as error:
                failures.append(error)
            finally:
                with self._changed:
                    self._alive -= 1
                    self._changed.notify()

        self._alive = len(actors)
        threads = [threading.Thread(target=act, args=each) for each in enumerate(actors)]
        for thread in threads:
            thread.start()
        try:
            while self._next():
                check()
        finally:
            self._end()
            for thread in threads:
                thread.join(30)
        if failures:
            raise failures[0]

    def _end(self) -> None:
        """Kill the threads that are left, after a failed check."""
        with self._changed:
            self._ended = True
            for turn in self._waiting.values():
                turn.release()

    def _next(self) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiting) == self._alive, 30):
                raise RuntimeError("a thread does not come back")
            if not self._alive:
                return False
            numbers = sorted(self._waiting)
            choice = self._choices.pop(0) if self._choices else 0
            self._waiting.pop(numbers[choice % len(numbers)]).release()
            return bool(self._changed.wait_for(lambda: len(self._waiting) == self._alive, 30))


@dataclass
class TurningStorage:
    """A storage each of whose operations is a step. It may be killed before or after one of them.

    Attributes:
        steps: Operations until the kill; even: before the operation, odd: after it. None: no kill.
    """

    storage: Storage
    turns: Turns
    kill: int | None = None
    _steps: int = 0

    @property
    def url(self) -> str:
        return self.storage.url

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.storage, name)

        def turned(*args: Any) -> Any:
            if self.kill is not None and self._steps * 2 >= self.kill:
                raise Killed
            self.turns.step()
            result = operation(*args)
            self._steps += 1
            if self.kill is not None and self._steps * 2 - 1 == self.kill:
                self.kill = 0
                raise Killed
            return result

        return turned

    def chunks(self, key: str) -> Iterator[bytes]:
        self.turns.step()
        return iter([b"".join(bytes(piece) for piece in self.storage.chunks(key))])

    def staging(self) -> Any:
        return self.storage.staging()

    def sweep_staging(self, older_than: float, dry_run: bool) -> list[str]:
        return []
