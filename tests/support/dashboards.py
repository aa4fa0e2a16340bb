"""A client of the dashboard: it reads the events as the page does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx


def events(url: str, **headers: str) -> Iterator[tuple[str, Any]]:
    """The events of a running dashboard: names and decoded data."""
    with httpx.stream("GET", f"{url}/dashboard/events", headers=headers, timeout=20) as response:
        assert response.status_code == 200, response.read()
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def document_when(url: str, condition: Callable[[Any], object], **headers: str) -> Any:
    """The first document that fulfils the condition."""
    seen = None
    for name, data in events(url, **headers):
        if name == "now":
            seen = data
            if condition(data):
                return data
    raise AssertionError(f"the stream has ended, after {seen}")
