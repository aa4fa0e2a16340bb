"""The codec of one method: arguments and results as messages, and back.

    decode:  bytes -> message class -> plain value (message_readers.py) -> msgspec or pydantic -> argument
    encode:  result -> msgspec or core/encoding.py -> plain value (message_writers.py) -> message class -> bytes

msgspec and pydantic check the values as they check JSON: constraints, tags, `__post_init__` and all. What protobuf adds
are the types of its fields.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, NamedTuple, get_args

import msgspec
import orjson
from google.protobuf.message import DecodeError, EncodeError

from ..binding.aliases import decode_hook, readable_fields, without_aliases
from ..binding.annotations import hints_of, holds_model, signature_of, without_annotated
from ..binding.json_bodies import decoders_of
from ..binding.markers import ApiKey, marker_in, unauthorized
from ..binding.mismatches import mismatches
from ..binding.replies import UnreadableReply
from ..binding.results import is_stream
from ..core.encoding import to_plain
from ..core.errors import UnencodableResult
from ..core.responses import Response
from .descriptors import message_class
from .message_errors import BadMessage
from .message_readers import Readers, Unreadable
from .message_writers import Unwritable, Writers
from .shapes import KEEP, Leaf, MessageShape, contains_itself

MAX_DEPTH = 100
"""Messages inside each other: the limit of protobuf's parsers in all languages."""

_DIRECT = (str, int, float, bool, bytes)
"""Types that a message checks completely."""


class Parts(NamedTuple):
    """What a codec is made of: picklable, by the name of its function."""

    function: Callable[..., Any]
    resources: tuple[Callable[..., Any], ...]
    """The functions of the resources of a request, which take parameters, too. None in a worker: they run on the loop.
    """
    batched: bool
    """Whether the handler takes a list for each parameter, with an item for each request."""
    request: MessageShape
    """Its fields are the parameters, or, for a stream of requests, those of its items."""
    reply: MessageShape | Leaf
    """The message of the result, or of an item of its stream. EMPTY for None."""
    is_bare: bool
    """Whether the result is not a message itself, but the field `value` of one."""
    stream_parameter: str
    """The parameter that takes the stream of requests; "" if there is one request."""
    package: str
    files: bytes
    """The descriptors of the service: a FileDescriptorSet."""


class Codec:
    """Reads and writes the messages of one method.

    It pickles. A copy builds its message classes when it is first used; a worker imports protobuf for it, but not
    grpcio.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.parameters = tuple(str(each.key) for each in parts.request.slots)
        """The parameters that a message fills."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Codec, (self.parts._replace(resources=()),)

    # Requests

    def decode_arguments(self, data: bytes | memoryview) -> dict[str, Any]:
        """The arguments by name, with the defaults of those that are absent.

        Raises:
            BadMessage: The bytes are no message of this method, or a value does not fit its parameter.
            HTTPError: 401, a key is missing.
        """
        return self._arguments.decode(data)

    def encode_arguments(self, arguments: Mapping[str, Any]) -> bytes:
        """The request of a call. Arguments that are left out take their defaults at the callee.

        Raises:
            UnencodableResult: A value does not fit its field.
        """
        return self._arguments.encode({name: arguments[name] for name in self.parameters if name in arguments})

    @property
    def stream_parameter(self) -> str:
        """The parameter that takes the stream of requests; "" if there is one request."""
        return self.parts.stream_parameter

    def decode_request_item(self, data: bytes | memoryview) -> Any:
        """One item of a stream of requests. BadMessage as for `decode_arguments`."""
        return self._arguments.decode(data)[self.stream_parameter]

    def encode_request_item(self, value: Any) -> bytes:
        """One item of a stream of requests, for a call. UnencodableResult if it does not fit."""
        return self._arguments.encode({self.stream_parameter: value})

    # Results

    def encode_result(self, value: Any) -> bytes:
        """The reply with the result of the handler. UnencodableResult if it does not fit the annotation."""
        return self._result.encode(value)

    def encode_item(self, value: Any) -> bytes:
        """One reply of a stream. UnencodableResult if the item does not fit the annotation."""
        return self._result.encode(value)

    def decode_result(self, data: bytes) -> Any:
        """The result of a call. UnreadableReply if it is not what the handler's annotation says."""
        return self._result.decode(data)

    def decode_item(self, data: bytes) -> Any:
        """One item of a stream. UnreadableReply if it is not what the handler's annotation says."""
        return self._result.decode(data)

    @cached_property
    def _arguments(self) -> Arguments:
        return Arguments(self.parts)

    @cached_property
    def _result(self) -> Results:
        return Results(self.parts)


