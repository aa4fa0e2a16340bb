"""A real PostgreSQL server for tests: in a folder of its own, on a Unix socket, with fsync on.

It starts on first use, within about a second, once for each process that runs tests. It ends with that process,
also when the process is killed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from system import descendants, is_alive, wait_until

NEEDED = ("initdb", "postgres", "psql")
PORT = 5432  # only part of the socket's name: the server does not listen on TCP
OPTIONS = {
    "listen_addresses": "",
    "port": PORT,
    "shared_buffers": "32MB",
    "max_connections": 100,
    "log_min_messages": "fatal",
    "lc_messages": "C",
    "jit": "off",
    "max_wal_size": "128MB",
    "autovacuum": "off",  # its processes would come and go while a test counts what is left
    "fsync": "on",
    "synchronous_commit": "on",
}
MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 1 << 30


def _binaries() -> Path | None:
    """The folder of initdb, postgres and psql: Debian keeps it out of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    folders += [Path(found).parent for found in [shutil.which("initdb")] if found]
    return next((folder for folder in folders if all((folder / name).exists() for name in NEEDED)), None)


BINARIES = _binaries()


def _missing() -> str:
    if BINARIES is None:
        return "there is no PostgreSQL here; Debian: apt install postgresql"
    if shutil.which("setpriv") is None:
        return "there is no setpriv here; Debian: apt install util-linux"
    return ""


MISSING = _missing()
"""The reason why no server can be started here, or ""."""


def _as_server(*command: str) -> list[str]:
    """Run as the user postgres, because the server refuses root; SIGQUIT when the test process ends."""
    as_user = ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", "--pdeathsig", "QUIT", *as_user, *command]


class Postgres:
    """A server that runs. Each test makes databases of its own in it."""

    def __init__(self, folder: Path, options: dict[str, object] | None = None) -> None:
        assert BINARIES is not None, MISSING
        self.folder = folder
        self._options = {**OPTIONS, **(options or {})}
        self._binaries = BINARIES
        self._process: subprocess.Popen[bytes] | None = None

    def init(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        command = [str(self._binaries / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        subprocess.run(_as_server(*command), check=True, stdout=subprocess.DEVNULL, timeout=60)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}&port={PORT}"

    def start(self) -> None:
        options = [f"-c{name}={value}" for name, value in self._options.items()]
        command = [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(_as_server(*command), stdout=log, stderr=log)
        wait_until(self._is_ready, f"PostgreSQL is ready; see {self.folder / 'log'}")

    def _is_ready(self) -> bool:
        """The last line of postmaster.pid is the status; the file names the process that wrote it."""
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and int(lines[0]) == self._process.pid and lines[7].strip() == "ready"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends the sessions and stops in order; SIGQUIT stops as a crash does; SIGKILL as a power loss does."""
        if self._process is None:
            return
        children = descendants(self.pid)
        self._process.send_signal(how)
        self._process.wait(30)
        wait_until(lambda: not any(map(is_alive, children)), "the processes of PostgreSQL have ended")
        self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes, as a hung disk or a paused machine does, and let them go on."""
        pids = [self.pid, *descendants(self.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement with psql, and return its rows as text."""
        command = [str(self._binaries / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    async def create_database(self) -> str:
        """Create an empty database, and return its URL."""
        name = f"test_{secrets.token_hex(4)}"
        await asyncio.to_thread(self.sql, f"CREATE DATABASE {name}")
        return self.url(name)

    async def create_schema(self) -> str:
        """Create an empty schema in a database that tests share, and return its URL. Cheaper than a database."""
        name = f"test_{secrets.token_hex(4)}"
        connection = await asyncpg.connect(self.url())
        await connection.execute(f"CREATE SCHEMA {name}")
        await connection.close()
        return f"{self.url()}&search_path={name}"


@contextmanager
def running_postgres(*, in_memory: bool = False, **options: object) -> Iterator[Postgres]:
    """Start a server in a new folder, with these options; stop it and remove the folder at the end.

    `in_memory` is for tests that need no disk: hundreds of small tables would keep a disk busy that others use, too.
    """
    base = MEMORY if in_memory and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED else None
    folder = Path(tempfile.mkdtemp(prefix="tinysvc-pg-", dir=base))  # pytest's own folders admit no other user
    server = Postgres(folder, options)
    try:
        server.init()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
