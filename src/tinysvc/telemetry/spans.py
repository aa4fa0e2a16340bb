"""Spans as data: what a worker sends of each span that its code has ended, and what waits for the exporter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

MAX_TEXT = 4096
"""Characters of a name, of a text of an attribute, and of the description of an error."""

MAX_ITEMS = 128
"""Attributes, events and links of one span, and items of one attribute (OpenTelemetry's default)."""

Attributes = dict[str, Any]
"""Texts, numbers, truth values, and lists of them."""

_INT64 = 1 << 63


class SpanEvent(Struct, array_like=True, forbid_unknown_fields=True):
    """Something that happened at one moment of a span."""

    name: str
    time: int
    """Unix time in nanoseconds, as all times of spans."""
    attributes: Attributes = {}


class SpanLink(Struct, array_like=True, forbid_unknown_fields=True):
    """Another span that a span has to do with, of whatever trace."""

    trace_id: str
    span_id: str
    attributes: Attributes = {}


class SpanFields(Struct, array_like=True, forbid_unknown_fields=True):
    """A span that has ended."""

    name: str
    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    parent_id: str
    """ "" for the first span of a trace."""
    kind: int
    """As OpenTelemetry's SpanKind: 0 internal, 1 server, 2 client, 3 producer, 4 consumer."""
    start: int
    end: int
    attributes: Attributes = {}
    events: list[SpanEvent] = []
    links: list[SpanLink] = []
    status: int = 0
    """As OpenTelemetry's StatusCode: 0 unset, 1 ok, 2 error."""
    description: str = ""
    """Of the error."""
    scope: str = "tinysvc"
    """Name of the library that has made it."""
    is_remote: bool = False
    """Whether its parent is a span of another process."""


def clean(attributes: Mapping[str, Any] | None) -> Attributes:
    """The attributes, cut to the limits; a value of another type becomes its text."""
    found: Attributes = {}
    for name, value in (attributes or {}).items():
        if len(found) >= MAX_ITEMS:
            break
        if value is not None:
            found[str(name)[:MAX_TEXT]] = clean_value(value)
    return found


def clean_value(value: Any) -> Any:
    """A value of an attribute."""
    if isinstance(value, (list, tuple)):
        return [_clean_scalar(each) for each in value[:MAX_ITEMS]]
    return _clean_scalar(value)


def _clean_scalar(value: Any) -> Any:
    if isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return int(value)
    text = value if isinstance(value, str) else str(value)
    return text[:MAX_TEXT].encode(errors="backslashreplace").decode()  # MessagePack and OTLP take no surrogates


def checked_span(fields: object) -> SpanFields:
    """The span that a worker has sent; its job may have taken control of the worker, so nothing in it is trusted.

    Raises:
        ValueError: It is none.
    """
    span = msgspec.convert(fields, SpanFields)  # its ValidationError is a ValueError
    _check_id(span.trace_id, 32)
    _check_id(span.span_id, 16)
    if span.parent_id:
        _check_id(span.parent_id, 16)
    if not (0 <= span.start < _INT64 and 0 <= span.end < _INT64 and 0 <= span.kind <= 4 and 0 <= span.status <= 2):
        raise ValueError("a time, the kind or the status of the span is out of its range")
    span.events, span.links = span.events[:MAX_ITEMS], span.links[:MAX_ITEMS]
    for link in span.links:
        _check_id(link.trace_id, 32)
        _check_id(link.span_id, 16)
    for event in span.events:
        if not 0 <= event.time < _INT64:
            raise ValueError("the time of an event is out of its range")
        event.name = event.name[:MAX_TEXT]
    for each in _with_attributes(span):
        each.attributes = clean(each.attributes)
    span.name, span.scope = span.name[:MAX_TEXT], span.scope[:MAX_TEXT]
    span.description, span.is_remote = span.description[:MAX_TEXT], False
    return span


def _with_attributes(span: SpanFields) -> Sequence[SpanFields | SpanEvent | SpanLink]:
    return [span, *span.events, *span.links]


def _check_id(text: str, length: int) -> None:
    if len(text) != length or not set(text) <= set("0123456789abcdef") or not int(text, 16):
        raise ValueError(f"an id of a span has {length} hex digits, not {text[:40]!r}")
