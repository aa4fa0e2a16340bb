"""Type aliases, looked through: `type Tags = list[str]`, `TypeAliasType`, `NewType`, also with parameters.

    type Token = Annotated[str, Bearer()]     ->  Annotated[str, Bearer()]
    type Json = str | list[Json]              ->  str | list[Again]

Nothing else of tinysvc sees an alias. Where an alias holds itself, a class stands in for it, an `Again`: msgspec asks
`decode_hook` for its value, which is read by the alias's own type. A union with such a member becomes one `Again`, as
msgspec takes no class of its own kind beside others.
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


class _TakesAny(type):
    """msgspec checks what `decode_hook` returns: whatever the alias's own type reads is right."""

    def __instancecheck__(cls, value: object) -> bool:
        return True


class Again(metaclass=_TakesAny):
    """Stands for an alias inside of itself; each alias has a subclass."""

    annotation: Any

    @classmethod
    def value(cls) -> Any:
        """What the alias stands for; aliases in it are looked through."""
        return _expanded(cls.annotation)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler.generate_schema(cls.annotation)


def without_aliases(annotation: Any) -> Any:
    """The annotation with every alias in it replaced by its type; the same object where there is none."""
    return _replaced(annotation, ())


def is_again(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Again)


def decode_hook(kind: type, value: Any) -> Any:
    """The `dec_hook` of whatever msgspec reads: an alias inside of itself."""
    if is_again(kind):
        return msgspec.convert(value, kind.value(), dec_hook=decode_hook)  # type: ignore[attr-defined]
    raise NotImplementedError(f"Expected `{kind.__name__}`")


def evaluated(hint: Any, namespace: Mapping[str, Any], type_params: tuple[Any, ...] = ()) -> Any:
    """A hint that may be a text, or hold some. NameError if it names what does not exist."""
    holder = types.FunctionType((lambda: None).__code__, dict(namespace))
    holder.__annotations__ = {"hint": hint}
    scope = {each.__name__: each for each in type_params}
    return typing.get_type_hints(holder, localns=scope or None, include_extras=True)["hint"]


@cache
def _expanded(annotation: Any) -> Any:
    return without_aliases(annotation)


@cache
def _again(annotation: Any) -> type[Again]:
    name = "".join(char if char.isalnum() else "_" for char in str(annotation).rpartition(".")[2])
    return cast("type[Again]", _TakesAny(name, (Again,), {"annotation": annotation}))


def _is_alias(annotation: Any) -> bool:
    """By the class's name: Python 3.11 has it from typing_extensions only, and later ones from both."""
    return type(annotation).__name__ == "TypeAliasType"


def _value(alias: Any, arguments: tuple[Any, ...]) -> Any:
    """What an alias stands for, with these in place of its parameters."""
    module = sys.modules.get(alias.__module__)
    value = evaluated(alias.__value__, vars(module) if module else {}, alias.__type_params__)
    return substituted(value, dict(zip(alias.__type_params__, arguments, strict=False)))


def substituted(annotation: Any, parameters: Mapping[Any, Any]) -> Any:
    """The annotation with these in place of its type variables."""
    if not parameters:
        return annotation
    if isinstance(annotation, typing.TypeVar):
        return parameters.get(annotation, annotation)
    own = getattr(annotation, "__parameters__", ())
    return annotation[tuple(parameters.get(each, each) for each in own)] if own else annotation


def _replaced(annotation: Any, above: tuple[Any, ...]) -> Any:
    """`above` are the aliases that this one stands in."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_alias(annotation) or _is_alias(origin):
        if annotation in above:
            return _again(annotation)
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
        return _again(annotation) if len(others) > 1 and any(map(is_again, others)) else Union[found]  # noqa: UP007
    return origin[found[0] if len(found) == 1 else found]


# Fields


@contextmanager
def readable_fields(*annotations: Any) -> Iterator[None]:
    """Within it, msgspec reads the fields of the classes in a type as if they had no aliases.

    msgspec knows neither an alias that holds itself nor those of typing_extensions. It reads a class once and keeps
    what it has found, so the author's annotations are changed for that moment only.
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
    if is_again(kind):
        _collect(kind.value(), seen, changed)  # type: ignore[attr-defined]
    if hasattr(kind, "model_validate_json"):
        return
    for owner in kind.__mro__ if not typing.is_typeddict(kind) else (kind,):
        own = inspect.get_annotations(owner)
        if not own or owner.__module__ in ("builtins", "typing"):
            continue
        try:
            hints = typing.get_type_hints(owner, include_extras=True)
        except Exception:  # noqa: S112 - msgspec says it better
            continue
        plain = {name: without_aliases(hints[name]) for name in own if name in hints}
        if any(plain[name] is not hints[name] for name in plain):
            changed.append((owner, {**own, **plain}))
        for hint in plain.values():
            _collect(hint, seen, changed)
