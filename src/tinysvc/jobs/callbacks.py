"""Functions that a store calls: after each commit, and when it breaks down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger("tinysvc.jobs")

Value = TypeVar("Value")


class Callbacks(Generic[Value]):
    """Functions of one argument. An error of one is logged, and the others are called all the same."""

    def __init__(self) -> None:
        self._functions: dict[object, Callable[[Value], object]] = {}

    def add(self, function: Callable[[Value], object]) -> Callable[[], None]:
        """Call `function` from now on. Returns a function that removes it; further calls of that have no effect."""
        key = object()
        self._functions[key] = function

        def remove() -> None:
            self._functions.pop(key, None)

        return remove

    def call(self, value: Value) -> None:
        """Call all functions, in the order in which they were added."""
        for function in list(self._functions.values()):
            try:
                function(value)
            except Exception:
                log.exception("a callback of the store of durable jobs failed")
