"""The worker's side of a cpu route: request -> bind -> handler -> encode -> response, one at a time or in a batch.

A worker imports this file, but neither the server nor the pool: with fewer modules it starts sooner and uses less
memory.

cpu_messages.py has the messages of jobs; cpu_handlers.py, cpu_calls.py and batching.py are at the other end.
endpoint_parts.py has the parts that durable_endpoints.py uses, too.

A request of a batch fails alone: a request that does not bind is not given to the handler; an exception among the
results is the error of one request; and when the handler raises for several requests, it is called again with each one
alone. So a handler with `batch=` must be safe to repeat.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..binding.binder import Binder
from ..binding.compressed_bodies import RAW_KINDS, typed_body
from ..binding.inputs import Body
from ..binding.message_binder import MessageBinder
from ..binding.results import encode_iterator, encode_result
from ..core.budget import Deadline, current
from ..core.errors import ConfigurationError, UnencodableResult
from ..core.form_data import FormData
from ..core.headers import HeaderLines, Headers
from ..core.request_context import request_id, route_name
from ..core.requests import Request
from ..core.responses import MESSAGE, FileContent, Response, check_headers
from ..core.shutdown import set_closing_resource
from ..pool.frames import pickle_pieces, unpickle_pieces
from ..pool.inherited import started_by
from ..pool.program import JobFunction, Reply
from ..pool.remote_errors import error_text, pickled_error
from ..service.resources import open_resource, resource_key
from ..wire.codings import begin_compression, compress, compress_pieces
from .cpu_messages import (
    MESSAGE_TYPES,
    BatchMessage,
    BatchPart,
    BatchReply,
    CallMessage,
    CallReply,
    RequestMessage,
    ResponseHead,
)
from .endpoint_parts import Endpoint, Values, error_response_of, request_of
from .messages import message_encoder

if TYPE_CHECKING:
    from ..models.artifact_version import ArtifactVersion


class CpuProgram:
    """The program of a worker: open the resources; then, for each job, bind, call and encode.

    `preload` opens shared resources in the forkserver, and its forked workers inherit them. Without `preload`, a worker
    opens its own.

    Args:
        endpoints: What the workers serve.
        artifacts: The versions of the artifacts that their resources take, by their references.
    """

    message_types = MESSAGE_TYPES

    def __init__(self, endpoints: list[Endpoint], artifacts: Mapping[str, ArtifactVersion] | None = None) -> None:
        self.endpoints = endpoints
        self.artifacts = artifacts or {}
        self._shared: dict[Any, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return CpuProgram, (self.endpoints, self.artifacts)  # open resources stay in their process

    @property
    def label(self) -> str:
        """The versions of its artifacts, as in "churn@8"; "" without artifacts."""
        return ", ".join(sorted({version.label for version in self.artifacts.values()}))

    @contextmanager
    def preload(self) -> Iterator[None]:
        if any(endpoint.is_traced for endpoint in self.endpoints):
            from . import worker_tracing  # noqa: F401 - so that no worker needs time for it
        with ExitStack() as stack:
            for endpoint in self.endpoints:
                if not self._lacks_candidate(endpoint):
                    _open(stack, endpoint, endpoint.shared, self._shared, self.artifacts)
            yield
        self._shared.clear()

    @contextmanager
    def __call__(self) -> Iterator[JobFunction]:
        with ExitStack() as stack:
            opened = dict(self._shared)
            table: list[tuple[JobFunction, JobFunction]] = []
            for endpoint in self.endpoints:
                if self._lacks_candidate(endpoint):
                    table.append(_compared(table[endpoint.candidate.first], None))  # type: ignore[union-attr]
                    continue
                values = _open(stack, endpoint, endpoint.resources, opened, self.artifacts)
                functions = _responder(endpoint, values), _called(endpoint, values)
                if endpoint.artifacts:
                    functions = _labelled(functions, endpoint, self.artifacts)
                if endpoint.candidate is not None:
                    functions = _compared(functions, endpoint)
                table.append(_traced(*functions) if endpoint.is_traced else functions)

            def run_job(meta: Any, body: Body) -> Reply:
                respond: JobFunction
                call: JobFunction
                respond, call = table[meta.endpoint]
                return call(meta, body) if type(meta) is CallMessage else respond(meta, body)

            yield run_job

    def _lacks_candidate(self, endpoint: Endpoint) -> bool:
        return endpoint.candidate is not None and endpoint.candidate.reference not in self.artifacts


def _open(
    stack: ExitStack,
    endpoint: Endpoint,
    names: Collection[str],
    opened: dict[Any, Any],
    artifacts: Mapping[str, ArtifactVersion],
) -> dict[str, Any]:
    """The values of these resources, and those that the service makes.

    `opened` has the resources that are open, and gets the new ones.
    """
    keys: dict[str, Any] = dict.fromkeys(endpoint.made)
    values: dict[str, Any] = _made(endpoint, artifacts)
    for name, function in endpoint.resources.items():
        if name not in names:
            continue
        versions = {each: artifacts.get(reference) for each, reference in endpoint.artifacts.get(name, {}).items()}
        key, arguments = resource_key(
            function,
            keys | {each: version and version.digest for each, version in versions.items()},
            values | {each: version and Path(version.path) for each, version in versions.items()},
        )
        if key not in opened:
            with started_by(f"the resource {name}"):
                opened[key] = open_resource(stack, function, arguments)
            stack.callback(set_closing_resource, name)  # runs just before the resource closes
            if name in endpoint.checks:
                _check(name, endpoint.checks[name], opened[key])
        keys[name], values[name] = key, opened[key]
    return values


def _check(name: str, check: Callable[[Any], object], value: Any) -> None:
    passed = check(value)
    if passed is not None and not passed:
        raise ConfigurationError(  # it needs no traceback
            f"the check of the resource {name} refuses it: {check.__qualname__} returned {passed!r}"
        )


def _labelled(
    functions: tuple[JobFunction, JobFunction], endpoint: Endpoint, artifacts: Mapping[str, ArtifactVersion]
) -> tuple[JobFunction, JobFunction]:
    from .artifact_labels import label_of, labelled  # not imported in workers without artifacts

    label = label_of(endpoint.artifacts, artifacts)
    return labelled(functions[0], label), functions[1]  # the result of a call has no headers


def _made(endpoint: Endpoint, artifacts: Mapping[str, ArtifactVersion]) -> dict[str, Any]:
    """The values that the service makes. They know which versions this worker serves."""
    if not endpoint.made:
        return {}
    versions = {reference: each.version for reference, each in artifacts.items()}
    return {name: value.with_served(versions.get) for name, value in endpoint.made.items()}


def _compared(functions: tuple[JobFunction, JobFunction], endpoint: Endpoint | None) -> tuple[JobFunction, JobFunction]:
    from .candidate_endpoints import compared  # not imported in workers without candidates

    return compared(functions[0], endpoint), functions[1]


def _responder(endpoint: Endpoint, resources: Values) -> JobFunction:
    if endpoint.durable is not None:
        from .durable_endpoints import attempts_of  # not imported in workers without a job route

        return attempts_of(endpoint, resources)
    return _one_at_a_time(endpoint, resources) if endpoint.batch is None else _batched(endpoint, resources)


def _traced(respond: JobFunction, call: JobFunction) -> tuple[JobFunction, JobFunction]:
    from .worker_tracing import traced  # not imported in the workers of a service without traces

    return traced(respond), traced(call)


def _one_at_a_time(endpoint: Endpoint, resources: Values) -> JobFunction:
    function, path = endpoint.function, endpoint.path
    names = {*resources, *endpoint.request_resources}
    binder = _binder_of(endpoint, names)
    bind, stream_type, compress = binder.bind, binder.stream_type, endpoint.compress
    messages = endpoint.messages
    encode = encode_result if messages is None else message_encoder(messages)
    kind, limit, error_handlers = binder.body_kind, endpoint.max_body_size, endpoint.error_handlers
    is_raw, binds = kind in RAW_KINDS, bool(signature(function).parameters)

    def run_job(message: RequestMessage, body: Body) -> Reply:
        request = request_of(message, body, compress)
        request_id.set(message.id)
        route_name.set(f"{request.method} {path}")
        current.set(Deadline(message.deadline, request))
        try:
            if not is_raw:
                body = typed_body(request, body, kind, limit)
            values = resources if request.resources is None else {**resources, **pickle.loads(request.resources)}
            response = encode(function(**bind(request, body, values)) if binds else function())
            content = response.content
            if isinstance(content, FileContent):
                raise UnencodableResult("a file is sent by an io_route only; return its bytes here, or yield them")
            if type(content) is not bytes and type(content) is not memoryview:
                content = encode_iterator(response, stream_type) if response.content_type != MESSAGE else content
                if request.form_data is not None:
                    content = _holding(request.form_data, content)
            if compress:
                content = _compressed(request, response, content)
        except MemoryError:  # the worker's state is unknown; it is replaced
            raise
        except Exception as error:
            error_response = error_response_of(error, request, error_handlers)
            if error_response is None:
                raise
            response = error_response
            content = response.content
        if type(response.headers) is not HeaderLines or not (response.content_type or "").isascii():
            check_headers(response)  # as in `_head`: this is on the path of each request
        return Reply(ResponseHead(response.status, response.content_type, response.headers), content)

    return run_job


def _binder_of(endpoint: Endpoint, names: set[str], *, batched: bool = False) -> Binder:
    function = endpoint.function
    binder = Binder(function, endpoint.path_parameters, names, batched=batched, has_body=endpoint.has_body)
    return binder if endpoint.messages is None else MessageBinder(binder, endpoint.messages.codec.decode_arguments)


def _holding(form: FormData, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces. The form is referenced until the last one: an UploadFile without a reference closes its file."""
    yield from pieces


