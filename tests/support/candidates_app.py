"""A service with candidates: what the file `number.txt` of an artifact holds decides what its version does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from tinysvc import Artifact, Batch, Response, Service, cpu_resource, cpu_route


def difference(served: Any, candidate: Any) -> float:
    if candidate == 13:
        raise LookupError("compare has no table")
    return float(abs(candidate - served))


def is_sane(number: str) -> bool:
    return number != "insane"


@cpu_resource(check=is_sane)
def shadowed(
    model: Annotated[Path, Artifact("churn@production"), Artifact("churn@candidate", shadow=1.0, compare=difference)],
) -> str:
    return (model / "number.txt").read_text()


@cpu_resource
def derived(shadowed: str) -> str:
    return shadowed


@cpu_resource(shared=True)
def divided(
    model: Annotated[Path, Artifact("words@production"), Artifact("words@candidate", share=0.5, sticky="X-User")],
) -> str:
    return (model / "number.txt").read_text()


def computed(text: str) -> int:
    if text == "killer":
        os.abort()
    if text == "raises":
        raise ValueError("no such number")
    if text == "endless":
        time.sleep(100)
    return int(text)


@cpu_route("/number", timeout=1.0)
def serve_number(derived: str, plus: int = 0) -> int:
    return computed(derived) + plus


@cpu_route("/sum", methods=["POST"], batch=Batch(size=4, wait=0.001))
def serve_sum(items: list[int], shadowed: str) -> list[int]:
    return [computed(shadowed) + item for item in items]


@cpu_route("/stream")
def serve_stream(shadowed: str) -> Iterator[str]:
    yield shadowed


@cpu_route("/text")
def serve_text(shadowed: str) -> Response:
    return Response(shadowed.encode(), 404)


@cpu_route("/variant")
def serve_variant(divided: str) -> int:
    return computed(divided)


service = Service(serve_number, serve_sum, serve_stream, serve_text, serve_variant, shadowed, derived, divided)
