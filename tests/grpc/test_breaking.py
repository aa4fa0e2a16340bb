"""Changes of a .proto file that break clients: the table."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import make_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from client_tools import tools
from rpc_cases import handler_of, proto_of, schema_of
from tinysvc.grpc.breaking import RULES, breaks_of
from tinysvc.grpc.proto_parser import parse_proto

BEFORE = """
syntax = "proto3";
package shop;
service Shop {
  rpc Buy(Order) returns (Reply);
  rpc Watch(Order) returns (stream Reply);
}
message Order {
  reserved 9;
  reserved "old";
  int64 id = 1;
  repeated string tags = 2;
  oneof x {
    int64 x_int64 = 3;
    string x_string = 4;
  }
  map<string, int64> counts = 5;
  optional Color color = 6;
}
message Reply {
  int64 value = 1;
}
enum Color {
  reserved 3;
  reserved "COLOR_OLD";
  COLOR_UNSPECIFIED = 0;
  COLOR_RED = 1;
  COLOR_BLUE = 2;
}
"""

CASES = [
    ("PACKAGE_SAME", "package shop;", "package store;", "the package was shop, and is store"),
    ("SERVICE_NO_DELETE", "service Shop", "service Store", "the service Shop is removed"),
    ("RPC_NO_DELETE", "rpc Buy", "rpc Sell", "the method Shop.Buy is removed"),
    ("RPC_SAME_REQUEST_TYPE", "Buy(Order)", "Buy(Reply)", "the method Shop.Buy took Order, and takes Reply"),
    ("RPC_SAME_RESPONSE_TYPE", "returns (Reply)", "returns (Order)", "Shop.Buy returned Reply, and returns Order"),
    (
        "RPC_SAME_CLIENT_STREAMING",
        "Buy(Order)",
        "Buy(stream Order)",
        "took one request, and takes a stream of requests",
    ),
    ("RPC_SAME_SERVER_STREAMING", "stream Reply", "Reply", "Shop.Watch returned a stream, and returns no stream"),
    (
        "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED",
        "  int64 id = 1;\n",
        "",
        "Order.id is removed, and its number 1 is not reserved",
    ),
    (
        "FIELD_NO_DELETE_UNLESS_NAME_RESERVED",
        "  int64 id = 1;\n",
        "  reserved 1;\n",
        "Order.id is removed, and its name is not reserved",
    ),
    ("FIELD_SAME_NAME", "int64 id = 1", "int64 key = 1", "Order: the number 1 was that of id, and is that of key"),
    ("FIELD_SAME_NUMBER", "int64 id = 1", "int64 id = 10", "Order.id had the number 1, and has 10"),
    ("FIELD_SAME_TYPE", "int64 id", "string id", "Order.id was int64, and is string"),
    ("FIELD_SAME_TYPE", "map<string, ", "map<int64, ", "was map<string, int64>, and is map<int64, int64>"),
    ("FIELD_SAME_CARDINALITY", "repeated string", "string", "Order.tags was repeated string, and is string"),
    ("FIELD_SAME_ONEOF", "oneof x {", "oneof y {", "Order.x_int64 was in x, and is in y"),
    ("RESERVED_MESSAGE_NO_DELETE", "reserved 9;", "int64 new = 9;", "the number 9 was reserved, and is that of new"),
    ("RESERVED_MESSAGE_NO_DELETE", "reserved 9;", "", "Order: the number 9 was reserved, and is free"),
    ("RESERVED_MESSAGE_NO_DELETE", '  reserved "old";\n', "", "Order: the name old was reserved, and is free"),
    (
        "RESERVED_MESSAGE_NO_DELETE",
        'reserved "old";',
        "string old = 30;",
        "Order: the name old was reserved, and is used again",
    ),
    (
        "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED",
        "  COLOR_RED = 1;\n",
        "",
        "Color.COLOR_RED is removed, and its number 1 is not reserved",
    ),
    (
        "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED",
        "  COLOR_RED = 1;\n",
        "  reserved 1;\n",
        "Color.COLOR_RED is removed, and its name is not reserved",
    ),
    (
        "ENUM_VALUE_SAME_NAME",
        "COLOR_RED",
        "COLOR_PINK",
        "the number 1 was that of COLOR_RED, and is that of COLOR_PINK",
    ),
    ("RESERVED_ENUM_NO_DELETE", "reserved 3;", "", "Color: the number 3 was reserved, and is not any more"),
    ("RESERVED_ENUM_NO_DELETE", '  reserved "COLOR_OLD";\n', "", "Color: the name COLOR_OLD was reserved, and is free"),
]

HARMLESS = [
    ("  int64 id = 1;\n", '  reserved 1;\n  reserved "id";\n'),
    ("int64 id", "optional int64 id"),
    ("  COLOR_RED = 1;\n", '  reserved 1;\n  reserved "COLOR_RED";\n'),
    ("message Reply {", "message Reply {\n  string note = 2;"),
    ("rpc Buy", "rpc Sell(Order) returns (Reply); rpc Buy"),
    ("COLOR_BLUE = 2;", "COLOR_BLUE = 2; COLOR_GREEN = 4;"),
]

CHANGES = [
    *((old, new) for _, old, new, _ in CASES),
    *HARMLESS,
    ("  int64 id = 1;\n", '  reserved "id";\n'),
    ("int64 id = 1", 'reserved "id";\n  int64 key = 1'),
    ("int64 id = 1", "reserved 1;\n  int64 id = 10"),
    *(
        ("int64 id", f"{other} id")
        for other in ("int32", "sint64", "uint64", "bool", "bytes", "double", "Color", "Reply")
    ),
    ("optional Color color", "optional int64 color"),
    ("optional Color color", "Color color"),
    ("int64 id", "repeated int64 id"),
    ("repeated string tags", "map<string, string> tags"),
    ("int64> counts", "string> counts"),
    (
        "  int64 id = 1;\n  repeated string tags = 2;\n  oneof x {",
        "  repeated string tags = 2;\n  oneof x {\n  int64 id = 1;",
    ),
    ("    string x_string = 4;\n  }", "  }\n  string x_string = 4;"),
    ("    string x_string = 4;\n  }", '  }\n  reserved 4;\n  reserved "x_string";'),
    ("COLOR_RED = 1", "COLOR_RED = 7"),
    ("message Order {", "message Order {\n  string more = 30;"),
    ("  rpc Watch(Order) returns (stream Reply);\n", ""),
    ("returns (stream Reply)", "returns (stream Order)"),
]
"""The file before a change, and after it."""

STRICTER = [("service Shop", "service Store"), ("rpc Buy", "rpc Sell"), ("int64 id", "uint64 id")]
STRICTER += [("  rpc Watch(Order) returns (stream Reply);\n", "")]
"""Changes that break clients, and that buf lets pass in this category."""


@pytest.mark.parametrize(
    ("rule", "old", "new", "sentence"), CASES, ids=[f"{n}-{each[0]}" for n, each in enumerate(CASES)]
)
def test_change_that_breaks_clients(rule: str, old: str, new: str, sentence: str) -> None:
    found = breaks_of(parse_proto(BEFORE, "a"), parse_proto(BEFORE.replace(old, new, 1), "b"))
    assert rule in {each.rule for each in found}
    assert any(sentence in str(each) for each in found)


def test_every_rule_has_a_case() -> None:
    assert {each.name for each in RULES} == {rule for rule, *_ in CASES} | {"FIELD_NO_NEW_REQUIRED"}


@pytest.mark.parametrize(("old", "new"), HARMLESS)
def test_change_that_breaks_no_client(old: str, new: str) -> None:
    assert not breaks_of(parse_proto(BEFORE, "a"), parse_proto(BEFORE.replace(old, new, 1), "b"))


def test_all_that_buf_refuses_is_refused(tmp_path: Path) -> None:
    """One run of buf, with a package for each change."""
    (buf,) = tools("buf")
    for number, (old, new) in enumerate(CHANGES):
        assert old in BEFORE
        for version, text in [("before", BEFORE), ("after", BEFORE.replace(old, new, 1))]:
            path = tmp_path / version / f"change{number}" / "shop.proto"
            path.parent.mkdir(parents=True)
            path.write_text(text.replace("package s", f"package change{number}.s"))
    config = json.dumps({"version": "v2", "breaking": {"use": ["WIRE_JSON"]}})
    words = ("--config", config, "--against-config", config, "--error-format", "json")
    ran = subprocess.run(
        [buf, "breaking", tmp_path / "after", "--against", tmp_path / "before", *words],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 100, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    refused = {CHANGES[int(re.findall(r"change([0-9]+)", each["path"])[0])] for each in found}
    before = parse_proto(BEFORE, "a")
    ours = {each for each in CHANGES if breaks_of(before, parse_proto(BEFORE.replace(*each, 1), "b"))}
    assert ours - refused == set(STRICTER)
    assert refused <= ours


def test_new_value_that_older_clients_do_not_send() -> None:
    def files(**fields: Any) -> str:
        return proto_of(schema_of(handler_of(make_dataclass("Order", fields.items()))))

    def found(old: str, **fields: Any) -> list[str]:
        order = make_dataclass("Order", fields.items())
        (after,) = schema_of(
            handler_of(order),
            lock=old,
        ).proto_files
        return [str(each) for each in breaks_of(parse_proto(old, "a"), after)]

    assert found(files(a=int), a=int, at=datetime) == [
        "Order.at is new, and is required: older clients do not send it; give it a default (FIELD_NO_NEW_REQUIRED)"
    ]
    assert found(files(at=datetime | None), at=datetime) == [
        "Order.at could be left out, and is required: older clients do not send it; give it a default "
        "(FIELD_NO_NEW_REQUIRED)"
    ]
    assert not found(files(a=int), a=int, at=datetime | None, b=int)
