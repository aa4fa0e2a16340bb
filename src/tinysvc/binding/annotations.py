"""Annotations of functions: resolved, and classified."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from ..core.errors import ConfigurationError
from .aliases import evaluated, without_aliases


@dataclasses.dataclass(frozen=True)
class Unresolved:
    """An annotation with a name that does not exist at run time."""

    text: str
    reason: str


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, resolved and without aliases.

    The annotation of a parameter that cannot be resolved is an `Unresolved`; that of the result is left out.
    """
    try:
        found = typing.get_type_hints(function, include_extras=True)
    except Exception:
        found = _each_resolved(function)
    return {name: without_aliases(hint) for name, hint in found.items()}


def _each_resolved(function: Callable[..., Any]) -> dict[str, Any]:
    inner = inspect.unwrap(function)
    namespace = getattr(inner, "__globals__", None) or vars(sys.modules.get(inner.__module__, types))
    found = {}
    for name, hint in _written(inner).items():
        try:
            found[name] = evaluated(hint, namespace, getattr(inner, "__type_params__", ()))
        except Exception as error:
            if name != "return":
                found[name] = Unresolved(getattr(hint, "__forward_arg__", None) or str(hint), str(error))
    return found


def _written(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotations as written. Python 3.14 evaluates annotations on access."""
    try:
        return function.__annotations__
    except NameError:
        import annotationlib  # type: ignore[import-not-found, unused-ignore]

        found: Mapping[str, Any] = annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
        return found


def unresolved_at(function: Callable[..., Any], name: str, hint: Unresolved) -> ConfigurationError:
    return ConfigurationError.at(
        function,
        f"the annotation {hint.text} of the parameter {name} cannot be resolved: {hint.reason}; import or define it at "
        "the module's top level, not under `if TYPE_CHECKING:`, because the server needs the type",
    )


def signature_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters, with their annotations resolved by `hints_of`."""
    hints = hints_of(function)
    return {
        name: parameter.replace(annotation=hints.get(name, parameter.empty))
        for name, parameter in inspect.signature(function).parameters.items()
    }


def without_annotated(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def made_by_service(annotation: Any) -> Any:
    """The class of a parameter that the service fills once, as `Models`: it has `of_service`. None for others."""
    found = without_annotated(annotation)
    return found if hasattr(found, "of_service") else None


def options(annotation: Any) -> tuple[Any, ...]:
    """The types that a value may have: the members of a union, or the one type."""
    annotation = without_annotated(annotation)
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def extras(annotation: Any) -> list[Any]:
    """The metadata of `Annotated`, also in members of a union."""
    return [
        extra
        for part in (annotation, *options(annotation))
        if get_origin(part) is Annotated
        for extra in get_args(part)[1:]
    ]


def is_list_of_scalars(annotation: Any) -> bool:
    return all(
        option is type(None)
        or (
            (get_origin(option) or option) in (list, tuple, set, frozenset)
            and not any(comes_as_json(item) for item in get_args(option) if item is not ...)
        )
        for option in map(without_annotated, options(annotation))
    )


def holds_model(annotation: Any) -> bool:
    """Whether a type is a pydantic model or contains one, as in `list[Model]` or `Model | None`."""
    return hasattr(annotation, "model_validate_json") or any(map(holds_model, get_args(annotation)))


_COLLECTIONS = (dict, list, tuple, set, frozenset, msgspec.Struct)


def comes_as_json(annotation: Any) -> bool:
    """Whether values of this type are JSON documents, not texts."""
    found = options(annotation)
    if len(found) > 1:
        return any(comes_as_json(option) for option in found)
    origin = get_origin(found[0]) or found[0]
    if not isinstance(origin, type) or issubclass(origin, (str, bytes, bytearray, memoryview, enum.Enum)):
        return False
    return (
        issubclass(origin, _COLLECTIONS)
        or issubclass(origin, Collection)
        or dataclasses.is_dataclass(origin)
        or typing.is_typeddict(origin)
        or hasattr(origin, "__attrs_attrs__")
        or hasattr(origin, "model_validate_json")
    )
