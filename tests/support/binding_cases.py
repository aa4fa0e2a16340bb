"""Requests and types for the tests of binding."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

from tinysvc.binding.binder import Binder
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Request


@dataclasses.dataclass
class Item:
    name: str
    price: float
    tags: list[str] = dataclasses.field(default_factory=list)


class Typed(TypedDict):
    a: int


def request(query: str = "", headers: dict[str, str] | None = None) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request("POST", "/", query, Headers(raw))


def bound(function: Any, *arguments: Any, body: bytes = b"") -> dict[str, Any]:
    return Binder(function).bind(request(*arguments), body, {})
