"""Arguments and results of plain values, as msgspec and pydantic make them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import orjson

from ..binding.aliases import decode_hook, readable_fields
from ..binding.annotations import holds_model
from ..binding.json_bodies import decoders_of
from ..binding.markers import ApiKey, marker_in, unauthorized
from ..binding.mismatches import mismatches
from .message_errors import BadMessage
from .plain_readers import PlainReaders, Unreadable
from .shapes import MessageShape, Slot


class Parameter(NamedTuple):
    """A parameter, and its field in the request."""

    slot: Slot
    annotation: Any
    default: Any

    @property
    def name(self) -> str:
        return str(self.slot.key)

    @property
    def has_default(self) -> bool:
        return self.default is not inspect.Parameter.empty

    @property
    def key(self) -> ApiKey | None:
        """The marker of a required key."""
        marker = marker_in(self.annotation)
        return marker if isinstance(marker, ApiKey) and not self.has_default else None


class PlainArguments:
    """Parameters that are read as plain values, which msgspec and pydantic check."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._plain = PlainReaders().message(MessageShape("", [each.slot for each in parameters]))
        self._models = {each.name: ModelReader(each.annotation) for each in parameters if holds_model(each.annotation)}
        self._keys = {each.name: each.key for each in parameters if each.key is not None}
        annotations = {each.name: Any if each.name in self._models else each.annotation for each in parameters}
        defaults = {each.name: each.default for each in parameters if each.has_default}
        self._convert = Converter(annotations, defaults)

    def read(self, message: Any) -> dict[str, Any]:
        """The arguments by name. BadMessage with every fault; HTTPError if a key is missing."""
        try:
            plain = self._plain(message)
        except Unreadable as error:
            raise BadMessage([(error.place, error.detail)]) from None
        for name, marker in self._keys.items():
            if not plain.get(name):
                raise unauthorized(marker, "field", name)
        arguments = self._convert(plain)
        for name, read in self._models.items():
            if name in plain:
                arguments[name] = read(plain[name], name)
        return arguments


class Converter:
    """Makes the arguments of plain values: one Struct with a field for each parameter, because msgspec keeps it."""

    def __init__(self, annotations: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        fields: list[Any] = []
        for name, annotation in annotations.items():
            if name in defaults:
                fields.append((name, annotation, msgspec.field(default_factory=partial(defaults.get, name))))
            else:
                fields.append((name, annotation))
        fields.sort(key=len)  # those without a default come first
        self._kind = msgspec.defstruct("Arguments", fields)
        self._names = tuple(name for name, *_ in fields)
        get = attrgetter(*self._names)
        self._get: Callable[[Any], tuple[Any, ...]] = get if len(self._names) > 1 else _in_tuple(get)
        with readable_fields(*annotations.values()):
            try:
                self(dict.fromkeys(annotations))  # msgspec reads the annotations now
            except BadMessage:
                pass  # None does not fit

    def __call__(self, plain: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name. BadMessage with every fault."""
        try:
            found = msgspec.convert(plain, self._kind, dec_hook=decode_hook, str_keys=True)
        except msgspec.ValidationError as error:
            faults = mismatches(plain, self._kind, error, dec_hook=decode_hook)
            raise BadMessage([(place.removeprefix("$."), detail) for place, detail in faults]) from None
        except (ValueError, RecursionError) as error:
            raise BadMessage([("$", str(error))]) from None
        return dict(zip(self._names, self._get(found), strict=True))


def _in_tuple(get: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda found: (get(found),)


class ModelReader:
    """Makes a pydantic model, or a type with some, of its plain value. Pydantic reads JSON, as for a body."""

    def __init__(self, annotation: Any) -> None:
        self._validate = decoders_of(annotation).json

    def __call__(self, plain: Any, root: str) -> Any:
        try:
            document = orjson.dumps(plain, _json_of, orjson.OPT_NON_STR_KEYS)
        except TypeError as error:
            raise BadMessage([(root, str(error.__cause__ or error))]) from None
        try:
            return self._validate(document)
        except ValueError as error:
            details = getattr(error, "errors", None)
            if details is None:
                raise BadMessage([(root, str(error))]) from None
            raise BadMessage([(root + "".join(map(_step, each["loc"])), each["msg"]) for each in details()]) from None


def _step(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"


def _json_of(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()  # as pydantic reads bytes in JSON
        except UnicodeDecodeError as error:
            raise ValueError(f"bytes of a pydantic model are UTF-8: {error}") from None
    return msgspec.to_builtins(value)
