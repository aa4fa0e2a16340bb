"""JSON Schemas of types, made by msgspec, and by pydantic for its models."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, get_args

import msgspec
from msgspec import inspect as inspection

from ..core.form_data import UploadFile
from .aliases import is_recursive_alias, readable_fields

log = logging.getLogger("tinysvc")

Schema = dict[str, Any]

REF = "#/components/schemas/{name}"
"""The place of a named type in an OpenAPI document."""

ANYTHING: Schema = {}

BINARY: Schema = {"type": "string", "format": "binary"}
"""Bytes as they are. OpenAPI 3.1 needs no schema for them, but generated clients know them by this one."""

NUMBER_FORMATS = {"integer": "int64", "number": "double"}
"""Formats without which generated clients take numbers of 32 bits."""

_VALUES = frozenset({"default", "example", "examples", "const", "enum", "discriminator"})
"""Keywords whose contents are no schemas."""


class Schemas:
    """The schemas of several types. Classes that they share are described once, in `components`.

    A type that neither library can describe, such as a custom class, gets the schema for any value.
    """

    def __init__(self, types: Iterable[Any]) -> None:
        self._references: dict[Any, Schema] = {}  # pydantic models
        self._recursive: dict[Any, str] = {}  # aliases that contain themselves -> their names
        self._found: list[tuple[Any, Schema]] = []
        self.components: dict[str, Schema] = {}
        known = [each for each in _distinct(types) if self._is_describable(each)]
        known += [each for kind in list(self._recursive) if (each := kind.value()) not in known]
        with readable_fields(*known):
            for group in self._groups(known):
                try:
                    self._add(group)
                except Exception as error:
                    log.warning("OpenAPI: the types %s are left out: %s", ", ".join(map(str, group)), error)
        for kind, name in self._recursive.items():
            self.components[name] = self.of(kind.value())

    def _groups(self, known: list[Any]) -> Iterator[list[Any]]:
        """All types in one group, or in as few as possible if msgspec cannot give them unique names."""
        while known:
            group: list[Any] = []
            if _can_be_named(known, self._schema_of):
                group = known
            else:
                for each in known:
                    if _can_be_named([*group, each], self._schema_of):
                        group.append(each)
            yield group
            left = [each for each in known if each not in group]
            known = left if group else []

    def _add(self, group: list[Any]) -> None:
        prefix = self._prefix(group)
        reference = REF.format(name=prefix + "{name}")
        _, named = msgspec.json.schema_components(group, schema_hook=self._schema_of)
        models = {} if self.components else self._describe_models(named)
        schemas, components = msgspec.json.schema_components(group, schema_hook=self._schema_of, ref_template=reference)
        try:
            infos = inspection.multi_type_info(group)
            _add_time_formats(zip(schemas, infos, strict=True))
            _add_time_formats(zip(components.values(), _named(infos, {}).values(), strict=True))
        except Exception:
            log.warning("OpenAPI: the formats of times are left out", exc_info=True)
        self._found += zip(group, map(_cleaned, schemas), strict=True)
        components = {prefix + name: schema for name, schema in components.items()}
        self.components |= {name: _cleaned(schema) for name, schema in {**components, **models}.items()}

    def _prefix(self, group: list[Any]) -> str:
        """A prefix that makes the names of this group unique: a module, as msgspec writes it, or a number."""
        if not self.components:
            return ""
        inner = [part for each in group for part in (*get_args(each), each)]
        modules = [getattr(part, "__module__", "") for part in inner]
        prefixes = [f"{module}." for module in modules] + [f"{number}." for number in range(2, 1000)]
        return next(each for each in prefixes if not any(name.startswith(each) for name in self.components))

    def of(self, annotation: Any) -> Schema:
        """The schema, or a reference to it."""
        return next((schema for each, schema in self._found if each == annotation), ANYTHING)

    def _is_describable(self, annotation: Any) -> bool:
        try:
            with readable_fields(annotation):
                msgspec.json.schema(annotation, schema_hook=self._schema_of)
        except Exception:
            return False
        return True

    def _schema_of(self, kind: Any) -> Schema:
        """The schema of a type that msgspec does not support."""
        if is_recursive_alias(kind):
            return self._reference_to(kind)
        if kind is UploadFile:
            return BINARY
        if hasattr(kind, "model_json_schema"):
            if kind not in self._references:
                kind.model_json_schema()  # raises if JSON Schema cannot describe the model
                self._references[kind] = {"type": "object"}  # until all models are known
            return self._references[kind]
        if hasattr(kind, "tolist"):  # an array
            return {"type": "array"}
        raise NotImplementedError

    def _reference_to(self, kind: Any) -> Schema:
        if kind not in self._recursive:
            names, number = set(self._recursive.values()), 1
            while (name := f"alias.{kind.__name__}{number if number > 1 else ''}") in names:
                number += 1
            self._recursive[kind] = name
            with readable_fields(kind):
                msgspec.json.schema(kind.value(), schema_hook=self._schema_of)
        return {"$ref": REF.format(name=self._recursive[kind])}

    def _describe_models(self, taken: Container[str]) -> dict[str, Schema]:
        """The schemas of all models. Pydantic makes their names unique; a prefix avoids the names that msgspec uses."""
        if not self._references:
            return {}
        from pydantic.json_schema import models_json_schema

        for template in ("{model}", "pydantic.{model}"):
            inputs: Any = [(model, "validation") for model in self._references]
            references, found = models_json_schema(inputs, ref_template=REF.format(name=template))
            models = {template.format(model=name): schema for name, schema in found["$defs"].items()}
            if not any(name in taken for name in models):
                break
        self._references = {model: reference for (model, _), reference in references.items()}
        return models


def _can_be_named(types: list[Any], schema_of: Callable[[Any], Schema]) -> bool:
    try:
        msgspec.json.schema_components(types, schema_hook=schema_of)
    except Exception:
        return False
    return True


def _add_time_formats(pairs: Iterable[tuple[Schema, inspection.Type]]) -> None:
    """Add the formats of datetime and time, which msgspec leaves out if the offset is optional.

    A time has no offset, because responses cannot contain times with one. Named types are skipped: they have schemas of
    their own.
    """
    for schema, kind in pairs:
        info = _bare(kind)
        if "$ref" in schema:
            continue
        if isinstance(info, _TEXTS):
            schema.setdefault("format", "date-time" if isinstance(info, inspection.DateTimeType) else "partial-time")
        _add_time_formats(_inside(schema, info))


def _inside(schema: Schema, info: inspection.Type) -> Iterator[tuple[Schema, inspection.Type]]:
    """The schemas inside a schema, each with the type that it describes."""
    if isinstance(info, inspection.UnionType):
        yield from _options_with_times(schema, info)
    elif fields := getattr(info, "fields", ()):
        if "prefixItems" in schema:  # behind a tag
            yield from zip(schema["prefixItems"][-len(fields) :], [each.type for each in fields], strict=True)
        else:
            yield from [(schema["properties"][each.encode_name], each.type) for each in fields]
    elif isinstance(info, inspection.TupleType):
        yield from zip(schema.get("prefixItems", ()), info.item_types, strict=True)
    elif isinstance(info, inspection.CollectionType) and "items" in schema:
        yield schema["items"], info.item_type
    elif isinstance(info, inspection.DictType) and "additionalProperties" in schema:
        yield schema["additionalProperties"], info.value_type


def _options_with_times(schema: Schema, info: inspection.UnionType) -> Iterator[tuple[Schema, inspection.Type]]:
    """The members of a union that may contain a time: text, array or object; msgspec allows one of each."""
    kinds = {"string": _TEXTS, "array": _ARRAYS, "object": _OBJECTS}
    for option in schema.get("anyOf", ()):
        made_from = [each for each in info.types if isinstance(_bare(each), kinds.get(option.get("type"), ()))]
        if len(made_from) == 1:
            yield option, made_from[0]


_TEXTS = (inspection.DateTimeType, inspection.TimeType)
_ARRAYS = (inspection.CollectionType, inspection.TupleType)
_OBJECTS = (inspection.DictType,)


def _named(infos: Iterable[inspection.Type], found: dict[Any, inspection.Type]) -> dict[Any, inspection.Type]:
    """The named types among these and inside them, in the order of msgspec's components."""
    for info in map(_bare, infos):
        if not (isinstance(info, _NAMED) and info.cls in found):
            if isinstance(info, _NAMED):
                found[info.cls] = info
            _named(_parts(info), found)
    return found


