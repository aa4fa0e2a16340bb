"""inputs.py: the inputs of a Binder."""

from __future__ import annotations

import inspect
from typing import Annotated

from binding_cases import Item
from tinysvc.binding.binder import Binder
from tinysvc.binding.inputs import Fault, Input
from tinysvc.binding.markers import Header, Path, Query


def test_each_parameter_has_its_input() -> None:
    def handler(key: int, item: Item, x_token: Annotated[str, Header()], page: int = 1) -> None: ...

    required = inspect.Parameter.empty
    assert Binder(handler, ("key",)).inputs == [
        Input("key", "path", "key", int, required, Path()),
        Input("item", "json", "", Item, required),
        Input("x_token", "header", "x-token", Annotated[str, Header()], required, Header()),
        Input("page", "query", "page", int, 1, Query()),
    ]


def test_fault_names_each_place() -> None:
    assert Fault(("$.a", "is missing"), ("$.b", "is missing")).faults == (("$.a", "is missing"), ("$.b", "is missing"))
