"""What group commit allows on this disk: rows a second with an fsync after each 32 of them, and nothing else.

python bare_commits.py FOLDER SECONDS      prints the rows a second
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path

GROUP = 32


def main(folder: str, seconds: str) -> None:
    connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
    connection.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY, due REAL, record BLOB, body BLOB)")
    connection.execute("CREATE INDEX due ON jobs (due)")
    count, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + float(seconds):
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(GROUP):
            row = (os.urandom(16).hex(), time.time(), bytes(500), b'{"sent":0.0,"path":""}')
            connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?)", row)
        connection.execute("COMMIT")
        count += GROUP
    print(count / (time.perf_counter() - begin))


if __name__ == "__main__":
    main(*sys.argv[1:])
