"""The gRPC service of some routes: its methods, its descriptors, and its .proto file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from ..binding.annotations import hints_of, options, without_annotated
from ..binding.inputs import Input
from ..binding.message_binder import IN_MESSAGE
from ..binding.results import is_stream
from ..core.errors import ConfigurationError
from ..core.form_data import UploadFile
from ..core.responses import Response
from ..service.plan import Plan
from ..service.resources import binders_of
from .class_fields import REQUIRED, fields_of
from .codec import Codec, Parts, result_annotation
from .descriptors import file_descriptor
from .message_classes import file_set
from .message_errors import NoMapping
from .proto_file import ProtoFile, ProtoMethod, proto_file_of
from .proto_lock import additions, assign_numbers
from .proto_names import Names, camel, is_identifier, package_of
from .proto_parser import parse_proto
from .proto_types import Types, separate
from .shapes import EMPTY, Leaf, MessageShape, named_kinds


@dataclass(frozen=True, eq=False)
class Method:
    """One route as a method of gRPC."""

    service: str
    """With its package, as in "inference.Inference"."""
    name: str
    plan: Plan
    codec: Codec
    client_streams: bool
    server_streams: bool

    @property
    def path(self) -> str:
        """The full name, as it stands in requests: "/inference.Inference/Predict"."""
        return f"/{self.service}/{self.name}"


@dataclass(frozen=True, eq=False)
class RpcSchema:
    """The gRPC services of some routes."""

    methods: list[Method]
    file_descriptor_set: bytes
    """Without the files that protobuf brings along."""
    proto_files: list[ProtoFile]
    left_out: list[tuple[Plan, str]]
    """The routes that only HTTP can serve, each with the reason."""
    notes: list[str] = field(default_factory=list)
    """What the author should know, such as a .proto file that lacks new fields."""
    has_file: bool = True
    """Whether there is a committed .proto file."""

    @classmethod
    def of(cls, service_name: str, plans: Iterable[Plan], lock: str | None = None, *, strict: bool = True) -> RpcSchema:
        """The schema of these routes.

        Args:
            service_name: Name of the service, which becomes package and service of gRPC.
            plans: The routes.
            lock: Text of the committed .proto file, which says the numbers of the fields. None: there is no such file.
            strict: Whether a type that has changed against the lock is an error.

        Raises:
            ConfigurationError: A type has no counterpart in protobuf, two methods have one name, or the types have
                changed against the lock.
        """
        return _Builder(service_name).build(plans, lock, strict)


@dataclass
class _Draft:
    """A method before its messages have names and numbers."""

    plan: Plan
    name: str
    request: MessageShape
    reply: MessageShape | Leaf
    is_bare: bool
    server_streams: bool
    stream_parameter: str = ""

    @property
    def client_streams(self) -> bool:
        return bool(self.stream_parameter)

    @property
    def rpc(self) -> ProtoMethod:
        about = (self.plan.route.function.__doc__ or "").strip().partition("\n")[0]
        return ProtoMethod(
            self.name, self.request.name, self.reply.name, self.client_streams, self.server_streams, about
        )


class _Builder:
    def __init__(self, service_name: str) -> None:
        self.package = package_of(service_name)
        self.service = camel(service_name)
        self.names = Names(self.service)
        self.types = Types(self.names)
        self.drafts: dict[str, _Draft] = {}
        self.left_out: list[tuple[Plan, str]] = []

    def build(self, plans: Iterable[Plan], lock: str | None, strict: bool) -> RpcSchema:
        for plan in plans:
            if reason := only_http(plan):
                self.left_out.append((plan, reason))
            else:
                self._add(plan)
        drafts = list(self.drafts.values())
        for draft in drafts:
            self._name(draft)
        name = f"{self.package}.proto"
        locked = None if lock is None else parse_proto(lock, name)
        kinds = named_kinds(*[kind for each in drafts for kind in (each.request, each.reply)])
        assign_numbers(kinds, locked, name, strict=strict)
        file = proto_file_of(self.package, self.service, kinds, [each.rpc for each in drafts])
        files = file_set([file_descriptor(file)])
        service = f"{self.package}.{self.service}"
        methods = [
            Method(
                service, each.name, each.plan, Codec(self._parts(each, files)), each.client_streams, each.server_streams
            )
            for each in drafts
        ]
        return RpcSchema(methods, files, [file], self.left_out, _notes(file, locked, name), locked is not None)

    def _parts(self, draft: _Draft, files: bytes) -> Parts:
        route = draft.plan.route
        return Parts(
            route.function,
            resource_functions(draft.plan),
            route.batch is not None,
            draft.request,
            draft.reply,
            draft.is_bare,
            draft.stream_parameter,
            self.package,
            files,
        )

    def _add(self, plan: Plan) -> None:
        function = plan.route.function
        name = camel(function.__name__)
        if not is_identifier(function.__name__):
            raise ConfigurationError.at(function, "its name is that of a method in gRPC; write it in ASCII letters")
        if (other := self.drafts.get(name)) is not None:
            if other.plan.route.function is function:
                return  # a second path of the same handler
            raise ConfigurationError.at(
                function,
                f"its method in gRPC is {name}, and so is that of {other.plan.route.function.__qualname__}; rename one",
            )
        try:
            reply, is_bare = self._reply(result_annotation(function, batched=plan.route.batch is not None))
        except NoMapping as error:
            raise no_mapping(plan, "its result", error) from None
        streams = is_stream(hints_of(function).get("return", Any)) or is_generator(function)
        streamed = next((each.parameter for each in plan.binder.inputs if each.place == "stream"), "")
        self.drafts[name] = _Draft(plan, name, self._request(plan), reply, is_bare, streams, streamed)

    def _request(self, plan: Plan) -> MessageShape:
        """The message of the parameters; of a stream of requests, that of its item."""
        streamed = [each for each in plan.binder.inputs if each.place == "stream"]
        inputs: dict[str, Input] = {}
        for each in plan.inputs:
            if each.place in IN_MESSAGE:
                inputs.setdefault(each.parameter, each)  # a resource and the handler may take the same
        if streamed and inputs:
            raise ConfigurationError.at(
                plan.route.function,
                f"cannot be served over gRPC: beside the stream {streamed[0].parameter} it takes {min(inputs)}, which "
                "no message of a stream has; take it from a header, or in each item",
            )
        request = MessageShape("")
        for each in streamed or inputs.values():
            default = REQUIRED if each.default is inspect.Parameter.empty else each.default
            annotation = next(iter(get_args(each.annotation)), Any) if streamed else each.annotation
            try:
                request.slots.append(self.types.slot(each.parameter, annotation, REQUIRED if streamed else default))
            except NoMapping as error:
                raise no_mapping(plan, f"its parameter {each.parameter}", error) from None
        separate(request)
        return request

    def _reply(self, annotation: Any) -> tuple[MessageShape | Leaf, bool]:
        if annotation in (None, type(None)):
            return Leaf(EMPTY), False
        slot = self.types.slot("value", annotation)
        kind = slot.kind
        if slot.form == "single" and isinstance(kind, MessageShape) and kind.plain != "value" and not slot.is_null:
            return kind, False
        reply = MessageShape("", [slot])
        separate(reply)
        return reply, True

    def _name(self, draft: _Draft) -> None:
        draft.request.name = self.names.take(f"{draft.name}Request", f"{draft.name}Arguments")
        if draft.is_bare:
            assert isinstance(draft.reply, MessageShape)
            draft.reply.name = self.names.take(f"{draft.name}Reply", f"{draft.name}Result")


def _notes(file: ProtoFile, locked: ProtoFile | None, name: str) -> list[str]:
    if locked is None:
        return [no_file([name])] if file.services else []
    if not (missing := additions(file, locked)):
        return []
    return [f"{name} lacks {_shortened(missing)}; print it again with --proto, and commit it"]


def no_file(names: Sequence[str]) -> str:
    """What the author should know about modules without a committed file."""
    return (
        f"there is no {_shortened(names)}: the fields of gRPC's messages are numbered in their order, so that a change "
        "of the order breaks clients; commit the file that --proto prints"
    )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def only_http(plan: Plan) -> str:
    """Why only HTTP can serve a route; "" if gRPC can, too."""
    if plan.route.durable is not None:
        return "it accepts durable jobs"
    for each in plan.binder.inputs:
        if each.place == "of_request" and not getattr(each.annotation, "for_calls", False):
            return f"its parameter {each.parameter} takes a connection of its own"
    if any(takes_upload(each) for each in plan.inputs):
        return "it takes an upload"
    if plan.binder.takes_request and not any(each.place in (*IN_MESSAGE, "stream") for each in plan.inputs):
        return "it takes the request, and nothing that a message has"
    annotation = without_annotated(hints_of(plan.route.function).get("return", Any))
    if any(isinstance(each, type) and issubclass(each, Response) for each in options(annotation)):
        return "its result is a Response"
    return ""


def resource_functions(plan: Plan) -> tuple[Callable[..., Any], ...]:
    """The functions of the resources of a request that take something from it."""
    binders = binders_of(plan.request_resources, {*plan.server_resources, *plan.request_resources})
    return tuple(each.function for each in binders if any(taken.travels for taken in each.inputs))


def no_mapping(plan: Plan, place: str, error: NoMapping) -> ConfigurationError:
    return ConfigurationError.at(plan.route.function, f"cannot be served over gRPC: {place}: {error}")


def takes_upload(taken: Input) -> bool:
    """Whether a form, or a field of one, has an uploaded file."""
    if taken.place == "form":
        return is_upload(taken.annotation)
    found = fields_of(taken.annotation) if taken.place == "whole form" else None
    return found is not None and any(is_upload(each.annotation) for each in found.fields)


def is_upload(annotation: Any) -> bool:
    return any(each is UploadFile or UploadFile in get_args(each) for each in options(annotation))


def is_generator(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
