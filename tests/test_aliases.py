"""aliases.py: type aliases, looked through."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Any, Generic, NewType, TypedDict, TypeVar, Union

import msgspec
import pytest
from typing_extensions import TypeAliasType

from tinysvc import Bearer, Header
from tinysvc.aliases import is_again, without_aliases
from tinysvc.binding import Binder
from tinysvc.errors import BindingError
from tinysvc.messages import Headers, Request
from tinysvc.schemas import Schemas

T = TypeVar("T")
K = TypeVar("K")

Tags = TypeAliasType("Tags", list[str])
Many = TypeAliasType("Many", list[T], type_params=(T,))
Swapped = TypeAliasType("Swapped", dict[T, K], type_params=(K, T))  # type: ignore[misc, unused-ignore]
Token = TypeAliasType("Token", Annotated[str, Bearer()])
Json = TypeAliasType("Json", "bool | int | float | str | list[Json] | dict[str, Json] | None")
Tree = TypeAliasType("Tree", "dict[str, Tree | int]")
UserId = NewType("UserId", int)


@dataclasses.dataclass
class Plain:
    value: Json
    tags: Tags = dataclasses.field(default_factory=list)


class Struct(msgspec.Struct):
    value: Json


class Typed(TypedDict):
    value: Json


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


@pytest.mark.parametrize(
    ("alias", "plain"),
    [
        (Tags, list[str]),
        (Many[int], list[int]),
        (Many[Tags], list[list[str]]),
        (Swapped[int, str], dict[str, int]),
        (Token, Annotated[str, Bearer()]),
        (Annotated[Tags, Header()], Annotated[list[str], Header()]),
        (Union[Tags, None], list[str] | None),  # noqa: UP007 - no alias of Python 3.11 has `|`
        (dict[str, Tags], dict[str, list[str]]),
        (UserId, int),
        (Page[Tags], Page[list[str]]),
    ],
)
def test_an_alias_is_its_type(alias: Any, plain: Any) -> None:
    assert without_aliases(alias) == plain


def test_without_an_alias_an_annotation_is_the_same_object() -> None:
    annotation = Annotated[dict[str, list[int] | None], "x"]
    assert without_aliases(annotation) is annotation


def bound(annotation: Any, body: bytes) -> Any:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = annotation
    try:
        return Binder(handler).bind(Request("POST", "/", "", Headers([])), body, {})["value"]
    except BindingError as error:
        return error.faults


def test_an_alias_that_holds_itself() -> None:
    assert is_again(without_aliases(Tree).__args__[1])
    assert bound(Json, b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert bound(Tree, b'{"a": {"b": 1}}') == {"a": {"b": 1}}
    assert bound(Tree, b'{"a": {"b": "x", "c": null}}') == [
        ("$.a.b", "Expected `int | object`, got `str`"),
        ("$.a.c", "Expected `int | object`, got `null`"),
    ]


@pytest.mark.parametrize("kind", [Plain, Struct, Typed])
def test_aliases_in_fields(kind: Any) -> None:
    before = dict(kind.__annotations__)
    value = bound(kind, b'{"value": [{"a": [1]}]}')
    assert (value["value"] if kind is Typed else value.value) == [{"a": [1]}]
    assert kind.__annotations__ == before


def test_aliases_are_described() -> None:
    schemas = Schemas([without_aliases(Tree), Plain])
    assert schemas.of(without_aliases(Tree)) != {}
    assert "Plain" in schemas.components


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements")
def test_type_statements() -> None:
    names: dict[str, Any] = {"__name__": __name__}
    exec("type Pair[A] = tuple[A, A]\ntype Chain = None | list[Chain]", names)
    assert without_aliases(names["Pair"][int]) == tuple[int, int]
    assert bound(names["Chain"], b"[[[], null]]") == [[[], None]]
