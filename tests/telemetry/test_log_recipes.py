"""docs/logs.md: structlog and loguru write the same lines as logging, from the event loop and from workers."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from commands import served, tinysvc

PAGE = Path(__file__).parents[2] / "docs" / "logs.md"


def recipe(name: str) -> str:
    """The block of the page that begins with the name of its file."""
    found = re.search(rf"^```python\n(# {name}\n.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("library", "logger"), [("structlog", "shop"), ("loguru", "loguru_service")], ids=["structlog", "loguru"]
)
def test_library_writes_json_lines_with_the_request(tmp_path: Path, library: str, logger: str) -> None:
    pytest.importorskip(library)
    name = f"{library}_service.py"
    (tmp_path / name).write_text(recipe(name))
    with served(*tinysvc(name, "--log-format", "json"), cwd=tmp_path) as server:
        assert server.get("/io/1").text == "1"
        assert server.get("/cpu/0").text == "0"
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=30)
    lines = [json.loads(line) for line in errors.splitlines()]
    in_io, in_worker = (line for line in lines if line["logger"] == logger)
    expected = {"level": "WARNING", "message": "slow row", "route": "GET /io/{row}", "row": 1, "user": "Ada"}
    assert {name: in_io[name] for name in expected} == expected
    expected = {"level": "ERROR", "message": "bad row", "route": "GET /cpu/{row}", "row": 0, "pool": "default"}
    assert {name: in_worker[name] for name in expected} == expected
    assert in_io["request_id"] != in_worker["request_id"]
    assert in_worker["worker"] > 0
    assert in_worker["exception"].endswith("ZeroDivisionError: integer division or modulo by zero")