def _compressed(request: Request, response: Response, content: Any) -> Any:
    """The content, compressed if the client accepts it; the response gets the headers for this."""
    response.content = content
    coding = begin_compression(request, response)
    if coding is None:
        return content
    return compress_pieces(coding, content) if isinstance(content, Iterator) else compress(coding, content)


def _called(endpoint: Endpoint, resources: Values) -> JobFunction:
    """The handler as a function that the server calls by `call(...)`."""
    own = {name: resources[name] for name in signature(endpoint.function).parameters if name in resources}

    def run_job(message: CallMessage, body: Body) -> Reply:
        args, kwargs = unpickle_pieces(message.lengths, body)
        request_id.set(message.caller)
        caller = Request("GET", endpoint.path, "", Headers(message.headers), id=message.caller)
        current.set(Deadline(message.deadline, caller))
        route_name.set(f"call {endpoint.path}")
        try:
            result = endpoint.function(*args, **{**own, **kwargs})
        except MemoryError:  # the worker's state is unknown; it is replaced
            raise
        except Exception as error:
            return Reply(CallReply([], error_text(error)), pickled_error(error))
        if isinstance(result, Iterator):
            name = endpoint.function.__qualname__
            raise UnencodableResult(f"{name} streams, and only a request can take a stream; call what returns a value")
        lengths, pieces = pickle_pieces(result)
        return Reply(CallReply(lengths), b"".join(pieces))

    return run_job


