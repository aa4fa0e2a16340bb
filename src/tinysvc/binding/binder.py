"""Binding: a handler's signature -> how its arguments are made from a request.

All of it is decided at start-up: `Binder(function, ...)` reads the signature once and says what cannot be served. On
the request path there is one small function a parameter. The rules, in this order:

    annotated `Request`, or called `request`     the request
    annotated with a class with `of_request`     what that makes of the request, as a WebSocket
    named in the path                            that segment, converted to its annotation
    named like a resource, without a marker      the resource
    Annotated[T, Query() | Header() | Cookie()]  that place; Bearer() and ApiKey() too, and 401 where nothing is there
    `UploadFile`, or a list of them              the files of a form
    Annotated[T, Form()]                         a field of a form; all of it, where T is a dataclass or the like
    annotated `bytes` or `memoryview`            the raw body; as a memoryview it is never copied
    a dataclass, Struct, TypedDict, attrs or     the body, as JSON (or MessagePack, if it says so)
    pydantic class, dict, list, tuple, set
    anything else that can be read from a text   the query; for GET and HEAD also a list of such

Conversion and its errors are msgspec's.

In a batch each parameter is a list, annotated `list[T]`, with one value for each request, bound as T by these rules;
only a resource stays the one that it is.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import Any, Literal, NamedTuple, cast, get_args, get_origin

import msgspec

from ..core.errors import BindingError, ConfigurationError, HTTPError
from ..core.forms import JsonText, UploadFile, missing_library
from ..core.requests import Request
from ..core.responses import EVENTS, JSON, MESSAGEPACK, NDJSON
from ..core.sse import Event
from .aliases import decode_hook, is_again, readable_fields, without_aliases
from .annotations import (
    Unresolved,
    comes_as_json,
    hints_of,
    holds_model,
    is_list_of_scalars,
    options,
    signature_of,
    unresolved_at,
    without_annotated,
)
from .form_values import FormFields, decoded, listed, normal_text, normal_texts, plain_text, takes_text, texts_of
from .markers import MARKERS, ApiKey, Bearer, Form, Marker, Path, Query, form_of, marker_in, place_of, unauthorized
from .mismatches import MAX_MISMATCHES, mismatches, numbers_out_of_range
from .results import ITEM_TYPES

Body = bytes | memoryview
Get = Callable[[Request, Body], Any]
"""How one argument is made. Raises _Fault."""


class Input(NamedTuple):
    """What one parameter takes from a request."""

    parameter: str
    place: str
    """path, query, header, cookie or form (a field of one); json, bytes or whole form for the body as one."""
    field: str
    """What it is called there; "" for a body."""
    annotation: Any
    default: Any
    """inspect.Parameter.empty: it must be there."""
    marker: Marker | None = None


class _Fault(Exception):
    """One parameter that could not be filled: each place of it with a detail."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        self.faults = faults


_HEAD = frozenset({"path", "query", "header", "cookie"})
"""Places that are known before the body."""


