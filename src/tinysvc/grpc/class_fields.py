"""The fields of a class as its documents have them: of dataclasses, Structs, attrs, TypedDict, NamedTuple, pydantic."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import inspect as inspection

from ..binding.aliases import readable_fields, substituted, without_aliases
from ..core.sse import Event

UNKNOWN: Any = object()
"""The default of a field whose absence is no value, or whose default differs each time."""

REQUIRED: Any = object()
"""The default of a required field."""


class ClassField(NamedTuple):
    """One field of a class."""

    name: str
    key: str
    """Its name in a document."""
    annotation: Any
    default: Any
    """The default, REQUIRED or UNKNOWN."""
    written: str = ""
    """Its name in a document that the class writes, if that is another one."""
    is_computed: bool = False
    """Whether the class writes it and does not read it."""


class ClassFields(NamedTuple):
    """The fields of a class, and the way in which its documents are written."""

    fields: list[ClassField]
    plain: Literal["object", "array"] = "object"
    tag: tuple[str, str | int] | None = None


def fields_of(annotation: Any) -> ClassFields | None:
    """The fields of a class, also of a generic one with its arguments. None for a type that is no such class.

    Raises:
        Exception: msgspec or pydantic cannot read the class.
    """
    kind = get_origin(annotation) or annotation
    if kind is Event:
        return ClassFields(list(_EVENT))
    if hasattr(kind, "model_fields") and hasattr(kind, "model_validate_json"):
        return ClassFields(list(_of_model(kind)))
    if not is_class_with_fields(kind):
        return None
    with readable_fields(annotation):
        info: Any = inspection.type_info(annotation)
    while isinstance(info, inspection.Metadata):
        info = info.type
    hints = _hints(kind, get_args(annotation))
    fields = [
        ClassField(
            each.name,
            each.encode_name,
            without_aliases(hints.get(each.name, Any)),
            _default_of(each),
        )
        for each in info.fields
    ]
    is_array = isinstance(info, inspection.NamedTupleType) or getattr(info, "array_like", False)
    tag = (info.tag_field, info.tag) if getattr(info, "tag", None) is not None else None
    return ClassFields(fields, "array" if is_array else "object", tag)


def is_class_with_fields(kind: Any) -> bool:
    """Whether msgspec reads the class as a document with fields."""
    return isinstance(kind, type) and (
        issubclass(kind, msgspec.Struct)
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__attrs_attrs__")
        or (issubclass(kind, dict) and hasattr(kind, "__total__"))
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


_ABOUT_FIELDS = (typing.Required, typing.NotRequired, typing.Final, getattr(typing, "ReadOnly", typing.Final))


def _bare(hint: Any) -> Any:
    """A hint without `Required`, `NotRequired`, `ReadOnly` and `Final`."""
    while get_origin(hint) in _ABOUT_FIELDS:
        hint = get_args(hint)[0]
    return hint


def _hints(kind: Any, arguments: Sequence[Any]) -> dict[str, Any]:
    """The annotations of a class and of its bases, each with the types in place of the type variables of its class."""
    parameters = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=False))
    found: dict[str, Any] = {}
    for base in reversed(vars(kind).get("__orig_bases__", getattr(kind, "__bases__", ()))):
        if isinstance(origin := get_origin(base) or base, type):
            found |= _hints(origin, [substituted(each, parameters) for each in get_args(base)])
    own = inspect.get_annotations(kind)
    if issubclass(kind, dict):
        own = {name: own[name] for name in own if name not in found}  # a TypedDict has those of its bases, too
    if own and kind.__module__ not in ("builtins", "typing"):
        hints = typing.get_type_hints(kind, include_extras=True)
        found |= {name: substituted(_bare(hints[name]), parameters) for name in own if name in hints}
    return found


def _default_of(field: inspection.Field) -> Any:
    if field.required:
        return REQUIRED
    if field.default_factory is not msgspec.NODEFAULT:
        return made_default(field.default_factory)
    return UNKNOWN if field.default is msgspec.NODEFAULT else field.default


def made_default(factory: Any) -> Any:
    """An empty collection, if the factory makes one; UNKNOWN for any other default."""
    return factory() if factory in (list, dict, set, tuple, frozenset) else UNKNOWN


def _of_model(kind: Any) -> Iterator[ClassField]:
    for name, info in kind.model_fields.items():
        annotation = without_aliases(_bare(info.annotation))
        if info.metadata:
            annotation = Annotated[(annotation, *info.metadata)]
        if info.is_required():
            default = REQUIRED
        else:
            default = made_default(info.default_factory) if info.default_factory else info.default
        key = _read_alias(info) or name
        yield ClassField(name, key, annotation, default, info.serialization_alias or name)
    for name, computed in kind.model_computed_fields.items():
        yield ClassField(name, name, without_aliases(computed.return_type), UNKNOWN, computed.alias or name, True)


def _read_alias(info: Any) -> str:
    alias = info.validation_alias or info.alias
    choices = getattr(alias, "choices", [alias])
    return next((each for each in choices if isinstance(each, str)), "")


_EVENT = (
    ClassField("data", "data", Any, None),
    ClassField("event", "event", str, ""),
    ClassField("id", "id", str, ""),
    ClassField("retry", "retry", int | None, None),
)
