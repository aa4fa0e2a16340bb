"""operation.py: the extension `x-tinysvc` of io and cpu routes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from openapi_cases import Item, operation
from tinysvc import (
    Batch,
    cpu_route,
    io_route,
)


@cpu_route("/", timeout=2.5, limit=2, batch=Batch(8, 0.1), deprecated=True, summary="Short")
def batched(x: list[int]) -> list[Item]:
    """Long."""
    return []


@cpu_route("/kept", cache=60, timeout=0)
def kept() -> None: ...


def test_execution_of_a_cpu_route() -> None:
    found = operation(batched)
    assert found["x-tinysvc"] == {
        "kind": "cpu",
        "pool": "default",
        "timeout": 2.5,
        "limit": 2,
        "batch": {"size": 8, "wait": 0.1},
    }
    assert (found["deprecated"], found["summary"], found["description"]) == (True, "Short", "Long.")
    assert set(found["responses"]) == {"200", "400", "422", "503", "504"}
    assert found["responses"]["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Item"}
    found = operation(kept, path="/kept")
    assert found["x-tinysvc"] == {"kind": "cpu", "pool": "default", "cache": 60}
    assert set(found["responses"]) == {"204", "503"}


@io_route("/limited", limit=3, timeout=2)
async def limited() -> str:
    return ""


def test_execution_of_an_io_route() -> None:
    found = operation(limited, path="/limited")
    assert found["x-tinysvc"] == {"kind": "io", "timeout": 2, "limit": 3}
    assert set(found["responses"]) == {"200", "503", "504"}


@io_route("/lines")
async def lines() -> AsyncIterator[str]:
    yield "a"


def test_stream_is_marked() -> None:
    assert operation(lines, path="/lines")["x-tinysvc"] == {"kind": "io", "stream": True}


@io_route("/ordered", methods=["POST"], idempotent=True, hedge=0.05, timeout=1.0)
async def ordered() -> None: ...


@io_route("/counted", idempotent=False)
async def counted() -> None: ...


def test_options_for_callers_are_shown_where_they_are_declared() -> None:
    found = operation(ordered, path="/ordered", method="post")["x-tinysvc"]
    assert found == {"kind": "io", "idempotent": True, "hedge": 0.05, "timeout": 1.0}
    assert operation(counted, path="/counted")["x-tinysvc"] == {"kind": "io", "idempotent": False}
