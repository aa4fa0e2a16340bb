"""The common types of this room: the input of one parameter, and the fault of one that cannot be filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..core.requests import Request
from .markers import Marker

Body = bytes | memoryview
Get = Callable[[Request, Body], Any]
"""Makes the argument for one parameter. Raises Fault."""


class Input(NamedTuple):
    """The place that one parameter is filled from."""

    parameter: str
    place: str
    """In a request: path, query, header, cookie or form (one field of a form); json, bytes or whole form for the body
    as a whole. In the server: request, of_request (made of the request) or resource."""
    field: str
    """The name of the value in that place; "" for a body, and for a value of the server."""
    annotation: Any
    default: Any
    """inspect.Parameter.empty: the value is required."""
    marker: Marker | None = None
    travels: bool = True
    """Whether a client sends the value; False: the server has it."""


class Fault(Exception):
    """One parameter cannot be filled: (place, detail) of each mismatch."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        self.faults = faults
