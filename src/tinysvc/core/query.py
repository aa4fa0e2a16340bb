"""Parses query strings and simple forms: `application/x-www-form-urlencoded` (WHATWG URL, 5)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from .errors import HTTPError

CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f]")
"""Characters that no name of a file or field may contain."""

MAX_QUERY_FIELDS = 1000
"""Fields that a query string may hold; more is a 400. Without a limit, 100,000 times `a&` is a cheap attack."""


def parse_query(
    raw: str, source: str = "query string", limit: int = MAX_QUERY_FIELDS, codec: str = "utf-8"
) -> dict[str, list[str]]:
    """Parse `a=1&b=2` into name -> values. Only `&` separates fields; `;` is data. More than `limit` are a 400."""
    fields: dict[str, list[str]] = {}
    if not raw:
        return fields
    pairs = raw.split("&", limit)
    if len(pairs) > limit:
        raise HTTPError(400, f"The {source} holds more than {limit} fields.")
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
        text = unquote_to_bytes(text.encode(codec)).decode(codec, "replace")  # as unquote_plus does, in half the time
    return text
