"""Types as shapes: which message, field or scalar of protobuf each type becomes.

    int               int64           a class with fields    a message
    float             double          Enum                   an enum; its zero is X_UNSPECIFIED
    bool, str, bytes  the same        list, set, tuple[T, ...]  repeated
    datetime          Timestamp       dict                   map
    timedelta         Duration        T | None, a default    optional
    Literal, UUID, Decimal, date, time  string               any other union  oneof
    Any, arrays       Value           None                   NullValue

A field of protobuf cannot hold everything: not None beside a default, not a list of lists, not a list that may be None.
Such a type becomes a message with one field, `value`: see `Types.wrapper`.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import os
import types
import uuid
from collections import OrderedDict, abc, defaultdict, deque
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from ..binding.aliases import is_recursive_alias, without_aliases
from .class_fields import REQUIRED, UNKNOWN, ClassField, fields_of
from .field import Field
from .message_errors import NoMapping
from .proto_names import Names, camel, is_identifier, json_name, snake, value_key
from .shapes import (
    DURATION,
    KEEP,
    NULL,
    TIMESTAMP,
    VALUE,
    EnumShape,
    EnumValue,
    Kind,
    Leaf,
    MessageShape,
    Presence,
    Slot,
)

STRING, INT64 = Leaf("string"), Leaf("int64")

LEAVES: dict[Any, Leaf] = {
    bool: Leaf("bool"),
    int: INT64,
    float: Leaf("double"),
    str: STRING,
    bytes: Leaf("bytes"),
    bytearray: Leaf("bytes"),
    memoryview: Leaf("bytes"),
    datetime.datetime: Leaf(TIMESTAMP),
    datetime.timedelta: Leaf(DURATION),
    datetime.date: STRING,
    datetime.time: STRING,
    uuid.UUID: STRING,
    decimal.Decimal: STRING,
    Any: Leaf(VALUE),
    object: Leaf(VALUE),
    None: Leaf(NULL),
    type(None): Leaf(NULL),
}

LISTS = (list, set, frozenset, deque, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Set, abc.MutableSet)
MAPS = (dict, OrderedDict, defaultdict, abc.Mapping, abc.MutableMapping)

_TABLES = ("tolist", "to_list", "to_dicts", "to_pylist", "iterrows")
"""Methods of arrays and tables; core/encoding.py calls them for JSON."""

_MESSAGES = frozenset({TIMESTAMP, DURATION})
"""Leaves that are messages: they are absent, or have a value."""


class Types:
    """The shapes of several types. A class that they share has one shape.

    Args:
        names: The names of the package.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[Any, MessageShape | EnumShape] = {}
        self._models = 0  # pydantic models around the present type

    # Fields

    def slot(self, name: str, annotation: Any, default: Any = REQUIRED, key: str | int | None = None) -> Slot:
        """The field for a value of this type. NoMapping if it has none."""
        if not is_identifier(name):
            raise NoMapping(f"{name!r} is no name for a field in protobuf; use ASCII letters, digits and underscores")
        key = name if key is None else key
        found, declared = flattened(annotation)
        values = [each for each in found if each not in (None, type(None))]
        is_null = len(values) < len(found)
        has_default = default is not REQUIRED
        presence: Presence = "optional" if has_default or is_null else "required"
        hides_null = is_null and has_default and default is not None
        if len(values) == 1 and not hides_null:
            slot = self._single(name, values[0], presence, default)
            slot.is_null = is_null and not has_default
        elif not values:
            slot = Slot(name, LEAVES[None], presence=presence, is_null=True)
        else:
            slot = self._oneof(name, [*values, None] if hides_null else values)
            slot.presence, slot.is_null = presence, is_null and not has_default
        slot.key, slot.declared = key, declared
        if declared and slot.form == "oneof":
            raise NoMapping(f"Field({declared}) gives one number to the several fields of a union; leave it out")
        return slot

    def _single(self, name: str, annotation: Any, presence: Presence, default: Any) -> Slot:
        origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
        is_list, is_map = is_list_type(annotation), origin in MAPS
        if (is_list or is_map) and presence == "optional" and not _is_empty(default):
            return Slot(name, self.wrapper(annotation), presence=presence)
        if is_list:
            return Slot(name, self.kind(arguments[0] if arguments else Any), "repeated")
        if is_map:
            key, value = arguments or (str, Any)
            return Slot(name, self.kind(value), "map", key_kind=self._key(key))
        kind = self.kind(annotation)
        if kind == LEAVES[Any] and presence == "required":
            return Slot(name, kind, presence="optional", is_null=True)
        if isinstance(kind, Leaf) and kind.type not in _MESSAGES and presence == "required":
            presence = "implicit"
        return Slot(name, kind, presence=presence)

    def _oneof(self, name: str, values: Iterable[Any]) -> Slot:
        members = []
        for each in values:
            kind = self.kind(each)
            suffix = "null" if each is None else snake(self.label(kind))
            accepts = frozenset(get_args(each)) if get_origin(each) is Literal else None
            members.append(Slot(f"{name}_{suffix}", kind, accepts=accepts, is_member=True))
        return Slot(name, form="oneof", members=members)

    def _key(self, annotation: Any) -> Leaf:
        """The type of the keys of a map: text, numbers or truth values; other types are texts in JSON, too."""
        values, _ = flattened(annotation)
        kinds = {self.kind(each) for each in values}
        leaf = kinds.pop() if len(kinds) == 1 else None
        if isinstance(leaf, EnumShape):
            plain = {type(each.plain) for each in leaf.values if each.plain is not None}
            return INT64 if plain == {int} else STRING
        if not isinstance(leaf, Leaf) or leaf.type not in ("string", "int64", "bool", "double", VALUE):
            raise NoMapping(f"a dict with keys of type {annotation!r} has no map in protobuf; use keys of text")
        return leaf if leaf.type in ("string", "int64", "bool") else STRING

    # Kinds

    def kind(self, annotation: Any) -> Kind:
        """What a single value of this type becomes, which is never absent. NoMapping if there is nothing."""
        found, _ = flattened(annotation)
        only = found[0]
        if len(found) > 1 or is_list_type(only) or (get_origin(only) or only) in MAPS or is_recursive_alias(only):
            return self.wrapper(annotation)
        if get_origin(only) is Literal:
            return self._literal(only)
        origin = get_origin(only) or only
        try:
            if (leaf := LEAVES.get(origin)) is not None:
                return leaf
        except TypeError:
            raise _unknown(only) from None
        if isinstance(origin, type) and issubclass(origin, enum.Enum):
            return INT64 if issubclass(origin, enum.Flag) else self._enum(origin)
        if origin is tuple:
            return self._tuple(only)
        return self._message(only)

    def _literal(self, annotation: Any) -> Leaf:
        kinds = {type(each) for each in get_args(annotation)}
        return LEAVES[kinds.pop()]

    def _enum(self, kind: type[enum.Enum]) -> EnumShape:
        if (known := self._known.get(kind)) is not None:
            assert isinstance(known, EnumShape)
            return known
        shape = EnumShape(self._name(kind.__name__, kind), [])
        self._known[kind] = shape
        prefix = snake(shape.name).upper()
        zero = self._names.take(f"{prefix}_UNSPECIFIED")
        shape.values.append(EnumValue(zero, None))
        keys = {value_key(zero, shape.name)}
        for member in kind:
            if not is_identifier(member.name) or type(member.value) not in (str, int):
                raise NoMapping(
                    f"{kind.__name__}.{member.name} has no value of an enum in protobuf; "
                    "give it an ASCII name, and a text or an integer as its value"
                )
            name = f"{prefix}_{member.name.upper()}"
            if member.name.upper() == "UNSPECIFIED" and shape.values[0].plain is None:
                shape.values[0].plain = member.value
                continue
            wanted, number = name, 1
            while value_key(name, shape.name) in keys or self._names.has(name):
                number += 1
                name = f"{wanted}_{number}"
            keys.add(value_key(name, shape.name))
            shape.values.append(EnumValue(self._names.take(name), member.value))
        return shape

    def _tuple(self, annotation: Any) -> MessageShape:
        if (known := self._known.get(annotation)) is not None:
            assert isinstance(known, MessageShape)
            return known
        shape = MessageShape("", plain="array")
        self._known[annotation] = shape
        for number, each in enumerate(get_args(annotation)):
            shape.slots.append(self.slot(f"item_{number + 1}", each, key=number))
        labels = [self._slot_label(each) for each in shape.slots]
        shape.name = self._names.take("".join(labels) + "Tuple")
        return shape

    def _message(self, annotation: Any) -> MessageShape | Leaf:
        if (known := self._known.get(annotation)) is not None:
            assert isinstance(known, MessageShape)
            return known
        try:
            declared = fields_of(annotation)
        except Exception as error:
            raise NoMapping(f"{annotation!r} cannot be read: {error}") from error
        origin = get_origin(annotation) or annotation
        if declared is None:
            if (leaf := scalar_of(origin, in_model=self._models > 0)) is not None:
                return leaf
            raise _unknown(annotation)
        shape = MessageShape("", plain=declared.plain, tag=declared.tag, about=_about(origin))
        self._known[annotation] = shape
        arguments = "".join(self.label_of(each) for each in get_args(annotation))
        shape.name = self._name(message_name(origin.__name__) + arguments, origin)
        is_model = hasattr(origin, "model_validate_json")
        self._models += is_model
        for position, field in enumerate(declared.fields):
            shape.slots.append(self._class_slot(field, position, origin, declared.plain == "array"))
        self._models -= is_model
        separate(shape)
        return shape

    def _class_slot(self, field: ClassField, position: int, kind: Any, in_array: bool) -> Slot:
        try:
            slot = self.slot(field.name, field.annotation, field.default, position if in_array else field.key)
        except NoMapping as error:
            raise NoMapping(f"{kind.__name__}.{field.name}: {error}") from None
        slot.written, slot.is_computed = field.written, field.is_computed
        if in_array and field.default not in (REQUIRED, UNKNOWN):
            slot.fallback = msgspec.to_builtins(field.default, builtin_types=KEEP)
        return slot

    def wrapper(self, annotation: Any) -> MessageShape:
        """A message with one field, for a value that cannot be an item, a member of a oneof, or absent."""
        found, _ = flattened(annotation)
        key = ("wrapper", *found)
        if (known := self._known.get(key)) is not None:
            assert isinstance(known, MessageShape)
            return known
        shape = MessageShape("", plain="value")
        self._known[key] = shape
        if len(found) == 1 and is_recursive_alias(found[0]):
            shape.name = self._names.take(camel(found[0].__name__))
            annotation = found[0].value()
        slot = self.slot("value", annotation)
        shape.slots.append(slot)
        separate(shape)
        shape.name = shape.name or self._names.take(self._slot_label(slot))
        return shape

    # Names

    def label(self, kind: Kind) -> str:
        """The name of a kind as a part of another name."""
        return camel(kind.name.rpartition(".")[2]).removesuffix("Value") or "Value"

    def label_of(self, annotation: Any) -> str:
        return self.label(self.kind(annotation))

    def _slot_label(self, slot: Slot) -> str:
        if slot.form == "oneof":
            label = "Or".join(self.label(each.kind) for each in slot.members if each.kind is not None)
        else:
            assert slot.kind is not None
            label = self.label(slot.kind)
        if slot.form == "map":
            assert slot.key_kind is not None
            return f"{label}Map" if slot.key_kind == STRING else f"{self.label(slot.key_kind)}{label}Map"
        if slot.form == "repeated":
            return f"{label}List"
        return f"Optional{label}" if slot.is_null else label

    def _name(self, wanted: str, kind: Any) -> str:
        wanted = wanted.lstrip("_") or wanted
        if not is_identifier(wanted):
            raise NoMapping(f"{wanted!r} is no name for a message in protobuf; name the class in ASCII")
        wanted = wanted[0].upper() + wanted[1:]
        return self._names.take(wanted, camel(kind.__module__.rpartition(".")[2]) + wanted)