def _head(response: Response) -> ResponseHead:
    if type(response.headers) is not HeaderLines or not (response.content_type or "").isascii():
        check_headers(response)
    return ResponseHead(response.status, response.content_type, response.headers)


# Batches


def _batched(endpoint: Endpoint, resources: Values) -> JobFunction:
    function, path = endpoint.function, endpoint.path
    names = {*resources, *endpoint.request_resources}
    binder = _binder_of(endpoint, names, batched=True)
    own = {name: resources[name] for name in binder.resources if name in resources}
    bind, kind, limit = binder.bind, binder.body_kind, endpoint.max_body_size
    encode = _encode_whole if endpoint.messages is None else message_encoder(endpoint.messages)

    def run_job(message: BatchMessage, body: Body) -> Reply:
        bodies = list(_parts(body, message.lengths))
        requests = [
            request_of(each, part, endpoint.compress) for each, part in zip(message.requests, bodies, strict=True)
        ]
        route_name.set(f"{requests[0].method} {path}")
        outcomes: list[Any] = [None] * len(requests)
        bound: dict[int, Values] = {}
        for position, (request, part) in enumerate(zip(requests, bodies, strict=True)):
            try:
                values = own if request.resources is None else {**own, **pickle.loads(request.resources)}
                bound[position] = bind(request, typed_body(request, part, kind, limit), values)
            except MemoryError:
                raise
            except Exception as error:  # also an error of the author's code, in a __post_init__
                outcomes[position] = error
        request_id.set(",".join(requests[position].id for position in bound))
        for position, result in zip(bound, _results(function, list(bound.values()), own), strict=True):
            outcomes[position] = result
        parts = [_reply_part(endpoint, encode, *each) for each in zip(outcomes, requests, strict=True)]
        return Reply(BatchReply([part for part, _ in parts]), b"".join([content for _, content in parts]))

    return run_job


