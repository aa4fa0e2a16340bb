"""JSON Schema: what a document of a type looks like, by msgspec, and by pydantic where the type is its model."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .annotations import options, without_annotated
from .forms import UploadFile

Schema = dict[str, Any]

REF = "#/components/schemas/{name}"
"""Where a named type stands in an OpenAPI document."""

ANYTHING: Schema = {}


class Schemas:
    """The schemas of some types, made together: what they share is written once, under `components`.

    A type that nobody can describe (a class that only the author's code knows) is anything at all.
    """

    def __init__(self, types: Iterable[Any]) -> None:
        known = [each for each in _distinct(types) if _is_describable(each)]
        self._pydantic = [each for each in known if _is_pydantic(each)]
        described = [each for each in known if each not in self._pydantic]
        schemas, self.components = msgspec.json.schema_components(described, schema_hook=_schema_of, ref_template=REF)
        self._found: list[tuple[Any, Schema]] = list(zip(described, map(_cleaned, schemas), strict=True))
        self.components = {name: _cleaned(schema) for name, schema in self.components.items()}
        for model in self._pydantic:
            self._found.append((model, self._of_model(model)))

    def of(self, annotation: Any) -> Schema:
        """The schema, or a reference to it."""
        return next((schema for each, schema in self._found if each == annotation), ANYTHING)

    def _of_model(self, model: Any) -> Schema:
        schema = model.model_json_schema(ref_template=REF.replace("{name}", "{model}"))
        self.components |= schema.pop("$defs", {})
        self.components[model.__name__] = schema
        return {"$ref": REF.format(name=model.__name__)}


def with_default(schema: Schema, default: Any) -> Schema:
    """The schema with what is taken where nothing comes, if JSON can say it."""
    if default is inspect.Parameter.empty:
        return schema
    try:
        return {**schema, "default": msgspec.to_builtins(default)}
    except (TypeError, ValueError):
        return schema


def _distinct(types: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for each in types:
        if each not in found:
            found.append(each)
    return found


def _is_pydantic(annotation: Any) -> bool:
    return hasattr(without_annotated(annotation), "model_json_schema")


def _is_describable(annotation: Any) -> bool:
    if _is_pydantic(annotation):
        return True
    try:
        msgspec.json.schema(annotation, schema_hook=_schema_of)
    except Exception:
        return False
    return True


def _schema_of(kind: type) -> Schema:
    """Of what msgspec does not know."""
    if kind is UploadFile:
        return {"type": "string", "format": "binary"}
    if kind in (complex, type(...)):
        raise NotImplementedError
    if any(_is_pydantic(option) for option in options(kind)):
        return dict(kind.model_json_schema())  # type: ignore[attr-defined]
    if hasattr(kind, "tolist"):  # an array
        return {"type": "array"}
    raise NotImplementedError


def _cleaned(schema: Any) -> Any:
    """Without the titles and descriptions that msgspec takes from what every dataclass has by itself."""
    if isinstance(schema, Mapping):
        description = schema.get("description", "")
        return {
            key: _cleaned(value)
            for key, value in schema.items()
            if not (key == "description" and isinstance(description, str) and _is_signature(schema, description))
        }
    return [_cleaned(each) for each in schema] if isinstance(schema, list) else schema


def _is_signature(schema: Mapping[str, Any], description: str) -> bool:
    """`dataclass` writes one, as in "Note(id: int, title: str)", where the author has written none."""
    return description.startswith(f"{schema.get('title')}(") and description.endswith(")")
