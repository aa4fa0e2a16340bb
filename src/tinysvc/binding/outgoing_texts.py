"""Values as texts, the inverse of text_values.py: for path segments, the query, headers, cookies and form fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


def text_of(value: Any) -> Any:
    """A value as it is read again: an Enum by its value, a datetime as in ISO 8601. A list for several values."""
    if type(value) is str:
        return value
    plain = msgspec.to_builtins(value, enc_hook=str)
    if isinstance(plain, (list, tuple)):
        return [text_of(each) for each in plain]
    return str(plain).lower() if isinstance(plain, bool) else str(plain)


def texts_of(value: Any) -> list[str]:
    """All texts of a value: one, or those of a list."""
    found = text_of(value)
    return found if isinstance(found, list) else [found]


def filled_path(path: str, texts: Mapping[str, str]) -> str:
    """A path such as "/items/{name}" with its parameters, percent-encoded."""
    return "/".join([_filled(segment, texts) for segment in path.split("/")]) if "{" in path else path


def _filled(segment: str, texts: Mapping[str, str]) -> str:
    parameter = _PARAMETER.fullmatch(segment)
    if parameter is None:
        return quote(segment)
    value = quote(texts[parameter[1]], safe="/" if parameter[2] else "")
    return value.replace("/", "%2F", 1) if value.startswith("/") else value  # "//host" would be a URL of another host