def separate(shape: MessageShape) -> None:
    """Give each field a name that no other has, also in JSON, where `a_b` and `aB` are the same."""
    names = Names(*[each.name for each in shape.slots if each.form == "oneof"])
    known = Names()
    for field in sorted(shape.fields(), key=lambda each: each.is_member):
        wanted, number = field.name, 1
        while names.has(field.name) or known.has(json_name(field.name)):
            number += 1
            field.name = f"{wanted}_{number}"
        names.take(field.name)
        known.take(json_name(field.name))


def flattened(annotation: Any) -> tuple[list[Any], int]:
    """The members of a union, with one Literal for each kind of literal; and the number that `Field` declares."""
    found: list[Any] = []
    declared = 0

    def add(part: Any) -> None:
        nonlocal declared
        origin = get_origin(part)
        if origin is Annotated:
            inner, *extras = get_args(part)
            if any(isinstance(each, msgspec.Meta) and each.tz is False for each in extras):
                raise NoMapping("a datetime without a time zone has no Timestamp in protobuf; leave out tz=False")
            declared = next((each.number for each in extras if isinstance(each, Field)), declared)
            add(inner)
        elif origin in (Union, types.UnionType):
            for each in get_args(part):
                add(each)
        elif origin is Literal:
            for kind in dict.fromkeys(type(each) for each in get_args(part)):
                values = tuple(each for each in get_args(part) if type(each) is kind)
                found.append(None if kind is type(None) else Literal[values])
        elif isinstance(part, TypeVar):
            add(part.__bound__ or Union[part.__constraints__] if part.__bound__ or part.__constraints__ else Any)  # noqa: UP007
        elif part is not msgspec.UnsetType and part not in found:
            found.append(part)

    add(without_aliases(annotation))
    return found or [None], declared


