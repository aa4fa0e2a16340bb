"""A service whose model says how its load, its check or its jobs fail."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from tinysvc import Artifact, Query, cpu_resource, cpu_route

Model = dict[str, Any]


def is_sane(model: Model) -> bool:
    return model.get("fails") != "check"


@cpu_resource(shared=True, check=is_sane)
def model(folder: Annotated[Path, Artifact("m@production")]) -> Model:
    found: Model = json.loads((folder / "model.json").read_text())
    fails = found.get("fails")
    if fails == "load":
        raise ValueError("this model cannot be loaded")
    if fails == "hang":
        time.sleep(3600)
    if fails == "memory":  # as the kernel ends a process that needs too much
        os.kill(os.getpid(), signal.SIGKILL)
    return found


@cpu_route("/number")
def number(model: Model, seconds: Annotated[float, Query()] = 0.0) -> int:
    time.sleep(seconds)
    if model.get("fails") == "job":
        os._exit(1)
    return int(model["number"])


@cpu_route("/numbers", timeout=30)
def numbers(model: Model, end: Annotated[str, Query()]) -> Iterator[bytes]:
    """The number again and again, until a file exists."""
    while not Path(end).exists():
        yield b"%d\n" % model["number"]
        time.sleep(0.01)