def _parts(body: Body, lengths: list[int]) -> Iterator[Body]:
    start = 0
    for length in lengths:
        yield body[start : start + length]
        start += length


def _results(function: Callable[..., Any], bound: list[Values], resources: Values) -> list[Any]:
    """A result or an exception for each request: of one call, or if that raises, of one call for each request."""
    if not bound:
        return []
    try:
        return copy_context().run(_call, function, bound, resources)  # a second call starts with the same variables
    except MemoryError:  # the worker's state is unknown; it is replaced
        raise
    except BaseException as error:
        if len(bound) == 1 or isinstance(error, UnencodableResult):
            return [error] * len(bound)
    return [result for each in bound for result in _results(function, [each], resources)]


def _call(function: Callable[..., Any], bound: list[Values], resources: Values) -> list[Any]:
    lists = {name: [each[name] for each in bound] for name in bound[0] if name not in resources}
    results = function(**lists, **{name: resources[name] for name in resources})
    if isinstance(results, (str, bytes, Mapping, Set)) or not hasattr(results, "__len__") or len(results) != len(bound):
        came = f"{len(results)} of them" if isinstance(results, list) else f"a {type(results).__qualname__}"
        raise UnencodableResult(
            f"the handler was given a batch of {len(bound)} and must return a list of as many results, "
            f"but returned {came}"
        )
    return list(results)


def _reply_part(
    endpoint: Endpoint, encode: Callable[[Any], Response], outcome: Any, request: Request
) -> tuple[BatchPart, Body]:
    """One request's part of the reply of a batch, and its body."""
    try:
        response = encode(outcome) if not isinstance(outcome, BaseException) else None
        if isinstance(outcome, Exception):
            response = error_response_of(outcome, request, endpoint.error_handlers)
        if response is None:
            return BatchPart(0, None, error_text(outcome)), b""
        content = _compressed(request, response, response.content) if endpoint.compress else response.content
        return BatchPart(len(content), _head(response)), content
    except MemoryError:
        raise
    except BaseException as error:
        return BatchPart(0, None, error_text(error)), b""


def _encode_whole(result: Any) -> Response:
    response = encode_result(result)
    if not isinstance(response.content, (bytes, memoryview)):
        raise UnencodableResult(
            "a response of a batch cannot be a stream, but the result is an iterator; return a list"
        )
    return response
