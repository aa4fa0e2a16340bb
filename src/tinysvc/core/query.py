"""Names and values as a query or a simple form has them: `application/x-www-form-urlencoded` (WHATWG URL, 5)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from .errors import HTTPError

CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f]")
"""What no name of a file or field holds."""

MAX_QUERY_FIELDS = 1000
"""Fields a query string may hold; more is a 400. Without a bound, 100,000 times `a&` is a cheap attack."""


def parse_query(
    raw: str, what: str = "query string", most: int = MAX_QUERY_FIELDS, codec: str = "utf-8"
) -> dict[str, list[str]]:
    """An `application/x-www-form-urlencoded` string as name -> values. Only `&` separates; `;` is data."""
    fields: dict[str, list[str]] = {}
    if not raw:
        return fields
    pairs = raw.split("&", most)
    if len(pairs) > most:
        raise HTTPError(400, f"The {what} holds more than {most} fields.")
    is_encoded = "%" in raw or "+" in raw
    for pair in pairs:
        if pair:
            name, _, value = pair.partition("=")
            if is_encoded:
                name, value = _decoded(name, codec), _decoded(value, codec)
            if name in fields:
                fields[name].append(value)
            else:
                fields[name] = [value]
    return fields


def _decoded(text: str, codec: str) -> str:
    if "+" in text:
        text = text.replace("+", " ")
    if "%" in text:
        text = unquote_to_bytes(text.encode(codec)).decode(codec, "replace")  # as unquote_plus, at half its cost
    return text
