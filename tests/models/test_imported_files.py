"""models/imported_files.py: files from elsewhere become the files of a publication."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinysvc.models.errors import PublicationRefused
from tinysvc.models.imported_files import copy_files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "weights.bin").write_text("weights")
    (source / "sub" / "config.json").write_text("{}")
    return source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


def test_folder_is_copied_with_its_paths(source: Path, folder: Path) -> None:
    assert copy_files(source, folder) == 2
    assert (folder / "sub" / "config.json").read_text() == "{}"


def test_file_is_copied_under_its_name(source: Path, folder: Path) -> None:
    assert copy_files(source / "weights.bin", folder) == 1
    assert (folder / "weights.bin").read_text() == "weights"


def test_patterns_choose_files_in_all_folders(source: Path, folder: Path) -> None:
    assert copy_files(source, folder, ["*.json", "*.txt"]) == 1
    with pytest.raises(PublicationRefused, match=r"source has no file that fits \*\.onnx"):
        copy_files(source, folder, ["*.onnx"])


def test_links_are_copied_as_their_content(source: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "data").write_text("data")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    copy_files(source, folder)
    assert (folder / "linked" / "data").read_text() == "data"
    assert not (folder / "linked").is_symlink()


def test_circle_of_links_ends(source: Path, folder: Path) -> None:
    (source / "sub" / "up").symlink_to(source)
    with pytest.raises(PublicationRefused, match="is a link to a folder that it is in"):
        copy_files(source, folder)


def test_what_cannot_be_copied_is_named(source: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PublicationRefused, match="nothing does not exist"):
        copy_files(tmp_path / "nothing", folder)
    with pytest.raises(PublicationRefused, match=r"new has no file$"):
        copy_files(folder, folder)
    (source / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(PublicationRefused, match="dangling cannot be read: No such file"):
        copy_files(source, folder)
