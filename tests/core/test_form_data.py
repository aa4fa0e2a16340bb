"""core/form_data.py: the contents of files, in memory and on disk."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
import pytest
from PIL import Image

from multipart_bodies import END, MULTIPART, parsed, upload
from system import wait_until
from tinysvc import UploadFile
from tinysvc.core import form_data
from tinysvc.core.form_data import SPOOL_SIZE
from tinysvc.core.forms import read_form


def on_disk(file: UploadFile) -> bool:
    return bool(file.file._rolled)  # type: ignore[attr-defined]


def test_small_files_stay_in_memory_and_big_files_go_to_disk() -> None:
    body = upload(bytes(SPOOL_SIZE // 2)) * 2 + upload(b"x" * 100) + upload(os.urandom(3 * SPOOL_SIZE)) + END
    form = parsed(body, 64 * 1024)
    assert [on_disk(each) for each in form.files["f"]] == [False, False, True, True]
    assert sum(each.size for each in form.files["f"]) == 4 * SPOOL_SIZE + 100
    assert form.get("f").read() == body[-3 * SPOOL_SIZE - len(END) - 2 : -len(END) - 2]


@pytest.mark.parametrize("big", [False, True])
def test_libraries_read_the_file(big: bool, tmp_path: Path) -> None:
    array = np.random.default_rng(1).random(300_000 if big else 10)
    saved = BytesIO()
    np.save(saved, array)
    (found,) = parsed(upload(saved.getvalue()) + END, 10**9).files["f"]
    assert on_disk(found) == big
    assert np.array_equal(np.load(found.file), array)
    found.save(tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    size = (1000, 1000) if big else (10, 10)
    picture = BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (*size, 3), np.uint8)).save(picture, "PNG")
    (found,) = parsed(upload(picture.getvalue()) + END, 10**9).files["f"]
    assert Image.open(found.file).size == size


@pytest.mark.asyncio
async def test_thread_that_writes_during_a_disconnect_closes_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SpooledTemporaryFile[bytes]] = []
    writing, gone, written = threading.Event(), threading.Event(), threading.Event()

    class Slow(SpooledTemporaryFile):  # type: ignore[type-arg]
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def rollover(self) -> None:
            writing.set()
            assert gone.wait(20)
            try:
                super().rollover()
            finally:
                written.set()

    async def pieces() -> AsyncIterator[bytes]:
        yield upload(bytes(2 * SPOOL_SIZE))

    monkeypatch.setattr(form_data, "SpooledTemporaryFile", Slow)
    reading = asyncio.create_task(read_form(MULTIPART, pieces()))
    assert await asyncio.to_thread(writing.wait, 20)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    gone.set()
    assert written.wait(20)
    wait_until(lambda: made and all(file.closed for file in made), "all is closed")
