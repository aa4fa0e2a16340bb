"""Names and literals of a module that `--client` prints: identifiers made from any text, each used once."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from typing import Any

SERVICE = "service"
"""The global through which the functions of the module send their requests."""

MODULE_NAMES = frozenset(
    f"""
    Any AsyncGenerator Event Literal Mapping Remote Sequence TypeAlias UploadFile
    annotations datetime decimal found msgspec uuid {SERVICE}
    """.split()
)
"""Names that the module uses for itself."""

ANNOTATIONS = frozenset(["bool", "bytes", "dict", "float", "int", "list", "str", "tuple"])
"""Builtins that annotations need."""

RESERVED = MODULE_NAMES | {name for name in dir(builtins) if not name.startswith("_")}
"""Names that no global may hide."""

RESERVED_IN_CLASSES = MODULE_NAMES | ANNOTATIONS
"""Names that no field and no parameter may hide."""


def identifier(text: str) -> str:
    """The text as an identifier: an underscore for other characters and behind a keyword, `x_` before a digit."""
    name = re.sub(r"[\W_]+", "_", text, flags=re.ASCII).strip("_") or "unnamed"
    name = f"x_{name}" if name[0].isdigit() else name
    return f"{name}_" if keyword.iskeyword(name) else name


def snake(text: str) -> str:
    """An identifier for a function, a field or a parameter: `last_event_id` for `Last-Event-ID`, `id` for `ID`.

    It never begins with a capital, so it never hides a class.
    """
    name = identifier(text)
    return identifier(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()) if name[0].isupper() else name


def class_name(text: str) -> str:
    """An identifier that begins with a capital, as in `ShopOrder` for `shop.Order`."""
    words = [word for word in re.split(r"[\W_]+", text, flags=re.ASCII) if word]
    name = "".join(word[0].upper() + word[1:] for word in words) or "Unnamed"
    return f"X{name}" if name[0].isdigit() else identifier(name)


def literal(value: Any) -> str:
    """A str, number, bool or None as Python code, with the quotes of most formatters."""
    code = repr(value)
    return f'"{code[1:-1]}"' if isinstance(value, str) and code[0] == "'" and '"' not in value else code


class Names:
    """The names of one scope. A reserved name gets an underscore, and one that is taken a number.

    Args:
        reserved: Names that the scope must not hide.
    """

    def __init__(self, reserved: Iterable[str]) -> None:
        self._reserved = frozenset(reserved)
        self._taken = set(self._reserved)

    def new(self, name: str, second: str = "") -> str:
        """Take the name, or the nearest free one: `id_` if it is reserved, then `second`, `id_2`, `id_3`."""
        candidate = f"{name}_" if name in self._reserved else name
        if candidate in self._taken and second:
            candidate = second
        base, number = candidate.rstrip("_"), 1
        while candidate in self._taken:
            number += 1
            candidate = f"{base}_{number}"
        self._taken.add(candidate)
        return candidate
