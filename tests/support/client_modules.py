"""Modules that `--client` prints, as files and as imported modules."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("[a-z]*") if path.suffix == ".py" or path.is_dir())
"""Files, and a folder with several services."""


def printed(target: str | Path, cwd: Path, **variables: str) -> str:
    """What the command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tinysvc", "--client", str(target)],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def imported(text: str, folder: Path, name: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # the names in annotations are looked up there
    spec.loader.exec_module(module)
    return module
