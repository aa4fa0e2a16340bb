"""annotations.py: how type hints are classified."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import msgspec
import pytest

from tinysvc import Header
from tinysvc.binding.annotations import (
    Unresolved,
    comes_as_json,
    extras,
    is_list_of_scalars,
    options,
    signature_of,
    unresolved_at,
)


@dataclass
class Plain:
    x: int


class Typed(TypedDict):
    x: int


class Struct(msgspec.Struct):
    x: int


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize("annotation", [Plain, Typed, Struct, dict, list[int], set[str], Plain | None])
def test_types_that_come_as_json(annotation: Any) -> None:
    assert comes_as_json(annotation)
    assert comes_as_json(Annotated[annotation, "something"])


@pytest.mark.parametrize("annotation", [int, str, bytes, Colour, Any, int | None, memoryview])
def test_types_that_come_as_texts(annotation: Any) -> None:
    assert not comes_as_json(annotation)


@pytest.mark.parametrize(
    ("annotation", "is_one"),
    [(list[int], True), (tuple[int, ...], True), (list[int] | None, True), (list[Plain], False), (int, False)],
)
def test_lists_of_scalars(annotation: Any, is_one: bool) -> None:
    assert is_list_of_scalars(annotation) == is_one


def test_metadata_of_annotated() -> None:
    assert extras(Annotated[str, 1, Header()]) == [1, Header()]
    assert extras(Annotated[str, 1] | None) == [1]
    assert extras(str) == []
    assert options(Annotated[int | str, 1]) == (int, str)


def test_annotation_with_unknown_name() -> None:
    def handler(x: Nothing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    hint = signature_of(handler)["x"].annotation
    assert hint == Unresolved("Nothing", "name 'Nothing' is not defined")
    assert "defined; import or define it" in str(unresolved_at(handler, "x", hint))
