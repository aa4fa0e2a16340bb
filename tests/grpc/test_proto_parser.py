"""Reading a .proto file."""

from __future__ import annotations

import pytest

from tinysvc.grpc.message_errors import LockError
from tinysvc.grpc.proto_file import ProtoEnum, ProtoField, ProtoFile, ProtoMessage, ProtoMethod
from tinysvc.grpc.proto_parser import parse_proto
from tinysvc.grpc.proto_text import text_of
from tinysvc.grpc.shapes import Reserved

FILE = ProtoFile(
    "shop",
    {"Shop": {"Buy": ProtoMethod("Buy", "Order", "google.protobuf.Empty", True, True)}},
    {
        "Order": ProtoMessage(
            "Order",
            [
                ProtoField("reserved", "int64", 1),
                ProtoField("tags", "Order", 2, "map", "string"),
                ProtoField("x_int64", "int64", 4, oneof="x"),
                ProtoField("x_null", "google.protobuf.NullValue", 5, oneof="x"),
                ProtoField("note", "string", 6, "optional"),
                ProtoField("lines", "Order", 7, "repeated"),
            ],
            Reserved({3, 9, 10, 11}, {"old"}),
        )
    },
    {"Color": ProtoEnum("Color", {"COLOR_UNSPECIFIED": 0, "COLOR_RED": 2}, Reserved({1}, {"COLOR_BLUE"}))},
)


def test_printed_file_is_read_as_it_was() -> None:
    assert parse_proto(text_of(FILE, "a command"), "shop.proto") == FILE


def test_comments_options_and_whole_names_of_an_edited_file() -> None:
    text = """/* A file
    of several lines. */ syntax = 'proto3'; package shop; option go_package = "x;y";
    service Shop { option deprecated = true;
      rpc Buy (.shop.Order) returns (stream shop.Order) { option (a.b) = { c: "}" }; } ; }
    message Order { option deprecated = true; ; repeated int32 a = 0x10 [packed = false, deprecated = true];
      oneof x { option (y) = 1; string z = 2; } }
    enum E { option allow_alias = true; ; A = 0; B = 1 [deprecated = true]; } ;"""
    file = parse_proto(text, "shop.proto")
    assert file.services["Shop"]["Buy"] == ProtoMethod("Buy", "Order", "Order", False, True)
    assert file.messages["Order"].fields == [
        ProtoField("a", "int32", 16, "repeated"),
        ProtoField("z", "string", 2, oneof="x"),
    ]
    assert file.enums["E"].values == {"A": 0, "B": 1}


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "line 1: the file ends in the middle"),
        ('syntax = "proto2";', "line 1: its syntax is"),
        ('syntax = "proto3";\nfoo', "line 2: 'foo' begins no part of a file"),
        ('syntax = "proto3";\nmessage A {\n  int64 a = x;\n}', "line 3: a number was expected, and 'x' came"),
        ('syntax = "proto3";\nmessage A {\n  message B {} }', "line 3: message inside the message A is not read"),
        ('syntax = "proto3"; message A {} message A {}', "there is a second message A"),
        ('syntax = "proto3"; message A { reserved 1 to max; }', "a number was expected, and 'max' came"),
        ('syntax = "proto3"; message A { reserved 1 to 999999; }', "more than 100000 numbers"),
        ('syntax = "proto3"; message A { int64 a = 0; }', "0 is not between 1 and 536870911"),
        ('syntax = "proto3"; message A { reserved 536870912; }', "536870912 is not between"),
        ('syntax = "proto3"; enum A { Z = 0; B = 2147483648; }', "2147483648 is not between"),
        ('syntax = "proto3"; enum A { reserved', "the file ends in the middle"),
        ('syntax = "proto3"; message 7 {}', "a name was expected, and '7' came"),
        ('syntax = "proto3"; message A (', "'{' was expected, and '(' came"),
        ('syntax = "proto3"; message A { §', "cannot read '§'"),
        ('syntax = "proto3"; message A { int64 a = 1', "the file ends in the middle"),
    ],
)
def test_text_that_is_no_such_file(text: str, detail: str) -> None:
    with pytest.raises(LockError) as failed:
        parse_proto(text, "shop.proto")
    assert str(failed.value).startswith("shop.proto, line ")
    assert detail in str(failed.value)
