"""cli/client_stubs_types.py: annotations that type checkers and msgspec read, from JSON Schemas."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tinysvc.cli.client_stubs_names import RESERVED, Names
from tinysvc.cli.client_stubs_types import StructClass, Types
from tinysvc.server.loading import TargetError

INTEGER = {"type": "integer"}
STRING = {"type": "string"}
NULL = {"type": "null"}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


CAT = obj(kind={"const": "cat"}, lives=INTEGER)
DOG = obj(kind={"enum": ["dog"]}, name=STRING)
BIRD = obj(wings=INTEGER)


def types_of(**schemas: Any) -> Types:
    unions = [each for each in schemas.values() if "anyOf" in each or "oneOf" in each]
    return Types({"components": {"schemas": schemas}, "paths": unions}, Names(RESERVED))


def text_of(schema: Any, **schemas: Any) -> str:
    return types_of(**schemas).of(schema, "Hint").text


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (True, "Any"),
        ({}, "Any"),
        ({"description": "Anything."}, "Any"),
        (STRING, "str"),
        ({"type": "integer", "format": "int64"}, "int"),
        ({"type": "number"}, "float"),
        ({"type": "boolean"}, "bool"),
        (NULL, "None"),
        ({"type": "string", "format": "date-time"}, "datetime.datetime"),
        ({"type": "string", "format": "date"}, "datetime.date"),
        ({"type": "string", "format": "partial-time"}, "datetime.time"),
        ({"type": "string", "format": "duration"}, "datetime.timedelta"),
        ({"type": "string", "format": "uuid"}, "uuid.UUID"),
        ({"type": "string", "format": "decimal"}, "decimal.Decimal"),
        ({"type": "string", "format": "no-such-format"}, "str"),
        ({"type": "string", "contentEncoding": "base64"}, "bytes"),
        ({"type": "array"}, "list[Any]"),
        ({"type": "array", "items": {"type": "array", "items": STRING}}, "list[list[str]]"),
        ({"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2}, "tuple[int, str]"),
        ({"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 1}, "list[Any]"),
        ({"type": "object"}, "dict[str, Any]"),
        ({"type": "object", "additionalProperties": INTEGER}, "dict[str, int]"),
        ({"type": "object", "additionalProperties": False}, "dict[str, Any]"),
        ({"type": "object", "properties": {'a "name"': {}}}, "dict[str, Any]"),  # msgspec refuses such a name
        ({"enum": ["a", "b"]}, 'Literal["a", "b"]'),
        ({"enum": [1, "b", None]}, 'Literal[1, "b", None]'),
        ({"enum": [1.5, 2]}, "float | int"),
        ({"enum": [True, False]}, "bool"),
        ({"enum": [None]}, "None"),
        ({"enum": [[1], {}]}, "list[Any] | dict[str, Any]"),
        ({"const": "a"}, 'Literal["a"]'),
        ({"type": ["string", "null"], "format": "date"}, "datetime.date | None"),
        ({"allOf": [INTEGER]}, "int"),
        ({"allOf": [STRING, {"minLength": 2}]}, "str"),
        ({"type": "no-such-type"}, "Any"),
    ],
)
def test_annotation(schema: Any, text: str) -> None:
    assert text_of(schema) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([NULL, STRING], "str | None"),
        ([INTEGER, STRING, {"type": "number"}], "int | str | float"),
        ([{"const": "a"}, {"const": "b"}, NULL], 'Literal["a", "b"] | None'),
        ([STRING, {"type": "string", "format": "date"}], "str"),
        ([{"const": "a"}, STRING], "str"),
        ([{"enum": [1]}, INTEGER], "int"),
        ([{"type": "array", "items": INTEGER}, {"type": "array", "items": STRING}], "list[Any]"),
        ([INTEGER, INTEGER], "int"),
        ([INTEGER, {}], "Any"),
        ([ref("Cat"), {"type": "object"}], "dict[str, Any]"),
        ([ref("Cat"), ref("Bird"), NULL], "dict[str, Any] | None"),
        ([], "Any"),
    ],
)  # fmt: skip
def test_union_is_what_msgspec_can_decode(options: list[Any], text: str) -> None:
    assert text_of({"anyOf": options}, Cat=CAT, Bird=BIRD) == text


def test_struct_has_the_fields_of_an_object() -> None:
    schema = {
        "type": "object",
        "description": "An order.",
        "properties": {
            "id": INTEGER,
            "class": STRING,
            "first-name": {**STRING, "default": "x"},
            "note": {"anyOf": [STRING, NULL]},
            "tags": {"type": "array", "items": STRING, "default": []},
            "more": {"type": "object", "default": {}},
            "at": {"type": "string", "format": "date", "default": "2026-01-01"},
            "kind": {"const": "order"},
            "str": {**STRING, "description": "A text."},
            "Name": STRING,
        },
        "required": ["id", "class"],
    }
    types = types_of(Order=schema)
    assert types.of(ref("Order"), "").text == "Order"
    (made,) = types.structs
    assert made.description == "An order."
    assert [(each.name, each.wire_name, each.kind.text, each.default) for each in made.fields] == [
        ("id", "id", "int", None),
        ("class_", "class", "str", None),
        ("first_name", "first-name", "str", '"x"'),
        ("note", "note", "str | None", "None"),
        ("tags", "tags", "list[str]", "[]"),
        ("more", "more", "dict[str, Any]", "{}"),
        ("at", "at", "datetime.date | msgspec.UnsetType", "msgspec.UNSET"),  # a date has no literal
        ("kind", "kind", 'Literal["order"]', '"order"'),
        ("str_", "str", "str | msgspec.UnsetType", "msgspec.UNSET"),
        ("name", "Name", "str | msgspec.UnsetType", "msgspec.UNSET"),
    ]
    assert made.fields[8].description == "A text."


def test_recursive_object_is_one_struct() -> None:
    tree = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": ref("Tree")}, "parent": ref("Tree")},
    }
    types = types_of(Tree=tree)
    assert types.of(ref("Tree"), "").text == "Tree"
    assert [each.kind.text for each in types.structs[0].fields] == [
        "list[Tree] | msgspec.UnsetType",
        "Tree | msgspec.UnsetType",
    ]
    assert len(types.structs) == 1


def test_recursive_alias_is_any() -> None:
    """msgspec has no recursive aliases."""
    types = types_of(Json={"anyOf": [STRING, {"type": "array", "items": ref("Json")}]})
    assert types.of(ref("Json"), "").text == "Json"
    assert types.aliases == {"Json": "str | list[Any]"}


def test_named_schemas_that_are_no_objects_are_aliases() -> None:
    schemas = {
        "Colour": {"enum": ["red", "blue"]},
        "Digest": {"type": "string", "pattern": "[0-9a-f]+"},
        "Palette": {"type": "array", "items": ref("Colour")},
        "Some": {"anyOf": [ref("Colour"), NULL]},
    }
    types = types_of(**schemas)
    assert [types.of(ref(name), "").text for name in schemas] == ["Colour", "str", "Palette", "Some"]
    assert types.aliases == {
        "Colour": 'Literal["red", "blue"]',
        "Palette": "list[Colour]",
        "Some": "Colour | None",
    }
    assert types.of({"anyOf": [ref("Some"), INTEGER]}, "").text == "Some | int"
    assert types.of({"anyOf": [ref("Some"), NULL]}, "").text == "Any"  # None would stand there twice


@pytest.mark.parametrize("word", ["anyOf", "oneOf"])
@pytest.mark.parametrize("has_discriminator", [True, False])
def test_structs_of_a_union_are_told_apart_by_their_tag(word: str, has_discriminator: bool) -> None:
    union: dict[str, Any] = {word: [ref("Cat"), ref("Dog"), NULL]}
    if has_discriminator:
        union["discriminator"] = {
            "propertyName": "kind",
            "mapping": {"cat": "#/components/schemas/Cat", "dog": "#/components/schemas/Dog"},
        }
    types = types_of(Cat=CAT, Dog=DOG, Pet=union)
    assert types.of(ref("Pet"), "").text == "Pet"
    assert types.aliases == {"Pet": "Cat | Dog | None"}
    assert [(each.name, each.tag, [one.name for one in each.fields]) for each in types.structs] == [
        ("Cat", ("kind", "cat"), ["lives"]),
        ("Dog", ("kind", "dog"), ["name"]),
    ]


def test_discriminator_without_mapping_names_the_schemas() -> None:
    union = {"oneOf": [ref("Cat"), ref("Bird")], "discriminator": {"propertyName": "sort"}}
    types = types_of(Cat=obj(sort=STRING), Bird=obj(sort=STRING), Pet=union)
    assert types.of(ref("Pet"), "").text == "Pet"
    assert [each.tag for each in types.structs] == [("sort", "Cat"), ("sort", "Bird")]


def test_schema_with_two_tags_has_none() -> None:
    mapping = {"cat": "Cat", "tom": "Cat", "dog": "Dog"}
    union = {"oneOf": [ref("Cat"), ref("Dog")], "discriminator": {"propertyName": "kind", "mapping": mapping}}
    types = types_of(Cat=CAT, Dog=DOG, Pet=union)
    assert types.of(union, "").text == "dict[str, Any]"


def test_parts_of_all_of_are_merged() -> None:
    types = types_of(Base=obj(id=INTEGER), Order={"allOf": [ref("Base"), obj(item=STRING)], "description": "Both."})
    assert types.of(ref("Order"), "").text == "Order"
    (made,) = types.structs
    assert (made.description, [each.name for each in made.fields]) == ("Both.", ["id", "item"])
    assert all(each.default is None for each in made.fields)


def test_nested_objects_are_named_by_their_place() -> None:
    types = types_of(
        Order=obj(lines={"type": "array", "items": obj(count=INTEGER)}, shop={**obj(), "title": "The Shop"})
    )
    types.of(ref("Order"), "")
    assert [each.name for each in types.structs] == ["Order", "OrderLinesItem", "TheShop"]


def test_equal_names_get_numbers() -> None:
    types = types_of(**{"a.Order": obj(), "a-Order": obj(), "list": obj(), "Event": obj()})
    names = [types.of(ref(name), "").text for name in ("a.Order", "a-Order", "list", "Event")]
    assert names == ["AOrder", "AOrder_2", "List", "Event_"]


@pytest.mark.parametrize(
    ("pointer", "says"),
    [
        ("#/components/schemas/Nothing", "refers to #/components/schemas/Nothing, which it does not have"),
        (
            "other.json#/Order",
            "refers to other.json#/Order, which is not part of it; bundle the documents into one first",
        ),
        ("#/components/schemas/Loop", "the reference #/components/schemas/Loop of the document refers to itself"),
    ],
)
def test_wrong_reference_is_refused(pointer: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        types_of(Loop=ref("Loop")).resolve({"$ref": pointer})


def test_escaped_pointer_is_resolved() -> None:
    types = Types({"x": {"a/b c": [STRING]}}, Names(RESERVED))
    assert types.of({"$ref": "#/x/a~1b%20c/0"}, "").text == "str"


def struct_of(made: StructClass, namespace: dict[str, Any]) -> Any:
    fields = [(each.name, each.kind.text) for each in made.fields]
    tag = {"tag_field": made.tag[0], "tag": made.tag[1]} if made.tag else {}
    return msgspec.defstruct(made.name, fields, namespace={"__module__": "x"}, kw_only=True, **tag)


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [ref("Cat"), ref("Dog"), STRING, INTEGER, {"type": "array"}, NULL]},
        {"anyOf": [{"enum": ["a"]}, {"enum": [1]}, {"type": "number"}, {"type": "boolean"}]},
        {"anyOf": [ref("Cat"), ref("Bird"), {"type": "array", "items": INTEGER}, {"type": "array"}]},
        {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "contentEncoding": "base64"}]},
    ],
)
def test_msgspec_takes_the_annotation(schema: Any) -> None:
    types = types_of(Cat=CAT, Dog=DOG, Bird=BIRD, Pet={"anyOf": [ref("Cat"), ref("Dog")]})
    text = types.of(schema, "Hint").text
    namespace: dict[str, Any] = {}
    exec("import datetime, decimal, uuid, msgspec\nfrom typing import Any, Literal", namespace)
    namespace |= {each.name: struct_of(each, namespace) for each in types.structs}
    msgspec.json.Decoder(eval(text, namespace))
