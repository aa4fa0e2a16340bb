"""Requests of `Remote`: the values of path, query, headers, cookies and body as bytes, and results from bytes.

This is the inverse of what a handler's parameters read. A scalar is text; a list of scalars gives several values of one
name; any other value is JSON. None is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from ..binding.annotations import options
from ..binding.json_bodies import Decoders, decoders_of
from ..binding.outgoing import OutgoingBody
from ..binding.outgoing_forms import Field, form_body
from ..binding.outgoing_texts import texts_of as scalar_texts
from ..core.encoding import json_bytes
from ..core.form_data import UploadFile, is_json_type
from ..core.headers import FIELD_VALUE
from ..core.responses import JSON, OCTETS

_PARAMETER = re.compile(r"\{([^{}]+?)(:path)?\}")
_COOKIE = re.compile(r"[!#-+\--:<-\[\]-~]*")  # RFC 6265, 4.1.1

Values = Mapping[str, Any]


def target_of(template: str, path: Values, query: Values) -> str:
    """Path and query, percent-encoded. In the template, `{name}` is one segment and `{name:path}` has slashes.

    Raises:
        ValueError: A value cannot be a part of a path.
    """

    def value(match: re.Match[str]) -> str:
        texts = texts_of(path.get(match[1]))
        if len(texts) != 1 or texts[0] in ("", ".", ".."):
            raise ValueError(f"{match[1]} is a part of the path {template}, which cannot be {path.get(match[1])!r}")
        return quote(texts[0], safe="/" if match[2] else "")

    found = _PARAMETER.sub(value, template)
    pairs = [(name, text) for name, each in query.items() for text in texts_of(each)]
    return f"{found}?{urlencode(pairs)}" if pairs else found


def headers_of(headers: Values, cookies: Values, bearer: str | None) -> list[tuple[str, str]]:
    """The headers with the cookies and the token. ValueError for a value that a header or a cookie cannot hold."""
    found = [(name.lower(), _line(name, text)) for name, each in headers.items() for text in texts_of(each)]
    pairs = [f"{name}={_cookie(name, text)}" for name, each in cookies.items() for text in texts_of(each)]
    if pairs:
        found.append(("cookie", "; ".join(pairs)))
    if bearer is not None:
        found.append(("authorization", f"Bearer {_line('bearer', bearer)}"))
    return found


def _line(name: str, text: str) -> str:
    if not FIELD_VALUE.fullmatch(text):
        raise ValueError(f"the header {name} is one line of Latin-1 text, which cannot be {text!r}")
    return text


def _cookie(name: str, text: str) -> str:
    if not _COOKIE.fullmatch(text):
        raise ValueError(f"the cookie {name} is ASCII without spaces, commas and semicolons, which cannot be {text!r}")
    return text


def body_of(json: Any, form: Values | None, body: bytes | None, multipart: bool) -> tuple[str, OutgoingBody]:
    """The content type and the content of a body; ("", b"") if there is none."""
    if form is not None:
        return form_body([part for name, each in form.items() for part in _parts(name, each)], multipart=multipart)
    if json is not msgspec.UNSET:
        return JSON, json_bytes(json)
    return (OCTETS, body) if body else ("", b"")


def _parts(name: str, value: Any) -> Iterator[Field]:
    """The parts of a form for one value: bytes and UploadFile are files."""
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(each, bytes | UploadFile) for each in values):
        yield from (Field(name, each if isinstance(each, UploadFile) else _file(name, each)) for each in values)
    else:
        yield from (Field(name, text) for text in texts_of(value))


def _file(name: str, content: bytes) -> UploadFile:
    file = UploadFile(name, name, OCTETS)
    file.file.write(content)
    file.size = len(content)
    return file


def texts_of(value: Any) -> list[str]:
    """The value as texts: none for None, several for a list of scalars, JSON for a list or an object inside."""
    if value is None:
        return []
    plain = msgspec.to_builtins(value, enc_hook=str)
    values = [each for each in plain if each is not None] if isinstance(plain, list | tuple) else [plain]
    if any(isinstance(each, dict | list | tuple) for each in values):
        return [json_bytes(value).decode()]
    return scalar_texts(values)


# Results


def result_of(annotation: Any, content_type: str, content: bytes) -> Any:
    """The body of a response as the annotated type.

    Raises:
        ValueError: The body is not of this type; the message has the place.
    """
    kinds = options(annotation)
    if annotation is None or (not content and type(None) in kinds):
        return None
    if annotation is bytes:
        return content
    if is_json_type(content_type):
        return decoders(annotation).json(content)
    if bytes in kinds and not content_type.startswith("text/"):
        return content
    if str in kinds or (annotation is Any and content_type.startswith("text/")):
        return content.decode()
    return content if bytes in kinds or annotation is Any else decoders(annotation).json(content)


@lru_cache(maxsize=1000)
def decoders(annotation: Any) -> Decoders:
    """The decoders of a type; they are made once."""
    return decoders_of(annotation)
