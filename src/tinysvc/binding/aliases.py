"""Type aliases, replaced by their types: `type Tags = list[str]`, `TypeAliasType`, `NewType`, also with parameters.

    type Token = Annotated[str, Bearer()]     ->  Annotated[str, Bearer()]
    type Json = str | list[Json]              ->  str | list[RecursiveAlias]

No other part of tinysvc sees an alias. An alias that contains itself is replaced by a class there, a `RecursiveAlias`:
msgspec calls `decode_hook` for its value, which decodes it with the type of the alias. A union with such a member
becomes one `RecursiveAlias`, because msgspec accepts no custom class beside other types.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import msgspec


class _AcceptsAll(type):
    """msgspec checks that the result of `decode_hook` is an instance; the type of the alias has checked it."""

    def __instancecheck__(cls, value: object) -> bool:
        return True


class RecursiveAlias(metaclass=_AcceptsAll):
    """Replaces an alias inside itself; each alias has its own subclass."""

    annotation: Any

    @classmethod
    def value(cls) -> Any:
        """The type of the alias, without aliases."""
        return _expanded(cls.annotation)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler.generate_schema(cls.annotation)


def without_aliases(annotation: Any) -> Any:
    """The annotation with every alias replaced by its type; the same object if it has no alias."""
    return _replaced(annotation, ())


def is_recursive_alias(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, RecursiveAlias)


def decode_hook(kind: type, value: Any) -> Any:
    """The `dec_hook` for every msgspec decoder: reads aliases that contain themselves."""
    if is_recursive_alias(kind):
        return msgspec.convert(value, kind.value(), dec_hook=decode_hook)  # type: ignore[attr-defined]
    raise NotImplementedError(f"Expected `{kind.__name__}`")


def evaluated(hint: Any, namespace: Mapping[str, Any], type_params: tuple[Any, ...] = ()) -> Any:
    """A type hint that is a string or contains strings, evaluated. NameError for an unknown name."""
    holder = types.FunctionType((lambda: None).__code__, dict(namespace))
    holder.__annotations__ = {"hint": hint}
    scope = {each.__name__: each for each in type_params}
    return typing.get_type_hints(holder, localns=scope or None, include_extras=True)["hint"]


@cache
def _expanded(annotation: Any) -> Any:
    return without_aliases(annotation)


@cache
def _recursive_alias(annotation: Any) -> type[RecursiveAlias]:
    name = "".join(char if char.isalnum() else "_" for char in str(annotation).rpartition(".")[2])
    return cast("type[RecursiveAlias]", _AcceptsAll(name, (RecursiveAlias,), {"annotation": annotation}))


def _is_alias(annotation: Any) -> bool:
    """Compares the name of the class: Python 3.11 has it in typing_extensions only, later versions in both."""
    return type(annotation).__name__ == "TypeAliasType"


def _value(alias: Any, arguments: tuple[Any, ...]) -> Any:
    """The type of an alias, with these arguments for its parameters."""
    module = sys.modules.get(alias.__module__)
    value = evaluated(alias.__value__, vars(module) if module else {}, alias.__type_params__)
    return substituted(value, dict(zip(alias.__type_params__, arguments, strict=False)))


def substituted(annotation: Any, parameters: Mapping[Any, Any]) -> Any:
    """The annotation with its type variables replaced."""
    if not parameters:
        return annotation
    if isinstance(annotation, typing.TypeVar):
        return parameters.get(annotation, annotation)
    own = getattr(annotation, "__parameters__", ())
    return annotation[tuple(parameters.get(each, each) for each in own)] if own else annotation


def _replaced(annotation: Any, above: tuple[Any, ...]) -> Any:
    """See without_aliases. `above` are the aliases around this annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_alias(annotation) or _is_alias(origin):
        if annotation in above:
            return _recursive_alias(annotation)
        return _replaced(_value(origin or annotation, arguments), (*above, annotation))
    if isinstance(annotation, typing.NewType):
        return _replaced(annotation.__supertype__, above)
    if not arguments or origin in (Literal, Callable):
        return annotation
    if origin is Annotated:
        inner = _replaced(arguments[0], above)
        return annotation if inner is arguments[0] else Annotated[(inner, *arguments[1:])]
    found = tuple(_replaced(each, above) for each in arguments)
    if all(new is old for new, old in zip(found, arguments, strict=True)):
        return annotation
    if origin in (Union, types.UnionType):
        others = [each for each in found if each is not type(None)]
        if len(others) > 1 and any(map(is_recursive_alias, others)):
            return _recursive_alias(annotation)
        return Union[found]  # noqa: UP007 - of any number of members
    return origin[found[0] if len(found) == 1 else found]


# Fields


@contextmanager
def readable_fields(*annotations: Any) -> Iterator[None]:
    """Let msgspec read the classes in these types as if their fields had no aliases.

    msgspec supports neither aliases that contain themselves nor those of typing_extensions. It reads the annotations
    of a class once and keeps the result, so the author's annotations are changed only inside this context.
    """
    changed: list[tuple[Any, dict[str, Any]]] = []
    seen: dict[Any, bool] = {}
    for annotation in annotations:
        _collect(annotation, seen, changed)
    before = [(kind, kind.__annotations__) for kind, _ in changed]
    try:
        for kind, hints in changed:
            kind.__annotations__ = hints
        yield
    finally:
        for kind, hints in before:
            kind.__annotations__ = hints


def _collect(annotation: Any, seen: dict[Any, bool], changed: list[tuple[Any, dict[str, Any]]]) -> None:
    for each in get_args(annotation):
        _collect(each, seen, changed)
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type) or kind in seen:
        return
    seen[kind] = True
    if is_recursive_alias(kind):
        _collect(kind.value(), seen, changed)  # type: ignore[attr-defined]
    if hasattr(kind, "model_validate_json"):
        return
    for owner in kind.__mro__ if not typing.is_typeddict(kind) else (kind,):
        own = inspect.get_annotations(owner)
        if not own or owner.__module__ in ("builtins", "typing"):
            continue
        try:
            hints = typing.get_type_hints(owner, include_extras=True)
        except Exception:  # noqa: S112 - msgspec has the better error
            continue
        plain = {name: without_aliases(hints[name]) for name in own if name in hints}
        if any(plain[name] is not hints[name] for name in plain):
            changed.append((owner, {**own, **plain}))
        for hint in plain.values():
            _collect(hint, seen, changed)
