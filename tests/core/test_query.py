"""core/query.py: names and values of a query or a simple form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.core.errors import HTTPError
from tinysvc.core.query import CONTROL_CHARACTERS, MAX_QUERY_FIELDS, parse_query
from tinysvc.core.requests import Request


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ("", {}),
        ("a=1&b=2&a=3", {"a": ["1", "3"], "b": ["2"]}),
        ("a", {"a": [""]}),
        ("a=", {"a": [""]}),
        ("=a", {"": ["a"]}),
        ("a=b=c", {"a": ["b=c"]}),
        ("&&a=1&", {"a": ["1"]}),
        ("a=1;b=2", {"a": ["1;b=2"]}),  # CVE-2021-23336
        ("a+b=%2B%20+c%26", {"a b": ["+  c&"]}),
        ("caf%C3%A9=%FF", {"caf\xe9": ["\N{REPLACEMENT CHARACTER}"]}),
    ],
)
def test_query_is_parsed(raw: str, fields: dict[str, list[str]]) -> None:
    assert parse_query(raw) == fields
    request = Request("GET", "/", raw)
    assert request.query == fields
    assert request.query is request.query


def test_query_with_too_many_fields_gets_400() -> None:
    assert len(parse_query("a=1&" * (MAX_QUERY_FIELDS - 1))["a"]) == MAX_QUERY_FIELDS - 1
    with pytest.raises(HTTPError, match="more than 1000 fields") as raised:
        parse_query("&" * MAX_QUERY_FIELDS)
    assert raised.value.status == 400


@given(st.text())
def test_any_text_can_be_parsed_as_a_query(raw: str) -> None:
    assert all(values for values in parse_query(raw).values())


@pytest.mark.parametrize(("text", "found"), [("a b", False), ("\u202f\u2028", False), ("a\nb", True), ("\x85", True)])
def test_control_characters(text: str, found: bool) -> None:
    assert bool(CONTROL_CHARACTERS.search(text)) == found
