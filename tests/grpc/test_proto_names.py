"""Names of protobuf."""

from __future__ import annotations

import pytest

from tinysvc.grpc.proto_names import Names, camel, json_name, package_of, snake, value_key


def test_names_of_methods_packages_and_members() -> None:
    assert [camel(each) for each in ("predict", "get_user", "shop-orders", "ABc")] == [
        "Predict",
        "GetUser",
        "ShopOrders",
        "ABc",
    ]
    assert [snake(each) for each in ("OrderLine", "HTTPError", "int64")] == ["order_line", "http_error", "int64"]
    assert [package_of(each) for each in ("shop-orders", "Inference", "2nd", "é")] == [
        "shop_orders",
        "inference",
        "service_2nd",
        "service",
    ]


@pytest.mark.parametrize(
    ("name", "expected"), [("a_b", "aB"), ("a__b", "aB"), ("_a", "A"), ("a1_2", "a12"), ("x_", "x")]
)
def test_json_name(name: str, expected: str) -> None:
    assert json_name(name) == expected


@pytest.mark.parametrize(
    ("value", "enum", "expected"),
    [("COLOR_RED", "Color", "Red"), ("COLORRED", "Color", "Red"), ("A_B", "Color", "AB"), ("COLOR_", "Color", "Color")],
)
def test_value_key_is_without_the_name_of_the_enum(value: str, enum: str, expected: str) -> None:
    assert value_key(value, enum) == expected


def test_taken_names_get_the_next_candidate_and_then_numbers() -> None:
    names = Names("Order")
    found = [names.take("Order", "ShopOrder") for _ in range(3)]
    assert found == ["ShopOrder", "ShopOrder2", "ShopOrder3"]
    assert names.has("ShopOrder2")
