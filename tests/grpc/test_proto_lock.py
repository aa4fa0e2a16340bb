"""The committed .proto file is the lock of the field numbers."""

from __future__ import annotations

from dataclasses import make_dataclass
from enum import Enum
from typing import Annotated, Any

import pytest

from rpc_cases import handler_of, proto_of, schema_of
from tinysvc.grpc.field import Field
from tinysvc.grpc.message_errors import LockError
from tinysvc.grpc.proto_file import ProtoFile
from tinysvc.grpc.rpc_schema import RpcSchema


def schema_with(fields: dict[str, Any], lock: RpcSchema | None = None) -> RpcSchema:
    order = make_dataclass("Order", fields.items())
    return schema_of(handler_of(order), lock=None if lock is None else proto_of(lock))


def numbers(schema: RpcSchema, message: str = "Order") -> dict[str, int]:
    return {each.name: each.number for each in file_of(schema).messages[message].fields}


def file_of(schema: RpcSchema) -> ProtoFile:
    (file,) = schema.proto_files
    return file


def test_without_a_file_the_order_counts_and_one_note_says_so() -> None:
    schema = schema_with({"a": int, "b": int | str, "c": str})
    assert numbers(schema) == {"a": 1, "b_int64": 2, "b_string": 3, "c": 4}
    (note,) = schema.notes
    assert "there is no shop.proto" in note


def test_order_of_the_fields_may_change() -> None:
    first = schema_with({"a": int, "b": str})
    second = schema_with({"b": str, "a": int}, first)
    assert numbers(second) == {"b": 2, "a": 1}
    assert second.notes == []


def test_new_field_gets_the_next_number_and_a_note() -> None:
    first = schema_with({"a": int, "b": str})
    second = schema_with({"c": int, "a": int, "b": str}, first)
    assert numbers(second) == {"c": 3, "a": 1, "b": 2}
    assert second.notes == ["shop.proto lacks Order.c; print it again with --proto, and commit it"]


def test_number_of_a_removed_field_is_never_used_again() -> None:
    first = schema_with({"a": int, "b": str})
    second = schema_with({"a": int}, first)
    reserved = file_of(second).messages["Order"].reserved
    assert (reserved.numbers, reserved.names) == ({2}, {"b"})
    third = schema_with({"a": int, "c": str}, second)
    assert numbers(third) == {"a": 1, "c": 3}
    back = schema_with({"a": int, "b": str}, third)
    assert numbers(back) == {"a": 1, "b": 4}  # 3 was that of c
    assert file_of(back).messages["Order"].reserved.numbers == {2, 3}


def test_presence_may_change() -> None:
    first = schema_with({"a": int, "b": str | None})
    assert numbers(schema_with({"a": int | None, "b": str}, first)) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        (int, str, "Order.a was int64, and is string; give the field another name, or its old type"),
        (int, list[int], "Order.a was int64, and is repeated int64"),
        (dict[str, int], dict[int, int], "Order.a was map<string, int64>, and is map<int64, int64>"),
        (
            list[make_dataclass("Line", [("x", int)])],  # type: ignore[misc]
            list[make_dataclass("Row", [("x", int)])],  # type: ignore[misc]
            "Order.a was repeated Line, and is repeated Row; if only the name of the class has changed, rename Line",
        ),
        (int, Annotated[int, Field(7)], "Order.a has the number 1 in the file and Field(7) in the code; keep 1"),
    ],
)
def test_changed_type_stops_the_start(before: Any, after: Any, fault: str) -> None:
    first = schema_with({"a": before})
    with pytest.raises(LockError) as failed:
        schema_with({"a": after}, first)
    assert str(failed.value).startswith("shop.proto and the code do not agree:\n  ")
    assert fault in str(failed.value)


def test_declared_numbers() -> None:
    first = schema_with({"a": int, "b": Annotated[str, Field(1)]})
    assert numbers(first) == {"a": 2, "b": 1}
    second = schema_with({"a": int}, first)
    with pytest.raises(LockError, match="belonged to a removed field"):
        schema_with({"a": int, "c": Annotated[str, Field(1)]}, second)
    with pytest.raises(LockError, match=r"which the file gives to a"):
        schema_with({"c": Annotated[str, Field(2)]}, second)
    with pytest.raises(LockError, match=r"^shop\.proto cannot be made of the code:\n.* both have the number 3"):
        schema_with({"a": Annotated[str, Field(3)], "b": Annotated[str, Field(3)]})


def test_numbers_that_protobuf_keeps_for_itself_are_skipped() -> None:
    first = schema_with({"a": Annotated[int, Field(18999)]})
    assert numbers(schema_with({"a": int, "b": int}, first)) == {"a": 18999, "b": 20000}


def test_values_of_an_enum_keep_their_numbers() -> None:
    def schema(names: str, lock: RpcSchema | None = None) -> RpcSchema:
        color = Enum("Color", [(name, name.lower()) for name in names.split()])  # type: ignore[misc]
        return schema_of(handler_of(color), lock=None if lock is None else proto_of(lock))

    first = schema("RED BLUE")
    second = schema("GREEN BLUE", first)
    color = file_of(second).enums["Color"]
    assert color.values == {"COLOR_UNSPECIFIED": 0, "COLOR_GREEN": 3, "COLOR_BLUE": 2}
    assert (color.reserved.numbers, color.reserved.names) == ({1}, {"COLOR_RED"})
    assert file_of(schema("RED", second)).enums["Color"].values == {"COLOR_UNSPECIFIED": 0, "COLOR_RED": 4}
