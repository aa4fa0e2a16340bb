"""The check at start-up that a parameter's type can be read from a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..core.errors import ConfigurationError
from ..core.form_data import UploadFile
from .aliases import is_recursive_alias, readable_fields


def check_readable(function: Callable[..., Any], place: str, annotation: Any) -> None:
    """ConfigurationError if msgspec cannot read this type, which the function takes from this place."""
    seen: set[Any] = set()

    def schema_of(kind: Any) -> dict[str, Any]:
        if is_recursive_alias(kind) and kind not in seen:
            seen.add(kind)
            msgspec.json.schema(kind.value(), schema_hook=schema_of)
        if is_recursive_alias(kind) or kind is UploadFile:
            return {"type": "object"}
        raise NotImplementedError

    try:
        with readable_fields(annotation):
            msgspec.json.schema(annotation, schema_hook=schema_of)
    except Exception as error:
        if not str(error).startswith("Encoding objects of type"):  # a default, such as object(), need not be JSON
            raise unreadable(function, place, annotation, error) from None


def unreadable(function: Callable[..., Any], place: str, annotation: Any, error: Exception) -> ConfigurationError:
    """The error for a type that msgspec or pydantic refuses with `error`."""
    if isinstance(error, ConfigurationError):  # of a marker in the class's annotations, which are texts until now
        return ConfigurationError.at(function, f"cannot read a value of type {annotation!r} for {place}: {error}")
    reason = str(error).partition("\n")[0].partition(" - type `")[0]
    if "must be tagged" in reason or "more than one" in reason:
        return ConfigurationError.at(
            function,
            f"cannot read a value of type {annotation!r} for {place}: {reason}; make the classes of the union "
            "msgspec Structs with a tag, which names the class in each document: "
            "class Cat(msgspec.Struct, tag=True)",
        )
    if "ForwardRef(" in repr(annotation):
        return ConfigurationError.at(
            function,
            f"cannot read a value of type {annotation!r} for {place}: a string in it names an unknown type; for a type "
            "that contains itself write type Json = str | list[Json], or before Python 3.12 "
            'Json = TypeAliasType("Json", "str | list[Json]") of typing_extensions; otherwise write the type itself',
        )
    return ConfigurationError.at(
        function,
        f"cannot read a value of type {annotation!r} for {place}; "
        "use a dataclass, Struct, TypedDict or attrs class, a standard type, or Any; "
        "a pydantic model is read from a JSON body only, and only another pydantic model can contain it",
    )