class Binder:
    """Fills the parameters of one handler.

    `resources` are the names that resources are known by; their values are given to `bind`. ConfigurationError for a
    signature that cannot be served. `body_kind` says what `bind` takes the body for, if it takes it at all;
    `stream_type` is the content type of what the function yields, where its annotation says so. With `batched`, `bind`
    makes one request's share of the lists. Without `has_body`, as for GET, a list of texts or
    numbers is from the query.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        path_parameters: Collection[str] = (),
        resources: Collection[str] = (),
        *,
        batched: bool = False,
        has_body: bool = True,
    ) -> None:
        self.function = function
        self.body_kind: Literal["", "bytes", "json", "form"] = ""
        self.resources: list[str] = []
        self.takes_request = False
        self._has_body = has_body
        self.inputs: list[Input] = []
        self._gets: list[tuple[str, Get]] = []
        self._of_head: list[tuple[Input, Get]] = []
        self._body_parameter = ""
        self.stream_type = stream_type_of(hints_of(function).get("return"))
        parameters = self.parameters = signature_of(function)
        for name in path_parameters:
            if name not in parameters:
                raise ConfigurationError.at(
                    function, f"the path has {{{name}}}, but the function no parameter {name}; add it or rename one"
                )
        for name, parameter in parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise ConfigurationError.at(
                    function, f"cannot fill the parameter {parameter}; give every parameter a name of its own"
                )
            if name in resources and name not in path_parameters and marker_in(parameter.annotation) is None:
                self.resources.append(name)
            else:
                filled = self._share(parameter) if batched else parameter
                get = self._get(name, filled, name in path_parameters)
                self._gets.append((name, get))
                if self.inputs and self.inputs[-1].parameter == name and self.inputs[-1].place in _HEAD:
                    self._of_head.append((self.inputs[-1], get))
        if batched and not self._gets:
            raise ConfigurationError.at(
                function,
                "has batch=, but no parameter is a list, so that nothing tells how many requests there are; "
                "take one, as in requests: list[Request]",
            )

    def _share(self, parameter: inspect.Parameter) -> inspect.Parameter:
        """One request's share of a list."""
        if isinstance(parameter.annotation, Unresolved):
            raise unresolved_at(self.function, parameter.name, parameter.annotation)
        items = get_args(parameter.annotation)
        if get_origin(parameter.annotation) is not list or parameter.default is not parameter.empty:
            name = parameter.name
            raise ConfigurationError.at(
                self.function,
                f"with batch= a parameter is a list with a value for each request, and has no default; annotate it as "
                f"{name}: list[...] and take what is optional inside, or declare a resource {name}",
            )
        return parameter.replace(annotation=items[0])

    @property
    def headers(self) -> list[str]:
        """Of which headers parameters are made."""
        places = [(each.place, each.field) for each in self.inputs if each.place in ("header", "cookie")]
        return [field if place == "header" else "cookie" for place, field in places]

    def bind(self, request: Request, body: Body, resources: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name. BindingError with every fault; HTTPError 400 or 415 for a body that is not JSON."""
        arguments: dict[str, Any] = {}
        faults: list[tuple[str, str]] = []
        for name, get in self._gets:
            try:
                arguments[name] = get(request, body)
            except _Fault as fault:
                faults += fault.faults
        if faults:
            raise BindingError(faults)
        for name in self.resources:
            arguments[name] = resources[name]
        return arguments

    def _get(self, name: str, parameter: inspect.Parameter, in_path: bool) -> Get:
        """The rules of this module's docstring."""
        annotation = parameter.annotation
        if is_request(parameter) and not in_path:
            self.takes_request = True
            return lambda request, body: request
        if isinstance(annotation, Unresolved):
            raise unresolved_at(self.function, name, annotation)
        if of_request := getattr(without_annotated(annotation), "of_request", None):
            return lambda request, body: of_request(request)
        if annotation is parameter.empty and in_path:
            annotation = str
        if annotation is parameter.empty:
            raise ConfigurationError.at(
                self.function,
                f"nothing fills the parameter {name}: it is not in the path, no resource has this name, and it has no "
                f"annotation that says more; annotate it, as in {name}: str, or declare a resource {name}",
            )
        default = parameter.default
        if isinstance(default, MARKERS) or default in MARKERS:
            marker_name = getattr(default, "__name__", type(default).__name__)
            remedy = f"{name}: Annotated[str, {marker_name}()]"
            raise ConfigurationError.at(self.function, f"{name} has {default!r} as its default; write it as {remedy}")
        if in_path:
            return self._from_text(name, annotation, parameter.empty, Path())
        marker = marker_in(annotation)
        if isinstance(marker, Form) and comes_as_json(annotation) and not is_list_of_scalars(annotation):
            self._claim_body(name, "form")
            return self._from_form(name, annotation, default)
        if UploadFile in (taken := options(annotation)) or list[UploadFile] in taken:
            field = marker.name if isinstance(marker, Form) and marker.name else name
            self._claim_body(name, "form")
            self.inputs.append(Input(name, "form", field, annotation, default))
            return _from_files(field, annotation, default)
        if marker is not None:
            if isinstance(marker, Form):
                self._claim_body(name, "form")
            return self._from_text(name, annotation, default, marker)
        for kind in _RAW:
            if kind in options(annotation):
                self._claim_body(name, "bytes")
                self.inputs.append(Input(name, "bytes", "", annotation, default))
                return _from_raw(kind, default)
        if comes_as_json(annotation) and (self._has_body or not is_list_of_scalars(annotation)):
            self._claim_body(name, "json")
            return self._from_json(name, annotation, default)
        return self._from_text(name, annotation, default, Query())

    def _claim_body(self, name: str, kind: Literal["bytes", "json", "form"]) -> None:
        if self._body_parameter and not kind == self.body_kind == "form":
            raise ConfigurationError.at(
                self.function,
                f"both {self._body_parameter} and {name} ask for the body; "
                "put them into one dataclass, or take Annotated[..., Query()] for one",
            )
        if kind == "form" and (missing := missing_library()):
            raise ConfigurationError.at(self.function, missing)
        self._body_parameter, self.body_kind = name, kind

    def _from_text(self, name: str, annotation: Any, default: Any, marker: Marker) -> Get:
        where, field, values_of = place_of(marker, name)
        place = f"{where}.{field}"
        if where == "form" and options(annotation) == (bool,) and default is inspect.Parameter.empty:
            default = False  # a checkbox that is not ticked
        self.inputs.append(Input(name, where, field, annotation, default, marker))
        self._check_decodable(place, annotation)
        takes_many = comes_as_json(annotation)
        if takes_many and (where == "path" or not is_list_of_scalars(annotation)):
            raise ConfigurationError.at(
                self.function,
                f"{place} is a text, or several outside the path, and {annotation!r} cannot be made of that; "
                "take a standard type, a list of one, or the JSON body",
            )
        in_form = where == "form"
        is_text = annotation is str and not in_form
        may_be_text = takes_text(annotation)
        convert = msgspec.convert
        if where == "form":
            values_of = lambda request, name: texts_of(form_of(request), name)  # noqa: E731

        def read_form_texts(values: list[str]) -> list[str]:
            if takes_many:
                return listed(values)
            return [plain_text(values[-1])] if may_be_text else values

        def normal(values: list[str], error: msgspec.ValidationError) -> Any:
            """The value, as a browser may write it: see formvalues.py."""
            found: Any = normal_texts(values, annotation) if takes_many else normal_text(values[-1], annotation)
            if found is None and type(None) not in options(annotation):
                if default is inspect.Parameter.empty:
                    raise error
                return default
            return convert(found, annotation, strict=False)

        def wrong(values: list[str], error: msgspec.DecodeError) -> list[tuple[str, str]]:
            value: Any = values if takes_many else values[-1]
            if not isinstance(error, msgspec.ValidationError):
                return [(place, str(error))]
            if takes_many and where in ("form", "query"):
                with suppress(msgspec.DecodeError):
                    value = normal_texts(values, annotation)
            found = mismatches(value, annotation, error, root=place, strict=False, is_query=where == "query")
            return [(place, _with_text(detail, values, takes_many)) for place, detail in found]

        def make(request: Request, body: Body) -> Any:
            values = values_of(request, field)
            if not values:
                if default is not inspect.Parameter.empty:
                    return default
                if isinstance(marker, (Bearer, ApiKey)):
                    raise unauthorized(marker, where, field)
                raise _Fault((place, "is missing"))
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
                raise _Fault(*wrong(values, error)) from None

        return make

    def _from_form(self, name: str, annotation: Any, default: Any) -> Get:
        """The whole form as one value."""
        kind = next(option for option in options(annotation) if option is not type(None))
        origin = get_origin(kind) or kind
        if not isinstance(origin, type) or not getattr(origin, "__annotations__", None):
            raise ConfigurationError.at(
                self.function,
                f"form.{name} is a whole form, and {kind!r} has no fields; take a dataclass, Struct, TypedDict, attrs "
                "class, or a parameter for each field",
            )
        self._check_decodable(f"form.{name}", kind)
        self.inputs.append(Input(name, "whole form", "", kind, default))
        fields = FormFields(kind)

        def convert(values: Any, *, strict: bool = False) -> Any:
            return msgspec.convert(values, kind, strict=strict, dec_hook=_as_upload)

        def make(request: Request, body: Body) -> Any:
            form = form_of(request)
            if default is not inspect.Parameter.empty and not form.fields and not form.files:
                return default
            values: Any = None
            no_json: dict[str, str] = {}
            is_text = True
            try:
                if name not in fields.names and (whole := texts_of(form, name)) and isinstance(whole[-1], JsonText):
                    values, is_text = decoded(whole[-1]), False  # in a part of its own
                    return convert(values, strict=True)
                values, no_json = fields.values(form)
                try:
                    found = convert(values)
                except msgspec.ValidationError:
                    values = fields.normal(values)
                    found = convert(values)
                if not no_json:
                    return found
                found = []
            except msgspec.DecodeError as error:
                if values is None or not isinstance(error, msgspec.ValidationError):
                    raise _Fault(("form", str(error))) from None
                found = mismatches(values, kind, error, root="form", strict=not is_text, dec_hook=_as_upload)
            missing = [("form", f"Object missing required field `{field}`") for field in no_json]
            faults = [(f"form.{field}", detail) for field, detail in no_json.items()]
            raise _Fault(*faults, *[each for each in found if each not in missing])

        return make

    def _from_json(self, name: str, annotation: Any, default: Any) -> Get:
        self.inputs.append(Input(name, "json", "", annotation, default))
        decode: Callable[[Body], Any]
        unpack: Callable[[Body], Any] | None = None
        if holds_model(annotation):
            decode = _by_msgspec_and(self._by_pydantic(name, annotation))
        else:
            self._check_decodable(name, annotation)
            with readable_fields(annotation):
                decode = msgspec.json.Decoder(annotation, dec_hook=decode_hook).decode
                unpack = msgspec.msgpack.Decoder(annotation, dec_hook=decode_hook).decode

        def decoder_of(content_type: str) -> Callable[[Body], Any]:
            kind = content_type.partition(";")[0].strip().lower()
            if kind == JSON or kind.endswith("+json"):
                return decode
            if kind != MESSAGEPACK or unpack is None:
                text = f"The body must be JSON with 'Content-Type: application/json', not {kind!r}."
                raise HTTPError(415, text, headers=[("accept", JSON)])
            return unpack

        def make(request: Request, body: Body) -> Any:
            if not body and default is not inspect.Parameter.empty:
                return default
            content_type = request.headers.get("content-type", JSON)
            read = decode if content_type == JSON else decoder_of(content_type)
            if not body:
                raise _Fault(("$", "is missing: the request has no body; a JSON document was expected"))
            if body[0] == BYTE_ORDER_MARK[0] and body[:3] == BYTE_ORDER_MARK and read is decode:
                body = body[3:]  # a parser may ignore it (RFC 8259, 8.1)
            try:
                return read(body)
            except (msgspec.DecodeError, RecursionError, ValueError) as error:
                raise _refusal(body, annotation, error, is_json=read is decode) from None

        return make

    def _check_decodable(self, place: str, annotation: Any) -> None:
        seen: set[Any] = set()

        def schema_of(kind: Any) -> dict[str, Any]:
            if is_again(kind) and kind not in seen:
                seen.add(kind)
                msgspec.json.schema(kind.value(), schema_hook=schema_of)
            return {"type": "object"} if is_again(kind) else _schema_of_upload(kind)

        try:
            with readable_fields(annotation):
                msgspec.json.schema(annotation, schema_hook=schema_of)
        except Exception as error:
            if not str(error).startswith("Encoding objects of type"):  # a default, such as object(): nobody reads it
                raise self._not_decodable(place, annotation, error) from None

    def _by_pydantic(self, place: str, annotation: Any) -> Any:
        try:
            return _validator_of(annotation)
        except Exception as error:
            raise self._not_decodable(place, annotation, error) from None

    def _not_decodable(self, place: str, annotation: Any, error: Exception) -> ConfigurationError:
        reason = str(error).partition("\n")[0].partition(" - type `")[0]
        if "must be tagged" in reason or "more than one" in reason:
            return ConfigurationError.at(
                self.function,
                f"cannot read a value of type {annotation!r} for {place}: {reason}; make the classes of the union "
                "msgspec Structs with a tag, which says in each document of which class it is: "
                "class Cat(msgspec.Struct, tag=True)",
            )
        if "ForwardRef(" in repr(annotation):
            return ConfigurationError.at(
                self.function,
                f"cannot read a value of type {annotation!r} for {place}: a text in it names a type that is not known "
                "there; for a type inside of itself write type Json = str | list[Json], or before Python 3.12 "
                'Json = TypeAliasType("Json", "str | list[Json]") of typing_extensions; for another, the type itself',
            )
        return ConfigurationError.at(
            self.function,
            f"cannot read a value of type {annotation!r} for {place}; "
            "use a dataclass, Struct, TypedDict or attrs class, a standard type, or Any; "
            "a pydantic class is read from a JSON body, and stands in no other class than pydantic's",
        )


class HeadCheck:
    """Checks the parameters of several functions that need no body, before any of the functions is called."""

    def __init__(self, binders: Iterable[Binder]) -> None:
        taken = [each for binder in binders for each in binder._of_head]
        taken.sort(key=lambda each: not isinstance(each[0].marker, (Bearer, ApiKey)))
        self._gets = [get for _, get in taken]

    def __call__(self, request: Request) -> None:
        """BindingError with every fault. HTTPError 401 comes first: a stranger is told nothing of the rest."""
        faults: list[tuple[str, str]] = []
        for get in self._gets:
            try:
                get(request, b"")
            except _Fault as fault:
                faults += fault.faults
        if faults:
            raise BindingError(list(dict.fromkeys(faults)))  # two functions may read one value


def is_request(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is the request itself: by its annotation or, without one, by its name."""
    annotation = without_annotated(parameter.annotation)
    if isinstance(annotation, Unresolved) and annotation.text.rpartition(".")[2] == "Request":
        annotation = parameter.empty
    return annotation is Request or (annotation is parameter.empty and parameter.name == "request")


def fills_resource(parameter: inspect.Parameter) -> bool:
    """Whether a parameter of a resource is made of the request without a marker."""
    return is_request(parameter) or getattr(parameter.annotation, "for_resources", False)


def is_packed(request: Request) -> bool:
    """Whether the body came with a Content-Encoding."""
    return "content-encoding" in request.headers


def _from_files(field: str, annotation: Any, default: Any) -> Get:
    takes_many = list[UploadFile] in options(annotation)

    def make(request: Request, body: Body) -> Any:
        form = form_of(request)
        uploads = form.files.get(field)
        if takes_many and (uploads or default is inspect.Parameter.empty):
            return uploads or []
        if uploads:
            return uploads[-1]
        if field in form.fields:
            raise _Fault((f"form.{field}", "is a text, but a file was expected: send it with a filename"))
        if default is inspect.Parameter.empty:
            raise _Fault((f"form.{field}", "is missing: a file was expected"))
        return default

    return make


def _as_upload(kind: type, value: Any) -> Any:
    if is_again(kind):
        return decode_hook(kind, value)
    if kind is UploadFile and isinstance(value, UploadFile):
        return value
    raise ValueError("Expected a file" if kind is UploadFile else f"Expected `{kind.__name__}`")  # msgspec adds where


def _schema_of_upload(kind: type) -> dict[str, Any]:
    if kind is UploadFile:
        return {"type": "string", "format": "binary"}
    raise NotImplementedError


_RAW: tuple[type[Body], ...] = (bytes, memoryview)


def _from_raw(kind: type[Body], default: Any) -> Get:
    """The body as it came; as `bytes`, one that came in an arena is copied."""
    return lambda request, body: kind(body) if body or default is inspect.Parameter.empty else default


BYTE_ORDER_MARK = b"\xef\xbb\xbf"


_HUGE = re.compile(rb"e\+?[0-9]{3}|E\+?[0-9]{3}|[0-9]{309}")
"""What may be a number beyond the floats."""


def _by_msgspec_and(validate: Callable[[bytes], Any]) -> Callable[[Body], Any]:
    """msgspec skips through the document first, so that what is no JSON (NaN, say) is refused alike for all types."""
    skip = msgspec.json.Decoder(msgspec.Raw).decode

    def decode(body: Body) -> Any:
        skip(body)
        whole = bytes(body)
        if _HUGE.search(whole):
            msgspec.json.decode(whole)  # which refuses a number that no float can be
        try:
            return validate(whole)
        except ValueError:
            msgspec.json.decode(whole)  # which looks into the texts, too
            raise

    return decode


def _validator_of(annotation: Any) -> Callable[[bytes], Any]:
    """What reads a model of pydantic, or what is made of some."""
    if validate := getattr(annotation, "model_validate_json", None):
        return cast("Callable[[bytes], Any]", validate)
    from pydantic import TypeAdapter

    return TypeAdapter(annotation).validate_json


def json_value(message: bytes | str, annotation: Any) -> Any:
    """A message as this type, read as a body is. ValueError with each place that does not fit."""
    annotation = without_aliases(annotation)
    body = (message.encode() if isinstance(message, str) else message).removeprefix(BYTE_ORDER_MARK)
    try:
        if holds_model(annotation):
            return _by_msgspec_and(_validator_of(annotation))(body)
        with readable_fields(annotation):
            return msgspec.json.decode(body, type=annotation, dec_hook=decode_hook)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        refusal = _refusal(body, annotation, error, is_json=True)
    if isinstance(refusal, _Fault):
        raise ValueError("; ".join(f"{place}: {detail}" for place, detail in refusal.faults))
    raise ValueError(str(refusal.detail).replace("The body", "the message"))


def _refusal(body: Body, annotation: Any, error: Exception, *, is_json: bool) -> _Fault | HTTPError:
    """What the client is told of a body that cannot be read."""
    if isinstance(error, msgspec.ValidationError):
        return _mismatches_in(body, annotation, error, is_json=is_json)
    if isinstance(error, (msgspec.DecodeError, RecursionError, UnicodeDecodeError)):
        return _not_read(body, error, is_json=is_json)
    return _pydantic_errors(error)


def _mismatches_in(body: Body, annotation: Any, error: msgspec.ValidationError, *, is_json: bool) -> _Fault | HTTPError:
    """All that does not fit. 400 if the body is malformed behind the first place that does not fit."""
    decode = msgspec.json.decode if is_json else msgspec.msgpack.decode
    known: list[tuple[str, str]] = []
    try:
        try:
            value = decode(body)
        except msgspec.ValidationError:
            if not is_json:
                return _Fault(*mismatches(None, Any, error))
            value, known = numbers_out_of_range(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as malformed:
        return _not_read(body, malformed, is_json=is_json)
    return _Fault(*mismatches(value, annotation, error, dec_hook=decode_hook, known=known))


def _not_read(body: Body, error: Exception, *, is_json: bool) -> HTTPError:
    start = bytes(body[:2])
    if is_json and (start in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start):
        return HTTPError(400, "The body is not JSON: it is UTF-16 or UTF-32; send it as UTF-8 (RFC 8259, 8.1).")
    return HTTPError(400, f"The body is not {'JSON' if is_json else 'MessagePack'}: {error}.")


def _with_text(detail: str, values: list[str], takes_many: bool) -> str:
    return detail if takes_many else detail.replace("got `str`", f"got {values[-1][:100]!r}")


def _pydantic_errors(error: Exception) -> _Fault:
    errors = getattr(error, "errors", None)
    if errors is None:
        return _Fault(("$", str(error)))
    return _Fault(*[("$" + "".join(_step(step) for step in e["loc"]), e["msg"]) for e in errors()[:MAX_MISMATCHES]])


def _step(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"


# Streams

_STREAMS = (Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator)


def is_stream(annotation: Any) -> bool:
    annotation = without_annotated(annotation)
    return (get_origin(annotation) or annotation) in _STREAMS


def stream_type_of(annotation: Any) -> str:
    """The content type of what a function yields that returns `Iterator[T]`; "" where the first item decides."""
    annotation = without_annotated(annotation)
    if get_origin(annotation) not in _STREAMS or not get_args(annotation):
        return ""
    items = options(get_args(annotation)[0])
    if Event in items:
        return EVENTS
    return ITEM_TYPES.get(items[0], NDJSON) if len(items) == 1 and not isinstance(items[0], typing.TypeVar) else ""


# Resources


def open_resource(stack: ExitStack | AsyncExitStack, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What a plain function returns, or what a generator yields; its rest is run when the stack closes.

    It is told of no error: what is behind the `yield` runs, whatever has failed elsewhere.
    """
    if not inspect.isgeneratorfunction(function):
        return function(**arguments)
    context = contextmanager(function)(**arguments)
    value = context.__enter__()
    stack.callback(context.__exit__, None, None, None)
    return value


def resource_key(
    function: Callable[..., Any], keys: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What makes an open resource the same as another, its function and what that was given; and its arguments.

    `keys` and `values` are those of the resources before it, by their names.
    """
    needs = inspect.signature(function).parameters
    return (function, *[keys[name] for name in needs]), {name: values[name] for name in needs}
