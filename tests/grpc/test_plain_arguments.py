"""Arguments of plain values."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from rpc_cases import schema_of
from tinysvc import ApiKey, HTTPError, io_route
from tinysvc.grpc.codec import parameters_of
from tinysvc.grpc.message_classes import message_class
from tinysvc.grpc.message_errors import BadMessage
from tinysvc.grpc.plain_arguments import Parameter, PlainArguments


class Model(BaseModel):
    counts: list[int]


@io_route("/find", methods=["POST"])
async def find(model: Model, key: Annotated[str, ApiKey("key", "query")], either: int | str = 3) -> None: ...


def arguments_of(fields: dict[str, Any]) -> dict[str, Any]:
    parts = schema_of(find).methods[0].codec.parts
    known = parameters_of(parts)
    parameters = [Parameter(slot, *known[str(slot.key)]) for slot in parts.request.slots]
    return PlainArguments(parameters).read(message_class(parts.files, "shop.FindRequest")(**fields))


def test_models_defaults_and_keys() -> None:
    assert arguments_of({"model": {"counts": [1]}, "key": "k"}) == {"model": Model(counts=[1]), "key": "k", "either": 3}
    assert arguments_of({"model": {}, "key": "k", "either_string": "x"})["either"] == "x"


def test_missing_field_comes_before_a_missing_key() -> None:
    with pytest.raises(BadMessage) as failed:
        arguments_of({})
    assert failed.value.faults == [("model", "is missing")]
    with pytest.raises(HTTPError) as refused:
        arguments_of({"model": {}})
    assert refused.value.status == 401
