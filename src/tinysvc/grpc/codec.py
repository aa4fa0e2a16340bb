"""The codec of one method: arguments and results as messages, and back.

    decode:  bytes -> message -> argument (object_readers.py), for types that a message checks completely
             bytes -> message -> plain value (plain_readers.py) -> msgspec or pydantic -> argument, for others
    encode:  result -> fields (object_writers.py) -> message -> bytes
             result -> msgspec or core/encoding.py -> plain value -> fields (plain_writers.py) -> message -> bytes

msgspec and pydantic check plain values as they check JSON: constraints, tags, `__post_init__` and all. Protobuf adds
the types of its fields. Whatever the direct way refuses goes by plain values, which find a fault and its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple, get_args

import msgspec
from google.protobuf.message import DecodeError

from ..binding.aliases import without_aliases
from ..binding.annotations import hints_of, holds_model, signature_of, without_annotated
from ..binding.replies import UnreadableReply
from ..binding.results import is_stream
from ..core.encoding import to_plain
from ..core.errors import UnencodableResult
from ..core.responses import Response
from .class_fields import REQUIRED
from .function_source import Unfit
from .message_errors import BadMessage
from .message_type import MessageType
from .object_readers import ObjectReader
from .object_writers import ObjectWriter
from .plain_arguments import Converter, ModelReader, Parameter, PlainArguments
from .plain_readers import Unreadable
from .plain_writers import Unwritable
from .shapes import KEEP, Leaf, MessageShape

_PLAIN = (str, int, float, bool, bytes)
"""The usual types whose values are plain values already."""


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

    It pickles. A copy builds its message classes when it is first used; the forkserver imports protobuf for it, but not
    grpcio.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.parameters = tuple(str(each.key) for each in parts.request.slots)
        """The parameters that a message fills."""
        self._is_empty = isinstance(parts.reply, Leaf)

    def __reduce__(self) -> tuple[Any, ...]:
        return _copy, (self.parts._replace(resources=()),)

    # Requests

    def decode_arguments(self, data: bytes | memoryview) -> dict[str, Any]:
        """The arguments by name, with the defaults of those that are absent.

        Raises:
            BadMessage: The bytes are no message of this method, or a value does not fit its parameter.
            HTTPError: 401, a key is missing.
        """
        if not data and not self.parameters:
            return {}
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
        if value is None and self._is_empty:
            return b""
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


def _copy(parts: Parts) -> Codec:
    """A codec in the forkserver, whose workers share the library: no worker needs time and memory of its own for it."""
    import_module("google.protobuf.message_factory")
    return Codec(parts)


class Arguments:
    """The request of a method.

    Parameters whose types a message checks completely are read by one function, the others as plain values.
    """

    def __init__(self, parts: Parts) -> None:
        self._function = parts.function
        self._type, self._files = MessageType(parts.request, parts.files, parts.package), parts.files
        parameters = parameters_of(parts)
        self._parameters = [
            Parameter(slot, *parameters[str(slot.key)]) for slot in parts.request.slots if slot.key in parameters
        ]
        self._read, rest = reader_of(self._parameters)
        self._read_rest = PlainArguments(rest).read if rest else None

    def decode(self, data: bytes | memoryview) -> dict[str, Any]:
        try:
            message = self._type.parse(data)
            arguments = self._read(message)
        except Exception:
            arguments = None
        if arguments is None:
            return self._decode_as_plain(data)
        return arguments if self._read_rest is None else arguments | self._read_rest(message)

    @cached_property
    def _all(self) -> PlainArguments:
        return PlainArguments(self._parameters)

    def _decode_as_plain(self, data: bytes | memoryview) -> dict[str, Any]:
        """The same as `decode`, slowly, with every fault and its place."""
        try:
            message = self._type.parse(data)
        except DecodeError as error:
            raise BadMessage([("$", f"the request is no message of this method: {error}")]) from None
        return self._all.read(message)

    def encode(self, arguments: Mapping[str, Any]) -> bytes:
        if self._writers is not None and self._required <= arguments.keys():
            try:
                fields = dict[str, Any]()
                for name, value in arguments.items():
                    fields |= self._writers[name](value)
                return self._type.bytes_with(fields)
            except Exception:
                pass  # plain values convert what does not fit, or find its place
        try:
            return self._type.bytes_of({name: plain_value(each) for name, each in arguments.items()})
        except Unwritable as error:
            place = error.place or "an argument"
            raise UnencodableResult(
                f"{place} of {self._function.__qualname__} cannot be sent over gRPC: {error.detail}"
            ) from None

    @cached_property
    def _required(self) -> set[str]:
        return {each.name for each in self._parameters if not each.has_default}

    @cached_property
    def _writers(self) -> dict[str, Callable[[Any], dict[str, Any]]] | None:
        """The functions that make the field of each parameter; None if one needs plain values."""
        try:
            return {
                each.name: ObjectWriter(self._files).only_field(each.slot, each.annotation) for each in self._parameters
            }
        except Unfit:
            return None


def reader_of(parameters: list[Parameter]) -> tuple[Callable[[Any], dict[str, Any]], list[Parameter]]:
    """A function that reads arguments from a message, and the parameters that it leaves out."""
    reader, rest = ObjectReader(), list[Parameter]()
    for each in parameters:
        try:
            if each.key is not None:
                raise Unfit
            reader.add(each.slot, each.annotation, each.default if each.has_default else REQUIRED)
        except Unfit:
            rest.append(each)
    try:
        return reader.arguments(), rest
    except Unfit:
        return lambda message: {}, parameters


class Results:
    """The replies of a method."""

    def __init__(self, parts: Parts) -> None:
        self._function = parts.function
        self._is_bare = parts.is_bare
        self._shape: Any = parts.reply
        self._files = parts.files
        self._type = None if isinstance(parts.reply, Leaf) else MessageType(parts.reply, parts.files, parts.package)
        self._annotation = result_annotation(parts.function, batched=parts.batched)

    def encode(self, value: Any) -> bytes:
        if self._type is None:
            if value is not None:
                raise UnencodableResult(
                    f"the handler's result is {value!r:.100}, and its annotation says None; annotate it with its type"
                )
            return b""
        if self._write is not None:
            try:
                return self._type.bytes_with(self._write(value))
            except Exception:
                pass  # plain values convert what does not fit, or find its place
        if isinstance(value, Response):
            raise UnencodableResult(
                "the handler returned a Response, which only HTTP has; annotate it with -> Response, and gRPC leaves "
                "it out, or return a value"
            )
        plain = plain_value(value)
        try:
            return self._type.bytes_of({"value": plain} if self._is_bare else plain)
        except Unwritable as error:
            place = error.place if not self._is_bare else error.place.removeprefix("value").lstrip(".")
            where = f"the handler's result, at {place}," if place else "the handler's result"
            raise UnencodableResult(f"{where} cannot be sent over gRPC: {error.detail}") from None

    def decode(self, data: bytes) -> Any:
        if self._type is None:
            return None
        if self._read is not None:
            try:
                return self._read(self._type.parse(data))
            except Exception:
                pass  # plain values convert what does not fit, or find its place
        return self._decode_as_plain(data)

    @cached_property
    def _read(self) -> Callable[[Any], Any] | None:
        """Reads the result; None if it needs plain values."""
        return self._built_by(ObjectReader())

    @cached_property
    def _write(self) -> Callable[[Any], dict[str, Any]] | None:
        """Makes the fields of the result's message; None if it needs plain values."""
        return self._built_by(ObjectWriter(self._files))

    def _built_by(self, builder: ObjectReader | ObjectWriter) -> Callable[[Any], Any] | None:
        try:
            if self._is_bare:
                return builder.only_field(self._shape.slots[0], self._annotation)
            return builder.message(self._shape, self._annotation)
        except Unfit:
            return None

    @cached_property
    def _convert(self) -> Callable[[Any], Any]:
        """Makes the result of its plain value."""
        annotation = self._annotation
        if holds_model(annotation):
            model = ModelReader(annotation)
            return lambda plain: model(plain, "result")
        convert = Converter({"result": annotation}, {})
        return lambda plain: convert({"result": plain})["result"]

    def _decode_as_plain(self, data: bytes) -> Any:
        """The same as `decode`, slowly, with every fault and its place."""
        assert self._type is not None
        try:
            plain = self._type.read_plain(self._type.parse(data))
            return self._convert(plain["value"] if self._is_bare else plain)
        except DecodeError as error:
            raise UnreadableReply(f"the reply is no message of this method: {error}") from None
        except Unreadable as error:
            raise UnreadableReply(f"{error.place}: {error.detail}") from None
        except BadMessage as error:
            raise UnreadableReply(error.detail) from None


def plain_value(value: Any) -> Any:
    """The plain value of any value. UnencodableResult names a type that has none."""
    if value is None or type(value) in _PLAIN:
        return value
    try:
        return msgspec.to_builtins(value, builtin_types=KEEP)
    except (TypeError, ValueError, RecursionError):  # a type of another library, or a value that contains itself
        return to_plain(value, keep=KEEP)


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


def result_annotation(function: Callable[..., Any], *, batched: bool) -> Any:
    """The type of the result, or of an item of the stream."""
    annotation = without_aliases(without_annotated(hints_of(function).get("return", Any)))
    if batched:
        annotation = next(iter(get_args(annotation)), Any)
    if is_stream(annotation):
        annotation = next(iter(get_args(annotation)), Any)
    return annotation
