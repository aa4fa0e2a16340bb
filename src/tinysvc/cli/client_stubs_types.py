"""Types of a module that `--client` prints: from JSON Schemas (2020-12) to annotations, Structs and aliases.

msgspec decodes what the annotations say, so they keep to what it can decode: in a union at most one type is text, one
an array and one an object, unless a tag tells Structs apart. A union beyond that is widened, at last to `Any`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..server.loading import TargetError
from .client_stubs_names import RESERVED_IN_CLASSES, Names, class_name, literal, snake

Schema = Mapping[str, Any]


class Kind(NamedTuple):
    """An annotation."""

    text: str
    parts: tuple[str, ...]
    """The kinds of JSON values: text, int, float, bool, null, array, object, struct, any."""
    values: tuple[Any, ...] = ()
    """The values of a Literal."""
    tag_field: str = ""
    """The field that tells this Struct apart in a union."""


ANY = Kind("Any", ("any",))
NULL = Kind("None", ("null",))
TEXT = Kind("str", ("text",))
BYTES = Kind("bytes", ("text",))
LIST = Kind("list[Any]", ("array",))
DICT = Kind("dict[str, Any]", ("object",))

SCALARS = {
    "string": TEXT,
    "integer": Kind("int", ("int",)),
    "number": Kind("float", ("float",)),
    "boolean": Kind("bool", ("bool",)),
    "null": NULL,
}

FORMATS = {
    "date-time": "datetime.datetime",
    "date": "datetime.date",
    "time": "datetime.time",
    "partial-time": "datetime.time",
    "duration": "datetime.timedelta",
    "uuid": "uuid.UUID",
    "decimal": "decimal.Decimal",
}


@dataclass
class Field:
    """A field of a Struct."""

    name: str
    wire_name: str
    kind: Kind
    default: str | None
    """Python code; None if the field is required."""
    description: str


@dataclass
class StructClass:
    """A class of the module."""

    name: str
    description: str
    tag: tuple[str, Any] | None
    fields: list[Field] = field(default_factory=list)


LONGEST_LITERAL = 40
"""Characters of a Literal in an annotation."""


class Types:
    """The types of one document. Classes and aliases that annotations name are collected here."""

    def __init__(self, document: Mapping[str, Any], names: Names) -> None:
        self._document = document
        self._names = names
        self._tags = dict(_tags_of(document, self.resolve))
        self._named: dict[str, Kind] = {}
        self._open: set[str] = set()  # aliases that are being described
        self.structs: list[StructClass] = []
        self.aliases: dict[str, str] = {}

    def resolve(self, part: Any) -> Any:
        """The part of the document that a reference names; any other part as it is.

        Raises:
            TargetError: The reference leads nowhere, or out of the document.
        """
        seen = set()
        while isinstance(part, Mapping) and "$ref" in part:
            pointer = part["$ref"]
            if pointer in seen:
                raise TargetError(f"the reference {pointer} of the document refers to itself")
            seen.add(pointer)
            part = self._at(pointer)
        return part

    def _at(self, pointer: str) -> Any:
        found: Any = self._document
        if not pointer.startswith("#/"):
            raise TargetError(
                f"the document refers to {pointer}, which is not part of it; bundle the documents into one first"
            )
        try:
            for step in unquote(pointer)[2:].split("/"):
                key = step.replace("~1", "/").replace("~0", "~")
                found = found[int(key) if isinstance(found, list) else key]
        except (KeyError, IndexError, ValueError, TypeError):
            raise TargetError(f"the document refers to {pointer}, which it does not have") from None
        return found

    def of(self, schema: Any, hint: str) -> Kind:
        """The annotation for a schema. `hint` names a class that has no name of its own."""
        if not isinstance(schema, Mapping):
            return ANY  # true or false
        if "$ref" in schema:
            return self._of_reference(schema["$ref"])
        if "const" in schema or "enum" in schema:
            return self._short(_literals([schema["const"]] if "const" in schema else schema["enum"]), hint)
        for combined in ("anyOf", "oneOf"):
            if combined in schema:
                return union([self.of(each, hint) for each in schema[combined]])
        if "allOf" in schema:
            parts = schema["allOf"]
            if len(parts) == 1 and "properties" not in schema:
                return self.of(parts[0], hint)
            return self.of(self.merged(schema), hint)
        kinds = schema.get("type", "object" if "properties" in schema else "")
        if isinstance(kinds, list):
            return union([self.of({**schema, "type": kind}, hint) for kind in kinds])
        return self._of_type(kinds, schema, hint)

    def _of_type(self, kind: str, schema: Schema, hint: str) -> Kind:
        if kind == "object":
            return self._of_object(schema, hint)
        if kind == "array":
            return self._of_array(schema, hint)
        if kind == "string":
            if schema.get("contentEncoding", "").lower() == "base64":
                return BYTES
            text = FORMATS.get(schema.get("format", ""))
            return Kind(text, ("text",)) if text else TEXT
        return SCALARS.get(kind, ANY)

    def _of_array(self, schema: Schema, hint: str) -> Kind:
        if first := schema.get("prefixItems"):
            if not schema.get("minItems", 0) == schema.get("maxItems") == len(first):
                return LIST
            items = [self.of(each, f"{hint}Item{number}").text for number, each in enumerate(first, 1)]
            return Kind(f"tuple[{', '.join(items)}]", ("array",))
        if "items" not in schema:
            return LIST
        return Kind(f"list[{self.of(schema['items'], f'{hint}Item').text}]", ("array",))

    def _of_object(self, schema: Schema, hint: str) -> Kind:
        if _can_be_struct(schema):
            return self._struct(schema, schema.get("title") or hint, None)
        values = schema.get("additionalProperties", True)
        return Kind(f"dict[str, {self.of(values, f'{hint}Value').text}]", ("object",)) if values else DICT

    def _of_reference(self, pointer: str) -> Kind:
        if pointer in self._named:
            return self._named[pointer]
        if pointer in self._open:
            return ANY  # msgspec has no recursive aliases
        schema = self._at(pointer)
        name = unquote(pointer).rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        merged = self.merged(schema) if isinstance(schema, Mapping) and "allOf" in schema else schema
        if isinstance(merged, Mapping) and merged.get("type", "object") == "object" and _can_be_struct(merged):
            return self._struct(merged, name, pointer)
        self._open.add(pointer)
        kind = self.of(schema, class_name(name))
        self._open.remove(pointer)
        is_alias = kind.text in self.aliases
        if not is_alias and (kind.values or len(kind.parts) > 1 or kind.text.startswith(("list[", "dict[", "tuple["))):
            alias = self._names.new(class_name(name))
            self.aliases[alias] = kind.text
            kind = kind._replace(text=alias)
        self._named[pointer] = kind
        return kind

    def _short(self, kind: Kind, hint: str) -> Kind:
        """The kind; a Literal that would not fit into the line of a field, or of a parameter, gets a name."""
        if len(kind.text) <= LONGEST_LITERAL:
            return kind
        alias = self._names.new(hint)
        self.aliases[alias] = kind.text
        return kind._replace(text=alias)

    def _struct(self, schema: Schema, name: str, pointer: str | None) -> Kind:
        """A class for an object. It is named before its fields are described, since they may contain it."""
        tag = self._tags.get(pointer or "")
        made = StructClass(self._names.new(class_name(name)), schema.get("description", ""), tag)
        kind = Kind(made.name, ("struct",), tag_field=tag[0] if tag else "")
        if pointer:
            self._named[pointer] = kind
        self.structs.append(made)
        names, required = Names(RESERVED_IN_CLASSES), schema.get("required", ())
        for wire_name, each in schema["properties"].items():
            if not (tag and tag[0] == wire_name):
                made.fields.append(self._field(wire_name, each, wire_name in required, made.name, names))
        return kind

    def _field(self, wire_name: str, schema: Any, is_required: bool, owner: str, names: Names) -> Field:
        kind = self.of(schema, owner + class_name(wire_name))
        found = schema if isinstance(schema, Mapping) else {}
        default = None
        if len(kind.values) == 1 and kind.parts != ("null",):
            default = literal(kind.values[0])  # the only value
        elif not is_required:
            default = default_code(found.get("default"), kind)
            if default is None:
                kind = kind._replace(text=f"{kind.text} | msgspec.UnsetType")
                default = "msgspec.UNSET"
        return Field(names.new(snake(wire_name)), wire_name, kind, default, found.get("description", ""))

    def merged(self, schema: Any) -> Schema:
        """An object with the properties of all parts of its `allOf`; any other schema as it is, resolved."""
        schema = self.resolve(schema)
        if not isinstance(schema, Mapping) or "allOf" not in schema:
            return schema if isinstance(schema, Mapping) else {}
        parts = [self.merged(each) for each in schema["allOf"]]
        own = {key: value for key, value in schema.items() if key != "allOf"}
        parts.append(own)
        found: dict[str, Any] = {}
        for each in parts:
            found |= each
        found["properties"] = {name: value for each in parts for name, value in each.get("properties", {}).items()}
        found["required"] = [name for each in parts for name in each.get("required", ())]
        return (
            found
            if found["properties"]
            else {key: found[key] for key in found if key not in ("properties", "required")}
        )


def _can_be_struct(schema: Schema) -> bool:
    """Whether an object has properties, with names that msgspec allows: it refuses quotes and control characters."""
    return "properties" in schema and not any(_REFUSED.search(name) for name in schema["properties"])


_REFUSED = re.compile(r'[\x00-\x1f"\\\ud800-\udfff]')


def _literals(values: Iterable[Any]) -> Kind:
    values = list(values)
    if not all(isinstance(value, str | int | None) and not isinstance(value, bool) for value in values):
        return union([_plain(value) for value in values])
    values = tuple(dict.fromkeys(values))
    if values == (None,):
        return NULL
    parts = {"null" if value is None else "text" if isinstance(value, str) else "int": None for value in values}
    return Kind(f"Literal[{', '.join(map(literal, values))}]", tuple(parts), values)


def _plain(value: Any) -> Kind:
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (type(None), "null")):
        if isinstance(value, kind):
            return SCALARS[name]
    return DICT if isinstance(value, Mapping) else LIST


def union(kinds: Iterable[Kind]) -> Kind:
    """The union, as precise as msgspec can decode it. None stands last."""
    found = list(dict.fromkeys(kinds))
    if not found or any("any" in each.parts for each in found):
        return ANY
    found = _without_conflicts(_with_one_literal(found))
    found.sort(key=lambda each: each == NULL)
    if len(found) == 1:
        return found[0]
    parts = [part for each in found for part in each.parts]
    others = [part for part in parts if part != "struct"]
    structs = [each for each in found if "struct" in each.parts]
    if len(set(others)) < len(others) or ("object" in others and structs):
        return ANY  # an alias of a union overlaps with another member
    if parts.count("struct") > 1 and not _are_tagged(structs):
        return ANY
    return Kind(
        " | ".join(each.text for each in found), tuple(parts), tag_field=structs[0].tag_field if structs else ""
    )


def _with_one_literal(kinds: list[Kind]) -> list[Kind]:
    literals = [each for each in kinds if each.values]
    if len(literals) < 2:
        return kinds
    return [
        *(each for each in kinds if not each.values),
        _literals(value for each in literals for value in each.values),
    ]


_WIDER = {"text": TEXT, "int": SCALARS["integer"], "array": LIST, "object": DICT}


def _without_conflicts(kinds: list[Kind]) -> list[Kind]:
    """Members that JSON does not tell apart become one: `str` for a date or a text."""
    for category, wider in _WIDER.items():
        members = ("struct", "object") if category == "object" else (category,)
        same = [each for each in kinds if len(each.parts) == 1 and each.parts[0] in members]
        if len(same) > 1 and not _are_tagged(same):
            kinds = [each for each in kinds if each not in same] + [wider]
    return kinds


def _are_tagged(kinds: Iterable[Kind]) -> bool:
    fields = {each.tag_field for each in kinds}
    return len(fields) == 1 and "" not in fields


def default_code(value: Any, kind: Kind) -> str | None:
    """A default as Python code; None if the annotation has no literal for it."""
    if value is None:
        return "None" if "null" in kind.parts or kind == ANY else None
    if kind.values:
        return literal(value) if value in kind.values else None
    options = kind.text.split(" | ")
    if isinstance(value, bool):
        return literal(value) if "bool" in options else None
    if isinstance(value, int | float) and math.isfinite(value):
        names = ("int", "float") if isinstance(value, int) else ("float",)
        return literal(value) if any(name in options for name in names) else None
    if isinstance(value, str):
        return literal(value) if "str" in options else None
    if value == [] and kind.text.startswith("list["):
        return "[]"
    return "{}" if value == {} and kind.text.startswith("dict[") else None


def _tags_of(document: Any, resolve: Any) -> Iterator[tuple[str, tuple[str, Any]]]:
    """(pointer, (field, tag)) of each object that a field with one value tells apart in a union."""
    found: dict[str, set[tuple[str, Any]]] = {}
    for each in _unions(document):
        for pointer, tag in _tags_in(each, resolve):
            found.setdefault(pointer, set()).add(tag)
    for pointer, tags in found.items():
        if len(tags) == 1:  # a class has one tag
            yield pointer, next(iter(tags))


def _unions(part: Any) -> Iterator[Schema]:
    if isinstance(part, Mapping):
        if isinstance(part.get("oneOf", part.get("anyOf")), list):
            yield part
        for each in part.values():
            yield from _unions(each)
    elif isinstance(part, list):
        for each in part:
            yield from _unions(each)


def _tags_in(schema: Schema, resolve: Any) -> list[tuple[str, tuple[str, Any]]]:
    members = [
        each["$ref"]
        for each in schema.get("oneOf", schema.get("anyOf"))
        if isinstance(each, Mapping) and "$ref" in each
    ]
    if "discriminator" in schema:
        name, mapping = schema["discriminator"]["propertyName"], schema["discriminator"].get("mapping")
        mapping = mapping or {each.rpartition("/")[2]: each for each in members}
        return [
            (pointer if "/" in pointer else f"#/components/schemas/{pointer}", (name, tag))
            for tag, pointer in mapping.items()
        ]
    objects = {each: found for each in members if "properties" in (found := resolve({"$ref": each}))}
    names = [name for found in objects.values() for name in found["properties"]]
    for name in dict.fromkeys(names):
        values = [_only_value(found["properties"].get(name)) for found in objects.values()]
        if len(values) > 1 and None not in values and len(set(values)) == len(values):
            return [(pointer, (name, value)) for pointer, value in zip(objects, values, strict=True)]
    return []


def _only_value(schema: Any) -> str | int | None:
    """The value of a property that can have only one."""
    found = schema if isinstance(schema, Mapping) else {}
    values = [found["const"]] if "const" in found else found.get("enum", ())
    return values[0] if len(values) == 1 and type(values[0]) in (str, int) else None
