"""The command line of the model store, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinysvc.models.__main__ import main
from tinysvc.models.opening import open_store
from tinysvc.models.store import ModelStore


class ModelsConsole:
    """A store in a folder, and its commands.

    Attributes:
        status: Exit status of the last command.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.status = 0
        self._capsys = capsys
        monkeypatch.setenv("TINYSVC_MODELS", str(folder))
        monkeypatch.setenv("COLUMNS", "200")

    @property
    def store(self) -> ModelStore:
        return open_store(str(self.folder))

    def publish(self, name: str = "churn", content: str = "weights", **options: Any) -> int:
        with self.store.publish(name, **options) as new:
            (new.path / "weights.txt").write_text(content)
        return new.version

    def run(self, *arguments: str) -> str:
        """What a command prints."""
        self.status = 0
        try:
            main(arguments)
        except SystemExit as ended:
            self.status = int(ended.code or 0)
        output, errors = self._capsys.readouterr()
        return (output + errors).rstrip("\n")

    def documents(self, *arguments: str) -> list[Any]:
        """The documents that a command prints with --json."""
        return [json.loads(line) for line in self.run(*arguments, "--json").splitlines()]


@pytest.fixture
def console(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> ModelsConsole:
    return ModelsConsole(tmp_path / "models", capsys, monkeypatch)
