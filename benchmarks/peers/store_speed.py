"""Publish a file and fetch it, beside a plain copy that hashes while it copies; print the seconds of each as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tinysvc.models.local_copies import LocalCopies
from tinysvc.models.opening import open_store

PIECE = 1024 * 1024


def plain_copy(source: Path, target: Path) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as written:
        while piece := read.read(PIECE):
            digest.update(piece)
            written.write(piece)
        os.fsync(written.fileno())


def seconds_of(action: Callable[[], object]) -> float:
    os.sync()  # earlier writes are not counted
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def main(folder: Path, source: Path) -> dict[str, float]:
    store = open_store(str(folder / "store"))
    copies = LocalCopies(folder / "copies")

    def publish() -> None:
        with store.publish("big") as new:
            plain = new.path / source.name
            source.rename(plain)  # a trainer writes its file there

    copied = seconds_of(lambda: plain_copy(source, folder / "copy"))
    (folder / "copy").unlink()
    published = seconds_of(publish)
    fetched = seconds_of(lambda: copies.fetch(store, "big", 1))
    shutil.rmtree(folder)
    return {"copy": copied, "publish": published, "fetch": fetched}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
