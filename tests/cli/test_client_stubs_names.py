"""cli/client_stubs_names.py: identifiers of any text, literals, and scopes."""

from __future__ import annotations

import ast
import keyword
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.cli.client_stubs_names import RESERVED, Names, class_name, identifier, literal, snake


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("id", "id"),
        ("last-event-id", "last_event_id"),
        ("class", "class_"),
        ("None", "none"),
        ("2fa", "x_2fa"),
        ("__private", "private"),
        ("", "unnamed"),
        ("größe", "gr_e"),
        ("商品", "unnamed"),
        ("items[0].name", "items_0_name"),
        ("firstName", "firstName"),
        ("FirstName", "first_name"),
        ("ID", "id"),
        ("X-Request-Id", "x_request_id"),
        ("Class", "class_"),
    ],
)
def test_snake(text: str, name: str) -> None:
    assert snake(text) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Order", "Order"),
        ("shop.Order", "ShopOrder"),
        ("order_line", "OrderLine"),
        ("Page[Item]", "PageItem"),
        ("2d", "X2d"),
        ("_hidden", "Hidden"),
        ("none", "None_"),
        ("商品", "Unnamed"),
    ],
)
def test_class_name(text: str, name: str) -> None:
    assert class_name(text) == name


@given(st.text())
def test_any_text_becomes_a_name(text: str) -> None:
    for name in (identifier(text), snake(text), class_name(text)):
        assert name.isidentifier()
        assert not keyword.iskeyword(name)
    assert class_name(text)[0].isupper()
    assert not snake(text)[0].isupper()  # so a field or parameter hides no class


@given(st.one_of(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()))
def test_literal_is_the_value(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value


def test_literal_has_double_quotes() -> None:
    assert literal("it's") == '"it\'s"'
    assert literal('a "b"') == "'a \"b\"'"
    assert literal("ab") == '"ab"'


def test_taken_name_gets_a_number() -> None:
    names = Names(RESERVED)
    assert [names.new("list"), names.new("list"), names.new("a"), names.new("a")] == ["list_", "list_2", "a", "a_2"]
    assert [names.new("room"), names.new("room", "room_cookie")] == ["room", "room_cookie"]
    assert names.new("room", "room_cookie") == "room_cookie_2"