class Messages:
    """The messages of one shape, to and from plain values."""

    def __init__(self, shape: MessageShape, parts: Parts) -> None:
        self._class = message_class(parts.files, f"{parts.package}.{shape.name}")
        self._read = Readers().message(shape)
        self._write = Writers(parts.files).message(shape)
        self._shape, self._files = shape, parts.files
        self._is_deep = contains_itself(shape)

    def plain(self, data: bytes | memoryview) -> Any:
        """The plain value of a message. DecodeError or Unreadable."""
        return self._read(self._class.FromString(data))

    def bytes_of(self, plain: Any) -> bytes:
        """The message of a plain value. Unwritable."""
        found = self._write(plain)
        try:
            data: bytes = self._class(**found).SerializeToString()
            if self._is_deep and len(data) > MAX_DEPTH:
                self._class.FromString(data)  # protobuf writes what it does not read
        except (TypeError, ValueError) as error:
            self._write_checked(plain)
            raise Unwritable("", str(error)) from None
        except (DecodeError, EncodeError, RecursionError):
            raise Unwritable(
                "", f"it is nested deeper than {MAX_DEPTH} messages, which protobuf does not read"
            ) from None
        return data

    @cached_property
    def _write_checked(self) -> Callable[[Any], Any]:
        """Finds the place of a value that the message class refuses."""
        return Writers(self._files, checks_all=True).message(self._shape)


class Arguments:
    """The request of a method."""

    def __init__(self, parts: Parts) -> None:
        self._messages = Messages(parts.request, parts)
        self._function = parts.function
        annotations = dict[str, Any]()
        self._defaults = dict[str, Any]()
        self._models = dict[str, _ModelReader]()
        self._keys = dict[str, ApiKey]()
        parameters = parameters_of(parts)
        for slot in parts.request.slots:
            name = str(slot.key)
            if name not in parameters:
                continue
            annotation, default = parameters[name]
            annotations[name] = annotation
            if holds_model(annotation):
                self._models[name] = _ModelReader(annotation)
                annotations[name] = Any
            if default is not inspect.Parameter.empty:
                self._defaults[name] = default
            elif isinstance(marker := marker_in(annotation), ApiKey):
                self._keys[name] = marker
        is_direct = len(annotations) == len(parts.request.slots) and all(
            _is_direct(each) for each in annotations.values()
        )
        self._convert = None if is_direct else _Converter(annotations, self._defaults)

    def decode(self, data: bytes | memoryview) -> dict[str, Any]:
        try:
            plain = self._messages.plain(data)
        except DecodeError as error:
            raise BadMessage([("$", f"the request is no message of this method: {error}")]) from None
        except Unreadable as error:
            raise BadMessage([(error.place, error.detail)]) from None
        if self._keys:
            self._check_keys(plain)
        if self._convert is None:
            return {**self._defaults, **plain} if self._defaults else plain
        arguments = self._convert(plain)
        for name, read in self._models.items():
            if name in plain:
                arguments[name] = read(plain[name], name)
        return arguments

    def _check_keys(self, plain: Mapping[str, Any]) -> None:
        for name, marker in self._keys.items():
            if not plain.get(name):
                raise unauthorized(marker, "field", name)

    def encode(self, arguments: Mapping[str, Any]) -> bytes:
        try:
            return self._messages.bytes_of({name: plain_value(each) for name, each in arguments.items()})
        except Unwritable as error:
            place = error.place or "an argument"
            raise UnencodableResult(
                f"{place} of {self._function.__qualname__} cannot be sent over gRPC: {error.detail}"
            ) from None


