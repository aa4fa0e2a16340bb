"""files.py: a file is whole and durable, or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tinysvc.core.job_errors import StoreError, StoreFull
from tinysvc.jobs.sqlite.files import Files, FsyncFailed


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refused)


def test_file_is_private_and_whole(tmp_path: Path) -> None:
    files = Files(tmp_path / "jobs.db-files")
    name = files.write("result", b"content")
    assert (files.folder.stat().st_mode & 0o777, (files.folder / name).stat().st_mode & 0o777) == (0o700, 0o600)
    assert files.read(name) == b"content"
    assert [each.name for each in files.folder.iterdir()] == [name]


def test_each_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    files = Files(tmp_path / "jobs.db-files")
    assert files.write("result", b"1") != files.write("result", b"2")


def test_opened_file_is_readable_after_its_removal(tmp_path: Path) -> None:
    files = Files(tmp_path / "jobs.db-files")
    name = files.write("result", b"content")
    with files.reader(name) as reader:
        files.remove([name, "unknown"])
        assert reader.read() == b"content"
    with pytest.raises(FileNotFoundError):
        files.reader(name)


def test_file_without_a_committed_row_is_not_swept(tmp_path: Path) -> None:
    files = Files(tmp_path / "jobs.db-files")
    assert files.names() == set()
    waiting, settled, dropped = (files.write("result", b"1") for _ in range(3))
    files.settle(settled)
    files.drop(dropped)
    (files.folder / "left.tmp").write_bytes(b"half")
    assert files.names() == {settled, "left.tmp"}
    files.settle(waiting)
    assert files.names() == {settled, waiting, "left.tmp"}


@pytest.mark.parametrize(
    ("call", "number", "kind"),
    [
        ("fsync", errno.EIO, FsyncFailed),
        ("fsync", errno.ENOSPC, StoreFull),
        ("rename", errno.EDQUOT, StoreFull),
        ("rename", errno.EACCES, StoreError),
    ],
    ids=str,
)
def test_failed_write_leaves_no_file(
    call: str, number: int, kind: type[StoreError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path / "jobs.db-files")
    files.write("first", b"1")
    before = files.names()
    with monkeypatch.context() as patch:
        refuse(patch, call, number)
        with pytest.raises(kind) as raised:
            files.write("second", b"2")
    assert type(raised.value) is kind
    assert os.strerror(number) in str(raised.value)
    assert [each.name.split("-")[0] for each in files.folder.iterdir()] == ["first"]
    assert files.names() == before
