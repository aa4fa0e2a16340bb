"""Handlers of cpu routes that are called as functions (test_cpu_calls.py)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from tinysvc import Batch, HTTPError, cpu_resource, cpu_route, request_id
from tinysvc.core.request_context import route_name


@dataclass
class Features:
    values: list[float]


@cpu_resource
def weights() -> list[float]:
    return [0.5, 0.25]


@cpu_route("/predict", methods=["POST"])
def predict(features: Features, weights: list[float]) -> dict[str, float]:
    return {"score": sum(w * v for w, v in zip(weights, features.values, strict=True))}


@cpu_route("/where")
def where(name: str = "") -> tuple[int, str]:
    return os.getpid(), name


@cpu_route("/identity")
def identity() -> list[str]:
    return [request_id.get(), route_name.get()]


@cpu_route("/fails/{how}")
def fails(how: str) -> None:
    if how == "http":
        raise HTTPError(418, "no coffee", headers=[("x-pot", "tea")])
    if how == "exits":
        os._exit(7)
    raise RuntimeError(how)


class Plain(Exception): ...


class TakesOther(Exception):
    """Does not unpickle: its __init__ takes other arguments than those that it keeps."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class HoldsLock(Exception):
    """Does not pickle."""

    def __init__(self) -> None:
        super().__init__("locked", lambda: None)
        self.lock = threading.Lock()


class TakesKeywords(HTTPError):
    def __init__(self, *, what: str) -> None:
        super().__init__(404, f"no {what}", headers=[("x-what", what)])


class HoldsLockToo(HTTPError):
    def __init__(self) -> None:
        super().__init__(410)
        self.lock = threading.Lock()


def raise_one(name: str) -> None:
    class Local(HTTPError): ...

    class LocalPlain(Exception): ...

    errors: dict[str, Callable[[], Exception]] = {
        "plain": lambda: Plain("text"),
        "other": lambda: TakesOther(7, "text"),
        "lock": HoldsLock,
        "keywords": lambda: TakesKeywords(what="tea"),
        "lock_too": HoldsLockToo,
        "local": lambda: Local(409, "taken"),
        "local_plain": LocalPlain,
    }
    raise errors[name]()


@cpu_route("/raises/{name}")
def raises(name: str) -> None:
    raise_one(name)


@cpu_route("/slow", timeout=0.3)
def slow() -> None:
    time.sleep(60)


@cpu_route("/waits/{path:path}", limit=1)
def waits(path: str) -> int:
    """Reports that it runs, and runs until its stop file exists."""
    Path(path, str(os.getpid())).touch()
    while not Path(path, "end").exists():
        time.sleep(0.005)
    return os.getpid()


@cpu_route("/array", methods=["POST"])
def doubled(array: list[float]) -> Any:
    return numpy.asarray(array) * 2


@cpu_route("/streams")
def streams() -> Iterator[int]:
    yield 1


@cpu_route("/batched", batch=Batch(4))
def batched(number: list[int]) -> list[int]:
    return [n * 2 for n in number]


def plain() -> None: ...
