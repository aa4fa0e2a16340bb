"""models/durable_files.py: a file has its old content or its new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinysvc.models.durable_files import write_durably


def test_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write_durably(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"first")

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("tinysvc.models.durable_files.os.fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_durably(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
