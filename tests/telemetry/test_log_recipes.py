"""docs/logs.md: structlog and loguru write the same lines as logging, from the event loop and from workers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from commands import served, tinysvc

PAGE = Path(__file__).parents[2] / "docs" / "logs.md"


def recipe(name: str) -> str:
    """The block of the page that begins with the name of its file."""
    found = re.search(rf"^```python\n(# {name}\n.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


BOTH = """
import loguru_service
import structlog_service
from tinysvc import Service

service = Service(
    Service(structlog_service.io, structlog_service.cpu, prefix="/structlog"),
    Service(loguru_service.io, loguru_service.cpu, prefix="/loguru"),
)
"""


def test_libraries_write_json_lines_with_the_request(tmp_path: Path) -> None:
    for name in ("structlog_service.py", "loguru_service.py"):
        (tmp_path / name).write_text(recipe(name))
    (tmp_path / "service.py").write_text(BOTH)
    with served(*tinysvc("service.py", "--log-format", "json"), cwd=tmp_path) as server:
        for prefix in ("/structlog", "/loguru"):
            assert server.get(prefix + "/io/1").text == "1"
            assert server.get(prefix + "/cpu/0").text == "0"
        server.process.kill()
        _, errors = server.process.communicate(timeout=30)
    lines = [json.loads(line) for line in errors.splitlines()]
    for prefix, logger in (("/structlog", "shop"), ("/loguru", "loguru_service")):
        in_io, in_worker = (line for line in lines if line["logger"] == logger)
        route = f"GET {prefix}/io/{{row}}"
        expected = {"level": "WARNING", "message": "slow row", "route": route, "row": 1, "user": "Ada"}
        assert {name: in_io[name] for name in expected} == expected
        route = f"GET {prefix}/cpu/{{row}}"
        expected = {"level": "ERROR", "message": "bad row", "route": route, "row": 0, "pool": "default"}
        assert {name: in_worker[name] for name in expected} == expected
        assert in_io["request_id"] != in_worker["request_id"]
        assert in_worker["worker"] > 0
        assert in_worker["exception"].endswith("ZeroDivisionError: integer division or modulo by zero")
