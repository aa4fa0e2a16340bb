"""database_file.py: a file is created whole, or refused without a change."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.jobs.sqlite import database_file
from tinysvc.jobs.sqlite.database_file import APPLICATION, connect, prepare_file, refuse_network_file_system


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of each file."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.db"
    prepare_file(path)
    return path


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def test_new_file_is_private_and_has_its_tables(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["jobs.db"]
    with closing(connect(path, 1.0)) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert Path(f"{path}-wal").stat().st_mode & 0o777 == 0o600


def test_good_file_is_not_changed_by_the_check(path: Path) -> None:
    before = files_of(path.parent)
    prepare_file(path)
    assert files_of(path.parent) == before


def test_rest_of_an_interrupted_creation_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "jobs.db.new").write_bytes(b"half")
    (tmp_path / "jobs.db").touch()
    prepare_file(tmp_path / "jobs.db")
    prepare_file(tmp_path / "jobs.db")
    assert [each.name for each in tmp_path.iterdir()] == ["jobs.db"]


def test_file_that_a_crash_has_left_is_opened(path: Path) -> None:
    """The content of its write-ahead log counts."""
    db = connect(path, 1.0)
    db.execute("INSERT INTO ticks VALUES ('nightly', 1.0)")
    copies = {each.name: each.read_bytes() for each in path.parent.iterdir()}  # as after SIGKILL
    db.close()
    for name, content in copies.items():
        (path.parent / name).write_bytes(content)
    assert Path(f"{path}-wal").stat().st_size > 0
    prepare_file(path)
    with closing(connect(path, 1.0)) as again:
        assert again.execute("SELECT * FROM ticks").fetchall() == [("nightly", 1.0)]


def _overwrite(start: int, content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(content)

    return damage


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"a,b,c\n" * 100), "is not a SQLite database"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "is not a SQLite database"),
        (lambda path: execute(path, "PRAGMA application_id = 7"), "is a SQLite database of another program"),
        (lambda path: execute(path, "PRAGMA user_version = 2"), r"newer tinysvc \(schema 2; this one reads 1\)"),
        (lambda path: execute(path, "DROP TABLE ticks"), "is damaged: the tables ticks are missing"),
        (_overwrite(4096, b"\x99" * 4096), "is damaged: "),
        (_truncate, "is damaged: "),
    ],
    ids=["text", "short", "foreign", "newer", "table", "page", "truncated"],
)
def test_bad_file_is_refused_and_not_touched(spoil: Callable[[Path], None], message: str, path: Path) -> None:
    spoil(path)
    before = files_of(path.parent)
    with pytest.raises(ConfigurationError, match=message) as raised:
        prepare_file(path)
    assert str(path) in str(raised.value)
    assert "the setting `jobs`" in str(raised.value)
    assert files_of(path.parent) == before


@pytest.mark.parametrize("log", ["jobs.db-wal", "jobs.db-journal"])
def test_log_without_its_file_is_refused(log: str, tmp_path: Path) -> None:
    """SQLite would write the pages of the log into a new file."""
    (tmp_path / log).write_bytes(b"pages")
    with pytest.raises(ConfigurationError, match=f"is missing, but its log {log} is there"):
        prepare_file(tmp_path / "jobs.db")
    assert files_of(tmp_path).keys() == {log}


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a file"):
        prepare_file(tmp_path)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"No such file or directory\. Its folder must exist"):
        prepare_file(tmp_path / "missing" / "jobs.db")


MOUNTS = """\
22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:33 / /srv rw,relatime - nfs4 server:/srv rw
41 40 0:34 / /srv/local\\040disk rw - xfs /dev/vdb rw
42 22 0:35 / /data rw - tmpfs tmpfs rw
43 22 0:36 / /data rw - cifs //server/data rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib", ""),
        ("/srv", "nfs4"),
        ("/srv/app", "nfs4"),
        ("/srvapp", ""),
        ("/srv/local disk/a", ""),
        ("/data", "cifs"),
    ],
)
def test_network_file_system_is_refused(
    folder: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(database_file, "MOUNTS", tmp_path / "mountinfo")
    if kind:
        with pytest.raises(ConfigurationError, match=f"{folder} is on {kind}.*use PostgreSQL"):
            refuse_network_file_system(Path(folder))
    else:
        refuse_network_file_system(Path(folder))


def test_file_system_is_unknown_without_a_table_of_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_file, "MOUNTS", tmp_path / "missing")
    assert database_file._file_system_of(tmp_path) == ""
    refuse_network_file_system(tmp_path)


def test_application_id_is_in_the_header(path: Path) -> None:
    """`file jobs.db` shows it."""
    assert path.read_bytes()[68:72] == APPLICATION.to_bytes(4) == b"tsvc"


def test_large_file_is_not_read_whole_at_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size - 4096)
        file.write(b"\x99" * 4096)
    with pytest.raises(ConfigurationError, match="is damaged"):
        prepare_file(path)
    monkeypatch.setattr(database_file, "CHECKED_SIZE", 4096)
    prepare_file(path)


def test_file_that_another_program_has_locked_is_not_opened(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as tool:
        tool.execute("PRAGMA locking_mode = EXCLUSIVE")
        tool.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigurationError, match="cannot be opened: database is locked"):
            connect(path, 0.05)


def test_file_system_without_shared_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite keeps the old journal mode there, without an error."""
    plain = sqlite3.connect(":memory:", isolation_level=None)
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: plain)
    with pytest.raises(ConfigurationError, match="no shared memory for a write-ahead log"):
        connect(path, 1.0)


def test_failed_fsync_of_the_folder_is_not_hidden(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(ConfigurationError, match=r"cannot be opened: fsync of .* failed"):
        connect(path, 1.0)