def is_list_type(annotation: Any) -> bool:
    """Whether the items of a value of this type are repeated."""
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    return origin in LISTS or (origin is tuple and (not arguments or arguments[-1] is ...))


def _is_empty(default: Any) -> bool:
    return default is not UNKNOWN and default is not REQUIRED and default is not None and not default


def message_name(name: str) -> str:
    """The name of a class without the brackets of pydantic's generic classes."""
    return camel(name) if name.isascii() and not is_identifier(name) else name


def scalar_of(kind: Any, *, in_model: bool) -> Leaf | None:
    """The scalar for a class that JSON has as a text or a number; None if there is none.

    `in_model`: pydantic reads it.
    """
    if not isinstance(kind, type):
        return None
    if issubclass(kind, os.PathLike) or kind.__module__ == "ipaddress":
        return STRING
    if any(hasattr(kind, each) for each in _TABLES):
        return LEAVES[Any]
    if not in_model:
        return None
    from pydantic import TypeAdapter

    try:
        found = TypeAdapter(kind).json_schema()["type"]
    except Exception:  # pydantic cannot read it either
        return None
    return _JSON_TYPES.get(found)


_JSON_TYPES = {"string": STRING, "integer": INT64, "number": LEAVES[float], "boolean": LEAVES[bool]}


def _about(kind: Any) -> str:
    text = (kind.__dict__.get("__doc__") or "").strip().partition("\n")[0]
    return "" if text.startswith(f"{kind.__name__}(") else text


def _unknown(annotation: Any) -> NoMapping:
    return NoMapping(
        f"{annotation!r} has no type in protobuf; use a dataclass, Struct, TypedDict, attrs or pydantic class, "
        "or a standard type"
    )
