"""Forms of a call: fields and files as a body, `multipart/form-data` (RFC 7578) or urlencoded. Read by core/forms.py.

A field that is no text is a part of type `application/json`, which keeps numbers, lists and objects as they are.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from secrets import token_hex
from typing import Any, NamedTuple, get_origin
from urllib.parse import urlencode

import msgspec

from ..core.encoding import json_bytes
from ..core.form_data import FLUSH_SIZE, UploadFile
from ..core.responses import OCTETS
from ..core.units import MiB
from .inputs import Input
from .outgoing_texts import texts_of

WHOLE_BODY = 1 * MiB
"""Bytes of files up to which a form is sent as a whole; more are read from their files piece by piece."""

_ESCAPED = {'"': "%22", "\r": "%0D", "\n": "%0A"}
_TO_ESCAPE = re.compile('["\r\n]')
_NOT_PRINTABLE = re.compile("[^ -~]")

FormBody = bytes | Callable[[], AsyncIterator[bytes]]


class Field(NamedTuple):
    """One part of a form."""

    name: str
    content: str | bytes | UploadFile
    """Text, JSON, or a file."""


def fields_of(taken: Input, value: Any) -> Iterator[Field]:
    """The parts of a form that one argument becomes."""
    if taken.place == "whole form":
        for name, encoded_name in _names_of(taken.annotation):
            found = value.get(name) if isinstance(value, dict) else getattr(value, name)
            yield from _parts(encoded_name, found, as_json=True)
    else:
        yield from _parts(taken.field, value, as_json=False)


def _names_of(kind: Any) -> list[tuple[str, str]]:
    """The fields of a class, with their names in the form."""
    info: Any = msgspec.inspect.type_info(get_origin(kind) or kind)
    return [(each.name, each.encode_name) for each in info.fields]


def _parts(name: str, value: Any, *, as_json: bool) -> Iterator[Field]:
    if value is None:
        return
    files = value if isinstance(value, list) and value and isinstance(value[0], UploadFile) else [value]
    if isinstance(files[0], UploadFile):
        yield from (Field(name, each) for each in files)
    elif as_json and not isinstance(value, str):
        yield Field(name, json_bytes(value))
    else:
        yield from (Field(name, text) for text in texts_of(value))


def form_body(fields: list[Field], *, multipart: bool = False) -> tuple[str, FormBody]:
    """The content type and the body of a form. It is urlencoded if it has only texts, unless `multipart`."""
    if not multipart and all(isinstance(each.content, str) for each in fields):
        return "application/x-www-form-urlencoded", urlencode([(each.name, each.content) for each in fields]).encode()
    boundary = token_hex(16)
    size = sum(each.content.size for each in fields if isinstance(each.content, UploadFile))
    content_type = f"multipart/form-data; boundary={boundary}"
    if size <= WHOLE_BODY:
        return content_type, b"".join(_multipart(fields, boundary))

    async def pieces() -> AsyncIterator[bytes]:
        for piece in _multipart(fields, boundary):
            yield piece

    return content_type, pieces


def _multipart(fields: list[Field], boundary: str) -> Iterator[bytes]:
    for name, content in fields:
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{_escaped(name)}"'
        if isinstance(content, UploadFile):
            head += f'; filename="{_escaped(content.filename)}"'
            kind = _NOT_PRINTABLE.sub("", content.content_type) or OCTETS
            yield f"{head}\r\ncontent-type: {kind}\r\n\r\n".encode()
            yield from _file_pieces(content)
        elif isinstance(content, str):
            yield f"{head}\r\n\r\n{content}".encode()
        else:
            yield f"{head}\r\ncontent-type: application/json\r\n\r\n".encode() + content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _file_pieces(upload: UploadFile) -> Iterator[bytes]:
    """The content of a file. A hedge reads the same file at the same time, so each iterator has its own position."""
    position = 0
    while True:
        upload.file.seek(position)
        piece = upload.read(FLUSH_SIZE)
        upload.file.seek(0)
        if not piece:
            return
        yield piece
        position += len(piece)


def _escaped(text: str) -> str:
    """A name in a header line, as browsers write it (WHATWG HTML, 4.10.22.8)."""
    return _TO_ESCAPE.sub(lambda found: _ESCAPED[found[0]], text)
