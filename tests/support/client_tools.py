"""Programs that make and run clients in other languages. `make clients` installs them into .venv-clients."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("CLIENT_TOOLS", ROOT / ".venv-clients"))
"""Folder of the programs; those on PATH are found, too."""

PLACES = (Path(sys.executable).parent, FOLDER / "bin", FOLDER / "node_modules" / ".bin", os.environ["PATH"])

SEARCHED = os.pathsep.join(map(str, PLACES))


def tools(*names: str) -> list[str]:
    """The paths of the programs; the test is skipped if one is missing."""
    found = {name: shutil.which(name, path=SEARCHED) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"{', '.join(missing)} not found; `make clients` installs what pip and npm have")
    return [path for path in found.values() if path]
