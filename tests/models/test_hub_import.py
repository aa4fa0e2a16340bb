"""models/hub_import.py: a snapshot of the Hugging Face hub becomes files and meta data."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.models.errors import UnknownVersion
from tinysvc.models.hub_import import cache_folder, import_hub

COMMIT = "6f75de8b60a9f8a2fdf7b69cbd86d9e64bcb3837"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The layout of huggingface_hub: a snapshot has links to blobs."""
    repository = tmp_path / "hub" / "models--org--tiny"
    for path, content in {"refs/main": COMMIT, "refs/v1.0": COMMIT, "blobs/ab": "weights", "blobs/cd": "{}"}.items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(content)
    snapshot = repository / "snapshots" / COMMIT
    (snapshot / "onnx").mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/cd")
    (snapshot / "onnx" / "model.onnx").symlink_to("../../../blobs/ab")
    return tmp_path / "hub"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", f"@{COMMIT}"])
def test_cache_is_read_without_the_library(
    revision: str, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    meta = import_hub(f"org/tiny{revision}", folder, environ={"HF_HUB_CACHE": str(cache)})
    assert meta == {
        "source": {"kind": "hf", "address": "org/tiny", "revision": revision[1:] or "main", "commit": COMMIT}
    }
    model = folder / "onnx" / "model.onnx"
    assert model.read_text() == "weights"
    assert not model.is_symlink()
    assert (folder / "config.json").read_text() == "{}"


def test_files_may_be_chosen(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    import_hub("org/tiny", folder, only=["*.onnx"], environ={"HF_HUB_CACHE": str(cache)})
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["model.onnx"]


def test_missing_snapshot_is_named_with_the_remedy(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for address in ("org/tiny@v2", "org/other"):
        with pytest.raises(UnknownVersion, match=rf"has no {address}.*pip install huggingface_hub"):
            import_hub(address, folder, environ={"HF_HUB_CACHE": str(cache)})


def test_library_downloads_the_snapshot(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def snapshot_download(repository: str, *, revision: str, allow_patterns: list[str] | None) -> str:
        asked.append((repository, revision, allow_patterns))
        if repository == "org/private":
            raise PermissionError("401")
        return str(cache / "models--org--tiny" / "snapshots" / COMMIT)

    library = ModuleType("huggingface_hub")
    library.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    assert import_hub("org/tiny", folder, only=["*.json"], environ={})["source"]["commit"] == COMMIT
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    with pytest.raises(UnknownVersion, match="org/private@v1 cannot be downloaded from the hub: 401"):
        import_hub("org/private@v1", folder, environ={})
    assert asked == [("org/tiny", "main", ["*.json"]), ("org/private", "v1", None)]


@pytest.mark.parametrize("address", ["", "a/b/c", "../tiny", "org/tiny@../../x", "org/tiny@", "org tiny"])
def test_other_addresses_are_refused(address: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="hf: takes ORGANIZATION/MODEL"):
        import_hub(address, folder, environ={})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/b"),
        ({"HF_HOME": "/c"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({}, str(Path("~/.cache/huggingface/hub").expanduser())),
    ],
)
def test_cache_is_where_its_library_has_it(environ: dict[str, str], expected: str) -> None:
    assert str(cache_folder(environ)) == expected
