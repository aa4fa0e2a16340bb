"""A PostgreSQL server of its own for the part `jobs`, as Debian installs it: with fsync, and no other setting."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import SERVER_CORE, CannotMeasureError, say, wait_until


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of its empty databases, with {name} for bench, few or many; "" where PostgreSQL is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not folders or shutil.which("setpriv") is None:
        say("  going on without PostgreSQL: it is not installed (Debian: apt install postgresql)")
        yield ""
        return
    binaries, folder = folders[-1], Path(tempfile.mkdtemp(prefix="bench-postgres-"))
    as_user = ["setpriv", "--pdeathsig", "QUIT"]
    if os.geteuid() == 0:  # the server refuses root
        shutil.chown(folder, "postgres")
        as_user += ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    data, quiet = folder / "data", subprocess.DEVNULL
    initdb = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    subprocess.run([*initdb, "--no-locale"], check=True, stdout=quiet)
    command = [*SERVER_CORE, *as_user, str(binaries / "postgres"), "-D", str(data), "-k", str(folder), "-h", ""]
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        psql = [str(binaries / "psql"), "-h", str(folder), "-U", "postgres", "-c"]
        for name in ("bench", "few", "many"):
            command = [*psql, f"CREATE DATABASE {name}"]
            if not wait_until(lambda command=command: succeeds(command), 20):
                raise CannotMeasureError("PostgreSQL did not start")
        yield f"postgresql://postgres@/{{name}}?host={folder}"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
