"""The job at the end of a chain of services: seconds in C code, which ignores signals and cancellation."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

SECONDS = 4.0


def compute(key: str) -> str:
    """Compute for SECONDS. While it runs, the file `key` in $CHAIN_FOLDER has the process id and the start."""
    mark = Path(os.environ["CHAIN_FOLDER"], key)
    draft = mark.with_suffix(".new")
    draft.write_text(str(os.getpid()))
    draft.rename(mark)
    begin = time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2_000_000)  # half a second or more, without the GIL
    mark.unlink()
    return key
