"""models/opening.py: from the setting to a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.models.opening import open_store


def test_path_is_a_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "models"))
    assert store.url == str(tmp_path / "models")
    assert not (tmp_path / "models").exists()
    assert store.probe()


def test_unknown_address_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ftp://"):
        open_store("ftp://host/models")
