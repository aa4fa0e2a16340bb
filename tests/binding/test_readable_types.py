"""readable_types.py: types that cannot be read are refused at start-up."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import msgspec
import pytest

from binding_cases import Item, bound
from tinysvc import Field
from tinysvc.binding.binder import Binder
from tinysvc.core.errors import BindingError, ConfigurationError

MISSING: Any = object()


@dataclasses.dataclass
class Patch:
    name: str = MISSING
    inner: Patch | None = None


def test_default_need_not_be_json() -> None:
    def handler(patch: Patch) -> None: ...

    assert bound(handler, body=b"{}") == {"patch": Patch()}
    with pytest.raises(BindingError) as raised:
        bound(handler, body=b'{"name": 1, "inner": {"name": 2}}')
    assert [place for place, _ in raised.value.faults] == ["$.name", "$.inner.name"]


class Pet(msgspec.Struct):
    name: str


def test_union_without_tags_is_refused_with_the_remedy() -> None:
    def handler(value: list[Pet | Item]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"for value: .*more than one.*tag=True"):
        Binder(handler)


@dataclasses.dataclass
class Misnumbered:
    x: Annotated[int, Field(0)]


def test_wrong_marker_in_a_class_is_reported() -> None:
    def handler(value: Misnumbered) -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"test_readable_types\.py:\d+\): .* for value: Field\(0\): the number"
    ):
        Binder(handler)


Json = str | int | list["Json"]  # type: ignore[misc,valid-type,unused-ignore]


def test_union_that_names_itself_in_a_string_is_refused_with_the_remedy() -> None:
    def handler(value: list[Json]) -> None: ...  # type: ignore[valid-type,unused-ignore]

    with pytest.raises(ConfigurationError, match=r"cannot read a value of type .* TypeAliasType"):
        Binder(handler)
