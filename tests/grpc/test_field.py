"""The marker `Field(7)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from rpc_cases import codec_of
from tinysvc import ConfigurationError
from tinysvc.grpc.field import Field


@pytest.mark.parametrize("number", [0, -1, 2**29, 19000, 19999, True, "7"])
def test_number_that_protobuf_refuses(number: int) -> None:
    with pytest.raises(ConfigurationError, match="19000 to 19999") as caught:
        Field(number)
    assert str(caught.value).startswith(f"Field({number!r}): ")


@dataclass
class Point:
    x: int
    y: Annotated[int, Field(1)]
    z: Annotated[int | None, Field(7)] = None


def test_declared_number_is_that_of_the_field() -> None:
    (value,) = codec_of(Point).parts.request.slots
    assert [(each.name, each.number) for each in value.kind.fields()] == [("x", 2), ("y", 1), ("z", 7)]  # type: ignore[union-attr]