def _parts(info: Any) -> list[inspection.Type]:
    single = [getattr(info, name) for name in ("item_type", "key_type", "value_type") if hasattr(info, name)]
    fields = [each.type for each in getattr(info, "fields", ())]
    return [*fields, *single, *getattr(info, "item_types", ()), *getattr(info, "types", ())]


_NAMED = (
    inspection.StructType,
    inspection.TypedDictType,
    inspection.DataclassType,
    inspection.NamedTupleType,
    inspection.EnumType,
)


def _bare(info: inspection.Type) -> inspection.Type:
    while isinstance(info, inspection.Metadata):
        info = info.type
    return info


def with_default(schema: Schema, default: Any) -> Schema:
    """The schema with its default, if JSON can express it."""
    if default is inspect.Parameter.empty:
        return schema
    try:
        found: Schema = _cleaned({**schema, "default": msgspec.to_builtins(default)})
    except Exception:
        return schema
    return found


def _distinct(types: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for each in types:
        if each not in found:
            found.append(each)
    return found


def _cleaned(schema: Any) -> Any:
    """The schema with the formats of numbers; without infinities and automatic descriptions of dataclasses."""
    if isinstance(schema, Mapping):
        description = schema.get("description", "")
        found = {
            key: value if key in _VALUES else _cleaned(value)
            for key, value in schema.items()
            if not (key == "description" and isinstance(description, str) and _is_signature(schema, description))
            and not (isinstance(value, float) and not math.isfinite(value))
        }
        _adapt(found)
        return found
    return [_cleaned(each) for each in schema] if isinstance(schema, list) else schema


def _adapt(schema: Schema) -> None:
    """Write the schema in the way that most generators of clients understand; its values stay the same.

    Numbers get a format. A tagged union is a `oneOf`. A tuple has `items` only if its items share one schema, because
    `false`, which forbids more items than `maxItems` does, is no schema to them.
    """
    kind = schema.get("type")
    if isinstance(kind, str) and kind in NUMBER_FORMATS:
        schema.setdefault("format", NUMBER_FORMATS[kind])
    if "discriminator" in schema and "anyOf" in schema:
        schema["oneOf"] = schema.pop("anyOf")
    if schema.get("items") is False and "maxItems" in schema and (first := schema.get("prefixItems")):
        del schema["items"]
        if all(each == first[0] for each in first):
            schema["items"] = first[0]


def _is_signature(schema: Mapping[str, Any], description: str) -> bool:
    """Whether it is the docstring that `dataclass` generates, as in "Note(id: int, title: str)"."""
    return description.startswith(f"{schema.get('title')}(") and description.endswith(")")
