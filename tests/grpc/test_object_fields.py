"""Classes whose objects consist of their fields alone."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field, make_dataclass
from typing import Annotated, Any, ClassVar, Optional

import msgspec
import pytest

from rpc_cases import codec_of
from tinysvc import Field
from tinysvc.grpc.class_fields import REQUIRED
from tinysvc.grpc.function_source import Unfit
from tinysvc.grpc.object_fields import bare, fields_of, without_none
from tinysvc.grpc.shapes import MessageShape


@dataclass
class Line:
    kind: ClassVar[str] = "line"
    name: str
    count: int = 1
    tags: list[str] = field(default_factory=list)


class Struct(msgspec.Struct, rename="upper"):
    name: str
    count: int = 1
    tags: list[str] = []


@dataclass
class WithPostInit:
    x: int
    more: InitVar[int] = 0

    def __post_init__(self, more: int) -> None: ...


class Terse(msgspec.Struct, omit_defaults=True):
    x: int = 1


def shape_of(annotation: Any) -> MessageShape:
    (slot,) = codec_of(annotation).parts.request.slots
    assert isinstance(slot.kind, MessageShape)
    return slot.kind


@pytest.mark.parametrize("kind", [Line, Struct])
def test_fields_have_annotation_slot_and_default(kind: Any) -> None:
    name, count, tags = fields_of(kind, shape_of(kind))
    assert [name.annotation, count.annotation, tags.annotation] == [str, int, list[str]]
    assert [each.slot.key for each in (name, count)] == (["NAME", "COUNT"] if kind is Struct else ["name", "count"])
    assert (name.default, name.factory, name.has_default) == (REQUIRED, None, False)
    assert (count.default, count.factory, count.has_default) == (1, None, True)
    assert (tags.factory, tags.has_default) == (list, True)


@pytest.mark.parametrize("kind", [WithPostInit, Terse, make_dataclass("Other", [("y", int)]), int, list[int]])
def test_class_with_code_of_its_own_or_other_fields_is_unfit(kind: Any) -> None:
    with pytest.raises(Unfit):
        fields_of(kind, shape_of(Line))


def test_annotated_types_are_bare_unless_they_have_a_constraint() -> None:
    assert bare(Annotated[Annotated[int, Field(7)], "x"]) is int
    assert without_none(Annotated[Optional[Annotated[int, "x"]], "y"]) is int  # noqa: UP045
    assert without_none(str | None) is str
    for constrained in (Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)] | None, int | str):
        with pytest.raises(Unfit):
            without_none(constrained)
