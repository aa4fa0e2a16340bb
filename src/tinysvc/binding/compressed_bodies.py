"""Bodies with a Content-Encoding, and forms, prepared for the binder."""

from __future__ import annotations

from ..core.forms import parse_form
from ..core.requests import Request
from ..wire.codings import decompress_body
from .inputs import Body

RAW_KINDS = ("", "bytes")
"""Kinds of the binder for which `typed_body` returns the body as it is."""


def is_compressed(request: Request) -> bool:
    """Whether the body has a Content-Encoding."""
    return "content-encoding" in request.headers


def typed_body(request: Request, body: Body, kind: str, limit: int) -> Body:
    """The body for `Binder.bind`: decompressed to at most `limit` bytes; a form parsed into `request.form_data`.

    `kind` is the binder's `body_kind`; raw bytes stay compressed. HTTPError 400, 413 or 415 for a body that cannot be
    read.
    """
    if kind in RAW_KINDS:
        return body
    if is_compressed(request):
        body = decompress_body(request.headers["content-encoding"], body, limit)
    if kind == "form":
        request.form_data = parse_form(request.headers.get("content-type", ""), body)
    return body
