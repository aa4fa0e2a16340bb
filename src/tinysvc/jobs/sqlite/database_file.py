"""The file of the SQLite store: its schema, its creation, and the reasons not to open it.

Every check reads only. A file that is refused is not changed: it can still be repaired, or used by the version of
tinysvc that wrote it. Every refusal is a ConfigurationError.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from ...core.errors import ConfigurationError
from ...core.job_errors import StoreError
from ...core.units import MiB
from .files import sync_folder

APPLICATION = 0x74737663
""" "tsvc": the field "application id" in the header of the file."""
SCHEMA = 1
"""The field "user version" in the header of the file."""
CHECKED_SIZE = 256 * MiB
"""Files up to this size are read whole at the start, to find damage: about 0.5 s."""
NETWORK_FILE_SYSTEMS = {
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs",
}  # fmt: skip
"""Locks, shared memory or fsync are weaker there than SQLite needs (sqlite.org/wal.html, 1.)."""
MOUNTS = Path("/proc/self/mountinfo")

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,    -- the order of acceptance
    id TEXT NOT NULL,
    route TEXT NOT NULL,
    path TEXT,                  -- NULL: the same as the route
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    due REAL NOT NULL,
    key TEXT,
    expires REAL,
    owner TEXT,
    record TEXT NOT NULL        -- the whole record as JSON; the other columns are for the indexes
);
CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE UNIQUE INDEX jobs_key ON jobs (route, key) WHERE key IS NOT NULL;
CREATE INDEX jobs_state ON jobs (route, state);
CREATE INDEX jobs_path ON jobs (path, state) WHERE path IS NOT NULL;
CREATE INDEX jobs_queued ON jobs (route, priority DESC, due) WHERE state = 'queued';
CREATE INDEX jobs_scheduled ON jobs (due) WHERE state = 'scheduled';
CREATE INDEX jobs_expires ON jobs (expires) WHERE expires IS NOT NULL;
CREATE INDEX jobs_owner ON jobs (owner) WHERE owner IS NOT NULL;
CREATE TABLE requests (seq INTEGER PRIMARY KEY, file TEXT, body BLOB, request BLOB NOT NULL);
CREATE TABLE saved (seq INTEGER PRIMARY KEY, file TEXT, body BLOB);
CREATE TABLE results (seq INTEGER PRIMARY KEY, file TEXT, body BLOB);
CREATE INDEX requests_file ON requests (file) WHERE file IS NOT NULL;
CREATE INDEX saved_file ON saved (file) WHERE file IS NOT NULL;
CREATE INDEX results_file ON results (file) WHERE file IS NOT NULL;
CREATE TABLE expired (id TEXT PRIMARY KEY, until REAL NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX expired_until ON expired (until);
CREATE TABLE ticks (name TEXT PRIMARY KEY, tick REAL NOT NULL) WITHOUT ROWID;
"""


