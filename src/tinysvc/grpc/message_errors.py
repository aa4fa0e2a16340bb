"""The errors of gRPC's messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from ..core.errors import BindingError, ConfigurationError, TinysvcError


class NoMapping(TinysvcError):
    """A type has no counterpart in protobuf. At start-up it becomes a ConfigurationError with the function."""


class BadMessage(BindingError):
    """INVALID_ARGUMENT: a message does not fit the parameters of the handler.

    Attributes:
        faults (Sequence[tuple[str, str]]): One (place, detail) for each value that does not fit, as in
            ("order.lines[0].count", "...").
    """

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__(faults)


class FieldFault(Exception):
    """A value does not fit its field: the place inside the message, and the fault."""

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(place, detail)
        self.place = place
        self.detail = detail

    def inside(self, name: str) -> Self:
        """The same fault inside a field: at `a.b`, but `a[0]`."""
        separator = "" if self.place[:1] in ("", "[") else "."
        return type(self)(f"{name}{separator}{self.place}", self.detail)


class LockError(ConfigurationError):
    """The committed .proto file cannot be read, or the types have changed against it."""
