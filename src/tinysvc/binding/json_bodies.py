"""JSON documents from clients: request bodies, WebSocket messages and JSON parts of forms; MessagePack bodies, too.

A document that cannot be decoded is refused with 400, a document of the wrong shape with 422 and the place of each
mismatch. Both are the same for every type, whether msgspec or pydantic reads it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, cast, get_args

import msgspec

from ..core.errors import HTTPError
from ..core.form_data import is_json_type
from ..core.requests import Request
from ..core.responses import JSON, MESSAGEPACK
from .aliases import decode_hook, readable_fields, without_aliases
from .annotations import holds_model
from .inputs import Body, Fault, Get
from .mismatches import MAX_MISMATCHES, mismatches, numbers_out_of_range

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Decoders(NamedTuple):
    """The two decoders of a type."""

    json: Callable[[Body], Any]
    messagepack: Callable[[Body], Any] | None
    """None for pydantic models, which read JSON only."""


def decoders_of(annotation: Any) -> Decoders:
    """The decoders of a type without aliases. Any exception of msgspec or pydantic if they cannot read the type."""
    if holds_model(annotation):
        return Decoders(_checked_json(_pydantic_validator(annotation)), None)
    with readable_fields(annotation):
        return Decoders(
            msgspec.json.Decoder(annotation, dec_hook=decode_hook).decode,
            msgspec.msgpack.Decoder(annotation, dec_hook=decode_hook).decode,
        )


def json_body(annotation: Any, default: Any, decoders: Decoders) -> Get:
    """Read the body as one value of this type."""
    decode, decode_messagepack = decoders

    def decoder_for(content_type: str) -> Callable[[Body], Any]:
        if is_json_type(content_type):
            return decode
        kind = content_type.partition(";")[0].strip().lower()
        if kind != MESSAGEPACK or decode_messagepack is None:
            text = f"The body must be JSON with 'Content-Type: application/json', not {kind!r}."
            raise HTTPError(415, text, headers=[("accept", JSON)])
        return decode_messagepack

    def get(request: Request, body: Body) -> Any:
        if not body and default is not inspect.Parameter.empty:
            return default
        content_type = request.headers.get("content-type", JSON)
        read = decode if content_type == JSON else decoder_for(content_type)
        if not body:
            raise Fault(("$", "is missing: the request has no body; a JSON document was expected"))
        if body[0] == BYTE_ORDER_MARK[0] and body[:3] == BYTE_ORDER_MARK and read is decode:
            body = body[3:]  # a parser may ignore it (RFC 8259, 8.1)
        try:
            return read(body)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise _refusal(body, annotation, error, is_json=read is decode) from None

    return get


class MessageDecoder(NamedTuple):
    """Reads the messages of one type."""

    annotation: Any
    """The type without aliases."""
    decode: Callable[[Body], Any]


@lru_cache(maxsize=256)
def _message_decoder(annotation: Any) -> MessageDecoder | None:
    """The decoder of a type: a WebSocket asks for the same type for each message. None: its order matters.

    `A | B` equals `B | A`, but of two pydantic models that fit, pydantic takes the first one.
    """
    annotation = without_aliases(annotation)
    if holds_model(annotation) and get_args(annotation):
        return None
    return MessageDecoder(annotation, decoders_of(annotation).json)


@lru_cache(maxsize=256)
def _ordered_decoder(annotation: Any, written: str) -> MessageDecoder:
    """The same for a type that contains pydantic models. `written` is the type with its order."""
    annotation = without_aliases(annotation)
    return MessageDecoder(annotation, decoders_of(annotation).json)


def json_value(message: bytes | str, annotation: Any) -> Any:
    """A message as a value of this type, read like a body.

    Raises:
        ValueError: The message is not JSON or does not fit the type; the text names each place.
    """
    try:
        annotation, decode = _message_decoder(annotation) or _ordered_decoder(annotation, repr(annotation))
    except TypeError:  # a type that cannot be hashed, or that cannot be read
        annotation, decode = _ordered_decoder.__wrapped__(annotation, "")
    body = (message.encode() if isinstance(message, str) else message).removeprefix(BYTE_ORDER_MARK)
    try:
        return decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        refusal = _refusal(body, annotation, error, is_json=True)
    if isinstance(refusal, Fault):
        raise ValueError("; ".join(f"{place}: {detail}" for place, detail in refusal.faults))
    raise ValueError(str(refusal.detail).replace("The body", "the message"))


def json_document(text: str) -> Any:
    """The JSON document in a text, as a form's JSON part has it, without a type.

    Raises:
        msgspec.ValidationError: A number is out of range; the text names its place.
        msgspec.DecodeError: The text is not JSON.
    """
    body = text.encode()
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError as error:
        raise _with_place(error, body) from None
    except RecursionError as error:
        raise msgspec.DecodeError(str(error)) from None


def _with_place(error: msgspec.ValidationError, body: bytes) -> Exception:
    """The error of a number that is out of range, with its place."""
    try:
        place, detail = numbers_out_of_range(body)[1][0]
    except (IndexError, RecursionError, ValueError):
        return error
    return msgspec.ValidationError(f"{detail} - at `{place}`")


# Pydantic models


_MAY_EXCEED_FLOAT = re.compile(rb"e\+?[0-9]{3}|E\+?[0-9]{3}|[0-9]{309}")
"""Matches wherever a number may be too big for a float."""


def _checked_json(validate: Callable[[bytes], Any]) -> Callable[[Body], Any]:
    """Let msgspec skip through the document first: text that is not JSON (such as NaN) is refused for all types."""
    skip = msgspec.json.Decoder(msgspec.Raw).decode

    def decode(body: Body) -> Any:
        skip(body)
        whole = bytes(body)
        if _MAY_EXCEED_FLOAT.search(whole):
            msgspec.json.decode(whole)  # raises for a number that no float can hold
        try:
            return validate(whole)
        except ValueError:
            msgspec.json.decode(whole)  # checks the strings, too, which the skip does not
            raise

    return decode


def _pydantic_validator(annotation: Any) -> Callable[[bytes], Any]:
    """Reads a pydantic model, or a type that contains some."""
    if validate := getattr(annotation, "model_validate_json", None):
        return cast("Callable[[bytes], Any]", validate)
    from pydantic import TypeAdapter

    return TypeAdapter(annotation).validate_json


# Refusals


def _refusal(body: Body, annotation: Any, error: Exception, *, is_json: bool) -> Fault | HTTPError:
    """The error for the client whose body cannot be read."""
    if isinstance(error, msgspec.ValidationError):
        return _all_mismatches(body, annotation, error, is_json=is_json)
    if isinstance(error, (msgspec.DecodeError, RecursionError, UnicodeDecodeError)):
        return _malformed(body, error, is_json=is_json)
    return _pydantic_fault(error)


def _all_mismatches(body: Body, annotation: Any, error: msgspec.ValidationError, *, is_json: bool) -> Fault | HTTPError:
    """Every mismatch of the body. 400 if the body is malformed behind its first mismatch."""
    decode = msgspec.json.decode if is_json else msgspec.msgpack.decode
    known: list[tuple[str, str]] = []
    try:
        try:
            value = decode(body)
        except msgspec.ValidationError:
            if not is_json:
                return Fault(*mismatches(None, Any, error))
            value, known = numbers_out_of_range(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as malformed:
        return _malformed(body, malformed, is_json=is_json)
    return Fault(*mismatches(value, annotation, error, dec_hook=decode_hook, known=known))


def _malformed(body: Body, error: Exception, *, is_json: bool) -> HTTPError:
    start = bytes(body[:2])
    if is_json and (start in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start):
        return HTTPError(400, "The body is not JSON: it is UTF-16 or UTF-32; send it as UTF-8 (RFC 8259, 8.1).")
    return HTTPError(400, f"The body is not {'JSON' if is_json else 'MessagePack'}: {error}.")


def _pydantic_fault(error: Exception) -> Fault:
    errors = getattr(error, "errors", None)
    if errors is None:
        return Fault(("$", str(error)))
    return Fault(*[("$" + "".join(_step(step) for step in e["loc"]), e["msg"]) for e in errors()[:MAX_MISMATCHES]])


def _step(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"