def prepare_file(path: Path) -> None:
    """Check the file, or create it if there is none."""
    refuse_network_file_system(path.parent)
    try:
        is_new = _is_new(path)
        if not is_new:
            _check(path)
        _refuse_read_only(path)
        if is_new:
            _create(path)
    except (OSError, sqlite3.OperationalError, StoreError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"The store of durable jobs, {path}, cannot be used: {reason}. Its folder must exist and be writable for "
            "this process; the setting `jobs` names the file."
        ) from error


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """The connection of the store."""
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, cached_statements=256)
    try:
        if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise ConfigurationError(
                f"The file system of {path} has no shared memory for a write-ahead log. Put the store of durable jobs "
                "on a local disk."
            )
        db.executescript(
            """
            PRAGMA synchronous = FULL;
            PRAGMA fullfsync = ON;
            PRAGMA wal_autocheckpoint = 0;
            PRAGMA cache_size = -16384;
            PRAGMA temp_store = MEMORY;
            BEGIN IMMEDIATE;
            ROLLBACK;
            """
        )
        sync_folder(path.parent)  # the log is there now; SQLite hides a failure of its own fsync of the folder
    except (sqlite3.Error, StoreError) as error:
        db.close()
        raise not_opened(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def not_opened(path: Path, error: Exception) -> ConfigurationError:
    """An error of SQLite before the store is in use."""
    return ConfigurationError(f"The store of durable jobs, {path}, cannot be opened: {error}.")


def _refuse_read_only(path: Path) -> None:
    for each in (path, path.parent):  # the log is a new file in the folder
        if each.exists() and not os.access(each, os.W_OK):
            raise ConfigurationError(
                f"The store of durable jobs, {path}, cannot be used: {each} is read-only for this process. Make it "
                "writable, or name another file in the setting `jobs`."
            )


def refuse_network_file_system(folder: Path) -> None:
    """Raise ConfigurationError for a folder on a network file system."""
    kind = _file_system_of(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"The store of durable jobs must not be on a network file system ({folder} is on {kind}): its locks and "
            "fsyncs do not protect the file there. Put it on a local disk, or use PostgreSQL: jobs='postgresql://...'."
        )


def _file_system_of(folder: Path) -> str:
    """Type of the file system that holds the folder; "" if the operating system does not say it."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    real = os.path.realpath(folder)
    found, kind = "", ""
    for line in lines:  # 36 35 98:0 /root /mnt/point rw,noatime master:1 - ext3 /dev/root rw
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")  # a space in the path is \040
        within = real == point or real.startswith(point.rstrip("/") + "/")
        if within and len(point) >= len(found):  # the last of several mounts on one point covers the others
            found, kind = point, rest.split()[0]
    return kind


def _is_new(path: Path) -> bool:
    """Whether there is no file, or an empty one."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"The store of durable jobs, {path}, is not a file. Correct the setting `jobs`.")
    return found.st_size == 0


def _create(path: Path) -> None:
    """Create the file under another name, and rename it: it has all of its tables, or does not exist."""
    for log in (Path(f"{path}-wal"), Path(f"{path}-journal")):
        if log.exists() and log.stat().st_size:  # SQLite would write its pages into the new file
            raise ConfigurationError(
                f"The store of durable jobs, {path}, is missing, but its log {log.name} is there. Bring the file back, "
                "or move the log away to begin with an empty store."
            )
    temporary = path.with_name(f"{path.name}.new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(f"{temporary}{suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(temporary, isolation_level=None)) as db:
        db.executescript(
            f"PRAGMA synchronous = FULL; BEGIN; {TABLES}; PRAGMA application_id = {APPLICATION};"
            f"PRAGMA user_version = {SCHEMA}; COMMIT;"
        )
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != ("wal",) or any(Path(f"{temporary}{each}").exists() for each in ("-journal", "-wal")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))  # SQLite hides a failed fsync here, but keeps its log
    os.rename(temporary, path)
    sync_folder(path.parent)


def _check(path: Path) -> None:
    """Raise ConfigurationError for a file that the store must not touch."""
    with open(path, "rb") as file:
        header = file.read(100)
    remedy = "Nothing was changed. Restore it from a copy, or name another file in the setting `jobs`."
    if not header.startswith(b"SQLite format 3\x00") or len(header) < 100:
        raise ConfigurationError(f"The store of durable jobs, {path}, is not a SQLite database. {remedy}")
    version, application = int.from_bytes(header[60:64]), int.from_bytes(header[68:72])
    if application != APPLICATION:
        raise ConfigurationError(f"{path} is a SQLite database of another program. {remedy}")
    if version > SCHEMA:
        raise ConfigurationError(
            f"The store of durable jobs, {path}, was written by a newer tinysvc (schema {version}; this one reads "
            f"{SCHEMA}). Nothing was changed. Install that version again, or name another file in the setting `jobs`."
        )
    damage = _damage(path)
    if damage:
        raise ConfigurationError(f"The store of durable jobs, {path}, is damaged: {damage}. {remedy}")


def _damage(path: Path) -> str:
    """The first damage that SQLite finds; "" if there is none."""
    wal = path.with_name(f"{path.name}-wal")
    unclean = wal.exists() and wal.stat().st_size > 0
    # A read-only connection reads the log that a crash has left, and does not copy it into the file.
    uri = f"file:{quote(str(path))}?{'mode=ro' if unclean else 'immutable=1'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as db:
            names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            missing = {"meta", "jobs", "requests", "saved", "results", "expired", "ticks"} - names
            if missing:
                return f"the tables {', '.join(sorted(missing))} are missing"
            if path.stat().st_size > CHECKED_SIZE:
                return ""
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            return "" if found == "ok" else str(found)
    except sqlite3.DatabaseError as error:
        return str(error)
