"""outgoing_texts.py: values as texts, and paths with their parameters."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from tinysvc.binding.outgoing_texts import filled_path, text_of, texts_of


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ü", "ü"),
        (True, "true"),
        (7, "7"),
        (0.5, "0.5"),
        (Colour.RED, "red"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        ([1, True], ["1", "true"]),
        ((), []),
    ],
)
def test_text_of_a_value(value: object, text: object) -> None:
    assert text_of(value) == text
    assert texts_of(value) == (text if isinstance(text, list) else [text])


@pytest.mark.parametrize(
    ("path", "texts", "filled"),
    [
        ("/plain", {}, "/plain"),
        ("/a/{b}", {"b": "x/y ?"}, "/a/x%2Fy%20%3F"),
        ("/a/{b:path}", {"b": "x/y z"}, "/a/x/y%20z"),
        ("/{b:path}", {"b": "/host"}, "/%2Fhost"),
        ("/a b/{c}", {"c": "ü"}, "/a%20b/%C3%BC"),
    ],
)
def test_path_with_its_parameters(path: str, texts: dict[str, str], filled: str) -> None:
    assert filled_path(path, texts) == filled
