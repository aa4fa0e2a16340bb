"""A .proto file as data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rpc_cases import handler_of, schema_of
from tinysvc.grpc.proto_file import ProtoField


@dataclass
class Order:
    at: datetime
    tags: dict[str, list[int]]
    key: int | str
    note: str | None = None


def test_file_has_the_fields_of_the_types_and_their_imports() -> None:
    (file,) = schema_of(handler_of(Order)).proto_files
    assert file.imports() == ["google/protobuf/timestamp.proto"]
    order = file.messages["Order"]
    assert order.required == {"at", "key"}
    assert order.fields == [
        ProtoField("at", "google.protobuf.Timestamp", 1),
        ProtoField("tags", "Int64List", 2, "map", "string"),
        ProtoField("key_int64", "int64", 3, oneof="key"),
        ProtoField("key_string", "string", 4, oneof="key"),
        ProtoField("note", "string", 5, "optional"),
    ]
    assert [each.whole_type for each in order.fields[1:3]] == ["map<string, Int64List>", "int64"]