class Results:
    """The replies of a method."""

    def __init__(self, parts: Parts) -> None:
        self._function = parts.function
        self._is_bare = parts.is_bare
        self._messages = None if isinstance(parts.reply, Leaf) else Messages(parts.reply, parts)
        self._annotation = result_annotation(parts.function, batched=parts.batched)

    @cached_property
    def _reader(self) -> Callable[[Any], Any]:
        """Makes the result of its plain value."""
        annotation = self._annotation
        if annotation is Any or _is_direct(annotation):
            return lambda plain: plain
        if holds_model(annotation):
            model = _ModelReader(annotation)
            return lambda plain: model(plain, "result")
        convert = _Converter({"result": annotation}, {})
        return lambda plain: convert({"result": plain})["result"]

    def encode(self, value: Any) -> bytes:
        if self._messages is None:
            if value is not None:
                raise UnencodableResult(
                    f"the handler's result is {value!r:.100}, and its annotation says None; annotate it with its type"
                )
            return b""
        if isinstance(value, Response):
            raise UnencodableResult(
                "the handler returned a Response, which only HTTP has; annotate it with -> Response, and gRPC leaves "
                "it out, or return a value"
            )
        plain = plain_value(value)
        try:
            return self._messages.bytes_of({"value": plain} if self._is_bare else plain)
        except Unwritable as error:
            place = error.place if not self._is_bare else error.place.removeprefix("value").lstrip(".")
            where = f"the handler's result, at {place}," if place else "the handler's result"
            raise UnencodableResult(f"{where} cannot be sent over gRPC: {error.detail}") from None

    def decode(self, data: bytes) -> Any:
        if self._messages is None:
            return None
        try:
            plain = self._messages.plain(data)
            return self._reader(plain["value"] if self._is_bare else plain)
        except DecodeError as error:
            raise UnreadableReply(f"the reply is no message of this method: {error}") from None
        except Unreadable as error:
            raise UnreadableReply(f"{error.place}: {error.detail}") from None
        except BadMessage as error:
            raise UnreadableReply(error.detail) from None


def plain_value(value: Any) -> Any:
    """The plain value of any value. UnencodableResult names a type that has none."""
    if value is None or type(value) in _DIRECT:
        return value
    try:
        return msgspec.to_builtins(value, builtin_types=KEEP)
    except (TypeError, ValueError, RecursionError):  # a type of another library, or a value that contains itself
        return to_plain(value, keep=KEEP)


class _Converter:
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


class _ModelReader:
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


def parameters_of(parts: Parts) -> dict[str, tuple[Any, Any]]:
    """Type and default of each parameter, of the handler and of the resources of its requests."""
    found: dict[str, tuple[Any, Any]] = {}
    for function in (parts.function, *parts.resources):
        for name, parameter in signature_of(function).items():
            is_item = parts.batched and function is parts.function
            found.setdefault(name, (parameter_annotation(parameter.annotation, batched=is_item), parameter.default))
    if parts.stream_parameter:
        annotation, default = found[parts.stream_parameter]
        found[parts.stream_parameter] = next(iter(get_args(without_annotated(annotation))), Any), default
    return found


def parameter_annotation(annotation: Any, *, batched: bool) -> Any:
    """The type of the value that one request gives a parameter. A parameter of a path may have no annotation."""
    if annotation is inspect.Parameter.empty:
        return str
    return next(iter(get_args(annotation)), Any) if batched else annotation


def _is_direct(annotation: Any) -> bool:
    return any(annotation is each for each in _DIRECT)


def result_annotation(function: Callable[..., Any], *, batched: bool) -> Any:
    """The type of the result, or of an item of the stream."""
    annotation = without_aliases(without_annotated(hints_of(function).get("return", Any)))
    if batched:
        annotation = next(iter(get_args(annotation)), Any)
    if is_stream(annotation):
        annotation = next(iter(get_args(annotation)), Any)
    return annotation
