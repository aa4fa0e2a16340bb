"""Parameters that are filled from texts: path segments, the query, headers, cookies and single form fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from ..core.errors import ConfigurationError
from ..core.requests import Request
from .annotations import comes_as_json, is_list_of_scalars, options
from .form_values import listed, normal_text, normal_texts, plain_text, takes_text, texts_of
from .inputs import Body, Fault, Get, Input
from .markers import ApiKey, Bearer, Marker, form_of, lookup_of, unauthorized
from .mismatches import mismatches
from .readable_types import check_readable


def text_value(
    function: Callable[..., Any], name: str, annotation: Any, default: Any, marker: Marker
) -> tuple[Input, Get]:
    """Read the parameter `name` from the place that its marker names. ConfigurationError if no text fits the type."""
    where, field, values_of = lookup_of(marker, name)
    place = f"{where}.{field}"
    if where == "form" and options(annotation) == (bool,) and default is inspect.Parameter.empty:
        default = False  # browsers do not send a checkbox that is not ticked
    check_readable(function, place, annotation)
    takes_many = comes_as_json(annotation)
    if takes_many and (where == "path" or not is_list_of_scalars(annotation)):
        raise ConfigurationError.at(
            function,
            f"{place} is a text, or several texts outside the path, and cannot become {annotation!r}; "
            "take a standard type, a list of a standard type, or the JSON body",
        )
    in_form = where == "form"
    is_text = annotation is str and not in_form
    may_be_text = takes_text(annotation)
    convert = msgspec.convert
    if in_form:
        values_of = lambda request, name: texts_of(form_of(request), name)  # noqa: E731

    def read_form_texts(values: list[str]) -> list[str]:
        if takes_many:
            return listed(values)
        return [plain_text(values[-1])] if may_be_text else values

    def normal(values: list[str], error: msgspec.ValidationError) -> Any:
        """The value in a browser's notation: see form_values.py."""
        found: Any = normal_texts(values, annotation) if takes_many else normal_text(values[-1], annotation)
        if found is None and type(None) not in options(annotation):
            if default is inspect.Parameter.empty:
                raise error
            return default
        return convert(found, annotation, strict=False)

    def faults(values: list[str], error: msgspec.DecodeError) -> list[tuple[str, str]]:
        value: Any = values if takes_many else values[-1]
        if not isinstance(error, msgspec.ValidationError):
            return [(place, str(error))]
        if takes_many and where in ("form", "query"):
            with suppress(msgspec.DecodeError):
                value = normal_texts(values, annotation)
        found = mismatches(value, annotation, error, root=place, strict=False, is_query=where == "query")
        return [(place, _with_text(detail, values, takes_many)) for place, detail in found]

    def get(request: Request, body: Body) -> Any:
        values = values_of(request, field)
        if not values:
            if default is not inspect.Parameter.empty:
                return default
            if isinstance(marker, (Bearer, ApiKey)):
                raise unauthorized(marker, where, field)
            raise Fault((place, "is missing"))
        if is_text:
            return values[-1]
        try:
            if in_form:
                values = read_form_texts(values)
            try:
                return convert(values if takes_many else values[-1], annotation, strict=False)
            except msgspec.ValidationError as error:
                if where not in ("form", "query"):
                    raise
                return normal(values, error)
        except msgspec.DecodeError as error:
            raise Fault(*faults(values, error)) from None

    return Input(name, where, field, annotation, default, marker), get


def _with_text(detail: str, values: list[str], takes_many: bool) -> str:
    """The detail with the text that came, in place of its type: every text is a `str`."""
    return detail if takes_many else detail.replace("got `str`", f"got {values[-1][:100]!r}")
