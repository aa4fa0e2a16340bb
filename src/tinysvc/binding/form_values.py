"""The texts of a form as values that msgspec converts, for the notations of browsers and other form clients.

    checkbox         "on" if ticked, else the field is missing: False, unless the parameter has a default
    blank            unless the type is a text: None, or for a type without None like a missing field
    datetime-local   and time without seconds: ":00" is appended
    JSON part        a field or blob of type `application/json`: decoded. For a parameter that is a text, only a JSON
                     string is decoded; any other document is the text itself

A text that msgspec can convert is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, time
from typing import Any, cast, get_args, get_origin

import msgspec
from msgspec import inspect as inspection

from ..core.form_data import FormData, JsonText, UploadFile
from .aliases import readable_fields
from .annotations import comes_as_json, hints_of, is_list_of_scalars, options
from .json_bodies import json_document

_WORDS = {"on": "true", "yes": "true", "off": "false", "no": "false"}
_CLOCK = re.compile(r"((?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d)(Z|[+-]\d\d:?\d\d)?")


def texts_of(form: FormData, name: str) -> list[str]:
    """The texts of a field; if it has none, its JSON files, such as a Blob that a browser sends."""
    return form.fields.get(name) or [JsonText(read) for read in _json_files(form.files.get(name, ()))]


def _json_files(files: Iterable[UploadFile]) -> list[str]:
    found = []
    for upload in files:
        if upload.is_json:
            upload.file.seek(0)
            found.append(upload.read().decode("utf-8-sig", "replace"))
            upload.file.seek(0)
    return found


def takes_text(annotation: Any) -> bool:
    return any(option in (str, Any, object) for option in options(annotation))


def plain_text(text: str) -> str:
    """The text of a JSON part that is a string; any other text unchanged. DecodeError for a malformed string."""
    is_string = isinstance(text, JsonText) and text.lstrip()[:1] == '"'
    return cast("str", json_document(text)) if is_string else text


def normal_text(text: Any, annotation: Any) -> Any:
    """A text in the notation that msgspec converts; None for a blank. DecodeError for a malformed JSON part."""
    if not isinstance(text, str):
        return text
    if takes_text(annotation):
        return plain_text(text)
    if isinstance(text, JsonText):
        return json_document(text)
    stripped, wanted = text.strip(), options(annotation)
    if not stripped:
        return None
    if bool in wanted and stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    if (datetime in wanted or time in wanted) and (found := _CLOCK.fullmatch(stripped)):
        return f"{found[1]}:00{found[2] or ''}"
    return stripped


def normal_texts(texts: list[Any], annotation: Any) -> list[Any]:
    """The texts of a list, without blanks unless its items may be None. One JSON part may contain the whole list."""
    hint = next((each for each in options(annotation) if each is not type(None)), annotation)
    item = next(iter(get_args(hint)), str)
    found = [normal_text(text, item) for text in listed(texts)]
    return [each for each in found if each is not None or type(None) in options(item)]


class FormFields:
    """The fields of a class that takes a whole form."""

    def __init__(self, kind: Any) -> None:
        hints = hints_of(get_origin(kind) or kind)
        with readable_fields(kind):
            info: Any = inspection.type_info(kind)
        self._fields = [(each.encode_name, hints[each.name], each.required) for each in info.fields]
        self.names = frozenset(name for name, _, _ in self._fields)

    def values(self, form: FormData) -> tuple[dict[str, Any], dict[str, str]]:
        """The values by the names of the form, and a fault for each field that is not the JSON it should be."""
        faults: dict[str, str] = {}
        found: dict[str, Any] = {name: texts[-1] for name, texts in (form.fields | form.files).items()}
        for name, hint, required in self._fields:
            wanted = options(hint)
            if list[UploadFile] in wanted:
                if name in form.files:
                    found[name] = form.files[name]
            elif UploadFile in wanted:
                if name in form.files:
                    found[name] = form.files[name][-1]
            elif texts := texts_of(form, name):
                try:
                    found[name] = self._value(hint, texts)
                except msgspec.DecodeError as error:
                    found.pop(name, None)
                    is_number = isinstance(error, msgspec.ValidationError)
                    faults[name] = str(error) if is_number else f"is not JSON: {error}"
            elif bool in wanted and required and type(None) not in wanted:
                found[name] = False
        return found, faults

    def _value(self, hint: Any, texts: list[str]) -> Any:
        if is_list_of_scalars(hint):
            return listed(texts)
        if comes_as_json(hint) and not takes_text(hint):
            return _objects(texts, hint)
        if isinstance(texts[-1], JsonText) and not takes_text(hint):
            return json_document(texts[-1])
        return plain_text(texts[-1]) if takes_text(hint) else texts[-1]

    def normal(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values in the notation of msgspec, for another try after msgspec refused some."""
        values = dict(values)
        for name, hint, _ in self._fields:
            value = values.get(name)
            if is_list_of_scalars(hint) and isinstance(value, list):
                values[name] = normal_texts(value, hint)
            elif isinstance(value, str) and not comes_as_json(hint):
                values[name] = normal_text(value, hint)
                if values[name] is None and type(None) not in options(hint):
                    del values[name]
        return values


def listed(texts: list[Any]) -> list[Any]:
    """The texts of a list. One JSON part may contain the whole list."""
    if len(texts) == 1 and isinstance(texts[0], JsonText):
        whole = json_document(texts[0])
        return whole if isinstance(whole, list) else [whole]
    return [plain_text(text) for text in texts]


def _objects(texts: list[str], hint: Any) -> Any:
    """The value of a field that is not a text: the JSON of its part, or of several parts for a list."""
    is_list = any((get_origin(option) or option) in (list, tuple, set, frozenset) for option in options(hint))
    made = [json_document(text) for text in texts]
    return made if is_list and (len(made) > 1 or not isinstance(made[0], list)) else made[-1]
