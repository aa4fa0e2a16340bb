"""Parameters that are filled from a form: the whole form as one value, and uploaded files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_origin

import msgspec

from ..core.errors import ConfigurationError
from ..core.form_data import JsonText, UploadFile
from ..core.requests import Request
from .aliases import decode_hook, is_recursive_alias
from .annotations import options
from .form_values import FormFields, texts_of
from .inputs import Body, Fault, Get, Input
from .json_bodies import json_document
from .markers import form_of
from .mismatches import mismatches
from .readable_types import check_readable


def whole_form(function: Callable[..., Any], name: str, annotation: Any, default: Any) -> tuple[Input, Get]:
    """Read the form as one value, whose fields are the fields of its class. ConfigurationError for other types."""
    kind = next(option for option in options(annotation) if option is not type(None))
    origin = get_origin(kind) or kind
    if not isinstance(origin, type) or not getattr(origin, "__annotations__", None):
        raise ConfigurationError.at(
            function,
            f"form.{name} is a whole form, but {kind!r} has no fields; take a dataclass, Struct, TypedDict or attrs "
            "class, or one parameter for each field",
        )
    check_readable(function, f"form.{name}", kind)
    fields = FormFields(kind)

    def convert(values: Any, *, strict: bool = False) -> Any:
        return msgspec.convert(values, kind, strict=strict, dec_hook=_decode_upload)

    def get(request: Request, body: Body) -> Any:
        form = form_of(request)
        if default is not inspect.Parameter.empty and not form.fields and not form.files:
            return default
        values: Any = None
        not_json: dict[str, str] = {}
        is_text = True
        try:
            if name not in fields.names and (whole := texts_of(form, name)) and isinstance(whole[-1], JsonText):
                values, is_text = json_document(whole[-1]), False  # one JSON part holds the whole value
                return convert(values, strict=True)
            values, not_json = fields.values(form)
            try:
                found = convert(values)
            except msgspec.ValidationError:
                values = fields.normal(values)
                found = convert(values)
            if not not_json:
                return found
            found = []
        except msgspec.DecodeError as error:
            if values is None or not isinstance(error, msgspec.ValidationError):
                raise Fault(("form", str(error))) from None
            found = mismatches(values, kind, error, root="form", strict=not is_text, dec_hook=_decode_upload)
        missing = [("form", f"Object missing required field `{field}`") for field in not_json]
        faults = [(f"form.{field}", detail) for field, detail in not_json.items()]
        raise Fault(*faults, *[each for each in found if each not in missing])

    return Input(name, "whole form", "", kind, default), get


def _decode_upload(kind: type, value: Any) -> Any:
    if is_recursive_alias(kind):
        return decode_hook(kind, value)
    if kind is UploadFile and isinstance(value, UploadFile):
        return value
    raise ValueError("Expected a file" if kind is UploadFile else f"Expected `{kind.__name__}`")  # msgspec adds where


def uploaded_files(name: str, field: str, annotation: Any, default: Any) -> tuple[Input, Get]:
    """Take the files of one form field: the last file, or all files for a list."""
    takes_many = list[UploadFile] in options(annotation)

    def get(request: Request, body: Body) -> Any:
        form = form_of(request)
        uploads = form.files.get(field)
        if takes_many and (uploads or default is inspect.Parameter.empty):
            return uploads or []
        if uploads:
            return uploads[-1]
        if field in form.fields:
            raise Fault((f"form.{field}", "is a text, but a file was expected: send it with a filename"))
        if default is inspect.Parameter.empty:
            raise Fault((f"form.{field}", "is missing: a file was expected"))
        return default

    return Input(name, "form", field, annotation, default), get
